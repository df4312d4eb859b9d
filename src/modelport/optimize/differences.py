"""Where two models give different answers to the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from modelport.core.signature import Signature
from modelport.core.tensors import Array, Tensors

_SHOWN: Final = 10
#: Rows with more columns are not shown.
_MOST_COLUMNS: Final = 32
_TEXT: Final = 60


@dataclass(frozen=True)
class Difference:
    """A row to which the two give different answers.

    Parameters
    ----------
    row : int
        From 0.
    name : str
        What the row is called, where it is a file.
    first, second : str
        Their answers.
    error : float
        How far their numbers or scores are apart; 1 for labels without scores.
    inputs : mapping of str to str
        The row's columns, where they are few.
    """

    row: int
    name: str
    first: str
    second: str
    error: float
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Flip:
    """A label of the first model that is another one of the second model.

    Parameters
    ----------
    first, second : str
    rows : int
        How often.
    """

    first: str
    second: str
    rows: int


@dataclass(frozen=True)
class Differences:
    """All of it.

    Parameters
    ----------
    flips : tuple of Flip or None
        The most frequent first; None: the models answer numbers.
    worst : tuple of Difference
        The rows that differ most.
    """

    flips: tuple[Flip, ...] | None
    worst: tuple[Difference, ...]


def differences(
    before: Any, after: Any, apart: Array | None, columns: Mapping[str, Array],
    names: tuple[str, ...],
) -> Differences:  # fmt: skip
    """The rows whose answers differ.

    Parameters
    ----------
    before, after : ndarray, or mapping of str to ndarray
        What a judge made of the answers of both.
    apart : ndarray or None, shape (n,)
        How far their scores are apart.
    columns : mapping of str to ndarray
        What of the rows is shown; see `shown_columns`.
    names : tuple of str
        Of rows that are files.
    """
    flips = None
    if isinstance(before, Mapping):
        errors = np.max([_distance(before[name], after[name]) for name in before], axis=0)
        first, second = (_texts(next(iter(side.values()))) for side in (before, after))
    elif before.dtype.kind == "f":
        errors = _distance(before, after)
        first, second = _texts(before), _texts(after)
    else:
        changed = np.asarray(before != after).reshape(len(before), -1).any(axis=1)
        errors = changed * (1.0 if apart is None else np.maximum(apart, 1e-12))
        first, second = _texts(before), _texts(after)
        pairs = Counter((first[row], second[row]) for row in np.flatnonzero(changed))
        flips = tuple(Flip(one, other, rows) for (one, other), rows in pairs.most_common())
    worst = [int(row) for row in np.argsort(-errors, kind="stable")[:_SHOWN] if errors[row] > 0]
    return Differences(
        flips,
        tuple(
            Difference(
                row, names[row] if names else "", first[row], second[row], float(errors[row]),
                {name: _text(array[row]) for name, array in columns.items()},
            )
            for row in worst
        ),
    )  # fmt: skip


def shown_columns(rows: Tensors, signature: Signature) -> dict[str, Array]:
    """The columns of rows that people can read: a few numbers or texts each; else none."""
    columns: dict[str, Array] = {}
    for spec in signature.inputs:
        array = rows[spec.name]
        flat = array.reshape(len(array), -1)
        names = spec.columns or [f"{spec.name}[{place}]" for place in range(flat.shape[1])]
        if flat.shape[1] == 1:
            names = [spec.name]
        if flat.shape[1] > _MOST_COLUMNS or any(isinstance(item, bytes) for item in flat[0]):
            return {}
        columns |= {name: flat[:, place] for place, name in enumerate(names)}
    return columns if len(columns) <= _MOST_COLUMNS else {}


def scores_apart(first: Tensors, second: Tensors) -> Array | None:
    """How far the first scores of two models are apart in each row; None: they have no such."""
    one, other = (
        next((array for array in side.values() if array.dtype.kind == "f"), None)
        for side in (first, second)
    )
    if one is None or other is None or one.shape != other.shape:
        return None
    return _distance(one, other)


def _distance(one: Array, other: Array) -> Array:
    """The largest difference in each row; of what is no number, whether there is one."""
    if one.dtype.kind not in "fiu" or other.dtype.kind not in "fiu":
        different = np.asarray(one != other, dtype=np.float64)
    else:
        different = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return np.asarray(different.reshape(len(one), -1).max(axis=1, initial=0.0))


def _texts(values: Array) -> list[str]:
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    flat = np.asarray(value).ravel()
    shown = ", ".join(
        f"{item:.6g}" if isinstance(item, float | np.floating) else str(item) for item in flat[:4]
    ) + (", …" if len(flat) > 4 else "")
    line = " ".join(shown.split())
    return line if len(line) <= _TEXT else f"{line[: _TEXT - 1]}…"
