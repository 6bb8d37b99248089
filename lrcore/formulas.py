"""Formulas on scalars and short vectors. Undecorated: each target compiles them for itself.

`values` are singular values, largest first. A zero matrix has every rank 0; a NaN stays a NaN in the smooth ranks.
"""

import math


def effective_rank(values):
    """‖W‖_* / ‖W‖₂, the definition of Chou, Maly and Rauhut."""
    if values[0] == 0:
        return 0.0
    total = 0.0
    for value in values:
        total += value / values[0]
    return total


def entropy_rank(values):
    """exp(−Σ p ln p), p = σ/Σσ: the effective rank of Roy and Vetterli."""
    if values[0] == 0:
        return 0.0
    total = 0.0
    for value in values:
        total += value / values[0]
    entropy = 0.0
    for value in values:
        p = value / values[0] / total
        if p > 0 or p != p:
            entropy -= p * math.log(p)
    return math.exp(entropy)


def stable_rank(values):
    """‖W‖_F² / ‖W‖₂²."""
    if values[0] == 0:
        return 0.0
    total = 0.0
    for value in values:
        total += (value / values[0]) ** 2
    return total


def count_above(values, threshold):
    """#{σ_i > threshold}."""
    count = 0
    for value in values:
        if value > threshold:
            count += 1
    return count


def representation_cost(values, depth):
    """N Σ σ_i^(2/N): the least Σ ‖W_i‖² of all networks of N = depth layers whose product has these values."""
    total = 0.0
    for value in values:
        total += value ** (2 / depth)
    return depth * total
