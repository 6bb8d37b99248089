"""Ranks of gradients, measured: that of one sample is at most m_l, that of a batch at most m_l · B.

Galanti et al., Lemma 3.1: a layer that is applied to m_l vectors of a sample has the gradient Δ Xᵀ. The m_l columns
of X are those vectors, the m_l columns of Δ what comes back for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.utils import parametrize

from lrbias.errors import check
from lrbias.nn._matrices import chosen, patches
from lrbias.nn._passes import batch_size, call, sample, tensors, unchanged, without_cudnn
from lrbias.settings import Share, validate
from lrcore import cpu


@dataclass(frozen=True)
class GradientRanks:
    """Of one matrix.

    shape    (rows, columns)
    patches  m_l: how often it is applied to a vector in one sample
    sample   (B,) the rank of the gradient of each sample's loss
    batch    the rank of the gradient of the mean loss
    """

    name: str
    shape: tuple
    patches: int
    sample: np.ndarray
    batch: int

    @property
    def bounds(self) -> tuple[int, int]:
        """(of each of `sample`, of `batch`): m_l and m_l · B, and at most the shorter side."""
        shortest = min(self.shape)
        return min(self.patches, shortest), min(self.patches * len(self.sample), shortest)


def gradient_ranks(
    model: Any,
    loss: Callable[..., Any],
    inputs: Any,
    targets: Any,
    matrices: Any = None,
    tolerance: float | None = None,
) -> list[GradientRanks]:
    """[GradientRanks] of `matrices`, of all matrices of the model when None.

    loss       loss(outputs, targets): a scalar, the mean over the samples; outputs are what the model returns
    inputs     as for `patches`
    targets    a tensor with a row for each sample, or whatever tuples, lists and dicts of them the loss takes
    tolerance  values up to tolerance · σ_1 do not count, a number between 0 and 1. None: max(rows, columns) · ε, with
               the ε of the gradient's dtype. Whatever was rounded in making Δ and X, Δ Xᵀ has at most their rank.
               Only rounding in this product adds to it, entries without structure and of size ε σ_1 at most, unless
               its terms cancel. That is what numpy's matrix_rank assumes, too, of a matrix that was rounded once

    The gradient of a sample is that of a batch of one, in evaluation mode: under batch normalisation in training mode
    a sample has no loss of its own. That of the batch is made in the mode in which the model is. They have the dtype
    of the model; that of a parametrized weight is with respect to the effective one. A weight without gradient,
    frozen or not used, has rank 0. Parameters, their `.grad`, buffers, training flags and torch's random numbers are
    left as they were. A layer of which only the weight is used, without calling it, has patches = 0, and no bound.

    Raises InvalidInput: also for a loss that is no scalar, or gradients that are not finite.
    """
    return Probe(loss, inputs, targets, tolerance).of(model, matrices).ranks()


@dataclass(frozen=True)
class Probe:
    """The samples on which ranks of gradients are measured during training. Parameters as for `gradient_ranks`."""

    loss: Callable[..., Any]
    inputs: Any = field(repr=False)
    targets: Any = field(repr=False)
    tolerance: float | None = None

    def __post_init__(self) -> None:
        check(callable(self.loss), "loss", self.loss, "a function of outputs and targets")
        size = batch_size(self.inputs)
        first = next(tensors(self.targets), None)
        fits = first is None or (first.ndim > 0 and len(first) == size)
        shown = None if first is None else f"<shape {tuple(first.shape)}>"
        check(fits, "targets", shown, f"one for each of {size} samples")
        if self.tolerance is not None:
            validate(Share, "tolerance", self.tolerance)

    def of(self, model: Any, matrices: Any = None) -> Probed:
        """The Probed of these matrices of a model."""
        return Probed(self, model, chosen(model, matrices))


class Probed:
    """A probe of one model: `patches`, {name: m_l}, and `ranks`, as the weights are when it is called."""

    def __init__(self, probe: Probe, model: Any, matrices: Any) -> None:
        self.probe = probe
        self.model = model
        self.matrices = matrices
        self.patches = patches(model, probe.inputs, matrices)

    def ranks(self, strict: bool = True) -> list[GradientRanks]:
        """[GradientRanks], in the order of the matrices. strict: whether a gradient that is not finite is refused; if
        not, its ranks are NaN."""
        inputs = self.probe.inputs
        targets = self.probe.targets
        size = batch_size(self.probe.inputs)
        with unchanged(self.model), without_cudnn():
            batch = self._ranks(inputs, targets, strict)
            self.model.eval()
            alone = [self._ranks(sample(inputs, i, size), sample(targets, i, size), strict) for i in range(size)]
        columns = zip(self.matrices, np.transpose(alone), batch.tolist(), strict=True)
        return [GradientRanks(m.name, m.shape, self.patches[m.name], each, rank) for m, each, rank in columns]

    def _ranks(self, inputs, targets, strict):
        slopes = zip(self.matrices, self._slopes(inputs, targets), strict=True)
        return ranks([matrix.read(slope) for matrix, slope in slopes], self.probe.tolerance, strict)

    def _slopes(self, inputs, targets):
        """∂loss/∂weight for each matrix, in the shape of the weight that holds it. `.grad` is not touched."""
        with torch.enable_grad(), parametrize.cached():
            loss = self.probe.loss(call(self.model, inputs), targets)
            scalar = isinstance(loss, torch.Tensor) and loss.numel() == 1 and loss.requires_grad
            check(scalar, "loss", loss, "a function whose result is a scalar tensor that depends on the parameters")
            weights = [matrix.weight() for matrix in self.matrices]  # after the pass: those that it has used
            learnt = [weight for weight in weights if weight.requires_grad]
            slopes = iter(torch.autograd.grad(loss.reshape(()), learnt, allow_unused=True))
        found = [next(slopes) if weight.requires_grad else None for weight in weights]
        return [torch.zeros_like(w) if slope is None else slope for w, slope in zip(weights, found, strict=True)]


def ranks(gradients: Sequence[Any], tolerance: float | None = None, strict: bool = True) -> np.ndarray:
    """(k,) numerical ranks of k tensors (m, n): #{σ_i > tolerance · σ_1}, 0 for a zero matrix. tolerance as above.

    strict: whether a tensor that is not finite is refused; if not, its rank is NaN, and the others are floats.
    """
    finite = [bool(gradient.isfinite().all()) for gradient in gradients]
    check(all(finite) or not strict, "model", "<a gradient is not finite>", "finite gradients for these inputs")
    pairs = zip(gradients, finite, strict=True)
    return np.array([_rank(gradient, tolerance) if known else np.nan for gradient, known in pairs])


def _rank(gradient, tolerance):
    values = cpu.singular_values(_array(gradient))
    return np.sum(values > (tolerance or _rounding(gradient)) * values[0])


def _rounding(gradient):
    tolerance = max(gradient.shape) * torch.finfo(gradient.dtype).eps
    accepted = f"a number between 0 and 1: {max(gradient.shape)} numbers of {gradient.dtype} may round to any rank"
    check(tolerance < 1, "tolerance", None, accepted)
    return tolerance


def _array(gradient):
    """For LAPACK, which has no half precision."""
    wide = gradient if gradient.dtype.itemsize >= 4 else gradient.float()
    return wide.detach().cpu().numpy()
