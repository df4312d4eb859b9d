"""What a sample of rows tells about the loss of a variant, and what it cannot tell.

A variant and the original answer the same rows, so the loss is paired: rows that both get right
or both get wrong say nothing about it, and the interval is that of the rows in which they differ.

- Any metric: the percentile bootstrap over rows (Efron and Tibshirani, "An Introduction to the
  Bootstrap", 1993, chapter 13), the same resampled rows for both.
- Metrics that are a share of rows, too: the adjusted Wald interval for matched pairs (Agresti and
  Min, "Simple improved confidence intervals for comparing matched proportions", Statistics in
  Medicine 24, 2005), since a bootstrap of rows that never differ is a point, however few they are.
  The wider of both counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from modelport.core.tensors import Array

#: Two-sided 95 %.
_Z: Final = 1.959964
_RESAMPLES: Final = 1000
_SEED: Final = 20_240_229
_MOST_ROWS: Final = 10_000_000


@dataclass(frozen=True)
class Loss:
    """How much worse a variant is than the original; negative: better.

    Parameters
    ----------
    value : float
        On the rows at hand, in the metric's unit.
    low, high : float
        The 95 % interval.
    rows : int
        How many rows.
    needed : int
        With about how many rows the interval would be inside the budget, if the loss stays what
        it is; 0: it is already; -1: never, since the loss itself is beyond the budget.
    """

    value: float
    low: float
    high: float
    rows: int
    needed: int

    @property
    def decided(self) -> bool:
        """Whether the rows suffice to say that it is inside the budget, or that it is not."""
        return self.needed <= 0


def paired_loss(
    score: Callable[[Array], tuple[float, float]],
    rows: int,
    budget: float,
    *,
    hits: tuple[Array, Array] | None = None,
    resamples: int = _RESAMPLES,
) -> Loss:
    """The loss of a variant against the original, with its interval.

    Parameters
    ----------
    score : callable
        From indices of rows to the original's and the variant's metric on them, larger is better.
    rows : int
    budget : float
        The largest loss that is accepted.
    hits : (ndarray, ndarray) of bool, optional
        Per row whether the original and the variant are right, where the metric is their share.
    resamples : int

    Returns
    -------
    Loss
    """
    before, after = score(np.arange(rows))
    value = before - after
    low, high = _bootstrap(score, rows, resamples)
    if hits is not None:
        adjusted = matched_interval(*hits)
        low, high = min(low, adjusted[0]), max(high, adjusted[1])
    return Loss(value, low, high, rows, _rows_needed(value, high, rows, budget))


def matched_interval(before: Array, after: Array) -> tuple[float, float]:
    """The adjusted Wald interval of the difference of two shares of the same rows.

    Half a row is added to each of the four cells of the table of pairs (Agresti and Min, 2005).

    Parameters
    ----------
    before, after : ndarray of bool, shape (n,)
    """
    lost = float(np.sum(before & ~after)) + 0.5
    gained = float(np.sum(after & ~before)) + 0.5
    count = len(before) + 2.0
    middle = (lost - gained) / count
    half = _Z * math.sqrt(max(lost + gained - (lost - gained) ** 2 / count, 0.0)) / count
    return middle - half, middle + half


def _bootstrap(
    score: Callable[[Array], tuple[float, float]], rows: int, resamples: int
) -> tuple[float, float]:
    random = np.random.default_rng(_SEED)
    losses = np.empty(resamples)
    for index in range(resamples):
        before, after = score(random.integers(0, rows, rows))
        losses[index] = before - after
    low, high = np.nanpercentile(losses, [2.5, 97.5])
    return float(low), float(high)


def _rows_needed(value: float, high: float, rows: int, budget: float) -> int:
    """An interval shrinks with the root of the number of rows."""
    if high <= budget:
        return 0
    if value >= budget:
        return -1
    factor = (high - value) / (budget - value)
    return int(min(math.ceil(rows * factor * factor), _MOST_ROWS))
