"""A run that ends on its third plateau is the best approximation of rank 3, found without any decomposition.

It is made in two pieces here: stored, resumed, it ends with the bits of a run that was never interrupted.
"""

import tempfile
from pathlib import Path

import numpy as np

import lrbias as lb

problem = lb.Factorization(lb.from_singular_values((40, 40), [10.0, 5.0, 2.5, 1.25], seed=0))
start = lb.Network.gaussian((40,) * 4, gamma=1.5, seed=1)
arguments = problem, start, lb.GD(lr=5e-3)
settings = {"record": lb.Record(every=10), "stop": lb.Stop(plateaus=3)}

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "run"
    piece = lb.train(*arguments, steps=1_500, store=path, **settings)
    print(f"first piece: {piece.status} at step {piece.step}, with files {sorted(p.name for p in path.iterdir())}")
    run = lb.resume(path, steps=20_000)
    print(f"second piece: {run.status} at step {run.step}: {run.detail}")

    whole = lb.train(*arguments, steps=20_000, **settings)
    same = [np.array_equal(run[name], whole[name], equal_nan=True) for name in whole.names]
    print(f"{sum(same)} of {len(same)} recorded quantities have the bits of a run in one piece")
    left, values, right = np.linalg.svd(problem.target)
    gap = run.network.product() - (left[:, :3] * values[:3]) @ right[:3]
    print(f"‖W − best approximation of rank 3‖ / ‖target‖ = {np.linalg.norm(gap) / np.linalg.norm(values):.0e}")

    figure = lb.plots.effective_rank(run)
    figure.axes[0].axvline(piece.step, color="black", linewidth=0.8)
    figure.axes[0].text(piece.step, 0.1, " resumed")
    figure.savefig("13_stop_and_resume.png")
