"""Tree ensembles of ONNX graphs as plain arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array

#: How a node compares, as version 5 of ``TreeEnsemble`` numbers it; `LEAF` is ours.
LEQ, LT, GTE, GT, EQ, NEQ, MEMBER, LEAF = 0, 1, 2, 3, 4, 5, 6, 255

#: The operators that hold trees.
OPERATORS: Final = ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble")


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trees; each one's nodes stand together, parents before their children.

    Parameters
    ----------
    tree : ndarray of int64, shape (nodes,)
        To which tree a node belongs.
    mode : ndarray of uint8, shape (nodes,)
    feature : ndarray of int64, shape (nodes,)
    threshold : ndarray of float64, shape (nodes,)
    left, right : ndarray of int64, shape (nodes,)
        Where rows go for which the comparison is true, and false; -1 in leaves.
    missing_left : ndarray of bool, shape (nodes,)
        Whether NaN goes left whatever the comparison says.
    votes : ndarray of float64, shape (nodes, targets)
        What leaves add.
    voted : ndarray of bool, shape (nodes, targets)
        For which targets a leaf has a vote, be it 0.
    sums : bool
        Whether votes are added up; otherwise their mean, least or largest is the answer.
    members : mapping of int to ndarray
        Categories of the nodes whose mode is `MEMBER`.
    """

    tree: Array
    mode: Array
    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    votes: Array
    voted: Array
    sums: bool = True
    members: Mapping[int, Array] = field(default_factory=dict)

    @property
    def leaf(self) -> Array:
        """Which nodes are leaves."""
        return np.asarray(self.mode == LEAF)

    @property
    def roots(self) -> Array:
        """Each tree's first node."""
        return np.flatnonzero(np.diff(self.tree, prepend=-1))

    @property
    def trees(self) -> int:
        """How many trees."""
        return int(self.tree[-1]) + 1 if len(self.tree) else 0

    @property
    def targets(self) -> int:
        """How many columns the answer has."""
        return int(self.votes.shape[1])

    def rewired(
        self,
        left: Array,
        right: Array,
        roots: Array,
        mode: Array | None = None,
        votes: Array | None = None,
        voted: Array | None = None,
    ) -> Ensemble:
        """The same nodes with other children and roots, without those that no root leads to."""
        mode = self.mode if mode is None else mode
        ends = mode == LEAF
        left, right = np.where(ends, -1, left), np.where(ends, -1, right)
        kept, owner, depth = walk(left, right, roots)
        order = kept[np.lexsort((kept, depth[kept], owner[kept]))]
        place = np.full(len(mode) + 1, -1)
        place[order] = np.arange(len(order))
        return Ensemble(
            tree=owner[order],
            mode=mode[order],
            feature=np.where(ends, 0, self.feature)[order],
            threshold=np.where(ends, 0.0, self.threshold)[order],
            left=place[left[order]],
            right=place[right[order]],
            missing_left=(self.missing_left & ~ends)[order],
            votes=(self.votes if votes is None else votes)[order],
            voted=(self.voted if voted is None else voted)[order],
            sums=self.sums,
            members={
                int(place[node]): values
                for node, values in self.members.items()
                if place[node] >= 0 and mode[node] == MEMBER
            },
        )

    def chosen(self, trees: Array) -> Ensemble:
        """Some of the trees, in this order."""
        return self.rewired(self.left, self.right, self.roots[trees])

    def levels(self) -> Iterator[Array]:
        """Inner nodes, the deepest first; all whose children have been given before."""
        found, frontier = [], self.roots
        while len(frontier):
            inner = frontier[~self.leaf[frontier]]
            found.append(inner)
            frontier = np.concatenate([self.left[inner], self.right[inner]])
        yield from reversed(found)

    def leaves_of(self, matrix: Array) -> Array:
        """The leaf that each row comes to in each tree.

        Parameters
        ----------
        matrix : ndarray of float32 or float64, shape (n, features)

        Returns
        -------
        ndarray of int32, shape (n, trees)
        """
        at = np.repeat(self.roots[np.newaxis].astype(np.int32), len(matrix), axis=0)
        rows = np.arange(len(matrix))[:, np.newaxis]
        while True:
            moving = np.nonzero(~self.leaf[at])
            if not len(moving[0]):
                return at
            nodes = at[moving]
            values = matrix[rows[moving[0], 0], self.feature[nodes]]
            goes = self._goes_left(nodes, values)
            at[moving] = np.where(goes, self.left[nodes], self.right[nodes])

    def _goes_left(self, nodes: Array, values: Array) -> Array:
        limit, mode = self.threshold[nodes], self.mode[nodes]
        with np.errstate(invalid="ignore"):
            goes = np.select(
                [mode == LEQ, mode == LT, mode == GTE, mode == GT, mode == EQ, mode == NEQ],
                [values <= limit, values < limit, values >= limit, values > limit,
                 values == limit, values != limit],
                default=False,
            )  # fmt: skip
        for node in np.unique(nodes[mode == MEMBER]).tolist():
            here = nodes == node
            goes[here] = np.isin(values[here], self.members[node])
        return np.asarray(goes | (self.missing_left[nodes] & np.isnan(values)))


def walk(left: Array, right: Array, roots: Array) -> tuple[Array, Array, Array]:
    """Nodes that roots lead to, each one's tree, and its depth.

    Raises
    ------
    UnsupportedError
        When two branches lead to the same node.
    """
    owner = np.full(len(left), -1, dtype=np.int64)
    depth = np.zeros(len(left), dtype=np.int64)
    frontier, mine, level = np.asarray(roots), np.arange(len(roots)), 0
    parts, total = [], 0
    while len(frontier):
        owner[frontier], depth[frontier] = mine, level
        parts.append(frontier)
        total += len(frontier)
        if total > len(left):
            raise UnsupportedError("its trees share branches")
        inner = left[frontier] >= 0
        mine = np.concatenate([mine[inner], mine[inner]])
        frontier = np.concatenate([left[frontier[inner]], right[frontier[inner]]])
        level += 1
    return np.concatenate(parts) if parts else np.empty(0, np.int64), owner, depth
