"""A photograph as the target: its singular directions are learnt one after the other, the largest first.

The product passes near the best approximations of rank 1, 2, 3, …: an image that sharpens as its rank grows.
"""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import lrbias as lb

PHOTOGRAPH = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
SHOWN = (100, 200, 500, 1000, 3000)
FOLLOWED = 12

target = lb.load_matrix(PHOTOGRAPH, spectral_norm=100.0, crop=(320, 256))
rows, columns = target.shape
start = lb.Network.gaussian((columns, 64, rows), gamma=1.5, seed=1)
record = lb.Record(every=10, metrics=("mode_strengths",))
run = lb.train(lb.Factorization(target), start, lb.GD(lr=2e-3), 3000, record, checkpoint_every=100)

steps = run.escape_steps()[:FOLLOWED]
print(f"the first {FOLLOWED} modes pass half of their values at steps", *steps)
print("in order:", steps == sorted(steps))

left, values, right = np.linalg.svd(target, full_matrices=False)
figure = Figure(figsize=(8.4, 4.2), layout="constrained")
grid = figure.subplots(2, len(SHOWN) + 1)
for column, step in enumerate(SHOWN):
    product = run.checkpoint(step).product()
    rank = int((np.linalg.svd(product, compute_uv=False) > values / 2).sum())
    best = (left[:, :rank] * values[:rank]) @ right[:rank]
    distance = np.linalg.norm(product - best) / np.linalg.norm(target)
    print(f"step {step}: ‖W − best of rank {rank}‖ / ‖target‖ = {distance:.3f}")
    grid[0, column].set_title(f"step {step}", fontsize=10)
    grid[1, column].set_title(f"best of rank {rank}", fontsize=10)
    for axes, picture in zip(grid[:, column], (product, best), strict=True):
        axes.imshow(picture, cmap="gray", vmin=target.min(), vmax=target.max())
grid[0, -1].imshow(target, cmap="gray")
grid[0, -1].set_title("target", fontsize=10)
for axes in grid.flat:
    axes.set_axis_off()
figure.savefig("06_image.png")
