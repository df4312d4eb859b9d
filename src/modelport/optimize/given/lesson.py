"""What a student of the user's learns: rows, the original's answers, and labels where given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from modelport.core.tensors import Array

#: Of the loss: the right answers weigh considerably less than the original's (Hinton, Vinyals and
#: Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2).
LABELS_SHARE: Final = 0.1
#: Of class numbers: the row has no label.
UNKNOWN: Final = -1

SCORES: Final = "scores"
PROBABILITIES: Final = "probabilities"
NUMBERS: Final = "numbers"
VECTORS: Final = "vectors"
#: Kinds that are one number per class.
OF_CLASSES: Final = (SCORES, PROBABILITIES)

_REGRESSION: Final = "regression"
_LEAST: Final = 1e-12
#: Answers that hardly differ are learned to this share of their size.
_NEAR: Final = 1e-3
#: Rows of probabilities add up to one, and vectors are of length one, within this.
_SUM: Final = 1e-3


@dataclass(frozen=True)
class Head:
    """An output that is learned.

    Parameters
    ----------
    name : str
        The original's.
    kind : str
        One of this module's.
    variance : tuple of float
        Of the original's answers: of each column of numbers, or of all.
    softmax : bool
        The student answers scores where the original answers probabilities: a softmax follows, in
        training as in the graph that is made of it.
    """

    name: str
    kind: str
    variance: tuple[float, ...]
    softmax: bool = False


@dataclass(frozen=True)
class Lesson:
    """Rows with their answers.

    Parameters
    ----------
    rows : tuple of ndarray
        The student's inputs in their order, one entry per row.
    answers : tuple of ndarray of float32
        Of each head.
    labels : ndarray or None
        The right answers of the only head: class numbers as int64, `UNKNOWN` where there is none;
        or numbers as float32, NaN where there is none.
    """

    rows: tuple[Array, ...]
    answers: tuple[Array, ...]
    labels: Array | None = None

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.rows[0])

    def take(self, chosen: Array) -> Lesson:
        """Some of the rows."""
        return Lesson(
            tuple(array[chosen] for array in self.rows),
            tuple(array[chosen] for array in self.answers),
            None if self.labels is None else self.labels[chosen],
        )

    def batches(self, size: int, seed: int) -> Iterator[Lesson]:
        """Batches of one size without end, every row once before any comes again."""
        random = np.random.default_rng(seed)
        size = min(size, self.count)
        while True:
            order = random.permutation(self.count)
            for at in range(0, self.count - size + 1, size):
                yield self.take(order[at : at + size])

    def with_more(self, rows: Sequence[Array], answers: Sequence[Array]) -> Lesson:
        """These rows and others behind them, which have no labels."""
        labels = self.labels
        if labels is not None:
            none = UNKNOWN if labels.dtype.kind == "i" else np.nan
            others = np.full((len(answers[0]), *labels.shape[1:]), none, labels.dtype)
            labels = np.concatenate([labels, others])
        return Lesson(
            tuple(np.concatenate(both) for both in zip(self.rows, rows, strict=True)),
            tuple(np.concatenate(both) for both in zip(self.answers, answers, strict=True)),
            labels,
        )


def head_of(name: str, answers: Array, task: str) -> Head:
    """What an output of the original's is.

    Parameters
    ----------
    name : str
    answers : ndarray of float32, shape (n, …)
    task : str
        As the package's manifest has it: several numbers of a regression are no scores.
    """
    kind = _kind(answers, task)
    wide = answers.astype(np.float64)
    flat = wide if kind == NUMBERS and answers.ndim == 2 else wide.reshape(-1, 1)
    least = np.maximum((_NEAR * np.abs(flat).max(axis=0)) ** 2, _LEAST)
    return Head(name, kind, tuple(np.maximum(flat.var(axis=0), least).tolist()))


def are_probabilities(answers: Array) -> bool:
    """Whether rows are probabilities of two classes or more."""
    return bool(
        answers.ndim == 2
        and answers.shape[1] > 1
        and answers.min() >= 0
        and np.allclose(answers.sum(axis=-1), 1.0, atol=_SUM)
    )


def _kind(array: Array, task: str) -> str:
    if array.ndim == 1 or array.shape[-1] == 1:
        return NUMBERS
    if array.ndim > 2:
        return VECTORS
    if task == _REGRESSION:
        return NUMBERS
    if are_probabilities(array):
        return PROBABILITIES
    if np.allclose(np.linalg.norm(array, axis=1), 1.0, atol=_SUM):
        return VECTORS
    if array.min() >= 0 and array.max() <= 1 + _SUM:  # several labels, each with its probability
        return NUMBERS
    return SCORES
