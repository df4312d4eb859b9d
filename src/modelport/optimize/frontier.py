"""Which variants are worth having, and which one is picked.

A variant is on the frontier when no other one is at least as good in loss, time for one row, time
in bulk and size, and better in one of them. It may be picked when it is inside the budget with 95 %
confidence, is not slower (95 % interval; a smaller one by a few percent at most), and is faster or
smaller by a few percent, or much faster in bulk and no larger. Of those the fastest for one row is
picked; where the intervals of two overlap, the smaller; where both are as large, the one that gains
more in bulk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from modelport.optimize.evaluate import Measured

#: What is gained less than this, in size or time, is not worth another model.
LEAST_GAIN: Final = 1.03
#: What is gained in bulk alone has to be worth another engine.
LEAST_BULK_GAIN: Final = 1.25


@dataclass(frozen=True)
class Point:
    """A measured variant on the plot.

    Parameters
    ----------
    measured : Measured
    verdict : str
        Why it cannot be picked; empty: it can.
    pareto : bool
        Whether it is on the frontier.
    """

    measured: Measured
    verdict: str
    pareto: bool


def frontier(original: Measured, others: Sequence[Measured], budget: float) -> list[Point]:
    """The original and all others, with verdicts."""
    working = [original, *(item for item in others if not item.failed)]
    return [
        Point(
            item,
            verdict="" if item is original else _verdict(item, original, budget),
            pareto=not item.failed and not any(_dominates(other, item) for other in working),
        )
        for item in (original, *others)
    ]


def ranking(points: Sequence[Point]) -> list[Point]:
    """Those that may be picked, the best one first."""
    able = [point for point in points if not point.verdict and point.measured.loss is not None]
    ordered: list[Point] = []
    while able:
        fastest = max(able, key=lambda point: _speedup(point.measured))
        even = [p for p in able if _high(p.measured) >= _speedup(fastest.measured)]
        smallest = min(point.measured.size for point in even)
        small = [p for p in even if p.measured.size <= smallest * LEAST_GAIN]
        best = max(small, key=lambda p: (bulk_gain(p.measured), -p.measured.size))
        ordered.append(best)
        able.remove(best)
    return ordered


def _verdict(item: Measured, original: Measured, budget: float) -> str:
    if item.failed:
        return item.failed
    loss, single = item.loss, item.single
    if loss is not None and not loss.decided:
        return f"too few rows to tell: about {3 * loss.needed:,} in all would do"
    if loss is not None and loss.high > budget:
        return f"loses {loss.value:.4g}, and {budget:g} is accepted"
    if single is None:
        return "not timed"
    smaller = item.size * LEAST_GAIN <= original.size
    if single.high * (LEAST_GAIN if smaller else 1.0) < 1.0:
        return "slower"
    in_bulk = bulk_gain(item) > 1.0 and item.size <= original.size * LEAST_GAIN
    if not smaller and single.low <= LEAST_GAIN and not in_bulk:
        return "neither smaller nor faster by more than a few percent"
    return ""


def _dominates(one: Measured, other: Measured) -> bool:
    """At least as good in everything, and better in something."""
    mine, others = _values(one), _values(other)
    return all(a <= b for a, b in zip(mine, others, strict=True)) and mine != others


def _values(item: Measured) -> tuple[float, float, float, float]:
    loss = item.loss.value if item.loss is not None else 0.0
    time = 1 / item.single.speedup if item.single is not None else float("inf")
    return loss, time, 1 / bulk_gain(item), float(item.size)


def _speedup(item: Measured) -> float:
    return item.single.speedup if item.single is not None else 0.0


def bulk_gain(item: Measured) -> float:
    """How many times as fast in bulk; 1 unless it is much, and certain."""
    bulk = item.bulk
    return bulk.speedup if bulk is not None and bulk.low >= LEAST_BULK_GAIN else 1.0


def _high(item: Measured) -> float:
    return item.single.high if item.single is not None else 0.0
