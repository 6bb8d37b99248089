"""Stochastic gradient descent on single entries."""

import numpy as np

from lrcore.objective import FLUSH_BELOW, FLUSH_EVERY
from lrcore.random import SAMPLE
from lrcore.reference.objective import gradient_of_layers
from lrcore.reference.products import product
from lrcore.reference.random import draws
from lrcore.status import DIVERGED, OK


def sgd_steps(params, widths, entries, rates, ridges, sampling, losses, work=None):
    """Each step from the gradient of a sampled loss, formed as a whole matrix ∂L/∂W with few entries that are not 0."""
    product_now = np.empty((widths[-1], widths[0]), params.dtype)
    count = entries.rows.size
    for k in range(losses.size):
        if (sampling.first + k) % FLUSH_EVERY == 0:
            params[np.abs(params) < FLUSH_BELOW] = 0
        chosen = _batch(sampling, count, sampling.first + k)
        product(params, widths, product_now)
        where = entries.rows[chosen], entries.columns[chosen]
        differences = product_now[where] - entries.values[chosen]
        losses[k] = params.dtype.type(0.5) * entries.weight * np.mean(differences**2)
        if not np.isfinite(losses[k]):
            return DIVERGED
        grad_product = np.zeros_like(product_now)
        np.add.at(grad_product, where, entries.weight * differences / params.dtype.type(chosen.size))
        params -= rates[k] * (gradient_of_layers(params, widths, grad_product) + 2 * ridges[k] * params)
    return OK


def _batch(sampling, count, step):
    """The entries that a step draws: `batch` draws, or as many as are left of an epoch."""
    size = sampling.batch
    order = np.zeros(count + 2, np.int64)
    first = step * size
    if not sampling.replacement:
        epoch, index = divmod(step, -(-count // size))
        first = epoch * count + index * size
        size = min(size, count - index * size)
    chosen = np.empty(size, np.int64)
    draws(sampling.seed, SAMPLE, first, sampling.replacement, order, chosen)
    return chosen


def batch_sgd_steps(params, widths, entries, rates, sampling, losses, statuses, work=None):
    """One run after the other, those whose status is OK; losses are means over the steps made."""
    for i, j in np.argwhere(statuses == OK):
        run = params[i, :, j].copy()
        run_losses = np.full(rates.factors.shape[1], np.nan, params.dtype)
        own = entries._replace(**{name: getattr(entries, name)[i, :, j] for name in ("rows", "columns", "values")})
        seed = sampling._replace(seed=sampling.seed[i, j])
        lr = rates.lr[i, j] * rates.factors[0]
        ridge = rates.ridge[i, j] * rates.factors[1]
        statuses[i, j] = sgd_steps(run, widths, own, lr, ridge, seed, run_losses)
        losses[i, j] = run_losses[np.isfinite(run_losses)].sum() / max(np.isfinite(run_losses).sum(), 1)
        params[i, :, j] = run
