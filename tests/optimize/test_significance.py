"""Intervals cover what they say they cover, and few rows say little."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelport.core.tensors import Array
from modelport.optimize import formulas, significance
from modelport.optimize.metrics import make_judge
from modelport.optimize.significance import Loss, holding_error, matched_interval, paired_loss


def loss_of(before: Array, after: Array, budget: float, **options: Any) -> Loss:
    return paired_loss(
        formulas.mean_of(before), formulas.mean_of(after), len(before), budget,
        strata=[(before, after)], resamples=100, **options,
    )  # fmt: skip


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


def errors(random: np.random.Generator, rows: int, sparse: bool) -> tuple[Array, Array, Array]:
    """Truth, an original's answers with an error of 1, and a variant's that is 3 % worse."""
    truth = random.normal(size=rows)
    before = truth + random.normal(size=rows)
    if sparse:
        return truth, before, before + (random.random(rows) < 0.03) * random.normal(0, 1.42, rows)
    return truth, before, before + random.normal(0, 0.247, rows)


@pytest.mark.parametrize(("rows", "sparse", "most"), [(30, False, 0.06), (300, True, 0.2)])
def test_the_interval_of_any_metric_covers_the_truth(rows: int, sparse: bool, most: float) -> None:
    random = np.random.default_rng(1)
    missed = 0
    for _ in range(200):
        truth, before, after = errors(random, rows, sparse)
        unit = formulas.rmse(truth, before)
        loss = paired_loss(
            formulas.minus_rmse(truth, before, unit), formulas.minus_rmse(truth, after, unit),
            rows, 0.01, resamples=200,
        )  # fmt: skip
        assert loss.low <= loss.value <= loss.high
        missed += loss.high < 0.03
    assert missed / 200 <= most


def test_the_same_rows_have_the_same_interval() -> None:
    truth, before, after = errors(np.random.default_rng(1), 300, sparse=False)
    one, other = (formulas.minus_rmse(truth, found, 1.0) for found in (before, after))
    assert paired_loss(one, other, 300, 0.05) == paired_loss(one, other, 300, 0.05)


def test_as_many_rows_as_are_said_to_be_needed_suffice_more_or_less() -> None:
    """Of a variant that loses half of what it may, with 2 % of labels changed."""
    random = np.random.default_rng(3)

    def sample(rows: int) -> Loss:
        kind = random.random(rows)
        before = kind > 0.1
        after = np.where(kind > 0.985, False, before) | (kind < 0.005)
        return loss_of(before, after, 0.02)

    needed = [loss.needed for loss in (sample(400) for _ in range(40)) if loss.needed > 0]
    enough = [sample(int(np.median(needed))).bound <= 0.02 for _ in range(150)]
    assert np.mean(enough) > 0.55
    assert np.median(needed) < 4000


def test_a_larger_error_is_a_smaller_bound() -> None:
    before = np.ones(300, dtype=bool)
    after = before.copy()
    after[:5] = False
    strict, half = loss_of(before, after, 0.02), loss_of(before, after, 0.02, error=0.5)
    assert strict.bound == strict.high
    assert (half.low, half.high) == (strict.low, strict.high)
    assert strict.value <= half.bound < strict.bound


@pytest.mark.parametrize("metric", ["f1", "recall"])
def test_means_over_labels_say_little_when_labels_have_few_rows(metric: str) -> None:
    labels = np.repeat(["a", "b", "c"], [40, 40, 4])
    judge = make_judge(metric, {"label": labels}, labels, "classification")
    loss = judge.loss(judge.decide({"label": labels}), judge.decide({"label": labels}), 0.01)
    assert loss.value == 0
    assert loss.high > 0.1  # of the four rows, one in four may change unseen
    assert loss.needed > 84


def test_a_slow_metric_is_not_asked_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "_SECONDS", 0.0)
    asked = 0

    def slow(weights: Array) -> float:
        nonlocal asked
        asked += 1
        return float(weights.mean())

    paired_loss(slow, slow, 300, 0.01)
    assert asked <= 2 * 201


def test_hardly_ever_a_variant_beyond_the_budget_passes_both_thirds() -> None:
    """The worst case: a dozen variants, all of them just beyond it, and independent."""
    random = np.random.default_rng(5)
    budget, variants, rows, runs = 0.02, 12, 300, 40
    error = holding_error(variants)

    def sample() -> Loss:
        before = random.random(rows) < 0.9
        chance = random.random(rows)
        after = np.where(before, chance > 0.0245 / 0.9, chance < 0.004 / 0.1)
        return paired_loss(
            formulas.mean_of(before), formulas.mean_of(after), rows, budget,
            strata=[(before, after)], resamples=60, error=error,
        )  # fmt: skip

    wrong = sum(
        any(sample().high <= budget and sample().bound <= budget for _ in range(variants))
        for _ in range(runs)
    )
    assert wrong / runs <= 0.1
    assert holding_error(1) == 0.5  # one alone: the point itself
