"""Boosted trees as plain arrays, whatever library grew them.

The adapters of boosting libraries read their own dumps into a `Forest`; the graph
(`modelport.convert.forests.graph`) and the rows made to hurt are then the same for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from modelport.core.golden import choose_rows
from modelport.core.tensors import Array

_PROBED_TREES: Final = 40
_PROBED_ROWS: Final = 600
_DOWN_AND_UP: Final = (-np.inf, np.inf)
_MADE_UP_ROWS: Final = 64


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees whose answers add up; nodes of all trees stand in one array.

    Parameters
    ----------
    feature : ndarray of int64
        The column that a node compares; 0 in leaves.
    threshold : ndarray of float64
    left, right : ndarray of int64
        Positions of the children; -1 in leaves.
    missing_left : ndarray of bool
        Whether NaN goes left.
    value : ndarray of float64
        What a leaf adds; 0 elsewhere. Of shape ``[nodes]``, or ``[nodes, targets]`` where leaves
        add to all output columns.
    roots : ndarray of int64
        Each tree's first node.
    target : ndarray of int64
        For each tree, the output column to which it adds; unused where leaves add to all.
    targets : int
        Number of output columns.
    strict : bool
        True where rows with ``x < threshold`` go left, False for ``x <= threshold``.
    sets : mapping of int to ndarray
        Nodes at which rows go left whose category is in the set; their threshold means nothing.
    """

    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    value: Array
    roots: Array
    target: Array
    targets: int
    strict: bool
    sets: Mapping[int, Array] = field(default_factory=dict)

    @property
    def leaf(self) -> Array:
        """Which nodes are leaves."""
        return self.left < 0

    def path(self, root: int, row: Array) -> Iterator[int]:
        """The inner nodes that a row visits."""
        node = root
        while self.left[node] >= 0:
            yield node
            node = int(self.left[node] if self._goes_left(node, row) else self.right[node])

    def _goes_left(self, node: int, row: Array) -> bool:
        value = row[self.feature[node]]
        if np.isnan(value):
            return bool(self.missing_left[node])
        if node in self.sets:
            return bool(np.isin(np.trunc(value), self.sets[node]))
        threshold = self.threshold[node]
        return bool(value < threshold if self.strict else value <= threshold)


def join(trees: Sequence[Forest]) -> Forest:
    """One forest of many, each of a single tree as its library numbers it."""
    sizes = np.asarray([len(tree.feature) for tree in trees], dtype=np.int64)
    offsets = np.cumsum(sizes) - sizes

    def joined(name: str, dtype: type) -> Array:
        return np.concatenate([getattr(tree, name) for tree in trees]).astype(dtype)

    def children(name: str) -> Array:
        moved = [
            np.where(getattr(tree, name) < 0, -1, getattr(tree, name) + offset)
            for tree, offset in zip(trees, offsets, strict=True)
        ]
        return np.concatenate(moved).astype(np.int64)

    return Forest(
        feature=joined("feature", np.int64),
        threshold=joined("threshold", np.float64),
        left=children("left"),
        right=children("right"),
        missing_left=joined("missing_left", np.bool_),
        value=joined("value", np.float64),
        roots=np.concatenate([t.roots + o for t, o in zip(trees, offsets, strict=True)]),
        target=joined("target", np.int64),
        targets=trees[0].targets,
        strict=trees[0].strict,
        sets={
            node + int(offset): categories
            for tree, offset in zip(trees, offsets, strict=True)
            for node, categories in tree.sets.items()
        },
    )


def rows_next_to_thresholds(forest: Forest, matrix: Array, *, wide: bool) -> Array:
    """Rows of `matrix` with one feature moved to a threshold on the row's own path.

    Parameters
    ----------
    wide : bool
        True where the served model takes float64: then also the float64 neighbours of the
        threshold, which float32 cannot tell apart.

    Returns
    -------
    ndarray of float64, shape [n, features]
    """
    moved = []
    for position, number in enumerate(choose_rows(len(forest.roots), _PROBED_TREES)):
        row = matrix[position % len(matrix)]
        for node in forest.path(int(forest.roots[number]), row):
            if node in forest.sets:
                continue
            for value in _neighbours(float(forest.threshold[node]), wide):
                moved.append(row.copy())
                moved[-1][forest.feature[node]] = value
    if not moved:
        return np.empty((0, matrix.shape[1]))
    return np.stack(moved)[choose_rows(len(moved), _PROBED_ROWS)]


def _neighbours(threshold: float, wide: bool) -> list[float]:
    with np.errstate(over="ignore"):
        narrow = np.float32(threshold)
        values = [
            float(narrow),
            *(float(np.nextafter(narrow, np.float32(d))) for d in _DOWN_AND_UP),
        ]
    if wide:
        values += [threshold, *(float(np.nextafter(threshold, d)) for d in _DOWN_AND_UP)]
    return [value for value in values if np.isfinite(value)]


def rows_of_thresholds(forest: Forest, width: int) -> Array:
    """Made-up rows: every feature near a threshold or in a category that the trees know.

    Returns
    -------
    ndarray of float32, shape [n, width]
    """
    generator = np.random.default_rng(20261121)
    rows = np.zeros((_MADE_UP_ROWS, width), dtype=np.float32)
    inner = np.flatnonzero(~forest.leaf)
    in_sets = np.isin(inner, np.fromiter(forest.sets, dtype=np.int64, count=len(forest.sets)))
    for feature in range(width):
        thresholds = forest.threshold[inner[(forest.feature[inner] == feature) & ~in_sets]]
        if len(thresholds):
            spread = max(float(np.ptp(thresholds)), 0.1 * float(np.abs(thresholds).max()), 1e-3)
            chosen = generator.choice(thresholds, _MADE_UP_ROWS)
            rows[:, feature] = chosen + generator.normal(size=_MADE_UP_ROWS) * 0.1 * spread
            continue
        sets = [forest.sets[n] for n in inner[forest.feature[inner] == feature].tolist()]
        if sets:
            rows[:, feature] = generator.choice(np.unique(np.concatenate(sets)), _MADE_UP_ROWS)
    return rows
