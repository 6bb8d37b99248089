"""What the study of Wang and Jacot found, as tables."""

import numpy as np

from lrbias.analysis import rate_interval
from lrbias.studies import Findings
from lrbias.studies.wang_jacot._curvature import least_curvature
from lrbias.studies.wang_jacot._outcomes import OUTCOMES, TRUE_RANK, outcomes
from lrbias.studies.wang_jacot._parameters import DEPTH_INSTANCE, DEPTH_LR, NOISES, ONE_WAY, SETS, SMALL_RIDGE
from lrbias.sweeps import as_csv

RATES = "first jumps a million steps [95 %]"


class JumpFindings(Findings):
    """All parts of the study, made where they are missing, and their tables."""

    def __init__(self, study):
        super().__init__(study)
        self.one_way = study.one_way()
        self.sampling = study.sampling()
        self.example = study.example(self.one_way[0][2])
        self.depths = study.depths()
        self.widths = study.widths()
        self.phases = study.phases()
        self.schedules = {noise: study.schedules(noise) for noise in NOISES}
        self.baselines = {noise: study.baselines(noise) for noise in NOISES}

    def one_way_table(self):
        """A dictionary for each start: what it is, jumps down and up, entries into B_1 and exits from it."""
        rows = []
        for (name, before, made), (_, instance, noise, depth, lr, ridge, start) in zip(
            self.one_way, ONE_WAY, strict=True
        ):
            curvature = least_curvature(before) if start == "minimum" else None
            settings = {"name": name, "instance": instance, "noise": noise, "depth": depth, "lr": lr, "ridge": ridge}
            facts = {"start": start, "start_rank": before.jumps().rank, "least_curvature": curvature}
            rows.append({**settings, **facts, **made.table(), "final_ranks": _counts(made)})
        return rows

    def sampling_table(self):
        """A dictionary for each batch size and kind of sampling."""
        return [
            {"batch": batch, "replacement": replacement, **_rates(made)} for batch, replacement, made in self.sampling
        ]

    def depth_table(self):
        """A dictionary for each depth and ridge."""
        return [
            {"depth": depth, "ridge": ridge, **_start(before), **_rates(made)}
            for depth, ridge, before, made in self.depths
        ]

    def width_table(self):
        """A dictionary for each width of the hidden layers."""
        return [{"width": width, **_start(before), **_rates(made)} for width, before, made in self.widths]

    def phase_table(self):
        """A dictionary for each cell: learning rate, ridge, how many seeds had which outcome, jumps, rank of GD."""
        own = self.parameters
        descents, made = self.phases
        ranks = {ridge: run.jumps().rank for ridge, run in descents.items()}
        outcome = outcomes(made)
        rows = []
        for lr in own.phase_lrs:
            for ridge in own.phase_ridges:
                cell = (made.lr == lr) & (made.ridge == ridge)
                counts = {name: int((outcome[cell] == k).sum()) for k, name in enumerate(OUTCOMES)}
                millions = made.ended[cell & ~made.diverged].sum() / 1e6
                jumps = {"down": int(made.down[cell].sum()), "up": int(made.up[cell].sum()), "million_steps": millions}
                for name in ("down", "up"):
                    bounds = rate_interval(jumps[name], millions) if millions else (None, None)
                    jumps[f"{name}_low"], jumps[f"{name}_high"] = bounds
                rows.append({"lr": lr, "ridge": ridge, **counts, **jumps, "gd_rank": ranks[ridge]})
        return rows

    def test_errors(self, noise):
        """{method: (instances,)}: errors over the hidden entries at the end, of SGD the medians over seeds."""
        of_sgd = {name: self._by_instance(made.test_error) for name, made in self.schedules[noise].items()}
        return {**of_sgd, **self.baselines[noise]}

    def _by_instance(self, values):
        """(instances,): medians over the seeds of the last record."""
        return np.nanmedian(values[:, -1].reshape(self.parameters.instances, -1), axis=1)

    def schedule_table(self, noise):
        """A dictionary for each way: median errors, share of runs at the true rank, instances where it is best."""
        hidden = self.test_errors(noise)
        best = np.min(list(hidden.values()), axis=0)
        rows = []
        for name, errors in hidden.items():
            made = self.schedules[noise].get(name)
            row = {"method": name, "test_error": float(np.median(errors)), "best": int((errors == best).sum())}
            row["train_error"] = None if made is None else float(np.nanmedian(made.train_error[:, -1]))
            row["at_true_rank"] = None if made is None else float((made.ranks[:, -1] == TRUE_RANK).mean())
            row["wins_over_gd"] = int((errors < hidden["GD, best ridge"]).sum())
            row["wins_over_nuclear"] = int((errors < hidden["nuclear norm, best weight"]).sum())
            rows.append(row)
        return rows

    def as_dict(self):
        return {
            "one_way": self.one_way_table(),
            "sampling": self.sampling_table(),
            "depths": self.depth_table(),
            "widths": self.width_table(),
            "phases": self.phase_table(),
            "phase_seconds": self.phases[1].seconds,
            "schedules": {str(noise): self.schedule_table(noise) for noise in self.schedules},
        }

    def more_files(self):
        return {"phases.csv": as_csv(self.phase_table())}

    def figures(self):
        from lrbias.studies.wang_jacot import _plots as wang_jacot_plots

        return wang_jacot_plots.available(self)

    @property
    def info(self):
        return self.one_way[0][1].info

    def tables(self):
        yield self._one_way_text()
        yield self._phase_text()
        yield self._depth_text()
        yield self._sampling_text()
        yield self._width_text()
        for noise in self.schedules:
            yield self._schedule_text(noise)

    def _one_way_text(self):
        start = ("start", "N", "η", "λ", "rank at start", "least curvature", "runs × steps", "down", "up")
        heads = (*start, "ranks at the end", "entered B_1", "exits from B_1", "diverged")
        rows = []
        for row in self.one_way_table():
            curvature = "not at an end" if row["least_curvature"] is None else f"{row['least_curvature']:.0e}"
            ends = ", ".join(f"{number} × {rank}" for rank, number in row["final_ranks"].items())
            size = f"{row['runs']} × {row['steps']}"
            cells = [row["name"], row["depth"], f"{row['lr']:g}", f"{row['ridge']:g}", row["start_rank"], curvature]
            jumps = [_rate(row["down"]), _rate(row["up"]), ends, row["entered"]["runs"], _rate(row["exits"])]
            rows.append([*cells, size, *jumps, row["diverged"]])
        text = (
            "Counts of lost and gained directions (of runs that did not diverge) and of exits, with rates a million "
            "steps and exact 95 % intervals. "
            f"B_1 with ε_1 = {SETS.balance:g}, ε_2 = {SETS.slack:g}, α = {SETS.alpha:g}, C = {SETS.bound:g} (ours). "
            "Ranks at the end: runs × rank, without those that diverged."
        )
        return "Ranks fall and do not rise", text, heads, rows

    def _phase_text(self):
        own = self.parameters
        (descents, made), rows = self.phases, self.phase_table()
        heads = ("η", *OUTCOMES, "down", "up", "lower than the start")
        cells = []
        for lr in own.phase_lrs:
            mine = [row for row in rows if row["lr"] == lr]
            counts = [sum(row[name] for row in mine) for name in OUTCOMES]
            lower = _below_descent(made, descents, made.lr == lr)
            jumps = [sum(row["down"] for row in mine), sum(row["up"] for row in mine)]
            cells.append([f"{lr:.3g}", *counts, *jumps, lower])
        grid = f"{len(own.phase_lrs)} learning rates × {len(own.phase_ridges)} ridges"
        text = (
            f"{grid} × {own.seeds} seeds, {made.steps[-1]} steps each, {made.seconds:.0f} s of threads "
            "in all. "
            "Every run starts at the minimum that gradient descent finds at its ridge. Runs of each learning rate by "
            "outcome, summed over the ridges; directions lost and gained; last column: runs that end, finite, at a "
            "lower rank than they started from. phases.csv has every cell, with intervals of the rates."
        )
        return "Phase diagram", text, heads, cells

    def _depth_text(self):
        heads = ("N", "λ", "rank of GD's minimum", "jumped", RATES, "up", "diverged", "ranks at the end")
        rows = [[r["depth"], f"{r['ridge']:g}", _start_cell(r), *_rate_cells(r)] for r in self.depth_table()]
        text = (
            f"Each depth from its own minimum, η = {DEPTH_LR:g}, instance {DEPTH_INSTANCE}. "
            "*: gradient descent was not at its end yet, so that a fall may be its own."
        )
        return "Depth", text, heads, rows

    def _sampling_text(self):
        heads = ("batch", "with replacement", "jumped", RATES, "up", "diverged", "ranks at the end")
        rows = [[r["batch"], "yes" if r["replacement"] else "no", *_rate_cells(r)] for r in self.sampling_table()]
        return "Sampling", "From the first start above; steps, not epochs, are counted.", heads, rows

    def _width_text(self):
        heads = ("hidden width", "rank of GD's minimum", "jumped", RATES, "up", "diverged", "ranks at the end")
        rows = [[r["width"], _start_cell(r), *_rate_cells(r)] for r in self.width_table()]
        text = (
            "Hidden layers of other widths, settings of the first start above. Directions that are not in use stay at "
            "0, so networks that are wide enough make the same steps with the same draws."
        )
        return "Width", text, heads, rows

    def _schedule_text(self, noise):
        own = self.parameters
        heads = ("method", "hidden error", "train error", "at rank 1", "best of all", "better than GD", "than nuclear")
        rows = []
        for row in self.schedule_table(noise):
            share = "—" if row["at_true_rank"] is None else f"{100 * row['at_true_rank']:.0f} %"
            train = "—" if row["train_error"] is None else f"{row['train_error']:.3g}"
            wins = [row["best"], row["wins_over_gd"], row["wins_over_nuclear"]]
            rows.append([row["method"], f"{row['test_error']:.3g}", train, share, *wins])
        text = (
            f"From where gradient descent with λ = {SMALL_RIDGE:g} was stopped after "
            f"{own.early_steps} steps. Medians over {own.instances} instances (of SGD over seeds first) of root mean "
            "square errors; the last three columns count instances. “Best” ridges and weights are chosen by the "
            "hidden error, which favours GD and the nuclear norm; SGD has the same settings everywhere."
        )
        return f"Schedules, noise {noise:g}", text, heads, rows


def _below_descent(made, descents, chosen):
    """How many of the chosen runs end, finite, at a lower rank than gradient descent with their ridge."""
    ranks = {float(ridge): run.jumps().rank for ridge, run in descents.items()}
    of_descent = np.array([ranks[float(ridge)] for ridge in made.ridge])
    return int(((made.ranks[:, -1] < of_descent) & ~made.diverged & chosen).sum())


def _counts(made):
    """{rank: runs} at the end, without what diverged."""
    ranks, counts = np.unique(made.ranks[~made.diverged, -1], return_counts=True)
    return {int(rank): int(count) for rank, count in zip(ranks, counts, strict=True)}


def _start(before):
    """Where gradient descent left the network that SGD starts from."""
    return {"start_rank": before.jumps().rank, "at_end": before.status == "stopped"}


def _start_cell(row):
    return f"{row['start_rank']}{'' if row['at_end'] else '*'}"


def _rates(made):
    return {
        "runs": len(made),
        "jump_rate": made.jump_rate(),
        "up": int(made.up.sum()),
        "diverged": int(made.diverged.sum()),
        "final_ranks": _counts(made),
    }


def _rate_cells(row):
    ends = ", ".join(f"{number} × {rank}" for rank, number in row["final_ranks"].items())
    jumped = f"{row['jump_rate']['count']} of {row['runs']}"
    return [jumped, _rate(row["jump_rate"], count=False), row["up"], row["diverged"], ends]


def _rate(found, count=True):
    if found["rate"] is None:
        return str(found["count"])
    lower, upper = found["interval"]
    rate = f"{found['rate']:.3g} [{lower:.2g}, {upper:.2g}]"
    return f"{found['count']}: {rate}" if count else rate
