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
accuracy/speed ratio
    The variant's metric as a share of the original's, times its speed-up: 1 is no gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelport.optimize.evaluate import Measured
from modelport.optimize.frontier import LEAST_GAIN, Point, bulk_gain
from modelport.optimize.measure.timing import Times
from modelport.optimize.outcome import Outcome
from modelport.optimize.significance import holding_error

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
    if item.bulk is not None and bulk_gain(item) > 1.0:
        parts.append(f"{item.bulk.speedup:.1f}× as fast for {item.bulk.batch:,} rows at once")
    smaller = original.size / item.size
    parts.append(f"{smaller:.1f}× smaller" if smaller >= 1 else f"{1 / smaller:.1f}× larger")
    loss, held = item.loss, outcome.held.loss
    if loss is not None and held is not None:
        parts.append(
            f"{outcome.metric} {_signed(-loss.value)} ± {loss.high - loss.value:.4f}, within "
            f"{budget:g}, and {_signed(-held.value)} on {held.rows} rows that nothing had seen"
        )
    return f"{item.variant.name}: {', '.join(parts)}"


def _nothing(outcome: Outcome, budget: float) -> str:
    if outcome.failed:
        name, why = outcome.failed[0]
        return f"nothing is emitted: {name} {why}"
    original = outcome.points[0].measured
    needed = [
        point.measured.loss.needed
        for point in outcome.points[1:]
        if point.measured.loss is not None and _gains(point.measured, original)
    ]
    if any(rows > 0 for rows in needed):
        return (
            f"nothing is emitted: {outcome.rows} rows are too few to tell a loss of {budget:g}; "
            f"about {3 * min(rows for rows in needed if rows > 0):,} rows in all would do"
        )
    return "nothing wins: the original stays as it is"


def _gains(item: Measured, original: Measured) -> bool:
    """Whether it would be worth more rows: it is no slower, and faster or smaller."""
    single = item.single
    faster = single is not None and single.low > LEAST_GAIN
    slower = single is None or single.high < 1.0
    return not slower and (faster or item.size * LEAST_GAIN < original.size)


def to_json(outcome: Outcome, budget: float) -> dict[str, Any]:
    """All of it, for programs and for the package."""
    return {
        "metric": outcome.metric,
        "max_drop": budget,
        "rows": outcome.rows,
        "sentence": sentence(outcome, budget),
        "picked": outcome.picked.measured.variant.name if outcome.picked else None,
        "held_out": measured_to_json(outcome.held) if outcome.held else None,
        "held_out_error": holding_error(len(outcome.points) - 1),
        "variants": [
            {
                **measured_to_json(point.measured),
                **_ratios(point.measured, outcome.points[0].measured),
                "pareto": point.pareto,
                "verdict": point.verdict,
            }
            for point in outcome.points
        ],
        "did_not_hold": [{"variant": name, "why": why} for name, why in outcome.failed],
        "passes_without_effect": [
            {"pass": item.name, "of": item.of, "why": item.why} for item in outcome.refusals
        ],
    }


def _ratios(item: Measured, original: Measured) -> dict[str, float]:
    """See the module; errors, which are negative metrics, count the other way round."""
    if item.failed or item.single is None or not original.metric or not item.metric:
        return {"compression_ratio": original.size / max(item.size, 1)}
    kept = item.metric / original.metric
    return {
        "compression_ratio": original.size / max(item.size, 1),
        "accuracy_speed_ratio": (kept if original.metric > 0 else 1 / kept) * item.single.speedup,
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
        f"{_signed(item.loss.value)}, at most {_signed(item.loss.high)}" if item.loss else "",
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
              "bound": item.loss.bound, "rows": item.loss.rows, "rows_needed": item.loss.needed},
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


def _signed(value: float) -> str:
    """With a sign and four digits; never minus zero."""
    return f"{round(value, 4) + 0.0:+.4f}"


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
