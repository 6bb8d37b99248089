"""The executable specification: every kernel in plain NumPy, with the names and parameters of `lrcore.cpu`.

Written to be read and to be right. Nothing here is fast; tests hold each target to it. A module has one subject.
"""

from lrcore.reference.adaptive import adaptive_rk_steps
from lrcore.reference.batch import batch_gd_steps, batch_rk_steps
from lrcore.reference.curvature import hessian, hessian_point, hessian_vector
from lrcore.reference.diagonal import diagonal_gd_steps, diagonal_rk_steps
from lrcore.reference.gradient import backward, forward, loss_and_gradient
from lrcore.reference.krylov import lanczos
from lrcore.reference.metrics import (
    balancedness,
    directions,
    entries_in_basis,
    mode_strengths,
    rank_metrics,
    vector_alignment,
)
from lrcore.reference.ntk import ntk_apply, ntk_factors, ntk_inner, tangent_gd_steps
from lrcore.reference.objective import objective_gd_steps, objective_loss_and_gradient, objective_rk_steps
from lrcore.reference.path import nearest_on_path
from lrcore.reference.products import matmul_nn, matmul_nt, matmul_tn, product
from lrcore.reference.random import draws, normals
from lrcore.reference.sgd import batch_sgd_steps, sgd_steps
from lrcore.reference.sheet import fill_sheet
from lrcore.reference.step import gd_steps, rk_steps
from lrcore.reference.svd import principal_angles, singular_triplets, singular_values, spectra, weight_values

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
    "fill_sheet",
    "forward",
    "gd_steps",
    "hessian",
    "hessian_point",
    "hessian_vector",
    "lanczos",
    "loss_and_gradient",
    "matmul_nn",
    "matmul_nt",
    "matmul_tn",
    "mode_strengths",
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
