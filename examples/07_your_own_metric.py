"""A metric of one's own is a function of the network; below it, the kernels of the core can be called directly.

This one measures the distances from the best approximations of rank 1, 2, 3, …: the network passes near each in turn.
"""

import numpy as np
from matplotlib.figure import Figure

import lrbias as lb
from lrcore import cpu, layout
from lrcore.cpu import workspace

target = lb.from_singular_values((30, 30), [10.0, 5.0, 2.5, 1.2], seed=0)
left, values, right = np.linalg.svd(target)
best = [(left[:, :k] * values[:k]) @ right[:k] for k in range(5)]


def distances(network):
    product = network.product()
    return [np.linalg.norm(product - approximation) for approximation in best]


start = lb.Network.gaussian((30,) * 4, gamma=1.5, seed=1)
record = lb.Record(every=10, metrics={"distances": distances})
run = lb.train(lb.Factorization(target), start, lb.GD(lr=5e-3), 10_000, record)
for k, (distance, row) in enumerate(zip(run["distances"].min(axis=0), run["distances"].argmin(axis=0), strict=True)):
    print(f"rank {k}: as near as {distance:.1e} at step {10 * row}")

params, widths = layout.flatten(start.layers)
losses = np.empty(10_000)
status = cpu.gd_steps(params, widths, target, 5e-3, losses, workspace.allocate(widths))
print(f"the kernel alone: status {status}, the same bits as the run: {np.array_equal(params, run.network.params)}")

figure = Figure(figsize=(6.8, 3.4), layout="constrained")
axes = figure.subplots()
for k, (column, line) in enumerate(zip(run["distances"].T[1:], ("-", "--", "-.", ":"), strict=True), start=1):
    axes.semilogy(run.steps_of("distances"), column, color=str(0.15 * (k - 1)), linestyle=line, label=f"rank {k}")
axes.set(xlabel="iteration", ylabel=r"$\|W - \hat W_k\|_F$", xlim=(0, run.step))
axes.legend(title="distance from the best approximation of", ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
figure.savefig("07_your_own_metric.png")
