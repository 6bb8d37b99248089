"""How every figure looks: style, colours, sizes, files. Readable in print and in grey."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike

from lrbias.errors import FigureError, InvalidInput, StoreError
from lrbias.system import as_path, usual_errors, write_file

F = TypeVar("F", bound=Callable[..., Any])
Drawable = list[tuple[str, Callable[[], Figure], str]]  # name, function that draws, caption

STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}
BETWEEN = 1.7  # above the grid, below what was measured
THEORY: dict[str, Any] = {"color": "0.35", "linestyle": (0, (4, 3)), "linewidth": 0.8, "zorder": BETWEEN}
PHASE: dict[str, Any] = {"color": "0.45", "linestyle": ":", "linewidth": 0.8, "zorder": BETWEEN, "clip_on": False}
LINES = ("-", "--", "-.", ":")
MOST_POINTS, FIRST_POINTS = 2000, 500
LARGEST = 1e100  # on a logarithmic axis: ticks around numbers near the end of their range overflow
CROWDED = 150  # from this ratio of its ends on a logarithmic axis has numbers at powers of ten only
WIDTH = 6.8  # inches, a text width
LAYOUT: Literal["constrained"] = "constrained"  # matplotlib's engine that keeps labels apart


def new_figure(rows: int = 1, columns: int = 1, height: float = 2.6, **options: Any) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(WIDTH, height * rows), layout=LAYOUT)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def new_mosaic(rows: Any, height: float, **options: Any) -> tuple[Figure, dict[str, Axes]]:
    """A figure and {name: axes}; rows: lists of names, as for `Figure.subplot_mosaic`."""
    figure = Figure(figsize=(WIDTH, height), layout=LAYOUT)
    return figure, figure.subplot_mosaic(rows, **options)


@contextlib.contextmanager
def our_style() -> Iterator[None]:
    """STYLE on top of matplotlib's defaults, whatever the user's settings are; these are put back."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast(Any, STYLE))
        yield


def styled(draw: F) -> F:
    """Draw within our style, whatever the caller's settings of matplotlib and of floating-point errors are."""

    @usual_errors
    @functools.wraps(draw)
    def wrapper(*args: Any, **options: Any) -> Any:
        with our_style():
            return draw(*args, **options)

    return cast(F, wrapper)


def literal(name: Any) -> str:
    """A name of the user's as text of a figure, in which a dollar sign would begin a formula."""
    return str(name).replace("$", r"\$")


def dark_to_light(count: int) -> np.ndarray:
    """Dark to light, strictly lighter with the index, so that the order survives in grey."""
    return matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, max(count, 1)))


def caption(draw: Callable[..., Any]) -> str:
    """The first paragraph of a drawing function's docstring, for a page that shows the figure."""
    return " ".join((draw.__doc__ or "").split("\n\n")[0].split())  # python -OO leaves out docstrings


def thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most about MOST_POINTS + FIRST_POINTS of the points: the first ones, where much happens, and even ones."""
    stride = max(1, len(steps) // MOST_POINTS)
    first = min(FIRST_POINTS, len(steps)) if stride > 1 else 0
    kept = np.union1d(np.arange(first), np.arange(0, len(steps), stride))
    return steps[kept], values[kept]


def positive(values: np.ndarray) -> np.ndarray:
    """`values` for a logarithmic axis: NaN, which leaves a gap, for what has no place there."""
    return np.where((values > 0) & (values < LARGEST), values, np.nan)


def say_if_empty(axes: Axes, sentence: str) -> None:
    """Write a sentence into a panel in which no curve has a point, instead of ticks that matplotlib makes up."""
    if not any(np.isfinite(np.asarray(line.get_ydata(), float)).any() for line in axes.get_lines()):
        axes.set_yticks([])
        axes.set_yticks([], minor=True)
        axes.text(0.5, 0.5, sentence, ha="center", va="center", transform=axes.transAxes)


def largest(values: ArrayLike, default: float = 1.0) -> float:
    """The largest finite number among `values`, for the end of an axis; `default` where there is none."""
    values = np.asarray(values, float)
    known = values[np.isfinite(values) & (values < LARGEST)]
    return known.max() if known.size else default


def log_axes(grid: np.ndarray, x: bool = False, y: bool = False) -> None:
    """Logarithmic axes for all panels, unless none has anything to show: matplotlib refuses to draw those."""
    for wanted, k, scale in ((x, 0, "xscale"), (y, 1, "yscale")):
        if wanted and any(np.isfinite(panel.dataLim.minpos[k]) for panel in grid.flat):
            for panel in grid.flat:
                panel.set(**{scale: "log"})


def shared_legend(figure: Figure, grid: np.ndarray) -> None:
    """One legend below all panels, every label once."""
    known: dict[str, Any] = {}
    for panel in grid.flat:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    if known:
        figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=min(len(known), 6))


def plain_ticks(*axes: Any) -> None:
    """Numbers like 0.2, 5 and 100 at logarithmic axes, also where they span less than a decade."""
    for axis in axes:
        if axis.get_scale() != "log":  # as where nothing can be shown on one
            continue
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < CROWDED * low else (1,)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def save_figure(figure: Figure, folder: str | PathLike[str], name: str, formats: Sequence[str]) -> list[Path]:
    """Write one figure in each format, each file whole or not at all; returns the paths."""
    folder = as_path("output", folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"output = {str(folder)!r} is not accepted: expected a folder that can be written ({error.strerror})."
        ) from None
    paths = []
    for suffix in formats:
        data = io.BytesIO()
        with our_style():
            figure.savefig(data, format=suffix)
        figure.set_layout_engine("none")  # it is laid out now: for another format that need not be found again
        paths.append(folder / f"{name}.{suffix}")
        write_file(paths[-1], data.getvalue())
    return paths


def save_each(figures: Drawable, folder: str | PathLike[str], formats: Sequence[str]) -> list[Path]:
    """Write the figures of [(name, function without arguments, caption)]; returns the paths.

    One that cannot be drawn does not keep the others from it: then FigureError is raised at the end.
    """
    paths = []
    failed = {}
    for name, draw, _ in figures:
        try:
            paths += save_figure(draw(), folder, name, formats)
        except (InvalidInput, StoreError):  # nor can the others be written there
            raise
        except Exception as error:  # of which the user hears, with the first as the cause
            failed[name] = error
    if failed:
        first = next(iter(failed.values()))
        names = "figure " + " and ".join(failed) if len(failed) < 3 else f"{len(failed)} figures"
        raise FigureError(f"{names} cannot be drawn ({type(first).__name__}: {first})", paths) from first
    return paths
