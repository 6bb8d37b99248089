"""Two lines put a rank tracker on any PyTorch model in a loop of one's own: here, handwritten digits.

With weight decay the matrices lose their small singular values once the start is forgotten; without it they do not.
"""

import torch
from matplotlib.figure import Figure

import lrbias as lb

STEPS, BATCH, LR = 6_000, 16, 0.1
digits = lb.nn.load("digits")
inputs = torch.from_numpy(digits.train_inputs).flatten(1)
labels = torch.from_numpy(digits.train_labels)

figure = Figure(figsize=(6.8, 3.4), layout="constrained")
ranks, spectra = figure.subplots(1, 2)
for decay, line in ((0.0, "--"), (0.01, "-")):
    torch.manual_seed(0)
    hidden = torch.nn.Linear(64, 100), torch.nn.ReLU(), torch.nn.Linear(100, 100), torch.nn.ReLU()
    model = torch.nn.Sequential(*hidden, torch.nn.Linear(100, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, weight_decay=decay)

    tracker = lb.nn.RankTracker(model, every=50)  # 1
    tracker.watch(optimizer)  # 2

    for _ in range(STEPS):
        drawn = torch.randint(len(inputs), (BATCH,))
        loss = torch.nn.functional.cross_entropy(model(inputs[drawn]), labels[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    run = tracker.close()

    right = (model(inputs).argmax(dim=1) == labels).float().mean()
    name = "average/relative_rank"
    values = run["layer/2/singular_values"][-1]
    print(f"weight decay {decay:g}: rank {run[name][0]:.1f} → {run[name][-1]:.1f}, {right:.1%} of the images right")
    ranks.plot(run.steps_of(name), run[name], line, color="black", label=f"weight decay {decay:g}")
    spectra.semilogy(range(1, 101), values / values[0], line, color="black")

ranks.set(xlabel="step", ylabel=r"mean of #{$\sigma_i > 0.001\,\sigma_1$} over the layers", ylim=(0, 65))
ranks.legend(loc="lower left")
spectra.axhline(run.settings["epsilon"], color="0.5", linestyle=":")
spectra.set(xlabel="i", ylabel=r"$\sigma_i / \sigma_1$ of the middle layer at the end", ylim=(1e-5, 1.5))
figure.savefig("15_rank_tracker.png")
