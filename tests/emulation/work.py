"""What lrbias does with files, processes and signals, once each: for a Python that another system is emulated in.

    python work.py FOLDER TRACKER WORKERS     TRACKER: yes or no; WORKERS: processes of the sweep, 0 for a thread

Prints fingerprints as JSON.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lrbias as lb
from runs import fingerprint, settings


def trained(folder):
    """A run that is stored, and resumed twice."""
    lb.train(**settings(100), store=folder / "above/run", progress=False)
    lb.resume(folder / "above/run", steps=150, progress=False)
    run = lb.resume(folder / "above/run", steps=200, progress=False)
    assert run.check() == []
    return fingerprint(run)


def swept(folder, workers):
    base = {"shape": [6, 5], "rank": 2, "spectral_norm": 3.0, "gamma": 1.0, "steps": 60, "checkpoint_every": 50}
    over = {"lr": [0.01, 0.02], "seed": [0, 1]}
    for _ in range(2):  # the second time there is nothing to do
        if workers:
            made = lb.sweep(base, over, folder / "sweep", workers=workers, progress=False)
        else:
            with ThreadPoolExecutor(1) as executor:
                made = lb.sweep(base, over, folder / "sweep", executor=executor, progress=False)
    return [fingerprint(made[name]) for name in made.names]


def watched(folder):
    problem = lb.Completion(lb.from_singular_values((4, 4), [10.0], seed=0), entries=10, reduction="mean")
    start = lb.Network.gaussian(widths=(4,) * 3, gamma=0.5, seed=0)
    made = [lb.ensemble(problem, start, lb.SGD(lr=0.1), 200, runs=8, every=100, store=folder / "many") for _ in "ab"]
    assert (made[0].ranks == made[1].ranks).all()
    return made[0].ranks.tolist()


def tracked(folder):
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for steps in (5, 10):
        tracker = lb.nn.RankTracker(model, store=folder / "tracked", resume=True)
        tracker.watch(optimizer)
        while tracker.steps < steps:
            optimizer.zero_grad()
            model(torch.ones(2, 4)).sum().backward()
            optimizer.step()
        run = tracker.close()
    assert run.check() == []
    return run["singular_values"].shape[0]


def main():
    folder = Path(sys.argv[1])
    tracker = sys.argv[2] == "yes"
    workers = int(sys.argv[3])
    found = {"train": trained(folder), "sweep": swept(folder, workers), "ensemble": watched(folder)}
    if tracker:
        found["tracker"] = tracked(folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
