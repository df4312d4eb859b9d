"""Histogram gradient boosting with categories, and with a logarithmic link.

The trees become one ``TreeEnsemble`` of ``ai.onnx.ml`` 5, which knows sets of categories.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from modelport.convert.forests.ensemble import add_forest
from modelport.convert.forests.forest import Forest, join
from modelport.convert.frameworks.sklearn.converters.writer import Writer
from modelport.core.tensors import Array


def boosted(writer: Writer) -> None:
    """`BoostedClassifier` and `BoostedRegressor`."""
    model = writer.model.model
    forest = join([
        _tree(tree, target, model.n_trees_per_iteration_)
        for step in model._predictors
        for target, tree in enumerate(step)
    ])  # fmt: skip
    if writer.dtype == np.float32:
        forest = replace(forest, threshold=_round_down(forest.threshold))
    sums = add_forest(writer, forest, writer.matrix(), str(writer.dtype))
    sums = writer.plus(sums, np.ravel(model._baseline_prediction))
    if is_classifier(model):
        probabilities = _probabilities(writer, sums, len(model.classes_))
        writer.give(writer.labels(probabilities, model.classes_), probabilities)
    elif type(model._loss.link).__name__ == "LogLink":
        writer.give(writer.add("Exp", sums))
    else:
        writer.give(sums)


def _probabilities(writer: Writer, sums: str, classes: int) -> str:
    if classes > 2:
        return str(writer.add("Softmax", sums, axis=1))
    positive = writer.add("Sigmoid", sums)
    negative = writer.plus(writer.times(positive, -1.0), 1.0)
    return str(writer.add("Concat", negative, positive, axis=1))


def _tree(predictor: Any, target: int, targets: int) -> Forest:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    return Forest(
        feature=np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64),
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]).astype(np.float64),
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        missing_left=np.where(leaf, False, nodes["missing_go_to_left"]).astype(bool),
        value=np.where(leaf, nodes["value"], 0.0),
        roots=np.zeros(1, dtype=np.int64),
        target=np.asarray([target], dtype=np.int64),
        targets=targets,
        strict=False,
        sets={
            int(node): _members(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]])
            for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf)
        },
    )


def _members(bits: Array) -> Array:
    """The categories, out of 256, whose bits are set."""
    categories = np.arange(256)
    is_set = bits[categories // 32] >> (categories % 32).astype(bits.dtype) & 1 == 1
    return np.asarray(categories[is_set])


def _round_down(thresholds: Array) -> Array:
    """See `modelport.convert.frameworks.sklearn.trees.round_down`."""
    with np.errstate(over="ignore"):
        nearest = thresholds.astype(np.float32)
        below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest.astype(np.float64) > thresholds, below, nearest)
