"""Labels: those that a model answers beside its scores, and those that its user knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from modelport.core.errors import InputError, UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.answers import as_text, target_labels, target_numbers
from modelport.optimize.given.lesson import NUMBERS, OF_CLASSES, UNKNOWN, Head

#: Share of the rows with the largest score at one place that have the same label.
_AGREEING: Final = 0.95


@dataclass(frozen=True, eq=False)
class LabelOutput:
    """An output that follows from scores.

    Parameters
    ----------
    name : str
    scores : str
        The output whose largest entry's place it tells.
    table : ndarray
        The label of each place, in the output's element type.
    """

    name: str
    scores: str
    table: Array


def label_output(
    name: str, found: Array, scores: str, answers: Array, tables: Sequence[Array]
) -> LabelOutput:
    """Find out which label belongs to which place of the scores.

    Parameters
    ----------
    name : str
    found : ndarray, shape (n,) or (n, 1)
        What the original answers.
    scores : str
    answers : ndarray, shape (n, classes)
    tables : sequence of ndarray
        Constants of the original that may tell the labels of places that no row has.

    Raises
    ------
    UnsupportedError
        When labels do not follow from the scores, or rows are missing that would tell.
    """
    flat = found.reshape(len(found), -1)
    if flat.shape[1] != 1 or answers.ndim != 2 or answers.shape[1] < 2:
        raise UnsupportedError(f"its output {name} does not follow from scores of classes")
    places = answers.argmax(axis=1)
    seen: dict[int, Any] = {}
    for place in np.unique(places):
        mine, counts = np.unique(flat[places == place, 0].astype(object), return_counts=True)
        if counts.max() < _AGREEING * counts.sum():
            raise UnsupportedError(f"its output {name} is not the label of the largest score")
        seen[int(place)] = mine[counts.argmax()]
    table = _complete(seen, answers.shape[1], flat.dtype, tables)
    if table is None:
        unseen = sorted(set(range(answers.shape[1])) - seen.keys())
        raise UnsupportedError(
            f"no calibration row tells the label of class {', '.join(map(str, unseen[:5]))}",
            hint="give rows of every class",
        )
    return LabelOutput(name, scores, table)


def _complete(
    seen: dict[int, Any], classes: int, dtype: np.dtype[Any], tables: Sequence[Array]
) -> Array | None:
    """The label of each place: as the rows tell, else as a table tells that agrees with them."""
    candidates = [np.asarray([seen[place] for place in range(classes)], dtype=dtype)] * (
        len(seen) == classes
    )
    own = [table for table in tables if table.shape == (classes,) and table.dtype == dtype]
    candidates += [*own, np.arange(classes).astype(dtype)] if dtype.kind != "O" else own
    for table in candidates:
        if all(table[place] == label for place, label in seen.items()):
            return table
    return None


def right_answers(
    target: Array, head: Head, answers: Array, table: Array | None
) -> tuple[Array | None, str]:
    """What the user knows about the rows, as a lesson's labels; or None and why.

    Labels are used where the original's own answers show that they mean the same: of classes when
    it is right more often than by chance, of numbers when its answers explain some of them.

    Parameters
    ----------
    target : ndarray, one entry per row
    head : Head
        The only one.
    answers : ndarray
        What the original answers there.
    table : ndarray or None
        The label of each place; None: places are labels.

    Returns
    -------
    labels : ndarray or None
    why : str
        Empty where there are labels.
    """
    try:
        if head.kind in OF_CLASSES:
            return _places(target_labels(target), answers, table)
        if head.kind == NUMBERS:
            return _numbers(target_numbers(target), answers)
    except InputError as error:
        return None, error.message
    return None, f"its output {head.name} is neither scores of classes nor numbers"


def _places(labels: Array, answers: Array, table: Array | None) -> tuple[Array | None, str]:
    names = np.arange(answers.shape[1]) if table is None else table
    of = {name: place for place, name in enumerate(as_text(names).tolist())}
    places = np.asarray([of.get(label, UNKNOWN) for label in labels.tolist()], dtype=np.int64)
    known = places != UNKNOWN
    if not known.any():
        return None, f"labels like {labels[0]} are no labels or places of its scores"
    right = float(np.mean(answers.argmax(axis=1)[known] == places[known]))
    if right <= 1 / answers.shape[1]:
        return None, f"it is right on {right:.0%} of the rows, which is no more than chance"
    return places, ""


def _numbers(numbers: Array, answers: Array) -> tuple[Array | None, str]:
    if numbers.size != answers.size:
        return None, "they are of another number of values per row than its answers"
    right = numbers.reshape(answers.shape)
    if float(np.mean((right - answers) ** 2)) >= float(right.var()):
        return None, "its answers are farther from them than their mean"
    return right.astype(np.float32), ""
