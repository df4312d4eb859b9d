"""Static int8: QuantizeLinear and DequantizeLinear around what is computed with integers.

Activations are uint8, asymmetric: scale = (max - min) / 255, zero point = round(-min / scale), so
that a ReLU or a Clip at the end of the range vanishes into the rounding. Weights are int8,
symmetric, per output channel: scale = max|w| / 127. Rounding is to the nearest even. Biases are
int32 with scale = scale of the input times that of the weight. On processors with VNNI this pair
(U8S8) is multiplied by one instruction; others must beware of saturation, hence ``narrow``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.registry import QDQRegistry

from modelport.core.errors import UnsupportedError
from modelport.core.quiet import quiet_stderr
from modelport.optimize.onnx_graph import at_least, parse, reads
from modelport.optimize.quantize.ranges import Range
from modelport.optimize.session import simplified

#: Nodes with weights, which are worth quantizing at all.
WEIGHTED: Final = ("Conv", "Gemm", "MatMul")
_OPSET: Final = 13
#: Computed in float32 all the same, with conversions around them, or too fine for 8 bits.
_LEFT_FLOAT: Final = frozenset(
    {"Softmax", "LayerNormalization", "InstanceNormalization", "Where", "Slice", "Sigmoid",
     "LeakyRelu", "EmbedLayerNormalization", "BatchNormalization", "Exp", "Tanh", "Gather"}
)  # fmt: skip


def source_graph(model: bytes) -> onnx.ModelProto:
    """What is quantized: simplified, every node with a name, every Conv and Gemm with a bias.

    Scales per channel came with opset 13; older graphs are converted to it.

    Raises
    ------
    UnsupportedError
        When ONNX Runtime does not load it, or it cannot be converted.
    """
    graph = parse(simplified(at_least(model, _OPSET)))
    for index, node in enumerate(graph.graph.node):
        node.name = node.name or f"{node.op_type}__{index}"
    sizes = _floats(graph.graph)
    for node in graph.graph.node:
        _add_bias(graph.graph, node, sizes)
    return shape_inference.infer_shapes(graph)


def weighted_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes whose second input is a constant matrix or filter of float32, in order."""
    floats = _floats(model.graph)
    return [
        node
        for node in model.graph.node
        if node.op_type in WEIGHTED
        and node.input[1] in floats
        and (node.op_type == "Conv" or len(floats[node.input[1]]) == 2)
    ]


def _floats(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The shapes of the constants of float32."""
    return {
        item.name: tuple(item.dims)
        for item in graph.initializer
        if item.data_type == onnx.TensorProto.FLOAT
    }


def activations(model: onnx.ModelProto) -> list[str]:
    """All tensors of float32 numbers that are computed, with the inputs."""
    floats = {
        value.name
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    constants = {item.name for item in model.graph.initializer}
    named = [value.name for value in model.graph.input]
    named += [name for node in model.graph.node for name in node.output]
    return [name for name in named if name in floats and name not in constants]


def quantize(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    method: str,
    left_float: Collection[str] = (),
    *,
    narrow: bool = False,
) -> onnx.ModelProto:
    """The graph with integers.

    Parameters
    ----------
    model : ModelProto
        Of `source_graph`.
    ranges : mapping of str to Range
        Of `activations`.
    method : str
        How the ranges are cut: `modelport.optimize.quantize.ranges.METHODS`.
    left_float : collection of str
        Names of nodes.
    narrow : bool
        Seven bits for weights: sums of two products then fit the 16 bits that processors
        without VNNI add them in.

    Raises
    ------
    UnsupportedError
        When ONNX Runtime's quantizer does not take it.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    outputs = {value.name for value in model.graph.output}
    # The outliers of an answer are the answer.
    cuts = {
        name: found.cut("minmax" if name in outputs else method) for name, found in ranges.items()
    }
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in cuts.items()
    }
    weighted = {node.name for node in weighted_nodes(model)}
    known = set(activations(model))
    # The quantizer renames and removes what it thinks that nothing reads: it does not look there.
    captured = {name for node in model.graph.node for name in reads(node) - set(node.input)}
    excluded = [
        node.name
        for node in model.graph.node
        if node.name in left_float
        or (node.op_type in WEIGHTED and node.name not in weighted)
        or not all(name in data for name in (*node.input, *node.output) if name in known)
        or not captured.isdisjoint(node.output)
    ]
    kinds = sorted(set(QDQRegistry) - _LEFT_FLOAT)
    try:
        with quiet_stderr():
            quantizer = QDQQuantizer(
                copy, True, narrow, QuantType.QInt8, QuantType.QUInt8,
                TensorsData(CalibrationMethod.MinMax, data), [], excluded, kinds,
                {"ActivationSymmetric": False, "WeightSymmetric": True},
            )  # fmt: skip
            quantizer.quantize_model()
    except Exception as error:  # the quantizer has no common base class for its errors
        raise UnsupportedError(f"the quantizer says: {error}") from error
    quantized: onnx.ModelProto = quantizer.model.model
    _shield(quantized, excluded)
    return quantized


def _shield(model: onnx.ModelProto, names: Collection[str]) -> None:
    """Keep ONNX Runtime from quantizing nodes that were left in float32.

    Between DequantizeLinear and QuantizeLinear it quantizes them all the same when it loads the
    graph, their weights with one scale for the whole tensor (its ``WeightBiasQuantization``, on
    at every level), which loses more than leaving the node in float32 gains. A Clip that clips
    nothing, right before the node, hides the pattern.
    """
    makers = {out: node for node in model.graph.node for out in node.output}
    nodes = []
    for node in model.graph.node:
        maker = makers.get(node.input[0]) if node.name in names and node.input else None
        if maker is not None and maker.op_type == "DequantizeLinear":
            lowest, shielded = f"{node.name}__lowest", f"{node.name}__shielded"
            value = np.array(np.finfo(np.float32).min, dtype=np.float32)
            model.graph.initializer.append(numpy_helper.from_array(value, lowest))
            nodes.append(helper.make_node("Clip", [node.input[0], lowest], [shielded], shielded))
            node.input[0] = shielded
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _add_bias(
    graph: onnx.GraphProto, node: onnx.NodeProto, sizes: Mapping[str, tuple[int, ...]]
) -> None:
    """Give a node a bias of zeros, so that there is something to correct."""
    if node.op_type not in ("Conv", "Gemm") or len(node.input) != 2 or node.input[1] not in sizes:
        return
    shape = sizes[node.input[1]]
    turned = any(a.name == "transB" and a.i for a in node.attribute)
    width = shape[0] if node.op_type == "Conv" or turned else shape[1]
    zeros = numpy_helper.from_array(np.zeros(width, dtype=np.float32), f"{node.name}__bias")
    graph.initializer.append(zeros)
    node.input.append(zeros.name)
