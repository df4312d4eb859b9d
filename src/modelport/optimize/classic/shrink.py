"""Fewer trees and fewer splits, chosen by what they are worth to calibration rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from modelport.core.tensors import Array
from modelport.optimize.classic.ensemble import LEAF, Ensemble

_FEWEST_SCALED: Final = 8
_FEWEST_SEEN: Final = 40
#: How far the sums of a forest's leaves may be apart, as a share of the largest.
_EVEN: Final = 1e-3
#: Rows times trees: one number each.
_MOST_PLACES: Final = 6_000_000


@dataclass(frozen=True, eq=False)
class Rows:
    """Calibration rows as the trees see them.

    Parameters
    ----------
    matrix : ndarray, shape (n, features)
    target : ndarray of float64, shape (n, targets)
        The original's sums of votes.
    """

    matrix: Array
    target: Array


def seen_by(ensemble: Ensemble, matrix: Array) -> Rows:
    """The rows, with what the trees answer; as many as memory allows."""
    matrix = matrix[: max(_MOST_PLACES // max(ensemble.trees, 1), _FEWEST_SEEN)]
    parts = np.array_split(matrix, max(1, len(matrix) * ensemble.trees // 1_000_000))
    sums = [_summed(ensemble, ensemble.leaves_of(part)) for part in parts if len(part)]
    return Rows(matrix, np.concatenate(sums))


def is_boosted(ensemble: Ensemble) -> bool:
    """Whether each tree has one target: a forest's leaves vote for all classes."""
    per_leaf = ensemble.voted[ensemble.leaf].sum(axis=1)
    return bool((per_leaf <= 1).all())


def are_shares(ensemble: Ensemble) -> bool:
    """Whether every leaf divides the same sum among several targets: a forest's probabilities."""
    sums = ensemble.votes[ensemble.leaf].sum(axis=1)
    even = np.ptp(sums) <= _EVEN * np.abs(sums).max(initial=0.0)
    return bool(not is_boosted(ensemble) and even and (ensemble.votes >= 0).all())


def round_size(ensemble: Ensemble) -> int:
    """How many trees belong together: one for each target in turn, or one."""
    targets = np.argmax(ensemble.voted[_first_leaves(ensemble)], axis=1)
    size, count = ensemble.targets, ensemble.trees
    if not is_boosted(ensemble) or size < 2 or count % size:
        return 1
    return size if np.array_equal(targets, np.tile(targets[:size], count // size)) else 1


def _first_leaves(ensemble: Ensemble) -> Array:
    leaves = np.flatnonzero(ensemble.leaf)
    return leaves[np.unique(ensemble.tree[leaves], return_index=True)[1]]


def first_trees(ensemble: Ensemble, count: int) -> Ensemble:
    """The first so many trees; where leaves vote for all classes, with more weight each."""
    part = ensemble.chosen(np.arange(count))
    if is_boosted(ensemble):
        return part
    return replace(part, votes=part.votes * (ensemble.trees / count))


def rescaled(ensemble: Ensemble, rows: Rows) -> Ensemble:
    """Votes times a number, plus one, for each target: those that come closest to the original's.

    Of boosted trees the first ones stop short of the sum; of a forest of numbers, so many trees
    give so much of it. Shares, which add up to one, stay what they are.
    """
    if len(rows.matrix) < _FEWEST_SCALED or are_shares(ensemble):
        return ensemble
    sums = _summed(ensemble, ensemble.leaves_of(rows.matrix))
    votes = ensemble.votes.copy()
    for column in range(ensemble.targets):
        trees = np.unique(ensemble.tree[ensemble.voted[:, column]])
        found, wanted = sums[:, column], rows.target[:, column]
        spread = float(np.var(found))
        if not len(trees) or spread <= 0:
            continue
        factor = float(np.mean((found - found.mean()) * (wanted - wanted.mean()))) / spread
        if factor <= 0:
            continue
        votes[:, column] *= factor
        first = (ensemble.tree == trees[0]) & ensemble.voted[:, column]
        votes[first, column] += float(wanted.mean()) - factor * float(found.mean())
    return replace(ensemble, votes=votes)


@dataclass(frozen=True, eq=False)
class Cuts:
    """What each subtree of an ensemble is worth to calibration rows.

    Parameters
    ----------
    ensemble : Ensemble
    cost : ndarray of float64, shape (nodes,)
        Squared error for each leaf that goes when a subtree becomes a leaf.
    mean : ndarray of float64, shape (nodes, targets)
        The votes that such a leaf has.
    voted : ndarray of bool, shape (nodes, targets)
    """

    ensemble: Ensemble
    cost: Array
    mean: Array
    voted: Array

    def left(self, limit: float) -> int:
        """How many nodes are left when all subtrees are cut that cost no more."""
        ensemble, total = self.ensemble, 0
        nodes = ensemble.roots
        while len(nodes):
            total += len(nodes)
            nodes = nodes[~ensemble.leaf[nodes] & (self.cost[nodes] > limit)]
            nodes = np.concatenate([ensemble.left[nodes], ensemble.right[nodes]])
        return total

    def at(self, limit: float) -> Ensemble:
        """Without these subtrees."""
        ensemble = self.ensemble
        cut = (self.cost <= limit) & ~ensemble.leaf
        wide = cut[:, np.newaxis]
        return ensemble.rewired(
            ensemble.left,
            ensemble.right,
            ensemble.roots,
            np.where(cut, LEAF, ensemble.mode).astype(np.uint8),
            np.where(wide, self.mean * self.voted, ensemble.votes),
            np.where(wide, self.voted, ensemble.voted),
        )


def cuts_of(ensemble: Ensemble, rows: Rows) -> Cuts:
    """What subtrees are worth.

    A subtree becomes a leaf with the mean vote of its rows (Breiman, Friedman, Olshen and Stone,
    "Classification and Regression Trees", 1984, section 3.3).
    """
    counts, sums, squares = _statistics(ensemble, rows)
    mean = sums / np.maximum(counts, 1e-9)[:, np.newaxis]
    error = np.maximum((squares - counts[:, np.newaxis] * mean**2).sum(axis=1), 0.0)
    below = _leaves_below(ensemble)
    cost = np.where(ensemble.leaf, np.inf, error / np.maximum(below - 1, 1))
    return Cuts(ensemble, cost, mean, _voted_below(ensemble))


def with_fewer_splits(cuts: Cuts, share: float) -> Ensemble:
    """Without the subtrees that matter least to the calibration rows.

    Parameters
    ----------
    share : float
        Of the nodes, about: those subtrees go whose cost is below the least limit that leaves no
        more.
    """
    levels = np.unique(cuts.cost[np.isfinite(cuts.cost)])
    if not len(levels):
        return cuts.ensemble
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        if cuts.left(levels[middle]) > share * len(cuts.ensemble.mode):
            low = middle + 1
        else:
            high = middle
    return cuts.at(levels[low])


def _statistics(ensemble: Ensemble, rows: Rows) -> tuple[Array, Array, Array]:
    """Per node: rows that come to it, the sum of their votes and of its squares.

    A leaf to which none comes counts as a thousandth of a row, so that means are always there.
    """
    leaves = ensemble.leaves_of(rows.matrix)
    counts = np.bincount(leaves.ravel(), minlength=len(ensemble.mode)).astype(np.float64)
    counts = np.where(ensemble.leaf, np.maximum(counts, 1e-3), 0.0)
    sums = counts[:, np.newaxis] * ensemble.votes
    squares = counts[:, np.newaxis] * ensemble.votes**2
    for nodes in ensemble.levels():
        for table in (counts, sums, squares):
            table[nodes] = table[ensemble.left[nodes]] + table[ensemble.right[nodes]]
    return counts, sums, squares


def _leaves_below(ensemble: Ensemble) -> Array:
    below = ensemble.leaf.astype(np.int64)
    for nodes in ensemble.levels():
        below[nodes] = below[ensemble.left[nodes]] + below[ensemble.right[nodes]]
    return below


def _voted_below(ensemble: Ensemble) -> Array:
    voted = ensemble.voted.copy()
    for nodes in ensemble.levels():
        voted[nodes] = voted[ensemble.left[nodes]] | voted[ensemble.right[nodes]]
    return voted


def _summed(ensemble: Ensemble, leaves: Array) -> Array:
    sums = np.zeros((len(leaves), ensemble.targets))
    for column in range(ensemble.targets):
        sums[:, column] = ensemble.votes[:, column][leaves].sum(axis=1)
    return sums
