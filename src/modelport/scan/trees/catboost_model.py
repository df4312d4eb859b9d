"""What must hold in a CatBoost model before its C++ loader may see it.

The binary format is a FlatBuffer, which CatBoost verifies itself, behind a size; the JSON format
is checked here: its loader trusts the number of leaves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelport.scan.trees.structure import numbers

MAGIC: Final = b"CBM1"
_MOST_DEPTH: Final = 16
_SIZE_END: Final = 8
_MOST_NESTED: Final = 500


def check_catboost(content: bytes) -> None:
    """Raise ValueError when a model file is damaged or truncated."""
    if not content.startswith(MAGIC):
        _check_json(content)
        return
    size = int.from_bytes(content[len(MAGIC) : _SIZE_END], "little")
    if not 0 < size <= len(content) - _SIZE_END:
        raise ValueError(f"{size} bytes are announced and {len(content) - _SIZE_END} are there")


def _check_json(content: bytes) -> None:
    try:
        model = json.loads(content, object_pairs_hook=_once)
        features = model["features_info"]
        borders = sum(len(f["borders"]) for f in features.get("float_features", ()))
        scale, bias = model["scale_and_bias"]
        if not isinstance(scale, int | float) or not isinstance(bias, list):
            raise ValueError("scale_and_bias is not a number and a list")
        dimensions = len(bias)
        plain = not features.keys() - {"float_features"}
        for number, tree in enumerate(model.get("oblivious_trees", ())):
            _check_oblivious(tree, f"tree {number}", dimensions, borders if plain else -1)
        for number, tree in enumerate(model.get("trees", ())):
            _check_nested(tree, f"tree {number}", dimensions, borders if plain else -1)
    except RecursionError as error:
        raise ValueError("values are nested too deep") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a CatBoost model: {error}") from error


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _check_oblivious(tree: Mapping[str, Any], what: str, dimensions: int, borders: int) -> None:
    splits = tree["splits"] or ()
    if len(splits) > _MOST_DEPTH:
        raise ValueError(f"{what} is deeper than {_MOST_DEPTH}")
    leaves = 1 << len(splits)
    numbers(tree["leaf_values"], f"leaf_values of {what}", size=leaves * dimensions)
    for split in splits:
        _check_split(split, what, borders)


def _check_nested(tree: Mapping[str, Any], what: str, dimensions: int, borders: int) -> None:
    waiting = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > _MOST_NESTED:
            raise ValueError(f"{what} is deeper than {_MOST_NESTED}")
        if "split" in node:
            _check_split(node["split"], what, borders)
            waiting += [(node["left"], depth + 1), (node["right"], depth + 1)]
            continue
        value = node["value"]
        numbers(value if isinstance(value, list) else [value], what, size=dimensions)


def _check_split(split: Mapping[str, Any], what: str, borders: int) -> None:
    index = split["split_index"]
    if type(index) is not int or index < 0 or (0 <= borders <= index):
        raise ValueError(f"{what} has a split that does not exist")
