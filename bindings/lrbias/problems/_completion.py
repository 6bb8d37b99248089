"""Losses that see only part of a target: some of its entries, or linear measurements of it."""

from __future__ import annotations

import functools
import warnings
from typing import Any, Literal, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike

from lrbias.errors import DataWarning, InvalidInput, check
from lrbias.problems._factorization import Problem
from lrbias.settings import Count, Fraction, Seed, as_array, as_matrix, as_partly_known, as_vector, validate
from lrcore import objective, random
from lrcore.objective import Entries, Objective

Reduction = Literal["sum", "mean"]


class Completion(Problem):
    """The loss ½ Σ (W_ij − target_ij)² over the observed entries (i, j), with reduction="mean" over their number.

    target          a real (outputs, inputs) matrix; entries that are NaN, or masked in a NumPy masked array, are not
                    observed and not known
    mask            which entries are observed: True or not 0, shape of the target
    fraction        or the share of the entries, in (0, 1], drawn without replacement with `seed`
    entries         or their number, drawn in the same way; or their positions, counted from 0: an array or a list of
                    pairs (k, 2), or a tuple (rows, columns) of two arrays, as `np.nonzero` gives them
    reduction       "sum", or "mean", with which a learning rate does not depend on how many entries there are
    source          as for `Factorization`
    symmetric_mask  whether (i, j) is drawn together with (j, i), from a square matrix: `fraction` and `entries` then
                    are a share and a number of the pairs i ≤ j of which both are known, n(n + 1)/2 when all are

    Give one of mask, fraction and entries; without one, what is known is observed. `connected` says whether the graph
    of observed entries (rows and columns are its nodes) is connected: otherwise nothing determines the entries between
    its `components`, and a low-rank bias has nothing to act on (Bai et al. 2024). A row or column without any observed
    entry gives a DataWarning.

    Raises InvalidInput for what is not accepted.
    """

    kept = ("mask",)

    @classmethod
    def restored(
        cls, target: np.ndarray, observed: dict[str, Any], reduction: str, source: dict[str, Any] | None
    ) -> Self:
        with warnings.catch_warnings():  # they were given when the run was made
            warnings.simplefilter("ignore", DataWarning)
            known = observed.get("known", np.True_)
            return cls(np.where(known, target, np.nan), observed["mask"], reduction=reduction, source=source)

    def __init__(
        self,
        target: ArrayLike,
        mask: ArrayLike | None = None,
        fraction: float | None = None,
        entries: Any = None,
        seed: int = 0,
        reduction: str = "sum",
        source: dict[str, Any] | None = None,
        symmetric_mask: bool = False,
    ) -> None:
        target = as_partly_known("target", target)
        known = ~np.isnan(target)
        super().__init__(np.where(known, target, 0), source)
        choices = {"mask": mask, "fraction": fraction, "entries": entries}
        given = [name for name, value in choices.items() if value is not None]
        for name in given[1:]:
            check(False, name, choices[name], f"only one of mask, fraction and entries ({given[0]} is given)")
        check(isinstance(symmetric_mask, (bool, np.bool_)), "symmetric_mask", symmetric_mask, "True or False")
        self.reduction = validate(Reduction, "reduction", reduction)
        self.known = known
        self._drawn: dict[str, Any] | None = None
        self.mask = self._choose(mask, fraction, entries, validate(Seed, "seed", seed), bool(symmetric_mask))
        self.mask.flags.writeable = False
        _warn_of_empty(self.mask)

    def _choose(
        self, mask: ArrayLike | None, fraction: float | None, entries: Any, seed: int, symmetric_mask: bool
    ) -> np.ndarray:
        positions = None if entries is None or is_number(entries) else as_positions(entries)
        drawn = mask is None and positions is None and (fraction is not None or entries is not None)
        accepted = "False, unless fraction or a number of entries is to be drawn"
        check(drawn or not symmetric_mask, "symmetric_mask", symmetric_mask, accepted)
        if mask is not None:
            return self._as_mask(mask)
        if positions is not None:
            return self._as_mask(_at_positions(positions, self.shape), "entries")
        check(self.known.any(), "target", "<all entries are NaN>", "at least one known entry")
        return self._draw(fraction, entries, seed, symmetric_mask) if drawn else self.known.copy()

    def _draw(self, fraction: float | None, entries: Any, seed: int, pairs: bool) -> np.ndarray:
        """The mask of a share or a number of the known entries, or of pairs of them."""
        candidates = np.flatnonzero(self._upper() if pairs else self.known)
        if fraction is not None:
            share = validate(Fraction, "fraction", fraction)
            count = round(share * candidates.size)
            check(count > 0, "fraction", fraction, f"at least {1 / candidates.size:.3g}, so that one entry is observed")
        else:
            count = validate(Count, "entries", entries)
            accepted = f"at most {candidates.size}, the known {'pairs' if pairs else 'entries'}"
            check(count <= candidates.size, "entries", entries, accepted)
        self._drawn = {"entries": count, "mask_seed": seed} | ({"symmetric_mask": True} if pairs else {})
        mask = np.zeros(self.shape, bool)
        mask.flat[candidates[_first_of_permutation(candidates.size, count, seed)]] = True
        return mask | mask.T if pairs else mask

    def _upper(self) -> np.ndarray:
        """Where i ≤ j and both (i, j) and (j, i) are known."""
        check(
            len(set(self.shape)) == 1, "symmetric_mask", True, f"False for a matrix of shape {self.shape}: not square"
        )
        both = np.triu(self.known & self.known.T)
        check(both.any(), "symmetric_mask", True, "False, since of no pair (i, j), (j, i) both entries are known")
        return both

    def _as_mask(self, mask: ArrayLike, argument: str = "mask") -> np.ndarray:
        given = as_array(argument, mask)
        accepted = "True or False, or a number, for each entry"
        check(given.dtype.kind in "biuf", argument, f"<an array of dtype {given.dtype}>", accepted)
        shown = f"<an array of shape {given.shape}>"
        check(given.shape == self.shape, argument, shown, f"the target's shape {self.shape}")
        check(not np.isnan(given).any(), argument, f"<{np.isnan(given).sum()} entries are NaN>", accepted)
        observed = given != 0
        check(observed.any(), argument, "<no entry is observed>", "at least one observed entry")
        unknown = int((observed & ~self.known).sum())
        check(unknown == 0, argument, f"<{unknown} observed entries are NaN>", "observed entries that are known")
        return observed

    @functools.cached_property
    def components(self) -> int:
        """How many connected parts the graph of observed entries has; a row without entries is one of its own."""
        from scipy.sparse import bmat, csr_matrix
        from scipy.sparse.csgraph import connected_components

        edges = csr_matrix(self.mask)
        return int(connected_components(bmat([[None, edges], [edges.T, None]]), directed=False)[0])

    @property
    def connected(self) -> bool:
        """Whether the graph of observed entries is connected."""
        return self.components == 1

    @property
    def target_known(self) -> bool:
        """Whether all entries of the target are known."""
        return bool(self.known.all())

    @property
    def count(self) -> int:
        """Number of observed entries."""
        return int(self.mask.sum())

    @property
    def weights(self) -> np.ndarray:
        """Of every entry in the loss; 0 where nothing is observed."""
        return self.mask / self.count if self.reduction == "mean" else self.mask.astype(np.float64)

    def entries(self, dtype: np.dtype[Any]) -> Entries:
        """The observed entries, for stochastic steps, with the weight that makes the expected step that of the loss."""
        rows, columns = np.nonzero(self.mask)
        weight = np.dtype(dtype).type((1 if self.reduction == "mean" else self.count) * self.output_scale**2)
        values = (self.target[rows, columns] / self.output_scale).astype(dtype)
        return Entries(rows, columns, values, weight)

    def errors(self, product: np.ndarray) -> dict[str, np.ndarray]:
        squares = (product - self.target) ** 2
        hidden = self.known & ~self.mask
        found = {"train": np.sqrt(squares[..., self.mask].mean(axis=-1))}
        if hidden.any():
            found["test"] = np.sqrt(squares[..., hidden].mean(axis=-1))
        return found

    @property
    def observed(self) -> dict[str, np.ndarray]:
        """The mask, and which entries are known where that is not all of them."""
        return {"mask": self.mask} if self.known.all() else {"mask": self.mask, "known": self.known}

    def settings(self) -> dict[str, Any]:
        drawn = self._drawn if self._drawn and self.known.all() else {"observed": "observed.npz"}
        return {**super().settings(), **drawn, "reduction": self.reduction}

    def facts(self) -> dict[str, Any]:
        """What `summary` says of the data."""
        return {"observed_entries": self.count, "observed_share": self.mask.mean(), "components": self.components}

    def __repr__(self) -> str:
        parts = "connected" if self.connected else f"in {self.components} parts"
        rows, columns = self.shape
        return f"Completion({self.count} of {rows * columns} entries of a {rows} × {columns} matrix, {parts})"


class Sensing(Problem):
    """The loss ½ Σ_k (⟨A_k, W⟩ − y_k)² over linear measurements, or with reduction="mean" this over their number.

    matrices   (K, outputs, inputs): the A_k
    values     (K,): the y_k
    target     the matrix that was measured, if it is known: what alignment is measured against. None: the matrix of
               least Frobenius norm among those that fit the measurements best
    reduction  "sum" or "mean"

    Raises InvalidInput when the lengths differ or something is not a finite number.
    """

    errors_over = "measurements", "whole truth"
    kept = ("matrices", "values")

    @classmethod
    def restored(
        cls, target: np.ndarray, observed: dict[str, Any], reduction: str, source: dict[str, Any] | None
    ) -> Self:
        truth = target if observed["truth_known"] else None
        return cls(observed["matrices"], observed["values"], truth, reduction)

    def __init__(
        self, matrices: ArrayLike, values: ArrayLike, target: ArrayLike | None = None, reduction: str = "sum"
    ) -> None:
        array = as_array("matrices", matrices)
        accepted = "an array (K, outputs, inputs) of at least one finite matrix"
        check(array.ndim == 3 and array.size > 0, "matrices", f"<an array of shape {array.shape}>", accepted)
        flat = as_matrix("matrices", array.reshape(len(array), -1))
        self.values = as_vector("values", values)
        check(
            len(self.values) == len(flat),
            "values",
            f"<{len(self.values)} numbers>",
            f"as many as matrices, {len(flat)}",
        )
        self.matrices = flat.reshape(array.shape)
        self.reduction = validate(Reduction, "reduction", reduction)
        self.truth_known = target is not None
        if target is None:
            target = np.linalg.lstsq(flat, self.values, rcond=None)[0].reshape(array.shape[1:])
        super().__init__(target)
        check(self.shape == array.shape[1:], "target", f"<an array of shape {self.shape}>", f"shape {array.shape[1:]}")

    @property
    def target_known(self) -> bool:
        """Whether the matrix that was measured is known."""
        return self.truth_known

    def objective(self, dtype: np.dtype[Any]) -> Objective:
        weight = 1 / len(self.values) if self.reduction == "mean" else 1.0
        return objective.measured(self.matrices * self.output_scale, self.values, weight, dtype)

    @functools.cached_property
    def symmetric_loss(self) -> bool:
        """Whether L(Wᵀ) = L(W) exactly, for every W: every A_k equals its transpose bit for bit."""
        return np.array_equal(self.matrices, self.matrices.transpose(0, 2, 1))

    def entries(self, dtype: np.dtype[Any]) -> NoReturn:
        """InvalidInput: a measurement is no entry."""
        raise InvalidInput("problem = Sensing is not accepted: expected a Completion or Factorization for SGD.")

    def slope(self, product: np.ndarray) -> np.ndarray:
        flat = self.matrices.reshape(len(self.values), -1)
        slope = (flat.T @ (flat @ product.ravel() - self.values)).reshape(self.shape)
        return slope / len(self.values) if self.reduction == "mean" else slope

    def errors(self, product: np.ndarray) -> dict[str, np.ndarray]:
        flat = self.matrices.reshape(len(self.values), -1)
        residuals = product.reshape(*product.shape[:-2], -1) @ flat.T - self.values
        found = {"train": np.sqrt((residuals**2).mean(axis=-1))}
        if self.truth_known:
            found["test"] = np.sqrt(((product - self.target) ** 2).mean(axis=(-2, -1)))
        return found

    @property
    def observed(self) -> dict[str, np.ndarray]:
        return {"matrices": self.matrices, "values": self.values, "truth_known": np.array(self.truth_known)}

    def settings(self) -> dict[str, Any]:
        return {"target": "target.npy", "observed": "observed.npz", "reduction": self.reduction}

    def facts(self) -> dict[str, Any]:
        """What `summary` says of the data."""
        return {"measurements": len(self.values)}

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"Sensing({len(self.values)} measurements of a {rows} × {columns} matrix)"


def _first_of_permutation(size: int, count: int, seed: int) -> np.ndarray:
    from lrcore import cpu

    chosen = np.empty(count, np.int64)
    order = np.zeros(size + 2, np.int64)
    cpu.draws(np.uint64(seed), np.uint64(random.OBSERVED), 0, False, order, chosen)
    return chosen


def is_number(entries: Any) -> bool:
    """Whether `entries` says how many are drawn, and not which."""
    return np.ndim(entries) == 0 if isinstance(entries, np.ndarray) else not np.iterable(entries)


def as_positions(entries: Any) -> np.ndarray:
    """Positions as an array (k, 2): given so, or as `np.nonzero` gives them, a tuple (rows, columns) of two arrays.

    InvalidInput where two sequences of two could be either.
    """
    accepted = "pairs (row, column) as a list or an array (k, 2), or a tuple (rows, columns) of two arrays"
    if not (isinstance(entries, (list, tuple)) and len(entries) == 2):
        return as_array("entries", entries)
    first, second = (as_array("entries", side) for side in entries)
    if not first.ndim == second.ndim == 1:
        return as_array("entries", entries)
    sides = tuple(isinstance(side, (list, tuple)) for side in entries)
    if isinstance(entries, list) and all(sides):
        return as_array("entries", entries)  # as a file has them: pairs
    split = isinstance(entries, tuple) and (not any(sides) or len(first) != 2)
    check(split, "entries", entries, accepted)
    check(len(first) == len(second), "entries", f"<{len(first)} rows, {len(second)} columns>", accepted)
    return np.stack([first, second], axis=1)


def _at_positions(positions: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    accepted = f"a number, or pairs (row, column) inside a matrix of shape {shape}, each once"
    shown = f"<an array of shape {positions.shape}>"
    check(positions.ndim == 2 and positions.shape[1] == 2 and positions.dtype.kind in "iu", "entries", shown, accepted)
    inside = ((positions >= 0) & (positions < np.array(shape))).all()
    check(inside and len(np.unique(positions, axis=0)) == len(positions), "entries", shown, accepted)
    mask = np.zeros(shape, bool)
    mask[positions[:, 0], positions[:, 1]] = True
    return mask


def _warn_of_empty(mask: np.ndarray) -> None:
    for axis, name in ((1, "row"), (0, "column")):
        empty = np.flatnonzero(~mask.any(axis=axis))
        if empty.size:
            shown = ", ".join(map(str, empty[:5])) + (", …" if empty.size > 5 else "")
            words = (f"1 {name}", "has", "it") if empty.size == 1 else (f"{empty.size} {name}s", "have", "them")
            sentence = f"{words[0]} ({shown}) {words[1]} no observed entry: nothing determines {words[2]}"
            warnings.warn(sentence, DataWarning, stacklevel=3)
