"""Above the limit 2/λ of the minimum that the flow finds, gradient descent goes on to a flatter one, with λ ≈ 2/η.

Sharpness λ, the largest eigenvalue of the Hessian, is recorded along the run; the start is not balanced, so that the
flow, which conserves that, ends in a sharp minimum.
"""

import lrbias as lb

problem = lb.Factorization(lb.from_singular_values((8, 8), [3.0, 2.0, 1.0], seed=0))
layers = lb.Network.gaussian((8,) * 4, gamma=0.8, seed=1).layers
start = lb.Network.from_layers([5 * layers[0], *layers[1:]])
record = lb.Record(every=5, metrics=("sharpness", "balancedness"))

flow = lb.train(problem, start, lb.GradientFlow(dt=0.1, scheme="dopri5"), 500, record, forecast=False)
end = flow["hessian/largest"][-1, 0]
print(f"the flow ends at sharpness {end:.2f}; a balanced minimum has {lb.theory.sharpness(3.0, 3):.2f}")
for share in (0.8, 1.2, 1.6):
    run = lb.train(problem, start, lb.GD(lr=share * 2 / end), 1000, record, forecast=False)
    last = run["hessian/largest"][-1, 0]
    ratio = last * run.method.lr / 2
    print(f"η = {share} · 2/λ_flow: sharpness {last:.2f}, {ratio:.3f} of 2/η, loss {run.losses[-1]:.1e}")
lb.plots.sharpness(run).savefig("19_edge_of_stability.png", dpi=100)
