"""`make cuda-check`: every kernel compiled for GPUs that need not be here, and assembled to machine code.

    python -m lrcore.cuda.check

prints, for each kernel, kind of number and compute capability, how many registers a thread and how much shared memory a
block takes, and how many bytes are spilled. It fails where something does not compile, where a kernel of products spills
registers or lacks a fused multiply-add, and where anything is fused or approximated that should not be.
"""

import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy as np

from lrcore import cuda  # every kernel is known once this is imported
from lrcore.cuda._target import KERNELS, SIMULATED, ptx

CAPABILITIES = [(7, 5), (8, 0), (9, 0)]
DTYPES = [np.float64, np.float32]
# no kernel asks for these: they would make other bits than the CPU
APPROXIMATE = re.compile(r"\b(?:div|sqrt|rcp|ex2|lg2|sin|cos)\.(?:full|approx)|\.ftz\b")
USED = re.compile(
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers(.*)", re.S
)


def assembler():
    """The path of ptxas."""
    found = sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/**/bin/ptxas"))
    if not found:
        sys.exit("ptxas is not installed: pip install 'lrbias[cuda-check]'")
    return found[-1]


def report(kernel, dtype, capability, ptxas, folder):
    """(row of numbers, [sentences about what is wrong]) of one kernel."""
    text = ptx(kernel, dtype, capability)
    source, wrong = Path(folder, "kernel.ptx"), []
    source.write_text(text)
    arguments = [ptxas, "--verbose", "--gpu-name", f"sm_{capability[0]}{capability[1]}", source, "-o", source.with_suffix(".cubin")]
    made = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if made.returncode:
        return None, [f"ptxas: {' '.join(made.stderr.split())[:300]}"]
    frame, stores, loads, registers, rest = USED.search(made.stderr).groups()
    shared = re.search(r"(\d+) bytes smem", rest)
    bits = 8 * np.dtype(dtype).itemsize
    fused, spilled = text.count(f"fma.rn.f{bits}"), int(stores) + int(loads)
    if kernel.products and spilled:
        wrong.append(f"{spilled} bytes are spilled")
    if kernel.products and not fused:
        wrong.append("no fused multiply-add")
    if APPROXIMATE.search(text):
        wrong.append(f"approximate: {APPROXIMATE.search(text).group()}")
    return (int(registers), int(shared.group(1)) if shared else 0, int(frame), spilled, fused), wrong


def main():
    if SIMULATED:
        sys.exit("with NUMBA_ENABLE_CUDASIM nothing is compiled")
    ptxas, faults = assembler(), 0
    print(f"{len(KERNELS)} kernels of lrcore.cuda, float64 and float32, compute capability 7.5, 8.0, 9.0")
    print(f"{'kernel':24} {'number':8} {'cc':>4} {'registers':>9} {'shared':>7} {'frame':>6} {'spilled':>7} {'fma.rn':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for kernel in KERNELS:
            for dtype in DTYPES:
                for capability in CAPABILITIES:
                    row, wrong = report(kernel, dtype, capability, ptxas, folder)
                    name, cc = f"{kernel.name:24} {np.dtype(dtype).name:8}", ".".join(map(str, capability))
                    print(f"{name} {cc:>4}", *(f"{n:>{w}}" for n, w in zip(row or (), (9, 7, 6, 7, 6), strict=False)), *wrong)
                    faults += len(wrong)
    products = sum(kernel.products for kernel in KERNELS)
    print(f"{faults} faults; {products} kernels make products")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
