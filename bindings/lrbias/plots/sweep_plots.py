"""Figures of a sweep: curves in small multiples, coloured by a setting, and maps over two settings."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lrbias.errors import check, shorten
from lrbias.plots._drawing import (
    LINES,
    Drawable,
    caption,
    dark_to_light,
    literal,
    log_axes,
    new_figure,
    positive,
    save_each,
    shared_legend,
    styled,
    thin,
)
from lrbias.runs import Run
from lrbias.system import usual_errors

MOST_CURVES = 400  # runs; more lines than that show nothing
MOST_PANELS = 5  # in each direction
CURVES = {
    "product/effective_rank": "effective rank of the product",
    "product/stable_rank": "stable rank of the product",
    "loss": r"loss $\frac{1}{2}\|W - \hat W\|_F^2$",
}
MAPS = {
    "product/effective_rank": "effective rank at the end",
    "escaped": r"modes that have passed $\hat\sigma_i/2$",
    "last_escape_t": r"time $t$ at which the last of them passed $\hat\sigma_i/2$",
    "last_loss": "loss at the end",
}
LOGARITHMIC = ("loss", "last_loss", "last_escape_t")


@usual_errors
def save(sweep: Any, folder: str | PathLike[str], formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write every figure that the sweep has rows for; returns the paths."""
    return save_each(available(sweep), folder, formats)


def available(sweep: Any) -> Drawable:
    """(name, function without arguments, caption) of every figure that the sweep has rows for."""
    rows = sweep.table()
    axes = len(_axes(sweep)) - 1  # one axis stands for no setting
    made: Drawable = []
    for quantity in CURVES:
        if len(rows) <= MOST_CURVES and _recorded(sweep, quantity):
            name = f"curves-{quantity.replace('/', '-')}"
            made.append((name, functools.partial(curves, sweep, quantity), f"{quantity}: {caption(curves)}"))
    for value in MAPS:
        if axes > 1 and any(_value(row, value) is not None for row in rows) and _panels(sweep) <= MOST_PANELS**2:
            name = f"map-{value.replace('/', '-')}"
            made.append((name, functools.partial(map_over, sweep, value), f"{value}: {caption(map_over)}"))
    return made


def _panels(sweep: Any) -> int:
    """How many panels a map over the last two settings has."""
    return math.prod(len(values) for values in list(_axes(sweep).values())[:-3])


@styled
def curves(
    sweep: Any,
    quantity: str = "product/effective_rank",
    rows: str | None = None,
    columns: str | None = None,
    colour: str | None = None,
) -> Figure:
    """A line for every run over t = step size · iteration; panels and colours by setting.

    rows, columns, colour: the settings that choose the panel's row and column and the colour of a line; by default the
    first, the second and the last that vary. Runs that differ in other settings share a panel and a colour.
    """
    check(quantity in CURVES, "quantity", quantity, f"one of {', '.join(CURVES)}")
    axes = _axes(sweep)
    rows, columns, colour = _chosen(axes, rows, columns, colour)
    figure, grid = new_figure(len(axes[rows]), len(axes[columns]), height=1.9, sharex=True, sharey=True)
    shades = dark_to_light(len(axes[colour]))
    for row in sweep.table():
        if row["status"] in ("missing", "failed"):
            continue
        run = sweep[row["run"]]
        key = axes[colour].index(_key(row, colour))
        panel: Any = grid[axes[rows].index(_key(row, rows)), axes[columns].index(_key(row, columns))]
        x, y = _curve(run, quantity)
        panel.plot(x, y, color=shades[key], linestyle=LINES[key % len(LINES)], label=_label(colour, axes[colour][key]))
    _finish_curves(figure, grid, axes, rows, columns, quantity)
    return figure


def _curve(run: Run, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    steps, values = thin(run.steps_of(quantity), run[quantity])
    if quantity in LOGARITHMIC:
        values = positive(values)
    inside = steps > 0  # the axis is logarithmic
    return steps[inside] * run.step_size, values[inside]


def _finish_curves(
    figure: Figure, grid: np.ndarray, axes: Any, rows: str | None, columns: str | None, quantity: str
) -> None:
    log_axes(grid, x=True, y=quantity in LOGARITHMIC)
    for (i, j), panel in np.ndenumerate(grid):
        titles = [_label(name, axes[name][k]) for name, k in ((rows, i), (columns, j)) if name]
        panel.set_title(", ".join(titles), fontsize=7.5)
        if i == grid.shape[0] - 1:
            panel.set_xlabel("$t$ = step size · iteration")
    figure.supylabel(CURVES[quantity], fontsize=9)
    shared_legend(figure, grid)


@styled
def map_over(sweep: Any, value: str = "product/effective_rank", x: str | None = None, y: str | None = None) -> Figure:
    """A column of the sweep's table as a map over two settings; a panel for each combination of the others.

    x, y: the settings along the axes, by default the last and the one before it. Numbers are written into the fields;
    an empty field has no value: the run is missing, diverged, or nothing passed.
    """
    check(value in MAPS, "value", value, f"one of {', '.join(MAPS)}")
    axes = _axes(sweep)
    names = [name for name in axes if name is not None]
    check(len(names) > 1, "sweep", shorten(names), "a sweep over at least two settings")
    x = names[-1] if x is None else _known("x", x, names)
    y = next(name for name in reversed(names) if name != x) if y is None else _known("y", y, names)
    others = [name for name in names if name not in (x, y)]
    panels = list(itertools.product(*(axes[name] for name in others)))
    check(len(panels) <= MOST_PANELS**2, "sweep", len(panels), f"at most {MOST_PANELS**2} panels")
    columns = min(len(panels), 3)
    figure, grid = new_figure(-(-len(panels) // columns), columns, height=2.3)
    fields = {panel: np.full((len(axes[y]), len(axes[x])), np.nan) for panel in panels}
    for row in sweep.table():
        found = None if row["status"] == "diverged" else _value(row, value)
        place = axes[y].index(_key(row, y)), axes[x].index(_key(row, x))
        fields[tuple(_key(row, name) for name in others)][place] = np.nan if found is None else found
    _draw_maps(figure, grid, fields, axes, (x, y), others, value)
    return figure


def _draw_maps(figure: Figure, grid: np.ndarray, fields: Any, axes: Any, names: Any, others: Any, value: Any) -> None:
    x, y = names
    every = np.concatenate([field.ravel() for field in fields.values()])
    kind = matplotlib.colors.LogNorm if value in LOGARITHMIC else matplotlib.colors.Normalize
    known = every[np.isfinite(every) & ((every > 0) | (value not in LOGARITHMIC))]
    norm = kind(known.min(), known.max()) if known.size else None
    for panel in grid.flat[len(fields) :]:
        panel.set_visible(False)
    for panel, (combination, field) in zip(grid.flat, fields.items(), strict=False):
        image = panel.imshow(field, norm=norm, cmap="cividis", origin="lower", aspect="auto")
        panel.set_xticks(range(len(axes[x])), map(literal, axes[x]))
        panel.set_yticks(range(len(axes[y])), map(literal, axes[y]))
        panel.set(xlabel=literal(x), ylabel=literal(y))
        panel.grid(False)
        panel.set_title(", ".join(_label(n, v) for n, v in zip(others, combination, strict=True)), fontsize=7.5)
        for (i, j), number in np.ndenumerate(field):
            if np.isfinite(number):
                bright = norm is not None and norm(number) > 0.55
                panel.text(j, i, f"{number:.3g}", ha="center", va="center", fontsize=6.5, color="k" if bright else "w")
    figure.suptitle(MAPS[value], fontsize=9)
    figure.colorbar(image, ax=list(grid.flat), shrink=0.8, ticks=_ticks(known, value))


def _ticks(known: Any, value: Any) -> Any:
    """Where the colour bar has numbers: at the only one that there is, at integers for a count, else by default."""
    if known.size and known.min() == known.max():
        return known[:1]
    return MaxNLocator(integer=True) if value == "escaped" else None


def _axes(sweep: Any) -> dict[str | None, Any]:
    """{setting: its values in order} of the settings that vary, and {None: [None]} for those that are not there."""
    rows = sweep.table()
    found = {name: list(dict.fromkeys(_key(row, name) for row in rows)) for name in sweep.varied}
    axes: dict[str | None, Any] = {name: values for name, values in found.items() if len(values) > 1}
    return {**axes, None: [None]}


def _key(row: dict[Any, Any], name: str | None) -> Any:
    value = row.get(name)
    return "x".join(map(str, value)) if isinstance(value, list) else value


def _label(name: str | None, value: Any) -> str:
    return literal(f"{name} = {value}") if name else ""


def _known(argument: str, name: str | None, names: Any) -> str | None:
    check(name in names, argument, name, f"one of the settings that vary ({', '.join(names)})")
    return name


def _chosen(
    axes: Any, rows: str | None, columns: str | None, colour: str | None
) -> tuple[str | None, str | None, str | None]:
    """The settings for rows, columns and colour; those that are not given are filled in, few values first to panels."""
    names = [name for name in axes if name is not None]
    given = {"rows": rows, "columns": columns, "colour": colour}
    for argument, name in given.items():
        if name is not None:
            _known(argument, name, names)
    free = [name for name in names if name not in given.values()]
    if colour is None:
        colour = free.pop() if free else None
    small = [name for name in free if len(axes[name]) <= MOST_PANELS]
    if columns is None:
        columns = small.pop() if small else None
    if rows is None:
        rows = small.pop() if small else None
    return rows, columns, colour


def _recorded(sweep: Any, quantity: str) -> bool:
    made = [row["run"] for row in sweep.table() if row["status"] not in ("missing", "failed")]
    return bool(made) and (quantity == "loss" or all(quantity in sweep[name] for name in made))


def _value(row: dict[str, Any], value: Any) -> float | None:
    """A number of a row of the table, or None."""
    if value == "last_escape_t":
        passed = [step for step in row["escape_steps"] or [] if step is not None]
        return max(passed) * row["t"] / row["step"] if passed and row["step"] else None
    found = row[value]
    return None if found is None or not np.isfinite(found) else found
