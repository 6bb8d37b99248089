"""All singular values of the weight matrices of real networks: `cpu.weight_values` against others.

    python benchmarks/weight_values.py            print the table; about three minutes
    python benchmarks/weight_values.py --write    and put it into benchmarks/weight_values.md

Matrices of float32, normally distributed, one thread. A convolution with a kernel of 3 × 3 is a matrix of
(outputs, 9 · inputs). Sides take turns; the best of several rounds counts, for each.
"""

from harness import head, machine, one_core, parsed, row, seconds, sized  # isort: split

import itertools
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from lrcore import cpu
from lrcore.cpu import workspace

HERE = Path(__file__).parent
ROUNDS = sized(9, 2)
TITLE = "# Singular values of weights"
NOTE = """Written by `python benchmarks/weight_values.py --write`: one thread, the best of several rounds. eigvalsh is
that of NumPy on Gram matrices in float64, the product included. Errors are against LAPACK's values in float64."""


def resnet18(width):
    """For images of 32 × 32 and ten classes."""
    yield width, 27
    inputs = width
    for outputs in (width, 2 * width, 4 * width, 8 * width):
        yield outputs, 9 * inputs
        yield from [(outputs, 9 * outputs)] * 3
        if inputs != outputs:
            yield outputs, inputs
        inputs = outputs
    yield 10, inputs


def vgg16():
    """For images of 32 × 32 and ten classes."""
    outputs = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    yield from ((n, 9 * below) for below, n in itertools.pairwise([3, *outputs]))
    yield 10, 512


NETWORKS = sized(
    {
        "ResNet-18, width 16": list(resnet18(16)),
        "ResNet-18, width 64": list(resnet18(64)),
        "VGG-16": list(vgg16()),
        "a layer of ViT-B": [(2304, 768), (768, 768), (3072, 768), (768, 3072)],
    },
    {"ResNet-18, width 2": list(resnet18(2))},
)


def ours(matrices):
    work = workspace.allocate_weight_values([m.shape for m in matrices], [m.dtype for m in matrices])
    return lambda: cpu.weight_values(matrices, work)


def spectra(matrices):
    counts = [0] * len(matrices)
    work = workspace.allocate_spectra([m.shape for m in matrices], counts)
    return lambda: cpu.spectra(matrices, counts, work)


def with_torch(matrices):
    tensors = [torch.from_numpy(matrix) for matrix in matrices]
    return lambda: [torch.linalg.svdvals(tensor) for tensor in tensors]


def with_numpy(matrices):
    return lambda: [np.linalg.svd(matrix, compute_uv=False) for matrix in matrices]


def by_eigenvalues(matrices):
    def values(matrix):
        short = (matrix if matrix.shape[0] < matrix.shape[1] else matrix.T).astype(np.float64)
        return np.sqrt(np.maximum(np.linalg.eigvalsh(short @ short.T)[::-1], 0))

    return lambda: [values(matrix) for matrix in matrices]


SIDES = {
    "cpu.spectra": spectra,
    "torch.linalg.svdvals": with_torch,
    "numpy.linalg.svd": with_numpy,
    "eigvalsh of Gram matrices": by_eigenvalues,
}


def error(found, matrices):
    """The largest |σ̂ − σ| / σ_1, σ by LAPACK in float64."""
    exact = [np.linalg.svd(matrix.astype(np.float64), compute_uv=False) for matrix in matrices]
    return max(np.abs(np.asarray(values) - s).max() / s[0] for values, s in zip(found, exact, strict=True))


def fastest(sides):
    """{name: seconds} of the best of alternating rounds, of which the first one compiles."""
    times = [{name: seconds(action) for name, action in sides.items()} for _ in range(ROUNDS)]
    return {name: min(row[name] for row in times) for name in sides}


def networks():
    errors = "largest error ÷ σ_1", "of torch"
    yield from head("float32", "matrices", "ms", *(f"{name} ÷ this" for name in SIDES), *errors)
    for name, shapes in NETWORKS.items():
        rng = np.random.default_rng(0)
        matrices = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        actions = {"lrbias": ours(matrices), **{side: make(matrices) for side, make in SIDES.items()}}
        best = fastest(actions)
        errors = (f"{error(actions[side](), matrices):.0e}" for side in ("lrbias", "torch.linalg.svdvals"))
        ratios = (f"{best[side] / best['lrbias']:.1f}" for side in SIDES)
        yield row(name, f"{len(shapes)}", f"{best['lrbias'] * 1e3:.1f}", *ratios, *errors)


def main():
    options = parsed()
    torch.set_num_threads(1)
    lines = [TITLE, "", NOTE, ""]
    with threadpool_limits(1), one_core():
        lines.append(machine())
        print(lines[-1], flush=True)
        for line in ("", *networks()):
            lines.append(line)
            print(line, flush=True)
    if options.write:
        (HERE / "weight_values.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
