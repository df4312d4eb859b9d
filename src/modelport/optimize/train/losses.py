"""How far a student's answers are from its teacher's.

- Scores of classes: the Kullback-Leibler divergence of the softened probabilities, times T², with
  T = 4 (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section
  2), and a tenth of the squared error of the scores themselves, since clients read them.
- Numbers: the squared error, in units of the teacher's variance.
- Vectors and maps: likewise, and one minus the cosine along the last axis.
"""

from __future__ import annotations

from collections.abc import Mapping
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

SCORES: Final = "scores"
PROBABILITIES: Final = "probabilities"
NUMBERS: Final = "numbers"
VECTORS: Final = "vectors"


@dataclass(frozen=True)
class Goal:
    """One output that is learned.

    Parameters
    ----------
    name : str
    kind : str
        One of this module's.
    variance : float
        Of the teacher's answers.
    """

    name: str
    kind: str
    variance: float

    def loss(self, found: Tensor, expected: Tensor) -> Tensor:
        """The mean over rows.

        Parameters
        ----------
        found, expected : Tensor
            Of one shape, the student's and the teacher's.
        """
        squares = F.mse_loss(found, expected) / self.variance
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


def goals_of(answers: Tensors, rows: int) -> list[Goal]:
    """What a student has to learn from a teacher's answers; labels follow from scores.

    Raises
    ------
    UnsupportedError
        When there is no output of floating-point numbers with one entry per row.
    """
    goals = [
        Goal(name, _kind(array), max(float(array.var()), _LEAST))
        for name, array in answers.items()
        if array.dtype == np.float32 and array.ndim >= 1 and len(array) == rows and array.size
    ]
    if not goals:
        raise UnsupportedError("its outputs are no float32 numbers per row, which training needs")
    return goals


def total_loss(
    goals: list[Goal], found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> Tensor:
    """The sum over the goals."""
    return torch.stack([g.loss(found[g.name].float(), expected[g.name]) for g in goals]).sum()


def _kind(array: Array) -> str:
    if array.ndim == 1 or array.shape[-1] == 1:
        return NUMBERS
    if array.ndim > 2 or np.allclose(np.linalg.norm(array, axis=-1), 1.0, atol=_SUM):
        return VECTORS
    if array.min() >= 0 and np.allclose(array.sum(axis=-1), 1.0, atol=_SUM):
        return PROBABILITIES
    return SCORES
