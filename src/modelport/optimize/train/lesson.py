"""Rows and a teacher's answers to them: to learn by, and to hold the learned against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from torch import Tensor

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.base import Subject
from modelport.optimize.train.call import tensor_of
from modelport.optimize.train.losses import Goal, goals_of
from modelport.optimize.train.more import more_rows
from modelport.optimize.train.target import UNKNOWN, Target, target_of, task_of

_HELD_SHARE: Final = 0.1
_LEAST_HELD: Final = 8
_MOST_HELD: Final = 512
_FEWEST: Final = 32
_SEED: Final = 7


@dataclass(frozen=True)
class Batch:
    """Some rows.

    Parameters
    ----------
    rows, answers : mapping of str to Tensor
    right : Tensor or None
        The right answers, as `modelport.optimize.train.target` has them.
    """

    rows: dict[str, Tensor]
    answers: dict[str, Tensor]
    right: Tensor | None


@dataclass(frozen=True)
class Examples:
    """Rows, the teacher's answers to them, and the right ones where they are known.

    Parameters
    ----------
    rows, answers : mapping of str to ndarray
        With one entry per row.
    right : ndarray or None
        Likewise.
    """

    rows: Tensors
    answers: Tensors
    right: Array | None = None

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.rows.values())))

    def batches(self, size: int, seed: int) -> Iterator[Batch]:
        """Batches without end, every row once before any comes again.

        All have the same size, since norms of a few left-over rows would be noise.
        """
        random = np.random.default_rng(seed)
        size = min(size, self.count)
        while True:
            order = random.permutation(self.count)
            for at in range(0, self.count - size + 1, size):
                yield self._batch(np.sort(order[at : at + size]))

    def parts(self, size: int) -> Iterator[Batch]:
        """All rows once, in their order."""
        for at in range(0, self.count, size):
            yield self._batch(np.arange(at, min(at + size, self.count)))

    def take(self, chosen: Array) -> Examples:
        """Some of the rows."""
        return Examples(
            {name: array[chosen] for name, array in self.rows.items()},
            {name: array[chosen] for name, array in self.answers.items()},
            None if self.right is None else self.right[chosen],
        )

    def _batch(self, chosen: Array) -> Batch:
        part = self.take(chosen)
        right = None if part.right is None else tensor_of(part.right)
        return Batch(_tensors(part.rows), _tensors(part.answers), right)


@dataclass(frozen=True)
class Lesson:
    """What is learned.

    Parameters
    ----------
    learned : Examples
    held : Examples
        Those that decide when it is learned; never made up.
    goals : tuple of Goal
        The outputs, and how far from the teacher's they are.
    target : Target or None
        What right answers are about, where there are any that can be learned.
    remark : str
        Why right answers are not learned from, although there are some.
    """

    learned: Examples
    held: Examples
    goals: tuple[Goal, ...]
    target: Target | None = None
    remark: str = ""


def lesson_of(subject: Subject, cost: float) -> Lesson:
    """A tenth of the rows is held out, always the same; of the others, more are made if few.

    Parameters
    ----------
    subject : Subject
        Whose model is the teacher: it is asked about the rows that are made.
    cost : float
        The teacher's multiplications per row.

    Raises
    ------
    UnsupportedError
        When the rows are too few, or the answers are nothing that can be learned.
    """
    count = len(next(iter(subject.rows.values())))
    if count < _FEWEST:
        raise UnsupportedError(f"{count} rows are too few to learn from: at least {_FEWEST}")
    goals = tuple(goals_of(subject.answers, count, task_of(subject)))
    found = target_of(subject, goals)
    target, right = (None, None) if isinstance(found, str) else found
    every = Examples(subject.rows, {goal.name: subject.answers[goal.name] for goal in goals}, right)
    held = int(min(max(_HELD_SHARE * count, _LEAST_HELD), _MOST_HELD))
    order = np.random.default_rng(_SEED).permutation(count)
    mine = every.take(np.sort(order[held:]))
    made, told = more_rows(subject.variant.model, mine.rows, mine.answers, cost)
    return Lesson(
        _joined(mine, made, told), every.take(order[:held]), goals, target,
        found if isinstance(found, str) else "",
    )  # fmt: skip


def _joined(examples: Examples, made: Tensors, told: Tensors) -> Examples:
    """With rows that were made up, to which nobody knows the right answers."""
    if not made:
        return examples
    right = examples.right
    if right is not None:
        shape = (len(next(iter(made.values()))), *right.shape[1:])
        unknown = UNKNOWN if right.dtype.kind == "i" else np.nan
        right = np.concatenate([right, np.full(shape, unknown, right.dtype)])
    rows, answers = (
        {name: np.concatenate([array, more[name]]) for name, array in mine.items()}
        for mine, more in ((examples.rows, made), (examples.answers, told))
    )
    return Examples(rows, answers, right)


def _tensors(arrays: Tensors) -> dict[str, Tensor]:
    return {name: tensor_of(array) for name, array in arrays.items()}
