"""SGD with weight decay jumps from a higher rank to a lower one and does not come back (Wang and Jacot).

They start where gradient descent has come to rest for the same loss, with a direction more than the truth has:
what moves them is the noise of drawing single entries, and the more so the larger the learning rate.
"""

import numpy as np
from matplotlib.figure import Figure

import lrbias as lb

RIDGE, RUNS, STEPS = 2.7e-3, 64, 400_000
truth = lb.from_singular_values((10, 10), [10.0], seed=0)
mask = lb.Completion(truth, entries=60, seed=0).mask
noisy = truth + np.where(mask, 0.2 * np.random.default_rng(2).normal(size=mask.shape), 0)
problem = lb.Completion(noisy, mask=mask, reduction="mean")

start = lb.Network.gaussian((10,) * 5, gamma=0.5, seed=0)
record = lb.Record(every=1_000, metrics=("singular_values",))
descent = lb.train(problem, start, lb.GD(lr=0.1, ridge=RIDGE), 200_000, record, lb.Stop(gradient=1e-10))
print(f"gradient descent rests after {descent.step} steps at rank {descent.jumps().rank}; the truth has rank 1")

figure = Figure(figsize=(6.8, 3.4), layout="constrained")
axes = figure.subplots()
for lr, line, shade in zip((0.10, 0.11, 0.12), ("-", "--", ":"), ("0.6", "0.3", "0.0"), strict=True):
    many = lb.ensemble(problem, descent.network, lb.SGD(lr=lr, ridge=RIDGE), STEPS, RUNS)
    axes.plot(many.steps, (many.ranks > 1).mean(axis=0), line, color=shade, label=f"SGD, lr = {lr:.2f}")
    low, high = many.jump_rate()["interval"]
    waits = f"a jump takes {1e6 / high:,.0f} to {1e6 / low:,.0f} steps (95 %)"
    print(f"lr = {lr:.2f}: {many.down.sum()} of {RUNS} runs jump down, {many.up.sum()} up; {waits}")

axes.set(xlabel="step", ylabel="share of runs that still have rank 2", xlim=(0, STEPS), ylim=(0, 1.05))
axes.legend()
figure.savefig("09_sgd_jumps.png")
