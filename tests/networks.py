"""Networks for the tests of the core: every shape that the kernels treat differently."""

import numpy as np

from lrcore import layout
from lrcore.cpu import workspace

WIDTHS = [
    (100, 100, 100, 100),
    (4, 4),
    (7, 3, 5),
    (1, 9, 2, 6),
    (50, 20, 80, 30),
    (3, 5, 1, 4, 2, 6),
    (1, 1),
]


def make(widths, dtype=np.float64, stages=0, seed=0, size=0.7, core=None):
    """(params, widths, target, workspace), layers of about unit norm; core: the `backends.Core` of the workspace."""
    rng = np.random.default_rng(seed)
    widths = layout.as_widths(widths)
    layers = [rng.normal(size=shape) * size / np.sqrt(max(shape)) for shape in layout.shapes(widths)]
    params, _ = layout.flatten(layers, dtype)
    target = rng.normal(size=(widths[-1], widths[0])).astype(dtype)
    return params, widths, target, (core.workspace if core else workspace).allocate(widths, dtype, stages)


def relative(actual, expected):
    """Largest difference relative to the largest expected entry."""
    return np.abs(np.asarray(actual, np.float64) - expected).max() / max(np.abs(expected).max(), 1e-300)
