"""What the tracker costs an epoch of a ResNet-18, beside torch.linalg.svdvals in the thread that trains.

    python benchmarks/tracker.py --write

The sides take turns, one epoch each, on the same network. A record at the end of every epoch: all singular values of
the 21 weight matrices. An epoch has few images here, so that a record is the more expensive by comparison.
"""

from harness import head, machine, parsed, row, sized  # isort: split

import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import lrbias as lb

OUTPUT = Path(__file__).with_suffix(".md")
SIZES = sized(  # name, width, pixels of a side, images of an epoch, batch
    (
        ("ResNet-18, 28 × 28 images", 64, 28, 256, 32),
        ("ResNet-18 with 16 channels, 14 × 14 images", 16, 14, 2048, 32),
    ),
    (("ResNet-18 with 16 channels, 14 × 14 images", 16, 14, 64, 32),),
)
FASHION = 60_000
NOTE = """Written by `python benchmarks/tracker.py --write`: medians of epochs that took turns; a record of all singular
values at the end of each. The tracker copies the weights in the training thread and decomposes them beside it. Epochs
are short here; the last column is the share of the training thread in one as long as Fashion-MNIST's."""
ROUNDS = sized(5, 1)


class Job:
    """Epochs of a network on random images."""

    def __init__(self, width, side, images, batch):
        torch.manual_seed(0)
        self.model = lb.nn.build("resnet-18", (1, side, side), 10, width).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.05, weight_decay=1e-3, fused=True)
        inputs = torch.randn(images, 1, side, side)
        labels = torch.randint(0, 10, (images,))
        self.batches = list(zip(inputs.split(batch), labels.split(batch), strict=True))
        self.matrices = lb.nn.weight_matrices(self.model)

    def epoch(self, record):
        """Seconds of an epoch, with what `record` does at its end, and of that alone."""
        begun = time.perf_counter()
        for inputs, labels in self.batches:
            self.optimizer.zero_grad()
            cross_entropy(self.model(inputs), labels).backward()
            self.optimizer.step()
        trained = time.perf_counter()
        record()
        ended = time.perf_counter()
        return ended - begun, ended - trained

    def exact(self):
        """What one would write without a tracker."""
        return [torch.linalg.svdvals(matrix.value()) for matrix in self.matrices]


def measure(width, side, images, batch, threads):
    """{side: (seconds of an epoch, seconds of its record in the training thread)}: medians over the rounds."""
    torch.set_num_threads(threads)
    job = Job(width, side, images, batch)
    tracker = lb.nn.RankTracker(job.model, unit="epoch")
    sides = {"nothing": lambda: None, "tracker": tracker.step, "svdvals": job.exact}
    found = {name: [] for name in sides}
    for record in sides.values():
        job.epoch(record)  # compiles
    for _ in range(ROUNDS):
        for name, record in sides.items():
            found[name].append(job.epoch(record))
    tracker.close()
    return {name: np.median(times, axis=0) for name, times in found.items()}


def rows():
    """Lines of the table."""
    heads = ("PyTorch's threads", "epoch, s", "tracker, ms of the training thread", "svdvals, ms", "svdvals ÷ tracker")
    heads += ("epoch with tracker ÷ without", "epoch with svdvals ÷ without", "tracker in an epoch of 60 000 images")
    yield from head("network", *heads)
    for name, width, side, images, batch in SIZES:
        for threads in (1, 2):
            found = measure(width, side, images, batch, threads)
            epoch, (with_tracker, own), (with_exact, exact) = found["nothing"][0], found["tracker"], found["svdvals"]
            times = f"{epoch:.2f} ({images} images)", f"{1e3 * own:.1f}", f"{1e3 * exact:.1f}", f"{exact / own:.1f}"
            share = 100 * own / (epoch * FASHION / images)
            ratios = f"{with_tracker / epoch:.3f}", f"{with_exact / epoch:.3f}", f"{share:.4f} %"
            yield row(name, str(threads), *times, *ratios)


def main():
    options = parsed()
    lines = ["# What the tracker costs", "", NOTE, ""]
    for line in (machine(), "", *rows()):
        lines.append(line)
        print(line, flush=True)
    if options.write:
        OUTPUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
