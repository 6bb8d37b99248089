"""The student: layers W_1 … W_N in one flat vector, and how they are initialised."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from lrbias.errors import check
from lrbias.network._balanced import Balanced
from lrbias.network._checkpoint import check_start, start_of
from lrbias.network._gaussian import Gaussian
from lrbias.network._identity import Perturbed, ScaledIdentity
from lrbias.network._initialization import Drawn, Initialization, Start
from lrbias.network._orthogonal import Orthogonal
from lrbias.network._tied import Tied
from lrbias.settings import Count, Depth, Scale, as_array, as_matrix, check_memory, validate
from lrcore import layout


class Network:
    """A deep linear network.

    Make one with `Network.gaussian`, `.scaled_identity`, `.perturbed`, `.orthogonal`, `.balanced`, `.tied` or
    `.from_layers`.

    params        the flat parameter vector, W_1 first
    widths        (n_0, …, n_N); layer i has shape (n_i, n_{i−1})
    output_scale  what the product of the layers is multiplied by to give the network's output, 1 unless said otherwise
    """

    def __init__(
        self,
        params: np.ndarray,
        widths: Sequence[int],
        settings: dict[str, Any] | None = None,
        output_scale: float = 1.0,
    ) -> None:
        self.params = params
        self.widths = tuple(int(n) for n in widths)
        self.output_scale = float(output_scale)
        self._settings = settings

    @classmethod
    def gaussian(
        cls,
        widths: Sequence[int],
        gamma: float | None = None,
        seed: int = 0,
        dtype: str = "float64",
        parametrization: str = "standard",
        std: float | None = None,
    ) -> Self:
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
        numbers = {"gamma": gamma, "std": std, "parametrization": parametrization, "seed": seed}
        return cls.drawn(Gaussian(**numbers, dtype=dtype), widths)

    @classmethod
    def scaled_identity(cls, n: int, depth: int, alpha: float, dtype: str = "float64") -> Self:
        """W_i = αI for every layer, all of them (n, n). Raises InvalidInput unless alpha > 0."""
        return cls._of_identities(ScaledIdentity(alpha=alpha, dtype=dtype), n, depth)

    @classmethod
    def perturbed(cls, n: int, depth: int, alpha: float, beta: float, dtype: str = "float64") -> Self:
        """W_1 = (α − β)I and the other layers αI. Raises InvalidInput unless 0 < beta < alpha.

        Chou et al.: the perturbation lets gradient descent recover negative eigenvalues, too.
        """
        return cls._of_identities(Perturbed(alpha=alpha, beta=beta, dtype=dtype), n, depth)

    @classmethod
    def _of_identities(cls, initialization: Drawn, n: int, depth: int) -> Self:
        n = validate(Count, "n", n)
        depth = validate(Depth, "depth", depth)
        check_memory("n", n, depth * n**2)
        return cls.drawn(initialization, (n,) * (depth + 1))

    @classmethod
    def orthogonal(cls, widths: Sequence[int], alpha: float, seed: int = 0, dtype: str = "float64") -> Self:
        """Layers α times a random orthogonal matrix (orthonormal columns or rows where a layer is not square).

        Layer i is stream i of `seed`. Raises InvalidInput unless alpha > 0.
        """
        return cls.drawn(Orthogonal(alpha=alpha, seed=seed, dtype=dtype), widths)

    @classmethod
    def balanced(cls, widths: Sequence[int], alpha: float, seed: int = 0, dtype: str = "float64") -> Self:
        """A random product of spectral norm α^N, shared evenly: W_{i+1}ᵀW_{i+1} = W_iW_iᵀ (Arora et al. 2018).

        The product is a Gaussian matrix of the rank that the narrowest layer allows; every layer has the N-th roots of
        its singular values, between orthonormal directions that fit those of its neighbours. Raises InvalidInput
        unless alpha > 0.
        """
        return cls.drawn(Balanced(alpha=alpha, seed=seed, dtype=dtype), widths)

    @classmethod
    def tied(cls, widths: Sequence[int], alpha: float, seed: int = 0, dtype: str = "float64") -> Self:
        """W_2 = U and W_1 = Uᵀ, so that the product is UUᵀ: a depth-2 network whose layers stay tied while it trains.

        widths are (n, d, n). U is (n, d); its entries are independent and normal with standard deviation α/√n, so
        that ‖U‖₂ ≈ α(1 + √(d/n)); this scale is ours. U is stream 1 of `seed`. On a symmetric loss
        (`Problem.symmetric_loss`, which training asks for) gradient flow then is that of ½ f(UUᵀ), U' = −∇f(UUᵀ) U (Li,
        Luo, Lyu 2021). GD and flow keep W_2 = W_1ᵀ bit for bit; SGD draws single entries and would not.

        Raises InvalidInput unless the widths are three, the first is the last, and alpha > 0.
        """
        return cls.drawn(Tied(alpha=alpha, seed=seed, dtype=dtype), widths)

    @classmethod
    def drawn(cls, initialization: Drawn, widths: Any) -> Self:
        """The network of these widths with which an initialization starts: also one of somebody else's."""
        return cls(*initialization.start_with(widths))

    @classmethod
    def initialized(cls, initialization: Initialization, problem: Any) -> Network:
        """The network with which `initialization` starts on a problem. Raises InvalidInput."""
        network = cls(*initialization.start(problem.shape))
        scale = initialization.output_scale
        return network if scale == 1 else network.scaled(scale)

    @classmethod
    def from_layers(cls, layers: Sequence[ArrayLike]) -> Self:
        """A network with the given matrices, W_1 first; each takes what the one before it gives. They are copied.

        float32 when every matrix is float32, float64 otherwise. Raises InvalidInput.
        """
        check(isinstance(layers, (list, tuple)) and len(layers) > 0, "layers", layers, "a list of at least one matrix")
        arrays = [as_array(f"layers[{i}]", layer) for i, layer in enumerate(layers)]
        single = all(array.dtype == np.float32 for array in arrays)
        matrices = [as_matrix(f"layers[{i}]", array) for i, array in enumerate(arrays)]
        for i, (below, above) in enumerate(itertools.pairwise(matrices)):
            accepted = f"{below.shape[0]} columns, the number of rows of layers[{i}]"
            check(above.shape[1] == below.shape[0], f"layers[{i + 1}]", f"<an array of shape {above.shape}>", accepted)
        params, widths = layout.flatten(matrices, np.float32 if single else np.float64)
        return cls(params, widths)

    @classmethod
    def from_checkpoint(cls, arrays: dict[str, Any]) -> Self:
        """The network of a checkpoint, {name: array}; of a linearised run the one that it linearised."""
        return cls(*start_of(arrays))

    def check_layers(self) -> None:
        """InvalidInput unless the layers fit the widths and are finite: of arrays that come from a file."""
        check_start(Start(self.params, self.widths, None, self.output_scale))

    @property
    def layers(self) -> list[np.ndarray]:
        """Views of the layers, W_1 first: writing to one writes to `params`."""
        return layout.layers(self.params, self.widths)

    @property
    def depth(self) -> int:
        return layout.depth(self.widths)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.params.dtype

    def product(self) -> np.ndarray:
        """The output as a matrix: `output_scale` · W_N ⋯ W_1, shape (n_N, n_0)."""
        result = self.layers[0]
        for layer in self.layers[1:]:
            result = layer @ result
        return result.copy() if self.output_scale == 1 else self.dtype.type(self.output_scale) * result

    def scaled(self, output_scale: float) -> Network:
        """The same layers with an output that is `output_scale` > 0 times as large: α of Chizat, Oyallon, Bach (2019).

        The larger it is, the lazier the training, since smaller changes of the layers fit the target. A loss then
        falls α² times as fast, so the learning rate has to be smaller by that. Raises InvalidInput.
        """
        alpha = validate(Scale, "output_scale", output_scale)
        validate(Scale, "output_scale", self.output_scale * alpha)
        settings = self._settings
        if settings is not None:
            settings = {**settings, "output_scale": settings.get("output_scale", 1.0) * alpha}
        return Network(self.params.copy(), self.widths, settings, self.output_scale * alpha)

    @property
    def is_tied(self) -> bool:
        """Whether `Network.tied` made it, and so whether training has to keep W_2 = W_1ᵀ."""
        return (self._settings or {}).get("init") == "tied"

    def check_method(self, method: Any) -> None:
        """InvalidInput when `method` would break the tie of a tied network: it draws single entries."""
        accepted = "gd or flow for a tied start: the step of an entry (r, c) without (c, r) breaks W_2 = W_1ᵀ"
        check(not (self.is_tied and method.stochastic), "method", method.name, accepted)

    def copy(self) -> Network:
        return Network(self.params.copy(), self.widths, self._settings, self.output_scale)

    def settings(self) -> dict[str, Any]:
        """How to make this initial network again, as keys of an experiment file."""
        return self._settings or {"network": "checkpoints/step-00000000.npz"}

    def __repr__(self) -> str:
        arrows = " → ".join(str(n) for n in self.widths)
        scale = "" if self.output_scale == 1 else f", output scale {self.output_scale:g}"
        return f"Network({arrows}, {self.dtype}, {self.params.size} parameters{scale})"
