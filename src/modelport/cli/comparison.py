"""All targets side by side, as a table of a hundred columns."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

_WIDTH: Final = 100
_HEADER: Final = ("TARGET", "FITS", "COLD START", "MONTHLY COST", "WHY")
#: Sources of limits, which are longer than a line; --json has them.
_SOURCE: Final = re.compile(r" \(https://\S+\)")


def print_comparison(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what `modelport.api.compare.compare_targets` found, and what to know about it."""
    cells = [_HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_HEADER) - 1)]
    for *first, why in cells:
        start = "  ".join(cell.ljust(width) for cell, width in zip(first, widths, strict=True))
        lines = textwrap.wrap(
            why, _WIDTH - len(start) - 2, break_long_words=False, break_on_hyphens=False
        )
        print(f"{start}  {lines[0] if lines else ''}".rstrip())
        for line in lines[1:]:
            print(f"{'':{len(start)}}  {line}")
    for note in _notes(rows):
        print()
        print(textwrap.fill(note, _WIDTH, break_long_words=False, break_on_hyphens=False))


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    cold_start = re.split("[:;(]", row["cold_start"])[0].strip()
    why = _SOURCE.sub("", row["why"])
    return row["target"], row["fits"], cold_start, row["cost_text"], why


def _notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    dates = {row["prices"] for row in rows if row["prices"]}
    if dates:
        notes.append(
            f"list prices in the USA, in US dollars, of {max(dates)}; without free tiers, "
            "discounts, taxes, traffic, storage and logs"
        )
    if not all(row["prices_read"] for row in rows):
        notes.append(
            "* with prices as remembered: they could not be compared with the vendor's on that date"
        )
    if not all(row["measured"] for row in rows):
        notes.append(
            "memory and time are estimated from the package's size; 'modelport deploy MODEL --to "
            "docker --plan --measure' measures them"
        )
    return notes
