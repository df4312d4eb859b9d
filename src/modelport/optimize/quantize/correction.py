"""Quantization moves the mean of every channel; the bias moves it back, layer by layer.

For each node with weights, in order: the mean of its output over the calibration rows, in the
float graph and in the quantized one as corrected so far; the difference is added to the bias
(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019,
section 4.2, with real rows instead of assumed distributions).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from modelport.core.tensors import Array, Tensors
from modelport.optimize.quantize.static import bias_of
from modelport.optimize.session import Probe, Walk, batches

_BATCH: Final = 4
#: Beyond an int32 with head room for the sums.
_LARGEST: Final = 2**30


def correct_biases(
    source: onnx.ModelProto,
    quantized: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    rows: Tensors,
    *,
    deadline: float = float("inf"),
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
    deadline : float
        In the time of `time.monotonic`; later nodes are left as they are.
    """
    outputs = {node.name: node.output[0] for node in nodes if node.op_type != "MatMul"}
    wanted = _means(source, list(outputs.values()), rows)
    made = {node.name: node.output[0] for node in quantized.graph.node}
    walk = Walk(quantized, rows, _BATCH)
    corrected = 0
    for name, tensor in outputs.items():
        bias = bias_of(quantized, name)
        if bias is None or name not in made:
            continue
        if time.monotonic() > deadline:
            break
        integer, scales = bias
        parts = walk.to(made[name])
        total = sum(_sums(part) for part in parts)
        found = total / sum(part.size // part.shape[1] for part in parts)
        steps = np.round((wanted[tensor] - found) / scales)
        before = numpy_helper.to_array(integer).astype(np.int64)
        after = np.clip(before + steps, -_LARGEST, _LARGEST).astype(np.int32)
        integer.CopyFrom(numpy_helper.from_array(after, integer.name))
        for part in parts:
            shift = ((after - before) * scales).astype(part.dtype)
            part += shift.reshape(1, -1, *[1] * (part.ndim - 2))
        corrected += 1
    return corrected


def _means(model: onnx.ModelProto, tensors: Sequence[str], rows: Tensors) -> dict[str, Array]:
    """Per channel: the second axis of images, the last one of matrices."""
    probe = Probe(model, tensors, optimize=True)
    sums: dict[str, Array] = {}
    counts: dict[str, int] = {}
    for batch in batches(model, rows, _BATCH):
        for name, array in probe.run(batch, tensors).items():
            sums[name] = sums.get(name, 0.0) + _sums(array)
            counts[name] = counts.get(name, 0) + array.size // array.shape[1]
    return {name: total / counts[name] for name, total in sums.items()}


def _sums(array: Array) -> Array:
    axes = tuple(axis for axis in range(array.ndim) if axis != 1)
    found: Array = array.sum(axis=axes, dtype=np.float64)
    return found
