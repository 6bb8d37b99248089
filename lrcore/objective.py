"""What a training kernel minimises, as data: which entries or measurements of the product are to have which values.

The kernels of `lrcore.cpu.objective` take an `Objective`, those of `lrcore.cpu.sgd` the `Entries` of one.
"""

from typing import NamedTuple

import numpy as np

from lrcore import layout


class Objective(NamedTuple):
    """One of three losses of W, told apart by which arrays have rows:

    `matrices`     ½ weight Σ_k (⟨A_k, W⟩ − values_k)²
    `covariance`   ½ tr((W − target) Σ (W − target)ᵀ) + floor
    neither        ½ Σ_ij weights_ij (W_ij − target_ij)²

    target      (n_N, n_0)
    weights     (n_N, n_0), ≥ 0; 0 where nothing is observed
    matrices    (K, n_N·n_0), a measurement A_k per row
    values      (K,)
    weight      of every measurement
    product     (n_N·n_0,) for measurements and a covariance: scratch
    covariance  (n_0, n_0), symmetric: Σ, that of the inputs
    floor       what the loss has at W = target
    """

    target: np.ndarray
    weights: np.ndarray
    matrices: np.ndarray
    values: np.ndarray
    weight: float
    product: np.ndarray
    covariance: np.ndarray
    floor: float


def weighted(target, weights, dtype=np.float64):
    """The Objective of single entries; the arrays are copied."""
    none = np.empty((0, target.size), dtype)
    zero = np.empty(0, dtype)
    scalar = np.dtype(dtype).type
    copies = layout.aligned_copy(target, dtype), layout.aligned_copy(weights, dtype)
    return Objective(*copies, none, zero, scalar(1), zero, np.empty((0, 0), dtype), scalar(0))


def measured(matrices, values, weight=1.0, dtype=np.float64):
    """The Objective of measurements; matrices (K, n_N, n_0)."""
    flat = layout.aligned_copy(matrices.reshape(len(matrices), -1), dtype)
    nothing = np.zeros(matrices.shape[1:], dtype)
    scratch = layout.aligned(flat.shape[1], dtype)
    scalar = np.dtype(dtype).type
    none = np.empty((0, 0), dtype)
    return Objective(nothing, nothing, flat, np.array(values, dtype), scalar(weight), scratch, none, scalar(0))


def regression(target, covariance, floor=0.0, dtype=np.float64):
    """The Objective of a regression on inputs with this covariance; the arrays are copied."""
    none = np.empty((0, target.size), dtype)
    zero = np.empty(0, dtype)
    scalar = np.dtype(dtype).type
    copied = layout.aligned_copy(target, dtype)
    scratch = layout.aligned(target.size, dtype)
    inputs = layout.aligned_copy(covariance, dtype)
    return Objective(copied, np.zeros_like(copied), none, zero, scalar(1), scratch, inputs, scalar(floor))


# Weights under a ridge that nothing holds fall for ever, and arithmetic on the smallest numbers is many times slower.
# So at every FLUSH_EVERY-th step of SGD what is below FLUSH_BELOW becomes 0.
FLUSH_EVERY, FLUSH_BELOW = 1024, 1e-30


class Entries(NamedTuple):
    """The observed entries: rows, columns (m,), values (m,); weight: the factor of every entry's ½ residual²."""

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    weight: float


class BatchRates(NamedTuple):
    """Rates of many runs: learning rates lr · factors[0, k] and ridges ridge · factors[1, k] at step k of a call.

    lr, ridge (blocks, lanes); factors (2, steps), common to all runs
    """

    lr: np.ndarray
    ridge: np.ndarray
    factors: np.ndarray


class Sampling(NamedTuple):
    """Which entries step `first` and the ones after it draw: `batch` of them each, with replacement or not.

    The draws of a step depend on it and on `seed` (uint64) alone.
    """

    seed: np.uint64
    first: int
    batch: int
    replacement: bool
