"""From a balanced start along the target's singular directions every mode follows an equation of its own, exactly.

The mode u of a target value s obeys du/dt = N u^(2 - 2/N) (s - u): theory is drawn over what the layers did.
"""

import numpy as np
from matplotlib.figure import Figure

import lrbias as lb

VALUES = (8.0, 4.0, 2.0, 1.0)
DEPTH = 3
ALPHA = 0.15
target = lb.from_singular_values((30, 30), VALUES, seed=0)
left, _, right = np.linalg.svd(target)
start = lb.Network.from_layers([ALPHA * right, ALPHA * np.eye(30), ALPHA * left])

record = lb.Record(every=10, metrics=("mode_strengths",))
arguments = {"record": record, "compress": "off"}
flow = lb.train(lb.Factorization(target), start, lb.GradientFlow(dt=1e-3), 7_000, **arguments)
descent = lb.train(lb.Factorization(target), start, lb.GD(lr=1e-3), 7_000, **arguments)

t = flow.steps_of("product/mode_strengths") * flow.step_size
theory = np.stack([lb.theory.mode(t, value, ALPHA**DEPTH, DEPTH) for value in VALUES], axis=1)
for run in (flow, descent):
    print(f"{run.label}: at most {abs(run['product/mode_strengths'] - theory).max():.1e} from the theory")
print("half learnt at t =", *(f"{lb.theory.escape_time(value, ALPHA**DEPTH, DEPTH):.2f}" for value in VALUES))

figure = Figure(figsize=(6.8, 3.4), layout="constrained")
axes = figure.subplots()
measured = axes.plot(t, flow["product/mode_strengths"], color="0.7", linewidth=4)
expected = axes.plot(t, theory, color="black", linestyle="--", linewidth=1)
axes.legend(
    [measured[0], expected[0]],
    ["strength of each mode, measured", "theory"],
    loc="center right",
    bbox_to_anchor=(1, 0.65),
)
axes.set(xlabel="t = step size · iteration", ylabel=r"$\hat u_i^\top W \hat v_i$", xlim=(0, t[-1]), ylim=(0, 9))
figure.savefig("04_exact_modes.png")
