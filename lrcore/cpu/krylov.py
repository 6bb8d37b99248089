"""The largest eigenvalues of a symmetric operator A that is known by its products with vectors alone.

Lanczos' iteration from as many vectors as eigenvalues are wanted. The rows of a basis Q and of a front F are
orthonormal (each product is made orthogonal to all of them, and again where that took most of it away), and

    A Qᵀ = Qᵀ T + Fᵀ C

with small T and C. So a Ritz pair T y = θ y has the residual Fᵀ C y, whose norm ‖C y‖ costs no long vector. A step
turns the front until its first vector is the residual of the largest pair that waits, moves that one into the basis
and multiplies it by A; what is new in the product joins the front. With one vector in the front this is Lanczos'
recurrence, with T tridiagonal.

One starting vector, as ARPACK has, sees one direction of an eigenspace. With an identical start and a symmetric
target many eigenvalues of the Hessian are double: eigsh misses the second of each, k vectors see k of them.

Results belong to one machine: BLAS and LAPACK do the work.
"""

import zlib

import numpy as np

from lrcore.cpu.random import normals
from lrcore.eigenpairs import Eigenpairs
from lrcore.random import EIGENVECTORS

ROOM, KEPT = 24, 8  # vectors of a full basis beyond twice the count, and of a restarted one beyond the count
NOTHING = 1e-13  # of ‖A‖: less of a product than this is rounding

# What is known from an earlier operator converges at once and would not look elsewhere, where another eigenvalue may
# have grown past it. So the last vector gets a share of a random one, which has to die away before its residual is
# small and shows meanwhile what else there is. Where the tolerance is so loose that it need not, some steps are made
# in any case. What is missed with these, and without: benchmarks/curvature.md.
SHARE, LEAST = 0.1, 12


def lanczos(apply, start, count, tolerance, most=10_000):
    """The `count` largest (algebraic) eigenvalues of a symmetric operator A on vectors of `size` numbers: Eigenpairs.

    apply      apply(vector, out) writes A · vector into out and leaves vector as it is; both (size,) float64
    start      (k, size), k ≥ 0: eigenvectors of an earlier, nearby operator, the largest first
    count      at least 1; of a smaller space, all its eigenvalues
    tolerance  of ‖A v − θ v‖ relative to ‖A‖, for which the largest |θ| at either end that was seen stands
    most       products after which it ends, whatever the residuals; at least `count` are made

    Every value is an eigenvalue to within its residual. Where eigenvalues lie closer than that, as about 0 at the
    lower end of a Hessian near a minimum, others may be as large. What is random depends on `start` alone. Needs
    memory for 3 count + ROOM vectors. An operator that is not finite has NaN for every value and vector.
    """
    start = np.ascontiguousarray(start[:count], np.float64)
    start = start[np.isfinite(start).all(axis=1) & start.any(axis=1)]
    pairs, whole = _iterate(apply, start, count, tolerance, most)
    for _ in range(len(start)):  # where one eigenvalue has come up unseen, another one may have
        if whole or pairs.products >= most or not _newcomer(pairs.vectors, start):
            break
        start = pairs.vectors
        before = pairs.products
        pairs, whole = _iterate(apply, start, count, tolerance, most - before)
        pairs = pairs._replace(products=before + pairs.products)
    return pairs


def _newcomer(vectors, start):
    """Whether one of as many orthonormal `vectors` lies mostly outside what the rows of `start` span."""
    along = vectors @ start.T
    inside = np.sum(along @ np.linalg.pinv(start @ start.T, hermitian=True) * along, axis=1)
    return len(vectors) == len(start) and (inside < 0.5).any()


def _iterate(apply, start, count, tolerance, most):
    """Eigenpairs, and whether the basis has become the whole space."""
    space = _Space(apply, start.shape[1], count, seed=zlib.crc32(start))
    for k in range(space.count):
        vector = start[k] / np.linalg.norm(start[k]) if k < len(start) else space.random()
        space.join(vector + SHARE * space.random() if k == count - 1 else vector)
    for _ in range(space.count):
        space.step(np.zeros(space.front))
    while space.finite:
        values, weights, residuals = space.pairs()
        waiting = np.flatnonzero(residuals > tolerance * space.largest)
        enough = not waiting.size and space.products >= count + LEAST
        if enough or space.front == 0 or space.products >= most:
            vectors = weights[:, : space.count].T @ space.basis
            largest = values[: space.count].copy()
            return Eigenpairs(largest, vectors, residuals, space.products), space.front == 0
        chosen = weights[:, waiting[0] if waiting.size else residuals.argmax()]
        direction = space.outside @ chosen
        if space.full:
            space.restart(values, weights)
        space.step(direction)
    nothing = np.full(space.count, np.nan)
    return Eigenpairs(nothing, np.full((space.count, space.size), np.nan), nothing, space.products), True


class _Space:
    """Basis and front, and what is known of A there.

    rows      (b + f, size), orthonormal: the basis, and behind it the front
    inside    (b, b), outside (f, b): T and C
    largest   |θ| that was seen so far
    finite    whether all products were
    """

    def __init__(self, apply, size, count, seed):
        self.size = size
        self.count = min(count, size)
        self.products = 0
        self.largest = 0.0
        self.finite = True
        self._apply = apply
        self._seed = np.uint64(seed)
        self._drawn = 0
        self._room = min(2 * self.count + ROOM, size)
        self._length = self.front = 0
        self._rows = np.empty((min(self._room + self.count, size), size))
        self._inside = np.zeros((self._room, self._room))
        self._outside = np.zeros((self.count, self._room))
        self._product = np.empty(size)

    @property
    def rows(self):
        return self._rows[: self._length + self.front]

    @property
    def basis(self):
        return self._rows[: self._length]

    @property
    def inside(self):
        return self._inside[: self._length, : self._length]

    @property
    def outside(self):
        return self._outside[: self.front, : self._length]

    @property
    def full(self):
        return self._length == self._room

    def random(self):
        """A unit vector; another one at every call."""
        vector = np.empty(self.size)
        normals(self._seed, np.uint64(self._drawn), np.uint64(EIGENVECTORS), vector)
        self._drawn += 1
        return vector / np.linalg.norm(vector)

    def pairs(self):
        """(all Ritz values, largest first; weights of the basis, a column for each; residuals of `count` of them)."""
        values, weights = np.linalg.eigh(self.inside)
        self.largest = max(self.largest, np.abs(values).max())
        values = values[::-1]
        weights = weights[:, ::-1]
        return values, weights, np.linalg.norm(self.outside @ weights[:, : self.count], axis=0)

    def join(self, vector):
        """A vector of length about 1 of which A is not known to have a part joins the front; where it lies among the
        rows, a random one in its place."""
        left = _clear(vector, self.rows)
        if left < np.sqrt(NOTHING):
            vector = self.random()
            left = _clear(vector, self.rows)
        self._append(vector / left)

    def _append(self, vector):
        self._rows[self._length + self.front] = vector
        self._outside[self.front] = 0
        self.front += 1

    def step(self, direction):
        """The vector of the front along `direction` (f,) joins the basis, and a new one the front."""
        self._turn(direction)
        known = self._outside[0, : self._length].copy()
        last = self._length
        self._inside[last, :last] = self._inside[:last, last] = known
        self._outside[: self.front - 1] = self._outside[1 : self.front]
        self._length = last + 1
        self.front = self.front - 1
        rest = self._product
        self._apply(self._rows[last], rest)
        self.products += 1
        length = np.linalg.norm(rest)
        self.finite = self.finite and np.isfinite(length)
        rest -= known @ self._rows[:last]
        near = self.rows[last:]
        along = near @ rest
        rest -= along @ near
        self._inside[last, last] = along[0]
        self._outside[: self.front, last] = along[1:]
        if self._length + self.front < self.size and self.finite:
            self._take_in(rest, length)

    def _take_in(self, rest, length):
        """What is new in the last product, of which this is the length, joins the front."""
        left = _clear(rest, self.rows)
        if left > NOTHING * max(length, self.largest):
            self._append(rest / left)
            self._outside[self.front - 1, self._length - 1] = left
        else:  # an invariant subspace
            self.join(self.random())

    def _turn(self, direction):
        """Reflect the front so that its first vector lies along `direction`; where that is 0, any will do."""
        length = np.linalg.norm(direction)
        if length == 0 or self.front == 1:
            return
        normal = direction / length
        normal[0] += np.copysign(1, normal[0])
        normal /= np.linalg.norm(normal)
        for rows in (self.rows[self._length :], self.outside):
            rows -= np.outer(2 * normal, normal @ rows)

    def restart(self, values, weights):
        """Keep the largest Ritz vectors of the basis; the front stays."""
        kept = self.count + KEPT
        front = self.rows[self._length :].copy()
        self._rows[:kept] = weights[:, :kept].T @ self.basis
        self._rows[kept : kept + self.front] = front
        outside = self.outside @ weights[:, :kept]
        self._inside[:kept, :kept] = np.diag(values[:kept])
        self._outside[: self.front, :kept] = outside
        self._length = kept


def _clear(vector, rows):
    """Take out of `vector` what lies along the orthonormal `rows`; the length of what is left.

    Once leaves rounding of the length before, so it is done again where little was left (Kahan and Parlett).
    """
    length = np.linalg.norm(vector)
    while True:
        vector -= (rows @ vector) @ rows
        left = np.linalg.norm(vector)
        if not left < length / 2:
            return left
        length = left
