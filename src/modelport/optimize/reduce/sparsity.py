"""Which weights are zero, and how little is stored of those that are not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelport.core.tensors import Array

#: Smaller ones are not worth it.
_LEAST: Final = 1024
#: Bytes of a number and of its place, as `sparse` stores them.
_STORED: Final = 8
_DENSE: Final = 4


def prunable_weights(model: onnx.ModelProto) -> dict[str, tuple[Array, int]]:
    """Large float32 filters and matrices, with the axis that products sum over first.

    Returns
    -------
    dict of str to (ndarray, int)
    """
    arrays = {item.name: item for item in model.graph.initializer}
    found: dict[str, tuple[Array, int]] = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        item = arrays.get(node.input[1])
        if item is None or item.data_type != onnx.TensorProto.FLOAT or len(item.dims) < 2:
            continue
        if int(np.prod(item.dims)) < _LEAST:
            continue
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        summed = 1 if node.op_type == "Conv" or turned else len(item.dims) - 2
        summed = 0 if node.op_type == "ConvTranspose" else summed
        found[item.name] = (numpy_helper.to_array(item), summed)
    return found


def magnitude_masks(weights: Mapping[str, Array], zeros: float) -> dict[str, Array]:
    """Keep the largest weights of all layers together; 1 is kept, 0 is not.

    Magnitudes of layers are made comparable by dividing the square of each weight by the sum of
    the squares of those of its layer that are not smaller (Lee et al., "Layer-adaptive Sparsity
    for the Magnitude-based Pruning", 2021, equation 5), so that no layer vanishes.

    Parameters
    ----------
    weights : mapping of str to ndarray
    zeros : float
        The share that is not kept.
    """
    scores = {}
    for name, array in weights.items():
        squares = (array.astype(np.float64) ** 2).ravel()
        order = np.argsort(squares, kind="stable")
        not_smaller = np.cumsum(squares[order][::-1])[::-1]
        score = np.empty_like(squares)
        score[order] = squares[order] / np.maximum(not_smaller, 1e-300)
        scores[name] = score.reshape(array.shape)
    cut = np.quantile(np.concatenate([score.ravel() for score in scores.values()]), zeros)
    return {name: (score > cut).astype(np.float32) for name, score in scores.items()}


def pattern_mask(weight: Array, axis: int, kept: int, of: int) -> Array:
    """N:M sparsity: of every so many neighbours along an axis the largest are kept.

    (Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021, section 3.) What does not
    fill a group at the end of the axis is kept.

    Parameters
    ----------
    weight : ndarray
    axis : int
        The one that products sum over.
    kept, of : int
        N and M.
    """
    moved = np.moveaxis(np.abs(weight), axis, -1)
    whole = moved.shape[-1] - moved.shape[-1] % of
    groups = moved[..., :whole].reshape(*moved.shape[:-1], -1, of)
    rank = np.argsort(np.argsort(-groups, axis=-1, kind="stable"), axis=-1)
    mask = np.ones_like(moved, dtype=np.float32)
    mask[..., :whole] = (rank < kept).astype(np.float32).reshape(*moved.shape[:-1], whole)
    return np.ascontiguousarray(np.moveaxis(mask, -1, axis))


def sparse(model: onnx.ModelProto, names: Collection[str]) -> tuple[onnx.ModelProto, int]:
    """The same graph, with those weights that are mostly zeros stored as numbers and their places.

    Places are int32, as ONNX Runtime itself writes them; it widens such weights when it loads
    them.

    Parameters
    ----------
    model : ModelProto
    names : collection of str
        Of float32 weights.

    Returns
    -------
    ModelProto
    int
        How many weights are stored so.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.initializer[:]
    for item in model.graph.initializer:
        array = numpy_helper.to_array(item) if item.name in names else np.zeros(0)
        places = np.flatnonzero(array)
        if len(places) * _STORED >= array.size * _DENSE or not len(places):
            copy.graph.initializer.append(item)
            continue
        values = numpy_helper.from_array(array.ravel()[places], item.name)
        indices = numpy_helper.from_array(places.astype(np.int32), f"{item.name}__places")
        copy.graph.sparse_initializer.append(
            helper.make_sparse_tensor(values, indices, list(array.shape))
        )
    return copy, len(copy.graph.sparse_initializer)


def dense(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph without sparse weights, which ONNX Runtime keeps when it writes graphs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for item in model.graph.sparse_initializer:
        array = np.zeros(tuple(item.dims), dtype=numpy_helper.to_array(item.values).dtype)
        places = numpy_helper.to_array(item.indices)
        at = places.T if places.ndim == 2 else np.unravel_index(places, array.shape)
        array[tuple(at)] = numpy_helper.to_array(item.values)
        copy.graph.initializer.append(numpy_helper.from_array(array, item.values.name))
    del copy.graph.sparse_initializer[:]
    return copy
