"""Matrices with structure, on which algorithms for singular values are known to go wrong where Gaussian ones are easy.

`draw` makes one of a random family. Zeros, equal entries, equal values and wide ranges of magnitude are frequent.
"""

import numpy as np
import scipy.linalg

LARGEST = 40  # of a side


def draw(rng, largest=LARGEST):
    """(name of a family, a float64 matrix of at most `largest` × `largest`)."""
    name = str(rng.choice(list(FAMILIES)))
    shape = _shape(rng, largest)
    matrix = np.ascontiguousarray(FAMILIES[name](rng, *shape), np.float64)
    return name, np.ascontiguousarray(_variant(rng, matrix))


def _shape(rng, largest):
    """Half of them square; small sides are as frequent as large ones; some have one row or column."""
    m, n = (int(largest ** rng.random() + 0.5) for _ in range(2))
    kind = rng.integers(8)
    if kind < 4:
        return n, n
    return (1, n) if kind == 4 else (m, 1) if kind == 5 else (m, n)


def _variant(rng, matrix):
    """As it is, or transposed, with rows and columns in another order, or with some of them zero."""
    kind = rng.integers(12)
    if kind < 2:
        return matrix.T.copy()
    if kind == 2:
        return matrix[::-1, ::-1].copy()
    if kind == 3:
        return matrix[rng.permutation(len(matrix))][:, rng.permutation(matrix.shape[1])]
    if kind < 8:  # zero, or nearly: first, last, anywhere; a column, a row
        share = rng.choice([0.0, 1e-30, 1e-150, 1e-300])
        at = [0, -1, int(rng.integers(matrix.shape[1]))][rng.integers(3)]
        (matrix if kind < 6 else matrix.T)[:, at % (matrix.shape[1] if kind < 6 else matrix.shape[0])] *= share
    return matrix


def _bits(rng, m, n):
    return rng.random((m, n)) < rng.choice([0.1, 0.3, 0.5, 0.9])


def _partial_permutation(rng, m, n):
    matrix = np.zeros((m, n))
    count = int(rng.integers(min(m, n) + 1))
    matrix[rng.permutation(m)[:count], rng.permutation(n)[:count]] = rng.choice([1.0, -1.0, 2.0], count)
    return matrix


def _low_rank(rng, m, n):
    rank = int(rng.integers(1, max(2, min(m, n) // 2 + 1)))
    left, right = rng.normal(size=(m, rank)), rng.normal(size=(rank, n))
    if rng.random() < 0.5:
        left = left.round()
        right = right.round()
    return left @ right + rng.choice([0.0, 1e-16, 1e-9]) * rng.normal(size=(m, n))


def _bidiagonal(rng, m, n):
    matrix = np.zeros((m, n))
    np.fill_diagonal(matrix, rng.normal(size=min(m, n)) * (rng.random(min(m, n)) < 0.7))
    np.fill_diagonal(matrix[:, 1:], rng.normal(size=min(m, n)) * (rng.random(min(m, n)) < 0.8))
    return matrix


def _shift(rng, m, n):
    return np.eye(m, n, k=int(rng.integers(-3, 4))) + (rng.random() < 0.3) * np.eye(m, n, k=1)


def _nilpotent(rng, m, n):
    return np.triu(rng.integers(-2, 3, (m, n)), 1)


def _blocks(rng, m, n):
    block = rng.integers(-2, 3, (max(1, m // 3), max(1, n // 3)))
    return np.tile(block, (4, 4))[:m, :n]


def _duplicates(rng, m, n):
    matrix = rng.normal(size=(m, n))
    return matrix[rng.integers(0, m, m)][:, rng.integers(0, n, n)]


def _graded(rng, m, n):
    """By rows, by columns or both, up or down, to 1e-16, 1e-150 or 1e-300 of the largest."""
    span = rng.choice([3, 16, 30, 150, 300])
    rows, columns = (np.linspace(0, -span, k) if k > 1 else np.zeros(k) for k in (m, n))
    kind = rng.integers(4)
    rows = rows[::-1] if kind == 1 else np.zeros(m) if kind > 1 else rows
    columns = columns[::-1] if kind == 3 else np.zeros(n) if kind < 2 and rng.random() < 0.7 else columns
    exponents = np.maximum(rows[:, None] + columns[None, :], -305)
    return rng.normal(size=(m, n)) * 10.0**exponents


def _extreme(rng, m, n):
    return rng.normal(size=(m, n)) * 10.0 ** rng.choice([-308, -300, -160, -150, 150, 160, 300])


def _denormal(rng, m, n):
    return rng.integers(-9, 10, (m, n)) * 5e-324


def _scattered(rng, m, n):
    return rng.normal(size=(m, n)) * 10.0 ** rng.integers(-150, 151, (m, n))


def _dead(rng, m, n):
    """Inputs that are always 0, and neurons that are."""
    matrix = rng.normal(size=(m, n))
    matrix[:, rng.random(n) < 0.4] = 0
    matrix[rng.random(m) < 0.2] = 0
    return matrix


def _pruned(rng, m, n):
    matrix = rng.normal(size=(m, n))
    return matrix * (np.abs(matrix) > np.quantile(np.abs(matrix), rng.choice([0.5, 0.8, 0.95])))


def _orthogonal(rng, m, n):
    k = max(m, n)
    return np.linalg.qr(rng.normal(size=(k, k)))[0][:m, :n] * rng.choice([1.0, 3.0])


def _cosines(rng, m, n):
    """AᵀB of two bases with an angle of about `apart` between them: values near 1."""
    k = min(m, n)
    rows = int(min(m, n) * rng.choice([1.5, 3])) + 1
    apart = 10.0 ** -rng.choice([0.5, 1, 2, 4, 6, 8])
    a = np.linalg.qr(rng.normal(size=(rows, k)))[0]
    b = np.linalg.qr(a + apart * rng.normal(size=(rows, k)) / np.sqrt(rows))[0]
    return a.T @ b


def _equal_values(rng, m, n):
    k = min(m, n)
    values = np.repeat(rng.choice([2.0, 1.0, 1e-5, 0.0], -(-k // 3)), 3)[:k]
    values *= 1 + rng.choice([0, 1e-13]) * rng.random(k)
    left, right = (np.linalg.qr(rng.normal(size=(side, k)))[0] for side in (m, n))
    return (left * values) @ right.T


def _geometric(rng, m, n):
    k = min(m, n)
    values = rng.choice([0.5, 1e-1, 1e-3, 1e-9]) ** np.arange(float(k))
    left, right = (np.linalg.qr(rng.normal(size=(side, k)))[0] for side in (m, n))
    return (left * values) @ right.T


def _hadamard(rng, m, n):
    size = 1 << (max(m, n) - 1).bit_length()
    return scipy.linalg.hadamard(size)[:m, :n]


FAMILIES = {
    "0 and 1": _bits,
    "signs": lambda rng, m, n: rng.choice([-1, 1], (m, n)),
    "0 and signs": lambda rng, m, n: rng.integers(-1, 2, (m, n)) * _bits(rng, m, n),
    "small integers": lambda rng, m, n: rng.integers(-3, 4, (m, n)),
    "partial permutation": _partial_permutation,
    "low rank": _low_rank,
    "bidiagonal": _bidiagonal,
    "shift": _shift,
    "nilpotent": _nilpotent,
    "blocks": _blocks,
    "duplicates": _duplicates,
    "graded": _graded,
    "scattered": _scattered,
    "extreme": _extreme,
    "denormal": _denormal,
    "dead": _dead,
    "pruned": _pruned,
    "orthogonal": _orthogonal,
    "cosines": _cosines,
    "equal values": _equal_values,
    "geometric": _geometric,
    "hadamard": _hadamard,
    "normal": lambda rng, m, n: rng.normal(size=(m, n)),
    "constant": lambda rng, m, n: np.full((m, n), rng.choice([0.0, 1.0, -0.1])),
}
