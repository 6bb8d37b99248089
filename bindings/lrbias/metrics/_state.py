"""The network at one step, and what stays the same during a run: what all metrics are measured on."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from lrbias.devices import CPU, Device
from lrbias.network import Network
from lrbias.problems import MOST, Problem
from lrcore import cpu, layout
from lrcore.cpu import workspace
from lrcore.sheet import PRODUCT as PRODUCT
from lrcore.sheet import Compared, Part, Point, Sheet

RANKS = ("effective_rank", "entropy_rank", "stable_rank", "numerical_rank", "relative_rank", "relative_rank_frobenius")


def ranks_of(values: np.ndarray, numerical_threshold: float, relative_threshold: float) -> np.ndarray:
    """The six ranks of RANKS from singular values, largest first. All are NaN where a value is not finite: counts of
    what is above a threshold, too, which would be 0 there, the rank of a zero matrix."""
    out = np.full(len(RANKS), np.nan)
    if np.isfinite(values).all():
        cpu.rank_metrics(values, numerical_threshold, relative_threshold, out)
    return out


class RunContext:
    """What stays the same during a run: shapes, the target's directions, thresholds, where networks are looked at.

    start: a function without arguments for the flat vector of the layers at step 0.
    """

    def __init__(
        self,
        problem: Problem,
        widths: Sequence[int],
        dtype: np.dtype[Any],
        record: Any,
        method: Any,
        device: Device = CPU,
        start: Callable[[], np.ndarray] | None = None,
    ) -> None:
        self.problem = problem
        self.widths = tuple(widths)
        self.dtype = np.dtype(dtype)
        self.record = record
        self.method = method
        self.device = device.for_one_pass(widths)
        self._start = start
        self.depth = layout.depth(widths)
        self.layers = range(1, self.depth + 1)
        self.shapes = {PRODUCT: (widths[-1], widths[0]), **dict(enumerate(layout.shapes(widths), start=1))}

    @functools.cached_property
    def clusters(self) -> np.ndarray:
        """Rows (first, last) of the target's nearly equal values, one per compared direction."""
        spectrum = self.problem.svd
        count = self.record.directions or min(spectrum.rank, MOST)
        return spectrum.clusters(min(count, len(spectrum.values)), self.record.degenerate)

    @functools.cached_property
    def mode_clusters(self) -> np.ndarray:
        """Likewise of the modes of the problem, which are other directions for a Regression."""
        return self.problem.mode_clusters(self.record.directions, self.record.degenerate)

    @functools.cached_property
    def modes(self) -> tuple[np.ndarray, np.ndarray]:
        """(left, right): the leading directions in which the problem is learnt, as columns, one per followed mode."""
        count = len(self.mode_clusters)
        left, right = (np.ascontiguousarray(vectors[:, :count]) for vectors in self.problem.mode_directions)
        return left, right

    def sheet(self, parts: Sequence[Part]) -> Sheet:
        """A Sheet of these parts. What they do not compare the product with is left out."""
        names = {part[0] for part in parts}
        outputs, inputs = self.shapes[PRODUCT]
        nothing = np.empty((outputs, 0)), np.empty((inputs, 0))
        clusters, (left, right) = np.empty((0, 2), np.int64), nothing
        if names & {"cosines", "angles"}:
            clusters = self.clusters
            known, last = self.problem.svd, clusters.max(initial=0)
            left, right = known.left[:, :last], known.right[:, :last]
        modes_left, modes_right = self.modes if "strengths" in names else nothing
        compared = Compared(
            np.array(left, np.float64, order="C"),
            np.array(right, np.float64, order="C"),
            clusters,
            np.array(modes_left, np.float64, order="C"),
            np.array(modes_right, np.float64, order="C"),
            self.record.numerical_threshold,
            self.record.relative_threshold,
            self.problem.output_scale,
        )
        return Sheet(self.widths, self.dtype, parts, compared, self.is_plain)

    @property
    def is_plain(self) -> bool:
        """Whether the loss is ½‖W − target‖_F² of the product as it is, and the CPU measures it."""
        whole = self.method.fits_whole(self.problem) and self.problem.output_scale == 1
        return whole and not self.device.is_accelerator

    @property
    def has_basis(self) -> bool:
        """Whether entries in the target's eigenvectors are measured: a symmetric target, or a square one on request."""
        square = len(set(self.problem.shape)) == 1
        return self.problem.symmetric or (self.names("eigenvalues_in_basis") and square)

    def rate(self, step: int) -> float:
        """The step size of a step."""
        return float(self.method.rates(step, 1)[0])

    @functools.cached_property
    def errors(self) -> list[str]:
        """Names of the errors that the problem knows: "train", "test"."""
        return list(self.problem.errors(self.problem.target))

    @functools.cached_property
    def start(self) -> np.ndarray:
        """The layers at step 0, as a flat vector."""
        assert self._start is not None  # a run of metrics that look back has it
        return self._start()

    def leading(self, size: int) -> int:
        """How many eigenvalues of an operator of this size are recorded."""
        return min(self.record.leading, size)

    def names(self, metric: str) -> bool:
        """Whether a metric was asked for by its name."""
        asked = self.record.metrics
        return not isinstance(asked, str) and metric in asked

    def key_name(self, key: Any) -> str:
        return "product" if key == PRODUCT else f"layer/{key}"


class NetworkState:
    """The network at one step. What metrics share (SVDs, product, gradient) is computed once, when asked for.

    Products are made on the device of the run where the network is large; singular values always on the CPU.
    """

    def __init__(self, context: RunContext) -> None:
        self.context = context
        device = context.device
        self.widths = layout.as_widths(context.widths)
        self._kernels = device.kernels
        self._work = device.workspace.allocate(self.widths, context.dtype)
        self._whole = context.method.fits_whole(context.problem)
        self._target = context.problem.target.astype(context.dtype)
        self._goal = device.device_put(self._target if self._whole else context.problem.objective(context.dtype))
        self._gradient = np.empty(layout.size(context.widths), context.dtype)
        self._product, self._slope = np.empty((2, *context.shapes[PRODUCT]), context.dtype)
        self._spectra_work: dict[Any, Any] = {}
        self._sheet_work: dict[Sheet, tuple[np.ndarray, Any]] = {}
        self._scratch: dict[str, Any] = {}
        self._known: dict[Any, Any] = {}
        self._needs: dict[Any, int] = {}

    def at(self, params: np.ndarray, step: int = 0, needs: dict[Any, int] | None = None, memory: Any = None) -> Self:
        """Move to `params`; `needs` maps the keys of the matrices that will be decomposed to a number of vectors.

        The loss and the gradient have the ridge of that step. memory: what metrics kept at earlier records, a Memory.
        """
        self.params = params
        self.step = step
        self._needs = needs or {}
        self.memory = memory
        self._known = {}
        return self

    def scratch(self, name: str, make: Callable[[], Any]) -> Any:
        """What a metric needs at every record, made once."""
        if name not in self._scratch:
            self._scratch[name] = make()
        return self._scratch[name]

    def once(self, key: Any, compute: Callable[[], Any]) -> Any:
        """What metrics share at one record, computed once."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    @property
    def network(self) -> Network:
        """A copy for the user's own functions."""
        scale = self.context.problem.output_scale
        return self.once("network", lambda: Network(self.params.copy(), self.context.widths, output_scale=scale))

    def matrix(self, key: Any) -> np.ndarray:
        """The product, a layer, or the gradient with respect to one of them, as a view or a fresh array."""
        if key == PRODUCT:
            return self.once("product", self._form_product)
        if key == ("gradient", PRODUCT):
            return self.once("slope", self._form_slope)
        if isinstance(key, tuple) and key[0] == "update":
            return self._update(key[1])
        if isinstance(key, tuple):
            return self.once("slopes", lambda: layout.layers(self.gradient, self.context.widths))[key[1] - 1]
        return self.once("layers", lambda: layout.layers(self.params, self.context.widths))[key - 1]

    def _form_product(self) -> np.ndarray:
        return self._product_of(self.params, self._product)

    def _product_of(self, params: np.ndarray, out: np.ndarray) -> np.ndarray:
        self._kernels.product(params, self.widths, out, self._work)
        if self.context.problem.output_scale != 1:
            out *= self.context.dtype.type(self.context.problem.output_scale)
        return out

    def _update(self, key: Any) -> np.ndarray:
        """What a matrix has changed by since `memory` has kept the layers; nothing at first."""
        before = self.memory.before("layers")
        if before is None:
            return np.zeros(self.context.shapes[key], self.context.dtype)
        if key != PRODUCT:
            return self.matrix(key) - layout.layers(before, self.context.widths)[key - 1]
        return self.matrix(PRODUCT) - self._product_of(before, np.empty_like(self._product))

    @property
    def loss(self) -> float:
        """The loss; computes the gradient with it."""
        return self.once("loss", self._form_gradient)

    def _form_slope(self) -> np.ndarray:
        product = self.matrix(PRODUCT)
        return product - self._target if self._whole else self.context.problem.slope(product).astype(self.context.dtype)

    def _form_gradient(self) -> float:
        first = self.params, self.widths, self._goal
        last = self._gradient, self._work
        if self._whole:
            return self._kernels.loss_and_gradient(*first, *last)
        ridge = self.context.dtype.type(self.context.method.ridges(self.step, 1)[0])
        return self._kernels.objective_loss_and_gradient(*first, ridge, *last)

    @property
    def gradient(self) -> np.ndarray:
        """The gradient, laid out like the parameters."""
        self.loss  # noqa: B018  computed on first use
        return self._gradient

    @property
    def gradient_norm(self) -> float:
        return float(np.linalg.norm(self.gradient))

    def triplets(self, key: Any) -> Any:
        """(left vectors, values, right vectors) of a matrix: all values, as many vectors as were said to be needed."""
        return self.once("spectra", self._decompose)[key]

    def _decompose(self) -> dict[Any, Any]:
        """Of all matrices at once, which is faster than one after the other."""
        keys, counts = tuple(self._needs), tuple(self._needs.values())
        matrices = [self.matrix(key) for key in keys]
        if (keys, counts) not in self._spectra_work:
            self._spectra_work[keys, counts] = workspace.allocate_spectra([m.shape for m in matrices], counts)
        return dict(zip(keys, cpu.spectra(matrices, counts, self._spectra_work[keys, counts]), strict=True))

    def values(self, key: Any) -> np.ndarray:
        """Singular values of a matrix, largest first."""
        return self.triplets(key)[1]

    def ranks(self, key: Any) -> np.ndarray:
        """The six ranks of RANKS."""
        return self.once(("ranks", key), lambda: self._measure_ranks(key))

    def _measure_ranks(self, key: Any) -> np.ndarray:
        record = self.context.record
        return ranks_of(self.values(key), record.numerical_threshold, record.relative_threshold)

    def numbers(self, sheet: Sheet) -> np.ndarray:
        """What stands in a sheet, (sheet.size,): the same array at the next record."""
        if sheet not in self._sheet_work:
            self._sheet_work[sheet] = np.empty(sheet.size), workspace.allocate_sheet(sheet)
        out, work = self._sheet_work[sheet]
        rate = self.context.rate(self.step) if sheet.needs_gradient else 0.0
        target, product, gradient, slope = self._point(sheet)
        point = Point(self.params, self.widths, target, product, gradient, slope, rate)
        cpu.fill_sheet(sheet, point, out, work)
        return out

    def _point(self, sheet: Sheet) -> tuple[np.ndarray, ...]:
        """(target, product, gradient, slope) as far as the sheet needs them."""
        if sheet.forms:
            if sheet.needs_product:
                self._known["product"] = self._product
            return self._target, self._product, self._gradient, self._slope
        product = self.matrix(PRODUCT) if sheet.needs_product else self._product
        gradient = self.gradient if sheet.needs_gradient else self._gradient
        slope = self.matrix(("gradient", PRODUCT)) if sheet.needs_slope else self._slope
        return self._target, product, gradient, slope

    def taken(self, places: Sequence[tuple[Part, Any]]) -> list[np.ndarray]:
        """Numbers of a sheet of these parts alone, in the order of the places."""
        sheet = self.scratch(repr(places), lambda: self.context.sheet([part for part, _ in places]))
        numbers = self.numbers(sheet)
        return [numbers[sheet.places[part]][index] for part, index in places]

    def balancedness(self) -> np.ndarray:
        out = np.empty(self.context.depth - 1)
        self._kernels.balancedness(self.params, self.widths, out, self._work)
        return out

    def directions(self) -> np.ndarray:
        """Rows per layer: gradient norm, weight-gradient alignment, change of the normalised weights in one step."""
        return self.once("directions", self._measure_directions)

    def _measure_directions(self) -> np.ndarray:
        out = np.empty((self.context.depth, 3))
        rate = self.context.rate(self.step)
        self._kernels.directions(self.params, self.gradient, self.widths, rate, out)
        return out
