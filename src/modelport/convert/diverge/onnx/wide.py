"""A graph that computes in float64 behind the same inputs and outputs."""

from __future__ import annotations

import copy
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelport.convert.diverge.onnx.graph import Graph
from modelport.convert.diverge.onnx.reference import without_rounding
from modelport.core.errors import ModelportError

_MACHINE_LEARNING: Final = "ai.onnx.ml"
_NARROW: Final = (TensorProto.FLOAT, TensorProto.FLOAT16)


def in_float64(model: onnx.ModelProto) -> bytes | None:
    """The graph with its inner tensors in float64; None where the engine cannot run it.

    Inputs are cast to float64 as they come in, and outputs back as they go out. ONNX Runtime has
    no float64 kernels for convolutions and some more: such graphs do not load.
    """
    wide = copy.deepcopy(model)
    graph = wide.graph
    del graph.value_info[:]
    if any(a.type == onnx.AttributeProto.GRAPH for n in graph.node for a in n.attribute):
        return None
    if any(a.floats for n in graph.node if n.domain == _MACHINE_LEARNING for a in n.attribute):
        return None  # its weights are attributes, and those are float32
    for initializer in graph.initializer:
        if initializer.data_type in _NARROW:
            array = numpy_helper.to_array(initializer).astype(np.float64)
            initializer.CopyFrom(numpy_helper.from_array(array, initializer.name))
    given = {i.name for i in graph.initializer}
    for node in graph.node:
        node.CopyFrom(_widened(node))
    renamed = {
        value.name: f"{value.name}__float64"
        for value in (*graph.input, *graph.output)
        if value.type.tensor_type.elem_type in _NARROW and value.name not in given
    }
    for node in graph.node:
        for side in (node.input, node.output):
            for position, name in enumerate(side):
                side[position] = renamed.get(name, name)
    casts = [
        helper.make_node("Cast", [v.name], [renamed[v.name]], to=TensorProto.DOUBLE)
        for v in graph.input
        if v.name in renamed
    ]
    nodes = [*casts, *graph.node]
    nodes += [
        helper.make_node("Cast", [renamed[v.name]], [v.name], to=v.type.tensor_type.elem_type)
        for v in graph.output
        if v.name in renamed
    ]
    nodes = [copy.deepcopy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    try:
        Graph(wide).load(optimize=True)
    except ModelportError:
        return None
    return bytes(wide.SerializeToString(deterministic=True))


def _widened(node: onnx.NodeProto) -> onnx.NodeProto:
    if node.op_type != "Constant":
        return without_rounding(node)
    item = node.attribute[0]
    if item.name == "value" and item.t.data_type in _NARROW:
        array = numpy_helper.to_array(item.t).astype(np.float64)
    elif item.name in ("value_float", "value_floats"):
        array = np.asarray(helper.get_attribute_value(item), dtype=np.float64)
    else:
        return node
    wide = helper.make_node("Constant", [], list(node.output), name=node.name)
    wide.attribute.append(helper.make_attribute("value", numpy_helper.from_array(array)))
    return wide
