"""SGD with weight decay lowers the rank of every weight matrix, the more the smaller the batch (Galanti et al.).

The ranks fall when the start is forgotten, after ln(1/ε)/(2μλ) steps. The bound of the theory holds, and is far off.
"""

import math

import torch
from matplotlib.figure import Figure

import lrbias as lb

LR = 0.4
DECAY = 5e-3
EPSILON = 1e-3
STEPS = 10_000


def network():
    torch.manual_seed(0)
    hidden = torch.nn.Linear(64, 100), torch.nn.ReLU(), torch.nn.Linear(100, 100), torch.nn.ReLU()
    return torch.nn.Sequential(torch.nn.Flatten(), *hidden, torch.nn.Linear(100, 10))


figure = Figure(figsize=(6.8, 3.4), layout="constrained")
axes = figure.subplots()
for batch, line in ((8, ":"), (16, "-"), (64, "--")):
    settings = {"data": "digits", "batch": batch, "lr": LR, "weight_decay": DECAY, "epsilon": EPSILON}
    run = lb.nn.fit(lb.nn.Training(steps=STEPS, every=100, **settings), model=network())
    name = "average/relative_rank"
    bound = lb.theory.rank_bound(LR, DECAY, batch, EPSILON)
    axes.plot(run.steps_of(name), run[name], line, color="black", label=f"batch {batch}")
    first = run[name][0]
    last = run[name][-1]
    right = run["test_accuracy"][-1]
    print(f"batch {batch}: rank {first:.1f} → {last:.1f}, bound {bound:.0f}, {right:.1%} of the test images right")

forgotten = math.log(1 / EPSILON) / (2 * LR * DECAY)
print(f"the start is forgotten after {forgotten:.0f} steps")
axes.axvline(forgotten, color="0.6", label="start forgotten")
axes.set(xlabel="step", ylabel=r"mean of #{$\sigma_i > 0.001\,\sigma_1$}", xlim=(0, STEPS), ylim=(0, 60))
axes.legend()
figure.savefig("16_weight_decay_and_rank.png")
