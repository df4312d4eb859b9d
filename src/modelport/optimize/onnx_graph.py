"""What passes ask about ONNX graphs: nodes and weights, also inside subgraphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import onnx
from onnx import helper, numpy_helper, version_converter

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array

_MOST: Final = 2**31 - 1

#: Operators of graphs that are quantized already.
QUANTIZED: Final = frozenset(
    {"DequantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger",
     "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulNBits"}
)  # fmt: skip


def parse(model: bytes) -> onnx.ModelProto:
    """The model as a graph."""
    return onnx.load_from_string(model)


def serialize(model: onnx.ModelProto) -> bytes:
    """The same graph, the same bytes.

    Raises
    ------
    UnsupportedError
        When it is larger than protobuf takes.
    """
    if model.ByteSize() > _MOST:
        raise UnsupportedError("the model is larger than 2 GiB, which protobuf does not take")
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def at_least(model: bytes, opset: int) -> bytes:
    """The model, converted to this version of the standard operators if it is of an older one.

    Raises
    ------
    UnsupportedError
        When ONNX's converter cannot.
    """
    graph = parse(model)
    found = {item.domain or "ai.onnx": item.version for item in graph.opset_import}
    if found.get("ai.onnx", opset) >= opset:
        return model
    try:
        return serialize(version_converter.convert_version(graph, opset))
    except Exception as error:  # the converter has no common base class for its errors
        raise UnsupportedError(
            f"it is of opset {found['ai.onnx']} and cannot be converted to {opset}: {error}"
        ) from error


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all graphs inside it: branches and loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)
            for inner in attribute.graphs:
                yield from graphs(inner)


def scopes(
    graph: onnx.GraphProto, outer: Mapping[str, onnx.TensorProto] | None = None
) -> Iterator[tuple[onnx.GraphProto, dict[str, onnx.TensorProto]]]:
    """A graph and all graphs inside it, each with the initializers that its nodes see by name."""
    seen = {**(outer or {}), **{item.name: item for item in graph.initializer}}
    for value in graph.input:
        if outer is not None:
            seen.pop(value.name, None)
    yield graph, seen
    for node in graph.node:
        for item in node.attribute:
            inner = [item.g] if item.type == onnx.AttributeProto.GRAPH else list(item.graphs)
            for one in inner:
                yield from scopes(one, seen)


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes."""
    for graph in graphs(model.graph):
        yield from graph.node


def operators(model: onnx.ModelProto) -> set[str]:
    """Types of all nodes."""
    return {node.op_type for node in nodes(model)}


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute of a node, or the default."""
    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return default


def reads(node: onnx.NodeProto) -> set[str]:
    """The tensors that a node reads, also in its branches, with those that are made there."""
    found = {name for name in node.input if name}
    for item in node.attribute:
        inner = [item.g] if item.type == onnx.AttributeProto.GRAPH else list(item.graphs)
        for graph in inner:
            found.update(value.name for value in graph.output)
            for one in graph.node:
                found |= reads(one)
    return found


def weights(model: onnx.ModelProto) -> dict[str, Array]:
    """All constants by name: initializers, and Constant nodes."""
    found: dict[str, Array] = {}
    for graph in graphs(model.graph):
        found.update((item.name, numpy_helper.to_array(item)) for item in graph.initializer)
        for node in graph.node:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value":
                        found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found
