"""What needs PyTorch: training a run, ranks of gradients at its end."""

from pathlib import Path
from typing import Any

import numpy as np

from lrbias.studies.galanti._parameters import PROBED


def train_one(job):
    """Train or continue one run in this process, on one core; returns how it ended."""
    import torch

    from lrbias.nn import Training, fit, resume

    torch.set_num_threads(1)
    path = Path(job[0])
    settings = job[1]
    if (path / "config.json").is_file():
        return resume(path, progress=False).status
    return fit(Training(**settings), store=path, progress=False).status


def gradient_rows(run):
    """A dictionary for each matrix: m_l, ranks of the gradients of single samples and of the batch, their bounds."""
    import torch
    from torch.nn.functional import cross_entropy

    from lrbias.nn import gradient_ranks, trained

    model, images = trained(run)
    inputs, labels = (torch.from_numpy(a[:PROBED]) for a in (images.train_inputs, images.train_labels))
    rows = []
    for found in gradient_ranks(model, cross_entropy, inputs, labels):
        one, batch = found.bounds
        own: dict[str, Any] = {"name": found.name, "patches": int(found.patches), "size": int(min(found.shape))}
        ranks = {"sample": int(np.max(found.sample)), "batch": int(found.batch)}
        rows.append({**own, **ranks, "sample_bound": int(one), "batch_bound": int(batch)})
    return rows
