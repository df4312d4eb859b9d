"""What must hold in an XGBoost model before its C++ loader may see it.

https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html has the schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from modelport.scan.encodings.ubjson import MOST_DEPTH, load_ubjson
from modelport.scan.trees.structure import check_is_tree, check_range, integers, numbers

_MOST_FEATURES: Final = 2**31
_PER_NODE_INTEGERS: Final = ("left_children", "right_children", "split_indices", "parents")
_PER_NODE_NUMBERS: Final = ("split_conditions", "loss_changes", "sum_hessian")
# What the root has for a parent; trees with vectors in their leaves have the second.
_NO_PARENT: Final = (2**31 - 1, -1)


def load_xgboost(content: bytes) -> Any:
    """Decode a model file: JSON or UBJSON.

    Raises
    ------
    ValueError
        When it is neither, or damaged.
    """
    if content[:1] == b"{" and content[1:2] in b'" \t\r\n':
        try:
            plain = json.loads(content, object_pairs_hook=_once)
        except RecursionError as error:
            raise ValueError("values are nested too deep") from error
        _check_depth(plain)
        return plain
    return load_ubjson(content)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _check_depth(plain: Any) -> None:
    level = [plain]
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"values are nested more than {MOST_DEPTH} deep")


def check_xgboost(document: Any) -> None:
    """Raise ValueError when the model's parts do not fit each other.

    Parameters
    ----------
    document : object
        Of `load_xgboost`: a model, or a pickled booster's ``{"Config": …, "Model": …}``.
    """
    try:
        if isinstance(document, Mapping) and document.keys() == {"Config", "Model"}:
            document = document["Model"]
        _check_learner(document["learner"])
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        detail = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"not an XGBoost model: {detail}") from error


def _check_learner(learner: Mapping[str, Any]) -> None:
    parameters = learner["learner_model_param"]
    features = int(parameters["num_feature"])
    if not 0 <= features < _MOST_FEATURES:
        raise ValueError(f"num_feature is {features}")
    classes, targets = int(parameters["num_class"]), int(parameters.get("num_target", 1))
    if not (0 <= classes < _MOST_FEATURES and 0 < targets < _MOST_FEATURES):
        raise ValueError(f"num_class is {classes}, num_target {targets}")
    groups = max(classes, targets)
    if not isinstance(learner["objective"]["name"], str):
        raise ValueError("the objective has no name")
    for key in ("feature_names", "feature_types"):
        if len(learner.get(key, ())) not in (0, features):
            raise ValueError(f"{key} has {len(learner[key])} names for {features} features")
    booster = learner["gradient_booster"]
    if booster["name"] == "gblinear":
        numbers(booster["model"]["weights"], "weights", size=(features + 1) * groups)
        return
    if booster["name"] not in ("gbtree", "dart"):
        raise ValueError(f"{booster['name']!r} is not a kind of booster")
    inner = booster["gbtree"] if booster["name"] == "dart" else booster
    model = inner["model"]
    trees = model["trees"]
    if int(model["gbtree_model_param"]["num_trees"]) != len(trees):
        raise ValueError(f"there are {len(trees)} trees, and another number is announced")
    info = integers(model["tree_info"], "tree_info", size=len(trees))
    check_range(info, groups, "tree_info")
    if booster["name"] == "dart":
        numbers(booster["weight_drop"], "weight_drop", size=len(trees))
    if "iteration_indptr" in model:
        ends = integers(model["iteration_indptr"], "iteration_indptr")
        if not len(ends) or ends[0] or ends[-1] != len(trees) or (np.diff(ends) < 0).any():
            raise ValueError("iteration_indptr does not divide the trees")
    _check_categories(model.get("cats", {}))
    for number, tree in enumerate(trees):
        if int(tree["id"]) != number:
            raise ValueError(f"tree {number} is called {tree['id']}")
        _check_tree(tree, f"tree {number}", features, groups)


def _check_tree(tree: Mapping[str, Any], what: str, features: int, groups: int) -> None:
    count = int(tree["tree_param"]["num_nodes"])
    width = int(tree["tree_param"].get("size_leaf_vector", 1))
    found = {key: integers(tree[key], f"{key} of {what}", size=count) for key in _PER_NODE_INTEGERS}
    for key in _PER_NODE_NUMBERS:
        numbers(tree[key], f"{key} of {what}", size=count)
    integers(tree["default_left"], f"default_left of {what}", size=count)
    left, right, parents = found["left_children"], found["right_children"], found["parents"]
    # Nodes that pruning took out stay in the arrays, and nobody's child.
    inner = left >= 0
    if not count or (left[~inner] != -1).any():
        raise ValueError(f"{what} has no nodes, or children that do not exist")
    check_range(left, count, f"left_children of {what}", start=-1)
    check_range(found["split_indices"][inner], max(features, 1), f"split_indices of {what}")
    children = (left[inner], right[inner])
    deleted = int(tree["tree_param"].get("num_deleted", 0))
    if deleted:
        _check_pruned(children, count, what)
    else:
        check_is_tree(children, count, what)
    places = np.flatnonzero(inner)
    known = parents[0] == _NO_PARENT[width > 1] and all(
        np.array_equal(parents[side], places) for side in children
    )
    if not known:
        raise ValueError(f"{what}: parents and children differ")
    if width > 1:
        _check_vectors(tree, right[~inner], width, groups, what)
    elif (right[~inner] != -1).any():
        raise ValueError(f"{what} has leaves with children")
    _check_sets(tree, count, what)


def _check_pruned(children: Sequence[Any], count: int, what: str) -> None:
    """As `check_is_tree`, for trees some of whose nodes belong to nobody."""
    everything = np.concatenate(children)
    check_range(everything, count, what, start=1)
    if len(np.unique(everything)) != len(everything):
        raise ValueError(f"{what}: its nodes are not a tree")


def _check_vectors(
    tree: Mapping[str, Any], places: Any, width: int, groups: int, what: str
) -> None:
    if width != groups:
        raise ValueError(f"{what} has leaves of {width} numbers for {groups} targets")
    weights = np.asarray(tree["leaf_weights"])
    numbers(weights, f"leaf_weights of {what}", size=len(places) * width)
    check_range(places, len(places), f"right_children of {what}")


def _check_sets(tree: Mapping[str, Any], count: int, what: str) -> None:
    nodes = integers(tree.get("categories_nodes", ()), f"categories_nodes of {what}")
    check_range(nodes, count, f"categories_nodes of {what}")
    size = len(nodes)
    starts = integers(tree.get("categories_segments", ()), f"segments of {what}", size=size)
    sizes = integers(tree.get("categories_sizes", ()), f"categories_sizes of {what}", size=size)
    values = integers(tree.get("categories", ()), f"categories of {what}")
    if (starts < 0).any() or (sizes < 1).any() or (starts + sizes > len(values)).any():
        raise ValueError(f"the categories of {what} reach beyond their end")
    check_range(values, 1 << 24, f"categories of {what}")
    if "split_type" in tree:
        kinds = integers(tree["split_type"], f"split_type of {what}", size=count)
        if not np.array_equal(np.flatnonzero(kinds), np.sort(nodes)):
            raise ValueError(f"split_type and categories_nodes of {what} differ")


def _check_categories(categories: Mapping[str, Any]) -> None:
    known = categories.get("enc", ())
    total = 0
    for plain in known:
        values = integers(plain["values"], "categories") if "offsets" in plain else None
        if values is None:
            total += len(plain["values"])
            continue
        ends = integers(plain["offsets"], "offsets of categories")
        if len(ends) and (ends[0] or ends[-1] != len(values) or (np.diff(ends) < 0).any()):
            raise ValueError("the offsets of categories reach beyond their end")
        total += max(len(ends) - 1, 0)
    if known:
        segments = integers(categories["feature_segments"], "segments", size=len(known) + 1)
        order = integers(categories["sorted_idx"], "sorted_idx", size=total)
        check_range(order, max(total, 1), "sorted_idx")
        if segments[0] or segments[-1] != total or (np.diff(segments) < 0).any():
            raise ValueError("the segments of categories reach beyond their end")
