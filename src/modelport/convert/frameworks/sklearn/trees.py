"""Decision trees: exact thresholds, and rows that stand next to them.

scikit-learn compares float32 values with float64 thresholds (histogram gradient boosting:
float64 with float64); ONNX compares float32 with float32. ``x <= t`` stays true for exactly the
same float32 ``x`` when ``t`` is rounded down to float32, and only then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import KBinsDiscretizer

from modelport.convert.frameworks.sklearn.converters.standins import (
    BoostedClassifier,
    BoostedRegressor,
)
from modelport.convert.frameworks.sklearn.nested import estimators_in
from modelport.convert.frameworks.sklearn.votes import count_votes, shares_of
from modelport.convert.graphs import edits as graphs
from modelport.core.golden import choose_rows
from modelport.core.tensors import Array

_WEIGHTS: Final = ("class_weights", "target_weights", "base_values")
_OPERATORS: Final = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
_STAND_INS: Final = (BoostedClassifier, BoostedRegressor)
_DOWN_AND_UP: Final = np.asarray([-np.inf, np.inf], dtype=np.float32)
_PROBED_TREES: Final = 40
_PROBED_ROWS: Final = 600


@dataclass(frozen=True, eq=False)
class Tree:
    """One fitted tree, as arrays by node.

    Parameters
    ----------
    feature, left, right : ndarray of int
        Feature compared and children; all 0 in leaves.
    threshold : ndarray of float64
        Rows with ``x[feature] <= threshold`` go left.
    leaf, missing_left : ndarray of bool
    """

    feature: Array
    threshold: Array
    left: Array
    right: Array
    leaf: Array
    missing_left: Array


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trees that one ONNX node holds.

    Parameters
    ----------
    trees : tuple of Tree
    wide : bool
        Whether values are compared in float64.
    shares : ndarray or None
        Of forests of classifiers: see `modelport.convert.frameworks.sklearn.votes`.
    """

    trees: tuple[Tree, ...]
    wide: bool
    shares: Array | None = None

    def joined(self, field: str) -> Array:
        """One array over the nodes of all trees."""
        return np.concatenate([getattr(tree, field) for tree in self.trees])


def ensembles_in(model: Any) -> list[Ensemble]:
    """Every ensemble and every single tree in the model."""
    found = []
    beyond = [e.model for e in estimators_in(model) if isinstance(e, _STAND_INS)]
    for estimator in estimators_in(model):
        if any(estimator is other for other in beyond):
            continue
        if hasattr(estimator, "_predictors"):
            trees = tuple(_histogram_tree(t) for step in estimator._predictors for t in step)
            found.append(Ensemble(trees, wide=True))
        elif hasattr(estimator, "tree_"):
            found.append(Ensemble((_tree(estimator.tree_),), wide=False))
        else:
            members = _members(estimator)
            if members:
                votes = isinstance(estimator, RandomForestClassifier | ExtraTreesClassifier)
                shares = shares_of([m.tree_ for m in members]) if votes else None
                found.append(Ensemble(tuple(_tree(m.tree_) for m in members), False, shares))
    return found


def _members(estimator: Any) -> list[Any]:
    """The fitted trees of an ensemble; none where it holds something else as well."""
    members = getattr(estimator, "estimators_", ())
    members = list(members.ravel() if isinstance(members, np.ndarray) else members)
    return members if all(hasattr(member, "tree_") for member in members) else []


def trees_in(model: Any) -> list[Tree]:
    """Every tree once, its features numbered as the columns that its ensemble takes."""
    trees: list[Tree] = []
    done: set[int] = set()
    for estimator in estimators_in(model):
        if getattr(estimator, "_preprocessor", None) is not None:
            continue  # it sees encoded categories
        if hasattr(estimator, "_predictors"):
            trees += [_histogram_tree(t) for step in estimator._predictors for t in step]
        elif hasattr(estimator, "tree_") and id(estimator) not in done:
            trees.append(_tree(estimator.tree_))
        members = _members(estimator)
        subsets = getattr(estimator, "estimators_features_", [None] * len(members))[: len(members)]
        for member, subset in zip(members, subsets, strict=True):
            done.add(id(member))
            tree = _tree(member.tree_)
            if subset is not None:
                tree = replace(tree, feature=np.asarray(subset)[tree.feature])
            trees.append(tree)
    return trees


def compares_wide(model: Any) -> bool:
    """Whether thresholds meet float64 numbers: rows as they are, or what steps make of them.

    Trees other than those of histograms round their rows to float32 themselves.
    """
    parts = list(estimators_in(model))
    if any(hasattr(part, "_predictors") or isinstance(part, KBinsDiscretizer) for part in parts):
        return True
    steps = any(isinstance(part, Pipeline | ColumnTransformer) for part in parts)
    return steps and any(hasattr(part, "tree_") for part in parts)


def _tree(tree: Any) -> Tree:
    nodes = tree.__getstate__()["nodes"]
    leaf = nodes["left_child"] == -1
    return _masked(
        nodes["feature"],
        nodes["threshold"],
        nodes["left_child"],
        nodes["right_child"],
        leaf,
        # scikit-learn before 1.3 knows no missing values.
        nodes["missing_go_to_left"] if "missing_go_to_left" in nodes.dtype.names else leaf,
    )


def _histogram_tree(predictor: Any) -> Tree:
    nodes = predictor.nodes
    return _masked(nodes["feature_idx"], nodes["num_threshold"], nodes["left"], nodes["right"],
                   nodes["is_leaf"], nodes["missing_go_to_left"])  # fmt: skip


def _masked(feature: Any, threshold: Any, left: Any, right: Any, leaf: Any, missing: Any) -> Tree:
    leaf = leaf.astype(bool)
    return Tree(
        feature=np.where(leaf, 0, feature).astype(np.int64),
        threshold=np.where(leaf, 0.0, threshold).astype(np.float64),
        left=np.where(leaf, 0, left).astype(np.int64),
        right=np.where(leaf, 0, right).astype(np.int64),
        leaf=leaf,
        missing_left=np.where(leaf, False, missing).astype(bool),
    )


def round_down(values: Array) -> Array:
    """The largest float32 numbers that are not above `values`."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
        below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest.astype(np.float64) > values, below, nearest)


def refine(graph: onnx.GraphProto, ensembles: Sequence[Ensemble], *, wide: bool) -> None:
    """Give every tree node of the graph exact thresholds, and the branches for NaN.

    Parameters
    ----------
    wide : bool
        True for a graph whose inputs are float64. Trees that scikit-learn evaluates in float32
        then get a cast before them; the others get float64 thresholds.
    """
    waiting = list(ensembles)
    for node in [n for n in graph.node if n.op_type in _OPERATORS]:
        ensemble = _matching(node, waiting)
        if ensemble is not None:
            _set_branches(node, ensemble)
            if ensemble.shares is not None and node.op_type == "TreeEnsembleClassifier":
                count_votes(graph, node, ensemble.shares, "float64" if wide else "float32")
        if wide:
            if ensemble is not None and ensemble.wide:
                _widen(node, ensemble)
            else:
                _narrow(graph, node)
            # ONNX gives the answer of a tree as float32 whatever it takes.
            graphs.insert_casts(graph, [node.output[-1]], "float64")


def _matching(node: onnx.NodeProto, waiting: list[Ensemble]) -> Ensemble | None:
    """Which ensemble a node was made of: same nodes, features, and thresholds but for rounding."""
    features = np.asarray(_numbers(node, "nodes_featureids"), dtype=np.int64)
    values = np.asarray(_numbers(node, "nodes_values"), dtype=np.float32)
    for ensemble in waiting:
        if not np.array_equal(ensemble.joined("feature"), features):
            continue
        exact = round_down(ensemble.joined("threshold"))
        with np.errstate(over="ignore"):
            above = np.nextafter(exact, np.float32(np.inf))
        if np.all((values == exact) | (values == above)):
            waiting.remove(ensemble)
            return ensemble
    return None


def _numbers(node: onnx.NodeProto, name: str) -> Iterable[float]:
    found = graphs.attribute(node, name)
    return (found.ints or found.floats) if found is not None else ()


def _set_branches(node: onnx.NodeProto, ensemble: Ensemble) -> None:
    graphs.set_attribute(node, "nodes_values", round_down(ensemble.joined("threshold")).tolist())
    missing = ensemble.joined("missing_left").astype(np.int64)
    graphs.set_attribute(node, "nodes_missing_value_tracks_true", missing.tolist())


def _widen(node: onnx.NodeProto, ensemble: Ensemble) -> None:
    """Compare in float64: all its numbers must then be float64 tensors."""
    tensors = {"nodes_values": ensemble.joined("threshold")}
    for name in _WEIGHTS:
        if graphs.attribute(node, name) is not None:
            tensors[name] = np.asarray(_numbers(node, name), dtype=np.float64)
    graphs.drop_attributes(node, ("nodes_hitrates", *tensors))
    for name, array in tensors.items():
        tensor = onnx.numpy_helper.from_array(array, f"{name}_as_tensor")
        graphs.set_attribute(node, f"{name}_as_tensor", tensor)


def _narrow(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    name = f"{node.input[0]}__float32_for_{node.output[-1]}"
    to = graphs.ELEMENT_TYPES["float32"]
    graph.node.append(onnx.helper.make_node("Cast", [node.input[0]], [name], to=to))
    node.input[0] = name


def rows_next_to_thresholds(trees: Sequence[Tree], matrix: Array) -> Array:
    """Rows of `matrix` with one feature moved to a threshold on the row's own path.

    Each chosen node gives three rows: at the threshold rounded down to float32, which goes left,
    and at the float32 neighbours below and above, the second of which goes right.

    Returns
    -------
    ndarray of float64, shape [n, features]
    """
    moved = []
    for position, number in enumerate(choose_rows(len(trees), _PROBED_TREES)):
        row, tree = matrix[position % len(matrix)], trees[number]
        for node in _path(tree, row):
            threshold = round_down(tree.threshold[node : node + 1])[0]
            with np.errstate(over="ignore"):
                neighbours = np.nextafter(threshold, _DOWN_AND_UP)
            for value in (threshold, *neighbours):
                if np.isfinite(value):
                    moved.append(row.copy())
                    moved[-1][tree.feature[node]] = value
    if not moved:
        return np.empty((0, matrix.shape[1]))
    return np.stack(moved)[choose_rows(len(moved), _PROBED_ROWS)]


def _path(tree: Tree, row: Array) -> Iterable[int]:
    node = 0
    while not tree.leaf[node]:
        yield node
        value = row[tree.feature[node]]
        left = tree.missing_left[node] if np.isnan(value) else value <= tree.threshold[node]
        node = int(tree.left[node] if left else tree.right[node])
