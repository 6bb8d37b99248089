"""The student: layers W_1 … W_N in one flat vector, and how they are initialised."""

import itertools

import numpy as np

from lrbias.errors import InvalidInput, require, shorten
from lrbias.problem import as_matrix, gaussian
from lrbias.settings import Count, Finite, Seed, validate
from lrcore import layout, random

DTYPES = {"float64": np.float64, "float32": np.float32}


class Network:
    """A deep linear network. Make one with `Network.gaussian` or `Network.from_layers`.

    params   the flat parameter vector, W_1 first
    widths   (n_0, …, n_N); layer i has shape (n_i, n_{i−1})
    """

    def __init__(self, params, widths, settings=None):
        self.params = params
        self.widths = tuple(int(n) for n in widths)
        self._settings = settings

    @classmethod
    def gaussian(cls, widths, gamma=1.1, seed=0, dtype="float64"):
        """Layers with independent normal entries of **standard deviation** w^−gamma, w the width of the layer.

        The width of layer i is the length n_{i−1} of its input, so with equal widths n it is n for every layer; the
        protocol does not say which side it means for unequal widths, this is our choice. Jacot et al. write the
        *variance* as w^−γ: their γ is twice ours, and their threshold γ = 1 is ours at ½.

        Layer i is stream i of `seed`: it does not change when layers are added after it. float32 networks are the
        rounded float64 ones. Raises InvalidInput.
        """
        widths = as_widths(widths)
        gamma, seed = validate(Finite, "gamma", gamma), validate(Seed, "seed", seed)
        require(dtype in DTYPES, "dtype", dtype, "float64 or float32")
        with np.errstate(over="ignore"):  # checked below
            layers = [
                gaussian(shape, seed, stream=i, domain=random.NETWORK) * np.float64(shape[1]) ** -gamma
                for i, shape in enumerate(layout.shapes(widths), start=1)
            ]
            params, _ = layout.flatten(layers, DTYPES[dtype])
        require(np.isfinite(params).all(), "gamma", gamma, f"an exponent whose w^-gamma is finite in {dtype}")
        settings = {"widths": list(widths), "gamma": gamma, "seed": seed, "dtype": dtype}
        return cls(params, widths, settings)

    @classmethod
    def from_layers(cls, layers):
        """A network with the given matrices, W_1 first; each takes what the one before it gives. They are copied.

        float32 when every matrix is float32, float64 otherwise. Raises InvalidInput.
        """
        require(
            isinstance(layers, (list, tuple)) and len(layers) > 0, "layers", layers, "a list of at least one matrix"
        )
        single = all(getattr(layer, "dtype", None) == np.float32 for layer in layers)
        matrices = [as_matrix(f"layers[{i}]", layer) for i, layer in enumerate(layers)]
        for i, (below, above) in enumerate(itertools.pairwise(matrices)):
            accepted = f"{below.shape[0]} columns, the number of rows of layers[{i}]"
            require(
                above.shape[1] == below.shape[0], f"layers[{i + 1}]", f"<an array of shape {above.shape}>", accepted
            )
        params, widths = layout.flatten(matrices, np.float32 if single else np.float64)
        return cls(params, widths)

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
        """W_N ⋯ W_1, shape (n_N, n_0)."""
        result = self.layers[0]
        for layer in self.layers[1:]:
            result = layer @ result
        return result.copy()

    def copy(self):
        return Network(self.params.copy(), self.widths, self._settings)

    def settings(self):
        """How to make this initial network again, as keys of an experiment file."""
        return self._settings or {"network": "checkpoints/step-00000000.npz"}

    def __repr__(self):
        arrows = " → ".join(str(n) for n in self.widths)
        return f"Network({arrows}, {self.dtype}, {self.params.size} parameters)"


def as_widths(widths):
    """`widths` as a tuple of integers, or InvalidInput."""
    accepted = "at least two integers (n_0, …, n_N), each at least 1"
    try:
        widths = tuple(widths)
    except TypeError:
        raise InvalidInput(f"widths = {shorten(widths)} is not accepted: expected {accepted}.") from None
    require(len(widths) >= 2, "widths", widths, accepted)
    return tuple(validate(Count, "widths", width) for width in widths)
