"""The kernels for the CPU. Every name stands in `lrcore.reference` too, with the same parameters."""

from lrcore.cpu.adaptive import adaptive_rk_steps
from lrcore.cpu.batch import batch_gd_steps, batch_rk_steps
from lrcore.cpu.batch_sgd import batch_sgd_steps
from lrcore.cpu.chain import backward, forward, loss_and_gradient, product
from lrcore.cpu.curvature import hessian, hessian_point, hessian_vector
from lrcore.cpu.diagonal import diagonal_gd_steps, diagonal_rk_steps
from lrcore.cpu.gemm import multiply, multiply_at, multiply_bt
from lrcore.cpu.krylov import lanczos
from lrcore.cpu.metrics import balancedness, directions, mode_strengths, rank_metrics, vector_alignment
from lrcore.cpu.ntk import ntk_apply, ntk_factors, ntk_inner
from lrcore.cpu.objective import objective_gd_steps, objective_loss_and_gradient, objective_rk_steps
from lrcore.cpu.path import nearest_on_path
from lrcore.cpu.random import draws, normals
from lrcore.cpu.sgd import sgd_steps
from lrcore.cpu.step import gd_steps, rk_steps
from lrcore.cpu.svd import (
    entries_in_basis,
    principal_angles,
    singular_triplets,
    singular_values,
    spectra,
    weight_values,
)
from lrcore.cpu.tangent import tangent_gd_steps

__all__ = [
    "adaptive_rk_steps",
    "backward",
    "balancedness",
    "batch_gd_steps",
    "batch_rk_steps",
    "batch_sgd_steps",
    "diagonal_gd_steps",
    "diagonal_rk_steps",
    "directions",
    "draws",
    "entries_in_basis",
    "forward",
    "gd_steps",
    "hessian",
    "hessian_point",
    "hessian_vector",
    "lanczos",
    "loss_and_gradient",
    "mode_strengths",
    "multiply",
    "multiply_at",
    "multiply_bt",
    "nearest_on_path",
    "normals",
    "ntk_apply",
    "ntk_factors",
    "ntk_inner",
    "objective_gd_steps",
    "objective_loss_and_gradient",
    "objective_rk_steps",
    "principal_angles",
    "product",
    "rank_metrics",
    "rk_steps",
    "sgd_steps",
    "singular_triplets",
    "singular_values",
    "spectra",
    "tangent_gd_steps",
    "vector_alignment",
    "weight_values",
]
