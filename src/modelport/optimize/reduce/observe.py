"""A graph as it is on real rows: shapes of all tensors, values of the integers, multiplications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.session import Probe, batches

#: Rows that shapes are taken from: more than one, so that the batch is no axis of length 1.
ROWS: Final = 2
_BATCH: Final = 8


@dataclass(frozen=True)
class Observed:
    """A graph run on `ROWS` rows.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Of all tensors, with constants.
    integers : mapping of str to ndarray
        Tensors of integers: shapes, indices.
    """

    shapes: Mapping[str, tuple[int, ...]]
    integers: Mapping[str, Array]

    def numbers(self, name: str) -> float:
        """How many numbers per row a tensor has."""
        return float(np.prod(self.shapes[name])) / ROWS

    def multiplications(self, model: onnx.ModelProto) -> dict[int, float]:
        """Per row, of the nodes that multiply matrices or convolve, by their places.

        An output number of a Conv takes the size of its filter (input channels of its group times
        the kernel), one of a Gemm or MatMul the length of the axis that is summed over.
        """
        found: dict[int, float] = {}
        for place, node in enumerate(model.graph.node):
            if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
                continue
            inputs, outputs = self.shapes[node.input[0]], self.shapes[node.output[0]]
            weight = self.shapes[node.input[1]]
            if node.op_type == "Conv":
                each = np.prod(outputs) * np.prod(weight[1:])
            elif node.op_type == "ConvTranspose":
                each = np.prod(inputs) * np.prod(weight[1:])
            else:
                turned = any(a.name == "transA" and a.i for a in node.attribute)
                each = np.prod(outputs) * inputs[0 if turned else -1]
            found[place] = float(each) / ROWS
        return found


def observe_graph(model: onnx.ModelProto, rows: Tensors) -> Observed:
    """Run a graph on a few rows.

    Raises
    ------
    UnsupportedError
        When a tensor of it has no shape: a sequence, an optional.
    """
    few = {name: np.resize(array, (ROWS, *array.shape[1:])) for name, array in rows.items()}
    names = [name for node in model.graph.node for name in node.output if name]
    found = {**Probe(model, names).run(few, names), **few}
    if not all(isinstance(array, np.ndarray) for array in found.values()):
        raise UnsupportedError("it computes with sequences")
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    every = {**constants, **found}
    return Observed(
        {name: tuple(array.shape) for name, array in every.items()},
        {name: array for name, array in every.items() if array.dtype.kind in "iu"},
    )


def channel_moments(
    model: onnx.ModelProto, tensors: Mapping[str, int], rows: Tensors
) -> dict[str, tuple[Array, Array]]:
    """Mean and standard deviation per channel over rows and all other axes.

    Parameters
    ----------
    model : ModelProto
    tensors : mapping of str to int
        Which, and their axes of channels.
    rows : mapping of str to ndarray
        A hundred are enough.

    Returns
    -------
    dict of str to (ndarray, ndarray)
        Both float32, shape (channels,).
    """
    if not tensors:
        return {}
    probe = Probe(model, tensors)
    sums: dict[str, Array] = {}
    counts: dict[str, int] = {}
    for batch in batches(model, rows, _BATCH):
        for name, array in probe.run(batch, list(tensors)).items():
            others = tuple(at for at in range(array.ndim) if at != tensors[name] % array.ndim)
            wide = array.astype(np.float64)
            both = np.stack([wide.sum(axis=others), (wide**2).sum(axis=others)])
            sums[name] = sums.get(name, 0.0) + both
            counts[name] = counts.get(name, 0) + array.size // both.shape[1]
    moments = {name: both / counts[name] for name, both in sums.items()}
    return {
        name: (
            mean.astype(np.float32),
            np.sqrt(np.maximum(square - mean**2, 0.0)).astype(np.float32),
        )
        for name, (mean, square) in moments.items()
    }
