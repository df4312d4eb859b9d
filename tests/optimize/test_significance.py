"""Intervals cover what they say they cover, and few rows say little."""

from __future__ import annotations

import numpy as np
import pytest

from modelport.core.tensors import Array
from modelport.optimize.significance import matched_interval, paired_loss


def loss_of(before: Array, after: Array, budget: float, resamples: int = 400):  # type: ignore[no-untyped-def]
    def score(rows: Array) -> tuple[float, float]:
        return float(before[rows].mean()), float(after[rows].mean())

    return paired_loss(score, len(before), budget, hits=(before, after), resamples=resamples)


@pytest.mark.parametrize(("rows", "decided"), [(60, False), (150, False), (250, True)])
def test_rows_that_never_differ_still_have_an_interval(rows: int, decided: bool) -> None:
    right = np.ones(rows, dtype=bool)
    loss = loss_of(right, right, 0.01)
    assert loss.value == 0
    assert loss.low < 0 < loss.high
    assert loss.decided is decided
    if not decided:
        enough = np.ones(loss.needed, dtype=bool)
        assert loss_of(enough, enough, 0.01).decided


def test_a_loss_beyond_the_budget_is_never_made_good_by_more_rows() -> None:
    before = np.ones(500, dtype=bool)
    after = before.copy()
    after[:50] = False
    loss = loss_of(before, after, 0.01)
    assert loss.needed == -1
    assert loss.decided
    assert loss.value == pytest.approx(0.1)
    assert loss.low < 0.1 < loss.high


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        before = random.random(400) < 0.9
        # A variant that loses two percent of what was right, and gains one percent of the rest.
        after = np.where(before, random.random(400) > 0.02, random.random(400) < 0.01)
        low, high = matched_interval(before, after)
        covered += low <= 0.9 * 0.02 - 0.1 * 0.01 <= high
    assert 0.92 <= covered / 300 <= 0.99


def test_any_metric_has_a_bootstrap() -> None:
    random = np.random.default_rng(1)
    truth = random.normal(size=300)
    before, after = truth + random.normal(0, 0.1, 300), truth + random.normal(0, 0.2, 300)

    def score(rows: Array) -> tuple[float, float]:
        return tuple(
            -float(np.sqrt(np.mean((truth[rows] - found[rows]) ** 2))) for found in (before, after)
        )  # type: ignore[return-value]

    loss = paired_loss(score, 300, 0.05)
    assert loss.low < loss.value < loss.high
    assert 0.07 < loss.value < 0.13
    assert paired_loss(score, 300, 0.05) == loss  # the same rows, the same interval
