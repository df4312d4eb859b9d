"""The formulas of metrics, as functions of how much each row weighs.

All are larger where answers are better. Weights make a bootstrap cheap: what a row says is
computed once.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from modelport.core.tensors import Array
from modelport.optimize.significance import Meter

#: Lengths below this are those of no direction.
_NOTHING: Final = 1e-30


def mean_of(values: Array) -> Meter:
    """The mean of a number per row."""
    told = np.asarray(values, dtype=np.float64)
    return lambda weights: float(weights @ told / weights.sum())


def f1(expected: Array, found: Array, labels: int, positive: int | None) -> Meter:
    """The F1 score 2·right / (named + meant): of one label, or the mean over all (macro).

    Parameters
    ----------
    expected, found : ndarray of int, shape (n,)
        Places among the labels; `labels`: another one.
    labels : int
        How many there are.
    positive : int or None
        The label that counts; None: all do.
    """

    def meter(weights: Array) -> float:
        right, named, meant = _counts(expected, found, weights, labels, positive)
        there = named + meant > 0
        scores = 2 * right[there] / (named + meant)[there]
        return float(scores.mean()) if there.any() else math.nan

    return meter


def recall(expected: Array, found: Array, labels: int, positive: int | None) -> Meter:
    """The share of a label's rows that are found; parameters as for `f1`."""

    def meter(weights: Array) -> float:
        right, _, meant = _counts(expected, found, weights, labels, positive)
        there = meant > 0
        return float(np.mean(right[there] / meant[there])) if there.any() else math.nan

    return meter


def _counts(
    expected: Array, found: Array, weights: Array, labels: int, positive: int | None
) -> tuple[Array, Array, Array]:
    """Per label that counts: rows found rightly, rows found, rows expected."""
    counted = slice(labels) if positive is None else slice(positive, positive + 1)
    right, named, meant = (
        np.bincount(places, weights=mass, minlength=labels + 1)[counted]
        for places, mass in (
            (expected, weights * (expected == found)), (found, weights), (expected, weights),
        )
    )  # fmt: skip
    return right, named, meant


def minus_rmse(expected: Array, found: Array, unit: float) -> Meter:
    """Minus the root of the mean squared error, in a unit."""
    squares = mean_of(np.mean(_flat(expected - found) ** 2, axis=1))
    return lambda weights: -math.sqrt(squares(weights)) / unit


def rmse(expected: Array, found: Array) -> float:
    """The root of the mean squared error of all rows."""
    return float(np.sqrt(np.mean((expected - found) ** 2)))


def r2(expected: Array, found: Array) -> Meter:
    """One minus the squared errors' share of the squares around the mean of all rows."""
    flat = _flat(expected)
    spread = mean_of(np.sum((flat - flat.mean(axis=0)) ** 2, axis=1))
    errors = mean_of(np.sum((flat - _flat(found)) ** 2, axis=1))

    def meter(weights: Array) -> float:
        whole = spread(weights)
        return 1 - errors(weights) / whole if whole > 0 else math.nan

    return meter


def cosine(expected: Array, found: Array) -> Meter:
    """The mean cosine of the angle between the rows' vectors; of two without length: 1."""
    one, other = _flat(expected), _flat(found)
    lengths = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    cosines = np.sum(one * other, axis=1) / np.maximum(lengths[0] * lengths[1], _NOTHING)
    return mean_of(np.where((lengths[0] == 0) & (lengths[1] == 0), 1.0, cosines))


def _flat(array: Array) -> Array:
    return array.reshape(len(array), -1)
