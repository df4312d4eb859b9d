"""A student's graph with the inputs and outputs of the original, so that it can stand in for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelport.core.errors import UnsupportedError
from modelport.core.signature import Signature
from modelport.core.tensors import STRING, Array, TensorSpec
from modelport.optimize.given.labels import LabelOutput
from modelport.optimize.given.lesson import Head
from modelport.optimize.given.scale import Scale, Scaling
from modelport.optimize.onnx_graph import graphs, nodes, parse, serialize, weights

_PREFIX: Final = "student/"


def stand_in(
    student: bytes,
    taken: Signature,
    original: Signature,
    heads: Sequence[Head],
    labels: Sequence[LabelOutput],
    scaling: Scaling,
) -> bytes:
    """Rename a student's inputs and outputs, and add what it does not answer itself.

    Parameters
    ----------
    student : bytes
        Its graph.
    taken : Signature
        What it takes and gives.
    original : Signature
        What the engine of the package takes and gives.
    heads : sequence of Head
        By the order of the student's outputs.
    labels : sequence of LabelOutput
    scaling : Scaling
        What happens around it.

    Raises
    ------
    UnsupportedError
        When it takes less than the original does.
    """
    _check(taken, original, heads)
    model = parse(student)
    graph = model.graph
    around = _Around(original)
    names: dict[str, str] = {}
    for mine, spec, scale in zip(taken.inputs, original.inputs, scaling.inputs, strict=True):
        names[mine.name] = around.into(spec, mine.dtype, scale)
    for mine, head, scale in zip(taken.outputs, heads, scaling.outputs, strict=True):
        around.out_of(_PREFIX + mine.name, mine.dtype, head, scale)
    for label in labels:
        around.label(label)
    _rename(graph, lambda name: names.get(name, _PREFIX + name))
    merged = [*around.before, *graph.node, *around.after]
    graph.initializer.extend(around.constants)
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(merged)
    graph.input.extend(map(_value, original.inputs))
    graph.output.extend(map(_value, original.outputs))
    return serialize(model)


def class_tables(model: bytes) -> list[Array]:
    """Constants of a model that may be names of classes."""
    graph = parse(model)
    found = [array for array in weights(graph).values() if array.ndim == 1]
    for node in nodes(graph):
        for item in node.attribute:
            if item.name == "classlabels_int64s":
                found.append(np.asarray(item.ints, dtype=np.int64))
            elif item.name in ("classlabels_strings", "keys_strings", "values_strings"):
                found.append(np.asarray([text.decode() for text in item.strings], dtype=object))
    return [_decoded(array) if array.dtype == object else array for array in found]


def _decoded(array: Array) -> Array:
    return np.asarray([x.decode() if isinstance(x, bytes) else x for x in array], dtype=object)


def _check(taken: Signature, original: Signature, heads: Sequence[Head]) -> None:
    if len(taken.inputs) != len(original.inputs) or len(taken.outputs) != len(heads):
        raise UnsupportedError(
            f"in ONNX the student takes {described(taken.inputs)} and answers "
            f"{described(taken.outputs)}; the original takes {described(original.inputs)}"
        )
    for mine, spec in zip(taken.inputs, original.inputs, strict=True):
        castable = mine.dtype == spec.dtype or (
            mine.numpy_dtype.kind == "f" and spec.numpy_dtype.kind == "f"
        )
        narrower = len(mine.shape) != len(spec.shape) or any(
            isinstance(size, int) and size != theirs
            for size, theirs in zip(mine.shape, spec.shape, strict=False)
        )
        if narrower or not castable:
            raise UnsupportedError(
                f"the student takes {described([mine])} where the original takes "
                f"{described([spec])}, which is more"
            )


def described(specs: Sequence[TensorSpec]) -> str:
    """Inputs or outputs for people."""
    return ", ".join(f"{spec.name} {spec.dtype} {spec.shape_text}" for spec in specs)


class _Around:
    """Nodes before and after a student."""

    def __init__(self, original: Signature) -> None:
        self.before: list[onnx.NodeProto] = []
        self.after: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._outputs = original.outputs_by_name

    def into(self, spec: TensorSpec, dtype: str, scale: Scale | None) -> str:
        """From an input of the original's to the student's; the latter's name."""
        name, add = spec.name, self.before
        if scale is not None:
            name = self._node(add, "Sub", name, self._constant(scale.mean, spec.dtype))
            name = self._node(add, "Div", name, self._constant(scale.deviation, spec.dtype))
        return name if dtype == spec.dtype else self._node(add, "Cast", name, to=_element(dtype))

    def out_of(self, name: str, dtype: str, head: Head, scale: Scale | None) -> None:
        """From an output of the student's to the original's."""
        spec, add = self._outputs[head.name], self.after
        if head.softmax:
            name = self._node(add, "Softmax", name, axis=-1)
        if dtype != spec.dtype:
            name = self._node(add, "Cast", name, to=_element(spec.dtype))
        if scale is not None:
            name = self._node(add, "Mul", name, self._constant(scale.deviation, spec.dtype))
            name = self._node(add, "Add", name, self._constant(scale.mean, spec.dtype))
        self._give(name, head.name)

    def label(self, label: LabelOutput) -> None:
        """The place of the largest score, looked up in the table of labels."""
        table = numpy_helper.from_array(label.table, f"{_PREFIX}{label.name}/labels")
        self.constants.append(table)
        keep = int(len(self._outputs[label.name].shape) > 1)
        place = self._node(self.after, "ArgMax", label.scores, axis=1, keepdims=keep)
        self._give(self._node(self.after, "Gather", table.name, place, axis=0), label.name)

    def _give(self, name: str, output: str) -> None:
        self.after.append(helper.make_node("Identity", [name], [output], f"{_PREFIX}{output}"))

    def _constant(self, value: Array, dtype: str) -> str:
        name = f"{_PREFIX}around/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value.astype(np.dtype(dtype)), name))
        return name

    def _node(
        self, nodes: list[onnx.NodeProto], operator: str, *inputs: str, **attributes: Any
    ) -> str:
        name = f"{_PREFIX}around/{operator}_{len(self.before) + len(self.after)}"
        nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name


def _rename(graph: onnx.GraphProto, named: Callable[[str], str]) -> None:
    """Give every tensor another name, in branches and loops, too."""

    def renamed(names: Any) -> None:
        for at, name in enumerate(names):
            if name:
                names[at] = named(name)

    for inner in graphs(graph):
        for node in inner.node:
            renamed(node.input)
            renamed(node.output)
        for item in (*inner.initializer, *inner.input, *inner.output, *inner.value_info):
            item.name = named(item.name)
        for sparse in inner.sparse_initializer:
            sparse.values.name = named(sparse.values.name)


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, _element(spec.dtype), list(spec.shape))


def _element(dtype: str) -> int:
    if dtype == STRING:
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
