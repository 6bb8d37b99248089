"""Gradient descent is Euler's method on gradient flow: over t = step size · iteration it follows the same curve.

Three learning rates from the same start; their distance from the flow is proportional to the learning rate.
"""

import lrbias as lb

problem = lb.Factorization(lb.teacher(shape=(40, 40), rank=5, depth=3, spectral_norm=10.0, seed=0))
start = lb.Network.gaussian(widths=(40,) * 4, gamma=1.1, seed=1)
until = 4.0  # in time t


def trained(method, records=400):
    steps = round(until / method.step_size)
    record = lb.Record(every=steps // records, metrics=("singular_values", "effective_rank"))
    return lb.train(problem, start, method, steps, record, checkpoint_every=steps // 10)


flow = trained(lb.GradientFlow(dt=1e-2, scheme="rk4"))
descents = [trained(lb.GD(lr=lr)) for lr in (1e-2, 5e-3, 2.5e-3)]
compared = lb.compare([flow, *descents])

print(compared)
lb.plots.comparison(compared).savefig("02_gd_and_flow.png")
