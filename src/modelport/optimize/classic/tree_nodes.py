"""The three operators of ``ai.onnx.ml`` that hold trees, read and written.

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
    "BRANCH_LEQ": LEQ, "BRANCH_LT": LT, "BRANCH_GTE": GTE, "BRANCH_GT": GT, "BRANCH_EQ": EQ,
    "BRANCH_NEQ": NEQ, "LEAF": LEAF,
}  # fmt: skip

_SUM: Final = ("SUM", 1)
#: Numbers of the table of votes: nodes times targets.
_MOST_VOTES: Final = 40_000_000


def read(node: onnx.NodeProto) -> Ensemble:
    """The trees of a node.

    Raises
    ------
    UnsupportedError
        When branches are shared or lead nowhere, or the trees are too many for memory.
    """
    found = {item.name.removesuffix("_as_tensor"): _value(item) for item in node.attribute}
    try:
        raw = _read_5(found) if node.op_type == "TreeEnsemble" else _read_3(found)
    except (KeyError, IndexError) as error:
        raise UnsupportedError(f"the trees of {node.op_type} cannot be read: {error}") from error
    kept, owner, _ = walk(raw.left, raw.right, raw.tree)
    if len(kept) != len(set(kept.tolist())) or (owner[kept] < 0).any():
        raise UnsupportedError("its trees share branches")
    return raw.rewired(raw.left, raw.right, raw.tree)


def write(node: onnx.NodeProto, ensemble: Ensemble) -> None:
    """Give a node other trees; what it does with their votes stays."""
    made = _write_5 if node.op_type == "TreeEnsemble" else _write_3
    attributes = made(node, ensemble)
    kept = [
        item for item in node.attribute
        if not item.name.startswith(("nodes_", "leaf_", "tree_", "membership_"))
        and item.name.removesuffix("_as_tensor") not in _votes_names(node)
    ]  # fmt: skip
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())


def _value(item: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(item)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, bytes):
        return value.decode()
    if item.type == onnx.AttributeProto.STRINGS:
        return np.asarray([text.decode() for text in value])
    return np.asarray(value) if isinstance(value, list) else value


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
    mode = np.asarray([MODES[text] for text in found["nodes_modes"].tolist()], dtype=np.uint8)

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


def _votes_names(node: onnx.NodeProto) -> tuple[str, ...]:
    prefix = "class" if node.op_type == "TreeEnsembleClassifier" else "target"
    return tuple(f"{prefix}_{part}" for part in ("ids", "nodeids", "treeids", "weights"))


def _kind(node: onnx.NodeProto, *names: str) -> np.dtype[Any]:
    """The element type in which a node holds its numbers."""
    for item in node.attribute:
        if item.name in names:
            return numpy_helper.to_array(item.t).dtype
    return np.dtype(np.float32)


def _write_3(node: onnx.NodeProto, ensemble: Ensemble) -> dict[str, Any]:
    """Hit rates, which change nothing, are left out."""
    leaf = ensemble.leaf
    number = np.arange(len(leaf)) - ensemble.roots[ensemble.tree]
    names = {value: text for text, value in MODES.items()}
    rows, columns = np.nonzero(ensemble.voted & leaf[:, np.newaxis])
    ids, nodeids, treeids, weights = _votes_names(node)
    attributes: dict[str, Any] = {
        "nodes_treeids": ensemble.tree.tolist(),
        "nodes_nodeids": number.tolist(),
        "nodes_featureids": ensemble.feature.tolist(),
        "nodes_modes": [names[mode] for mode in ensemble.mode.tolist()],
        "nodes_truenodeids": np.where(leaf, 0, number[ensemble.left]).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, number[ensemble.right]).tolist(),
        ids: columns.tolist(),
        nodeids: number[rows].tolist(),
        treeids: ensemble.tree[rows].tolist(),
    }
    if ensemble.missing_left.any():
        missing = ensemble.missing_left.astype(np.int64).tolist()
        attributes["nodes_missing_value_tracks_true"] = missing
    wide = _kind(node, "nodes_values_as_tensor")
    for name, values in {
        "nodes_values": ensemble.threshold, weights: ensemble.votes[rows, columns],
    }.items():  # fmt: skip
        if any(item.name == f"{name}_as_tensor" for item in node.attribute):
            attributes[f"{name}_as_tensor"] = numpy_helper.from_array(values.astype(wide))
        else:
            attributes[name] = values.astype(np.float32).tolist()
    return attributes


def _write_5(node: onnx.NodeProto, ensemble: Ensemble) -> dict[str, Any]:
    real = _kind(node, "nodes_splits")
    ensemble = _without_bare_leaves(ensemble)
    leaf = ensemble.leaf
    inner = np.flatnonzero(~leaf)
    number = np.where(leaf, np.cumsum(leaf), np.cumsum(~leaf)) - 1
    left, right = ensemble.left[inner], ensemble.right[inner]
    targets = np.argmax(ensemble.voted[leaf], axis=1)
    weights = np.take_along_axis(ensemble.votes[leaf], targets[:, np.newaxis], 1)[:, 0]
    members = [v for n in inner.tolist() if n in ensemble.members
               for v in (*ensemble.members[n].tolist(), np.nan)]  # fmt: skip
    missing = ensemble.missing_left[inner].astype(np.int64)
    attributes: dict[str, Any] = {
        "tree_roots": number[ensemble.roots].tolist(),
        "nodes_featureids": ensemble.feature[inner].tolist(),
        "nodes_modes": numpy_helper.from_array(ensemble.mode[inner]),
        "nodes_splits": numpy_helper.from_array(ensemble.threshold[inner].astype(real)),
        "nodes_truenodeids": number[left].tolist(),
        "nodes_falsenodeids": number[right].tolist(),
        "nodes_trueleafs": leaf[left].astype(np.int64).tolist(),
        "nodes_falseleafs": leaf[right].astype(np.int64).tolist(),
        "leaf_targetids": targets.tolist(),
        "leaf_weights": numpy_helper.from_array(weights.astype(real)),
    }
    if missing.any():
        attributes["nodes_missing_value_tracks_true"] = missing.tolist()
    if members:
        attributes["membership_values"] = numpy_helper.from_array(np.asarray(members, dtype=real))
    return attributes


def _without_bare_leaves(ensemble: Ensemble) -> Ensemble:
    """Trees that are a single leaf, as a node with two equal leaves: version 5 needs nodes."""
    bare = ensemble.roots[ensemble.leaf[ensemble.roots]]
    if not len(bare):
        return ensemble
    size, more = len(ensemble.mode), np.arange(2 * len(bare))
    copies = np.concatenate([np.arange(size), np.repeat(bare, 2)])
    left, right, mode = (
        values[copies] for values in (ensemble.left, ensemble.right, ensemble.mode)
    )
    mode[bare], left[bare], right[bare] = LEQ, size + more[::2], size + more[1::2]
    grown = Ensemble(
        tree=ensemble.tree[copies], mode=mode, feature=ensemble.feature[copies],
        threshold=ensemble.threshold[copies], left=left, right=right,
        missing_left=ensemble.missing_left[copies], votes=ensemble.votes[copies],
        voted=ensemble.voted[copies], sums=ensemble.sums, members=ensemble.members,
    )  # fmt: skip
    return grown.rewired(left, right, ensemble.roots)
