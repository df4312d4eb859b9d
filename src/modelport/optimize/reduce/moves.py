"""Where labels of channels go when an operator moves numbers: the operator itself moves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from modelport.core.tensors import Array
from modelport.optimize.reduce.observe import Observed
from modelport.optimize.reduce.sets import FIXED
from modelport.optimize.train.call import call_of
from modelport.optimize.train.shaping import OPERATORS


@dataclass(frozen=True)
class Labelled:
    """The axis of a tensor that has labels; at most one has.

    Parameters
    ----------
    axis : int
    labels : ndarray of int64, shape (length of the axis,)
    """

    axis: int
    labels: Array


def moved(
    node: onnx.NodeProto, opset: int, at: Mapping[str, Labelled], observed: Observed
) -> Labelled | None:
    """The labels of a node's output.

    Parameters
    ----------
    node : NodeProto
        Of one of `modelport.optimize.train.shaping.MOVING`.
    opset : int
    at : mapping of str to Labelled
        Those of its inputs.
    observed : Observed

    Returns
    -------
    Labelled or None
        None: they are on no axis of their own afterwards, or some of them are left out or change
        places, which without channels would not be the same.
    """
    data = list(node.input) if node.op_type == "Concat" else [node.input[0]]
    known = [name for name in node.input if name in data or name in observed.integers]
    if len(known) != len(node.input) or len(node.output) != 1:
        return None
    arguments = [
        torch.from_numpy(
            _spread(at.get(name), observed.shapes[name])
            if name in data
            else observed.integers[name].copy()
        )
        for name in known
    ]
    result = OPERATORS[node.op_type](call_of(node, opset, node.output), *arguments)
    found = _axis_of(result.numpy()) if isinstance(result, torch.Tensor) else None
    if found is None or found.axis == 0:
        return None
    if node.op_type in ("Gather", "Slice"):
        before = at[data[0]].labels
        return found if np.array_equal(found.labels, before) else None
    return found


def _spread(found: Labelled | None, shape: tuple[int, ...]) -> Array:
    """A tensor that holds its labels; `FIXED` where it has none."""
    if found is None:
        return np.full(shape, FIXED, dtype=np.int64)
    along = [1] * len(shape)
    along[found.axis] = -1
    return np.broadcast_to(found.labels.reshape(along), shape).copy()


def _axis_of(spread: Array) -> Labelled | None:
    """The one axis along which labels differ; None: there is none, or there are several."""
    for axis in range(spread.ndim if spread.size else 0):
        if spread.shape[axis] == 1:
            continue
        first: Sequence[int | slice] = [
            slice(None) if at == axis else 0 for at in range(spread.ndim)
        ]
        labels = spread[tuple(first)]
        along = [1] * spread.ndim
        along[axis] = -1
        if (spread == labels.reshape(along)).all() and len(set(labels.tolist())) > 1:
            return Labelled(axis, labels)
    return None
