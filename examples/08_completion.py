"""60 % of a rank-2 matrix is hidden: from a small start GD and SGD find it again, from a large one they do not.

The least nuclear norm is a convex rival; it is drawn where cvxpy and SCS are there (pip install 'lrbias[convex]').
"""

import numpy as np
from matplotlib.figure import Figure

import lrbias as lb

SIZE, UNTIL = 20, 60.0  # UNTIL: in time t
problem = lb.Completion(lb.from_singular_values((SIZE, SIZE), [10.0, 6.0], seed=0), fraction=0.4, seed=0)
small, large = (lb.Network.gaussian((SIZE,) * 4, gamma=gamma, seed=1) for gamma in (1.5, 0.5))
cases = {
    "GD, small start": (small, lb.GD(lr=1e-2)),
    "SGD, small start": (small, lb.SGD(lr=1e-3)),
    "GD, large start": (large, lb.GD(lr=1e-2)),
}

figure = Figure(figsize=(6.8, 3.4), layout="constrained")
axes = figure.subplots()
for (name, (start, method)), line, shade in zip(cases.items(), ("-", ":", "--"), ("0.0", "0.4", "0.4"), strict=True):
    steps = round(UNTIL / method.step_size)
    run = lb.train(problem, start, method, steps, lb.Record(every=steps // 600, metrics=("errors",)))
    hidden, observed = run["test_error"], run["train_error"]
    axes.semilogy(run.steps_of("test_error") * run.step_size, hidden, line, color=shade, label=name)
    print(f"{name}: root mean square error {hidden[-1]:.1e} of hidden entries, {observed[-1]:.1e} of observed ones")

try:
    convex = lb.nuclear_norm_completion(problem.target, problem.mask)
except lb.InvalidInput as missing:
    print(missing)
else:
    error = np.sqrt(np.mean((convex - problem.target)[~problem.mask] ** 2))
    print(f"least nuclear norm: {error:.1e} of hidden entries")
    axes.axhline(error, color="0.7", linewidth=3, zorder=0, label="least nuclear norm")
axes.set(xlabel="t = step size · iteration", ylabel="error of hidden entries", xlim=(0, UNTIL))
axes.legend(ncols=2)
figure.savefig("08_completion.png")
