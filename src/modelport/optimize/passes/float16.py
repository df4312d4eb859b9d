"""Half the bytes: weights as float16, or everything as float16.

Weights are rounded to the nearest float16 and widened once at the start, which costs nothing but
rounding; those beyond float16's range become bfloat16, which has float32's range and 8 bits of
precision. Processors without float16 arithmetic compute "everything" in float32 all the same, with
conversions around every operator, so it is usually slower there; where operators or ONNX Runtime
do not take it, it is left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelport.core.errors import EngineError, UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.base import NUMBERS, Progress, Subject, Variant
from modelport.optimize.measure.process import Worker, save_rows
from modelport.optimize.onnx_graph import graphs, nodes, operators, parse, serialize
from modelport.optimize.session import batches, served, simplified

#: Smaller ones are not worth a node.
_LEAST: Final = 1024
_LARGEST: Final = float(np.finfo(np.float16).max)
#: The opset with bfloat16 in Cast.
_BFLOAT16: Final = 13
#: Rows that everything in float16 is tried on, and the error, as a share of the largest output,
#: beyond which a number was too large for it.
_TRIED: Final = 16
_LARGEST_ERROR: Final = 0.05
#: What is float32 by definition, or has a type in an attribute.
_FLOAT32_ONLY: Final = frozenset(
    {"Resize", "Upsample", "NonMaxSuppression", "RoiAlign", "QuantizeLinear", "DequantizeLinear",
     "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "MatMulInteger", "MatMulNBits", "RandomNormal",
     "RandomUniform", "RandomNormalLike", "RandomUniformLike", "EyeLike", "Bernoulli",
     "Multinomial", "HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix", "If",
     "Loop", "Scan", "SequenceMap", "Optional", "SequenceEmpty"}
)  # fmt: skip


class Float16Pass:
    """See the module."""

    name = "float16"
    order = NUMBERS
    #: The largest error on calibration rows of a single operator, as a share of the largest output.
    tolerance = 5e-3

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        found = any(_is_weight(item) for item in _tensors(parse(subject.variant.model)))
        return "" if found else f"no float32 weights of at least {_LEAST} numbers"

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        model = parse(subject.variant.model)
        if any(item.type.HasField("sparse_tensor_type") for item in model.graph.input):
            raise UnsupportedError("sparse inputs")
        opset = max(
            (i.version for i in model.opset_import if i.domain in ("", "ai.onnx")), default=0
        )
        narrowed = sum(_narrow(graph, opset) for graph in graphs(model.graph))
        if not narrowed:
            raise UnsupportedError("weights beyond float16's range, of an opset without bfloat16")
        yield subject.variant.then("float16", serialize(model), weights=narrowed)
        whole = _everything(subject.variant.model)
        if whole is not None and _holds(whole, subject):
            yield subject.variant.then("float16, everything", whole, weights=narrowed)


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """All weights: initializers, and those of Constant nodes."""
    for graph in graphs(model.graph):
        yield from graph.initializer
    for node in nodes(model):
        if node.op_type == "Constant":
            yield from (item.t for item in node.attribute if item.name == "value")


def _is_weight(item: TensorProto) -> bool:
    return item.data_type == TensorProto.FLOAT and int(np.prod(item.dims)) >= _LEAST


def _narrow(graph: onnx.GraphProto, opset: int) -> int:
    """Replace weights by narrow ones and a Cast, which is folded at the start."""
    casts: list[onnx.NodeProto] = []
    names: set[str] = set()
    for item in graph.initializer:
        narrow = _narrowed(item, opset)
        if narrow is not None:
            names.add(item.name)
            casts.append(_widen(narrow.name, item.name))
            item.CopyFrom(narrow)
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        kept.append(node)
        if node.op_type != "Constant" or node.attribute[0].name != "value":
            continue
        narrow = _narrowed(node.attribute[0].t, opset, node.output[0])
        if narrow is not None:
            kept.append(_widen(narrow.name, node.output[0]))
            node.attribute[0].t.CopyFrom(narrow)
            node.output[0] = narrow.name
    count = len(names) + len(kept) - len(graph.node)
    # In graphs of early versions weights are inputs with a default, too.
    inputs = [value for value in graph.input if value.name not in names]
    _replace(graph.input, inputs)
    # Before everything that uses them: nodes are in the order of their use.
    _replace(graph.node, [*casts, *kept])
    return count


def _narrowed(item: TensorProto, opset: int, name: str = "") -> TensorProto | None:
    if not _is_weight(item):
        return None
    array: Array = numpy_helper.to_array(item)
    fits = bool(np.abs(array).max(initial=0.0) < _LARGEST)
    if not fits and opset < _BFLOAT16:
        return None
    kind = np.float16 if fits else ml_dtypes.bfloat16
    return numpy_helper.from_array(array.astype(kind), f"{name or item.name}__narrow")


def _widen(source: str, name: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [name], f"{name}__widen", to=TensorProto.FLOAT)


def _everything(model: bytes) -> bytes | None:
    """All float32 as float16, with inputs and outputs as they were; None: it cannot be."""
    graph = parse(simplified(model))
    standard = all(item.domain in ("", "ai.onnx") for item in graph.graph.node)
    if not standard or operators(graph) & _FLOAT32_ONLY:
        return None
    for item in _tensors(graph):
        if item.data_type == TensorProto.FLOAT:
            array = np.clip(numpy_helper.to_array(item), -_LARGEST, _LARGEST).astype(np.float16)
            item.CopyFrom(numpy_helper.from_array(array, item.name))
    for node in graph.graph.node:
        for item in node.attribute:
            if node.op_type == "Cast" and item.name == "to" and item.i == TensorProto.FLOAT:
                item.i = TensorProto.FLOAT16
            if item.type == onnx.AttributeProto.TENSOR and item.t.data_type == TensorProto.FLOAT:
                array = numpy_helper.to_array(item.t).astype(np.float16)
                item.t.CopyFrom(numpy_helper.from_array(array))
    del graph.graph.value_info[:]
    _bridge(graph.graph)
    return serialize(graph)


def _holds(model: bytes, subject: Subject) -> bool:
    """Whether it loads, runs, and nothing in it is beyond float16's range."""
    original = parse(subject.variant.model)
    rows = next(batches(original, subject.rows, _TRIED), subject.rows)
    try:
        before = served(original, rows)
    except UnsupportedError:
        return False
    after = _answers_apart(replace(subject.variant, model=model), rows)
    if after is None:
        return False  # an operator without float16 is in it
    for name, wanted in before.items():
        if wanted.dtype.kind != "f" or not wanted.size:
            continue
        error = np.abs(wanted.astype(np.float64) - after[name])
        if not bool(error.max() <= _LARGEST_ERROR * np.abs(wanted).max()):
            return False
    return True


def _answers_apart(variant: Variant, rows: Tensors) -> dict[str, Array] | None:
    """What it answers in a process of its own; None: it does not.

    ONNX Runtime ends with a segmentation fault when it lays out some graphs of float16, those of
    small encoders among them.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
            save_rows(Path(folder, "rows"), rows)
            with Worker(variant, 1, Path(folder)) as worker:
                count = len(next(iter(rows.values())))
                return worker.answers(Path(folder, "rows"), count)
    except EngineError:
        return None


def _bridge(graph: onnx.GraphProto) -> None:
    """Conversions behind the inputs and before the outputs."""
    constants = {item.name for item in graph.initializer}
    renamed: dict[str, str] = {}
    first, last = [], []
    for value in graph.input:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT and value.name not in constants:
            renamed[value.name] = f"{value.name}__float16"
            first.append(
                helper.make_node(
                    "Cast", [value.name], [renamed[value.name]], to=TensorProto.FLOAT16
                )
            )
    for value in graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            inner = renamed.get(value.name, f"{value.name}__float16")
            renamed[value.name] = inner
            last.append(_widen(inner, value.name))
    for node in graph.node:
        for names in (node.input, node.output):
            _replace(names, [renamed.get(name, name) for name in names])
    _replace(graph.node, [*first, *graph.node, *last])


def _replace(field: Any, items: Sequence[Any]) -> None:
    """The contents of a repeated field, which may be made of what is in it."""
    copies = []
    for item in items:
        copy = item
        if not isinstance(item, str):
            copy = type(item)()
            copy.CopyFrom(item)
        copies.append(copy)
    del field[:]
    field.extend(copies)
