"""A booster's own JSON dump as plain arrays.

Written against ``XGBoosterSaveModelToBuffer`` of XGBoost 3; models of older versions are loaded
by the library first, and come out in this form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import xgboost

from modelport.convert.forests.forest import Forest, join
from modelport.convert.forests.inputs import Feature, TreeInputs
from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array

#: What each objective does with the sums; those that are not here leave them as they are.
LINKS: Final[Mapping[str, str]] = {
    "binary:hinge": "sign",
    "binary:logistic": "logistic",
    "count:poisson": "exp",
    "multi:softmax": "softmax",
    "multi:softprob": "softmax",
    "reg:gamma": "exp",
    "reg:logistic": "logistic",
    "reg:tweedie": "exp",
    "survival:aft": "exp",
    "survival:cox": "exp",
}


@dataclass(frozen=True, eq=False)
class Booster:
    """What a booster computes.

    Parameters
    ----------
    objective : str
    groups : int
        Sums per row: classes or targets.
    base : ndarray of float32
        What each sum starts from.
    inputs : TreeInputs
    categorical : tuple of int
        Features that are compared with sets of codes.
    forest : Forest or None
        None for a linear model.
    weights : ndarray of float32
        Of a linear model, ``[features + 1, groups]``; the last row is added as it is. Empty for
        trees.
    classes : int
        As the dump says; 0 unless there are several.
    rounds : int
        Boosting rounds in the booster, of which `forest` may hold fewer.
    """

    objective: str
    groups: int
    base: Array
    inputs: TreeInputs
    categorical: tuple[int, ...]
    forest: Forest | None
    weights: Array
    classes: int
    rounds: int

    @property
    def link(self) -> str:
        """See `modelport.convert.forests.graph.add_link`."""
        return LINKS.get(self.objective, "identity")


def read_booster(booster: xgboost.Booster, rounds: int) -> Booster:
    """Read the first `rounds` boosting rounds of a booster; 0: all of them.

    Raises
    ------
    UnsupportedError
        For a kind of booster that is not known.
    """
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    parameters = learner["learner_model_param"]
    classes = int(parameters["num_class"])
    groups = max(classes, int(parameters["num_target"]), 1)
    features = int(parameters["num_feature"])
    objective = str(learner["objective"]["name"])
    gradient_booster = learner["gradient_booster"]
    kind = str(gradient_booster["name"])
    whole = Booster(
        objective=objective,
        groups=groups,
        base=_base(parameters["base_score"], LINKS.get(objective, "identity"), groups),
        inputs=TreeInputs(tuple(Feature() for _ in range(features))),
        categorical=(),
        forest=None,
        weights=np.empty((0, groups), dtype=np.float32),
        classes=classes,
        rounds=0,
    )
    if kind == "gblinear":
        weights = np.asarray(gradient_booster["model"]["weights"], dtype=np.float32)
        inputs = TreeInputs(_features(learner, {}, features))
        return replace(whole, weights=weights.reshape(features + 1, groups), inputs=inputs)
    if kind not in ("gbtree", "dart"):
        raise UnsupportedError(f"XGBoost's {kind} boosters cannot be exported")
    dart = kind == "dart"
    model = (gradient_booster["gbtree"] if dart else gradient_booster)["model"]
    ends = model["iteration_indptr"]
    last = ends[min(rounds, len(ends) - 1)] if rounds else len(model["trees"])
    dropped = gradient_booster["weight_drop"] if dart else [1.0] * len(model["trees"])
    trees = [
        _tree(plain, target, groups, factor)
        for plain, target, factor in zip(
            model["trees"][:last], model["tree_info"], dropped, strict=False
        )
    ]
    if not trees:
        raise UnsupportedError("the booster has no trees: it was not trained")
    return replace(
        whole,
        forest=join(trees),
        inputs=TreeInputs(_features(learner, model, features), refuse_unseen=True),
        categorical=tuple(
            number for number, kind in enumerate(learner["feature_types"]) if kind == "c"
        ),
        rounds=len(ends) - 1,
    )


def _base(text: str, link: str, groups: int) -> Array:
    """``base_score``: a list since 3.1, on the scale of the answers."""
    plain = json.loads(text)
    scores = [float(score) for score in (plain if isinstance(plain, list) else [plain])]
    if link == "logistic":
        scores = [math.log(score / (1.0 - score)) for score in scores]
    elif link == "exp":
        scores = [math.log(score) for score in scores]
    base = np.asarray(scores, dtype=np.float64).astype(np.float32)
    return np.broadcast_to(base, (groups,)).copy()


def _features(
    learner: Mapping[str, Any], model: Mapping[str, Any], count: int
) -> tuple[Feature, ...]:
    names = learner["feature_names"] or [""] * count
    known = model.get("cats", {}).get("enc", [])
    categories = [_categories(plain) for plain in known] or [()] * count
    return tuple(Feature(str(n), c) for n, c in zip(names, categories, strict=True))


def _categories(plain: Mapping[str, Any]) -> tuple[Any, ...]:
    """Categories of a data frame's column: text as its bytes, one after the other; or numbers.

    Raises
    ------
    UnsupportedError
        For text beyond ASCII: XGBoost 3 keeps as many bytes of it as it has letters.
    """
    values = plain["values"]
    if "offsets" not in plain:
        return tuple(float(value) for value in values)
    text = bytes(value & 0xFF for value in values)
    if not text.isascii():
        raise UnsupportedError(
            "the XGBoost model has categories with letters beyond ASCII, and XGBoost keeps their "
            "names only in part",
            hint="give the categories ASCII names or integer codes, and train again",
        )
    ends = plain["offsets"]
    return tuple(text[a:b].decode() for a, b in pairwise(ends))


def _tree(plain: Mapping[str, Any], target: int, groups: int, factor: float) -> Forest:
    left = np.asarray(plain["left_children"], dtype=np.int64)
    leaf = left < 0
    conditions = np.asarray(plain["split_conditions"], dtype=np.float32)
    value = np.where(leaf, conditions, np.float32(0))
    width = int(plain["tree_param"]["size_leaf_vector"])
    if width > 1:
        # One tree for all targets: its leaves, numbered in `right_children`, hold a vector.
        vectors = np.asarray(plain["leaf_weights"], dtype=np.float32).reshape(-1, width)
        places = np.where(leaf, plain["right_children"], 0)
        value = np.where(leaf[:, np.newaxis], vectors[places], np.float32(0))
    tree = Forest(
        feature=np.where(leaf, 0, plain["split_indices"]),
        threshold=np.where(leaf, 0.0, conditions),
        left=left,
        right=np.where(leaf, -1, plain["right_children"]),
        missing_left=~leaf & np.asarray(plain["default_left"], dtype=np.bool_),
        value=value * np.float32(factor),
        roots=np.zeros(1, dtype=np.int64),
        target=np.asarray([target]),
        targets=groups,
        strict=True,
    )
    return _with_sets(tree, plain)


def _with_sets(tree: Forest, plain: Mapping[str, Any]) -> Forest:
    """Categories in the set go right, others left: here it is the other way round."""
    nodes = np.asarray(plain["categories_nodes"], dtype=np.int64)
    if not len(nodes):
        return tree
    categories = np.asarray(plain["categories"], dtype=np.int64)
    left, right, missing_left = tree.left.copy(), tree.right.copy(), tree.missing_left.copy()
    left[nodes], right[nodes] = tree.right[nodes], tree.left[nodes]
    missing_left[nodes] = ~tree.missing_left[nodes]
    sets = {
        int(node): np.sort(categories[start : start + size])
        for node, start, size in zip(
            nodes, plain["categories_segments"], plain["categories_sizes"], strict=True
        )
    }
    return replace(tree, left=left, right=right, missing_left=missing_left, sets=sets)
