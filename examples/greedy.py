"""Completion of a symmetric matrix: the smaller its start, the closer gradient flow keeps to greedy learning."""

import lrbias as lb

problem = lb.Completion(lb.symmetric(12, [4.0, 2.0, 1.0], seed=1), fraction=0.7, pairs=True, seed=1)
flow = lb.GradientFlow(dt=0.1, scheme="dopri5", rtol=1e-8)
record = lb.Record(every=2, metrics=("singular_values", "effective_rank", "errors", "product"))

greedy = lb.train(problem, None, lb.GLRL(inner=flow, tied=True), record=record)
print(greedy)
runs = []
for alpha in (1e-2, 1e-4, 1e-6, 1e-8):
    start = lb.Network.symmetric((12, 12, 12), alpha, seed=1)
    runs.append(lb.train(problem, start, flow, steps=1_500, record=record))
    _, distances, _ = lb.trajectory_distance(runs[-1], greedy)
    hidden = runs[-1]["hidden_error"][-1]
    print(f"start {alpha:g}: at most {distances.max():.2g} from the greedy path, hidden error {hidden:.2g} at the end")
lb.plots.trajectory_distance(lb.compare([greedy, *runs]), reference=greedy).savefig("greedy.png")
