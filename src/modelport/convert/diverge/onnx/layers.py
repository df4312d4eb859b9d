"""Finding the source model's intermediate answers among the tensors of a graph, by value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final

import numpy as np

from modelport.convert.diverge.onnx.compare import agree, constant_over_rows
from modelport.core.compare import Tolerance
from modelport.core.tensors import Array

#: Tensors of higher rank are compared as they are: all orders of their axes are too many.
_TRANSPOSED_RANK: Final = 4
#: A convolution, its normalization and its activation are one node at most.
_FOLLOWING: Final = 3
#: A constant offset is one wrong constant: nearer than its size tells.
_CONSTANT: Final = 0.1


@dataclass(frozen=True)
class Parting:
    """The first layer that the graph does not compute.

    Parameters
    ----------
    layer : str
    value : ndarray
        The source model's.
    after : str
        The last layer that is found; empty where none is.
    found : dict of str to str
        Layer → the tensor that has its value.
    following : list of (str, ndarray)
        The next layers: this one may be merged with them, and then it is nowhere in a right graph.
    """

    layer: str
    value: Array
    after: str
    found: dict[str, str]
    following: list[tuple[str, Array]]


def find_parting(
    layers: Sequence[tuple[str, Array]], observed: Mapping[str, Array], tolerance: Tolerance
) -> Parting | None:
    """The first layer that is not found, and neither are those after it.

    A layer that is not found while one soon after it is was merged with its neighbours by the
    exporter (a convolution with its normalization), and is no difference. Much later ones may be
    found all the same: they can stand on another branch.

    Parameters
    ----------
    layers : sequence of (str, ndarray)
        In the order in which the source model computes them.
    observed : mapping of str to ndarray
        The graph's tensors that depend on its inputs.
    """
    found: dict[str, str] = {}
    after, missing = "", 0
    for number, (name, value) in enumerate(layers):
        tensor = find(value, observed, tolerance)
        if tensor is not None:
            found[name] = tensor
            after, missing = name, 0
            continue
        missing += 1
        if missing > _FOLLOWING or number + 1 == len(layers):
            first = number + 1 - missing
            name, value = layers[first]
            return Parting(name, value, after, found, list(layers[first + 1 :][:_FOLLOWING]))
    return None


def find(value: Array, observed: Mapping[str, Array], tolerance: Tolerance) -> str | None:
    """The tensor that has this value, up to the order of its axes."""
    if value.dtype.kind != "f" or not tells(value):
        return None
    low, high = _range(value)
    slack = 1e-3 * max(1.0, abs(low), abs(high))
    for tensor, candidate in observed.items():
        if candidate.dtype.kind != "f" or candidate.size != value.size:
            continue
        there = _range(candidate)
        if abs(there[0] - low) > slack or abs(there[1] - high) > slack:
            continue
        if any(agree(value, arranged, tolerance) for arranged in arrangements(candidate, value)):
            return tensor
    return None


def tells(value: Array) -> bool:
    """Whether a value can be recognised: it is not empty and not one number everywhere."""
    finite = value[np.isfinite(value)]
    return bool(finite.size) and bool(finite.max() > finite.min())


def arrangements(candidate: Array, like: Array) -> Iterable[Array]:
    """`candidate` with its axes in every order that gives the shape of `like`."""
    if candidate.shape == like.shape:
        yield candidate
    squeezed = candidate.squeeze()
    wanted = tuple(size for size in like.shape if size != 1)
    if squeezed.ndim > _TRANSPOSED_RANK or sorted(squeezed.shape) != sorted(wanted):
        if candidate.shape != like.shape and candidate.size == like.size:
            yield candidate.reshape(like.shape)
        return
    for order in permutations(range(squeezed.ndim)):
        arranged = squeezed.transpose(order)
        if arranged.shape == wanted:
            yield arranged.reshape(like.shape)


def nearest(value: Array, candidates: Iterable[tuple[str, Array]]) -> tuple[str, Array] | None:
    """The tensor most like `value`, arranged as it is; None where none has its size."""
    best: tuple[tuple[float, float], str, Array] | None = None
    spread = float(np.nanstd(value)) or 1.0
    for tensor, candidate in candidates:
        if candidate.dtype.kind != "f" or candidate.size != value.size:
            continue
        for arranged in arrangements(candidate, value):
            offset = value - arranged.astype(np.float64)
            finite = offset[np.isfinite(offset)]
            apart = float(np.median(np.abs(finite))) if finite.size else np.inf
            if constant_over_rows(offset):
                apart *= _CONSTANT
            rank = (apart / spread, float(np.abs(finite).mean()) if finite.size else np.inf)
            if best is None or rank < best[0]:
                best = (rank, tensor, arranged)
    return None if best is None else best[1:]


def _range(value: Array) -> tuple[float, float]:
    finite = value[np.isfinite(value)]
    return float(finite.min(initial=0.0)), float(finite.max(initial=0.0))
