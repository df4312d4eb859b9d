"""The matrices that a graph multiplies by or looks up in, and the rows that they meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from modelport.core.tensors import Array, Tensors
from modelport.optimize.onnx_graph import attribute
from modelport.optimize.session import Probe, batches

_LARGEST: Final = 127
#: Smaller matrices cost more to quantize around than to multiply.
_LEAST: Final = 2**10
_LEAST_TABLE: Final = 2**14
_SAMPLES: Final = 2048
_BATCH: Final = 4
_SEED: Final = 3


def products(
    graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]
) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph that multiply by a constant matrix of float32."""
    for node in graph.node:
        item = constants.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        if item is None or item.data_type != TensorProto.FLOAT or len(item.dims) != 2:
            continue
        plain = node.op_type == "MatMul" or (
            not attribute(node, "transA", 0)
            and attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0
        )
        if plain and node.input[0] not in constants and int(np.prod(item.dims)) >= _LEAST:
            yield node


def tables(
    graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]
) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph that look up rows of a constant matrix of float32."""
    for node in graph.node:
        item = constants.get(node.input[0]) if node.op_type == "Gather" else None
        if item is None or item.data_type != TensorProto.FLOAT or len(item.dims) != 2:
            continue
        if attribute(node, "axis", 0) == 0 and int(np.prod(item.dims)) >= _LEAST_TABLE:
            yield node


def observe_products(model: onnx.ModelProto, rows: Tensors) -> dict[str, Array]:
    """Rows of all tensors that are multiplied by constant matrices, outside branches.

    Returns
    -------
    dict of str to ndarray of float32, shape (samples, columns)
    """
    constants = {item.name: item for item in model.graph.initializer}
    names = list(dict.fromkeys(node.input[0] for node in products(model.graph, constants)))
    if not names:
        return {}
    probe = Probe(model, names, optimize=True)
    random = np.random.default_rng(_SEED)
    parts: dict[str, list[Array]] = {name: [] for name in names}
    count = -(-len(next(iter(rows.values()))) // _BATCH)
    each = max(_SAMPLES // max(count, 1), 8)
    for batch in batches(model, rows, _BATCH):
        for name, array in probe.run(batch, names).items():
            flat = array.reshape(-1, array.shape[-1])
            if len(flat) > each:
                flat = flat[random.choice(len(flat), each, replace=False)]
            parts[name].append(flat)
    joined = {name: np.concatenate(found) for name, found in parts.items() if found}
    return {name: array for name, array in joined.items() if len(array)}


def matrix_of(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> Array:
    """Its weights with inputs along the rows."""
    array = numpy_helper.to_array(constants[node.input[1]])
    return array.T if node.op_type == "Gemm" and attribute(node, "transB", 0) else array


def steps(weights: Array, axis: int) -> Array:
    """The scales of symmetric int8: max|w| / 127 along an axis, and 1 where all are zero."""
    found: Array = np.abs(weights).max(axis=axis) / _LARGEST
    return np.where(found > 0, found, 1.0).astype(np.float32)
