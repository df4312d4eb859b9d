"""Forests of classifiers, so that their ties stay ties.

skl2onnx gives every leaf its share divided by the number of trees, in float32: ten votes of twenty
then add up to a little more than a half, and the label flips where scikit-learn sees a tie, one
row in a hundred of small forests. Whole votes add up exactly, in any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelport.convert.graphs import edits as graphs
from modelport.core.tensors import Array


def shares_of(trees: list[Any]) -> Array | None:
    """The share of each class in every node of fitted trees; None for several outputs at once."""
    values = [tree.__getstate__()["values"] for tree in trees]
    if any(array.shape[1] != 1 for array in values):
        return None
    shares = np.concatenate(values)[:, 0, :]
    # Before scikit-learn 1.3 they are counts.
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def count_votes(graph: onnx.GraphProto, node: onnx.NodeProto, shares: Array, dtype: str) -> None:
    """Let a ``TreeEnsembleClassifier`` add up shares, and divide and choose behind it.

    Parameters
    ----------
    shares : ndarray of float, shape [nodes, classes]
        In the order of the node's own lists.
    dtype : str
        Element type of the graph's numbers; the votes are cast to it.
    """
    found = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    trees, numbers, modes = (
        np.asarray(found[f"nodes_{name}"]) for name in ("treeids", "nodeids", "modes")
    )
    rows, targets = np.nonzero(shares * (modes == b"LEAF")[:, np.newaxis])
    label, probabilities = node.output
    names = {n: f"{probabilities}__{n}" for n in ("votes", "trees", "best", "classes")}
    classes = np.asarray(found.get("classlabels_int64s") or found["classlabels_strings"])
    graphs.drop_attributes(node, [name for name in found if name.startswith("class")])
    node.op_type = "TreeEnsembleRegressor"
    node.output[:] = [names["votes"]]
    for name, value in {
        "n_targets": shares.shape[1],
        "target_ids": targets.tolist(),
        "target_nodeids": numbers[rows].tolist(),
        "target_treeids": trees[rows].tolist(),
        "target_weights": shares[rows, targets].astype(np.float32).tolist(),
    }.items():
        graphs.set_attribute(node, name, value)
    count = np.asarray(len(np.unique(trees)), dtype=dtype)
    words = classes.astype(object) if classes.dtype.kind == "S" else classes
    for name, array in (("trees", count), ("classes", words)):
        graph.initializer.append(numpy_helper.from_array(array, names[name]))
    graph.node.extend(
        [
            helper.make_node("Div", [names["votes"], names["trees"]], [probabilities]),
            helper.make_node("ArgMax", [names["votes"]], [names["best"]], axis=1, keepdims=0),
            helper.make_node("Gather", [names["classes"], names["best"]], [label], axis=0),
        ]
    )
