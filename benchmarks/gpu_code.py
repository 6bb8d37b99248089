"""Machine code of the GPU kernels: only to refresh instructions and registers in `gpu_model.py` after they changed.

    python benchmarks/gpu_code.py    registers and loops of the kernels of products; a minute

Needs the extra `cuda-check`, but no GPU. What a loop has beside the
loops inside it is counted. Those of direct products have 2 loads an FMA (1 × 1) or 1 (2 × 2), those of tiles 8 loads
for 16 FMAs, all of them as often as the compiler unrolled; what is brought to shared memory shows as LDG and STS.
"""

from harness import parsed, sized  # isort: split

import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

CAPABILITY = (9, 0)
COUNTED = sized(
    ("narrow_product", "wide_product", "gd_on_chip_640", "rk_on_chip_640", "gd_in_memory", "rk_in_memory"),
    ("narrow_product",),
)
SHOWN = "DFMA", "FFMA", "LDS", "STS", "LDG", "STG", "BAR"


def main():
    parsed()
    from lrcore.cuda import check
    from lrcore.cuda._target import KERNELS, ptx

    for kernel in (kernel for kernel in KERNELS if kernel.name in COUNTED):
        for dtype in (np.float64, np.float32):
            text = ptx(kernel, dtype, CAPABILITY)
            ptxas = check.assembler()
            said, _ = check.assembled(text, CAPABILITY, ptxas, kernel.registers)
            print(f"{kernel.name} {np.dtype(dtype).name}: {re.search(check.NUMBERS, said, re.S)[4]} registers")
            for depth, operations in loops(listing(text, ptxas, kernel.registers)):
                found = ", ".join(f"{operations[name]} {name}" for name in SHOWN if operations[name])
                print(f"    {'· ' * depth}{operations.total()} instructions: {found}")


def listing(text, ptxas, registers):
    """The machine code of PTX, a line for each instruction and label."""
    installed = sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/**/bin/nvdisasm"))
    lister = shutil.which("nvdisasm") or (installed[-1] if installed else None)
    if lister is None:
        raise SystemExit("nvdisasm is not installed: pip install 'lrbias[cuda-check]'")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(text)
        words = [ptxas, "--gpu-name", "sm_{}{}".format(*CAPABILITY), source, "-o", source.with_suffix(".cubin")]
        subprocess.run([*words, *(["--maxrregcount", str(registers)] if registers else [])], check=True)
        return subprocess.run([lister, "-c", words[-1]], check=True, capture_output=True, text=True).stdout


def loops(listing):
    """[(how many loops are around it, Counter of the operations that no loop inside it has)], in the code's order."""
    labels = {}
    names = []
    jumps = []
    for line in listing.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(names)
        elif found := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(\w+)(.*);", line):
            if to := re.search(r"`\((\.L_x_\d+)\)", found[2] if found[1] == "BRA" else ""):
                jumps.append((to[1], len(names)))
            names.append(found[1])
    back = [(labels[to], last) for to, last in jumps if labels.get(to, last) < last]
    spans = sorted(back, key=lambda span: (span[0], -span[1]))
    for first, last in spans:
        around = sum(a <= first and last <= b for a, b in spans) - 1
        inside = [(a, b) for a, b in spans if first <= a and b <= last and (a, b) != (first, last)]
        own = (name for i, name in enumerate(names) if first <= i <= last and not any(a <= i <= b for a, b in inside))
        yield around, Counter(own)


if __name__ == "__main__":
    main()
