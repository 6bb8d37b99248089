"""The student: layers W_1 … W_N in one flat vector, and how they are initialised."""

import itertools
from typing import NamedTuple

import numpy as np

from lrbias.errors import InvalidInput, require, shorten
from lrbias.problems import gaussian, orthonormal
from lrbias.settings import Count, Depth, Finite, Positive, Scale, Seed, as_array, as_matrix, check_memory, validate
from lrcore import layout, random

PARAMETRIZATIONS = ("standard", "ntk")
GAMMA, NTK_GAMMA = 1.5, 0.5  # of the protocol, and of the tangent parametrization
MOST_LAYERS = 1000  # of which each has metrics and files of its own
DTYPES = {"float64": np.float64, "float32": np.float32}


class Network:
    """A deep linear network.

    Make one with `Network.gaussian`, `.identical`, `.perturbed`, `.orthogonal`, `.balanced`, `.symmetric` or
    `.from_layers`.

    params   the flat parameter vector, W_1 first
    widths   (n_0, …, n_N); layer i has shape (n_i, n_{i−1})
    scale    what the product of the layers is multiplied by to give the network's output, 1 unless said otherwise
    """

    def __init__(self, params, widths, settings=None, scale=1.0):
        self.params = params
        self.widths = tuple(int(n) for n in widths)
        self.scale = float(scale)
        self._settings = settings

    @classmethod
    def gaussian(cls, widths, gamma=None, seed=0, dtype="float64", parametrization="standard", std=None):
        """Layers with independent normal entries of **standard deviation** w^−gamma, w the width of the layer.

        gamma: 1.5 by default, so small a start that one value is learnt after the other, ½ with parametrization "ntk".
        parametrization: "ntk" has layers w_i/√n_{i−1} (Jacot et al. 2018): the entries of w_i, which are trained, have
            deviation w^(½−gamma), 1 by default, and the output is multiplied by the product of all 1/√n_{i−1}. At the
            start it is that of the "standard" network with the same gamma, whatever the widths; but a step of the
            same learning rate moves it less.
        std: the standard deviation itself, the same for all layers, instead of gamma.

        The width of layer i is the length n_{i−1} of its input, so with equal widths n it is n for every layer; the
        protocol does not say which side it means for unequal widths, this is our choice. Jacot et al. write the
        *variance* as w^−γ: their γ is twice ours, and their threshold γ = 1 is ours at ½.

        Layer i is stream i of `seed`: it does not change when layers are added after it. float32 networks are the
        rounded float64 ones. Raises InvalidInput.
        """
        widths = as_widths(widths)
        seed = validate(Seed, "seed", seed)
        require(isinstance(dtype, str) and dtype in DTYPES, "dtype", dtype, "float64 or float32")
        known = isinstance(parametrization, str) and parametrization in PARAMETRIZATIONS
        require(known, "parametrization", parametrization, " or ".join(PARAMETRIZATIONS))
        start = _deviations(widths, gamma, std, parametrization)
        with np.errstate(over="ignore"):  # checked below
            layers = [
                gaussian(shape, seed, stream=i, domain=random.NETWORK) * deviation
                for i, (shape, deviation) in enumerate(zip(layout.shapes(widths), start.deviations, strict=True), 1)
            ]
            params, _ = layout.flatten(layers, DTYPES[dtype])
        accepted = f"a number for which all weights are finite in {dtype}"
        require(np.isfinite(params).all(), *next(iter(start.settings.items())), accepted)
        settings = {"widths": list(widths), **start.settings, "seed": seed, "dtype": dtype}
        return cls(params, widths, settings, start.scale)

    @classmethod
    def identical(cls, n, depth, alpha, dtype="float64"):
        """W_i = αI for every layer, all of them (n, n). Raises InvalidInput unless alpha > 0."""
        settings = {"init": "identical", "alpha": validate(Positive, "alpha", alpha)}
        return cls._scaled_identities(n, depth, [settings["alpha"]] * validate(Depth, "depth", depth), dtype, settings)

    @classmethod
    def perturbed(cls, n, depth, alpha, beta, dtype="float64"):
        """W_1 = (α − β)I and the other layers αI. Raises InvalidInput unless 0 < beta < alpha.

        Chou et al.: the perturbation lets gradient descent recover negative eigenvalues, too.
        """
        alpha, beta = validate(Positive, "alpha", alpha), validate(Positive, "beta", beta)
        require(beta < alpha, "beta", beta, f"less than alpha, {alpha:g}")
        scales = [alpha - beta] + [alpha] * (validate(Depth, "depth", depth) - 1)
        return cls._scaled_identities(n, depth, scales, dtype, {"init": "perturbed", "alpha": alpha, "beta": beta})

    @classmethod
    def _scaled_identities(cls, n, depth, scales, dtype, settings):
        n = validate(Count, "n", n)
        check_memory("n", n, depth * n**2)
        require(isinstance(dtype, str) and dtype in DTYPES, "dtype", dtype, "float64 or float32")
        params, widths = layout.flatten([scale * np.eye(n) for scale in scales], DTYPES[dtype])
        return cls(params, widths, {**settings, "widths": [n] * (depth + 1), "dtype": dtype})

    @classmethod
    def orthogonal(cls, widths, alpha, seed=0, dtype="float64"):
        """Layers α times a random orthogonal matrix (orthonormal columns or rows where a layer is not square).

        Layer i is stream i of `seed`. Raises InvalidInput unless alpha > 0.
        """
        widths = as_widths(widths)
        seed = validate(Seed, "seed", seed)
        alpha = validate(Positive, "alpha", alpha)
        require(isinstance(dtype, str) and dtype in DTYPES, "dtype", dtype, "float64 or float32")
        layers = [alpha * _orthogonal(shape, seed, i) for i, shape in enumerate(layout.shapes(widths), start=1)]
        params, _ = layout.flatten(layers, DTYPES[dtype])
        settings = {"init": "orthogonal", "widths": list(widths), "alpha": alpha, "seed": seed, "dtype": dtype}
        return cls(params, widths, settings)

    @classmethod
    def balanced(cls, widths, alpha, seed=0, dtype="float64"):
        """A random product of spectral norm α^N, shared evenly: W_{i+1}ᵀW_{i+1} = W_iW_iᵀ (Arora et al. 2018).

        The product is a Gaussian matrix of the rank that the narrowest layer allows; every layer has the N-th roots of
        its singular values, between orthonormal directions that fit those of its neighbours. Raises InvalidInput
        unless alpha > 0.
        """
        widths = as_widths(widths)
        seed = validate(Seed, "seed", seed)
        alpha = validate(Positive, "alpha", alpha)
        require(isinstance(dtype, str) and dtype in DTYPES, "dtype", dtype, "float64 or float32")
        depth = len(widths) - 1
        rank = min(widths)
        left, values, right = np.linalg.svd(gaussian((widths[-1], widths[0]), seed, 0, random.NETWORK), False)
        roots = alpha * (values[:rank] / values[0]) ** (1 / depth)
        sides = [right[:rank].T]
        sides += [_orthogonal((n, rank), seed, i) for i, n in enumerate(widths[1:-1], start=1)]
        sides.append(left[:, :rank])
        layers = [(above * roots) @ below.T for below, above in itertools.pairwise(sides)]
        params, _ = layout.flatten(layers, DTYPES[dtype])
        settings = {"init": "balanced", "widths": list(widths), "alpha": alpha, "seed": seed, "dtype": dtype}
        return cls(params, widths, settings)

    @classmethod
    def symmetric(cls, widths, alpha, seed=0, dtype="float64"):
        """W_2 = U and W_1 = Uᵀ, so that the product is UUᵀ: a depth-2 network whose layers stay tied while it trains.

        widths are (n, d, n). U is (n, d); its entries are independent and normal with standard deviation α/√n, so
        that ‖U‖₂ ≈ α(1 + √(d/n)); this scale is ours. U is stream 1 of `seed`. On a symmetric loss
        (`Problem.symmetric_loss`, which training asks for) gradient flow then is that of ½ f(UUᵀ), U' = −∇f(UUᵀ) U (Li,
        Luo, Lyu 2021). GD and flow keep W_2 = W_1ᵀ bit for bit; SGD draws single entries and would not.

        Raises InvalidInput unless the widths are three, the first is the last, and alpha > 0.
        """
        widths = as_widths(widths)
        seed = validate(Seed, "seed", seed)
        fits = len(widths) == 3 and widths[0] == widths[-1]
        require(fits, "widths", widths, "(n, d, n) for a symmetric start UUᵀ, which has depth 2")
        alpha = validate(Positive, "alpha", alpha)
        require(isinstance(dtype, str) and dtype in DTYPES, "dtype", dtype, "float64 or float32")
        half = gaussian(widths[:2], seed, stream=1, domain=random.NETWORK) * (alpha / np.sqrt(widths[0]))
        params, _ = layout.flatten([half.T, half], DTYPES[dtype])
        settings = {"init": "symmetric", "widths": list(widths), "alpha": alpha, "seed": seed, "dtype": dtype}
        return cls(params, widths, settings)

    @classmethod
    def from_layers(cls, layers):
        """A network with the given matrices, W_1 first; each takes what the one before it gives. They are copied.

        float32 when every matrix is float32, float64 otherwise. Raises InvalidInput.
        """
        require(
            isinstance(layers, (list, tuple)) and len(layers) > 0, "layers", layers, "a list of at least one matrix"
        )
        arrays = [as_array(f"layers[{i}]", layer) for i, layer in enumerate(layers)]
        single = all(array.dtype == np.float32 for array in arrays)
        matrices = [as_matrix(f"layers[{i}]", array) for i, array in enumerate(arrays)]
        for i, (below, above) in enumerate(itertools.pairwise(matrices)):
            accepted = f"{below.shape[0]} columns, the number of rows of layers[{i}]"
            require(
                above.shape[1] == below.shape[0], f"layers[{i + 1}]", f"<an array of shape {above.shape}>", accepted
            )
        params, widths = layout.flatten(matrices, np.float32 if single else np.float64)
        return cls(params, widths)

    @classmethod
    def from_checkpoint(cls, arrays):
        """The network of a checkpoint, {name: array}; of a linearised run the one that it linearised."""
        origin = "origin_" if "origin_params" in arrays else ""
        params, widths = (arrays[origin + name] for name in ("params", "widths"))
        return cls(params, widths, scale=float(arrays.get(f"{origin}scale", 1)))

    def check_layers(self):
        """InvalidInput unless the layers fit the widths and are finite: of arrays that come from a file."""
        widths = as_widths(self.widths)
        known = self.params.ndim == 1 and self.params.dtype.name in DTYPES
        require(known, "params", f"<{self.params.dtype}, shape {self.params.shape}>", "a vector, float64 or float32")
        size = sum(rows * columns for rows, columns in itertools.pairwise(widths))
        require(self.params.size == size, "params", f"<{self.params.size} numbers>", f"{size}, for widths {widths}")
        require(np.isfinite(self.params).all(), "params", f"<{size} numbers>", "finite numbers")
        validate(Scale, "scale", self.scale)

    @property
    def layers(self):
        """Views of the layers, W_1 first: writing to one writes to `params`."""
        return layout.layers(self.params, self.widths)

    @property
    def depth(self):
        return layout.depth(self.widths)

    @property
    def dtype(self):
        return self.params.dtype

    def product(self):
        """The output as a matrix: `scale` · W_N ⋯ W_1, shape (n_N, n_0)."""
        result = self.layers[0]
        for layer in self.layers[1:]:
            result = layer @ result
        return result.copy() if self.scale == 1 else self.dtype.type(self.scale) * result

    def scaled(self, output_scale):
        """The same layers with an output that is `output_scale` > 0 times as large: α of Chizat, Oyallon, Bach (2019).

        The larger it is, the lazier the training, since smaller changes of the layers fit the target. A loss then
        falls α² times as fast, so the learning rate has to be smaller by that. Raises InvalidInput.
        """
        alpha = validate(Scale, "output_scale", output_scale)
        validate(Scale, "output_scale", self.scale * alpha)
        settings = self._settings
        if settings is not None:
            settings = {**settings, "output_scale": settings.get("output_scale", 1.0) * alpha}
        return Network(self.params.copy(), self.widths, settings, self.scale * alpha)

    @property
    def tied(self):
        """Whether `Network.symmetric` made it, and so whether training has to keep W_2 = W_1ᵀ."""
        return (self._settings or {}).get("init") == "symmetric"

    def check_method(self, method):
        """InvalidInput when `method` would break the tie of a tied network: it draws single entries."""
        accepted = "gd or flow for a symmetric start: the step of an entry (r, c) without (c, r) breaks W_2 = W_1ᵀ"
        require(not (self.tied and method.stochastic), "method", method.name, accepted)

    def copy(self):
        return Network(self.params.copy(), self.widths, self._settings, self.scale)

    def settings(self):
        """How to make this initial network again, as keys of an experiment file."""
        return self._settings or {"network": "checkpoints/step-00000000.npz"}

    def __repr__(self):
        arrows = " → ".join(str(n) for n in self.widths)
        scale = "" if self.scale == 1 else f", output scale {self.scale:g}"
        return f"Network({arrows}, {self.dtype}, {self.params.size} parameters{scale})"


class _Start(NamedTuple):
    """Standard deviations of the layers, the output scale, and the settings that say so."""

    deviations: list
    scale: float
    settings: dict


def _deviations(widths, gamma, std, parametrization):
    tangent = parametrization == "ntk"
    inputs = [np.float64(n) for n in widths[:-1]]
    settings = {"parametrization": "ntk"} if tangent else {}
    scale = float(np.prod([n**-0.5 for n in inputs])) if tangent else 1.0
    if std is not None:
        require(gamma is None, "std", std, "either std or gamma")
        std = validate(Positive, "std", std)
        return _Start([std] * len(inputs), scale, {"std": std, **settings})
    gamma = validate(Finite, "gamma", (NTK_GAMMA if tangent else GAMMA) if gamma is None else gamma)
    with np.errstate(over="ignore"):
        return _Start([n ** (tangent / 2 - gamma) for n in inputs], scale, {"gamma": gamma, **settings})


def _orthogonal(shape, seed, stream):
    """A random matrix with orthonormal columns, or rows when there are fewer of them."""
    rows, columns = shape
    tall = orthonormal(max(shape), min(shape), seed, stream, random.NETWORK)
    return tall if rows >= columns else tall.T


def as_widths(widths):
    """`widths` as a tuple of integers, or InvalidInput."""
    accepted = "at least two integers (n_0, …, n_N), each at least 1"
    try:
        widths = tuple(widths)
    except TypeError:
        raise InvalidInput(f"widths = {shorten(widths)} is not accepted: expected {accepted}.") from None
    require(len(widths) >= 2, "widths", widths, accepted)
    require(len(widths) - 1 <= MOST_LAYERS, "widths", widths, f"at most {MOST_LAYERS} layers")
    widths = tuple(validate(Count, "widths", width) for width in widths)
    check_memory("widths", widths, sum(rows * columns for rows, columns in itertools.pairwise(widths)))
    return widths
