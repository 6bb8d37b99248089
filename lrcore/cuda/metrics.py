"""The metric that is made of products: that of `lrcore.cpu.metrics.balancedness`.

What only reads vectors, or follows a singular value decomposition, is made where these are: on the CPU.
"""

import math

import numpy as np

from lrcore.cuda._target import copy_to_host
from lrcore.cuda.gemm import NT, RESIDUAL, STORE, TN, Epilogue, Product, launch_product
from lrcore.cuda.grid import ON_GRID


def balancedness(params, widths, out, work):
    """out[i−1] = ‖W_{i+1}ᵀ W_{i+1} − W_i W_iᵀ‖_F for i = 1 … N−1."""
    memory = work.memory
    state = work.state
    one = params.dtype.type(1)
    gram = work.square
    columns = work.offsets.columns
    layer = 0
    work.load(0, params)
    work.reset()
    for i in range(1, widths.size - 1):
        n = widths[i]
        below = widths[i - 1]
        above = widths[i + 1]
        upper = layer + n * below
        squares = np.empty(n, params.dtype)
        launch_product(memory, state, Product(TN, n, n, above, upper, upper, gram), Epilogue(STORE, one, 0))
        launch_product(memory, state, Product(NT, n, n, below, layer, layer, gram), Epilogue(RESIDUAL, one, gram))
        ON_GRID.column_squares(memory, state, n, n, gram, columns)
        copy_to_host(memory[columns : columns + n], squares)
        out[i - 1] = math.sqrt(np.add.accumulate(squares.astype(np.float64))[-1])  # one after the other
        layer = upper
