"""Deeper networks are biased more strongly to low rank: at the same loss fewer of their singular values are in use.

Depths 2 to 5 follow gradient flow to the same target, from the same balanced product with a hundredth of its norm.
"""

import numpy as np
from matplotlib.figure import Figure

import lrbias as lb

SIZE, START = 20, 0.1
problem = lb.Factorization(lb.from_singular_values((SIZE, SIZE), 10 * 0.8 ** np.arange(10), seed=0))
flow = lb.GradientFlow(dt=0.01, scheme="dopri5")
stop = lb.Stop(loss=1e-2)
record = lb.Record(every=1, metrics=("relative_rank",), relative_threshold=1e-2)

figure = Figure(figsize=(6.8, 3.4), layout="constrained")
axes = figure.subplots()
for depth, line, shade in zip((2, 3, 4, 5), ("-", "--", "-.", ":"), ("0.0", "0.25", "0.4", "0.5"), strict=True):
    network = lb.Network.balanced((SIZE,) * (depth + 1), alpha=START ** (1 / depth), seed=1)
    run = lb.train(problem, network, flow, 1_000, record, stop)
    share = run.loss / run.loss[0]
    used = run["product/relative_rank"][: len(share)]
    axes.semilogx(share, used, color=shade, linestyle=line, label=f"N = {depth}")
    told = ", ".join(f"{used[np.argmax(share < part)]} at {part:.0%}" for part in (0.5, 0.1, 0.01))
    print(f"depth {depth}: values above a hundredth of the largest: {told} of the first loss")

axes.set(
    xlabel="loss, as a share of the first",
    ylabel=r"number of $\sigma_i > 0.01\,\sigma_1$",
    xlim=(1, 8e-3),
    ylim=(0, 21),
    yticks=range(0, 21, 5),
)
axes.axhline(10, color="0.6", linewidth=0.8)
axes.text(0.0085, 10.4, "rank of the target", ha="right", color="0.3")
axes.legend(loc="upper right")
figure.savefig("03_depth.png")
