"""On data, modes are learnt in the order of their strength in the correlation, not of the value that they tend to.

Inputs with variances d and outputs that see them with strength s: a mode tends to s/d. Whitening makes all d one.
"""

import numpy as np
from matplotlib.figure import Figure

import lrbias as lb

rng = np.random.default_rng(0)
strengths, variances = np.array([2.0, 1.0, 0.5]), np.array([4.0, 0.5, 0.1])
scores = np.linalg.qr(rng.normal(size=(200, 3)))[0] * np.sqrt(200)
inputs = scores * np.sqrt(variances)
outputs = scores * strengths / np.sqrt(variances)

figure = Figure(figsize=(7, 3), layout="constrained")
for axes, whiten in zip(figure.subplots(1, 2, sharey=True), (False, True), strict=True):
    problem = lb.Regression(inputs, outputs, whiten=whiten)
    modes = problem.modes()
    start = lb.Network.from_layers([0.03 * modes.right.T, 0.03 * modes.left])
    record = lb.Record(every=5, metrics=("mode_strengths",))
    run = lb.train(problem, start, lb.GD(lr=0.01), 2000, record, forecast=False)
    for a, line in enumerate(("-", "--", ":")):
        curve = run["product/mode_strengths"][:, a]
        half = run.steps[np.argmax(curve > modes.values[a] / 2)] * run.step_size
        theory = lb.theory.escape_time(modes.strengths[a], 0.03**2, 2, variance=modes.variances[a])
        name = f"s = {modes.strengths[a]:.3g}, d = {modes.variances[a]:.2g}"
        axes.plot(run.steps * run.step_size, curve, line, color="black", label=name)
        kind = "whitened" if whiten else "as they are"
        print(f"{kind}: {name}: half of {modes.values[a]:.2f} at t = {half:.2f} (theory {theory:.2f})")
    axes.set(title="whitened inputs" if whiten else "inputs as they are", xlabel="time t = η · iteration")
    axes.legend(loc="upper left", fontsize=8)
    axes.set_ylim(top=7.8)
figure.axes[0].set_ylabel("strength of the mode in W")
figure.savefig("22_spectral_bias.png", dpi=100)
