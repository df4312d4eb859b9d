"""What people and programs are told about an outcome."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modelport.optimize.base import Variant
from modelport.optimize.evaluate import Measured
from modelport.optimize.frontier import Point
from modelport.optimize.measure.timing import Times
from modelport.optimize.outcome import Outcome
from modelport.optimize.report import sentence, table, to_json
from modelport.optimize.significance import Loss


def measured(
    name: str, size: int, speed: float, loss: float | None = None, **more: Any
) -> Measured:
    needed = more.pop("needed", 0)
    told = None if loss is None else Loss(loss, loss - 0.003, loss + 0.003, 400, needed)
    times = Times(1, 1e-3 / speed, 2e-3 / speed, speed, speed * 0.98, speed * 1.02)
    variant = Variant(name, b"x", passes=() if loss is None else (name,))
    metric = more.pop("metric", 0.9 - (loss or 0.0))
    return Measured(variant, size, metric, told, 0.01, 10**7, times, None, **more)


ORIGINAL = measured("original", 1000, 1.0)
NOTHING = Outcome(
    points=(Point(ORIGINAL, "", False),), picked=None, held=None, failed=(), refusals=(),
    metric="accuracy", rows=400,
)  # fmt: skip


def of(*items: Measured, **more: Any) -> Outcome:
    points = [Point(item, "a reason", True) for item in items]
    return replace(NOTHING, points=(*NOTHING.points, *points), **more)


def test_the_sentence_has_what_was_gained_and_what_was_lost() -> None:
    best = measured("int8", 250, 3.1, 0.002)
    outcome = of(best, picked=Point(best, "", True), held=measured("int8", 250, 3.1, 0.001))
    assert sentence(outcome, 0.01) == (
        "int8: 3.1× as fast, 4.0× smaller, accuracy -0.0020 ± 0.0030, within 0.01, and -0.0010 on "
        "400 rows that nothing had seen"
    )
    assert "1.2× larger" in sentence(replace(outcome, picked=Point(
        replace(best, size=1200), "", True)), 0.01)  # fmt: skip


@pytest.mark.parametrize(
    ("items", "failed", "said"),
    [
        ([], (), "nothing wins"),
        ([measured("int8", 250, 3.0, 0.002, needed=900)], (), "about 2,700 rows in all would do"),
        # With more rows, a slow one would be as slow.
        ([measured("slow", 250, 0.5, 0.002, needed=900)], (), "nothing wins"),
        ([measured("int8", 250, 3.0, 0.05, needed=-1)], (), "nothing wins"),
        ([measured("int8", 250, 3.0, 0.001)], (("int8", "loses 0.02"),), "int8 loses 0.02"),
    ],
)
def test_why_nothing_is_emitted(items: list[Measured], failed: Any, said: str) -> None:
    assert said in sentence(of(*items, failed=failed), 0.01)


@pytest.mark.parametrize(("before", "after"), [(0.9, 0.81), (-1.0, -1 / 0.9)])
def test_ratios_are_what_they_are_defined_as(before: float, after: float) -> None:
    item = measured("int8", 250, 3.0, 0.1, metric=after)
    outcome = replace(of(item), points=(
        Point(replace(ORIGINAL, metric=before), "", False), Point(item, "", True)))  # fmt: skip
    first, second = to_json(outcome, 0.01)["variants"]
    assert (first["compression_ratio"], first["accuracy_speed_ratio"]) == (1, 1)
    assert second["compression_ratio"] == 4
    assert second["accuracy_speed_ratio"] == pytest.approx(0.9 * 3)


def test_what_failed_has_a_row_and_a_reason() -> None:
    broken = Measured(Variant("broken", b""), 0, failed="it does not load")
    outcome = replace(of(), points=(*NOTHING.points, Point(broken, "it does not load", False)))
    assert table(outcome)[1][-1] == "it does not load"
    assert to_json(outcome, 0.01)["variants"][1]["failed"] == "it does not load"
