"""How far a student's answers are from its teacher's.

- Scores of classes: the Kullback-Leibler divergence of the softened probabilities, times T², with
  T = 4 (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section
  2), and a tenth of the squared error of the scores themselves, since clients read them.
- Numbers, and probabilities that do not add up to one: the squared error, in units of the variance
  of the teacher's answers, each column's own.
- Vectors and maps: likewise in units of the variance of all, and one minus the cosine along the
  last axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors

TEMPERATURE: Final = 4.0
_SHARE_OF_SQUARES: Final = 0.1
#: Rows of probabilities add up to one, and vectors are of length one, within this.
_SUM: Final = 1e-3
_LEAST: Final = 1e-12
#: Answers that hardly differ are learned to this share of their size.
_NEAR: Final = 1e-3

SCORES: Final = "scores"
PROBABILITIES: Final = "probabilities"
NUMBERS: Final = "numbers"
VECTORS: Final = "vectors"

#: The task of packages whose answers are numbers.
REGRESSION: Final = "regression"


@dataclass(frozen=True)
class Goal:
    """One output that is learned.

    Parameters
    ----------
    name : str
    kind : str
        One of this module's.
    variance : tuple of float
        Of the teacher's answers: of each column of numbers, or of all.
    """

    name: str
    kind: str
    variance: tuple[float, ...]

    def variance_of(self, answers: Tensor) -> Tensor:
        """The variance, ready to divide answers' squared errors by."""
        return torch.tensor(self.variance, dtype=answers.dtype)

    def loss(self, found: Tensor, expected: Tensor) -> Tensor:
        """The mean over rows.

        Parameters
        ----------
        found, expected : Tensor
            Of one shape, the student's and the teacher's.
        """
        squares = ((found - expected) ** 2 / self.variance_of(found)).mean()
        if self.kind == NUMBERS:
            return squares
        if self.kind == VECTORS:
            return squares + 1 - F.cosine_similarity(found, expected, dim=-1, eps=_LEAST).mean()
        if self.kind == PROBABILITIES:
            found, expected = (value.clamp(min=_LEAST).log() for value in (found, expected))
        divergence = F.kl_div(
            F.log_softmax(found / TEMPERATURE, -1), F.log_softmax(expected / TEMPERATURE, -1),
            reduction="batchmean", log_target=True,
        )  # fmt: skip
        return TEMPERATURE**2 * divergence + _SHARE_OF_SQUARES * squares


def goals_of(answers: Tensors, rows: int, task: str = "") -> list[Goal]:
    """What a student has to learn from a teacher's answers; labels follow from scores.

    Parameters
    ----------
    answers : mapping of str to ndarray
    rows : int
        To which they are the answers; outputs with another number of entries are left out.
    task : str
        As the package's manifest has it: several numbers of a regression are no scores.

    Raises
    ------
    UnsupportedError
        When there is no output of float32 numbers with one entry per row, or one holds NaN.
    """
    taken = {
        name: array
        for name, array in answers.items()
        if array.dtype == np.float32 and array.ndim >= 1 and len(array) == rows and array.size
    }
    if not taken:
        raise UnsupportedError("its outputs are no float32 numbers per row, which training needs")
    for name, array in taken.items():
        wrong = int((~np.isfinite(array.reshape(rows, -1)).all(axis=1)).sum())
        if wrong:
            raise UnsupportedError(
                f"its output {name} is NaN or infinite on {wrong} of {rows} rows, which cannot be "
                "learned"
            )
    return [_goal(name, array, task) for name, array in taken.items()]


def total_loss(
    goals: Sequence[Goal], found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> Tensor:
    """The sum over the goals."""
    return torch.stack([g.loss(found[g.name].float(), expected[g.name]) for g in goals]).sum()


def _goal(name: str, array: Array, task: str) -> Goal:
    kind = _kind(array, task)
    wide = array.astype(np.float64)
    flat = wide if kind == NUMBERS and array.ndim == 2 else wide.reshape(-1, 1)
    least = np.maximum((_NEAR * np.abs(flat).max(axis=0)) ** 2, _LEAST)
    return Goal(name, kind, tuple(np.maximum(flat.var(axis=0), least).tolist()))


def _kind(array: Array, task: str) -> str:
    if array.ndim == 1 or array.shape[-1] == 1:
        return NUMBERS
    if array.ndim > 2:
        return VECTORS
    if task == REGRESSION:
        return NUMBERS
    within = bool(array.min() >= 0 and array.max() <= 1 + _SUM)
    if within and np.allclose(array.sum(axis=1), 1.0, atol=_SUM):
        return PROBABILITIES
    if np.allclose(np.linalg.norm(array, axis=1), 1.0, atol=_SUM):
        return VECTORS
    if within:  # several labels at once, each with a probability of its own
        return NUMBERS
    return SCORES
