"""What a sample of rows tells about the loss of a variant, and what it cannot tell.

A variant and the original answer the same rows, so the loss is paired: rows that both get right
or both get wrong say nothing about it, and the interval is that of the rows in which they differ.
The widest of these counts:

- The percentile bootstrap over rows, the same resampled rows for both, and Student's interval with
  the bootstrap's standard error, which is wider where rows are few (Efron and Tibshirani, "An
  Introduction to the Bootstrap", 1993, chapters 12 and 13).
- For metrics that count no rows: where few rows differ much, a bootstrap of those that were seen is
  too sure of itself. The rows that make the loss are reckoned with as the score interval of a
  Poisson number does (half of z squared more of them, of their typical size).
- For metrics that count rows: the adjusted Wald interval for matched pairs (Agresti and Min,
  "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine
  24, 2005), since a bootstrap of rows that never differ is a point, however few they are. Of
  metrics that are a mean over labels: the same for the rows of each label.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from modelport.core.errors import InputError
from modelport.core.tensors import Array

#: From the weight of each row (how often it was drawn) to a metric, larger is better.
Meter = Callable[[Array], float]
#: Per row whether the original and a variant are right.
Hits = tuple[Array, Array]

#: On either side of a two-sided interval of 95 %.
ERROR: Final = 0.025
#: How often a variant that loses more than it may is emitted, at most.
_EMITTED_WRONGLY: Final = 0.05
#: With so many rows as `Loss.needed` says, a variant is as good as it looks this often.
_POWER: Final = 0.8
#: Rows that may differ and were not seen, when it is reckoned how many rows would do: with the few
#: that there are, what is rare has not been met.
_UNSEEN: Final = 0.25
_RESAMPLES: Final = 1000
_FEWEST_RESAMPLES: Final = 200
#: Seconds that a metric may be evaluated for, beyond the fewest resamples: a user's may be slow.
_SECONDS: Final = 20.0
#: Among more rows, one more counts for little.
_MOST_SINGLE: Final = 2000
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
        The interval of 95 %.
    rows : int
        How many rows.
    needed : int
        With about how many rows the interval would be inside the budget, if the loss stays what
        it is; 0: it is already; -1: never, since the loss itself is beyond the budget.
    bound : float
        What it is at most, with the error that was asked for.
    """

    value: float
    low: float
    high: float
    rows: int
    needed: int
    bound: float = math.inf

    @property
    def decided(self) -> bool:
        """Whether the rows suffice to say that it is inside the budget, or that it is not."""
        return self.needed <= 0


def paired_loss(
    before: Meter,
    after: Meter,
    rows: int,
    budget: float,
    *,
    strata: Sequence[Hits] = (),
    error: float = ERROR,
    resamples: int = _RESAMPLES,
) -> Loss:
    """The loss of a variant against the original, with its interval.

    Parameters
    ----------
    before, after : callable
        The original's and the variant's metric on rows of these weights, shape (rows,).
    rows : int
    budget : float
        The largest loss that is accepted.
    strata : sequence of (ndarray, ndarray) of bool
        Groups of rows whose shares of right answers, averaged, are the metric or move like it;
        none: the metric counts no rows.
    error : float
        How often the truth may lie above `Loss.bound`; up to 0.5.
    resamples : int

    Returns
    -------
    Loss

    Raises
    ------
    InputError
        When the metric has no value.
    """

    def loss(weights: Array) -> float:
        return before(weights) - after(weights)

    begin = time.perf_counter()
    value = loss(np.ones(rows))
    if not math.isfinite(value):
        raise InputError(f"the metric of its answers is {after(np.ones(rows))}", where="--metric")
    affordable = int(_SECONDS / max(time.perf_counter() - begin, 1e-6))
    drawn = _bootstrap(loss, rows, min(resamples, max(affordable, _FEWEST_RESAMPLES)))
    deviation = float(drawn.std()) * math.sqrt(rows / max(rows - 1, 1))
    counted = [_counted(*hits) for hits in strata]
    typical = 0.0
    if not counted and rows <= min(_MOST_SINGLE, affordable):
        typical = _typical(np.array([loss(1.0 + one) - value for one in np.eye(rows)]))

    def interval(error: float) -> tuple[float, float]:
        half = _student(error, rows - 1) * deviation
        low, high = (float(edge) for edge in np.quantile(drawn, [error, 1 - error]))
        low, high = min(low, value - half), max(high, value + half) + _z(error) ** 2 / 2 * typical
        if counted:
            adjusted = _adjusted(counted, _z(error))
            low, high = min(low, adjusted[0]), max(high, adjusted[1])
        return low, high

    low, high = interval(ERROR)
    bound = high if error == ERROR else interval(error)[1]
    needed = _rows_needed(value, bound, deviation, counted, rows, budget)
    return Loss(value, low, high, rows, needed, bound)


def holding_error(variants: int) -> float:
    """The error on the held-out rows with which so many variants are emitted wrongly hardly ever.

    A variant beyond the budget passes the rows that variants are chosen by with the probability
    `ERROR`, and the held-out rows, which are independent of them, with this one. The product,
    times the number of variants, is `_EMITTED_WRONGLY` at most (Bonferroni).
    """
    return min(0.5, _EMITTED_WRONGLY / (ERROR * max(variants, 1)))


def matched_interval(before: Array, after: Array) -> tuple[float, float]:
    """The adjusted Wald interval (95 %) of the difference of two shares of the same rows.

    Half a row is added to each of the four cells of the table of pairs (Agresti and Min, 2005).

    Parameters
    ----------
    before, after : ndarray of bool, shape (n,)
    """
    return _adjusted([_counted(before, after)], _z(ERROR))


def _counted(before: Array, after: Array) -> tuple[float, float, float]:
    """How many rows a variant loses and gains, and of how many."""
    return float(np.sum(before & ~after)), float(np.sum(after & ~before)), float(len(before))


def _adjusted(
    counted: Sequence[tuple[float, float, float]], z: float, power: float = 0.0
) -> tuple[float, float]:
    """Of a mean over strata; `power`: wider by so many deviations of what differs."""
    middle = variance = seen = 0.0
    for lost, gained, count in counted:
        lost, gained, rows = lost + 0.5, gained + 0.5, count + 2.0
        difference = lost - gained
        middle += difference / rows
        variance += max(lost + gained - difference**2 / rows, 0.0) / rows**2
        seen += max(lost + gained - 1.0, 0.0) / rows**2
    half = z * math.sqrt(variance) + power * math.sqrt(seen)
    return (middle - half) / len(counted), (middle + half) / len(counted)


def _bootstrap(loss: Meter, rows: int, resamples: int) -> Array:
    """Losses on rows drawn with replacement; draws in which a metric has no value are left out."""
    random = np.random.default_rng(_SEED)
    losses = np.empty(resamples)
    for index in range(resamples):
        drawn = np.bincount(random.integers(0, rows, rows), minlength=rows)
        losses[index] = loss(drawn.astype(np.float64))
    told = losses[np.isfinite(losses)]
    return told if len(told) else np.zeros(1)


def _typical(changes: Array) -> float:
    """What one of the rows that make the loss adds to it: their mean, weighted by itself."""
    sizes = np.abs(changes)
    return float(np.sum(sizes**2) / sizes.sum()) if sizes.sum() > 0 else 0.0


def _z(error: float) -> float:
    return NormalDist().inv_cdf(1 - error)


def _student(error: float, freedom: int) -> float:
    """Student's quantile (Abramowitz and Stegun, 26.7.5, to the second order)."""
    z, v = _z(error), max(freedom, 1)
    return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)


def _rows_needed(
    value: float,
    bound: float,
    deviation: float,
    counted: Sequence[tuple[float, float, float]],
    rows: int,
    budget: float,
) -> int:
    """The fewest rows with which the interval would end below the budget with `_POWER`."""
    if bound <= budget:
        return 0
    if not value < budget:
        return -1
    z, power = _z(ERROR), NormalDist().inv_cdf(_POWER)
    more = rows
    while more < _MOST_ROWS:
        factor = more / rows
        end = value + (z + power) * deviation / math.sqrt(factor)
        if counted:
            scaled = [
                ((lost + _UNSEEN) * factor, (gained + _UNSEEN) * factor, n * factor)
                for lost, gained, n in counted
            ]
            end = max(end, _adjusted(scaled, z, power)[1])
        if end <= budget:
            break
        more = math.ceil(more * 1.02) + 1
    return min(more, _MOST_ROWS)
