"""The inner loops of the GPU kernels in machine code: what `gpu_model.py` takes its counts from.

    python benchmarks/gpu_code.py    registers, and instructions, FMAs and loads of a turn; a minute

Needs the extra `cuda-check` and nvdisasm (`pip install nvidia-cuda-nvdisasm`), but no GPU. In the order of the
source, loops of direct products have 2 loads an FMA (1 × 1) or 1 (2 × 2), those of tiles 8 loads for 16 FMAs, all of
them times how often the compiler unrolled; what is brought to shared memory shows as LDG and STS.
"""

import math
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

CAPABILITY = (9, 0)
MEMORY = ("LDS", "STS", "LDG", "STG")


def main():
    """Print registers and innermost loops of every kernel that makes products."""
    from lrcore.cuda import check
    from lrcore.cuda._target import KERNELS, ptx

    for kernel in (kernel for kernel in KERNELS if kernel.products):
        for dtype in (np.float64, np.float32):
            listing, registers = _assembled(ptx(kernel, dtype, CAPABILITY), check.assembler())
            print(f"{kernel.name} {np.dtype(dtype).name}: {registers} registers")
            for length, operations in inner_loops(listing):
                fmas = sum(operations[name] for name in ("DFMA", "FFMA"))
                kinds = ", ".join(f"{operations[name]} {name}" for name in MEMORY if operations[name])
                if fmas or kinds:
                    print(f"    {length:4} instructions, {fmas} FMAs, {kinds}")


def _assembled(text, ptxas):
    """(listing, registers) of PTX."""
    installed = sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/**/bin/nvdisasm"))
    lister = shutil.which("nvdisasm") or (installed[-1] if installed else None)
    if lister is None:
        raise SystemExit("nvdisasm is not installed: pip install nvidia-cuda-nvdisasm")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(text)
        binary = source.with_suffix(".cubin")
        arguments = [ptxas, "--verbose", "--gpu-name", "sm_{}{}".format(*CAPABILITY), source, "-o", binary]
        said = subprocess.run(arguments, check=True, capture_output=True, text=True).stderr
        listing = subprocess.run([lister, "-c", binary], check=True, capture_output=True, text=True).stdout
    return listing, int(re.search(r"Used (\d+) registers", said)[1])


def inner_loops(listing):
    """[(instructions, Counter of operations)] of the loops that contain no other one."""
    labels, instructions = {}, []
    for line in listing.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif found := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            instructions.append(found[1])
    ends = [(labels.get(to[1], math.inf), i) for i, text in enumerate(instructions) if (to := _target(text))]
    loops = [(first, last) for first, last in ends if first < last]
    for first, last in sorted(loops):
        if not any((first, last) != other and first <= other[0] and other[1] <= last for other in loops):
            names = (re.sub(r"^@!?U?P\w+\s+", "", text).split()[0] for text in instructions[first : last + 1])
            yield last - first + 1, Counter(name.partition(".")[0] for name in names)


def _target(text):
    return re.search(r"BRA.*`\((\.L_x_\d+)\)", text)


if __name__ == "__main__":
    main()
