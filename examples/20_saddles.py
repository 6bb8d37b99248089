"""From a small start the flow goes from saddle to saddle, and the product has one rank more at each of them.

At depth 2 a saddle of rank k has (r − k)(h − k) directions down, h the hidden width: the index says so exactly.
"""

import lrbias as lb

problem = lb.Factorization(lb.from_singular_values((12, 12), [8.0, 2.5, 0.8, 0.25], seed=0))
start = lb.Network.gaussian((12,) * 3, std=1e-5, seed=1)
flow = lb.GradientFlow(dt=0.05, scheme="dopri5", rtol=1e-8)
run = lb.train(problem, start, flow, 1500, lb.Record(every=2, metrics=("gradient_norm",)), forecast=False)

found = lb.saddles(run)
print("step  rank  index  smallest eigenvalue  distance from the one before")
for saddle in found:
    numbers = f"{saddle.step:>4} {saddle.rank:>5} {saddle.index:>6} {saddle.curvature:>20.4f}"
    print(f"{numbers} {saddle.distance:>29.3f}")
lb.plots.saddles(run, found).savefig("20_saddles.png", dpi=100)
