"""The kernels for NVIDIA GPUs: every name of `lrcore.cpu`, with the same parameters and the same bits.

NumPy arrays go in and out; scratch is a workspace of `lrcore.cuda.workspace`, whose functions have the names of those
in `lrcore.cpu.workspace`. What reads vectors only, draws a start, or follows an SVD is the CPU's.
So are curvature, the tangent kernel and training by it: they run on this side, with arrays and scratch of it.
Importing this needs the extra `cuda` (else it is an ImportError that says so), but no GPU: `missing` says
what keeps kernels from running.
"""

from lrcore.cpu import (
    directions,
    draws,
    entries_in_basis,
    fill_sheet,
    hessian,
    hessian_point,
    hessian_vector,
    lanczos,
    mode_strengths,
    nearest_on_path,
    normals,
    ntk_apply,
    ntk_factors,
    ntk_inner,
    principal_angles,
    rank_metrics,
    singular_triplets,
    singular_values,
    spectra,
    tangent_gd_steps,
    vector_alignment,
    weight_values,
)
from lrcore.cuda import workspace
from lrcore.cuda._target import device_properties, free_memory, missing
from lrcore.cuda.adaptive import adaptive_rk_steps
from lrcore.cuda.batch import batch_gd_steps, batch_rk_steps
from lrcore.cuda.diagonal import diagonal_gd_steps, diagonal_rk_steps
from lrcore.cuda.gemm import matmul_nn, matmul_nt, matmul_tn
from lrcore.cuda.gradient import backward, forward, loss_and_gradient, product
from lrcore.cuda.metrics import balancedness
from lrcore.cuda.objective import (
    objective_gd_steps,
    objective_loss_and_gradient,
    objective_rk_steps,
    objective_to_device,
)
from lrcore.cuda.sgd import batch_sgd_steps, sgd_steps
from lrcore.cuda.step import gd_steps, rk_steps
from lrcore.cuda.workspace import DeviceMemoryError
from lrcore.objective import Objective


def device_put(value):
    """An Objective whose arrays stay on the device, for kernels that take one; anything else as it is."""
    return objective_to_device(value) if isinstance(value, Objective) else value


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

__all__ += ["DeviceMemoryError", "device_properties", "device_put", "free_memory", "missing", "workspace"]
