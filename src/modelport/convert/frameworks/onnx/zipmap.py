"""Classifiers that answer with dictionaries, as skl2onnx makes them unless told otherwise."""

from __future__ import annotations

import onnx
from onnx import helper

from modelport.convert.graphs.edits import attribute
from modelport.core.tensors import STRING, TensorSpec


def without_zipmaps(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, tuple[str, ...]]]:
    """Let the outputs be the tensors that ``ZipMap`` makes dictionaries of.

    Returns
    -------
    proto : onnx.ModelProto
        A copy, where there is something to change.
    labels : dict of str to tuple of str
        By output: which label each column is for.
    """
    zipmaps = [n for n in proto.graph.node if n.op_type == "ZipMap" and n.domain == "ai.onnx.ml"]
    wanted = {value.name for value in proto.graph.output}
    if not any(node.output[0] in wanted for node in zipmaps):
        return proto, {}
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    labels: dict[str, tuple[str, ...]] = {}
    for node in [n for n in copy.graph.node if n.op_type == "ZipMap" and n.output[0] in wanted]:
        labels[node.output[0]] = _labels(node)
        node.op_type, node.domain = "Identity", ""
        del node.attribute[:]
    for value in copy.graph.output:
        if value.name in labels:
            shape = [None, len(labels[value.name])]
            value.CopyFrom(helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, shape))
    if not any(opset.domain == "" for opset in copy.opset_import):
        copy.opset_import.append(helper.make_opsetid("", 9))
    return copy, labels


def _labels(node: onnx.NodeProto) -> tuple[str, ...]:
    texts = attribute(node, "classlabels_strings")
    if texts is not None and texts.strings:
        return tuple(text.decode() for text in texts.strings)
    numbers = attribute(node, "classlabels_int64s")
    return tuple(str(number) for number in (numbers.ints if numbers is not None else ()))


def with_columns(spec: TensorSpec, labels: tuple[str, ...]) -> TensorSpec:
    """The specification with the labels as names of its columns."""
    if not labels or spec.dtype == STRING:
        return spec
    return TensorSpec(spec.name, spec.dtype, spec.shape, labels, spec.refuses)
