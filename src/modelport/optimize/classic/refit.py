"""New votes that make up for the trees and splits that went.

The target is the original's own sum of votes on the calibration rows, never a label. Votes are
refitted by ridge regression around what they are, so that a leaf that few rows come to keeps its
vote (global refinement: Ren, Cao, Wei and Sun, "Global Refinement of Random Forest", CVPR 2015,
with the forest's own votes in the place of zero)::

    votes = argmin  Σ_rows (Σ_trees votes[leaf(row, tree)] - target(row))²
                    + λ Σ_leaves (votes - before)²

Conjugate gradients solve it, and end when the votes no longer come closer on a quarter of the
rows that the trial does not see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Final

import numpy as np

from modelport.core.tensors import Array
from modelport.optimize.classic.ensemble import Ensemble
from modelport.optimize.classic.shrink import Rows, are_shares

#: λ as a multiple of the number of trees: how much a leaf's vote weighs against its rows.
_STRENGTH: Final = 0.3
_STEPS: Final = 30
#: A gain on the rows held out that counts.
_WORTH: Final = 0.002
#: Steps without such a gain after which it ends.
_PATIENCE: Final = 3
_ENOUGH: Final = 1e-10
_SEED: Final = 5
_FEWEST_ROWS: Final = 40
#: Rows times trees times targets: beyond, fewer rows are fitted to.
_MOST_WORK: Final = 30_000_000


def refitted(ensemble: Ensemble, rows: Rows) -> Ensemble:
    """New votes, where they come closer to the original's sums on rows not fitted to."""
    count = min(len(rows.matrix), _MOST_WORK // (ensemble.trees * ensemble.targets))
    if count < _FEWEST_ROWS:
        return ensemble
    order = np.random.default_rng(_SEED).permutation(count)
    unseen, seen = order[: count // 4], order[count // 4 :]
    leaves = ensemble.leaves_of(rows.matrix[:count])
    votes = ensemble.votes.copy()
    for column in range(ensemble.targets):
        free = ensemble.voted[:, column]
        trees = np.unique(ensemble.tree[free])
        if len(trees):
            places = leaves[:, trees].astype(np.intp)
            left = rows.target[:count, column] - votes[:, column][places].sum(axis=1)
            steps = _steps(_changes(places[seen], left[seen], free), places[unseen], left[unseen])
            for change in islice(_changes(places, left, free), steps):
                votes[:, column] = ensemble.votes[:, column] + change
    if are_shares(ensemble):
        votes = _as_shares(votes, ensemble.votes)
    return replace(ensemble, votes=votes)


def _steps(changes: Iterator[Array], places: Array, target: Array) -> int:
    """After how many steps votes are closest on rows that the fit does not see."""
    best, chosen = float(np.sum(target**2)), 0
    for step, change in enumerate(changes, start=1):
        distance = float(np.sum((target - change[places].sum(axis=1)) ** 2))
        if distance < best * (1 - _WORTH):
            best, chosen = distance, step
        elif step >= chosen + _PATIENCE:
            break
    return chosen


def _changes(places: Array, target: Array, free: Array) -> Iterator[Array]:
    """Changes of votes, step by step: conjugate gradients on the normal equations.

    What many rows agree on comes with the first steps.
    """
    size, flat, trees = len(free), places.ravel(), places.shape[1]
    strength = _STRENGTH * trees

    def spread(values: Array) -> Array:
        found = np.bincount(flat, weights=np.repeat(values, trees), minlength=size)
        return np.asarray(found * free)

    change = np.zeros(size)
    residual = spread(target)
    direction, norm = residual, float(residual @ residual)
    stop = norm * _ENOUGH
    for _ in range(_STEPS):
        if norm <= stop:
            return
        image = spread(direction[places].sum(axis=1)) + strength * direction
        step = norm / float(direction @ image)
        change = change + step * direction
        yield change
        residual = residual - step * image
        before, norm = norm, float(residual @ residual)
        direction = residual + (norm / before) * direction


def _as_shares(votes: Array, before: Array) -> Array:
    """Votes of a forest stay shares: none is negative, and each leaf's add up to what they did."""
    votes = np.maximum(votes, 0.0)
    total = votes.sum(axis=1, keepdims=True)
    kept = np.where(total > 0, votes / np.where(total > 0, total, 1.0), 0.0)
    return np.where(total > 0, kept * before.sum(axis=1, keepdims=True), before)
