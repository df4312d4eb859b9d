"""Trees as ONNX operators.

``TreeEnsemble`` of ``ai.onnx.ml`` 5 keeps leaves apart from nodes. In ONNX Runtime 1.31 it loads
three times as fast as ``TreeEnsembleRegressor`` of version 3 (0.17 s against 0.52 s for 1000 trees
of depth 8), its file is less than half as large, it runs as fast, and it alone gives float64 sums
for float64 inputs. But its load takes time for each tree times all nodes: of thousands of small
trees (3000 of depth 5: 53 ms against 20 ms) version 3 loads faster.

Version 3 is also for leaves that add to several outputs at once, for which version 5 would need a
tree each, and for graphs that hold other operators of version 3.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelport.convert.forests.forest import Forest
from modelport.convert.graphs import edits as graphs
from modelport.core.tensors import Array

# Modes of a node, as version 5 numbers them.
_LEQ, _LT, _MEMBER = 0, 1, 6
_SUM: Final = 1
#: Beyond so many trees version 3 loads faster, whatever their size.
_MANY_TREES: Final = 1000
_DOMAIN: Final = "ai.onnx.ml"


class NodeWriter(Protocol):
    """What takes nodes: a `modelport.convert.forests.graph.GraphBuilder`, say."""

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        ...


def add_forest(
    builder: NodeWriter, forest: Forest, matrix: str, dtype: str, *, version_3: bool = False
) -> str:
    """Sum the trees' answers.

    Parameters
    ----------
    matrix : str
        Tensor of shape ``[N, features]``.
    dtype : str
        Its element type; the sums have the same.
    version_3 : bool
        Whether the graph's ``ai.onnx.ml`` may be of version 3, where that loads faster.

    Returns
    -------
    str
        Tensor of shape ``[N, targets]``.
    """
    many = version_3 and len(forest.roots) > _MANY_TREES and not forest.sets
    if forest.value.ndim == 1 and not (many and dtype == "float32"):
        return builder.add("TreeEnsemble", matrix, domain=_DOMAIN, **_version_5(forest, dtype))
    attributes = _version_3(forest, dtype)
    sums = builder.add("TreeEnsembleRegressor", matrix, domain=_DOMAIN, **attributes)
    # It adds up in the type of its input, and answers in float32 whatever that is.
    if dtype == "float32":
        return sums
    return builder.add("Cast", sums, to=graphs.ELEMENT_TYPES[dtype])


def lower_trees(graph: onnx.GraphProto) -> None:
    """Write every ``TreeEnsemble`` of a graph as the operator of version 3; it may leave casts."""
    for node in [n for n in graph.node if n.op_type == "TreeEnsemble"]:
        forest, dtype = _read(node)
        output = node.output[0]
        del node.attribute[:]
        node.op_type = "TreeEnsembleRegressor"
        for name, value in _version_3(forest, dtype).items():
            graphs.set_attribute(node, name, value)
        if dtype != "float32":
            node.output[0] = f"{output}__float32"
            to = graphs.ELEMENT_TYPES[dtype]
            graph.node.append(helper.make_node("Cast", [node.output[0]], [output], to=to))


def _version_5(forest: Forest, dtype: str) -> dict[str, Any]:
    """Attributes of ``TreeEnsemble``."""
    real = np.dtype(dtype)
    forest = _without_bare_leaves(forest)
    leaf = forest.leaf
    inner = np.flatnonzero(~leaf)
    number = np.where(leaf, np.cumsum(leaf), np.cumsum(~leaf)) - 1
    left, right = forest.left[inner], forest.right[inner]
    modes = np.full(len(forest.feature), _LT if forest.strict else _LEQ, dtype=np.uint8)
    modes[list(forest.sets)] = _MEMBER
    members = _members(forest, inner, real)
    tree_of_leaf = np.searchsorted(forest.roots, np.flatnonzero(leaf), side="right") - 1
    return {
        "aggregate_function": _SUM,
        "post_transform": 0,
        "n_targets": forest.targets,
        "tree_roots": number[forest.roots].tolist(),
        "nodes_featureids": forest.feature[inner].tolist(),
        "nodes_modes": numpy_helper.from_array(modes[inner]),
        "nodes_splits": numpy_helper.from_array(_finite(forest.threshold[inner], real)),
        "nodes_truenodeids": number[left].tolist(),
        "nodes_falsenodeids": number[right].tolist(),
        "nodes_trueleafs": leaf[left].astype(np.int64).tolist(),
        "nodes_falseleafs": leaf[right].astype(np.int64).tolist(),
        "nodes_missing_value_tracks_true": forest.missing_left[inner].astype(np.int64).tolist(),
        "leaf_targetids": forest.target[tree_of_leaf].tolist(),
        "leaf_weights": numpy_helper.from_array(forest.value[leaf].astype(real)),
        **({"membership_values": numpy_helper.from_array(members)} if len(members) else {}),
    }


def _finite(thresholds: Array, real: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):
        return thresholds.astype(real)


def _read(node: onnx.NodeProto) -> tuple[Forest, str]:
    """The inverse of `_version_5`: the trees and their element type."""
    found: dict[str, Any] = {}
    for item in node.attribute:
        value = helper.get_attribute_value(item)
        tensor = isinstance(value, onnx.TensorProto)
        found[item.name] = numpy_helper.to_array(value) if tensor else np.asarray(value)
    feature, splits = found["nodes_featureids"], found["nodes_splits"].astype(np.float64)
    weights = found["leaf_weights"].astype(np.float64)
    inner, leaves = len(feature), len(weights)

    def children(side: str) -> Array:
        places = found[f"nodes_{side}nodeids"] + np.where(found[f"nodes_{side}leafs"], inner, 0)
        return np.concatenate([places, np.full(leaves, -1)])

    members = found.get("membership_values", np.empty(0)).astype(np.float64)
    ends = np.flatnonzero(np.isnan(members))
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    roots = found["tree_roots"]
    trees = np.searchsorted(roots, np.arange(inner), side="right") - 1
    left, right = children("true"), children("false")
    owner = np.zeros(inner + leaves, dtype=np.int64)
    owner[:inner] = trees
    for side in (left[:inner], right[:inner]):
        owner[side] = trees
    # Leaves stand behind all nodes; each tree needs its own beside it.
    order = np.argsort(owner, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))

    def moved(values: Array, filler: float) -> Array:
        return np.concatenate([values, np.full(leaves, filler)])[order]

    targets = np.zeros(len(roots), dtype=np.int64)
    targets[owner[inner:]] = found["leaf_targetids"]
    sets = np.flatnonzero(found["nodes_modes"] == _MEMBER)
    forest = Forest(
        feature=moved(feature, 0).astype(np.int64),
        threshold=moved(splits, 0.0),
        left=np.where(left < 0, -1, place[left])[order],
        right=np.where(right < 0, -1, place[right])[order],
        missing_left=moved(found["nodes_missing_value_tracks_true"], 0).astype(np.bool_),
        value=np.concatenate([np.zeros(inner), weights])[order],
        roots=place[roots],
        target=targets,
        targets=int(found["n_targets"]),
        strict=bool((found["nodes_modes"] == _LT).any()),
        sets={
            int(place[node]): members[start:end].astype(np.int64)
            for node, start, end in zip(sets, starts, ends, strict=True)
        },
    )
    return forest, found["leaf_weights"].dtype.name


def _version_3(forest: Forest, dtype: str) -> dict[str, Any]:
    """Attributes of ``TreeEnsembleRegressor``; a set becomes a chain of comparisons."""
    forest = _with_chains(forest)
    leaf = forest.leaf
    ends = np.append(forest.roots[1:], len(leaf))
    tree = np.repeat(np.arange(len(forest.roots)), ends - forest.roots)
    number = np.arange(len(leaf)) - forest.roots[tree]
    compare = "BRANCH_LT" if forest.strict else "BRANCH_LEQ"
    modes = np.where(leaf, "LEAF", compare).astype(object)
    modes[list(forest.sets)] = "BRANCH_EQ"
    if forest.value.ndim == 1:
        rows, targets = np.flatnonzero(leaf), forest.target[tree[leaf]]
        weights = forest.value[leaf]
    else:
        rows = np.repeat(np.flatnonzero(leaf), forest.targets)
        targets = np.tile(np.arange(forest.targets), int(leaf.sum()))
        weights = forest.value[leaf].reshape(-1)
    real = np.dtype(dtype)
    attributes: dict[str, Any] = {
        "n_targets": forest.targets,
        "nodes_treeids": tree.tolist(),
        "nodes_nodeids": number.tolist(),
        "nodes_featureids": forest.feature.tolist(),
        "nodes_modes": modes.tolist(),
        "nodes_truenodeids": np.where(leaf, 0, number[forest.left]).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, number[forest.right]).tolist(),
        "nodes_missing_value_tracks_true": forest.missing_left.astype(np.int64).tolist(),
        "target_ids": targets.tolist(),
        "target_nodeids": number[rows].tolist(),
        "target_treeids": tree[rows].tolist(),
    }
    numbers = {"nodes_values": _finite(forest.threshold, real), "target_weights": weights}
    for name, values in numbers.items():
        if dtype == "float32":
            attributes[name] = values.astype(np.float32).tolist()
        else:
            attributes[f"{name}_as_tensor"] = numpy_helper.from_array(values.astype(real))
    return attributes


def _with_chains(forest: Forest) -> Forest:
    """Every set as comparisons with one category each, all of which lead to the same child."""
    if not forest.sets:
        return forest
    count = np.ones(len(forest.feature), dtype=np.int64)
    for node, members in forest.sets.items():
        count[node] = max(len(members), 1)
    start = np.cumsum(count) - count
    old = np.repeat(np.arange(len(count)), count)
    last = start + count - 1
    grown = _spread(forest, start, old)
    right, threshold = grown.right.copy(), grown.threshold.copy()
    missing_left = grown.missing_left.copy()
    sets: dict[int, Array] = {}
    for node, members in forest.sets.items():
        links = np.arange(start[node], last[node] + 1)
        right[links[:-1]] = links[1:]
        threshold[links] = members if len(members) else -1.0
        missing_left[links[1:]] = missing_left[links[0]]
        sets |= {int(link): members for link in links}
    return replace(grown, right=right, threshold=threshold, missing_left=missing_left, sets=sets)


def _spread(forest: Forest, start: Array, old: Array) -> Forest:
    """Repeat nodes; children and roots are the first of those that a node has become."""
    left, right = (np.where(side < 0, -1, start[side])[old] for side in (forest.left, forest.right))
    return replace(
        forest,
        feature=forest.feature[old],
        threshold=forest.threshold[old],
        left=left,
        right=right,
        missing_left=forest.missing_left[old],
        value=forest.value[old],
        roots=start[forest.roots],
        sets={int(start[node]): members for node, members in forest.sets.items()},
    )


def _members(forest: Forest, inner: Array, real: np.dtype[Any]) -> Array:
    """The categories of every set in node order, with NaN after each set."""
    sets = [forest.sets[node] for node in inner.tolist() if node in forest.sets]
    return np.asarray([v for members in sets for v in (*members.tolist(), np.nan)], dtype=real)


def _without_bare_leaves(forest: Forest) -> Forest:
    """Trees that are a single leaf, as a node with two equal leaves: the operator needs nodes."""
    bare = forest.leaf[forest.roots]
    if not bare.any():
        return forest
    # Each bare root is followed by its two leaves.
    count = np.ones(len(forest.feature), dtype=np.int64)
    count[forest.roots[bare]] = 3
    start = np.cumsum(count) - count
    grown = _spread(forest, start, np.repeat(np.arange(len(count)), count))
    left, right, added = grown.left.copy(), grown.right.copy(), start[forest.roots[bare]]
    left[added], right[added] = added + 1, added + 2
    return replace(grown, left=left, right=right)
