"""An exporter's graph in the signature's words, without traces of the machine that made it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Final

import onnx
from onnx import helper

from modelport.convert.graphs.edits import ELEMENT_TYPES, opset_of, serialise
from modelport.core.signature import Signature
from modelport.core.tensors import TensorSpec

#: ONNX Runtime skips NaN in these where PyTorch passes it on; infinities can become NaN inside.
_SKIP_NAN: Final = frozenset(
    ("MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "ThresholdedRelu", "TopK", "ArgMax",
     "ArgMin", "LSTM", "GRU", "RNN")
)  # fmt: skip


def finish(
    model: onnx.ModelProto, signature: Signature, finite: Collection[str]
) -> tuple[bytes, Signature, tuple[str, ...]]:
    """Declare the signature's shapes, drop traces of the source, serialise.

    Parameters
    ----------
    model : onnx.ModelProto
        Its inputs and outputs are named as the signature's.
    signature : Signature
    finite : collection of str
        Inputs without NaN and infinities in the sample.

    Returns
    -------
    bytes
    Signature
        Without inputs that the exporter found unused and dropped; it refuses NaN and infinities
        that ONNX Runtime would not answer as PyTorch does.
    notes : tuple of str
    """
    inputs = {value.name for value in model.graph.input}
    signature = Signature(
        tuple(spec for spec in signature.inputs if spec.name in inputs), signature.outputs
    )
    skipping = sorted({n.op_type for g in _all_graphs(model.graph) for n in g.node} & _SKIP_NAN)
    notes: tuple[str, ...] = ()
    if skipping:
        signature = _refusing(signature, finite)
        notes = (
            f"NaN and infinity are refused: ONNX Runtime's {', '.join(skipping)} would skip NaN, "
            "and PyTorch's does not",
        )
    for values, specs in (
        (model.graph.input, signature.inputs),
        (model.graph.output, signature.outputs),
    ):
        del values[:]
        values.extend(_declared(spec) for spec in specs)
    del model.metadata_props[:]
    for graph in _all_graphs(model.graph):
        _strip(graph)
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        _strip_nodes(function.node)
    return serialise(model, opset_of(model)), signature, notes


def _refusing(signature: Signature, finite: Collection[str]) -> Signature:
    inputs = tuple(
        replace(spec, refuses=("nan", "infinity"))
        if spec.numpy_dtype.kind == "f" and spec.name in finite
        else spec
        for spec in signature.inputs
    )
    return Signature(inputs, signature.outputs)


def _declared(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, ELEMENT_TYPES[spec.dtype], list(spec.shape))


def _all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for item in node.attribute:
            if item.type == onnx.AttributeProto.GRAPH:
                yield from _all_graphs(item.g)


def _strip(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
