"""The chain W_N ⋯ W_1 on the device: that of `lrcore.cpu.chain`, written once for all that can make a product.

    forward    P_2 … P_{N−1}, and the product, or the residual W − target
    backward   B_N = G, B_{i−1} = W_iᵀ B_i, and layer i of `out` from B_i P_{i−1}ᵀ, last layer first

`chain` is given a product and a pass over vectors: those of a block's threads, compiled into a kernel that makes many
steps, or launches that spread one large network over all multiprocessors. W_i is not read again once layer i of `out`
is made, so `out` may be the parameters themselves. W_1, …, W_N begin at `point`; offsets lead into the memory.

Each direction has a product in one place only: a kernel would hold as many copies of it, and need registers for all.
"""

from typing import Any, NamedTuple

from lrcore.cuda.gemm import NN, NT, RESIDUAL, STORE, TN, UPDATE, Epilogue, Product
from lrcore.cuda.passes import ADD, COPY, OPPOSITE, SUBTRACT


class Network(NamedTuple):
    """What all steps of a network work on. memory: all numbers, flat; state: of its executor; widths; its Offsets."""

    memory: Any
    state: Any
    widths: Any
    offsets: Any


class Chain(NamedTuple):
    """forward(net, point, compared) and backward(net, mode, factor, point, out): mode is UPDATE or NEGATE."""

    forward: Any
    backward: Any


def chain(jit, matmul, combine):
    """The Chain that `matmul` and `combine` make possible; `jit` decorates what becomes part of a kernel.

    matmul(memory, state, product, epilogue), combine(memory, state, kind, count, factor, x, base, out); both are
    complete when they return, for all that come after them.
    """
    return Chain(_forward(jit, matmul, combine), _backward(jit, matmul, combine))


def _forward(jit, matmul, combine):
    @jit
    def forward(net, point, compared):
        memory = net.memory
        widths = net.widths
        offsets = net.offsets
        depth = widths.size - 1
        inputs = widths[0]
        one = memory.dtype.type(1)
        layer = point
        previous = point
        out = offsets.prefix
        mode = STORE
        if depth == 1:
            kind = SUBTRACT if compared else COPY
            combine(memory, net.state, kind, offsets.parameters, one, point, offsets.target, offsets.residual)
        for i in range(2, depth + 1):
            rows = widths[i]
            inner = widths[i - 1]
            layer += inner * widths[i - 2]
            if i == depth:
                mode = RESIDUAL if compared else STORE
                out = offsets.residual
            product = Product(NN, rows, inputs, inner, layer, previous, out)
            matmul(memory, net.state, product, Epilogue(mode, one, offsets.target))
            previous = out
            out += rows * inputs

    return forward


def _backward(jit, matmul, combine):
    @jit
    def backward(net, mode, factor, point, out):
        widths = net.widths
        offsets = net.offsets
        depth = widths.size - 1
        inputs = widths[0]
        layer = offsets.parameters
        prefix = offsets.residual
        back = offsets.residual
        next_back = offsets.residual
        for turn in range(2 * (depth - 1)):
            i = depth - turn // 2
            rows = widths[i]
            inner = widths[i - 1]
            if turn % 2 == 0:  # B_{i−1} = W_iᵀ B_i
                layer -= rows * inner
                back = next_back
                next_back = offsets.back + i % 2 * offsets.back_turn
                form = TN
                ending = STORE
                m = inner
                n = inputs
                count = rows
                left = point + layer
                right = back
                result = next_back
            else:  # ∇_i = B_i P_{i−1}ᵀ
                prefix -= inner * inputs
                form = NT
                ending = mode
                m = rows
                n = inner
                count = inputs
                left = back
                right = point if i == 2 else prefix
                result = out + layer
            product = Product(form, m, n, count, left, right, result)  # two of them would take more registers
            matmul(net.memory, net.state, product, Epilogue(ending, factor, 0))
        kind = ADD if mode == UPDATE else OPPOSITE
        combine(net.memory, net.state, kind, widths[1] * inputs, factor, next_back, out, out)

    return backward
