"""The executable specification: every kernel in plain NumPy, with the names and parameters of `lrcore.cpu`.

Written to be read and to be right. Nothing here is fast; tests hold each target to it.
"""

import numpy as np

from lrcore import layout
from lrcore.adaptive import (
    ACCEPTED,
    EVALUATIONS,
    FACTORS,
    NEXT,
    NOISE,
    REJECTED,
    STEP,
    TIME,
    first_step,
    first_trial,
    stable_size,
    step_factor,
)
from lrcore.eigenpairs import Eigenpairs
from lrcore.objective import FLUSH_BELOW, FLUSH_EVERY
from lrcore.random import MASK, SAMPLE, SHIFT, below, philox, uniform
from lrcore.status import DIVERGED, OK, PAUSED


def multiply(a, b, out, work=None):
    out[:] = a @ b


def multiply_at(a, b, out, work=None):
    out[:] = a.T @ b


def multiply_bt(a, b, out, work=None):
    out[:] = a @ b.T


def product(params, widths, out, work=None):
    """W_N ⋯ W_1."""
    out[:] = _chain(layout.layers(params, widths), widths[0], params.dtype)


def _chain(matrices, inputs, dtype):
    """The product of `matrices`, the first one rightmost; the identity of size `inputs` when there is none."""
    result = np.eye(inputs, dtype=dtype)
    for matrix in matrices:
        result = matrix @ result
    return result


def loss_and_gradient(params, widths, target, gradient, work=None):
    """½‖W − target‖_F² and ∇_i = (W_N ⋯ W_{i+1})ᵀ G (W_{i−1} ⋯ W_1)ᵀ with G = W − target, each from its definition."""
    matrices = layout.layers(params, widths)
    residual = np.empty_like(target)
    product(params, widths, residual)
    residual -= target
    for i, slope in enumerate(layout.layers(gradient, widths)):
        above = _chain(matrices[i + 1 :], widths[i + 1], params.dtype)
        below = _chain(matrices[:i], widths[0], params.dtype)
        slope[:] = above.T @ residual @ below.T
    return params.dtype.type(0.5) * np.sum(residual**2)


def forward(params, widths, target, work=None):
    """The loss alone."""
    return loss_and_gradient(params, widths, target, np.empty_like(params))


def backward(params, widths, factor, out, work):
    """out += factor · ∇L; `work.residual` holds G, from which the target is recovered."""
    residual = work.residual.reshape(widths[-1], widths[0])
    now = np.empty_like(residual)
    product(params, widths, now)
    gradient = np.empty_like(params)
    loss_and_gradient(params, widths, now - residual, gradient)
    out += factor * gradient


def gd_steps(params, widths, target, lr, losses, work=None):
    gradient = np.empty_like(params)
    for k in range(losses.size):
        losses[k] = loss_and_gradient(params, widths, target, gradient)
        if not np.isfinite(losses[k]):
            return DIVERGED
        params -= lr * gradient
    return OK


def rk_steps(params, widths, target, dt, a, b, losses, work=None):
    def evaluate(point):
        gradient = np.empty_like(point)
        return loss_and_gradient(point, widths, target, gradient), gradient

    return _runge_kutta(params, evaluate, dt, a, b, losses)


def _runge_kutta(point, evaluate, dt, a, b, losses):
    """Steps on dx/dt = −∇L(x), changing `point`; evaluate(x) → (L, ∇L)."""
    for k in range(losses.size):
        slopes = []
        for s in range(b.size):
            here = point + dt * sum((a[s, j] * slopes[j] for j in range(s)), np.zeros_like(point))
            loss, gradient = evaluate(here)
            if s == 0:
                losses[k] = loss
                if not np.isfinite(loss):
                    return DIVERGED
            slopes.append(-gradient)
        point += dt * sum(b[s] * slopes[s] for s in range(b.size))
    return OK


def diagonal_gd_steps(modes, target, weights, lr, losses, work=None):
    for k in range(losses.size):
        losses[k], slopes = _diagonal_gradient(modes, target, weights)
        if not np.isfinite(losses[k]):
            return DIVERGED
        modes -= lr * slopes
    return OK


def diagonal_rk_steps(modes, target, weights, dt, a, b, losses, work=None):
    return _runge_kutta(modes, lambda point: _diagonal_gradient(point, target, weights), dt, a, b, losses)


def _diagonal_gradient(modes, target, weights):
    """½ Σ w_j (Π_i d_ij − λ_j)², and of every mode (Π_{l≠i} d_lj)(Π_l d_lj − λ_j): its weight is left out."""
    residual = np.prod(modes, axis=0) - target
    others = [np.prod(np.delete(modes, i, axis=0), axis=0) for i in range(len(modes))]
    return modes.dtype.type(0.5) * np.sum(weights * residual**2), np.stack(others) * residual


def singular_values(matrix):
    if not np.isfinite(matrix).all():
        return np.full(min(matrix.shape), np.nan, matrix.dtype)
    return np.linalg.svd(matrix, compute_uv=False)


def singular_triplets(matrix):
    if not np.isfinite(matrix).all():
        m, n = matrix.shape
        return tuple(np.full(shape, np.nan, matrix.dtype) for shape in ((m, min(m, n)), (min(m, n),), (n, min(m, n))))
    u, values, vt = np.linalg.svd(matrix, full_matrices=False)
    return u, values, vt.T


def spectra(matrices, counts, work=None):
    results = []
    for matrix, count in zip(matrices, counts, strict=True):
        left, values, right = singular_triplets(matrix)
        results.append((left[:, :count], values, right[:, :count]))
    return results


def weight_values(matrices, work=None):
    return [singular_values(matrix.astype(np.float64)) for matrix in matrices]


def entries_in_basis(matrix, vectors):
    inside = np.array([[u @ matrix @ v for v in vectors.T] for u in vectors.T])
    diagonal = np.diag(inside).copy()
    return diagonal, np.sqrt((inside**2).sum() - (diagonal**2).sum())


def principal_angles(pairs, work=None):
    """By the cosines: exact in theory, accurate only to 1e-8 for small angles."""
    angles = []
    for a, b in pairs:
        cosines = singular_values(a.T @ b)
        angles.append(np.arccos(np.clip(cosines, -1, 1)))
    return angles


def rank_metrics(values, numerical_threshold, relative_threshold, out):
    if values[0] == 0:
        out[:] = 0
        return
    p = values / values.sum()
    p = p[p != 0]
    out[:] = [
        values.sum() / values[0],
        np.exp(-np.sum(p * np.log(p))),
        np.sum((values / values[0]) ** 2),
        np.sum(values > numerical_threshold),
        np.sum(values / values[0] > relative_threshold),
        np.sum(values / np.linalg.norm(values) > relative_threshold),
    ]


def balancedness(params, widths, out, work=None):
    matrices = layout.layers(params, widths)
    for i in range(len(matrices) - 1):
        out[i] = np.linalg.norm(matrices[i + 1].T @ matrices[i + 1] - matrices[i] @ matrices[i].T)


def directions(params, gradient, widths, step_size, out):
    pairs = zip(layout.layers(params, widths), layout.layers(gradient, widths), strict=True)
    for i, (layer, slope) in enumerate(pairs):
        moved = layer - step_size * slope
        out[i, 0] = np.linalg.norm(slope)
        out[i, 1] = np.sum(layer * slope) / (np.linalg.norm(layer) * np.linalg.norm(slope))
        out[i, 2] = np.linalg.norm(moved / np.linalg.norm(moved) - layer / np.linalg.norm(layer))


def mode_strengths(product, left, right, out):
    out[0] = np.diag(left.T @ product @ right)


def vector_alignment(vectors, teacher, clusters, out):
    for i, (first, last) in enumerate(clusters):
        out[i] = min(np.linalg.norm(teacher[:, first:last].T @ vectors[:, i]), 1.0)


def normals(seed, stream, domain, out):
    """Box and Muller on Philox blocks, all at once; agrees with a target up to the last bits of log, cos and sin."""
    blocks = np.arange((out.size + 1) // 2, dtype=np.uint64)
    full = np.ones_like(blocks)
    seed, stream, domain = np.uint64(seed), np.uint64(stream), np.uint64(domain)
    counter = (blocks & MASK, blocks >> SHIFT, stream * full, domain * full)
    w0, w1, w2, w3 = philox(*counter, (seed & MASK) * full, (seed >> SHIFT) * full)
    radius, angle = np.sqrt(-2 * np.log(uniform(w0, w1))), 2 * np.pi * uniform(w2, w3)
    out[:] = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[: out.size]


def batch_gd_steps(params, widths, targets, lr, losses, statuses, work=None):
    """One run after the other; the run is the first and the last index."""
    for i, j in np.ndindex(statuses.shape):
        run, target = params[i, :, j].copy(), targets[i, :, j].reshape(widths[-1], widths[0])
        statuses[i, j] = gd_steps(run, widths, target, lr[i, j], losses[i, :, j])
        params[i, :, j] = run


def batch_rk_steps(params, widths, targets, dt, a, b, losses, statuses, work=None):
    for i, j in np.ndindex(statuses.shape):
        run, target = params[i, :, j].copy(), targets[i, :, j].reshape(widths[-1], widths[0])
        statuses[i, j] = rk_steps(run, widths, target, dt[i, j], a, b, losses[i, :, j])
        params[i, :, j] = run


def objective_loss_and_gradient(params, widths, objective, ridge, gradient, work=None):
    """The loss of an Objective with λ Σ ‖W_i‖², each gradient from its definition."""
    product_now = np.empty(objective.target.shape, params.dtype)
    product(params, widths, product_now)
    if len(objective.matrices):
        differences = objective.matrices @ product_now.ravel() - objective.values
        slope = objective.weight * (differences @ objective.matrices).reshape(product_now.shape)
        loss = objective.weight * np.sum(differences**2)
    elif len(objective.covariance):
        slope = (product_now - objective.target) @ objective.covariance
        loss = np.sum(slope * (product_now - objective.target)) + 2 * objective.floor
    else:
        slope = objective.weights * (product_now - objective.target)
        loss = np.sum(slope * (product_now - objective.target))
    gradient[:] = _pulled_back(params, widths, slope) + 2 * ridge * params
    return params.dtype.type(0.5) * loss + ridge * np.sum(params**2)


def _pulled_back(params, widths, slope):
    """The gradient of every layer, as one flat vector, from ∂L/∂W."""
    matrices, found = layout.layers(params, widths), np.empty_like(params)
    for i, part in enumerate(layout.layers(found, widths)):
        above = _chain(matrices[i + 1 :], widths[i + 1], params.dtype)
        part[:] = above.T @ slope @ _chain(matrices[:i], widths[0], params.dtype).T
    return found


def objective_gd_steps(params, widths, objective, rates, ridges, losses, work=None):
    gradient = np.empty_like(params)
    for k in range(losses.size):
        losses[k] = objective_loss_and_gradient(params, widths, objective, ridges[k], gradient)
        if not np.isfinite(losses[k]):
            return DIVERGED
        params -= rates[k] * gradient
    return OK


def objective_rk_steps(params, widths, objective, ridge, dt, tableau, losses, work=None):
    def evaluate(point):
        gradient = np.empty_like(point)
        return objective_loss_and_gradient(point, widths, objective, ridge, gradient), gradient

    return _runge_kutta(params, evaluate, dt, *tableau, losses)


def draws(seed, domain, first, replacement, order, out):
    count, seed, domain = order.size - 2, np.uint64(seed), np.uint64(domain)
    numbers = first + np.arange(out.size)
    if replacement:
        full = np.ones(out.size, np.uint64)
        block = (numbers // 4).astype(np.uint64)
        key = (seed & MASK) * full, (seed >> SHIFT) * full
        words = np.stack(philox(block & MASK, block >> SHIFT, 0 * full, domain * full, *key))
        out[:] = below(words[numbers % 4, np.arange(out.size)], np.uint64(count))
        return
    epochs = {epoch: _permutation(seed, domain, epoch, count) for epoch in np.unique(numbers // count).tolist()}
    out[:] = [epochs[number // count][number % count] for number in numbers.tolist()]


def _permutation(seed, domain, epoch, count):
    order, stream = list(range(count)), np.uint64(epoch + 1)
    for k in range(count - 1, 0, -1):
        counter = (np.uint64(k // 4), stream >> SHIFT, stream & MASK, domain)
        other = int(below(philox(*counter, seed & MASK, seed >> SHIFT)[k % 4], np.uint64(k + 1)))
        order[k], order[other] = order[other], order[k]
    return order


def sgd_steps(params, widths, entries, rates, ridges, sampling, losses, work=None):
    """Each step from the gradient of a sampled loss, formed as a whole matrix ∂L/∂W with few entries that are not 0."""
    product_now, count = np.empty((widths[-1], widths[0]), params.dtype), entries.rows.size
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
        slope = np.zeros_like(product_now)
        np.add.at(slope, where, entries.weight * differences / params.dtype.type(chosen.size))
        params -= rates[k] * (_pulled_back(params, widths, slope) + 2 * ridges[k] * params)
    return OK


def _batch(sampling, count, step):
    """The entries that a step draws: `batch` draws, or as many as are left of an epoch."""
    size, order = sampling.batch, np.zeros(count + 2, np.int64)
    first = step * size
    if not sampling.replacement:
        epoch, place = divmod(step, -(-count // size))
        first, size = epoch * count + place * size, min(size, count - place * size)
    chosen = np.empty(size, np.int64)
    draws(sampling.seed, SAMPLE, first, sampling.replacement, order, chosen)
    return chosen


def batch_sgd_steps(params, widths, entries, lr, ridge, factors, sampling, losses, statuses, work=None):
    for i, j in np.argwhere(statuses == OK):
        run, found = params[i, :, j].copy(), np.full(factors.shape[1], np.nan, params.dtype)
        own = entries._replace(**{name: getattr(entries, name)[i, :, j] for name in ("rows", "columns", "values")})
        seed = sampling._replace(seed=sampling.seed[i, j])
        rates, ridges = lr[i, j] * factors[0], ridge[i, j] * factors[1]
        statuses[i, j] = sgd_steps(run, widths, own, rates, ridges, seed, found)
        losses[i, j] = found[np.isfinite(found)].sum() / max(np.isfinite(found).sum(), 1)
        params[i, :, j] = run


def adaptive_rk_steps(params, widths, objective, flow, pair, losses, state, work=None):
    """The slopes of the current step are not kept: every call makes them again, and leaves clock[READY] at 0."""

    def evaluate(point):
        gradient = np.empty_like(point)
        return objective_loss_and_gradient(point, widths, objective, flow.ridge, gradient), -gradient

    step, begun = None, state.clock[EVALUATIONS]
    for k in range(losses.size):
        losses[k], _ = evaluate(params)
        if not np.isfinite(losses[k]):
            return DIVERGED
        if step is None:
            step = _taken_up(evaluate, flow, pair, state)
        goal = (flow.first + k + 1) * flow.dt
        while state.clock[TIME] + state.clock[STEP] < goal:
            if state.clock[EVALUATIONS] - begun >= flow.budget:
                losses[k] = np.nan
                return PAUSED
            step = _next_step(evaluate, flow, pair, state, *step)
            if step is None:
                losses[k] = np.nan
                return DIVERGED
        dense, theta = pair[3], (goal - state.clock[TIME]) / state.clock[STEP]
        weights = dense @ theta ** np.arange(1, 5)
        params[:] = state.base + _combined(state.clock[STEP] * weights, step[0])
    return OK


def _taken_up(evaluate, flow, pair, state):
    """The slopes of the current step and its end; before the first step those of one of size 0."""
    base, clock = state
    _, slope = evaluate(base)
    if clock[STEP] > 0:
        return _trial(evaluate, pair, base, slope, clock[STEP])
    length, speed = _rms(base), _rms(slope)
    h = first_trial(length, speed)
    soon = h * float(pair[0][1, 0])
    _, moved = evaluate(base + _combined([soon], [slope]))
    clock[NEXT] = first_step(h, speed, _rms(moved - slope) / soon, flow.atol + flow.rtol * length)
    clock[EVALUATIONS] += 2
    return [slope], base.copy()


def _next_step(evaluate, flow, pair, state, slopes, start):
    """As `_taken_up`, of the step after the one with `slopes` that ended at `start`; None where it cannot be made."""
    state.base[:], clock, growth = start, state.clock, FACTORS[-1]
    clock[TIME], clock[STEP] = clock[TIME] + clock[STEP], 0
    while clock[TIME] < clock[TIME] + clock[NEXT] < np.inf:
        h = clock[NEXT]
        trial, end = _trial(evaluate, pair, start, slopes[-1], h)
        apart, bent, error = (
            _rms(_combined(factor * probe, trial)) for factor, probe in zip((h, 1, h), pair[2], strict=True)
        )
        length = max(_rms(start), _rms(end))
        tolerance, noise = flow.atol + flow.rtol * length, NOISE * np.finfo(start.dtype).eps * length
        accepted = error <= tolerance < np.inf
        growth = growth if accepted else 1.0
        clock[NEXT] = stable_size(h * step_factor(error, tolerance, growth), h, apart, bent, noise)
        clock[EVALUATIONS] += len(trial) - 1
        clock[ACCEPTED if accepted else REJECTED] += 1
        if accepted:
            clock[STEP] = h
            return trial, end
    return None


def _trial(evaluate, pair, start, slope, h):
    """The slopes of a step of size h, the first one given, and its end, where the last one is."""
    slopes = [slope]
    for row in pair[0][1:]:
        end = start + _combined(h * row, slopes)
        slopes.append(evaluate(end)[1])
    return slopes, end


def _combined(weights, slopes):
    """Σ_i weights_i slopes_i in the type of the slopes."""
    return sum(slope.dtype.type(weight) * slope for weight, slope in zip(weights, slopes, strict=False))


def _rms(x):
    return float(np.sqrt(np.mean(x**2)))


def nearest_on_path(points, path, offset, best, places, lengths=None):
    """Every point with every segment between finite rows; a row with none behind it is a segment without length."""
    finite = np.isfinite(path).all(axis=1)
    for i, point in enumerate(points):
        if not np.isfinite(point).all():
            best[i] = places[i] = np.nan
            continue
        for j in np.flatnonzero(finite):
            start, end = path[j], path[j + 1] if finite[j + 1 : j + 2].any() else path[j]
            step = end - start
            t = np.clip((point - start) @ step / (step @ step), 0, 1) if step.any() else 0.0
            gap = point - end if t == 1 else point - start - t * step
            best[i], places[i] = min((best[i], places[i]), (gap @ gap, offset + j + t))


def tangent_gd_steps(output, factors, objective, rates, losses, work=None):
    """The slope of a network of one layer, moved by Σ_i left_i · slope · right_i."""
    (left, right), shape = factors, objective.target.shape
    ends, slope = np.array([shape[1], shape[0]]), np.empty_like(output)
    for k in range(losses.size):
        losses[k] = objective_loss_and_gradient(output, ends, objective, output.dtype.type(0), slope)
        if not np.isfinite(losses[k]):
            return DIVERGED
        output -= rates[k] * sum(a @ slope.reshape(shape) @ b for a, b in zip(left, right, strict=True)).ravel()
    return OK


def hessian_point(params, widths, objective, ridge, work=None):
    """The loss alone: `hessian_vector` needs nothing from here."""
    return objective_loss_and_gradient(params, widths, objective, ridge, np.empty_like(params))


def hessian_vector(params, widths, objective, ridge, direction, out, work=None):
    """The derivative of every ∇_i = A_iᵀ G P_{i−1}ᵀ + 2λ W_i along the direction, by the product rule."""
    matrices, moves = layout.layers(params, widths), layout.layers(direction, widths)
    inputs, dtype = widths[0], params.dtype
    slope = _slope(_chain(matrices, inputs, dtype), objective)
    change = _slope_change(_chain_change(matrices, moves, inputs, dtype), objective)
    for i, part in enumerate(layout.layers(out, widths)):
        below, above = (matrices[:i], moves[:i], inputs), (matrices[i + 1 :], moves[i + 1 :], widths[i + 1])
        p, a = (_chain(factors, size, dtype) for factors, _, size in (below, above))
        p_change, a_change = (_chain_change(*factors, dtype) for factors in (below, above))
        part[:] = a_change.T @ slope @ p.T + a.T @ change @ p.T + a.T @ slope @ p_change.T + 2 * ridge * moves[i]


def _chain_change(matrices, moves, inputs, dtype):
    """The derivative of the product of `matrices` as all of them move: one move at a time in place of its matrix."""
    size = len(matrices[-1]) if matrices else inputs
    result = np.zeros((size, inputs), dtype)
    for i, move in enumerate(moves):
        result += _chain([*matrices[:i], move, *matrices[i + 1 :]], inputs, dtype)
    return result


def _slope(product_now, objective):
    """∂L/∂W."""
    if len(objective.matrices):
        differences = objective.matrices @ product_now.ravel() - objective.values
        return objective.weight * (differences @ objective.matrices).reshape(product_now.shape)
    return _slope_change(product_now - objective.target, objective)


def _slope_change(change, objective):
    """How ∂L/∂W changes with W."""
    if len(objective.matrices):
        return objective.weight * (objective.matrices @ change.ravel() @ objective.matrices).reshape(change.shape)
    return change @ objective.covariance if len(objective.covariance) else objective.weights * change


def hessian(params, widths, objective, ridge, out, work=None):
    for row, unit in zip(out, np.eye(params.size, dtype=params.dtype), strict=True):
        hessian_vector(params, widths, objective, ridge, unit, row)
    return hessian_point(params, widths, objective, ridge)


def ntk_factors(params, widths, left, right, work=None):
    matrices = layout.layers(params, widths)
    for i in range(len(matrices)):
        above = _chain(matrices[i + 1 :], widths[i + 1], params.dtype)
        below = _chain(matrices[:i], widths[0], params.dtype)
        left[i], right[i] = above @ above.T, below.T @ below


def ntk_inner(left, right, other_left, other_right):
    """Tr KK', K = Σ_i left_i ⊗ right_i."""
    return np.sum(np.einsum("iab,jba->ij", left, other_left) * np.einsum("iab,jba->ij", right, other_right))


def ntk_apply(left, right, matrix, out, work=None):
    out[:] = sum(a @ matrix @ b for a, b in zip(left, right, strict=True))


def lanczos(apply, start, count, tolerance, most=0):
    """From all eigenvalues: A is formed, a column for each unit vector."""
    size = start.shape[1]
    dense, count = np.empty((size, size)), min(count, size)
    for unit, row in zip(np.eye(size), dense, strict=True):
        apply(unit, row)
    values, vectors = np.linalg.eigh((dense + dense.T) / 2)
    values, vectors = values[: -count - 1 : -1], vectors.T[: -count - 1 : -1]
    residuals = np.linalg.norm(vectors @ dense - values[:, None] * vectors, axis=1)
    return Eigenpairs(values, vectors, residuals, size)


__all__ = [
    "adaptive_rk_steps",
    "backward",
    "balancedness",
    "batch_gd_steps",
    "batch_rk_steps",
    "batch_sgd_steps",
    "diagonal_gd_steps",
    "diagonal_rk_steps",
    "directions",
    "draws",
    "entries_in_basis",
    "forward",
    "gd_steps",
    "hessian",
    "hessian_point",
    "hessian_vector",
    "lanczos",
    "loss_and_gradient",
    "mode_strengths",
    "multiply",
    "multiply_at",
    "multiply_bt",
    "nearest_on_path",
    "normals",
    "ntk_apply",
    "ntk_factors",
    "ntk_inner",
    "objective_gd_steps",
    "objective_loss_and_gradient",
    "objective_rk_steps",
    "principal_angles",
    "product",
    "rank_metrics",
    "rk_steps",
    "sgd_steps",
    "singular_triplets",
    "singular_values",
    "spectra",
    "tangent_gd_steps",
    "vector_alignment",
    "weight_values",
]
