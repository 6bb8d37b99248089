"""The metrics by name: which quantities each one writes, and how it is measured.

A metric is a row of `METRICS`. To add one: write a function of an `Observation` that returns its values in the order
of its quantities, and register it with `@metric`.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lrbias import theory
from lrbias.devices import CPU
from lrbias.errors import InvalidInput, require, shorten
from lrbias.network import Network
from lrcore import cpu, layout, workspace

PRODUCT = 0  # key of the product; layer i has key i, and the gradients have those of their matrices behind "gradient"
RANKS = ("effective_rank", "entropy_rank", "stable_rank", "numerical_rank", "relative_rank", "relative_rank_frobenius")
MOST_DIRECTIONS = 20


@dataclass(frozen=True)
class Quantity:
    """One logged series: its name in the run, the shape of one row, its dtype and its interval in steps."""

    name: str
    shape: tuple
    dtype: str
    interval: int = 1


@dataclass(frozen=True)
class Metric:
    """A named group of quantities that are measured together.

    quantities(setup) lists (name, row shape, kind: "float" or "int"); measure(observation) gives their values in order;
    needs(setup) maps the keys of the matrices whose singular values it reads to how many leading singular vectors it
    reads beside them.
    """

    name: str
    quantities: Callable
    measure: Callable
    needs: Callable


class Setup:
    """What stays the same during a run: shapes, the target's directions, thresholds, where networks are looked at."""

    def __init__(self, problem, widths, dtype, record, method, device=CPU):
        self.problem, self.widths, self.dtype, self.record = problem, tuple(widths), np.dtype(dtype), record
        self.method, self.device = method, device.for_one_pass(widths)
        self.depth = layout.depth(widths)
        self.layers = range(1, self.depth + 1)
        self.shapes = {PRODUCT: (widths[-1], widths[0]), **dict(enumerate(layout.shapes(widths), start=1))}

    @functools.cached_property
    def clusters(self):
        """Rows (first, last) of the target's nearly equal values, one per compared direction."""
        spectrum = self.problem.spectrum
        count = self.record.directions or min(spectrum.rank, MOST_DIRECTIONS)
        return spectrum.clusters(min(count, len(spectrum.values)), self.record.degenerate)

    @functools.cached_property
    def modes(self):
        """(left, right): the target's leading singular vectors, as columns, one pair per compared direction."""
        spectrum, count = self.problem.spectrum, len(self.clusters)
        return tuple(np.ascontiguousarray(vectors[:, :count]) for vectors in (spectrum.left, spectrum.right))

    @property
    def has_basis(self):
        """Whether entries in the target's eigenvectors are measured: a symmetric target, or a square one on request."""
        square = len(set(self.problem.shape)) == 1
        return self.problem.symmetric or (self.names("eigenvalues_in_basis") and square)

    @functools.cached_property
    def errors(self):
        """Names of the errors that the problem knows: "train", "hidden"."""
        return list(self.problem.errors(self.problem.target))

    def names(self, metric):
        """Whether a metric was asked for by its name."""
        asked = self.record.metrics
        return not isinstance(asked, str) and metric in asked

    def key_name(self, key):
        return "product" if key == PRODUCT else f"layer/{key}"


class Observation:
    """The network at one step. What metrics share (SVDs, product, gradient) is computed once, when asked for.

    Products are made on the device of the run where the network is large; singular values always on the CPU.
    """

    def __init__(self, setup):
        self.setup, device = setup, setup.device
        self._widths, self._kernels = layout.as_widths(setup.widths), device.kernels
        self._work = device.workspace.allocate(self._widths, setup.dtype)
        self._whole = setup.problem.plain and setup.method.ridge == 0
        self._target = setup.problem.target.astype(setup.dtype)
        self._goal = device.constant(self._target if self._whole else setup.problem.objective(setup.dtype))
        self._gradient = np.empty(layout.size(setup.widths), setup.dtype)
        self._product = np.empty(setup.shapes[PRODUCT], setup.dtype)
        self._spectra_work, self._angles_work = {}, None
        self._known, self._needs = {}, {}

    def at(self, params, step=0, needs=None):
        """Move to `params`; `needs` maps the keys of the matrices that will be decomposed to a number of vectors.

        The loss and the gradient have the ridge of that step.
        """
        self.params, self.step, self._needs = params, step, needs or {}
        self._known = {}
        return self

    def _once(self, key, compute):
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    @property
    def network(self):
        """A copy for the user's own functions."""
        return self._once("network", lambda: Network(self.params.copy(), self.setup.widths))

    def matrix(self, key):
        """The product, a layer, or the gradient with respect to one of them, as a view or a fresh array."""
        if key == PRODUCT:
            return self._once("product", self._form_product)
        if key == ("gradient", PRODUCT):
            return self._once("slope", self._form_slope)
        if isinstance(key, tuple):
            return self._once("slopes", lambda: layout.layers(self.gradient, self.setup.widths))[key[1] - 1]
        return self._once("layers", lambda: layout.layers(self.params, self.setup.widths))[key - 1]

    def _form_product(self):
        self._kernels.product(self.params, self._widths, self._product, self._work)
        return self._product

    @property
    def loss(self):
        """The loss; computes the gradient with it."""
        return self._once("loss", self._form_gradient)

    def _form_slope(self):
        product = self.matrix(PRODUCT)
        return product - self._target if self._whole else self.setup.problem.slope(product).astype(self.setup.dtype)

    def _form_gradient(self):
        if self._whole:
            arguments = self.params, self._widths, self._goal, self._gradient, self._work
            return self._kernels.loss_and_gradient(*arguments)
        ridge = self.setup.dtype.type(self.setup.method.ridges(self.step, 1)[0])
        arguments = self.params, self._widths, self._goal, ridge, self._gradient, self._work
        return self._kernels.objective_loss_and_gradient(*arguments)

    @property
    def gradient(self):
        """The gradient, laid out like the parameters."""
        self.loss  # noqa: B018  computed on first use
        return self._gradient

    @property
    def gradient_norm(self):
        return float(np.linalg.norm(self.gradient))

    def triplets(self, key):
        """(left vectors, values, right vectors) of a matrix: all values, as many vectors as were said to be needed."""
        return self._once("spectra", self._decompose)[key]

    def _decompose(self):
        """Of all matrices at once, which is faster than one after the other."""
        keys, counts = tuple(self._needs), tuple(self._needs.values())
        matrices = [self.matrix(key) for key in keys]
        if (keys, counts) not in self._spectra_work:
            self._spectra_work[keys, counts] = workspace.allocate_spectra([m.shape for m in matrices], counts)
        return dict(zip(keys, cpu.spectra(matrices, counts, self._spectra_work[keys, counts]), strict=True))

    def values(self, key):
        """Singular values of a matrix, largest first."""
        return self.triplets(key)[1]

    def angles(self, pairs):
        """Principal angles of pairs of orthonormal columns, the same shapes at every call."""
        if self._angles_work is None:
            shapes = [shape for _, b in pairs for shape in ((b.shape[1], b.shape[1]), b.shape)]
            self._angles_work = workspace.allocate_spectra(shapes, [0] * len(shapes))
        return cpu.principal_angles(pairs, self._angles_work)

    def ranks(self, key):
        """The six ranks of RANKS."""
        return self._once(("ranks", key), lambda: self._measure_ranks(key))

    def _measure_ranks(self, key):
        out, record = np.empty(len(RANKS)), self.setup.record
        cpu.rank_metrics(self.values(key), record.numerical_threshold, record.relative_threshold, out)
        return out

    def balancedness(self):
        out = np.empty(self.setup.depth - 1)
        self._kernels.balancedness(self.params, self._widths, out, self._work)
        return out

    def directions(self):
        """Rows per layer: gradient norm, weight-gradient alignment, change of the normalised weights in one step."""
        return self._once("directions", self._measure_directions)

    def _measure_directions(self):
        out = np.empty((self.setup.depth, 3))
        rate = self.setup.method.rates(self.step, 1)[0]
        self._kernels.directions(self.params, self.gradient, self._widths, rate, out)
        return out


METRICS: dict[str, Metric] = {}


def metric(name, quantities, needs=lambda setup: {}):
    """Register the decorated function as the metric `name`."""

    def register(measure):
        METRICS[name] = Metric(name, quantities, measure, needs)
        return measure

    return register


def _matrices(setup):
    return [PRODUCT, *setup.layers]


def _values_of_all(setup):
    return dict.fromkeys(_matrices(setup), 0)


def _per_matrix(name, kind="float", vector=False):
    """A row for the product and one for every layer: a number, or as many as the matrix has singular values."""
    return lambda setup: [
        (f"{setup.key_name(key)}/{name}", (min(setup.shapes[key]),) if vector else (), kind) for key in _matrices(setup)
    ]


def _per_layer(name):
    return lambda setup: [(f"layer/{i}/{name}", (), "float") for i in setup.layers]


def _per_pair(name):
    """A row for every layer that has one above it."""
    return lambda setup: [(f"layer/{i}/{name}", (), "float") for i in setup.layers[:-1]]


@metric("singular_values", _per_matrix("singular_values", vector=True), needs=_values_of_all)
def _singular_values(observation):
    return [observation.values(key) for key in _matrices(observation.setup)]


def _register_rank(column, name):
    kind = "int" if name.startswith(("numerical", "relative")) else "float"

    @metric(name, _per_matrix(name, kind), needs=_values_of_all)
    def measure(observation):
        return [observation.ranks(key)[column] for key in _matrices(observation.setup)]


for _column, _name in enumerate(RANKS):
    _register_rank(_column, _name)


def _alignment_quantities(setup):
    rows = (len(setup.clusters),)
    return [(f"product/{what}_{side}", rows, "float") for what in ("alignment", "angles") for side in ("left", "right")]


@metric("alignment", _alignment_quantities, needs=lambda setup: {PRODUCT: len(setup.clusters)})
def _alignment(observation):
    """|⟨u_i, û_i⟩| and |⟨v_i, v̂_i⟩| per direction, clusters of equal target values as a whole; principal angles."""
    setup, clusters = observation.setup, observation.setup.clusters
    left, _, right = observation.triplets(PRODUCT)
    spectrum, count = setup.problem.spectrum, len(clusters)
    sides = [(left, spectrum.left), (right, spectrum.right)]
    cosines = [np.empty(count), np.empty(count)]
    for (vectors, teacher), out in zip(sides, cosines, strict=True):
        cpu.vector_alignment(vectors, teacher, clusters, out)
    return [*cosines, *observation.angles([(vectors, teacher[:, :count]) for vectors, teacher in sides])]


@metric("mode_strengths", lambda setup: [("product/mode_strengths", (len(setup.clusters),), "float")])
def _mode_strengths(observation):
    """û_iᵀ W v̂_i: how far the product has come along each of the target's directions. Not sorted, unlike σ_i."""
    out = np.empty((2, len(observation.setup.clusters)))
    cpu.mode_strengths(observation.matrix(PRODUCT), *observation.setup.modes, out)
    return [out[0]]


def _basis_quantities(setup):
    if not setup.has_basis:
        return []
    return [("product/eigenvalues_in_basis", (setup.problem.shape[0],), "float"), ("product/off_diagonal", (), "float")]


@metric("eigenvalues_in_basis", _basis_quantities)
def _eigenvalues_in_basis(observation):
    """The diagonal of VᵀWV and the Frobenius norm of the rest, V the eigenvectors of the target's symmetric part."""
    if not observation.setup.has_basis:
        return []
    return list(cpu.entries_in_basis(observation.matrix(PRODUCT), observation.setup.problem.eigen.vectors))


@metric("balancedness", _per_pair("balancedness"))
def _balancedness(observation):
    """‖W_{i+1}ᵀW_{i+1} − W_iW_iᵀ‖_F of layer i and the one above it."""
    return observation.balancedness()


@metric("layer_alignment", _per_pair("layer_alignment"), needs=lambda setup: dict.fromkeys(setup.layers, 1))
def _layer_alignment(observation):
    """|⟨u_1(W_i), v_1(W_{i+1})⟩| of layer i and the one above it."""
    triplets = [observation.triplets(i) for i in observation.setup.layers]
    return [abs(below[0][:, 0] @ above[2][:, 0]) for below, above in itertools.pairwise(triplets)]


@metric("gradient_norm", lambda setup: [("gradient_norm", (), "float"), *_per_layer("gradient_norm")(setup)])
def _gradient_norm(observation):
    return [observation.gradient_norm, *observation.directions()[:, 0]]


def _gradients(setup):
    return [("gradient", key) for key in _matrices(setup)]


@metric(
    "gradient_singular_values",
    _per_matrix("gradient_singular_values", vector=True),
    needs=lambda setup: dict.fromkeys(_gradients(setup), 0),
)
def _gradient_singular_values(observation):
    """Of ∂L/∂W at the product, and of every layer's gradient."""
    return [observation.values(key) for key in _gradients(observation.setup)]


@metric("weight_gradient_alignment", _per_layer("weight_gradient_alignment"))
def _weight_gradient_alignment(observation):
    """⟨W_i, ∇_i⟩ / (‖W_i‖ ‖∇_i‖)."""
    return observation.directions()[:, 1]


@metric("direction_change", _per_layer("direction_change"))
def _direction_change(observation):
    """How far the normalised weights W_i/‖W_i‖ move in one Euler step: exact for GD, first order for a flow."""
    return observation.directions()[:, 2]


@metric("errors", lambda setup: [(f"{name}_error", (), "float") for name in setup.errors])
def _errors(observation):
    """Root mean squares of W − Ŵ over the observed entries and over the hidden ones; nothing for a whole target."""
    if not observation.setup.errors:
        return []
    return list(observation.setup.problem.errors(observation.matrix(PRODUCT)).values())


def _cost_quantities(setup):
    return [("product/representation_cost", (), "float"), ("squared_norm", (), "float")]


@metric("representation_cost", _cost_quantities, needs=lambda setup: {PRODUCT: 0})
def _representation_cost(observation):
    """N Σ σ_i^(2/N), the least Σ ‖W_i‖² of all networks with this product; and Σ ‖W_i‖² of this one."""
    cost = theory.representation_cost(observation.values(PRODUCT), observation.setup.depth)
    return [cost, np.sum(observation.params**2)]


def _absorbing_quantities(setup):
    return [("absorbing_rank", (), "int")] if setup.names("absorbing_rank") else []


@metric("absorbing_rank", _absorbing_quantities, needs=lambda setup: dict.fromkeys(setup.layers, 0))
def _absorbing_rank(observation):
    """The smallest r with the network in B_r (see `lrbias.absorbing`), −1 for none; only when named."""
    setup = observation.setup
    if not setup.names("absorbing_rank"):
        return []
    sets = setup.record.absorbing_sets()
    return [sets.rank([observation.values(i) for i in setup.layers], observation.balancedness())]


def _product_quantities(setup):
    return [("product/matrix", setup.shapes[PRODUCT], "float")] if setup.names("product") else []


@metric("product", _product_quantities)
def _product(observation):
    """The product itself; only when named, since it is as large as the target at every record."""
    if not observation.setup.names("product"):
        return []
    return [observation.matrix(PRODUCT).copy()]  # rows wait to be written while the next step is observed


class Plan:
    """Which metrics are due at a step, and the quantities they write."""

    def __init__(self, setup):
        self.setup = setup
        self.entries = [self._entry(name, interval) for name, interval in setup.record.intervals().items()]
        self.intervals = sorted({interval for _, interval, _ in self.entries})
        self._needs = {}

    def _entry(self, name, interval):
        functions = self.setup.record.functions()
        chosen = _from_function(name, functions[name]) if name in functions else METRICS[name]
        floats = self.setup.dtype.str.lstrip("<=")
        kinds = {"float": floats, "int": "i4"}
        rows = [] if name in functions else chosen.quantities(self.setup)
        return chosen, interval, [Quantity(label, tuple(shape), kinds[kind], interval) for label, shape, kind in rows]

    def probe(self, observation):
        """Complete the quantities of the user's functions by calling each once, at the start of a run."""
        for chosen, interval, quantities in self.entries:
            if not quantities and chosen.name in self.setup.record.functions():
                value = _user_value(chosen.name, chosen.measure(observation)[0])
                quantities.append(Quantity(chosen.name, value.shape, value.dtype.str.lstrip("<=|"), interval))
                self._check_apart(chosen.name)

    def _check_apart(self, name):
        """A quantity can be neither another one nor a folder of others, in the log as on disk."""
        others = ["loss", "losses", *(quantity.name for quantity in self.quantities)]
        others.remove(name)
        clashes = [other for other in others if f"{other}/".startswith(f"{name}/") or name.startswith(f"{other}/")]
        require(not clashes, "metrics", name, f"a name apart from those of {', '.join(clashes[:3])}")

    @property
    def quantities(self):
        return [quantity for _, _, quantities in self.entries for quantity in quantities]

    def due(self, step):
        """The entries that are measured at `step`."""
        return [entry for entry in self.entries if step % entry[1] == 0]

    def measure(self, observation, params, step, write):
        """Call write(quantity name, row, value) for everything that is due at `step`."""
        due = self.due(step)
        names = tuple(entry[0].name for entry in due)
        if names not in self._needs:
            self._needs[names] = self._merge(entry[0].needs(self.setup) for entry in due)
        observation.at(params, step, self._needs[names])
        with np.errstate(all="ignore"):  # what is not finite is recorded as such
            for chosen, interval, quantities in due:
                for quantity, value in zip(quantities, chosen.measure(observation), strict=True):
                    write(quantity.name, step // interval, value)

    @staticmethod
    def _merge(needs):
        """The most vectors of each matrix that any of the metrics needs."""
        merged = {}
        for each in needs:
            for key, count in each.items():
                merged[key] = max(count, merged.get(key, 0))
        return merged


def _from_function(name, function):
    return Metric(name, lambda setup: [], lambda observation: [function(observation.network)], lambda setup: {})


def _user_value(name, value):
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise InvalidInput(f"metrics.{name} returned {shorten(value)}: expected a number or an array of numbers.")
    return array if array.dtype.kind != "b" else array.astype("i1")
