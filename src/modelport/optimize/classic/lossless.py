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
    known: dict[Hashable, int] = {}
    after = len(leaves)
    for nodes in ensemble.levels():
        for node in nodes.tolist():
            left, right = number[ensemble.left[node]], number[ensemble.right[node]]
            if left == right:
                number[node], stands_for[node] = left, ensemble.left[node]
                continue
            key = (
                ensemble.mode[node], ensemble.feature[node], ensemble.threshold[node],
                ensemble.missing_left[node], left, right,
                tuple(ensemble.members.get(node, ())),
            )  # fmt: skip
            number[node] = known.setdefault(key, after + len(known))
    return _replaced(ensemble, stands_for)


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
    votes, kept = ensemble.votes.copy(), np.ones(len(roots), dtype=bool)
    for tree in np.flatnonzero(single).tolist():
        wanted = ensemble.voted[roots[tree]]
        for other in np.flatnonzero(~single).tolist():
            leaves = np.flatnonzero((ensemble.tree == other) & ensemble.leaf)
            if ensemble.voted[leaves][:, wanted].all():
                votes[np.ix_(leaves, np.flatnonzero(wanted))] += ensemble.votes[roots[tree], wanted]
                kept[tree] = False
                break
    return replace(ensemble, votes=votes).chosen(np.flatnonzero(kept))
