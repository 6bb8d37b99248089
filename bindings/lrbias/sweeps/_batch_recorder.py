"""What the runs of a batch record, each its own metrics at the same steps."""

import numpy as np

from lrbias.experiments import describe
from lrbias.metrics import MetricSchedule, NetworkState, RunContext
from lrbias.storage import GOES_ON, LOSSES, Group, columns_of, losses_quantity
from lrbias.training import Recorder, listed_quantities
from lrcore import status

OTHERS = ("steps", "checkpoint_every", "threads", "device", "compress")  # settings that are no part of another


class BatchMember:
    """One run of a batch: what it starts from and what measures it. whole: its Experiment."""

    def __init__(self, name, whole):
        arguments = whole.arguments()
        network = arguments["network"]
        self.name = name
        self.problem = arguments["problem"]
        self.method = arguments["method"]
        self.params = network.params
        self.widths = network.widths
        self.record = arguments["record"]
        self.steps = whole.steps
        self.checkpoint_every = arguments["checkpoint_every"]
        parts = self.problem, network, self.method, self.record
        self.settings = describe(*parts, **{key: arguments[key] for key in OTHERS})
        context = RunContext(self.problem, self.widths, self.params.dtype, self.record, self.method)
        self.network_state = NetworkState(context)
        self.schedule = MetricSchedule(context)
        self.quantities = listed_quantities([losses_quantity(self.params.dtype), *self.schedule.quantities])

    @property
    def bytes(self):
        """What the run takes in memory and in the file."""
        widths = columns_of(self.quantities)[1]
        rows = sum(width * (self.steps // interval + 1) for interval, width in widths.items())
        checkpoints = (self.steps // self.checkpoint_every + 2) * self.params.size
        return 8 * (rows + self.steps + 1 + checkpoints)

    def measure(self, params, step, rows):
        """Write what is due at `step` into rows[quantity] (records, its numbers), and of a Group into its columns of a
        table: rows[group] is (records, numbers), columns."""

        def write(name, row, value):
            if isinstance(name, Group):
                table, columns = rows[name]
                table[row, columns] = value
            else:
                rows[name][row] = np.ravel(value)

        self.schedule.measure(self.network_state, params, step, write)

    def loss(self, params):
        with np.errstate(all="ignore"):
            return self.network_state.at(params).loss


class BatchRecorder(Recorder):
    """Rows of all members, written into the arrays of a BatchWriter; a run ends where its loss is not finite."""

    def __init__(self, members, stepper, batch):
        self._members = members
        self._stepper = stepper
        self._checkpoint_every = members[0].checkpoint_every
        self.intervals = self.marks = sorted({*batch.intervals, self._checkpoint_every})

    def begin(self, storage, step):
        self._batch = storage
        self._losses = storage[LOSSES]
        groups = [member.schedule.groups.values() for member in self._members]
        self._rows = [each.rows(own) for each, own in zip(storage.members, groups, strict=True)]

    @property
    def _going(self):
        return [i for i, member in enumerate(self._batch.members) if member.going]

    def losses(self, step, count):
        return np.empty((len(self._members), count), self._losses.dtype).T

    def note(self, step, losses):
        active = self._stepper.active
        diverged = [i for i in self._going if not active[i]]
        for i in self._going:
            own = losses[:, i]
            made = len(own) if active[i] else int(np.argmin(np.isfinite(own)))
            self._losses[i, step : step + made] = own[:made]
        params = self._stepper.params if diverged else []
        for i in diverged:
            self._diverge(i, step + int(np.argmin(np.isfinite(losses[:, i]))), params[i])

    def _diverge(self, i, step, params):
        loss = self._members[i].loss(params)
        self._losses[i, step] = loss
        self._end(i, "diverged", f"the loss at step {step} is {loss}: {status.MEANING[status.DIVERGED]}", step)

    def _end(self, i, ending, detail, step):
        self._batch.members[i].commit(step, step, ending, detail, self.intervals, 0.0)

    def record(self, step):
        if not any(step % interval == 0 for interval in self.intervals):
            return
        params = self._stepper.params
        for i in self._going:
            self._members[i].measure(params[i], step, self._rows[i])
        if step % self._checkpoint_every == 0:
            self._batch.keep(step, params)

    def close_step(self, step, ending):
        params = self._stepper.params
        for i in self._going:
            loss = self._members[i].loss(params[i])
            if ending not in GOES_ON and not np.isfinite(loss):
                self._diverge(i, step, params[i])
                continue
            self._losses[i, step] = loss
            self._end(i, ending, "all steps were made", step)
        return True
