"""Results as a table, for a terminal or for Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

COLUMNS: Final = (
    "server", "req/s", "p50 ms", "p99 ms", "CPU µs/req", "± %", "× raw", "busy %", "others %",
    "start s", "RSS MB", "PSS MB", "policy",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What is the same for all rows of one table."""

    model: str
    protocol: str
    connections: int


def case_of(record: dict[str, Any]) -> Case:
    """The case that a record belongs to."""
    return Case(record["model"], record["protocol"], record["connections"])


def cases(records: Iterable[dict[str, Any]]) -> list[Case]:
    """The cases in the order of their first record."""
    return list(dict.fromkeys(case_of(record) for record in records))


def rows(
    case: Case, records: Sequence[dict[str, Any]], raw: Sequence[dict[str, Any]]
) -> list[list[str]]:
    """One row for raw onnxruntime and one for each server, the cheapest first.

    Every number is the median over the rounds; ``± %`` is half the range of the processor time.
    """
    timings = [record for record in raw if record["model"] == case.model]
    floor = statistics.median(record["processor_microseconds"] for record in timings)
    ours: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if case_of(record) == case:
            ours.setdefault(record["peer"], []).append(record)
    lines = [(floor, _raw_row(timings, floor))]
    for name, rounds in ours.items():
        processor = _median(rounds, "processor_microseconds")
        lines.append((processor, _server_row(name, rounds, processor, floor)))
    return [line for _, line in sorted(lines, key=lambda pair: pair[0])]


def render(lines: Sequence[Sequence[str]], *, markdown: bool) -> str:
    """Align the columns; numbers to the right."""
    table = [COLUMNS, *lines]
    widths = [max(len(line[column]) for line in table) for column in range(len(COLUMNS))]
    left, between, right = ("| ", " | ", " |") if markdown else ("", "  ", "")
    text = [
        left
        + between.join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + right
        for line in table
    ]
    rule = [
        ("-" * width if column == 0 else "-" * (width - 1) + (":" if markdown else "-"))
        for column, width in enumerate(widths)
    ]
    text.insert(1, left + between.join(rule) + right)
    return "\n".join(text)


def _raw_row(timings: Sequence[dict[str, Any]], floor: float) -> list[str]:
    return [
        "raw session.run",
        _number(statistics.median(t["executions"] / t["seconds"] for t in timings)),
        _number(_median(timings, "p50") / 1e3),
        _number(_median(timings, "p99") / 1e3),
        _number(floor),
        _number(_spread(timings)),
        *["1.00", "100", "", "", "", "", ""],
    ]


def _server_row(
    name: str, rounds: Sequence[dict[str, Any]], processor: float, floor: float
) -> list[str]:
    return [
        name,
        _number(_median(rounds, "requests_per_second")),
        _number(_median(rounds, "p50") / 1e3),
        _number(_median(rounds, "p99") / 1e3),
        _number(processor),
        _number(_spread(rounds)),
        f"{processor / floor:.2f}",
        f"{100 * _median(rounds, 'busy'):.0f}",
        f"{100 * _median(rounds, 'others'):.0f}",
        f"{_median(rounds, 'start'):.2f}",
        f"{_median(rounds, 'rss') / 1e6:.0f}",
        f"{_median(rounds, 'pss') / 1e6:.0f}",
        "/".join(sorted({record["policy"] for record in rounds})),
    ]


def _median(records: Iterable[dict[str, Any]], key: str) -> float:
    return statistics.median(record[key] for record in records)


def _spread(records: Iterable[dict[str, Any]]) -> float:
    values = [record["processor_microseconds"] for record in records]
    return 50 * (max(values) - min(values)) / statistics.median(values)


def _number(value: float) -> str:
    """Three significant digits at least, and no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"
