"""A real matrix: a photograph that comes with matplotlib, as grey values, cut to 320 × 256.

Gradient descent learns its singular directions one after the other, the largest first: the product of the network
passes through the best low-rank approximations of the picture. Run: python examples/image.py [folder]

What is ours here: the picture is scaled to spectral norm 100 (with a norm of 10, directions beyond the first few would
need far more steps, since a photograph's values fall quickly), depth 2, width 256, γ = 1.5.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import lrbias as lb

PHOTOGRAPH = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
LEARNT = 20  # directions that are followed
SHOWN = (100, 200, 500, 1000, 4000)  # checkpoints whose product is drawn


def main(folder):
    target = lb.load_matrix(PHOTOGRAPH, scale=100.0, crop=(320, 256))
    rows, columns = target.shape
    problem = lb.Factorization(target)
    network = lb.Network.gaussian((columns, 256, rows), gamma=1.5, seed=1)
    record = lb.Record(every=10, metrics=("singular_values", "effective_rank", "stable_rank", "alignment"))
    method = lb.GD(lr=2e-3)
    print(lb.forecast(problem, network, method, 4000, record))
    run = lb.train(problem, network, method, 4000, record, None, 100, folder / "run", progress=True)
    print(run)

    steps = run.escape_steps()[:LEARNT]
    print("direction   singular value   learnt (half its value) at step")
    for i, (value, step) in enumerate(zip(run.target_values, steps, strict=False), start=1):
        print(f"{i:>9}   {value:>14.2f}   {step if step is not None else 'not yet'}")
    known = [step for step in steps if step is not None]
    print(f"{len(known)} of the first {LEARNT} directions learnt, in order: {known == sorted(known)}")

    lb.plots.save(run, folder / "figures")
    draw_pictures(run, folder / "figures" / "pictures.png")
    print(f"figures: {folder / 'figures'}")


def draw_pictures(run, path):
    """The product of the network at some checkpoints, above the best approximation of the same rank."""
    left, values, right = np.linalg.svd(run.target, full_matrices=False)
    figure = Figure(figsize=(2.0 * (len(SHOWN) + 1), 5.4), layout="constrained")
    grid = figure.subplots(2, len(SHOWN) + 1)
    for column, step in enumerate(SHOWN):
        product = run.checkpoint(step).product()
        rank = int((np.linalg.svd(product)[1] > 0.5 * values).sum())
        best = (left[:, :rank] * values[:rank]) @ right[:rank]
        for axes, picture in zip(grid[:, column], (product, best), strict=True):
            axes.imshow(picture, cmap="gray", vmin=run.target.min(), vmax=run.target.max())
        grid[0, column].set_title(f"step {step}")
        grid[1, column].set_title(f"best rank {rank}")
    grid[0, -1].imshow(run.target, cmap="gray")
    grid[0, -1].set_title("target")
    for axes in grid.flat:
        axes.set_axis_off()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/image"))
