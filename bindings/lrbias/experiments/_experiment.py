"""An experiment as flat keys: the words of the command line, of a TOML file and of a run's settings are the same."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from lrbias.devices import DeviceName, check_threads
from lrbias.errors import InvalidInput, require, shorten
from lrbias.experiments._stop import Stop
from lrbias.methods import INNER, METHODS, OWN
from lrbias.metrics import Record
from lrbias.network import Network
from lrbias.problems import (
    Completion,
    Factorization,
    Sensing,
    load_matrix,
    load_observed,
    load_regression,
    restore,
    spectrum,
    symmetric,
    teacher,
)
from lrbias.settings import Compress, Count, Depth, Finite, Fraction, Positive, Scale, Seed, Settings, Threads
from lrbias.storage import PATHS
from lrbias.system import Damaged, as_path, read_archive

STEP_SIZE = 1e-3
VALUES = {"values": "singular values", "eigenvalues": "eigenvalues"}  # that a target can be given
TEACHER = ("shape", "rank", "teacher_depth", "teacher_seed", *VALUES)
WHOLE = ("target", "crop", "scale", *TEACHER)  # that say what is fitted, and which of it is observed
PART = ("observed", "fraction", "entries", "mask_seed", "pairs", "mean")
DEEP = ("rank", "teacher_depth", "scale")  # settings of a deep teacher, which makes its own singular values
INITIAL = ("widths", "depth", "init", "gamma", "std", "parametrization", "seed", "alpha", "beta", "dtype")
STARTS = {  # and the keys that each has of its own
    "gaussian": ("gamma", "seed", "parametrization", "std"),
    "identical": ("alpha",),
    "perturbed": ("alpha", "beta"),
    "orthogonal": ("alpha", "seed"),
    "balanced": ("alpha", "seed"),
    "symmetric": ("alpha", "seed"),
}


class Experiment(Settings):
    """One run. What is left out has the protocol's value: n = 100, r = 10, N = 3, GD with lr = 1e-3, 50 000 steps."""

    target: str | None = Field(None, description="the path of a matrix or image file")
    crop: Any = Field(None, description="two integers (rows, columns)")
    shape: Any = Field((100, 100), description="two integers (rows, columns)")
    rank: Count = Field(10, description="an integer of at least 1")
    teacher_depth: Depth | None = Field(None, description="an integer of at least 1, at most 1000")
    teacher_seed: Seed = Field(0, description="an integer from 0 to 2^64 - 1")
    scale: Positive | None = Field(None, description="a finite number greater than 0")
    values: Any = None
    eigenvalues: Any = None

    inputs: str | None = Field(None, description="the path of a matrix with a sample in each row")
    outputs: str | None = Field(None, description="the path of a matrix with a sample in each row")
    whiten: bool = Field(False, strict=True, description="True or False")
    center: bool = Field(False, strict=True, description="True or False")

    observed: str | None = Field(None, description="the path of a mask, or of a file with measurements")
    fraction: Fraction | None = Field(None, description="a number greater than 0 and at most 1")
    entries: Any = None
    mask_seed: Seed = Field(0, description="an integer from 0 to 2^64 - 1")
    pairs: bool = Field(False, strict=True, description="True or False")
    mean: bool = Field(False, strict=True, description="True or False")

    network: str | None = Field(None, description="the path of a checkpoint (.npz)")
    widths: Any = Field(None, description="at least two integers (n_0, …, n_N), each at least 1")
    depth: Depth = Field(3, description="an integer of at least 1, at most 1000")
    init: Any = "gaussian"
    gamma: Finite | None = Field(None, description="a finite number")
    std: Positive | None = Field(None, description="a finite number greater than 0")
    parametrization: Any = "standard"
    output_scale: Scale = Field(1.0, description="a number from 1e-100 to 1e100, greater than 0")
    alpha: Positive = Field(0.1, description="a finite number greater than 0")
    beta: Positive = Field(0.05, description="a finite number greater than 0")
    seed: Seed = Field(1, description="an integer from 0 to 2^64 - 1")
    dtype: Any = Field("float64", description="float64 or float32")

    method: Any = Field("gd", description="gd, flow, sgd, glrl or linearized")
    lr: Any = None
    dt: Any = None
    scheme: Any = None
    rtol: Any = None
    atol: Any = None
    ridge: Any = None
    lr_schedule: Any = None
    ridge_schedule: Any = None
    batch: Any = None
    replacement: Any = None
    sampling_seed: Any = None
    epsilon: Any = None
    inner: Any = None
    tied: Any = None
    tolerance: Any = None
    cutoff: Any = None
    max_rank: Any = None
    check_every: Any = None

    steps: Count = Field(50_000, description="an integer of at least 1")
    checkpoint_every: Count = Field(1000, description="an integer of at least 1")
    threads: Threads = Field(1, description="an integer from 1 to 256")
    device: DeviceName = Field("cpu", description="cpu, cuda or auto")
    compress: Compress = Field("auto", description="auto or off")
    every: Any = 10
    metrics: Any = "all"
    numerical_threshold: Any = 1e-6
    relative_threshold: Any = 1e-3
    directions: Any = None
    degenerate: Any = 1e-3
    absorbing_balance: Any = None
    absorbing_slack: Any = None
    absorbing_alpha: Any = None
    absorbing_bound: Any = None
    leading: Any = 3
    eigen_tolerance: Any = 1e-6
    stop_loss: Any = None
    stop_gradient: Any = None
    stop_plateaus: Any = None

    @model_validator(mode="after")
    def _check_device(self):
        check_threads(self.device, self.threads)
        return self

    @property
    def sees_part(self):
        """Whether the loss is not that of a whole target: it sees entries or measurements of one, or data."""
        return any(value is not None for value in (self.observed, self.fraction, self.entries, self.inputs))

    def problem(self):
        """The loss: a whole target, some entries of it, measurements, or data."""
        if self.inputs is not None or self.outputs is not None:
            return self._regression()
        for key in ("whiten", "center"):
            require(not getattr(self, key), key, True, "a setting of data: inputs and outputs")
        whole = self._whole_target()
        mean = self.mean
        if not self.sees_part:
            for key in ("mean", "mask_seed", "pairs"):
                given = getattr(self, key)
                require(not given, key, given, "a setting of observed entries: fraction, entries or observed")
            return whole
        if self.observed is None:
            drawn = {"fraction": self.fraction, "entries": self.entries, "seed": self.mask_seed, "pairs": self.pairs}
            return Completion(whole.target, mean=mean, source=whole.source, **drawn)
        require(
            "mask_seed" not in self.model_fields_set, "mask_seed", self.mask_seed, "nothing beside a file of entries"
        )
        require(not self.pairs, "pairs", self.pairs, "nothing beside a file of entries")
        found = load_observed(self.observed)
        count = (self.fraction, self.entries)
        require(count == (None, None), "observed", self.observed, "either a file or fraction or entries")
        if "matrices" in found:
            known = found.get("truth_known", self.target is not None)  # a file of a run says so itself
            return Sensing(found["matrices"], found["values"], whole.target if known else None, mean)
        if "covariance" in found:
            require(self.target is not None, "observed", self.observed, "a target file beside moments of data")
            require(not mean, "mean", mean, "a setting of observed entries, not of data")
            return restore(whole.target, found)
        target = np.where(found["known"], whole.target, np.nan) if "known" in found else whole.target
        try:
            return Completion(target, found["mask"], mean=mean, source=whole.source)
        except InvalidInput as error:  # here the mask has another name
            raise InvalidInput(str(error).replace("mask =", "observed =", 1)) from None

    def _regression(self):
        """The loss of data from two files."""
        for key, other in (("inputs", "outputs"), ("outputs", "inputs")):
            require(getattr(self, key) is not None, key, None, f"a file beside {other}, with as many rows")
        extra = sorted(self.model_fields_set & {*WHOLE, *PART})
        require(not extra, "inputs", self.inputs, f"either data or a target ({', '.join(extra)})")
        return load_regression(self.inputs, self.outputs, self.whiten, self.center)

    def _whole_target(self):
        """The target: from a file, or a teacher made here."""
        given = self.model_fields_set
        if self.target is not None:
            extra = sorted(given & set(TEACHER))
            require(not extra, "target", self.target, f"either a file or a teacher's settings ({', '.join(extra)})")
            matrix = load_matrix(self.target, self.scale, self.crop)
            source = {"target": self.target, "scale": self.scale, "crop": self.crop and list(self.crop)}
        else:
            require(self.crop is None, "crop", self.crop, "a target file to cut from")
            for key in VALUES:
                if getattr(self, key) is not None:
                    return self._with_values(key, given)
            depth = self.teacher_depth or max(self.depth, 2)
            scale = 10.0 if self.scale is None else self.scale
            matrix = teacher(self.shape, self.rank, depth, scale, self.teacher_seed)
            source = {"shape": list(self.shape), "rank": self.rank, "teacher_depth": depth}
            source.update(teacher_seed=self.teacher_seed, scale=scale)
        return Factorization(matrix, {key: value for key, value in source.items() if value is not None})

    def _with_values(self, key, given):
        """A target whose singular values or eigenvalues are given, between random directions."""
        extra = sorted(given & {*DEEP, *VALUES} - {key})
        numbers = getattr(self, key)
        require(not extra, key, numbers, f"either {VALUES[key]} or other settings of a target ({', '.join(extra)})")
        rows, columns = self.shape
        if key == "values":
            matrix = spectrum(self.shape, numbers, self.teacher_seed)
        else:
            require(rows == columns, "shape", self.shape, "two equal integers, for a matrix with eigenvalues")
            matrix = symmetric(rows, numbers, self.teacher_seed)
        source = {"shape": [rows, columns], key: [float(value) for value in numbers], "teacher_seed": self.teacher_seed}
        return Factorization(matrix, source)

    def student(self, problem):
        """The initial network: a checkpoint, or made here, with hidden layers as wide as the target's larger side."""
        given = self.model_fields_set
        if self.network is not None:
            extra = sorted(given & set(INITIAL))
            require(
                not extra, "network", self.network, f"either a checkpoint or an initialisation ({', '.join(extra)})"
            )
            network = _from_checkpoint(self.network, problem)
            return network if self.output_scale == 1 else network.scaled(self.output_scale)
        network = self._start(self.layer_widths(problem.shape))
        network = network if self.output_scale == 1 else network.scaled(self.output_scale)
        problem.check(network)  # here, since a batch of a sweep does not pass through `train`
        return network

    def _nothing(self):
        """What greedy low-rank learning starts from."""
        for key in ("network", "output_scale", *INITIAL):
            accepted = "nothing for greedy low-rank learning, which makes its layers itself"
            require(key == "depth" or not self._given(key), key, getattr(self, key), accepted)

    def _start(self, widths):
        known = isinstance(self.init, str) and self.init in STARTS
        require(known, "init", self.init, "one of " + ", ".join(STARTS))
        own = STARTS[self.init]
        for key in sorted({key for keys in STARTS.values() for key in keys} - set(own)):
            accepted = f"a setting of another init than {self.init}, which has {' and '.join(own)}"
            require(key not in self.model_fields_set, key, getattr(self, key), accepted)
        chosen = {key: getattr(self, key) for key in own}
        if self.init not in ("identical", "perturbed"):
            return getattr(Network, self.init)(widths, **chosen, dtype=self.dtype)
        require(len(set(widths)) == 1, "init", self.init, f"one for layers that are not all square, as {tuple(widths)}")
        return getattr(Network, self.init)(widths[0], len(widths) - 1, **chosen, dtype=self.dtype)

    def layer_widths(self, shape):
        """Widths for a target of `shape`: as given, or hidden layers as wide as the larger side."""
        if self.widths is not None:
            require("depth" not in self.model_fields_set, "depth", self.depth, "either widths or depth, not both")
            return self.widths
        return (shape[1], *[max(shape)] * (self.depth - 1), shape[0])

    def parts(self):
        """(method, record, stop)."""
        return parts({**self.model_dump(exclude_none=True), "depth": self.depth if self._given("depth") else None})

    def _given(self, key):
        return key in self.model_fields_set

    def arguments(self):
        """Those of `train` that say what is trained and how; the target and the start are made here."""
        (method, record, stop), problem = self.parts(), self.problem()  # what is quick to refuse comes first
        network = self._nothing() if method.starts_empty else self.student(problem)
        if network is not None:
            network.check_method(method)
        return {
            "problem": problem,
            "network": network,
            "method": method,
            "steps": self.steps if self._given("steps") or method.most_steps is None else method.most_steps,
            "record": record,
            "stop": stop,
            "checkpoint_every": self.checkpoint_every,
            "threads": self.threads,
            "device": self.device,
            "compress": self.compress,
        }


def parts(settings):
    """(method, record, stop) from flat keys."""
    method = _method(settings)
    record = Record(**{key: settings[key] for key in Record.model_fields if key in settings})
    stop = {key: settings[f"stop_{key}"] for key in Stop.model_fields if f"stop_{key}" in settings}
    stop = _stop(stop)
    stop.check(record)
    stop.check_method(method)
    return method, record, stop


def _method(settings):
    name = settings.get("method", "gd")
    require(isinstance(name, str) and name in METHODS, "method", name, " or ".join(METHODS))
    for key in sorted({key for keys in OWN.values() for key in keys} - set(OWN[name])):
        accepted = f"a setting of method {name} ({', '.join(OWN[name])})"
        require(settings.get(key) is None, key, settings.get(key), accepted)
    own = {key: settings[key] for key in OWN[name] if settings.get(key) is not None}
    if METHODS[name].starts_empty:
        return _greedy(own, settings.get("depth"))
    own.setdefault("lr" if "lr" in OWN[name] else "dt", STEP_SIZE)
    return METHODS[name](**own)


def _greedy(own, depth):
    """GLRL from its own keys and, among them, those of the method that trains in a phase."""
    inner = own.pop("inner", INNER[0])
    require(inner in INNER, "inner", inner, " or ".join(INNER))
    of_phase = {key: own.pop(key) for key in list(own) if any(key in OWN[name] for name in INNER)}
    return METHODS["glrl"](
        **own, inner=_method({**of_phase, "method": inner}), **({} if depth is None else {"depth": depth})
    )


def _stop(given):
    try:
        return Stop(**given)
    except InvalidInput as error:  # these keys have a prefix here
        raise InvalidInput(f"stop_{error}") from None


def _from_checkpoint(path, problem):
    accepted = "the path of a checkpoint (.npz) of a lrbias run"
    path = str(as_path("network", path))
    require(Path(path).is_file(), "network", path, accepted)
    try:
        network = Network.from_checkpoint(read_archive(path))
    except (Damaged, OSError, KeyError, ValueError, TypeError) as error:
        raise InvalidInput(
            f"network = {path!r} is not accepted: expected {accepted} ({shorten(str(error))})."
        ) from None
    try:
        network.check_layers()
    except InvalidInput as error:
        raise InvalidInput(f"network = {path!r}: {error}") from None
    problem.check(network)
    return network


def describe(*parts, **others):
    """The settings of problem, network, method, record and stop, and others, as flat keys of an `Experiment`."""
    settings = {}
    for part in parts:
        settings.update(part.settings())
    return {**settings, **others}


def to_toml(settings):
    """An experiment file that repeats a run with these settings."""
    import tomli_w

    return "# Repeats this run: lrbias run experiment.toml (paths are relative to this file)\n" + tomli_w.dumps(
        settings
    )


def read_toml(path):
    """The keys of an experiment file; paths in it, also those that a sweep varies, are relative to the file."""
    path = as_path("file", path)
    require(path.is_file(), "file", str(path), "the path of an experiment file (.toml) that exists")
    try:
        keys = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise InvalidInput(f"file = {str(path)!r} is not accepted: its lists are nested too deeply.") from None
    except (OSError, ValueError) as error:  # not readable, not UTF-8, no TOML, an integer of thousands of digits
        reason = shorten(f"<{error}", 200)[1:]
        raise InvalidInput(f"file = {str(path)!r} is not accepted: expected a readable TOML file ({reason}).") from None
    over = keys.get("sweep")
    if isinstance(over, dict):
        keys["sweep"] = {key: _beside_in_axis(path.parent, key, values) for key, values in over.items()}
    return {key: _beside(path.parent, value) if key in PATHS else value for key, value in keys.items()}


def _beside(folder, value):
    """A path of a file in `folder`, as it is from here."""
    return str(folder / as_path("path", value)) if isinstance(value, str) else value


def _beside_in_axis(folder, names, values):
    """The values of an axis of a sweep, with the same done to its paths."""
    keys = [key.strip() for key in names.split(",")]
    if not isinstance(values, list) or not set(keys) & set(PATHS):
        return values
    if len(keys) == 1:
        return [_beside(folder, value) for value in values]
    return [_beside_in_row(folder, keys, row) for row in values]


def _beside_in_row(folder, keys, row):
    if not isinstance(row, list) or len(row) != len(keys):
        return row  # which is refused later, with its axis
    return [_beside(folder, value) if key in PATHS else value for key, value in zip(keys, row, strict=True)]
