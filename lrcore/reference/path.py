"""Distances from a path that points are joined to."""

import numpy as np


def nearest_on_path(points, path, offset, best, positions, lengths=None):
    """Every point with every segment between finite rows; a row with none behind it is a segment without length."""
    finite = np.isfinite(path).all(axis=1)
    for i, point in enumerate(points):
        if not np.isfinite(point).all():
            best[i] = positions[i] = np.nan
            continue
        for j in np.flatnonzero(finite):
            start = path[j]
            end = path[j + 1] if finite[j + 1 : j + 2].any() else path[j]
            step = end - start
            t = np.clip((point - start) @ step / (step @ step), 0, 1) if step.any() else 0.0
            gap = point - end if t == 1 else point - start - t * step
            best[i], positions[i] = min((best[i], positions[i]), (gap @ gap, offset + j + t))
