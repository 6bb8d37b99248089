"""The metric that is made of products: the twin of `lrcore.cpu.metrics.balancedness`.

What only reads vectors, or follows a singular value decomposition, is made where these are: on the CPU.
"""

import math

import numpy as np

from lrcore.cuda._target import fetch
from lrcore.cuda.gemm import A_BT, AT_B, RESIDUAL, STORE, launch_product
from lrcore.cuda.grid import on_grid


def balancedness(params, widths, out, work):
    """out[i−1] = ‖W_{i+1}ᵀ W_{i+1} − W_i W_iᵀ‖_F for i = 1 … N−1."""
    memory = work.memory
    state = work.state
    one = params.dtype.type(1)
    gram = work.square
    columns = work.places.columns
    layer = 0
    work.load(0, params)
    work.reset()
    for i in range(1, widths.size - 1):
        n, below, above = widths[i], widths[i - 1], widths[i + 1]
        upper = layer + n * below
        found = np.empty(n, params.dtype)
        launch_product(memory, state, AT_B, STORE, n, n, above, upper, upper, gram, 0, one)
        launch_product(memory, state, A_BT, RESIDUAL, n, n, below, layer, layer, gram, gram, one)
        on_grid.square(memory, state, n, n, gram, columns)
        fetch(memory[columns : columns + n], found)
        out[i - 1] = math.sqrt(np.add.accumulate(found.astype(np.float64))[-1])  # one after the other
        layer = upper
