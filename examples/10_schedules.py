"""Jump and fit: a large ridge drives SGD to low rank but spoils the fit; annealed, it gives the rank and the fit.

After a large learning rate and ridge have made the rank low, both are lowered; directions that are gone stay gone.
"""

import numpy as np
from matplotlib.figure import Figure

import lrbias as lb

STEPS = 300_000
truth = lb.from_singular_values((10, 10), [10.0], seed=0)
mask = lb.Completion(truth, entries=60, seed=0).mask
noise = 0.2 * np.random.default_rng(2).normal(size=mask.shape)
problem = lb.Completion(np.where(mask, truth + noise, truth), mask=mask, reduction="mean")
start = lb.Network.gaussian((10,) * 4, gamma=0.5, seed=0)

slower = lb.ExponentialDecay(factor=0.1, start=STEPS // 2, stop=STEPS * 3 // 4)
weaker = lb.ExponentialDecay(factor=0.01, start=STEPS // 2, stop=STEPS * 3 // 4)
methods = {
    "small ridge": lb.SGD(lr=0.1, ridge=6e-5),
    "large ridge": lb.SGD(lr=0.1, ridge=6e-3),
    "annealed": lb.SGD(lr=0.1, ridge=6e-3, lr_schedule=slower, ridge_schedule=weaker),
}

figure = Figure(figsize=(6.8, 3.4), layout="constrained")
ranks, errors = figure.subplots(1, 2)
for (name, method), width, shade in zip(methods.items(), (1.5, 4, 1.5), ("0.5", "0.75", "0.0"), strict=True):
    many = lb.ensemble(problem, start, method, STEPS, runs=16)
    rank, observed, hidden = (np.median(x, axis=0) for x in (many.ranks, many.train_error, many.test_error))
    ranks.plot(many.steps, rank, linewidth=width, color=shade, label=name)
    errors.plot(many.steps, hidden, linewidth=width, color=shade)
    print(f"{name}: rank {rank[-1]:g}, error {observed[-1]:.3f} of observed entries, {hidden[-1]:.3f} of hidden ones")

ranks.set(xlabel="step", ylabel="rank, median of 16 runs", ylim=(0, 10.5))
errors.set(xlabel="step", ylabel="error of hidden entries, median", ylim=(0.15, 0.5))
figure.legend(loc="outside upper center", ncols=3)
figure.savefig("10_schedules.png")
