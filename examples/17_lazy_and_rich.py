"""Large starts are lazy: they fit the target while their tangent kernel stays. Small ones are rich: the kernel turns.

γ is the exponent of the standard deviation w^−γ, and ½ divides the two, the more sharply the wider the network is.
"""

from matplotlib.figure import Figure

import lrbias as lb

problem = lb.Factorization(lb.from_singular_values((20, 20), [1.0, 0.5], seed=0))
record = lb.Record(every=10, metrics=("ntk",))
fitted = lb.Stop(loss=1e-4)
gammas = [0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8]

figure = Figure(figsize=(5, 3.2), layout="constrained")
axes = figure.subplots()
for width, look in ((50, "o:"), (100, "s--"), (200, "^-")):
    distances = []
    for gamma in gammas:
        start = lb.Network.gaussian((20, width, width, 20), std=width**-gamma, seed=1)
        rate = 0.1 * min(1.0, width ** (4 * gamma - 2))  # the kernel, and with it the curvature, is as w^(2 − 4γ)
        run = lb.train(problem, start, lb.GD(lr=rate), 20_000, record, fitted, forecast=False)
        distances.append(run["ntk/distance"][-1])
    axes.semilogy(gammas, distances, look, color="black", label=f"w = {width}")
    print(f"w = {width}: kernel distance {distances[0]:.2g} at γ = {gammas[0]}, {distances[-1]:.2g} at {gammas[-1]}")
axes.axvline(0.5, color="0.6", linewidth=0.8)
axes.set(xlabel=r"$\gamma$ (standard deviation $w^{-\gamma}$)", ylabel="kernel distance from the start")
axes.legend()
figure.savefig("17_lazy_and_rich.png", dpi=100)
