"""New weights for a linear model that has lost columns, from its own former scores.

Ridge regression around the weights that are left, of what the lost columns said. With the matrix
``X`` (rows, columns) centred, the residual ``R`` of the former scores and ``K = X Xᵀ``::

    change = Xᵀ (K + λ I)⁻¹ R

which is the solution in the space of rows (Saunders, Gammerman and Vovk, "Ridge Regression
Learning Algorithm in Dual Variables", ICML 1998): there are fewer rows than columns. Rows may
weigh differently, with ``λ / weight`` in the place of λ: where two scores are close, an error
changes a label. λ is the one that comes closest to the former scores on a quarter of the rows that
the trial does not see.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from modelport.core.tensors import Array

#: λ as a multiple of the mean square of a row.
_STRENGTHS: Final = (0.003, 0.03, 0.3, 3.0)
_SEED: Final = 5
_FEWEST_ROWS: Final = 40


def refitted(
    matrix: Array,
    scores: Array,
    weights: Array,
    intercepts: Array,
    importance: Array | None = None,
) -> tuple[Array, Array]:
    """Weights and intercepts that come close to `scores`.

    Parameters
    ----------
    matrix : ndarray, shape (n, columns)
    scores : ndarray, shape (n, scores)
        The original's, before any transformation.
    weights : ndarray, shape (scores, columns)
        Those of the columns that are left.
    intercepts : ndarray, shape (scores,)
    importance : ndarray, shape (n,), optional
        How much a row weighs.

    Returns
    -------
    (ndarray, ndarray)
        As `weights` and `intercepts`; unchanged where nothing comes closer, or rows are too few.
    """
    count = len(matrix)
    if count < _FEWEST_ROWS:
        return weights, intercepts
    rates = np.ones(count) if importance is None else importance / importance.mean()
    # In float32: of many columns, copies in float64 would be what takes the most memory.
    matrix = np.asarray(matrix, dtype=np.float32)
    lacking = scores - matrix @ weights.T.astype(np.float32) - intercepts
    middle = (rates.astype(np.float32) @ matrix) / np.float32(count)
    centred = matrix - middle
    products = (centred @ centred.T).astype(np.float64)
    order = np.random.default_rng(_SEED).permutation(count)
    unseen, seen = order[: count // 4], order[count // 4 :]
    unit = float(np.trace(products)) / count
    if unit <= 0:  # all rows are the same
        return weights, intercepts
    rate = rates[unseen, np.newaxis]
    best, chosen = float(np.sum(rate * lacking[unseen] ** 2)), None
    for strength in _STRENGTHS:
        dual, shift = _solved(
            products[np.ix_(seen, seen)], lacking[seen], strength * unit / rates[seen]
        )
        left = lacking[unseen] - products[np.ix_(unseen, seen)] @ dual - shift
        distance = float(np.sum(rate * left**2))
        if distance < best:
            best, chosen = distance, strength
    if chosen is None:
        return weights, intercepts
    dual, shift = _solved(products, lacking, chosen * unit / rates)
    change = (centred.T @ dual.astype(np.float32)).T.astype(np.float64)
    return weights + change, intercepts + shift - change @ middle


def _solved(products: Array, lacking: Array, strengths: Array) -> tuple[Array, Array]:
    """The dual solution, and what is added to all rows; `strengths` is λ for each row."""
    shift = np.average(lacking, axis=0, weights=1.0 / strengths)
    regular = products + np.diag(strengths)
    return np.linalg.solve(regular, lacking - shift), shift


def closeness(scores: Array) -> Array:
    """How much rows weigh when scores decide on labels: more, the closer the best two are.

    Parameters
    ----------
    scores : ndarray, shape (n, scores)
    """
    if scores.shape[1] == 1:
        margin = np.abs(scores[:, 0])
    else:
        best = np.sort(scores, axis=1)
        margin = best[:, -1] - best[:, -2]
    return np.asarray(1.0 / (1.0 + margin / max(float(np.median(margin)), 1e-12)))
