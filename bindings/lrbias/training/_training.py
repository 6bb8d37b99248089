"""init → run a chunk of steps in the kernel → record → repeat."""

import functools
import platform
import subprocess
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

from lrbias.devices import CPU, resolve
from lrbias.errors import ForecastWarning, Interrupted, InvalidInput, StoreError, require
from lrbias.events import PlateauWatch
from lrbias.experiments import Stop, describe, to_toml
from lrbias.forecasts import first_warnings
from lrbias.methods import Method
from lrbias.metrics import Observation, Plan, Record, Setup, has_another_core
from lrbias.network import Network
from lrbias.problems import Problem
from lrbias.runs import MODEL, Run, check_settings, is_model, parts_of, problem_of, resumer
from lrbias.settings import Compress, Count, Threads, Whole, check_switches, validate
from lrbias.steppers import reduce, trainer_of
from lrbias.storage import (
    LOSSES,
    Log,
    MemorySink,
    RunFolder,
    RunWriter,
    as_recorded,
    check_new,
    check_quantities,
    losses_quantity,
    refuse_writing,
)
from lrbias.system import (
    Owner,
    announce_compilation,
    collected,
    compile_seconds,
    display,
    one_blas_thread,
    resume_call,
    shell_command,
    usual_errors,
)
from lrbias.training._logging import MeasureError, Recorder
from lrcore import layout, status
from lrcore.adaptive import ENDLESS

PORTABLE = "portable for losses and parameters from the same start; machine for what goes through an SVD"
EFFECTIVE_RANK = "product/effective_rank"
KEPT = "memory/"  # before the names of what metrics keep, in a checkpoint
CHUNK_SECONDS = 0.2  # longest kernel call: how soon Ctrl-C and the display are served. Bits do not depend on it
FIRST_CHUNK = 1
FIRST_BUDGET = 64  # gradients of such a call where a step takes as many as its error asks for


@usual_errors
def train(
    problem,
    network,
    method,
    steps=None,
    record=None,
    stop=None,
    checkpoint_every=1000,
    store=None,
    progress=None,
    forecast=True,
    threads=1,
    compress="auto",
    device="cpu",
):
    """Train `network` on `problem` and return the Run.

    problem           what is fitted: Factorization(target), Completion(target, mask), Sensing(matrices, values) or
                      Regression(inputs, outputs)
    network           the initial Network; it is not changed. None for GLRL, which starts from nothing
    method            GD(lr=…), GradientFlow(dt=…), SGD(lr=…), GLRL(epsilon=…, inner=…) or Linearized(lr=…)
    steps             number of steps (iterations), at least 1; of GLRL at most so many, None: as many as it takes
    record            what is measured and when; Record() measures everything every 10 steps
    stop              when to end early; Stop() never does
    checkpoint_every  steps between checkpoints; everything recorded so far is committed with each
    store             folder to make for the run; None keeps it in memory
    progress          True or False; None shows progress on a terminal
    forecast          warn (ForecastWarning) when the step size is unstable or nothing is expected to happen in `steps`
    threads           how many threads share the products of a step, with the same bits; pays from about n = 200 on
    compress          "auto" trains fewer numbers where target and start allow it (`run.reduced` says so), "off" always
                      trains whole layers. They are equal in exact arithmetic; near a saddle the rounding errors of
                      whole layers grow, and can lead them elsewhere
    device            "cpu", "cuda" (an NVIDIA GPU, extra `cuda`, the same bits) or "auto": a GPU where one can be
                      used, else the CPU

    A loss that is no longer finite ends the run with status "diverged"; that is a result, not an error. Ctrl-C and
    SIGTERM save everything and raise Interrupted, whose `.run` is the run so far. Raises InvalidInput for settings
    that are not accepted (nothing is created then) and StoreError when the folder cannot be written.
    """
    check_switches(progress=progress, forecast=forecast)
    require(isinstance(problem, Problem), "problem", problem, "a Factorization, Completion, Sensing or Regression")
    accepted = "a method: GD, GradientFlow, SGD, GLRL, Linearized"
    require(isinstance(method, Method), "method", method, accepted)
    network, given = method.start(problem, network), network
    record, stop = _default(record, Record, "record"), _default(stop, Stop, "stop")
    stop.check(record)
    steps = validate(Count, "steps", method.most_steps if steps is None else steps)
    checkpoint_every = validate(Count, "checkpoint_every", checkpoint_every)
    threads = validate(Threads, "threads", threads)
    compress = validate(Compress, "compress", compress)
    place = resolve(device, threads)
    problem.check(network)
    problem = problem.scaled(network.scale)
    network.check_method(method)
    method.check_record(record)
    stop.check_method(method)
    if store is not None:
        check_new(store)
    announce_compilation(progress)
    if forecast:
        for sentence in first_warnings(problem, network, given, method, steps):
            warnings.warn(sentence, ForecastWarning, stacklevel=3)

    with one_blas_thread(), place.fitting():
        short = reduce(problem, network, method, place) if compress == "auto" else None
        training = _Training(problem, network.widths, network.params, method, record, stop, threads, place, short)
        others = {"steps": steps, "checkpoint_every": checkpoint_every, "threads": threads}
        others.update(device=device, compress=compress)
        start = [] if given is None else [given]
        training.trainer.begin(given)
        settings = describe(problem, *start, method, record, stop, **others)
        config = training.config(settings)
        if store is None:
            sink = MemorySink()
            sink.write_checkpoint(0, training.arrays(), network.widths)
        else:
            toml = {"experiment.toml": to_toml(settings)}
            data = problem.target, problem.observed
            sink = RunWriter.create(store, config, toml, data, training.arrays(), training.quantities, steps)
        return training.go(sink, config, 0, progress)


@usual_errors
def resume(path, steps=None, metrics=None, from_checkpoint=None, progress=None, threads=None, device=None):
    """Continue the run at `path` up to `steps` steps in all; None: as many as it was planned for.

    metrics          {name: function} for a run that records functions of the user's
    from_checkpoint  a step whose checkpoint to start from instead of the last one: rows after it are recomputed, with
                     the same bits, which also repairs damaged chunks
    threads, device  as in `train`; None: as before

    The result is bit for bit that of a run which was never interrupted. A finished run is returned as it is. A run of
    `lb.nn.fit` is continued likewise (`lb.nn.resume`).
    """
    check_switches(progress=progress)
    refuse_writing(path)
    if is_model(RunFolder.existing(path).config()):
        others = (("metrics", metrics), ("from_checkpoint", from_checkpoint), ("threads", threads), ("device", device))
        for name, value in others:
            require(value is None, name, value, "nothing for a run of a model")
        return resumer(MODEL)(path, steps, progress=progress)
    announce_compilation(progress)
    writer = RunWriter.reopen(path)
    try:
        config = writer.config()
        check_settings(writer.path, config)
        problem = problem_of(writer, config)
        known = writer.progress()
        planned = config["settings"]["steps"]
        steps = planned if steps is None else validate(Count, "steps", steps)
        require(steps >= known["step"], "steps", steps, f"at least {known['step']}, the step that the run has reached")
        start = known["checkpoint"]
        if from_checkpoint is not None:
            start = validate(Whole, "from_checkpoint", from_checkpoint)
            reached = [step for step in writer.checkpoint_steps() if step <= known["step"]]
            require(start in reached, "from_checkpoint", start, f"one of {reached}")
        if known["status"] == "diverged" and from_checkpoint is None:
            raise InvalidInput(
                f"path = {str(path)!r} is not accepted: expected a run that can go on, but this one diverged at step "
                f"{known['step']}; start one with a smaller step size."
            )
        if from_checkpoint is None and known["status"] in ("finished", "stopped") and steps == known["step"]:
            writer.mend_log()
            return Run(writer, config, problem)
        settings = {**config["settings"], "steps": max(steps, known["step"])}
        if threads is not None:
            settings["threads"] = validate(Threads, "threads", threads)
        settings["device"] = settings.get("device", CPU.name) if device is None else device
        return _continue(writer, {**config, "settings": settings}, problem, start, metrics, progress)
    finally:
        writer.close()


def _continue(writer, config, problem, start, metrics, progress):
    settings = config["settings"]
    method, record, stop = parts_of(writer.path, config)
    threads = settings["threads"]
    device = resolve(settings["device"], settings["threads"])
    record = record.with_functions(metrics, config["functions"])
    here = made_with(config["made_with"]["promise"], device)
    if here != config["made_with"]:  # another machine or version: its bits may differ, so say so
        config["resumed_with"] = [*config.get("resumed_with", []), {"step": start, **here}]
    with one_blas_thread(), device.fitting():
        short = None
        arrays = writer.checkpoint_arrays(start)
        if config.get("reduced"):  # the basis is that of the start, the numbers are those of the checkpoint
            short = reduce(problem, Network(writer.checkpoint(0), config["widths"]), method, device)
        params = arrays.pop("params")
        kept = _taken(arrays)
        arrays.pop("scale", None)  # which the problem has
        before = {"first": functools.partial(writer.checkpoint, 0), "known": config["quantities"]}
        parts = problem, config["widths"], params, method, record, stop, threads, device, short
        training = _Training(*parts, **before)
        try:
            training.plan.memory.restore(kept)
            training.trainer.restore(params, arrays)
        except (KeyError, ValueError, TypeError, IndexError) as error:  # what this method needs is not there
            path = writer.checkpoint_path(start)
            reason = " ".join(f"{error}".split())
            raise StoreError(f"{path} is not of such a run ({reason}); resume with from_checkpoint=0.") from None
        training.check(writer, config, start)
        writer.open_log(training.quantities, settings["steps"])
        writer.extend(config)
        return training.go(writer, config, start, progress)


def _taken(arrays):
    """Take out of those of a checkpoint what metrics have kept: {name: array}."""
    return {name.removeprefix(KEPT): arrays.pop(name) for name in list(arrays) if name.startswith(KEPT)}


class _Training:
    """A run in progress. `step` steps were made; everything up to the last commit is safe.

    first: a function without arguments for the layers at step 0; None: `params` are these.
    known: the quantities of a run that is resumed, as config.json has them.
    """

    def __init__(
        self, problem, widths, params, method, record, stop, threads, device, short=None, first=None, known=None
    ):
        self.params = layout.aligned_copy(params, params.dtype)
        self.stop = stop
        self.record = record
        self.method = method
        self.device = device
        self.trainer = short or trainer_of(method, problem, tuple(widths), self.params, threads, device)
        self.trainer.budget = FIRST_BUDGET
        first = first or params.copy
        self.setup = Setup(problem, widths, params.dtype, record, method, device, first)
        self.observation = Observation(self.setup)
        self.plan = Plan(self.setup)
        self.beside = Observation(self.setup) if has_another_core(threads, record, device) else None
        self.plan.probe(self.observation.at(self.params), known)
        self.own = self.trainer.quantities(record.every)
        self.quantities = as_recorded([losses_quantity(params.dtype), *self.plan.quantities, *self.own], known)
        self.intervals = sorted({*self.plan.intervals, *(quantity.interval for quantity in self.own)})
        self.watch = self._watch()
        self.chunk = FIRST_CHUNK
        self.step = 0
        self.loss_reached = False
        self.last_loss = float("nan")
        self.stage_over = False  # whether the trainer asks for a commit here

    def _watch(self):
        """A PlateauWatch when the run is to stop on a plateau."""
        if self.stop.plateaus is None:
            return None
        return PlateauWatch(self.stop.plateaus, self.record.intervals()["effective_rank"])

    def config(self, settings):
        """What config.json says beside the format and checksums."""
        return {
            "settings": settings,
            "widths": list(self.setup.widths),
            "output_scale": self.setup.problem.output_scale,
            "target_source": self.setup.problem.source,
            "quantities": listed_quantities(self.quantities),
            "functions": sorted(self.record.functions()),
            "reduced": self.trainer.reduced,
            "made_with": made_with("machine" if self.trainer.machine else PORTABLE, self.device),
        }

    def check(self, writer, config, start):
        """Before anything is written, read all that going on from step `start` relies on; StoreError when it is
        damaged."""
        check_quantities(writer.path, config, self.quantities)
        Log(self.quantities, writer).check(start)
        if self.watch and start:
            self._watched(writer, start)

    def _watched(self, sink, step):
        """What a PlateauWatch has seen before `step`: rows of the effective rank, losses."""
        return sink.read(EFFECTIVE_RANK, 0, -(-step // self.watch.interval)), sink.read(LOSSES, 0, step)

    def arrays(self):
        """What a checkpoint holds: the layers, and what the trainer and metrics need beside them."""
        kept = {KEPT + name: array for name, array in self.plan.memory.state(self.step).items()}
        scale = self.setup.problem.output_scale
        scaled = {} if scale == 1 else {"scale": np.float64(scale)}  # for who starts a network from this checkpoint
        return {"params": self.params, **scaled, **self.trainer.state(), **kept}

    def go(self, sink, config, start, progress):
        """Train from step `start` to the end, whatever ends it; commit; return the Run."""
        self.sink = sink
        self.log = Log(self.quantities, sink)
        self.recorder = Recorder(self.plan, self.observation, self.beside, self._write, ordered=self.plan.ordered)
        self.step = self.checkpoint = start
        self.steps, self.checkpoint_every = config["settings"]["steps"], config["settings"]["checkpoint_every"]
        self.elapsed_before = sink.progress()["elapsed"] if start else 0.0
        self._start_clock()
        self.shown = display(progress)
        owner = Owner()
        try:
            self.shown.start(self.step, self.steps)
            with collected() as received:
                ending = self._loop(received)
        except StoreError as error:  # what could be written is committed already
            if not sink.path.exists():  # then there is nothing to resume
                raise
            raise StoreError(f"{error} When that is mended: {self._way_on(sink.path)}") from error
        except MeasureError as error:  # for one, in a function of the user's; training may be further by now
            self.step, self.params[:] = error.step, error.params
            self.trainer.restore(error.params, error.state)
            self.recorder.close()
            self._commit("failed", f"{type(error.__cause__).__name__}: {error.__cause__}")
            if hasattr(sink, "path"):
                error.__cause__.add_note(f"The run up to there is saved; continue with: {self._way_on(sink.path)}")
            raise error.__cause__ from None
        finally:
            self.recorder.close()
            if owner.here:  # a child that a metric forked ends here, too
                self.shown.stop()
            self.sink.close()
        run = Run(self.sink, config, self.setup.problem)
        if ending == "interrupted":
            raise Interrupted(f"interrupted at step {self.step}{self._kept(run.path)}", run, received[0])
        return run

    def _kept(self, path):
        """The rest of a sentence: what is there of an interrupted run, and how to go on with it."""
        if path is None:
            return "; what was recorded is the `.run` of this exception; a run with a store could be resumed"
        return f", everything is saved; continue with: {self._way_on(path)}"

    def _way_on(self, path):
        """What to call in order to go on; functions of the user's are needed again."""
        functions = self.record.functions()
        if not functions:
            return shell_command("resume", path)
        return resume_call("lb.resume", path, metrics="{" + ", ".join(f"{name!r}: …" for name in functions) + "}")

    def _loop(self, received):
        self.log.restore(self.step, self.sink.progress())
        if self.watch and self.step:
            self.watch.restore(*self._watched(self.sink, self.step))
        self._measure()
        self.recorder.drain()
        self._start_clock()  # every metric was compiled, by whichever thread measured here
        while True:
            ending, detail = self._ending(received)
            if ending:
                return self._commit(ending, detail)
            due = (self.step % self.checkpoint_every == 0 or self.stage_over) and self.step > self.checkpoint
            if due and self._commit("running", "training goes on, or was killed") == "diverged":
                return "diverged"
            before = self.step
            if self._make_steps(self._chunk_length()) == status.DIVERGED:
                return self._diverged()
            if self.step > before:
                self._measure()
            self.shown.update(self.step, self.last_loss, self.log.last("product/effective_rank"))

    def _start_clock(self):
        self.start_time = time.perf_counter()
        self.compiled_before = compile_seconds()

    def _ending(self, received):
        """(status, sentence) when the run ends here, else (None, None)."""
        if self.loss_reached:
            return "stopped", f"the loss is at most {self.stop.loss:g}"
        if self._gradient_reached():
            return "stopped", f"the gradient norm is at most {self.stop.gradient:g}"
        if self._plateaus_reached():
            return "stopped", f"the effective rank has reached its plateau {self.stop.plateaus}"
        if self.trainer.ending:
            return "stopped", self.trainer.ending
        if self.step >= self.steps:
            return "finished", "all steps were made"
        if received:
            return "interrupted", "interrupted by a signal; resume continues it"
        return None, None

    def _write(self, name, row, value):
        self.log.set(name, row, value)
        if self.watch and name == EFFECTIVE_RANK:
            self.watch.note_rank(row, value)

    def _plateaus_reached(self):
        if not self.watch or self.step % self.watch.every:
            return False
        self.recorder.drain()
        return self.watch.reached()

    def _gradient_reached(self):
        if self.stop.gradient is None or self.step % self.record.every:
            return False
        return self.observation.at(self.params, self.step).gradient_norm <= self.stop.gradient

    def _chunk_length(self):
        """Steps until something is due, as far as the time for one kernel call allows."""
        intervals = [*self.intervals, self.checkpoint_every]
        if self.stop.gradient is not None:
            intervals.append(self.record.every)
        due = min((self.step // interval + 1) * interval for interval in intervals)
        return min(due - self.step, self.steps - self.step, self.chunk, self.trainer.most(self.step))

    def _make_steps(self, count):
        """Up to `count` steps, and where a loss threshold is reached, exactly as many as that takes."""
        losses = self.log.columns[LOSSES].view(self.step, count)
        before = self.trainer.snapshot(self.params) if self.stop.loss is not None else None
        code, losses = self._timed_steps(losses)
        if code == status.DIVERGED:
            self.step += len(losses)
            with np.errstate(all="ignore"):  # the layers there, from whatever was trained in their place
                self.trainer.expand(self.params)
            return code
        made = len(losses)
        if made == 0:  # within a step that takes long
            return code
        if before is not None and (losses <= self.stop.loss).any():
            made = int(np.argmax(losses <= self.stop.loss))
            self.trainer.restore(*before)
            self.trainer.budget = ENDLESS
            self.trainer.advance(losses[:made], self.step)
            self.loss_reached = True
        self.trainer.expand(self.params)
        if self.watch:
            self.watch.note_losses(self.step, losses[:made])
        self.step += made
        self.stage_over = self.trainer.look(self.step)
        self.last_loss = float(losses[-1])
        return code

    def _timed_steps(self, losses):
        """One call of the trainer, which fits the next one to CHUNK_SECONDS: (status, the losses of steps made)."""
        started = time.perf_counter()
        code = self.trainer.advance(losses, self.step)
        share = CHUNK_SECONDS / max(time.perf_counter() - started, 1e-9)
        if code != status.OK:
            losses = losses[: int(np.argmin(np.isfinite(losses)))]
        if code == status.PAUSED:
            self.trainer.budget = max(FIRST_BUDGET, int(self.trainer.budget * min(share, 2)))
        self.chunk = max(1, min(int(len(losses) * share), 2 * self.chunk))
        return code, losses

    def _measure(self):
        self.recorder.measure(self.params, self.step, self.trainer.state())
        for quantity, value in zip(self.own, self.trainer.values() if self.own else [], strict=True):
            if self.step % quantity.interval == 0:
                self.log.set(quantity.name, self.step // quantity.interval, value)

    def _commit(self, ending, detail):
        """Flush rows, write a checkpoint, then make both count. A loss that is not finite is divergence instead."""
        self.recorder.drain()
        loss = self._loss_here()
        if not np.isfinite(loss):
            return self._diverged()
        self.log.set(LOSSES, self.step, loss)
        if ending == "running":
            self.sink.write_tail(self.log.tails())
        else:
            self.log.flush()
        self.sink.write_checkpoint(self.step, self.arrays(), self.setup.widths)
        self.checkpoint = self.step
        return self._progress(ending, detail)

    def _diverged(self):
        self.recorder.drain()
        loss = self._loss_here()
        self.log.set(LOSSES, self.step, loss)
        self.log.flush()
        why = self.trainer.stuck(self.step) if np.isfinite(loss) else status.MEANING[status.DIVERGED]
        return self._progress("diverged", f"the loss at step {self.step} is {loss}: {why}")

    def _loss_here(self):
        """The loss that belongs to this step: under a stochastic method that of the entries which it would draw."""
        with np.errstate(all="ignore"):
            if not self.method.stochastic:
                return self.observation.at(self.params, self.step).loss
            return self.trainer.drawn_loss(self.step)

    def _progress(self, ending, detail):
        compiled = compile_seconds() - self.compiled_before
        elapsed = self.elapsed_before + time.perf_counter() - self.start_time - compiled
        self.sink.commit(self.step, self.checkpoint, ending, detail, self.intervals, elapsed)
        return ending


def listed_quantities(quantities):
    """{name: interval, shape, dtype}, as config.json has them."""
    return {q.name: {"interval": q.interval, "shape": list(q.shape), "dtype": q.dtype} for q in quantities}


def _default(value, kind, argument):
    value = kind() if value is None else value
    require(isinstance(value, kind), argument, value, f"a {kind.__name__}")
    return value


def made_with(promise=PORTABLE, device=CPU):
    """Versions, commit, machine, device and the promise level of a run."""
    from lrbias import __version__

    names = ("numba", "llvmlite", "numpy", "scipy", "zarr")
    return {
        "lrbias": __version__,
        "commit": _commit_id(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "system": platform.platform(),
        "cpu": _cpu_name(),
        **device.describe,
        "promise": promise,
    }


def _commit_id():
    """The commit of a source checkout, None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except OSError:  # no git on this machine
        return None
    return answer.stdout.strip() or None


def _cpu_name():
    import llvmlite.binding

    return llvmlite.binding.get_host_cpu_name()
