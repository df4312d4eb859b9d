"""Rows and a teacher's answers to them: to learn by, and to hold the learned against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.train.more import more_rows

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
    """

    rows: dict[str, Tensor]
    answers: dict[str, Tensor]


@dataclass(frozen=True)
class Lesson:
    """What is learned from.

    Parameters
    ----------
    rows, answers : mapping of str to ndarray
        With one entry per row.
    held_rows, held_answers : mapping of str to ndarray
        Likewise, for those that decide when it is learned; never made up.
    """

    rows: Tensors
    answers: Tensors
    held_rows: Tensors
    held_answers: Tensors

    @property
    def count(self) -> int:
        """How many rows there are to learn from."""
        return len(next(iter(self.rows.values())))

    @property
    def held(self) -> Lesson:
        """The held rows as a lesson of their own."""
        return Lesson(self.held_rows, self.held_answers, {}, {})

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

    def _batch(self, chosen: Array) -> Batch:
        return Batch(_tensors(self.rows, chosen), _tensors(self.answers, chosen))


def lesson_of(teacher: bytes, rows: Tensors, answers: Tensors, cost: float) -> Lesson:
    """A tenth of the rows is held out, always the same; of the others, more are made if few.

    Parameters
    ----------
    teacher : bytes
        The original's model, which is asked about the rows that are made.
    rows, answers : mapping of str to ndarray
    cost : float
        The teacher's multiplications per row.

    Raises
    ------
    UnsupportedError
        When the rows are too few.
    """
    count = len(next(iter(rows.values())))
    if count < _FEWEST:
        raise UnsupportedError(f"{count} rows are too few to learn from: at least {_FEWEST}")
    held = int(min(max(_HELD_SHARE * count, _LEAST_HELD), _MOST_HELD))
    order = np.random.default_rng(_SEED).permutation(count)
    learned, kept = np.sort(order[held:]), np.sort(order[:held])
    mine, told = _take(rows, learned), _take(answers, learned)
    made, heard = more_rows(teacher, mine, told, cost)
    return Lesson(
        _joined(mine, made), _joined(told, heard), _take(rows, kept), _take(answers, kept)
    )


def _joined(arrays: Tensors, more: Tensors) -> dict[str, Array]:
    return {
        name: np.concatenate([array, more[name]]) if name in more else array
        for name, array in arrays.items()
    }


def _take(arrays: Tensors, chosen: Array) -> dict[str, Array]:
    """Those with one entry per row."""
    most = int(chosen.max())
    return {
        name: np.asarray(array)[chosen]
        for name, array in arrays.items()
        if array.ndim and len(array) > most and array.dtype != object
    }


def _tensors(arrays: Tensors, chosen: Array) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(np.ascontiguousarray(array[chosen]))
        for name, array in arrays.items()
    }
