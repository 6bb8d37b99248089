"""The output scale α turns a rich network into its linearisation: the larger α, the closer the full run keeps to it.

Two copies with opposite signs start with an output of 0, so there is nothing to unlearn.
"""

import numpy as np
from matplotlib.figure import Figure

import lrbias as lb

problem = lb.Factorization(lb.from_singular_values((10, 10), [1.0, 0.5, 0.25], seed=0))
record = lb.Record(every=5, metrics=("singular_values", "ntk"))
first, middle, last = lb.Network.gaussian((10, 50, 50, 10), std=0.06, seed=1).layers
start = lb.Network.from_layers([np.vstack([first, first]), np.kron(np.eye(2), middle), np.hstack([last, -last])])

figure = Figure(figsize=(8, 2.9), layout="constrained")
panels = figure.subplots(1, 3, sharey=True)
for axes, alpha, rate in zip(panels, (1, 10, 100), (0.1, 0.004, 5e-5), strict=True):
    lazy = start.scaled(alpha)
    full = lb.train(problem, lazy, lb.GD(lr=rate), 600, record, forecast=False)
    line = lb.train(problem, lazy, lb.Linearized(lr=rate), 600, lb.Record(every=5), forecast=False)
    axes.plot(full.steps, full["product/singular_values"][:, :3], color="black")
    axes.plot(line.steps, line["product/singular_values"][:, :3], color="0.55", linestyle="--")
    gap = np.abs(full["product/singular_values"] - line["product/singular_values"]).max()
    print(f"α = {alpha}: kernel distance {full['ntk/distance'][-1]:.1e}, values at most {gap:.1e} from the linearised")
    axes.set(title=rf"$\alpha$ = {alpha}", xlabel="iteration")
panels[0].set_ylabel("singular values\n(dashed: linearised)")
figure.savefig("18_linearised.png", dpi=100)
