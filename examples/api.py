"""From Python: train, read what was recorded, draw a figure."""

import lrbias as lb

target = lb.teacher(shape=(100, 100), rank=10, depth=3, scale=10.0, seed=0)
network = lb.Network.gaussian(widths=(100,) * 4, gamma=1.1, seed=1)
run = lb.train(lb.Factorization(target), network, lb.GD(lr=1e-3), steps=8_000, record=lb.Record(every=10))

print(run)
print("effective rank at the end:", run["product/effective_rank"][-1])
print("steps at which σ_i passes half of the target's value:", run.escape_steps())
lb.plots.singular_values(run).savefig("singular_values.png")
