"""Starts and data that the runs of the study need."""

import numpy as np

from lrbias.network import Network
from lrbias.studies.regimes._parameters import (
    BIAS_OUTPUTS,
    BIAS_SAMPLES,
    DEPTH,
    EDGE_GAMMA,
    EDGE_SIZE,
    SCALED_GAMMA,
    STRENGTHS,
    UNBALANCED,
    VARIANCES,
)


def silent_start(side, width, seed):
    """Two rich networks side by side, the same but for the sign of the output: together their output is 0."""
    deviation = width**-SCALED_GAMMA
    first, middle, last = Network.gaussian((side, width, width, side), std=deviation, seed=seed).layers
    both = np.kron(np.eye(2), middle)
    return Network.from_layers([np.vstack([first, first]), both, np.hstack([last, -last])])


def edge_start():
    """Layers of one deviation, the first of which is UNBALANCED times as large: the flow keeps what is not balanced."""
    layers = Network.gaussian((EDGE_SIZE,) * (DEPTH + 1), gamma=EDGE_GAMMA, seed=1).layers
    return Network.from_layers([UNBALANCED * layers[0], *layers[1:]])


def bias_data():
    """(inputs, outputs): samples with Σ = V diag(d) Vᵀ exactly, and outputs with YᵀX/m = U diag(s) Vᵀ."""
    count = len(STRENGTHS)
    rng = np.random.default_rng(0)
    scores = np.linalg.qr(rng.normal(size=(BIAS_SAMPLES, count)))[0] * np.sqrt(BIAS_SAMPLES)
    right = np.linalg.qr(rng.normal(size=(count, count)))[0]
    left = np.linalg.qr(rng.normal(size=(BIAS_OUTPUTS, count)))[0]
    inputs = scores * np.sqrt(VARIANCES) @ right.T
    outputs = scores * (np.array(STRENGTHS) / np.sqrt(VARIANCES)) @ left.T
    return inputs, outputs


def aligned_layers(modes, count, start):
    """Balanced layers of depth 2 whose product is `start` along each of `count` modes."""
    root = np.sqrt(start)
    return [root * modes.right[:, :count].T, root * modes.left[:, :count]]
