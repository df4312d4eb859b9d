"""What an optimization found, as plain data, as a table, and in one sentence.

Definitions of the ratios:

compression ratio
    Bytes of the original's model file divided by the variant's (with files of processing).
speed-up
    Median over the rounds of the original's time for one row divided by the variant's in the same
    round; the interval is a bootstrap over the rounds.
loss
    The original's metric minus the variant's, on the same rows; see
    `modelport.optimize.significance` for the interval.
accuracy/speed
    The variant's metric as a share of the original's, times its speed-up: 1 is no gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelport.optimize.evaluate import Measured
from modelport.optimize.frontier import Point
from modelport.optimize.measure.timing import Times
from modelport.optimize.outcome import Outcome

HEADER = (
    "VARIANT", "SIZE", "SMALLER", "1 ROW", "FASTER", "BULK", "LOAD", "MEMORY", "METRIC", "LOSS", "",
)  # fmt: skip


def sentence(outcome: Outcome, budget: float) -> str:
    """The pick and why, or why there is none."""
    if outcome.picked is None or outcome.held is None:
        return _nothing(outcome, budget)
    original, item = outcome.points[0].measured, outcome.picked.measured
    parts = []
    if item.single is not None:
        parts.append(f"{item.single.speedup:.1f}× as fast")
    parts.append(f"{original.size / item.size:.1f}× smaller")
    loss = outcome.held.loss
    if loss is not None:
        half = (loss.high - loss.low) / 2
        parts.append(
            f"{outcome.metric} {-loss.value:+.4f} ± {half:.4f} on {loss.rows} rows that nothing "
            f"had seen, within {budget:g}"
        )
    return f"{item.variant.name}: {', '.join(parts)}"


def _nothing(outcome: Outcome, budget: float) -> str:
    needed = [
        point.measured.loss.needed
        for point in outcome.points[1:]
        if point.measured.loss is not None and point.measured.loss.needed > 0
    ]
    if needed and not any(not point.verdict for point in outcome.points[1:]):
        return (
            f"nothing is emitted: {outcome.rows} rows are too few to tell a loss of {budget:g}; "
            f"about {3 * min(needed):,} rows in all would do"
        )
    return "nothing wins: the original stays as it is"


def to_json(outcome: Outcome, budget: float) -> dict[str, Any]:
    """All of it, for programs and for the package."""
    return {
        "metric": outcome.metric,
        "max_drop": budget,
        "rows": outcome.rows,
        "sentence": sentence(outcome, budget),
        "picked": outcome.picked.measured.variant.name if outcome.picked else None,
        "held_out": measured_to_json(outcome.held) if outcome.held else None,
        "variants": [
            {**measured_to_json(point.measured), "pareto": point.pareto, "verdict": point.verdict}
            for point in outcome.points
        ],
        "did_not_hold": [{"variant": name, "why": why} for name, why in outcome.failed],
        "passes_without_effect": [
            {"pass": item.name, "of": item.of, "why": item.why} for item in outcome.refusals
        ],
    }


def table(outcome: Outcome) -> list[tuple[str, ...]]:
    """One row per variant, the original first, then the fastest."""
    first, *others = outcome.points
    others.sort(key=lambda point: -(point.measured.single.speedup if point.measured.single else 0))
    picked = outcome.picked.measured.variant.name if outcome.picked else ""
    return [_row(point, first.measured, picked) for point in (first, *others)]


def _row(point: Point, original: Measured, picked: str) -> tuple[str, ...]:
    item = point.measured
    mark = "picked" if item.variant.name == picked else point.verdict
    if not mark and point.pareto and item.loss is not None:
        mark = "on the frontier"
    return (*row_of(item, original), mark)


def row_of(item: Measured, original: Measured) -> tuple[str, ...]:
    """One variant's cells, without a verdict."""
    if item.failed:
        return (item.variant.name, _bytes(item.size), *[""] * 8)
    return (
        item.variant.name,
        _bytes(item.size),
        f"{original.size / item.size:.1f}×",
        _time(item.single.p50) if item.single else "",
        f"{item.single.speedup:.2f}×" if item.single else "",
        f"{item.bulk.speedup:.2f}× of {item.bulk.batch}" if item.bulk else "",
        _time(item.load),
        _bytes(item.memory) if item.memory else "",
        f"{item.metric:.4f}",
        f"{item.loss.value:+.4f}, at most {item.loss.high:+.4f}" if item.loss else "",
    )


def measured_to_json(item: Measured) -> dict[str, Any]:
    """One variant as plain data."""
    if item.failed:
        return {"name": item.variant.name, "bytes": item.size, "failed": item.failed}
    return {
        "name": item.variant.name,
        "passes": list(item.variant.passes),
        "detail": dict(item.variant.detail),
        "bytes": item.size,
        "metric": item.metric,
        "loss": None
        if item.loss is None
        else {"value": item.loss.value, "low": item.loss.low, "high": item.loss.high,
              "rows": item.loss.rows},
        "load_seconds": item.load,
        "peak_memory": item.memory,
        "one_row": _times(item.single),
        "bulk": _times(item.bulk),
    }  # fmt: skip


def _times(times: Times | None) -> dict[str, Any] | None:
    if times is None:
        return None
    return {
        "batch": times.batch,
        "p50_seconds": times.p50,
        "p99_seconds": times.p99,
        "rows_per_second": times.throughput,
        "speedup": times.speedup,
        "speedup_interval": [times.low, times.high],
    }


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.2f} {unit}"
    return f"{seconds * 1e6:.1f} µs"


def columns_of(rows: Sequence[tuple[str, ...]]) -> list[list[str]]:
    """A table without the columns that are empty."""
    kept = [i for i in range(len(HEADER)) if any(row[i] for row in rows)]
    return [[row[i] for i in kept] for row in (HEADER, *rows)]
