"""The chain W_N ⋯ W_1 on the device: the walk of `lrcore.cpu.chain`, written once for all that can make a product.

    forward    P_2 … P_{N−1}, and the product, or the residual W − target
    backward   B_N = G, B_{i−1} = W_iᵀ B_i, and layer i of `out` from B_i P_{i−1}ᵀ, last layer first

`walks` is given a product and a pass over vectors: those of a block's threads, compiled into a kernel that makes many
steps, or launches that spread one large network over all multiprocessors. W_i is not read again once layer i of `out`
is made, so `out` may be the parameters themselves. W_1, …, W_N begin at `point`; offsets lead into `memory`.

Each walk has a product in one place only: a kernel would hold as many copies of it, and need registers for all.
"""

from typing import Any, NamedTuple

from lrcore.cuda.gemm import A_BT, AB, AT_B, RESIDUAL, STORE, UPDATE
from lrcore.cuda.passes import ADD, COPY, OPPOSITE, SUBTRACT


class Walks(NamedTuple):
    """forward(memory, state, widths, places, point, compared) and
    backward(memory, state, widths, places, ending, factor, point, out): ending is UPDATE or NEGATE."""

    forward: Any
    backward: Any


def walks(compiled, multiply, combine):
    """The Walks that `multiply` and `combine` make possible; `compiled` decorates what becomes part of a kernel.

    multiply(memory, state, form, mode, m, n, count, a, b, c, target, factor), combine(memory, state, kind, count,
    factor, x, base, out); both are complete when they return, for all that come after them.
    """

    @compiled
    def forward(memory, state, widths, places, point, compared):
        depth = widths.size - 1
        inputs = widths[0]
        one = memory.dtype.type(1)
        layer = point
        previous = point
        goal = places.prefix
        mode = STORE
        if depth == 1:
            kind = SUBTRACT if compared else COPY
            combine(memory, state, kind, places.parameters, one, point, places.target, places.residual)
        for i in range(2, depth + 1):
            rows, inner = widths[i], widths[i - 1]
            layer += inner * widths[i - 2]
            if i == depth:
                mode = RESIDUAL if compared else STORE
                goal = places.residual
            multiply(memory, state, AB, mode, rows, inputs, inner, layer, previous, goal, places.target, one)
            previous = goal
            goal += rows * inputs

    @compiled
    def backward(memory, state, widths, places, ending, factor, point, out):
        depth = widths.size - 1
        inputs = widths[0]
        offset = places.parameters
        prefix = places.residual
        back = places.residual
        after = places.residual
        for turn in range(2 * (depth - 1)):
            i = depth - turn // 2
            rows, inner = widths[i], widths[i - 1]
            if turn % 2 == 0:  # B_{i−1} = W_iᵀ B_i
                offset -= rows * inner
                back = after
                after = places.back + i % 2 * places.back_turn
                form = AT_B
                mode = STORE
                m = inner
                n = inputs
                count = rows
                left = point + offset
                right = back
                goal = after
            else:  # ∇_i = B_i P_{i−1}ᵀ
                prefix -= inner * inputs
                form = A_BT
                mode = ending
                m = rows
                n = inner
                count = inputs
                left = back
                right = point if i == 2 else prefix
                goal = out + offset
            multiply(memory, state, form, mode, m, n, count, left, right, goal, 0, factor)
        kind = ADD if ending == UPDATE else OPPOSITE
        combine(memory, state, kind, widths[1] * inputs, factor, after, out, out)

    return Walks(forward, backward)
