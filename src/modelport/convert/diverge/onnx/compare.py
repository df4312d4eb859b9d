"""Comparing tensors inside graphs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelport.core.compare import OutputComparison, Tolerance, compare
from modelport.core.tensors import Array


@dataclass(frozen=True)
class Worst:
    """Where two tensors are farthest apart.

    Parameters
    ----------
    position : tuple of int
    expected, actual : str
    """

    position: tuple[int, ...]
    expected: str
    actual: str


def difference(expected: Array, actual: Array, tolerance: Tolerance) -> OutputComparison:
    """Two tensors, by the rule of outputs."""
    (output,) = compare({"": expected}, {"": actual}, tolerance)
    return output


def agree(expected: Array, actual: Array, tolerance: Tolerance) -> bool:
    """Whether two tensors are the same within the tolerance."""
    return expected.shape == actual.shape and difference(expected, actual, tolerance).agrees


def worst(expected: Array, actual: Array, tolerance: Tolerance) -> Worst:
    """Where two tensors of one shape are farthest apart."""
    output = difference(expected, actual, tolerance)
    if not output.worst:
        return Worst((), "", "")
    return Worst(output.worst, short(expected[output.worst]), short(actual[output.worst]))


def short(value: object) -> str:
    """A number with the digits that tell, in its own precision."""
    if isinstance(value, np.floating):
        return f"{float(value):.9g}" if value.dtype.itemsize > 4 else f"{float(value):.7g}"
    return repr(str(value)) if isinstance(value, str) else str(value)


def constant_over_rows(array: Array) -> bool:
    """Whether all rows are the same, and there are several, and they are not all zero."""
    if array.ndim < 1 or len(array) < 2 or not np.isfinite(array).all() or not array.any():
        return False
    spread = np.abs(array - array[:1]).max()
    return bool(spread <= 1e-3 * np.abs(array).max())
