"""What must hold in a LightGBM text model before its C++ loader may see it.

Written against ``GBDT::LoadModelFromString`` and ``Tree::Tree`` of LightGBM 4: the loader jumps
from tree to tree by the byte counts in ``tree_sizes``, and follows children and category
positions as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import numpy as np

from modelport.core.tensors import Array
from modelport.scan.trees.structure import check_is_tree, check_range

_TREE: Final = re.compile(r"^Tree=", re.MULTILINE)
_END: Final = "\nend of trees"
_MOST_FEATURES: Final = 2**31


def check_lightgbm(text: str) -> None:
    """Raise ValueError when the model's parts do not fit each other."""
    if not text.startswith("tree\n"):
        raise ValueError("it does not begin with 'tree'")
    end = text.find(_END)
    if end < 0:
        raise ValueError("it has no 'end of trees'")
    starts = [found.start() for found in _TREE.finditer(text, 0, end)]
    header = _fields(text[: starts[0] if starts else end])
    features = _integer(header, "max_feature_idx") + 1
    per_iteration = _integer(header, "num_tree_per_iteration")
    classes = _integer(header, "num_class")
    if not 0 < features < _MOST_FEATURES or classes < 1 or per_iteration < 1:
        raise ValueError("max_feature_idx, num_class or num_tree_per_iteration is not positive")
    if len(starts) % per_iteration:
        raise ValueError(f"{len(starts)} trees do not make whole rounds of {per_iteration}")
    for key in ("feature_names", "feature_infos"):
        if len(header.get(key, "").split(" ")) != features:
            raise ValueError(f"{key} does not have {features} entries")
    _check_sizes(text, header, starts)
    for number, start in enumerate(starts):
        stop = starts[number + 1] if number + 1 < len(starts) else end
        _check_tree(_fields(text[start:stop]), f"tree {number}", features)


def _fields(block: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in block.split("\n"):
        key, equals, value = line.partition("=")
        if not equals:
            continue
        if key in found:
            raise ValueError(f"{key} stands twice")
        found[key] = value
    return found


def _check_sizes(text: str, header: Mapping[str, str], starts: list[int]) -> None:
    """``tree_sizes`` counts bytes from one tree to the next."""
    if "tree_sizes" not in header:
        raise ValueError("it has no tree_sizes")
    sizes = _integers(header, "tree_sizes", len(starts), "the header")
    if not starts:
        return
    if text.isascii():
        places = np.asarray(starts)
    else:
        places = np.asarray([len(text[:start].encode()) for start in starts])
    if (sizes[:-1] != np.diff(places)).any() or sizes[-1] < 1:
        raise ValueError("tree_sizes does not fit the trees")
    stop = places[-1] + sizes[-1]
    if stop > len(text.encode()) or not text.encode()[stop:].startswith(b"end of trees"):
        raise ValueError("tree_sizes does not fit the trees")


def _check_tree(fields: Mapping[str, str], what: str, features: int) -> None:
    leaves, sets = _integer(fields, "num_leaves"), _integer(fields, "num_cat")
    if leaves < 1 or sets < 0:
        raise ValueError(f"{what} has no leaves")
    _numbers(fields, "leaf_value", leaves, what)
    inner = leaves - 1
    if not inner:
        return
    split = _integers(fields, "split_feature", inner, what)
    check_range(split, features, f"split_feature of {what}")
    thresholds = _numbers(fields, "threshold", inner, what)
    kinds = _integers(fields, "decision_type", inner, what)
    check_range(kinds, 16, f"decision_type of {what}")
    children = [_integers(fields, key, inner, what) for key in ("left_child", "right_child")]
    # ~0, ~1 … are leaves; they follow the inner nodes here.
    placed = [np.where(side < 0, inner + ~side, side) for side in children]
    for side in children:
        check_range(side, inner, f"children of {what}", start=-leaves)
    check_is_tree(placed, inner + leaves, what)
    if sets:
        ends = _integers(fields, "cat_boundaries", sets + 1, what)
        words = _integers(fields, "cat_threshold", int(max(ends[-1], 0)), what)
        if ends[0] or (np.diff(ends) < 0).any():
            raise ValueError(f"cat_boundaries of {what} is not in order")
        check_range(words, 2**32, f"cat_threshold of {what}")
    categorical = (kinds & 1).astype(bool)
    check_range(thresholds[categorical], sets, f"categories of {what}")
    for key in ("leaf_weight", "leaf_count"):
        if fields.get(key):
            _numbers(fields, key, leaves, what)
    for key in ("split_gain", "internal_value", "internal_weight", "internal_count"):
        if fields.get(key):
            _numbers(fields, key, inner, what)
    if fields.get("is_linear", "0").strip() == "1":
        _check_linear(fields, leaves, features, what)


def _check_linear(fields: Mapping[str, str], leaves: int, features: int, what: str) -> None:
    _numbers(fields, "leaf_const", leaves, what)
    counts = _integers(fields, "num_features", leaves, what)
    if (counts < 0).any():
        raise ValueError(f"num_features of {what} is negative")
    total = int(counts.sum())
    used = _integers(fields, "leaf_features", total, what)
    check_range(used, features, f"leaf_features of {what}")
    _numbers(fields, "leaf_coeff", total, what)


def _integer(fields: Mapping[str, str], key: str) -> int:
    text = fields.get(key, "")
    if not re.fullmatch(r"-?\d{1,18}", text):
        raise ValueError(f"{key} is {text[:20]!r}" if key in fields else f"{key} is missing")
    return int(text)


def _integers(fields: Mapping[str, str], key: str, size: int, what: str) -> Array:
    return _parse(fields, key, size, what, np.int64)


def _numbers(fields: Mapping[str, str], key: str, size: int, what: str) -> Array:
    return _parse(fields, key, size, what, np.float64)


def _parse(
    fields: Mapping[str, str], key: str, size: int, what: str, dtype: type[np.generic]
) -> Array:
    parts = fields.get(key, "").split()
    if len(parts) != size:
        raise ValueError(f"{key} of {what} has {len(parts)} numbers instead of {size}")
    try:
        return np.asarray(parts, dtype=np.str_).astype(dtype)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{key} of {what} has something else than numbers") from error
