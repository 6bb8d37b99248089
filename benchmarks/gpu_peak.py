"""What a GPU can do: independent chains of fused multiply-adds in registers, as `peak.py` has them for one core."""

from harness import seconds  # isort: split

import numpy as np

from lrcore.cuda import device_properties
from lrcore.cuda._target import Integer, Numbers, copy_to_host, cuda, empty, fma, kernel, on_gpu

CHAINS, STEPS = 8, 16  # of a thread; multiply-adds of each chain in a turn of the loop
TURNS, THREADS, BLOCKS = on_gpu(6000, 2), on_gpu(256, 2), on_gpu(8, 1)  # blocks of each multiprocessor
ROUNDS = 5


@kernel("fma_chains")
def _chains(out: Numbers, turns: Integer):
    a, b, c = out.dtype.type(0.75), out.dtype.type(0.5), out.dtype.type(cuda.threadIdx.x)
    s0 = c
    s1 = c
    s2 = c
    s3 = c
    s4 = c
    s5 = c
    s6 = c
    s7 = c
    turn = 0
    while turn < turns:
        for _ in range(STEPS):  # unrolled: what a turn costs beside would show in float32
            s0 = fma(a, s0, b)
            s1 = fma(b, s1, a)
            s2 = fma(a, s2, a)
            s3 = fma(b, s3, b)
            s4 = fma(a, s4, c)
            s5 = fma(b, s5, c)
            s6 = fma(a, s6, s6)
            s7 = fma(b, s7, s7)
        turn += 1
    out[cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x] = s0 + s1 + s2 + s3 + (s4 + s5 + s6 + s7)


def multiply_adds(dtype):
    """Fused multiply-adds a second, all multiprocessors busy: the largest of several runs."""
    blocks = BLOCKS * device_properties().multiprocessors
    there = empty(blocks * THREADS, dtype)
    here = np.empty(blocks * THREADS, dtype)

    def run():
        _chains(blocks, THREADS, there, TURNS)
        copy_to_host(there, here)

    run()  # compiles
    return here.size * CHAINS * STEPS * TURNS / min(seconds(run) for _ in range(ROUNDS))
