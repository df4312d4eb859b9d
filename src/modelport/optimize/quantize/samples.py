"""What the weights of a node see: its inputs as rows of a matrix, and its weights as another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from modelport.core.tensors import Array
from modelport.optimize.onnx_graph import attribute


def shape_of(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> tuple[int, int]:
    """Groups, and inputs per output; (1, 0) of what is not supported."""
    dims = constants[node.input[1]].dims
    if node.op_type == "Conv":
        return attribute(node, "group", 1), int(np.prod(dims[1:]))
    if len(dims) != 2 or attribute(node, "transA", 0):
        return 1, 0
    return 1, dims[1 if attribute(node, "transB", 0) else 0]


def as_matrix(node: onnx.NodeProto, weights: Array, groups: int) -> Array:
    """The weights of a node as a matrix: shape (groups, outputs, inputs)."""
    if node.op_type == "Conv":
        return weights.reshape(groups, len(weights) // groups, -1)
    return weights[None] if attribute(node, "transB", 0) else weights.T[None]


def from_matrix(node: onnx.NodeProto, matrix: Array, shape: tuple[int, ...]) -> Array:
    """The weights of a node from a matrix of `as_matrix`."""
    if node.op_type == "Conv" or attribute(node, "transB", 0):
        return np.ascontiguousarray(matrix.reshape(shape))
    return np.ascontiguousarray(matrix[0].T)


def vectors(inputs: Array, samples: int, random: np.random.Generator) -> Array:
    """What a matrix is multiplied with, so many of them: shape (1, samples, inputs)."""
    flat = inputs.reshape(-1, inputs.shape[-1]).astype(np.float32)
    if len(flat) > samples:
        flat = flat[random.choice(len(flat), samples, replace=False)]
    return flat[None]


def patches(
    node: onnx.NodeProto,
    inputs: Array,
    dims: Sequence[int],
    groups: int,
    samples: int,
    random: np.random.Generator,
) -> Array:
    """What the filter sees at random places: shape (groups, samples, inputs)."""
    kernel, sizes = dims[2:], inputs.shape[2:]
    strides = attribute(node, "strides", [1] * len(kernel))
    dilations = attribute(node, "dilations", [1] * len(kernel))
    begins, counts = _places(node, sizes, kernel, strides, dilations)
    picks = random.integers(0, len(inputs), samples)
    starts = [
        random.integers(0, max(count, 1), samples) * stride - begin
        for count, stride, begin in zip(counts, strides, begins, strict=True)
    ]
    found = np.empty((samples, inputs.shape[1], int(np.prod(kernel))), dtype=np.float32)
    for index, offsets in enumerate(np.ndindex(*kernel)):
        places = [s + o * d for s, o, d in zip(starts, offsets, dilations, strict=True)]
        inside = np.all(
            [(place >= 0) & (place < size) for place, size in zip(places, sizes, strict=True)],
            axis=0,
        )
        clipped = [np.clip(p, 0, size - 1) for p, size in zip(places, sizes, strict=True)]
        found[:, :, index] = inputs[(picks, slice(None), *clipped)] * inside[:, None]
    return found.reshape(samples, groups, -1).transpose(1, 0, 2)


def _places(
    node: onnx.NodeProto,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[list[int], list[int]]:
    """The padding before each axis, and the number of outputs along it."""
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    auto = attribute(node, "auto_pad", b"NOTSET").decode()
    if auto.startswith("SAME"):
        counts = [-(-size // stride) for size, stride in zip(sizes, strides, strict=True)]
        totals = [
            max((count - 1) * stride + span - size, 0)
            for count, stride, span, size in zip(counts, strides, spans, sizes, strict=True)
        ]
        return [(total + (auto == "SAME_LOWER")) // 2 for total in totals], counts
    pads = attribute(node, "pads", [0] * (2 * len(kernel)))
    before, after = pads[: len(kernel)], pads[len(kernel) :]
    counts = [
        (size + b + a - span) // stride + 1
        for size, b, a, span, stride in zip(sizes, before, after, spans, strides, strict=True)
    ]
    return list(before), counts
