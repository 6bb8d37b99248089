"""Every kernel compiled for GPUs that need not be here, and assembled to machine code: `make cuda-check`.

For each kernel, kind of number and compute capability it prints how many registers a thread and how many bytes of
shared memory a block takes, and what is spilled to slower memory. It fails where something does not compile, where a
kernel of products spills or has no fused multiply-add, and where anything is approximated.
"""

import itertools
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from lrcore import cuda  # noqa: F401  every kernel is known once this is imported
from lrcore.cuda._target import KERNELS, SIMULATED, ptx

CAPABILITIES = [(7, 5), (8, 0), (9, 0)]
DTYPES = [np.float64, np.float32]
COLUMNS = ("registers", "shared", "frame", "spilled", "fma.rn")
# would make other bits than the CPU
APPROXIMATE = re.compile(r"\b(?:div|sqrt|rcp|ex2|lg2|sin|cos)\.(?:full|approx)\S*|\S+\.ftz\S*")
NUMBERS = r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)"


def assembler():
    """The path of ptxas."""
    paths = sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/**/bin/ptxas"))
    if not paths:
        sys.exit("ptxas is not installed: pip install 'lrbias[cuda-check]'")
    return paths[-1]


def assembled(text, capability, ptxas, registers):
    """What ptxas says of a PTX text, and whether it could assemble it; registers: the most of a thread, or None."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(text)
        target = "sm_" + "".join(map(str, capability))
        words = [ptxas, "--verbose", "--gpu-name", target, source, "-o", source.with_suffix(".cubin")]
        words += ["--maxrregcount", str(registers)] if registers else []
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stderr, done.returncode == 0


def examine(number, dtype, capability, ptxas):
    """(the row of COLUMNS, [what is wrong]) of kernel `number`."""
    kernel = KERNELS[number]
    text = ptx(kernel, dtype, capability)
    said, fine = assembled(text, capability, ptxas, kernel.registers)
    if not fine:
        return (), [f"does not assemble: {said.strip().splitlines()[-1][:200]}"]
    frame, stores, loads, registers, rest = re.search(NUMBERS, said, re.S).groups()
    shared = re.search(r"(\d+) bytes smem", rest)
    fused = text.count(f"fma.rn.f{8 * np.dtype(dtype).itemsize}")
    spilled = int(stores) + int(loads)
    wrong = {
        f"{spilled} bytes are spilled": kernel.products and spilled,
        "no fused multiply-add": kernel.products and not fused,
        f"approximate: {set(APPROXIMATE.findall(text))}": APPROXIMATE.search(text),
    }
    row = int(registers), int(shared[1]) if shared else 0, int(frame), spilled, fused
    return row, [sentence for sentence, holds in wrong.items() if holds]


def main():
    if SIMULATED:
        sys.exit("with NUMBA_ENABLE_CUDASIM nothing is compiled")
    ptxas = assembler()
    cases = list(itertools.product(range(len(KERNELS)), DTYPES, CAPABILITIES))
    faults = 0
    print(f"{'kernel':18}{'number':>9}{'cc':>5}" + "".join(f"{name:>11}" for name in COLUMNS))
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        results = pool.map(examine, *zip(*cases, strict=True), itertools.repeat(ptxas), chunksize=6)
        for (number, dtype, capability), (row, wrong) in zip(cases, results, strict=True):
            case = f"{KERNELS[number].name:18}{np.dtype(dtype).name:>9}{'.'.join(map(str, capability)):>5}"
            print(case + "".join(f"{value:>11}" for value in row), *wrong, flush=True)
            faults += len(wrong)
    products = sum(kernel.products for kernel in KERNELS)
    print(f"{len(KERNELS)} kernels, {products} of them make products; assembled {len(cases)} times; {faults} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
