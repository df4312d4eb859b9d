"""What a model's answers and a target's values are: labels, numbers or vectors.

Labels are compared as text: a target of ``1``, ``1.0``, ``True`` and ``"1"`` means the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from modelport.core.errors import InputError
from modelport.core.tensors import Array, Tensors

LABELS: Final = "labels"
NUMBERS: Final = "numbers"
VECTORS: Final = "vectors"

_LABEL_DTYPES: Final = "biuOUS"
_LABEL_TASKS: Final = ("classification", "clustering", "outlier")
#: Rows are of length one within this.
_LENGTH: Final = 1e-3
#: Integers up to this are exact as float64.
_EXACT: Final = 2.0**53
_TRUTH: Final = {"true": "1", "false": "0"}


@dataclass(frozen=True)
class Form:
    """How answers are read; the same for all variants and all rows.

    Parameters
    ----------
    kind : str
        ``labels``, ``numbers`` or ``vectors``: what the model decides.
    threshold : float
        From which a single score per row means the label 1: half of a probability, zero of a
        margin.
    heads : tuple of str
        The outputs whose largest score is a label, where no output is a label itself.
    labels : frozenset of str
        That the target is known to hold, in these rows or in others.
    """

    kind: str
    threshold: float
    heads: tuple[str, ...]
    labels: frozenset[str] = frozenset()


def form_of(answers: Tensors, task: str) -> Form:
    """How a model's answers are read.

    Parameters
    ----------
    answers : mapping of str to ndarray
        The original's, as clients get them; not only to a few rows.
    task : str
        As the package's manifest has it.
    """
    scores = [array for array in answers.values() if array.dtype.kind == "f"]
    bounded = bool(scores) and scores[0].size > 0 and 0 <= scores[0].min() <= scores[0].max() <= 1
    if task == "regression":
        kind = NUMBERS
    elif task in _LABEL_TASKS or has_labels(answers):
        kind = LABELS
    else:
        kind = kind_of(scores[0])
    floats = {name: array for name, array in answers.items() if array.dtype.kind == "f"}
    heads = [name for name, array in floats.items() if kind_of(array) == LABELS]
    return Form(kind, 0.5 if bounded else 0.0, tuple(heads or list(floats)[:1]))


def kind_of(scores: Array) -> str:
    """What an output of floating-point numbers is."""
    if scores.ndim < 2 or scores[0].size == 1:
        return NUMBERS
    lengths = np.linalg.norm(scores.reshape(len(scores), -1), axis=1)
    one_hot = np.isin(scores, (0, 1)).all()
    shares = (scores >= 0).all() and np.allclose(
        scores.reshape(len(scores), -1).sum(axis=1), 1.0, atol=_LENGTH
    )
    # Probabilities that are nearly sure are of length one, too.
    unit = np.allclose(lengths, 1.0, atol=_LENGTH) and not (one_hot or shares)
    if scores.ndim > 2 or unit:
        return VECTORS
    return LABELS


def labels_of(answers: Tensors, form: Form) -> Array:
    """The labels that a model answers.

    Returns
    -------
    ndarray of str, shape (n, k)
        Of the outputs that are labels; where there are none, the place of the largest score of
        each head.
    """
    named = [array for array in answers.values() if array.dtype.kind in _LABEL_DTYPES]
    if named:
        columns = [text for array in named for text in _columns(array)]
    else:
        columns = [_best(answers[name], form) for name in form.heads]
    return np.stack(columns, axis=1)


def has_labels(answers: Tensors) -> bool:
    """Whether an output is labels."""
    return any(array.dtype.kind in _LABEL_DTYPES for array in answers.values())


def count_places(answers: Tensors) -> int:
    """How many labels the first output of scores tells apart; 0: there is none."""
    scores = _scores(answers)
    return 0 if scores is None else max(scores[:1].size, 2)


def places_of(answers: Tensors, form: Form) -> Array:
    """The place of the largest score of the first output of scores.

    Raises
    ------
    InputError
        When there is none.
    """
    scores = _scores(answers)
    if scores is None:
        raise InputError("the model answers no scores", where="--metric")
    return _best(scores, form)


def _scores(answers: Tensors) -> Array | None:
    return next((array for array in answers.values() if array.dtype.kind == "f"), None)


def numbers_of(answers: Tensors) -> dict[str, Array]:
    """Outputs of floating-point numbers by name; of integers where there are no others.

    Raises
    ------
    InputError
        When the model answers text.
    """
    for kinds in ("f", "biu"):
        found = {
            name: array.astype(np.float64)
            for name, array in answers.items()
            if array.dtype.kind in kinds
        }
        if found:
            return found
    raise InputError("the model answers no numbers", where="--metric")


def _columns(array: Array) -> list[Array]:
    flat = array.reshape(len(array), -1)
    return [as_text(flat[:, place]) for place in range(flat.shape[1])]


def _best(scores: Array, form: Form) -> Array:
    flat = scores.reshape(len(scores), -1)
    if flat.shape[1] == 1:
        return as_text(flat[:, 0] > form.threshold)
    return as_text(flat.argmax(axis=1))


def as_text(values: Array) -> Array:
    """Labels as text, written alike wherever they come from.

    Parameters
    ----------
    values : ndarray, shape (n,)

    Returns
    -------
    ndarray of str, shape (n,)
    """
    if values.dtype.kind in "biu":
        return (values.astype(np.int64) if values.dtype.kind == "b" else values).astype(np.str_)
    whole = values.dtype.kind == "f" and np.array_equal(values, np.round(values))
    if whole and np.abs(values).max(initial=0.0) < _EXACT:
        return values.astype(np.int64).astype(np.str_)
    distinct = {value: _plain(value) for value in values.tolist()}
    return np.asarray([distinct[value] for value in values.tolist()], dtype=np.str_)


def _plain(value: Any) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    text = text.strip()
    if text.lower() in _TRUTH:
        return _TRUTH[text.lower()]
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() and abs(number) < _EXACT else text


def target_labels(target: Array) -> Array:
    """The right labels as text; a row of zeros and a one stands for the place of the one.

    Raises
    ------
    InputError
        When labels are missing, or there are several numbers a row.
    """
    flat = np.asarray(target).reshape(len(target), -1)
    if flat.shape[1] > 1:
        if flat.dtype.kind not in "biuf" or not (
            np.isin(flat, (0, 1)).all() and (flat.sum(axis=1) == 1).all()
        ):
            raise InputError(
                f"the target holds {flat.shape[1]} values a row, and labels are one",
                where="--target",
            )
        return as_text(flat.argmax(axis=1))
    check_complete(target)
    return as_text(flat[:, 0])


def target_numbers(target: Array) -> Array:
    """The right answers as float64.

    Raises
    ------
    InputError
        When they are no numbers, or are missing.
    """
    flat = np.asarray(target)
    check_complete(flat)
    try:
        numbers = flat.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the target holds no numbers: {error}", where="--target") from error
    if not np.isfinite(numbers).all():
        raise InputError("the target holds NaN or infinities", where="--target")
    return numbers


def check_complete(target: Array) -> None:
    """Check that each row has a right answer.

    Raises
    ------
    InputError
        Saying how many have none.
    """
    values = np.asarray(target).reshape(len(target), -1)[:, 0]
    absent = [
        place
        for place, value in enumerate(values.tolist())
        if value is None or value != value or (isinstance(value, str) and not value.strip())
    ]
    if absent:
        raise InputError(
            f"{len(absent)} of {len(values)} rows have no right answer; the first is row "
            f"{absent[0]} (from 0)",
            where="--target",
            hint="leave these rows out of the data",
        )
