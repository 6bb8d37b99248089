"""The kernels for the CPU. Every name stands in `lrcore.reference` too, with the same parameters.

Names are imported when they are first used, so that what runs no kernel, as reading a run, needs no Numba.
"""

import importlib

_NAMES = {
    "adaptive": ["adaptive_rk_steps"],
    "batch": ["batch_gd_steps", "batch_rk_steps"],
    "batch_sgd": ["batch_sgd_steps"],
    "chain": ["backward", "forward", "loss_and_gradient", "product"],
    "curvature": ["hessian", "hessian_point", "hessian_vector"],
    "diagonal": ["diagonal_gd_steps", "diagonal_rk_steps"],
    "gemm": ["matmul_nn", "matmul_tn", "matmul_nt"],
    "krylov": ["lanczos"],
    "metrics": ["balancedness", "directions", "mode_strengths", "rank_metrics", "vector_alignment"],
    "ntk": ["ntk_apply", "ntk_factors", "ntk_inner"],
    "objective": ["objective_gd_steps", "objective_loss_and_gradient", "objective_rk_steps"],
    "path": ["nearest_on_path"],
    "random": ["draws", "normals"],
    "sgd": ["sgd_steps"],
    "sheet": ["fill_sheet"],
    "step": ["gd_steps", "rk_steps"],
    "svd": ["entries_in_basis", "principal_angles", "singular_triplets", "singular_values", "spectra", "weight_values"],
    "tangent": ["tangent_gd_steps"],
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'lrcore.cpu' has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(f"lrcore.cpu.{_HOME[name]}"), name)
    return value
