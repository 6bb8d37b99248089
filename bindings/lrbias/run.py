"""Reading a run: while it is written, after it ended, or from memory."""

from dataclasses import asdict

import numpy as np

from lrbias.batch_file import find_batched
from lrbias.completion import restore
from lrbias.errors import InvalidInput, StoreError, shorten
from lrbias.experiment import parts
from lrbias.greedy import Phase
from lrbias.jumping import jumps
from lrbias.log import LOSSES
from lrbias.network import Network
from lrbias.plateau import plateaus
from lrbias.store import RunFolder
from lrcore import layout


def open(path):
    """The run at `path`, as committed now; it may still be being written. `run.refresh()` looks again.

    Raises InvalidInput when there is no run, StoreError when its files are damaged.
    """
    folder = find_batched(path) or RunFolder.existing(path)
    return Run(folder, folder.config(), restore(*folder.data()))


class Run:
    """A recorded run.

    run["layer/1/stable_rank"]   rows of one quantity, first axis = records; `run.names` lists them
    run.steps_of(name)           the steps of these rows
    run.loss, run.steps          the loss at every `Record.every` steps, and these steps
    run.losses                   the loss of every step: losses[k] belongs to the network after k steps
    run.network                  the network at the last checkpoint; `run.checkpoint(step)` any other
    run.status, run.detail       new, running, finished, stopped, interrupted, diverged or failed; a sentence
    run.step                     steps made (committed); run.elapsed seconds of training
    run.phases                   of greedy low-rank learning; run.checkpoint(phase.end) is a critical point
    run.settings                 every setting, as keys of an experiment file
    run.problem, run.target      what was fitted: Factorization, Completion or Sensing; its target
    """

    def __init__(self, source, config, problem):
        self._source, self._config, self.problem = source, config, problem
        self.refresh()

    def refresh(self):
        """Look again at a run that is still being written. Returns the run."""
        self._progress = self._source.progress()
        return self

    @property
    def settings(self):
        return self._config["settings"]

    @property
    def reduced(self):
        """How fewer numbers were trained than the layers have: "diagonal", "compressed", or None for whole layers."""
        return self._config.get("reduced")

    @property
    def info(self):
        """Versions, machine and promise level that the run was made with."""
        return self._config["made_with"]

    @property
    def path(self):
        """The run directory, None for a run in memory."""
        return getattr(self._source, "path", None)

    @property
    def status(self):
        return self._progress["status"]

    @property
    def detail(self):
        return self._progress["detail"]

    @property
    def step(self):
        return self._progress["step"]

    @property
    def elapsed(self):
        return self._progress["elapsed"]

    @property
    def names(self):
        """Names of all recorded quantities."""
        return list(self._config["quantities"])

    @property
    def step_size(self):
        """Time t per step: the learning rate of GD, dt of a flow."""
        return self.settings.get("lr", self.settings.get("dt"))

    @property
    def method(self):
        """How the network was trained: a GD, GradientFlow or SGD."""
        return parts(self.settings)[0]

    @property
    def label(self):
        """Method and step size, for a legend."""
        return self.method.caption

    @property
    def plain(self):
        """Whether the loss is ½‖W − target‖² and nothing else, so that theory about that can be drawn over it."""
        return self.problem.plain and self.method.plain

    def __contains__(self, name):
        return name in self._config["quantities"]

    def __getitem__(self, name):
        if name == "loss":
            return self.loss
        interval = self._interval(name)
        return self._source.read(name, 0, self._rows(name, interval))

    def rows(self, name, first, last):
        """Rows first … last − 1 of one of `run.names`, as far as they were recorded: for what is too large at once."""
        count = self._rows(name, self._interval(name))
        return self._source.read(name, first, max(first, min(last, count)))

    def _interval(self, name):
        if name not in self:
            raise InvalidInput(
                f"{shorten(name)} was not recorded in this run: expected one of {', '.join(['loss', *self.names])}."
            )
        return self._config["quantities"][name]["interval"]

    def _rows(self, name, interval):
        return self._progress["losses"] if name == LOSSES else self._progress["rows"].get(str(interval), 0)

    def _has_rows(self, name):
        return name in self and self._rows(name, self._interval(name)) > 0

    def steps_of(self, name):
        """The steps at which a quantity was recorded."""
        if name == "loss":
            return self.steps
        interval = self._interval(name)
        return np.arange(self._rows(name, interval)) * interval

    @property
    def losses(self):
        return self._source.read(LOSSES, 0, self._progress["losses"])

    @property
    def steps(self):
        every = self.settings["every"]
        return np.arange(0, self._progress["losses"], every)

    @property
    def loss(self):
        return self.losses[:: self.settings["every"]]

    @property
    def widths(self):
        return tuple(self._config["widths"])

    @property
    def depth(self):
        return layout.depth(self.widths)

    @property
    def checkpoints(self):
        """Steps that can be given to `checkpoint`."""
        return [step for step in self._source.checkpoint_steps() if step <= self.step]

    def checkpoint(self, step):
        """The network after `step` steps; StoreError when its file is damaged."""
        if step not in self.checkpoints:
            raise InvalidInput(
                f"step = {shorten(step)} is not accepted: expected one of the checkpoints {shorten(self.checkpoints)}."
            )
        return Network(self._source.checkpoint(step), self.widths)

    @property
    def network(self):
        return Network(self._source.checkpoint(self._progress["checkpoint"]), self.widths)

    @property
    def phases(self):
        """The phases of greedy low-rank learning up to the last checkpoint (see `lrbias.greedy.Phase`); else none."""
        if self.method.name != "glrl":
            return []
        rows = self._source.checkpoint_arrays(self._progress["checkpoint"])["phases"]
        return [Phase.from_row(row) for row in rows]

    @property
    def target(self):
        return self.problem.target

    def jumps(self, lower=0.01, upper=0.02):
        """The Jumps of the product's rank: see `lb.jumps`."""
        name = "product/singular_values"
        return jumps(self.steps_of(name), self[name], lower, upper)

    @property
    def target_values(self):
        """Singular values of the target."""
        return self.problem.spectrum.values

    @property
    def target_rank(self):
        return self.problem.spectrum.rank

    def escape_steps(self, fraction=0.5):
        """Per nonzero target value σ̂_i, largest first: the first recorded step with σ_i > fraction · σ̂_i, or None."""
        values = self["product/singular_values"]
        steps = self.steps_of("product/singular_values")
        above = values[:, : self.target_rank] > fraction * self.target_values[: self.target_rank]
        return [int(steps[column.argmax()]) if column.any() else None for column in above.T]

    def plateaus(self):
        """Where the effective rank of the product stayed the same for long: see `lb.plateaus`."""
        name = "product/effective_rank"
        return plateaus(self.steps_of(name), self[name])

    def to_xarray(self):
        """All recorded quantities as an xarray.Dataset (extra `xarray`); one step coordinate per interval."""
        try:
            import xarray
        except ImportError:
            raise InvalidInput("to_xarray needs xarray: pip install 'lrbias[xarray]'.") from None
        variables, coordinates = {}, {}
        for name in self.names:
            interval = self._interval(name)
            axis = "step" if interval == 1 else f"step_every_{interval}"
            values = self[name]
            axis = axis if name != LOSSES else "step"
            coordinates[axis] = np.arange(self._rows(name, interval)) * interval
            flat = name.replace("/", "_")
            variables[flat] = ((axis, *(f"{flat}_axis_{k}" for k in range(1, values.ndim))), values, {"name": name})
        return xarray.Dataset(variables, coordinates, {"status": self.status, "label": self.label})

    def check(self):
        """Read everything that was committed; returns one sentence for each thing that is damaged."""
        found = []
        for name in self.names:
            found += _sentence_of(lambda name=name: self[name])
        for step in self.checkpoints:
            found += _sentence_of(lambda step=step: self.checkpoint(step))
        return found

    def _mean_loss(self, first, last):
        return float(self._source.read(LOSSES, first, last).mean()) if last else None

    def summary(self):
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
        if self._has_rows("product/singular_values"):
            facts["escape_steps"] = self.escape_steps()
            found = self.jumps()
            facts["rank_jumps"] = {"down": found.down, "up": found.up, "rank": found.rank}
        facts.update({name: float(self[name][-1]) for name in ("train_error", "hidden_error") if self._has_rows(name)})
        if self.method.name == "glrl":
            facts["phases"] = [phase.as_dict() for phase in self.phases]
        if "product/effective_rank" in self:
            facts["plateaus"] = [asdict(plateau) for plateau in self.plateaus()]
        return facts

    def __repr__(self):
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
            words = ("measurements", "whole truth") if "measurements" in facts else ("observed entries", "hidden ones")
            hidden = f", {facts['hidden_error']:.3g} over the {words[1]}" if "hidden_error" in facts else ""
            lines.append(f"  root mean square error {facts['train_error']:.3g} over the {words[0]}{hidden}")
        if "escape_steps" in facts:
            escaped = sum(step is not None for step in facts["escape_steps"])
            lines.append(f"  {escaped} of {self.target_rank} singular values are above half of the target's")
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

    def _repr_html_(self):
        from html import escape

        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(k)}</th><td>{escape(str(v))}</td></tr>"
            for k, v in self.summary().items()
        )
        return f"<table>{rows}</table>"


def _sentence_of(read):
    try:
        read()
    except StoreError as error:
        return [str(error)]
    return []
