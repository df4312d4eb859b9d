"""Weights rounded so that their errors cancel on the calibration rows.

Rounding every weight to the nearest step adds errors that the neighbours in an image, which are
nearly the same, add up. Here weights are rounded one after the other, and the error of each is
made up for by those that are still to come, as far as their inputs are correlated (GPTQ: Frantar
et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2023,
equations 2 and 3; the order is that of falling second moments). The moments are centred, since
biases take up means: see `modelport.optimize.quantize.correction`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from modelport.core.tensors import Array, Tensors
from modelport.optimize.quantize.samples import (
    as_matrix,
    from_matrix,
    patches,
    shape_of,
    vectors,
)
from modelport.optimize.session import Probe, batches

_BATCH: Final = 4
_SEED: Final = 5
#: Inputs per output, and the inputs that are sampled from the rows.
_WIDEST: Final = 2304
_SAMPLES: Final = (256, 4096)
_NUMBERS: Final = 2**23
#: Of all moments together.
_MOST_BYTES: Final = 2**29
#: Inputs whose errors are passed on together.
_BLOCK: Final = 64
#: Share of the mean moment that is added to each, so that the matrix can be inverted.
_DAMPING: Final = 0.01


@dataclass
class _Moments:
    """Sums over inputs of one node, per group of channels.

    Parameters
    ----------
    squares : ndarray of float64, shape (groups, inputs, inputs)
    sums : ndarray of float64, shape (groups, inputs)
    count : int
    """

    squares: Array
    sums: Array
    count: int = 0

    def add(self, inputs: Array) -> None:
        """More samples: shape (groups, samples, inputs)."""
        self.squares += inputs.transpose(0, 2, 1) @ inputs
        self.sums += inputs.sum(axis=1, dtype=np.float64)
        self.count += inputs.shape[1]

    def centred(self) -> Array:
        """The covariance."""
        mean = self.sums / self.count
        return self.squares / self.count - mean[:, :, None] * mean[:, None, :]


class Rounder:
    """Rounds the weights of one graph, however it is quantized.

    Parameters
    ----------
    source : ModelProto
        In float32, every node with a name.
    nodes : sequence of NodeProto
        Those with weights. The ones with very many inputs are left to the nearest step.
    rows : mapping of str to ndarray
        On which errors are to cancel.
    deadline : float
        In the time of `time.monotonic`: when the rows are not through by then, every weight is
        left at the nearest step.
    """

    def __init__(
        self,
        source: onnx.ModelProto,
        nodes: Sequence[onnx.NodeProto],
        rows: Tensors,
        *,
        deadline: float = float("inf"),
    ) -> None:
        self._constants = {item.name: item for item in source.graph.initializer}
        self._nodes = {node.name: node for node in nodes}
        self._done: dict[tuple[str, bytes, int], Array] = {}
        self._moments = self._observe(source, rows, deadline)

    def apply(self, quantized: onnx.ModelProto) -> int:
        """Replace the integers of a quantized graph, in place; those of how many nodes."""
        makers = {out: node for node in quantized.graph.node for out in node.output}
        constants = {item.name: item for item in quantized.graph.initializer}
        done: set[str] = set()
        for node in quantized.graph.node:
            maker = makers.get(node.input[1]) if node.name in self._moments else None
            if maker is None or maker.op_type != "DequantizeLinear" or maker.input[0] in done:
                continue
            item, scales = constants.get(maker.input[0]), constants.get(maker.input[1])
            if item is None or scales is None or item.data_type != onnx.TensorProto.INT8:
                continue
            integers = self._rounded(node.name, numpy_helper.to_array(item), scales)
            item.CopyFrom(numpy_helper.from_array(integers, item.name))
            done.add(item.name)
        return len(done)

    def _rounded(self, name: str, nearest: Array, item: onnx.TensorProto) -> Array:
        scales = numpy_helper.to_array(item).astype(np.float64)
        largest = int(np.abs(nearest.astype(np.int16)).max(initial=1))
        key = name, scales.tobytes(), largest
        if key not in self._done:
            node, order = self._nodes[name], Order.of(self._moments[name])
            weights = numpy_helper.to_array(self._constants[node.input[1]])
            matrix = as_matrix(node, weights, len(order.places))
            per_output = np.broadcast_to(scales.ravel(), (matrix.shape[0] * matrix.shape[1],))
            scaled = per_output.reshape(matrix.shape[:2])
            found = rounded(matrix, scaled, order, -largest, largest)
            self._done[key] = from_matrix(node, found, nearest.shape)
        return self._done[key]

    def _observe(self, source: onnx.ModelProto, rows: Tensors, deadline: float) -> dict[str, Array]:
        found: dict[str, _Moments] = {}
        total = 0
        for node in self._nodes.values():
            groups, width = shape_of(node, self._constants)
            total += groups * width * width * 8
            if 0 < width <= _WIDEST and total <= _MOST_BYTES:
                zeros = np.zeros((groups, width, width)), np.zeros((groups, width))
                found[node.name] = _Moments(*zeros)
        if not found:
            return {}
        tensors = list(dict.fromkeys(self._nodes[name].input[0] for name in found))
        probe = Probe(source, tensors, optimize=True)
        random = np.random.default_rng(_SEED)
        rounds = -(-len(next(iter(rows.values()))) // _BATCH)
        for batch in batches(source, rows, _BATCH):
            if time.monotonic() > deadline:
                return {}  # what few rows have in common is not what all have
            arrays = probe.run(batch, tensors)
            for name, moments in found.items():
                node = self._nodes[name]
                groups, width = moments.sums.shape
                samples = int(np.clip(_NUMBERS / (groups * width), *_SAMPLES)) // rounds + 1
                inputs = arrays[node.input[0]]
                if node.op_type == "Conv":
                    shape = self._constants[node.input[1]].dims
                    moments.add(patches(node, inputs, shape, groups, samples, random))
                else:
                    moments.add(vectors(inputs, samples, random))
        return {name: item.centred() for name, item in found.items() if item.count > 1}


@dataclass(frozen=True)
class Order:
    """In which weights are rounded, and what the later ones make up for.

    Parameters
    ----------
    places : ndarray of int, shape (groups, inputs)
    factor : ndarray of float32, shape (groups, inputs, inputs)
        The upper Cholesky factor of the inverse of the moments, in this order.
    """

    places: Array
    factor: Array

    @classmethod
    def of(cls, moments: Array) -> Order:
        """By falling moments: shape (groups, inputs, inputs)."""
        width = moments.shape[1]
        diagonal = np.einsum("gkk->gk", moments)
        places = np.argsort(-diagonal, axis=1, kind="stable")
        mixed = np.take_along_axis(moments, places[:, :, None], axis=1)
        mixed = np.take_along_axis(mixed, places[:, None, :], axis=2)
        damping = _DAMPING * diagonal.mean(axis=1) + 1e-12
        mixed = mixed + damping[:, None, None] * np.eye(width)
        factor = np.linalg.cholesky(np.linalg.inv(mixed)).transpose(0, 2, 1)
        return cls(places, factor.astype(np.float32))


def rounded(weights: Array, scales: Array, order: Order, lowest: int, largest: int) -> Array:
    """The integers for one node.

    Parameters
    ----------
    weights : ndarray of float, shape (groups, outputs, inputs)
    scales : ndarray of float, shape (groups, outputs) or (groups, outputs, inputs)
    order : Order
    lowest, largest : int
        The integers are between these.

    Returns
    -------
    ndarray of int8, shape (groups, outputs, inputs)
    """
    places, factor = order.places[:, None, :], order.factor
    left = np.take_along_axis(weights.astype(np.float32), places, axis=2)
    steps = np.empty_like(left)
    steps[:] = scales if scales.ndim == 3 else scales[:, :, None]
    steps = np.take_along_axis(steps, places, axis=2)
    integers = np.empty(left.shape, dtype=np.int8)
    for begin in range(0, left.shape[2], _BLOCK):
        block = slice(begin, min(begin + _BLOCK, left.shape[2]))
        errors = np.zeros((*left.shape[:2], block.stop - begin), dtype=np.float32)
        for index in range(begin, block.stop):
            now = left[:, :, index]
            size = steps[:, :, index]
            chosen = np.clip(np.round(now / size), lowest, largest)
            integers[:, :, index] = chosen
            error = (now - chosen * size) / factor[:, index, index][:, None]
            rest = slice(index + 1, block.stop)
            left[:, :, rest] -= error[:, :, None] * factor[:, None, index, rest]
            errors[:, :, index - begin] = error
        left[:, :, block.stop :] -= errors @ factor[:, block, block.stop :]
    back = np.argsort(order.places, axis=1, kind="stable")
    return np.take_along_axis(integers, back[:, None, :], axis=2)
