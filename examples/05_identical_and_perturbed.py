"""Layers αI learn only the eigenvalues of a symmetric target that are not negative; once perturbed, they learn all.

Chou, Gieshoff, Maly and Rauhut prove both. Such layers stay diagonal in one basis, so they cost next to nothing.
"""

import numpy as np
from matplotlib.figure import Figure

import lrbias as lb

SIZE = 100
DEPTH = 3
ALPHA = 0.1
BETA = 0.04
LR = 2e-4
problem = lb.Factorization(lb.from_eigenvalues(SIZE, [5.0, 3.0, -1.0, -5.0], seed=0))
record = lb.Record(every=100, metrics=("eigenvalues_in_basis", "effective_rank"))
starts = {
    "identical": lb.Network.scaled_identity(SIZE, DEPTH, ALPHA),
    "perturbed": lb.Network.perturbed(SIZE, DEPTH, ALPHA, BETA),
}

figure = Figure(figsize=(6.8, 3.2), layout="constrained")
for axes, (name, start) in zip(figure.subplots(1, 2, sharey=True), starts.items(), strict=True):
    run = lb.train(problem, start, lb.GD(lr=LR), 200_000, record)
    learnt = run["product/eigenvalues_in_basis"][:, :4]
    values = run.problem.eigen.values[:4]
    expected = lb.theory.recovered(values, name == "perturbed")
    print(f"{name} ({run.reduced} form, {run.elapsed:.1f} s):", np.round(learnt[-1], 4) + 0.0, "of", values.round(4))
    print(f"  at most {abs(learnt[-1] - expected).max():.0e} from what theory says is recovered")
    measured = axes.plot(run.steps_of("product/eigenvalues_in_basis"), learnt, color="black")
    targets = axes.hlines(values, 0, run.step, color="0.5", linestyle=":")
    theory = axes.hlines(expected, 0, run.step, color="0.7", linewidth=4, zorder=0)
    axes.set(title=f"{name} start", xlabel="iteration", xscale="log", xlim=(1_000, run.step))
figure.axes[0].set_ylabel("eigenvalues of W")
labels = ["measured", "of the target", "recovered, by theory"]
figure.legend([measured[0], targets, theory], labels, loc="outside lower center", ncols=3)
figure.savefig("05_identical_and_perturbed.png")
