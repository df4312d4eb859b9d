"""Trees written into the operators of ``ai.onnx.ml`` that hold them: see `tree_nodes`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

from modelport.core.tensors import Array
from modelport.optimize.classic.ensemble import LEQ, Ensemble
from modelport.optimize.classic.tree_nodes import MODES, is_of_trees, prefix_of

#: Attributes that are tensors, the first of which tells the element type of all numbers.
_REALS: Final = ("nodes_values_as_tensor", "nodes_splits", "leaf_weights", "membership_values")


def write(node: onnx.NodeProto, ensemble: Ensemble) -> None:
    """Give a node other trees; what it does with their votes stays.

    Hit rates, which change nothing, are left out.
    """
    held = [item for item in node.attribute if is_of_trees(node, item)]
    kept = [item for item in node.attribute if not is_of_trees(node, item)]
    real = [numpy_helper.to_array(item.t).dtype for item in held if item.name in _REALS]
    made = _write_5 if node.op_type == "TreeEnsemble" else _write_3
    del node.attribute[:]
    node.attribute.extend(kept)
    for name, values in made(prefix_of(node), ensemble, real[0] if real else None):
        _set(node.attribute.add(), name, values)


def _set(item: onnx.AttributeProto, name: str, values: Array) -> None:
    """As the operators have them: names of comparisons, integers, float32, or a tensor."""
    item.name = name
    if name.endswith("_as_tensor") or name in _REALS or values.dtype == np.uint8:
        item.type = onnx.AttributeProto.TENSOR
        item.t.CopyFrom(numpy_helper.from_array(values))
    elif values.dtype == object:
        item.type = onnx.AttributeProto.STRINGS
        item.strings.extend(values.tolist())
    elif values.dtype.kind == "f":
        item.type = onnx.AttributeProto.FLOATS
        item.floats.extend(values.tolist())
    else:
        item.type = onnx.AttributeProto.INTS
        item.ints.extend(values.tolist())


def _write_3(
    prefix: str, ensemble: Ensemble, real: np.dtype[Any] | None
) -> Iterator[tuple[str, Array]]:
    """One after another, since each may have millions of numbers."""
    leaf = ensemble.leaf
    number = np.arange(len(leaf)) - ensemble.roots[ensemble.tree]
    rows, columns = np.nonzero(ensemble.voted & leaf[:, np.newaxis])
    names = np.full(256, b"", dtype=object)
    for text, mode in MODES.items():
        names[mode] = text
    yield "nodes_treeids", ensemble.tree
    yield "nodes_nodeids", number
    yield "nodes_featureids", ensemble.feature
    yield "nodes_modes", names[ensemble.mode]
    yield "nodes_truenodeids", np.where(leaf, 0, number[ensemble.left])
    yield "nodes_falsenodeids", np.where(leaf, 0, number[ensemble.right])
    if ensemble.missing_left.any():
        yield "nodes_missing_value_tracks_true", ensemble.missing_left.astype(np.int64)
    ending = "" if real is None else "_as_tensor"
    kind = np.float32 if real is None else real
    yield f"nodes_values{ending}", ensemble.threshold.astype(kind)
    yield f"{prefix}_ids", columns
    yield f"{prefix}_nodeids", number[rows]
    yield f"{prefix}_treeids", ensemble.tree[rows]
    yield f"{prefix}_weights{ending}", ensemble.votes[rows, columns].astype(kind)


def _write_5(
    prefix: str, ensemble: Ensemble, real: np.dtype[Any] | None
) -> Iterator[tuple[str, Array]]:
    ensemble = _without_bare_leaves(ensemble)
    kind = np.float32 if real is None else real
    leaf = ensemble.leaf
    inner = np.flatnonzero(~leaf)
    number = np.where(leaf, np.cumsum(leaf), np.cumsum(~leaf)) - 1
    left, right = ensemble.left[inner], ensemble.right[inner]
    targets = np.argmax(ensemble.voted[leaf], axis=1)
    weights = np.take_along_axis(ensemble.votes[leaf], targets[:, np.newaxis], 1)[:, 0]
    members = [v for n in inner.tolist() if n in ensemble.members
               for v in (*ensemble.members[n].tolist(), np.nan)]  # fmt: skip
    yield "tree_roots", number[ensemble.roots]
    yield "nodes_featureids", ensemble.feature[inner]
    yield "nodes_modes", ensemble.mode[inner]
    yield "nodes_splits", ensemble.threshold[inner].astype(kind)
    yield "nodes_truenodeids", number[left]
    yield "nodes_falsenodeids", number[right]
    yield "nodes_trueleafs", leaf[left].astype(np.int64)
    yield "nodes_falseleafs", leaf[right].astype(np.int64)
    yield f"leaf_{prefix}ids", targets
    yield "leaf_weights", weights.astype(kind)
    if ensemble.missing_left.any():
        yield "nodes_missing_value_tracks_true", ensemble.missing_left[inner].astype(np.int64)
    if members:
        yield "membership_values", np.asarray(members, dtype=kind)


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
