"""What passes ask about ONNX graphs: nodes and weights, also inside subgraphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx
from onnx import numpy_helper

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array

_MOST: Final = 2**31 - 1


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


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all graphs inside it: branches and loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)
            for inner in attribute.graphs:
                yield from graphs(inner)


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes."""
    for graph in graphs(model.graph):
        yield from graph.node


def operators(model: onnx.ModelProto) -> set[str]:
    """Types of all nodes."""
    return {node.op_type for node in nodes(model)}


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
