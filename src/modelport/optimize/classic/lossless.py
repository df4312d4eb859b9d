"""Trees without what cannot change an answer.

- A comparison that an ancestor has decided already: its other branch is never reached.
- A comparison both of whose sides answer the same.
- Trees with the same comparisons throughout: their votes are added up in one of them.
- Trees that are a single leaf: its vote goes to the leaves of another tree.

Adding votes up beforehand changes rounding in the last digit, and nothing else does anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import replace

import numpy as np

from modelport.core.tensors import Array
from modelport.optimize.classic.ensemble import LEAF, LEQ, LT, Ensemble


def simplified(ensemble: Ensemble) -> Ensemble:
    """The same answers from fewer nodes."""
    ensemble = without_unreachable(ensemble)
    ensemble = without_equal_sides(ensemble)
    if not ensemble.sums:
        return ensemble
    return _without_single_leaves(with_equal_trees_added(ensemble))


def without_unreachable(ensemble: Ensemble) -> Ensemble:
    """Without comparisons whose outcome the way to them has settled, for NaN as well."""
    node = np.arange(len(ensemble.mode))
    parent = np.full(len(node), -1)
    inner = node[~ensemble.leaf]
    parent[ensemble.left[inner]] = inner
    parent[ensemble.right[inner]] = inner
    low, high = np.full(len(node), np.nan), np.full(len(node), np.nan)
    missing = np.ones(len(node), dtype=bool)
    mine = node[np.isin(ensemble.mode, (LEQ, LT))]
    below, above = mine, parent[mine]
    while (above >= 0).any():
        going = above >= 0
        mine, below, above = mine[going], below[going], above[going]
        same = (ensemble.feature[above] == ensemble.feature[mine]) & (
            ensemble.mode[above] == ensemble.mode[mine]
        )
        came_left = ensemble.left[above] == below
        limit, took = ensemble.threshold[above], ensemble.missing_left[above]
        at = mine[same & came_left]
        high[at] = np.fmin(high[at], limit[same & came_left])
        at = mine[same & ~came_left]
        low[at] = np.fmax(low[at], limit[same & ~came_left])
        missing[mine[same]] &= (took == came_left)[same]
        below, above = above, parent[above]
    nan_left, nan_right = (~missing | ensemble.missing_left), (~missing | ~ensemble.missing_left)
    with np.errstate(invalid="ignore"):
        always_left = (high <= ensemble.threshold) & nan_left & ~ensemble.leaf
        always_right = (low >= ensemble.threshold) & nan_right & ~ensemble.leaf
    stands_for = np.where(always_left, ensemble.left, np.where(always_right, ensemble.right, node))
    return _replaced(ensemble, stands_for)


def without_equal_sides(ensemble: Ensemble) -> Ensemble:
    """Without comparisons both of whose sides answer the same."""
    stands_for = np.arange(len(ensemble.mode))
    leaves = np.flatnonzero(ensemble.leaf)
    table = np.concatenate([ensemble.votes[leaves], ensemble.voted[leaves]], axis=1)
    number = np.full(len(stands_for), -1)
    number[leaves] = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
    kind = _comparisons(ensemble)
    known: dict[int, int] = {}
    size = len(stands_for)
    for nodes in ensemble.levels():
        left, right = number[ensemble.left[nodes]], number[ensemble.right[nodes]]
        same = left == right
        number[nodes[same]], stands_for[nodes[same]] = left[same], ensemble.left[nodes[same]]
        rest = nodes[~same]
        sides = zip(kind[rest].tolist(), left[~same].tolist(), right[~same].tolist(), strict=True)
        number[rest] = [
            known.setdefault((k * size + one) * size + other, len(leaves) + len(known))
            for k, one, other in sides
        ]
    return _replaced(ensemble, stands_for)


def _comparisons(ensemble: Ensemble) -> Array:
    """A number for each node, the same for the same comparison."""
    sets: dict[bytes, int] = {}
    member = np.zeros(len(ensemble.mode))
    for node, values in ensemble.members.items():
        member[node] = sets.setdefault(values.tobytes(), len(sets))
    found = np.zeros(len(ensemble.mode), dtype=np.int64)
    for values in (
        ensemble.mode, ensemble.feature, ensemble.threshold, ensemble.missing_left, member
    ):  # fmt: skip
        ranks = np.unique(values, return_inverse=True)[1].astype(np.int64)
        pairs = found * (int(ranks.max(initial=0)) + 1) + ranks
        found = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
    return found


def _replaced(ensemble: Ensemble, stands_for: Array) -> Ensemble:
    """Every node by the one that stands for it, which may be replaced itself."""
    while True:
        further = stands_for[stands_for]
        if np.array_equal(further, stands_for):
            break
        stands_for = further
    left, right = (np.where(s < 0, -1, stands_for[s]) for s in (ensemble.left, ensemble.right))
    return ensemble.rewired(left, right, stands_for[ensemble.roots])


def with_equal_trees_added(ensemble: Ensemble) -> Ensemble:
    """Trees that differ in their votes only, added up."""
    roots = ensemble.roots
    ends = np.append(roots[1:], len(ensemble.mode))
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for tree, (start, end) in enumerate(zip(roots.tolist(), ends.tolist(), strict=True)):
        groups[_shape(ensemble, start, end)].append(tree)
    if len(groups) == len(roots):
        return ensemble
    votes = ensemble.votes.copy()
    for first, *others in groups.values():
        kept = slice(roots[first], ends[first])
        for other in others:
            votes[kept] += ensemble.votes[roots[other] : ends[other]]
    kept_trees = np.sort([trees[0] for trees in groups.values()])
    return replace(ensemble, votes=votes).chosen(kept_trees)


def _shape(ensemble: Ensemble, start: int, end: int) -> Hashable:
    here = slice(start, end)
    arrays = (
        ensemble.mode, ensemble.feature, ensemble.threshold, ensemble.missing_left, ensemble.voted
    )  # fmt: skip
    places = (np.maximum(ensemble.left[here] - start, -1),
              np.maximum(ensemble.right[here] - start, -1))  # fmt: skip
    sets = tuple(
        tuple(ensemble.members[n]) for n in range(start, end) if n in ensemble.members
    ) if ensemble.members else ()  # fmt: skip
    return (*(a[here].tobytes() for a in arrays), *(p.tobytes() for p in places), sets)


def _without_single_leaves(ensemble: Ensemble) -> Ensemble:
    """Constant votes move to a tree all of whose leaves vote for the same targets."""
    roots = ensemble.roots
    single = ensemble.mode[roots] == LEAF
    if not single.any() or single.all():
        return ensemble
    throughout = np.logical_and.reduceat(
        ensemble.voted | ~ensemble.leaf[:, np.newaxis], roots, axis=0
    )
    votes, kept = ensemble.votes.copy(), np.ones(len(roots), dtype=bool)
    for tree in np.flatnonzero(single).tolist():
        wanted = ensemble.voted[roots[tree]]
        others = np.flatnonzero(~single & throughout[:, wanted].all(axis=1))
        if len(others):
            leaves = np.flatnonzero((ensemble.tree == others[0]) & ensemble.leaf)
            votes[np.ix_(leaves, np.flatnonzero(wanted))] += ensemble.votes[roots[tree], wanted]
            kept[tree] = False
    return replace(ensemble, votes=votes).chosen(np.flatnonzero(kept))
