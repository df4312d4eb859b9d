"""Edits of ONNX graphs that exporters leave to be done.

An exporter names inputs, outputs and shapes its own way. The edits here give a graph the names,
element types and shapes of a signature, and the same bytes for the same model every time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelport.core.tensors import STRING, Array, TensorSpec

ELEMENT_TYPES: Final[dict[str, int]] = {
    STRING: onnx.TensorProto.STRING,
    **{
        name: helper.np_dtype_to_tensor_dtype(np.dtype(name))
        for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
                     "uint64", "float16", "float32", "float64")
    },
}  # fmt: skip

_NUMBERED: Final = re.compile(r"UU\d{3,}UU")


@dataclass(frozen=True)
class OutputPlan:
    """An output as the exporter made it, and as it shall be.

    Parameters
    ----------
    tensor : str
        The tensor in the exporter's graph.
    spec : TensorSpec
        Its new name, element type and shape; the first dimension is the batch.
    """

    tensor: str
    spec: TensorSpec


def attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    """A node's attribute of that name."""
    return next((a for a in node.attribute if a.name == name), None)


def set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    """Set or replace a node's attribute."""
    drop_attributes(node, (name,))
    node.attribute.append(helper.make_attribute(name, value))


def drop_attributes(node: onnx.NodeProto, names: Iterable[str]) -> None:
    """Remove a node's attributes of those names."""
    unwanted = set(names)
    kept = [a for a in node.attribute if a.name not in unwanted]
    del node.attribute[:]
    node.attribute.extend(kept)


def set_inputs(
    graph: onnx.GraphProto, names: Mapping[str, str], specs: Sequence[TensorSpec]
) -> None:
    """Rename the inputs and declare their shapes.

    Parameters
    ----------
    names : mapping of str to str
        The exporter's name of each input → the new one.
    specs : sequence of TensorSpec
        By new name.
    """
    by_name = {spec.name: spec for spec in specs}
    for node in all_nodes(graph):
        for position, name in enumerate(node.input):
            node.input[position] = names.get(name, name)
    declared = [_value_info(by_name[names[value.name]]) for value in graph.input]
    del graph.input[:]
    graph.input.extend(declared)


def free_names(graph: onnx.GraphProto, wanted: Iterable[str]) -> None:
    """Rename tensors that bear one of the `wanted` names."""
    taken = set(wanted)
    _rename_all(graph, lambda name: f"{name}__inner" if name in taken else name)


def set_outputs(graph: onnx.GraphProto, plans: Sequence[OutputPlan]) -> None:
    """Make exactly the planned outputs: cast, shaped and named."""
    declared = {value.name: value.type.tensor_type for value in graph.output}
    del graph.output[:]
    for plan in plans:
        for node in _finish(plan, declared[plan.tensor]):
            graph.node.append(node)
        for name, array in _shape_constants(plan, declared[plan.tensor]):
            graph.initializer.append(numpy_helper.from_array(array, name))
        graph.output.append(_value_info(plan.spec))


def _finish(plan: OutputPlan, declared: onnx.TypeProto.Tensor) -> Iterator[onnx.NodeProto]:
    spec = plan.spec
    shaped = plan.tensor
    for name, _ in _shape_constants(plan, declared):
        if len(spec.shape) == 1 and _rank(declared) == 2:
            yield helper.make_node("Gather", [shaped, name], [f"{spec.name}__shaped"], axis=1)
        else:
            yield helper.make_node("Reshape", [shaped, name], [f"{spec.name}__shaped"])
        shaped = f"{spec.name}__shaped"
    if spec.dtype == STRING:
        yield helper.make_node("Identity", [shaped], [spec.name])
    else:
        yield helper.make_node("Cast", [shaped], [spec.name], to=ELEMENT_TYPES[spec.dtype])


def _shape_constants(plan: OutputPlan, declared: onnx.TypeProto.Tensor) -> list[tuple[str, Array]]:
    trailing = plan.spec.shape[1:]
    if not trailing and _rank(declared) == 2:
        # One column; of two (a binary classifier's) the last is the positive class.
        return [(f"{plan.spec.name}__column", np.asarray(-1, dtype=np.int64))]
    return [(f"{plan.spec.name}__shape", np.asarray([-1, *trailing], dtype=np.int64))]


def _rank(declared: onnx.TypeProto.Tensor) -> int:
    return len(declared.shape.dim) if declared.HasField("shape") else 0


def _value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, ELEMENT_TYPES[spec.dtype], list(spec.shape))


def prune(graph: onnx.GraphProto) -> set[str]:
    """Drop nodes and initializers that no output needs; return the inputs that one does."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(_in_order(graph)):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
            for inner in subgraphs(node):
                needed.update(name for n in all_nodes(inner) for name in n.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    initializers = [i for i in graph.initializer if i.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    used = {value.name for value in graph.input} & needed
    inputs = [value for value in graph.input if value.name in used]
    del graph.input[:]
    graph.input.extend(inputs)
    return used


def _in_order(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes, each after those whose outputs it takes."""
    ready = {"", *(v.name for v in graph.input), *(i.name for i in graph.initializer)}
    made = {name for node in graph.node for name in node.output}
    waiting = list(graph.node)
    ordered: list[onnx.NodeProto] = []
    while waiting:
        # Names from outside the graph (a subgraph's) are there already.
        runnable = [n for n in waiting if all(i in ready or i not in made for i in _taken_by(n))]
        if not runnable:
            return [*ordered, *waiting]
        ordered += runnable
        ready.update(name for node in runnable for name in node.output)
        taken = {id(node) for node in runnable}
        waiting = [node for node in waiting if id(node) not in taken]
    return ordered


def _taken_by(node: onnx.NodeProto) -> Iterator[str]:
    """What a node takes, and what the nodes in its subgraphs take."""
    yield from node.input
    for inner in subgraphs(node):
        for part in all_nodes(inner):
            yield from part.input


def insert_casts(graph: onnx.GraphProto, tensors: Iterable[str], dtype: str) -> None:
    """Cast each tensor, where it is made, to `dtype` for all who take it."""
    for tensor in tensors:
        maker = next(node for node in graph.node if tensor in node.output)
        raw = f"{tensor}__uncast"
        maker.output[list(maker.output).index(tensor)] = raw
        graph.node.append(helper.make_node("Cast", [raw], [tensor], to=ELEMENT_TYPES[dtype]))


def serialise(model: onnx.ModelProto, opset: Mapping[str, int]) -> bytes:
    """The model file: checked, without times or names of this machine.

    Parameters
    ----------
    opset : mapping of str to int
        Versions by domain; other domains stay as they are.

    Raises
    ------
    onnx.checker.ValidationError
        When the graph is not valid.
    """
    others = {o.domain: o.version for o in model.opset_import if o.domain not in opset}
    used = {node.domain for node in all_nodes(model.graph)} | {""}
    del model.opset_import[:]
    model.opset_import.extend(
        helper.make_opsetid(domain, version)
        for domain, version in sorted({**others, **opset}.items())
        if domain in used
    )
    model.doc_string = model.graph.doc_string = ""
    model.graph.name = "model"
    del model.graph.value_info[:]
    ordered = _in_order(model.graph)
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    _renumber(model.graph)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _renumber(graph: onnx.GraphProto) -> None:
    """Number skl2onnx's inner names by appearance; it counts on from one model to the next."""
    kept = {"", *(value.name for value in (*graph.input, *graph.output))}
    local = set(_names_made_insubgraphs(graph))
    numbers: dict[str, str] = {}

    def number(name: str) -> str:
        return numbers.setdefault(name, f"inner{len(numbers)}")

    def renumbered(name: str) -> str:
        if name in kept:
            return name
        return number(name) if name in local else _NUMBERED.sub(lambda m: number(m[0]), name)

    _rename_all(graph, renumbered)


def _names_made_insubgraphs(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        for inner in subgraphs(node):
            yield inner.name
            yield from (value.name for value in (*inner.input, *inner.initializer))
            for made in inner.node:
                yield made.name
                yield from made.output
            yield from _names_made_insubgraphs(inner)


def _rename_all(graph: onnx.GraphProto, rename: Callable[[str], str]) -> None:
    for node in graph.node:
        node.name = rename(node.name)
        for side in (node.input, node.output):
            for position, name in enumerate(side):
                side[position] = rename(name)
        for inner in subgraphs(node):
            inner.name = rename(inner.name)
            _rename_all(inner, rename)
    for value in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        value.name = rename(value.name)


def opset_of(model: onnx.ModelProto) -> dict[str, int]:
    """Operator set versions by domain."""
    return {opset.domain: opset.version for opset in model.opset_import}


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node: branches and bodies."""
    for item in node.attribute:
        if item.type == onnx.AttributeProto.GRAPH:
            yield item.g
        yield from item.graphs


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of all graphs inside them."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner)
