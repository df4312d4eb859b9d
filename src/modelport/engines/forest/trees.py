"""The trees of an ONNX node, in XGBoost's terms.

XGBoost knows one comparison: a row goes left when its value is less than the node's, both in
float32, and where it goes when the value is missing is said for each node. With float32 rows every
comparison of ONNX can be written so, exactly:

==================  ==========================================================
``x <= t``          ``x < next(t)``, the float32 after the last one that is at most t
``x < t``           ``x < t``, with t rounded up to float32
``x > t, x >= t``   the opposites of these, with left and right exchanged
==================  ==========================================================

NaN makes every comparison of ONNX false, unless ``nodes_missing_value_tracks_true`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array

#: The operators of ``ai.onnx.ml`` that hold trees.
OPERATORS: Final = ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble")

_MODES: Final = (
    "BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ",
    "BRANCH_MEMBER",
)  # fmt: skip
_LEAF: Final = 255
_LEQ, _LT, _GTE, _GT = range(4)
#: Numbers of the table of votes, and nodes after branches that trees share were copied.
_MOST: Final = 20_000_000
_MOST_COLUMNS: Final = 1_000_000


@dataclass(frozen=True, eq=False)
class Trees:
    """Trees, each one's nodes together, the root first and the two children of a node in a row.

    Parameters
    ----------
    tree : ndarray of int64, shape (nodes,)
        To which tree a node belongs.
    left : ndarray of int64, shape (nodes,)
        Where rows go whose value is less; the right child is the next one. -1 in leaves.
    feature : ndarray of int64, shape (nodes,)
    threshold : ndarray of float32, shape (nodes,)
    missing_left : ndarray of bool, shape (nodes,)
    votes : ndarray of float32, shape (nodes, targets)
        What leaves add.
    voted : ndarray of bool, shape (nodes, targets)
        For which targets a leaf has a vote, be it 0.
    """

    tree: Array
    left: Array
    feature: Array
    threshold: Array
    missing_left: Array
    votes: Array
    voted: Array

    @property
    def roots(self) -> Array:
        """Each tree's first node."""
        return np.flatnonzero(np.diff(self.tree, prepend=-1))

    @property
    def width(self) -> int:
        """How many columns a row has at least."""
        return int(self.feature.max(initial=0)) + 1


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node, plain: arrays, text and numbers."""
    return {item.name.removesuffix("_as_tensor"): _plain(item) for item in node.attribute}


def read_trees(node: onnx.NodeProto) -> Trees:
    """The trees of a node.

    Raises
    ------
    UnsupportedError
        When they cannot be written as XGBoost has them, or contradict themselves.
    """
    found = attributes_of(node)
    try:
        return _written(_read_5(found) if node.op_type == "TreeEnsemble" else _read_3(found))
    except (KeyError, IndexError, ValueError) as error:
        raise UnsupportedError(f"the trees of {node.op_type} cannot be read: {error}") from error


@dataclass(frozen=True, eq=False)
class _Raw:
    """As the node has them; the names are those of `Trees`."""

    roots: Array
    mode: Array
    feature: Array
    threshold: Array
    true: Array
    false: Array
    missing: Array
    votes: Array
    voted: Array


def _plain(item: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(item)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, bytes):
        return value.decode()
    if item.type == onnx.AttributeProto.STRINGS:
        return np.asarray([text.decode() for text in value], dtype=object)
    return np.asarray(value) if isinstance(value, list) else value


def _read_3(found: Mapping[str, Any]) -> _Raw:
    prefix = "class" if "class_ids" in found else "target"
    trees, numbers = found["nodes_treeids"], found["nodes_nodeids"]
    span = int(numbers.max()) + 1
    keys = trees * span + numbers
    order = np.argsort(keys, kind="stable")
    modes = {name: number for number, name in enumerate(_MODES)} | {"LEAF": _LEAF}
    mode = np.asarray([modes[text] for text in found["nodes_modes"].tolist()], dtype=np.uint8)
    leaf = mode == _LEAF

    def place(wanted: Array) -> Array:
        at = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
        if (keys[order[at]] != wanted).any():
            raise IndexError("a branch leads nowhere")
        return np.asarray(order[at])

    def children(name: str) -> Array:
        return np.where(leaf, -1, place(np.where(leaf, keys, trees * span + found[name])))

    true, false = children("nodes_truenodeids"), children("nodes_falsenodeids")
    roots = np.setdiff1d(np.arange(len(keys)), np.concatenate([true[~leaf], false[~leaf]]))
    if len(roots) != len(np.unique(trees)):
        raise IndexError("a tree has not exactly one root")
    ids = found[f"{prefix}_ids"]
    targets = int(found.get("n_targets", ids.max() + 1))
    voters = place(found[f"{prefix}_treeids"] * span + found[f"{prefix}_nodeids"])
    votes, voted = _table(len(keys), targets)
    np.add.at(votes, (voters, ids), found[f"{prefix}_weights"])
    voted[voters, ids] = True
    missing = found.get("nodes_missing_value_tracks_true", np.zeros(len(keys)))
    return _Raw(
        roots, mode, np.where(leaf, 0, found["nodes_featureids"]),
        np.where(leaf, 0.0, found["nodes_values"]), true, false, missing.astype(bool), votes, voted,
    )  # fmt: skip


def _read_5(found: Mapping[str, Any]) -> _Raw:
    """Leaves are put behind the nodes."""
    feature, weights = found["nodes_featureids"], found["leaf_weights"]
    inner, leaves = len(feature), len(weights)

    def children(side: str) -> Array:
        beyond = np.where(found[f"nodes_{side}leafs"] != 0, inner, 0)
        return padded(found[f"nodes_{side}nodeids"] + beyond, -1)

    def padded(values: Array, filler: float) -> Array:
        return np.concatenate([values, np.full(leaves, filler, dtype=values.dtype)])

    votes, voted = _table(inner + leaves, int(found["n_targets"]))
    at = np.arange(inner, inner + leaves), found["leaf_targetids"]
    votes[at], voted[at] = weights, True
    missing = found.get("nodes_missing_value_tracks_true", np.zeros(inner))
    return _Raw(
        found["tree_roots"], padded(found["nodes_modes"], _LEAF), padded(feature, 0),
        padded(found["nodes_splits"], 0.0), children("true"), children("false"),
        padded(missing, 0).astype(bool), votes, voted,
    )  # fmt: skip


def _table(nodes: int, targets: int) -> tuple[Array, Array]:
    if nodes * targets > _MOST:
        raise UnsupportedError(f"{nodes:,} nodes with {targets} targets each are too many")
    return np.zeros((nodes, targets)), np.zeros((nodes, targets), dtype=bool)


def _written(raw: _Raw) -> Trees:
    """The comparisons as XGBoost makes them."""
    leaf = raw.mode == _LEAF
    others = np.setdiff1d(raw.mode[~leaf], [_LEQ, _LT, _GTE, _GT])
    if len(others):
        name = _MODES[others[0]] if others[0] < len(_MODES) else str(others[0])
        raise UnsupportedError(f"its trees compare with {name}, which XGBoost does not")
    if not 0 <= raw.feature.min() <= raw.feature.max() < _MOST_COLUMNS:
        raise UnsupportedError(
            f"its trees compare columns {raw.feature.min()} to {raw.feature.max()}, and at most "
            f"{_MOST_COLUMNS:,} are known here"
        )
    up_to = (raw.mode == _LEQ) | (raw.mode == _GT)
    limit = np.where(up_to, neighbour(_rounded(raw.threshold, -np.inf), np.inf),
                     _rounded(raw.threshold, np.inf))  # fmt: skip
    # Nothing is beyond infinity: that every number is at most infinity is written as that none is
    # less than minus infinity, with left and right exchanged.
    always = up_to & (raw.threshold == np.inf)
    limit[always] = -np.inf
    exchanged = ((raw.mode == _GTE) | (raw.mode == _GT)) ^ always
    left = np.where(exchanged, raw.false, raw.true)
    right = np.where(exchanged, raw.true, raw.false)
    origin, tree, child = _walk(left, right, leaf, raw.roots)
    return Trees(
        tree=tree,
        left=child,
        feature=raw.feature[origin].astype(np.int64),
        threshold=limit[origin],
        missing_left=((raw.missing ^ exchanged) & ~leaf)[origin],
        votes=raw.votes[origin].astype(np.float32),
        voted=(raw.voted & leaf[:, np.newaxis])[origin],
    )


def _rounded(values: Array, towards: float) -> Array:
    """As float32, those that it does not have to the next one on one side."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    wrong = near > values if towards < 0 else near < values
    return np.where(wrong, neighbour(near, towards), near)


def neighbour(values: Array, towards: float) -> Array:
    """The next float32 on one side, which may be infinity."""
    with np.errstate(over="ignore"):
        return np.nextafter(values, np.float32(towards))


def _walk(left: Array, right: Array, leaf: Array, roots: Array) -> tuple[Array, Array, Array]:
    """Nodes as roots lead to them: which one it was, its tree, and where its children are now.

    A branch that two nodes lead to is there twice afterwards.
    """
    frontier, tree, above = np.asarray(roots), np.arange(len(roots)), np.full(len(roots), -1)
    parts, count = [], 0
    while len(frontier):
        parts.append((frontier, tree, above))
        number = count + np.arange(len(frontier))
        count += len(frontier)
        if count > _MOST:
            raise UnsupportedError("its trees lead in circles, or share too many branches")
        inner = ~leaf[frontier]
        nodes = frontier[inner]
        frontier = np.stack([left[nodes], right[nodes]], axis=1).reshape(-1)
        tree, above = np.repeat(tree[inner], 2), np.repeat(number[inner], 2)
    if not parts:
        raise UnsupportedError("it has no trees")
    origin, owner, parent = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(owner, kind="stable")
    place = np.empty(count, dtype=np.int64)
    place[order] = np.arange(count)
    parent = np.where(parent < 0, -1, place[parent])[order]
    first = np.flatnonzero(parent >= 0)[::2]
    child = np.full(count, -1, dtype=np.int64)
    child[parent[first]] = first
    return origin[order], owner[order], child
