"""Gradient flow whose steps a tolerance chooses: long on the first plateau, short once a direction is being learnt.

Fixed steps must be short everywhere. How far either is from the flow is measured against a far smaller tolerance.
"""

import lrbias as lb

problem = lb.Factorization(lb.from_singular_values((20, 20), [10.0, 9.0], seed=0))
start = lb.Network.balanced((20,) * 5, alpha=0.03, seed=1)
UNTIL = 130.0  # in time t


def trained(method):
    steps = round(UNTIL / method.step_size)
    metrics = ("singular_values", "effective_rank", "mode_strengths")
    record = lb.Record(every=round(0.1 / method.step_size), metrics=metrics)
    return lb.train(problem, start, method, steps, record, checkpoint_every=steps)


exact = trained(lb.GradientFlow(dt=0.01, scheme="dopri5", rtol=1e-11))
adaptive = trained(lb.GradientFlow(dt=0.1, scheme="dopri5", rtol=1e-7))
fixed = [trained(lb.GradientFlow(dt=dt, scheme="rk4")) for dt in (0.02, 0.01)]

print("half learnt at t =", *(f"{adaptive.step_size * step:.1f}" for step in adaptive.escape_steps()))
for run in (adaptive, *fixed):
    gradients = int(run["flow/evaluations"][-1]) if run is adaptive else 4 * run.step
    _, differences = lb.compare([exact, run]).difference(run)
    print(f"{run.label}: {gradients} gradients, singular values within {differences.max():.0e} of the flow's")

figure = lb.plots.adaptive_steps(adaptive)
figure.axes[0].legend(loc="lower left", frameon=False)
figure.savefig("12_adaptive_flow.png")
