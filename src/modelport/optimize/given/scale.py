"""Inputs and answers in sizes that networks learn with.

The script that trains a network scales what it learns from, and the original may do so inside;
its rows are as clients send them. What is done to them here is done by nodes around the student
afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from modelport.core.tensors import Array
from modelport.optimize.given.lesson import NUMBERS, Head, Lesson, are_probabilities

#: Means and deviations beyond this are of numbers that nobody scaled.
_LARGE: Final = 30.0
#: How many times farther from the answers an untaught student has to be without scaling them.
_FARTHER: Final = 2.0
_LEAST: Final = 1e-12


@dataclass(frozen=True, eq=False)
class Scale:
    """Numbers minus a mean, divided by a deviation.

    Parameters
    ----------
    mean, deviation : ndarray of float64
        A scalar, or one per column.
    """

    mean: Array
    deviation: Array

    def applied(self, array: Array) -> Array:
        """The numbers, scaled, in their own element type."""
        return np.asarray((array - self.mean) / self.deviation, dtype=array.dtype)

    def undone(self, array: Array) -> Array:
        """What `applied` made of them, as it was."""
        return np.asarray(array * self.deviation + self.mean, dtype=array.dtype)


#: One per input or output; None: as it is.
Scales = tuple[Scale | None, ...]


@dataclass(frozen=True, eq=False)
class Scaling:
    """What is scaled on the way into a student and back.

    Parameters
    ----------
    inputs, outputs : tuple of Scale or None
        In the order of the inputs and of the heads.
    """

    inputs: Scales
    outputs: Scales

    def rows(self, rows: Sequence[Array]) -> tuple[Array, ...]:
        """Rows as the student gets them."""
        return _applied(rows, self.inputs)

    def lesson(self, lesson: Lesson) -> Lesson:
        """What the student learns."""
        labels = lesson.labels
        if labels is not None and labels.dtype.kind == "f":
            (labels,) = _applied([labels], self.outputs)
        return Lesson(self.rows(lesson.rows), _applied(lesson.answers, self.outputs), labels)

    def heads(self, heads: Sequence[Head]) -> tuple[Head, ...]:
        """Outputs in the scale in which they are learned."""
        return tuple(
            head
            if scale is None
            else replace(head, variance=tuple((head.variance / scale.deviation**2).tolist()))
            for head, scale in zip(heads, self.outputs, strict=True)
        )


def input_scales(rows: Sequence[Array], answer: Callable[[Sequence[Array]], list[Array]]) -> Scales:
    """Scales of inputs with large numbers, unless the student scales them itself.

    A student that does answers almost the same to all rows when they are scaled once more; one
    that does not answers large numbers when they are not.

    Parameters
    ----------
    rows : sequence of ndarray
    answer : callable
        The untaught student: from inputs to outputs.
    """
    scales = tuple(_scale_of_large(array) for array in rows)
    if not any(scales):
        return scales
    plain, scaled = (_spread(answer(given)) for given in (rows, _applied(rows, scales)))
    return scales if abs(np.log(scaled)) < abs(np.log(plain)) else (None,) * len(rows)


def output_scales(
    heads: Sequence[Head], found: Sequence[Array], expected: Sequence[Array]
) -> Scales:
    """Scales of numbers to which an untaught student is much nearer with than without.

    Parameters
    ----------
    heads : sequence of Head
    found, expected : sequence of ndarray
        The student's answers and the original's.
    """
    return tuple(map(_output_scale, heads, found, expected))


def _output_scale(head: Head, found: Array, expected: Array) -> Scale | None:
    if head.kind != NUMBERS:
        return None
    wanted = expected.astype(np.float64)
    axes = 0 if expected.ndim == 2 else None
    variance = np.asarray(head.variance).reshape(-1 if expected.ndim == 2 else ())
    scale = Scale(np.asarray(wanted.mean(axis=axes)), np.sqrt(variance))
    far = float(np.mean((found - wanted) ** 2 / variance))
    near = float(np.mean((scale.undone(found.astype(np.float64)) - wanted) ** 2 / variance))
    return scale if far > _FARTHER * near else None


def _scale_of_large(array: Array) -> Scale | None:
    if array.dtype.kind != "f" or array.ndim < 2:
        return None
    axes = 0 if array.ndim == 2 else None
    wide = array.astype(np.float64)
    mean, deviation = np.asarray(wide.mean(axis=axes)), np.asarray(wide.std(axis=axes))
    if not max(np.abs(mean).max(), deviation.max()) > _LARGE:
        return None
    return Scale(mean, np.where(deviation > 0, deviation, 1.0))


def _spread(answers: Sequence[Array]) -> float:
    """How much answers vary from row to row."""
    found = []
    for array in answers:
        logs = np.log(np.maximum(array, _LEAST)) if are_probabilities(array) else array
        found.append(float(logs.astype(np.float64).std(axis=0).mean()))
    spread = float(np.mean(found))
    return max(spread, _LEAST) if np.isfinite(spread) else 1 / _LEAST


def _applied(arrays: Sequence[Array], scales: Scales) -> tuple[Array, ...]:
    return tuple(
        array if scale is None else scale.applied(array)
        for array, scale in zip(arrays, scales, strict=True)
    )
