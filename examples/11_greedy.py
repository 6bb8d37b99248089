"""Greedy low-rank learning adds one direction after the other; gradient flow follows its path, if its start is small.

A symmetric matrix is completed by both. The smaller the start of the flow, the closer its products keep to the path.
"""

import lrbias as lb

problem = lb.Completion(lb.from_eigenvalues(12, [4.0, 2.0, 1.0], seed=1), fraction=0.7, symmetric_mask=True, seed=1)
flow = lb.GradientFlow(dt=0.1, scheme="dopri5", rtol=1e-8)
record = lb.Record(every=2, metrics=("singular_values", "effective_rank", "errors", "product"))

greedy = lb.train(problem, None, lb.GLRL(inner=flow, tied=True), record=record)
for phase in greedy.phases:
    print(f"phase up to step {phase.end}: rank {phase.rank}, loss {phase.loss:.1e}")

runs = []
for alpha in (1e-2, 1e-4, 1e-6, 1e-8):
    start = lb.Network.tied((12, 12, 12), alpha, seed=1)
    run = lb.train(problem, start, flow, 1_500, record)
    _, distances, _ = lb.trajectory_distance(run, greedy)
    hidden = run["test_error"][-1]
    print(f"start {alpha:g}: within {distances.max():.2g} of the greedy path, hidden error {hidden:.2g} in the end")
    runs.append(run)

lb.plots.trajectory_distance(lb.compare([greedy, *runs]), reference=greedy).savefig("11_greedy.png")
