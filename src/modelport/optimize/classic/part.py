"""The part of a graph that some tensors depend on: what lies beyond is neither loaded nor run."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx
from onnx import helper

from modelport.core.tensors import Array
from modelport.optimize.onnx_graph import reads


def part(
    model: onnx.ModelProto, names: Collection[str], given: Mapping[str, Array] | None = None
) -> onnx.ModelProto:
    """A graph of the nodes that make some tensors, without outputs of its own.

    Parameters
    ----------
    names : collection of str
    given : mapping of str to ndarray, optional
        Tensors that the part takes instead of making them, and what they are like; the inputs of
        the graph otherwise.
    """
    graph, given = model.graph, given or {}
    needed, chosen = set(names) - set(given), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            chosen.append(node)
            needed |= reads(node) - set(given)
    made = onnx.ModelProto(ir_version=model.ir_version)
    made.opset_import.extend(model.opset_import)
    made.functions.extend(model.functions)
    made.graph.name = "part"
    made.graph.node.extend(reversed(chosen))
    made.graph.initializer.extend(item for item in graph.initializer if item.name in needed)
    made.graph.input.extend(value for value in graph.input if not given or value.name in needed)
    for name, array in given.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        made.graph.input.append(helper.make_tensor_value_info(name, kind, None))
    return made


def before(model: onnx.ModelProto, operators: Collection[str]) -> list[str]:
    """The tensors that nodes make which do not depend on these operators."""
    beyond: set[str] = set()
    found: list[str] = []
    for node in model.graph.node:
        if node.op_type in operators or reads(node) & beyond:
            beyond.update(node.output)
        else:
            found += [name for name in node.output if name]
    return found
