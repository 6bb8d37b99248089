"""A deep linear network learns a low-rank matrix one singular direction after the other, the largest first.

Its effective rank falls to 1 and climbs in plateaus: whenever training is stopped, the rank is low. That is the bias.
"""

import lrbias as lb

target = lb.teacher(shape=(50, 50), rank=5, depth=3, spectral_norm=10.0, seed=0)
network = lb.Network.gaussian(widths=(50,) * 4, gamma=1.5, seed=1)
run = lb.train(lb.Factorization(target), network, lb.GD(lr=2e-3), steps=10_000, record=lb.Record(every=10))

print(run)
levels = run.target_values.cumsum() / run.target_values[0]
print("a plateau is expected at", " ".join(f"{level:.2f}" for level in levels[: run.target_rank]))
print("mode i passes half of the target's value at step", *run.escape_steps())

lb.plots.overview(run).savefig("01_first_run.png")
