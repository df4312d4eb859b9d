"""The three operators of ``ai.onnx.ml`` that hold trees, and what they hold.

``TreeEnsembleClassifier`` and ``TreeEnsembleRegressor`` (version 3), whose leaves vote for several
classes or targets, and ``TreeEnsemble`` (version 5), which keeps leaves apart from nodes and gives
each one target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.classic.ensemble import (
    EQ,
    GT,
    GTE,
    LEAF,
    LEQ,
    LT,
    MEMBER,
    NEQ,
    Ensemble,
    walk,
)  # fmt: skip

MODES: Final = {
    b"BRANCH_LEQ": LEQ, b"BRANCH_LT": LT, b"BRANCH_GTE": GTE, b"BRANCH_GT": GT, b"BRANCH_EQ": EQ,
    b"BRANCH_NEQ": NEQ, b"LEAF": LEAF,
}  # fmt: skip

_SUM: Final = ("SUM", 1)
#: Some 300 bytes each at the peak, with what the graph itself takes.
_MOST_NODES: Final = 4_000_000
#: Numbers of the table of votes, nodes times targets: nine bytes each.
_MOST_VOTES: Final = 30_000_000


def read(node: onnx.NodeProto) -> Ensemble:
    """The trees of a node.

    Raises
    ------
    UnsupportedError
        When branches are shared or lead nowhere, or the trees are too many for memory.
    """
    count = max((len(item.ints) for item in node.attribute), default=0)
    if count > _MOST_NODES:
        raise UnsupportedError(
            f"{count:,} nodes of trees would take more than 2 GB to change: at most {_MOST_NODES:,}"
        )
    found = {item.name.removesuffix("_as_tensor"): _value(item) for item in node.attribute}
    try:
        raw = _read_5(found) if node.op_type == "TreeEnsemble" else _read_3(found)
    except (KeyError, IndexError, ValueError) as error:
        raise UnsupportedError(f"the trees of {node.op_type} cannot be read: {error}") from error
    kept, owner, _ = walk(raw.left, raw.right, raw.tree)
    if len(kept) != len(set(kept.tolist())) or (owner[kept] < 0).any():
        raise UnsupportedError("its trees share branches")
    return raw.rewired(raw.left, raw.right, raw.tree)


def empty(node: onnx.NodeProto) -> None:
    """Take the trees out of a node that `write` will give others to: they are what is large."""
    for item in node.attribute:
        if is_of_trees(node, item):
            del item.ints[:], item.floats[:], item.strings[:]
            if item.HasField("t"):
                item.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item.t)[:0]))


def decides_alike(node: onnx.NodeProto, one: Ensemble, other: Ensemble) -> bool:
    """Whether ONNX Runtime draws the line between two labels at the same sum of votes.

    Where all votes are for one column it does at 0.5 if no vote is negative, and at 0 otherwise
    (``TreeEnsembleCommonClassifier`` in ``tree_ensemble_common.h``).
    """
    if node.op_type != "TreeEnsembleClassifier" or one.voted.any(axis=0).sum() > 1:
        return True
    return bool((one.votes < 0).any() == (other.votes < 0).any())


def is_of_trees(node: onnx.NodeProto, item: onnx.AttributeProto) -> bool:
    """Whether an attribute holds nodes or votes; others say what is done with their sums."""
    if item.name.startswith(("nodes_", "leaf_", "tree_", "membership_")):
        return True
    votes = {f"{prefix_of(node)}_{part}" for part in ("ids", "nodeids", "treeids", "weights")}
    return item.name.removesuffix("_as_tensor") in votes


def prefix_of(node: onnx.NodeProto) -> str:
    """What the columns that leaves vote for are called in the names of attributes."""
    return "class" if node.op_type == "TreeEnsembleClassifier" else "target"


def _value(item: onnx.AttributeProto) -> Any:
    """Without lists of Python's numbers where there may be millions."""
    if item.name == "nodes_modes" and item.strings:
        return np.fromiter((MODES[text] for text in item.strings), np.uint8, len(item.strings))
    if item.type == onnx.AttributeProto.INTS:
        return np.fromiter(item.ints, np.int64, len(item.ints))
    if item.type == onnx.AttributeProto.FLOATS:
        return np.fromiter(item.floats, np.float32, len(item.floats))
    value = helper.get_attribute_value(item)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value.decode() if isinstance(value, bytes) else value


def _table(nodes: int, targets: int) -> Array:
    if nodes * targets > _MOST_VOTES:
        raise UnsupportedError(f"{nodes:,} nodes with {targets} targets each are too many")
    return np.zeros((nodes, targets))


def _read_3(found: Mapping[str, Any]) -> Ensemble:
    """``tree`` holds the roots, for `read`."""
    prefix = "class" if "class_ids" in found else "target"
    trees, numbers = found["nodes_treeids"], found["nodes_nodeids"]
    width = int(numbers.max()) + 1
    keys = trees * width + numbers
    order = np.argsort(keys, kind="stable")
    mode = found["nodes_modes"]

    def place(wanted: Array) -> Array:
        at = np.searchsorted(keys, wanted, sorter=order)
        if (at >= len(keys)).any() or (keys[order[at]] != wanted).any():
            raise IndexError("a branch leads nowhere")
        return np.asarray(order[at])

    leaf = mode == LEAF

    def children(name: str) -> Array:
        return place(np.where(leaf, keys, trees * width + found[name]))

    targets = _columns(found, prefix)
    votes = _table(len(mode), targets)
    voters = place(found[f"{prefix}_treeids"] * width + found[f"{prefix}_nodeids"])
    np.add.at(votes, (voters, found[f"{prefix}_ids"]), found[f"{prefix}_weights"])
    voted = np.zeros(votes.shape, dtype=bool)
    voted[voters, found[f"{prefix}_ids"]] = True
    _, first = np.unique(trees, return_index=True)
    missing = found.get("nodes_missing_value_tracks_true", np.zeros(len(mode)))
    return Ensemble(
        tree=first,
        mode=mode,
        feature=np.where(leaf, 0, found["nodes_featureids"]),
        threshold=np.where(leaf, 0.0, found["nodes_values"].astype(np.float64)),
        left=np.where(leaf, -1, children("nodes_truenodeids")),
        right=np.where(leaf, -1, children("nodes_falsenodeids")),
        missing_left=missing.astype(bool) & ~leaf,
        votes=votes,
        voted=voted,
        sums=found.get("aggregate_function", "SUM") in _SUM,
    )


def _columns(found: Mapping[str, Any], prefix: str) -> int:
    if prefix == "target":
        return int(found.get("n_targets", found["target_ids"].max() + 1))
    return int(found["class_ids"].max()) + 1


def _read_5(found: Mapping[str, Any]) -> Ensemble:
    feature, weights = found["nodes_featureids"], found["leaf_weights"].astype(np.float64)
    inner, leaves = len(feature), len(weights)
    ends = np.full(leaves, -1)

    def children(side: str) -> Array:
        beyond = np.where(found[f"nodes_{side}leafs"] != 0, inner, 0)
        return np.concatenate([found[f"nodes_{side}nodeids"] + beyond, ends])

    def padded(values: Array, filler: float) -> Array:
        return np.concatenate([values, np.full(leaves, filler, dtype=values.dtype)])

    votes = _table(inner + leaves, int(found["n_targets"]))
    votes[np.arange(inner, inner + leaves), found["leaf_targetids"]] = weights
    voted = np.zeros(votes.shape, dtype=bool)
    voted[np.arange(inner, inner + leaves), found["leaf_targetids"]] = True
    members = np.asarray(found.get("membership_values", np.empty(0)), dtype=np.float64)
    sets = np.flatnonzero(found["nodes_modes"] == MEMBER)
    parts = np.split(members, np.flatnonzero(np.isnan(members)) + 1)[:-1]
    missing = found.get("nodes_missing_value_tracks_true", np.zeros(inner, dtype=np.int64))
    return Ensemble(
        tree=found["tree_roots"],
        mode=np.concatenate([found["nodes_modes"], np.full(leaves, LEAF)]).astype(np.uint8),
        feature=padded(feature, 0),
        threshold=padded(found["nodes_splits"].astype(np.float64), 0.0),
        left=children("true"),
        right=children("false"),
        missing_left=padded(missing, 0).astype(bool),
        votes=votes,
        voted=voted,
        sums=found.get("aggregate_function", 1) in _SUM,
        members={int(n): part[:-1] for n, part in zip(sets, parts, strict=True)},
    )
