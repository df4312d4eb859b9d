"""What quantizing moves is moved back, layer by layer: means by biases, and scale by scale.

For each node with weights, in order: its output y over the calibration rows in the float graph,
and y' in the quantized one as corrected so far. Sums of roundings and cuts shrink what is computed
by a little at every layer. The scales of the weights are multiplied by

    a = sum over channels of cov(y, y') / sum over channels of var(y')

one number per layer, since the few rows that there are tell no more; and to the bias of each
channel mean(y) - a * mean(y') is added (Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", 2019, section 4.2, with real rows instead of assumed
distributions).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from modelport.core.tensors import Array, Tensors
from modelport.optimize.onnx_graph import attribute, reads
from modelport.optimize.session import Walk

_BATCH: Final = 4
#: Beyond an int32 with head room for the sums.
_LARGEST: Final = 2**30
#: What a layer may have shrunk or grown by; more is not what rounding does.
_MOST: Final = 1.1


def correct(
    source: onnx.ModelProto,
    quantized: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    rows: Tensors,
) -> int:
    """Correct `quantized` in place; how many nodes were corrected.

    Parameters
    ----------
    source : ModelProto
        In float32.
    quantized : ModelProto
    nodes : sequence of NodeProto
        Those of `source` with weights, in order.
    rows : mapping of str to ndarray
        A few dozen are enough.
    """
    layers = _layers(quantized)
    before, after = Walk(source, rows, _BATCH), Walk(quantized, rows, _BATCH)
    corrected = 0
    for node in nodes:
        layer = layers.get(node.name)
        if layer is None:
            continue
        wanted, found = before.to(node.output[0]), after.to(layer.output)
        if len(wanted) and wanted[0].size:
            layer.correct(wanted, found)
            corrected += 1
    return corrected


@dataclass(frozen=True)
class _Layer:
    """What of a quantized node is its own, and not shared with others.

    Parameters
    ----------
    output : str
    bias : TensorProto
        Of int32.
    bias_scales, weight_scales : TensorProto
        Of float32: one number, or one per channel.
    """

    output: str
    bias: TensorProto
    bias_scales: TensorProto
    weight_scales: TensorProto

    def correct(self, wanted: Sequence[Array], found: Sequence[Array]) -> None:
        """Correct the constants, and with them what was computed: the batches of `found`."""
        mean, other, slope = _statistics(wanted, found)
        scales = numpy_helper.to_array(self.bias_scales).astype(np.float64)
        bias = numpy_helper.to_array(self.bias).astype(np.float64)
        for item in (self.bias_scales, self.weight_scales):
            array = numpy_helper.to_array(item)
            scaled = np.asarray(array * slope, dtype=array.dtype)
            item.CopyFrom(numpy_helper.from_array(scaled, item.name))
        without = other - bias * scales
        moved = np.round((mean - slope * without) / (scales * slope))
        moved = np.clip(moved, -_LARGEST, _LARGEST)
        self.bias.CopyFrom(numpy_helper.from_array(moved.astype(np.int32), self.bias.name))
        shift = slope * (moved - bias) * scales
        for part in found:
            part *= part.dtype.type(slope)
            part += shift.astype(part.dtype).reshape(1, -1, *[1] * (part.ndim - 2))


def _statistics(wanted: Sequence[Array], found: Sequence[Array]) -> tuple[Array, Array, float]:
    """Means per channel, which is the second axis, and the slope of the layer."""
    count = sum(part.size // part.shape[1] for part in wanted)
    mean, other = (sum(map(_sums, parts)) / count for parts in (wanted, found))
    mixed = squares = 0.0
    for one, two in zip(wanted, found, strict=True):
        shape = (1, -1, *[1] * (two.ndim - 2))
        centred = two - other.reshape(shape).astype(two.dtype)
        mixed += float(np.sum(centred * (one - mean.reshape(shape).astype(one.dtype))))
        squares += float(np.sum(centred**2))
    slope = mixed / squares if squares > 0 else 1.0
    return mean, other, slope if 1 / _MOST < slope < _MOST else 1.0


def _sums(array: Array) -> Array:
    axes = tuple(axis for axis in range(array.ndim) if axis != 1)
    found: Array = array.sum(axis=axes, dtype=np.float64)
    return found


def _layers(model: onnx.ModelProto) -> dict[str, _Layer]:
    """The quantized nodes with a bias, by their names."""
    readers = Counter(name for node in model.graph.node for name in reads(node))
    makers = {out: node for node in model.graph.node for out in node.output}
    constants = {item.name: item for item in model.graph.initializer}

    def widened(name: str) -> list[TensorProto]:
        """The constants of a DequantizeLinear that nothing else reads."""
        maker = makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear" or readers[name] > 1:
            return []
        return [constants[one] for one in maker.input[:2] if one in constants and readers[one] == 1]

    found: dict[str, _Layer] = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3:
            continue
        weights, bias = widened(node.input[1]), widened(node.input[2])
        plain = node.op_type == "Conv" or attribute(node, "beta", 1.0) == 1.0
        if plain and len(weights) == len(bias) == 2 and len(bias[0].dims) == 1:
            found[node.name] = _Layer(node.output[0], bias[0], bias[1], weights[1])
    return found
