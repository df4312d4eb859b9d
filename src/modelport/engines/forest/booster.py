"""Trees as an XGBoost booster.

Sources: "Introduction to Model IO" of XGBoost's documentation and its JSON schema, in the form of
UBJSON (draft 12, ubjson.org), whose typed arrays hold a tree without a word per number. The model
is written as version 3.0 had it, which every later one reads.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any, Final

# Threads that wait for work take the cores from the other models; read when OpenMP is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import xgboost

from modelport.core.errors import EngineError, UnsupportedError
from modelport.core.tensors import Array
from modelport.engines.forest.trees import Trees

_VERSION: Final = [3, 0, 0]
_NO_PARENT: Final = 2**31 - 1
#: Trees are copied for every target that they vote for.
_MOST_NODES: Final = 8_000_000
_TYPES: Final = {"float32": (b"d", ">f4"), "int32": (b"l", ">i4"), "int64": (b"L", ">i8"),
                 "uint8": (b"U", "u1")}  # fmt: skip


class Sums:
    """What trees add up to, by XGBoost; may be called from several threads at once.

    Parameters
    ----------
    trees : Trees
    threads : int
        That one execution may use.

    Raises
    ------
    UnsupportedError
        When they are too many.
    EngineError
        When XGBoost does not take them.
    """

    def __init__(self, trees: Trees, threads: int) -> None:
        self.width = trees.width
        try:
            self._booster = xgboost.Booster({"nthread": threads})
            self._booster.load_model(bytearray(_encoded(_model(trees))))
        except xgboost.core.XGBoostError as error:
            raise EngineError(f"XGBoost does not take the trees: {_first_line(error)}") from error

    def of(self, rows: Array) -> Array:
        """The sums of some rows.

        Parameters
        ----------
        rows : ndarray of float32, shape (n, features)

        Returns
        -------
        ndarray of float32, shape (n, targets)

        Raises
        ------
        EngineError
            When the columns are too few, or XGBoost fails.
        """
        if rows.ndim != 2 or rows.shape[1] < self.width:
            raise EngineError(f"the trees need {self.width} columns, not {list(rows.shape)}")
        try:
            found: Array = self._booster.inplace_predict(
                rows[:, : self.width], predict_type="margin", validate_features=False,
                strict_shape=True,
            )  # fmt: skip
        except (xgboost.core.XGBoostError, ValueError) as error:
            raise EngineError(f"XGBoost failed: {_first_line(error)}") from error
        return found


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _model(trees: Trees) -> dict[str, Any]:
    targets = trees.votes.shape[1]
    written = list(_trees(trees))
    return {
        "learner": {
            "attributes": {},
            "feature_names": [],
            "feature_types": [],
            "gradient_booster": {
                "model": {
                    "gbtree_model_param": {
                        "num_parallel_tree": "1", "num_trees": str(len(written)),
                    },
                    "iteration_indptr": [0, len(written)],
                    "tree_info": [target for target, _ in written],
                    "trees": [tree for _, tree in written],
                },
                "name": "gbtree",
            },
            "learner_model_param": {
                "base_score": "0", "boost_from_average": "0", "num_class": "0",
                "num_feature": str(trees.width), "num_target": str(targets),
            },
            # Its sums are left as they are.
            "objective": {"name": "reg:squarederror", "reg_loss_param": {"scale_pos_weight": "1"}},
        },
        "version": _VERSION,
    }  # fmt: skip


def _trees(trees: Trees) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each tree as often as it has targets, with the target."""
    ends = np.append(trees.roots[1:], len(trees.tree))
    number = written = 0
    for begin, end in zip(trees.roots, ends, strict=True):
        targets = np.flatnonzero(trees.voted[begin:end].any(axis=0)).tolist()
        for target in targets:
            written += int(end - begin)
            if written > _MOST_NODES:
                raise UnsupportedError(
                    f"more than {_MOST_NODES:,} nodes are too many: XGBoost needs a tree for each "
                    "target that it votes for"
                )
            yield target, _tree(trees, slice(begin, end), target, number)
            number += 1


def _tree(trees: Trees, part: slice, target: int, number: int) -> dict[str, Any]:
    child = trees.left[part]
    leaf, count = child < 0, len(child)
    left = np.where(leaf, -1, child - part.start).astype(np.int32)
    parents = np.full(count, _NO_PARENT, dtype=np.int32)
    inner = np.flatnonzero(~leaf)
    parents[left[inner]] = parents[left[inner] + 1] = inner
    unused, none = np.zeros(count, dtype=np.float32), np.empty(0, dtype=np.int32)
    return {
        "base_weights": unused,
        "categories": none,
        "categories_nodes": none,
        "categories_segments": np.empty(0, dtype=np.int64),
        "categories_sizes": np.empty(0, dtype=np.int64),
        "default_left": trees.missing_left[part].astype(np.uint8),
        "id": number,
        "left_children": left,
        "loss_changes": unused,
        "parents": parents,
        "right_children": np.where(leaf, -1, left + 1).astype(np.int32),
        "split_conditions": np.where(leaf, trees.votes[part, target], trees.threshold[part]),
        "split_indices": trees.feature[part].astype(np.int32),
        "split_type": np.zeros(count, dtype=np.uint8),
        "sum_hessian": unused,
        "tree_param": {
            "num_deleted": "0", "num_feature": str(trees.width), "num_nodes": str(count),
            "size_leaf_vector": "1",
        },
    }  # fmt: skip


def _encoded(value: Any) -> bytes:
    """A value in UBJSON; strings in objects' keys have no type."""
    if isinstance(value, dict):
        return b"{%b}" % b"".join(_text(key) + _encoded(item) for key, item in value.items())
    if isinstance(value, list):
        return b"[%b]" % b"".join(map(_encoded, value))
    if isinstance(value, str):
        return b"S" + _text(value)
    if isinstance(value, int):
        return _whole(value)
    kind, layout = _TYPES[value.dtype.name]
    return b"[$%b#%b%b" % (kind, _whole(len(value)), value.astype(layout).tobytes())


def _text(value: str) -> bytes:
    content = value.encode()
    return _whole(len(content)) + content


def _whole(value: int) -> bytes:
    return b"L" + struct.pack(">q", value)
