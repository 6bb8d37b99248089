"""How far a product has come along the directions in which a target is learnt: the strengths of its modes.

The strength of mode i is û_iᵀ W v̂_i. Where target values are (nearly) equal, û_i and v̂_i are fixed only up to a common
rotation, Û_c → Û_c R and V̂_c → V̂_c R, and single strengths depend on R. The eigenvalues of the symmetric part of
Û_cᵀ W V̂_c do not: they are the stationary values of (Û_c x)ᵀ W (V̂_c x) over unit vectors x. For one direction alone
that is û_iᵀ W v̂_i. So they are the strengths of a cluster, the largest first: our choice.
"""

import numpy as np

MOST = 20  # modes that are followed unless a record says how many


def cluster_rows(values: np.ndarray, count: int, tolerance: float) -> np.ndarray:
    """Groups of (nearly) equal values among the leading ones of `values`, largest first: (≥ count, 2) rows first, last.

    Neighbours whose values differ by less than `tolerance`, relatively, share a row's range. The last group is kept
    whole, so there can be more than `count` rows.
    """
    rows = []
    first = 0
    while first < count:
        last = first + 1
        while last < len(values) and values[last - 1] - values[last] < tolerance * values[last - 1]:
            last += 1
        rows += [(first, last)] * (last - first)
        first = last
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def strengths(products: np.ndarray, left: np.ndarray, right: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(…, k): the strengths of k modes in products (…, m, n); left (m, k), right (n, k), clusters (k, 2)."""
    found = np.einsum("mk,...mn,nk->...k", left, products, right, optimize=True)
    settle_clusters(found, products, left, right, clusters)
    return found


def settle_clusters(
    found: np.ndarray, products: np.ndarray, left: np.ndarray, right: np.ndarray, clusters: np.ndarray
) -> None:
    """Put the strengths of whole clusters in place of û_iᵀ W v̂_i in `found` (…, k); arguments as for `strengths`."""
    for first, last in set(map(tuple, clusters.tolist())):
        if last - first == 1:
            continue
        block = left[:, first:last].T.astype(np.float64) @ products @ right[:, first:last]
        symmetric = (block + np.swapaxes(block, -1, -2)) / 2
        known = np.isfinite(symmetric).all(axis=(-1, -2))
        values = np.linalg.eigvalsh(np.where(known[..., None, None], symmetric, 0.0))[..., ::-1]
        found[..., first:last] = np.where(known[..., None], values, np.nan)
