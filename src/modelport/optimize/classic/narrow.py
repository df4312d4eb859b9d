"""Trees that compare in float64 what was float32: half of their numbers' bytes.

For float32 ``x``, ``x <= t`` is the same as ``x <= `` the largest float32 that is not above ``t``,
and ``x < t`` the same as ``x < `` the smallest that is not below it: no row goes another way.
Votes lose the digits that float32 does not have.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelport.core.tensors import Array
from modelport.optimize.classic.ensemble import GT, GTE, LEQ, LT
from modelport.optimize.onnx_graph import serialize

_FLOAT, _DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
#: Towards which side a threshold may move for each comparison.
_DOWN: Final = (LEQ, GT)
_UP: Final = (LT, GTE)


def narrowed(model: onnx.ModelProto) -> bytes:
    """The model with every such ``TreeEnsemble`` in float32; it is changed."""
    graph = model.graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    makers = {name: node for node in graph.node for name in node.output}
    for node in [n for n in graph.node if n.op_type == "TreeEnsemble"]:
        cast = makers.get(node.input[0])
        if cast is None or cast.op_type != "Cast" or kinds.get(cast.input[0]) != _FLOAT:
            continue
        if _narrow(node):
            node.input[0] = cast.input[0]
            _widen_output(graph, node)
    _without_idle_casts(graph)
    return serialize(model)


def _narrow(node: onnx.NodeProto) -> bool:
    held = {item.name: item for item in node.attribute}
    splits = numpy_helper.to_array(held["nodes_splits"].t)
    modes = numpy_helper.to_array(held["nodes_modes"].t)
    if splits.dtype != np.float64 or not np.isin(modes, (*_DOWN, *_UP)).all():
        return False
    narrow = np.where(np.isin(modes, _DOWN), rounded_down(splits), -rounded_down(-splits))
    weights = numpy_helper.to_array(held["leaf_weights"].t)
    held["nodes_splits"].t.CopyFrom(numpy_helper.from_array(narrow.astype(np.float32)))
    held["leaf_weights"].t.CopyFrom(numpy_helper.from_array(weights.astype(np.float32)))
    return True


def rounded_down(values: Array) -> Array:
    """The largest float32 numbers that are not above `values`."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
        below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest.astype(np.float64) > values, below, nearest)


def _widen_output(graph: Any, node: onnx.NodeProto) -> None:
    name = node.output[0]
    place = next(i for i, other in enumerate(graph.node) if name in other.output)
    node.output[0] = f"{name}__float32"
    graph.node.insert(place + 1, helper.make_node("Cast", [node.output[0]], [name], to=_DOUBLE))


def _without_idle_casts(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    used |= {value.name for value in graph.output}
    for node in [n for n in graph.node if n.op_type == "Cast" and n.output[0] not in used]:
        graph.node.remove(node)
