"""Are updates themselves of low rank? What 50 steps change has an effective rank of a few, in layers of full rank.

The metric "updates" decomposes the difference of each layer from that of its record before.
"""

import numpy as np

import lrbias as lb

problem = lb.Factorization(lb.teacher((60, 60), rank=6, depth=3, spectral_norm=10.0, seed=0))
start = lb.Network.gaussian((60,) * 4, gamma=1.1, seed=1)
record = lb.Record(every=50, metrics=("updates", "effective_rank"))
run = lb.train(problem, start, lb.GD(lr=1e-3), 8_000, record)

learning = run.loss[:-1] > 1e-4 * run.loss[0]
for i in range(1, 4):
    update, layer = (run[f"layer/{i}/{name}"][1:][learning] for name in ("update_effective_rank", "effective_rank"))
    high = np.quantile(update, 0.95)
    print(f"layer {i}: updates {np.median(update):.2f} (95 % below {high:.2f}), the layer itself {layer[0]:.1f}")
lb.plots.updates(run).savefig("21_low_rank_updates.png", dpi=100)
