"""What one core can do: independent chains of fused multiply-adds in registers, nothing loaded."""

import time

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from lrcore.cpu._target import kernel
from lrcore.cpu._vector import VECTOR_BITS

# Two FMA units times four cycles need 8. With the factor and the summand 12 fit into the 16 registers of AVX2; with 16
# chains some were spilled there, and steps of training seemed to exceed the peak.
CHAINS = 12


@intrinsic
def _chains(typingctx, turns):
    def codegen(context, builder, signature, arguments):
        vector = ir.VectorType(ir.DoubleType(), VECTOR_BITS // 64)
        lanes = vector.count
        integer = ir.IntType(64)
        fma_type = ir.FunctionType(vector, [vector] * 3)
        fma = cgutils.get_or_insert_function(builder.module, fma_type, f"llvm.fma.v{lanes}f64")
        a, c = (ir.Constant(vector, [number] * lanes) for number in (1.0000001, 1e-9))
        before = builder.block
        loop, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
        builder.branch(loop)
        builder.position_at_end(loop)
        turn = builder.phi(integer)
        sums = [builder.phi(vector) for _ in range(CHAINS)]
        new = [builder.call(fma, [a, value, c]) for value in sums]
        next_turn = builder.add(turn, integer(1))
        turn.add_incoming(integer(0), before)
        turn.add_incoming(next_turn, loop)
        for number, (phi, value) in enumerate(zip(sums, new, strict=True)):
            phi.add_incoming(ir.Constant(vector, [float(number)] * lanes), before)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", next_turn, arguments[0]), loop, after)
        builder.position_at_end(after)
        total = new[0]
        for value in new[1:]:
            total = builder.fadd(total, value)
        return builder.extract_element(total, ir.IntType(32)(0))

    return types.float64(types.int64), codegen


@kernel
def run_chains(turns):
    return _chains(turns)


def gigaflops(turns=200_000):
    """Gigaflops of one short run; the largest of many is the peak."""
    started = time.perf_counter()
    run_chains(turns)
    return turns * CHAINS * (VECTOR_BITS // 64) * 2 / (time.perf_counter() - started) / 1e9
