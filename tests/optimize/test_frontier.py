"""What is on the frontier, what may be picked, and what is picked."""

from __future__ import annotations

from dataclasses import replace

from modelport.optimize.base import Variant
from modelport.optimize.evaluate import Measured
from modelport.optimize.frontier import frontier, ranking
from modelport.optimize.measure.timing import Times
from modelport.optimize.significance import Loss


def measured(
    name: str, size: int, speedup: float, loss: float | None = 0.0, *, width: float = 0.002,
    spread: float = 0.02, needed: int = 0, failed: str = "",
) -> Measured:  # fmt: skip
    times = Times(1, 0.001 / speedup, 0.002, speedup, speedup - spread, speedup + spread)
    found = None if loss is None else Loss(loss, loss - width, loss + width, 500, needed)
    variant = Variant(name, b"", () if loss is None else (name,))
    return Measured(variant, size, 0.9, found, 0.01, 0, times, None, failed)


ORIGINAL = measured("original", 1000, 1.0, None, spread=0)


def names(points: list) -> list[str]:  # type: ignore[type-arg]
    return [point.measured.variant.name for point in points]


def test_the_fastest_inside_the_budget_is_picked() -> None:
    points = frontier(
        ORIGINAL,
        [measured("slow", 300, 2.0), measured("fast", 400, 3.0), measured("wrong", 100, 9.0, 0.05)],
        0.01,
    )
    assert names(ranking(points)) == ["fast", "slow"]
    verdicts = {point.measured.variant.name: point.verdict for point in points}
    assert verdicts["wrong"] == "loses 0.05, and 0.01 is accepted"
    assert names([point for point in points if point.pareto]) == ["slow", "fast", "wrong"]


def test_of_two_that_are_as_fast_the_smaller() -> None:
    points = frontier(ORIGINAL, [measured("large", 500, 2.01), measured("small", 250, 2.0)], 0.01)
    assert names(ranking(points)) == ["small", "large"]


def test_never_what_is_slower_or_neither_faster_nor_smaller() -> None:
    points = frontier(
        ORIGINAL,
        [measured("slower", 250, 0.9), measured("same", 1000, 1.01), measured("larger", 1200, 1.0)],
        0.01,
    )
    assert ranking(points) == []
    assert [point.verdict for point in points[1:]] == [
        "slower",
        "neither smaller nor faster by more than a few percent",
        "neither smaller nor faster by more than a few percent",
    ]


def test_larger_is_fine_when_it_is_faster_for_certain() -> None:
    points = frontier(ORIGINAL, [measured("larger", 1200, 1.5)], 0.01)
    assert names(ranking(points)) == ["larger"]


def test_what_is_too_uncertain_or_failed_is_not_picked() -> None:
    points = frontier(
        ORIGINAL,
        [measured("unsure", 250, 3.0, 0.0, width=0.02, needed=2400),
         measured("broken", 250, 3.0, failed="it does not load")],
        0.01,
    )  # fmt: skip
    assert ranking(points) == []
    assert points[1].verdict == "too few rows to tell: about 7,200 in all would do"
    assert points[2].verdict == "it does not load"
    assert not points[2].pareto


def test_what_another_one_beats_in_everything_is_not_on_the_frontier() -> None:
    points = frontier(
        ORIGINAL, [measured("good", 250, 3.0), measured("bad", 300, 2.0, 0.001)], 0.01
    )
    assert [point.pareto for point in points] == [False, True, False]


def in_bulk(speedup: float, spread: float = 0.05) -> Times:
    return Times(4096, 0.03, 0.04, speedup, speedup - spread, speedup + spread)


def test_much_faster_in_bulk_is_a_gain_of_its_own() -> None:
    even = measured("bulk", 1005, 1.0)
    points = frontier(
        ORIGINAL,
        [replace(even, bulk=in_bulk(2.0)),
         replace(measured("a little", 1005, 1.0), bulk=in_bulk(1.2)),
         replace(measured("unsure", 1005, 1.0), bulk=in_bulk(1.5, 0.4)),
         replace(measured("larger", 1200, 1.0), bulk=in_bulk(2.0)),
         replace(measured("slower", 1005, 0.9), bulk=in_bulk(2.0))],
        0.01,
    )  # fmt: skip
    assert names(ranking(points)) == ["bulk"]
    assert [point.verdict for point in points[2:]] == [
        "neither smaller nor faster by more than a few percent",
        "neither smaller nor faster by more than a few percent",
        "neither smaller nor faster by more than a few percent",
        "slower",
    ]
    assert points[1].pareto
    assert not points[4].pareto  # "bulk" is as fast and smaller


def test_of_two_as_fast_and_as_large_the_faster_one_in_bulk() -> None:
    plain, bulk = measured("plain", 500, 1.5), measured("bulk", 505, 1.49)
    small = measured("small", 250, 1.5)
    both = [plain, replace(bulk, bulk=in_bulk(2.0))]
    assert names(ranking(frontier(ORIGINAL, both, 0.01))) == ["bulk", "plain"]
    assert names(ranking(frontier(ORIGINAL, [*both, small], 0.01)))[0] == "small"
