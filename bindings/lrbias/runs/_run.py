"""Reading a run: while it is written, after it ended, or from memory."""

from __future__ import annotations

import functools
from dataclasses import asdict
from os import PathLike
from typing import Any

import numpy as np

from lrbias.errors import InvalidInput, StoreError, shorten
from lrbias.events import Jumps, Plateau, jumps, plateaus
from lrbias.experiments import Stop, parts_of_words
from lrbias.methods import Method
from lrbias.metrics import Record
from lrbias.network import Network
from lrbias.problems import Problem, restore, strengths
from lrbias.runs._reader import RunReader
from lrbias.runs._replay import network_at
from lrbias.runs._tracked import ModelRun, is_model
from lrbias.steppers import Phase
from lrbias.storage import LOSSES, RunFolder, RunSource, find_batched
from lrcore import layout

STRENGTHS, MATRIX = "product/mode_strengths", "product/matrix"
PIECE_BYTES = 1 << 26  # of products that are read at once


def open(path: str | PathLike[str]) -> Run | ModelRun:
    """The run at `path`, as committed now; it may still be being written. `run.refresh()` looks again.

    A Run of a deep linear network, or the ModelRun of a model that `lb.nn` has tracked or trained. Raises InvalidInput
    when there is no run, StoreError when its files are damaged.
    """
    folder = find_batched(path) or RunFolder.existing(path)
    config = folder.config()
    if is_model(config):
        return ModelRun(folder, config)
    check_settings(folder.path, config)
    return Run(folder, config, problem_of(folder, config))


def problem_of(folder: Any, config: dict[str, Any]) -> Problem:
    """The problem of the run in a folder; StoreError when what the folder keeps of it makes none."""
    data = folder.data()
    try:
        return restore(*data).scaled(config.get("output_scale", 1.0))
    except (InvalidInput, KeyError, ValueError, TypeError, IndexError) as error:
        reason = " ".join(f"{error}".split())
        raise StoreError(f"{folder.path} keeps no problem to train on ({reason}); restore it from a copy.") from None


def check_settings(path: Any, config: dict[str, Any]) -> None:
    """StoreError unless the settings in config.json of the run at `path` have the numbers that every run has."""
    for key in ("steps", "every", "checkpoint_every"):
        value = config["settings"].get(key)
        if type(value) is not int or value < 1:
            raise _no_settings(path, f"{key} is {shorten(value)}")


def parts_of(path: Any, config: dict[str, Any]) -> tuple[Method, Record, Stop]:
    """(method, record, stop) of the run at `path`; StoreError when its settings are not those of a run."""
    try:
        return parts_of_words(config["settings"])
    except (InvalidInput, KeyError, ValueError, TypeError, AttributeError) as error:
        raise _no_settings(path, error) from None


def _no_settings(path: Any, error: Exception | str) -> StoreError:
    where = f"{path}/config.json" if path else "config.json"
    reason = " ".join(f"{error}".split())
    return StoreError(f"{where} does not hold the settings of a run ({reason}); restore it from a copy.")


class Run(RunReader):
    """A recorded run of a deep linear network.

    run["layer/1/stable_rank"]   rows of one quantity, first axis = records; `run.names` lists them
    run["sharpness"]             of a metric: the first quantity that it recorded; `run.metrics` lists all of each
    run.steps_of(name)           the steps of these rows
    run.loss, run.steps          the loss at every `Record.every` steps, and these steps
    run.losses                   the loss of every step: losses[k] belongs to the network after k steps
    run.network                  the network at the last checkpoint; `run.checkpoint(step)` any other
    run.network_at(step)         that of any step, trained again from the checkpoint before: the same bits
    run.start                    the network that `train` was handed
    run.status, run.detail       new, running, finished, stopped, interrupted, diverged or failed; a sentence
    run.step                     steps made (committed); run.elapsed seconds of training
    run.phases                   of greedy low-rank learning; run.checkpoint(phase.end) is a critical point
    run.settings                 every setting, as keys of an experiment file
    run.problem, run.target      what was fitted: a Factorization, Completion, Sensing or Regression; its target
    """

    def __init__(self, source: RunSource, config: dict[str, Any], problem: Problem) -> None:
        super().__init__(source, config)
        self.problem = problem

    @property
    def reduced(self) -> str | None:
        """How fewer numbers were trained than the layers have: "diagonal", "compressed", or None for whole layers."""
        return self._config.get("reduced")

    @property
    def step_size(self) -> float:
        """Time t per step: the learning rate of GD, dt of a flow."""
        size: Any = self.settings.get("lr", self.settings.get("dt"))
        return size

    @property
    def method(self) -> Method:
        """How the network was trained: a GD, GradientFlow or SGD."""
        return parts_of(self.path, self._config)[0]

    @property
    def label(self) -> str:
        """Method and step size, for a legend."""
        return self.method.caption

    @property
    def plain(self) -> bool:
        """Whether steps of one size minimise ½‖W − target‖_F², so that theory about that can be drawn over the run."""
        return self.method.is_plain_on(self.problem)

    @property
    def fits_whole(self) -> bool:
        """Whether `losses` are ½‖W − target‖_F², whatever makes the steps: they have levels known beforehand."""
        return self.method.fits_whole(self.problem) and not self.method.stochastic

    def __getitem__(self, name: str) -> np.ndarray:
        return self.loss if isinstance(name, str) and name == "loss" else super().__getitem__(self._stored(name))

    def rows(self, name: str, first: int, last: int) -> np.ndarray:
        return super().rows(self._stored(name), first, last)

    @functools.cached_property
    def metrics(self) -> dict[str, list[str]]:
        """{metric: the names of what it recorded in this run}; run[metric] is the first of them."""
        from lrbias.metrics import METRICS, RunContext  # which need the kernels, and a plain reader does not

        method, record, _ = parts_of(self.path, self._config)
        context = RunContext(self.problem, self.widths, np.dtype(np.float64), record, method)
        chosen = [name for name in record.intervals() if name in METRICS]
        keys = {name: [key for key, *_ in METRICS[name].quantities(context)] for name in chosen}
        return {name: [key for key in listed if key in self] for name, listed in keys.items()}

    def _stored(self, name: Any) -> Any:
        """The name of the quantity that is meant by a name, or by that of a metric."""
        if not isinstance(name, str) or name in self:
            return name
        return next(iter(self.metrics.get(name, ())), name)

    def _known(self) -> str:
        return ", ".join(["loss", *self.names])

    def steps_of(self, name: str) -> np.ndarray:
        """The steps at which a quantity was recorded."""
        return self.steps if isinstance(name, str) and name == "loss" else super().steps_of(self._stored(name))

    @property
    def losses(self) -> np.ndarray:
        return self._source.read(LOSSES, 0, self._progress["losses"])

    @property
    def steps(self) -> np.ndarray:
        every = self.settings["every"]
        return np.arange(0, self._progress["losses"], every)

    @property
    def loss(self) -> np.ndarray:
        return self.losses[:: self.settings["every"]]

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self._config["widths"])

    @property
    def depth(self) -> int:
        return layout.depth(self.widths)

    def checkpoint(self, step: int) -> Network:
        """The network after `step` steps; StoreError when its file is damaged."""
        return self._network_from(self._checkpoint_step(step))

    @property
    def network(self) -> Network:
        return self._network_from(self._progress["checkpoint"])

    @property
    def start(self) -> Network:
        """The Network that `train` was handed: of a linearised run the one that it linearised."""
        known = {"widths": self.widths, "scale": self.problem.output_scale}
        return Network.from_checkpoint({**known, **self._source.checkpoint_arrays(0)})

    def network_at(self, step: int) -> Network:
        """The network after any number of steps that the run has made: trained again from the checkpoint before."""
        return network_at(self, self._source, step)

    def _network_from(self, step: int) -> Network:
        return Network(self._source.checkpoint(step), self.widths, output_scale=self.problem.output_scale)

    @property
    def phases(self) -> list[Phase]:
        """The phases of greedy low-rank learning up to the last checkpoint (see `lrbias.steppers.Phase`); else none."""
        if not self.method.phases:
            return []
        rows = self._source.checkpoint_arrays(self._progress["checkpoint"])["phases"]
        return [Phase.from_row(row) for row in rows]

    @property
    def target(self) -> np.ndarray:
        return self.problem.target

    def jumps(self, lower: float = 0.01, upper: float = 0.02) -> Jumps:
        """The Jumps of the product's rank: see `lb.jumps`."""
        name = "product/singular_values"
        return jumps(self.steps_of(name), self[name], lower, upper)

    @property
    def target_values(self) -> np.ndarray:
        """Singular values of the target."""
        return self.problem.svd.values

    @property
    def target_rank(self) -> int:
        return self.problem.svd.rank

    def mode_strengths(self) -> tuple[np.ndarray, np.ndarray]:
        """(steps (A,), strengths (A, k)): û_iᵀ W v̂_i at the records, of the followed modes whose target value is not 0
        (of a Regression u_aᵀ W v_a, strongest mode first). Equal target values: see `lrbias.problems`.

        They are the metric mode_strengths, or made from recorded products. Raises InvalidInput where neither was
        recorded, and where the target is not known.
        """
        name = self._mode_source()
        if name is None:
            recorded = (
                "a run that recorded mode_strengths or product" if self.problem.target_known else "a known target"
            )
            raise InvalidInput(f"this run has no strengths of modes: expected {recorded}.")
        if name == STRENGTHS:
            return self.steps_of(name), self[name][:, : len(self.problem.mode_values)]
        return self.steps_of(name), self._strengths_of_products()

    def _mode_source(self) -> str | None:
        """The quantity that tells the strengths of modes; None where none does."""
        own = self._config.get("functions", ())  # the user's, whatever they call it
        known = (name for name in (STRENGTHS, MATRIX) if name not in own and self._has_rows(name))
        return next(known, None) if self.problem.target_known else None

    @property
    def tells_modes(self) -> bool:
        """Whether `mode_strengths` and `escape_steps` are known."""
        return self._mode_source() is not None

    def strengths_of(self, products: np.ndarray, directions: int | None = None) -> np.ndarray:
        """(…, k): the strengths of modes in products (…, m, n). directions: how many; None: as the run's record has."""
        record = parts_of_words(self.settings)[1]
        clusters = self.problem.mode_clusters(directions or record.directions, record.degenerate)
        left, right = (vectors[:, : len(clusters)] for vectors in self.problem.mode_directions)
        with np.errstate(all="ignore"):  # what is not finite has no strengths
            return strengths(products, left, right, clusters)[..., : directions or len(self.problem.mode_values)]

    def _strengths_of_products(self) -> np.ndarray:
        """(A, k), read in pieces, since all products at once may not fit into memory."""
        size = max(PIECE_BYTES // (8 * self.target.size), 1)
        count = len(self.steps_of(MATRIX))
        firsts = range(0, count, size)
        return np.concatenate([self.strengths_of(self.rows(MATRIX, first, first + size)) for first in firsts])

    def escape_steps(self, fraction: float = 0.5) -> list[int | None]:
        """Per followed mode of the target, in the order of `mode_strengths`: the first recorded step at which its
        strength is above fraction · its value in the target, or None. Raises InvalidInput as `mode_strengths` does."""
        steps, strengths = self.mode_strengths()
        above = strengths > fraction * self.problem.mode_values[: strengths.shape[1]]
        return [int(steps[column.argmax()]) if column.any() else None for column in above.T]

    def plateaus(self) -> list[Plateau]:
        """Where the effective rank of the product stayed the same for long: see `lb.plateaus`."""
        name = "product/effective_rank"
        return plateaus(self.steps_of(name), self[name])

    def _mean_loss(self, first: int, last: int) -> float | None:
        return float(self._source.read(LOSSES, first, last).mean()) if last else None

    def summary(self) -> dict[str, Any]:
        """The facts of a run as a dictionary: what `lrbias info --json` prints.

        first_loss and last_loss of SGD are means over as many steps as lie between two records.
        """
        count = self._progress["losses"]
        block = self.settings["every"] if self.method.stochastic else 1  # one entry says little
        first = 0, min(block, max(count - 1, 1), count)  # without the last one, which of a run that diverged is inf
        ends = [self._mean_loss(*rows) for rows in (first, (max(count - block, 0), count))]
        facts = {
            "path": str(self.path) if self.path else None,
            "status": self.status,
            "detail": self.detail,
            "step": self.step,
            "steps": self.settings["steps"],
            "elapsed_s": self.elapsed,
            "method": self.label,
            "widths": list(self.widths),
            "target_shape": list(self.target.shape),
            "target_rank": self.target_rank,
            **self.problem.facts(),
            "reduced": self.reduced,
            "first_loss": ends[0],
            "last_loss": ends[1],
            "checkpoints": len(self.checkpoints),
            "quantities": len(self.names),
        }
        if self.tells_modes:
            facts["escape_steps"] = self.escape_steps()
        if self._has_rows("product/singular_values"):
            found = self.jumps()
            facts["rank_jumps"] = {"down": found.down, "up": found.up, "rank": found.rank}
        facts.update({name: float(self[name][-1]) for name in ("train_error", "test_error") if self._has_rows(name)})
        if self.method.phases:
            facts["phases"] = [phase.as_dict() for phase in self.phases]
        if "product/effective_rank" in self:
            facts["plateaus"] = [asdict(plateau) for plateau in self.plateaus()]
        return facts

    def _told_escapes(self, escapes: list[int | None]) -> str:
        escaped = sum(step is not None for step in escapes)
        followed = len(escapes)
        known = len(self.problem.mode_values)
        of = f"{followed}" if followed == known else f"the {followed} leading of {known}"
        return f"{escaped} of {of} modes of the target have passed half of their value"

    def __repr__(self) -> str:
        facts = self.summary()
        lines = [
            f"Run: {facts['method']}, widths {' → '.join(map(str, self.widths))}, "
            f"{facts['status']} at step {self.step} of {facts['steps']}"
            + (f", trained in {self.reduced} form" if self.reduced else ""),
            f"  {facts['detail']}",
        ]
        if facts["last_loss"] is not None:
            lines.append(f"  loss {facts['first_loss']:.4g} → {facts['last_loss']:.4g} in {self.elapsed:.1f} s")
        if "train_error" in facts:
            over = self.problem.errors_over
            hidden = f", {facts['test_error']:.3g} over the {over[1]}" if "test_error" in facts else ""
            lines.append(f"  root mean square error {facts['train_error']:.3g} over the {over[0]}{hidden}")
        if "escape_steps" in facts:
            lines.append(f"  {self._told_escapes(facts['escape_steps'])}")
        ended = [phase for phase in facts.get("phases", []) if phase["end"] is not None]
        if ended:
            ends = ", ".join(f"rank {phase['rank']} at step {phase['end']}" for phase in ended)
            lines.append(f"  phases ended with {ends}")
        if facts.get("plateaus"):
            levels = ", ".join(f"{plateau['level']:.2f}" for plateau in facts["plateaus"])
            lines.append(f"  effective rank stays at {levels}")
        kept = facts["path"] or "in memory"
        lines.append(f"  {facts['quantities']} quantities, {facts['checkpoints']} checkpoints, store: {kept}")
        return "\n".join(lines)
