"""What a person or a program reads: stdout for data, stderr for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelport.core.errors import ModelportError


def print_json(value: Any) -> None:
    """Write one JSON document to stdout; arrays become nested lists."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def print_error(error: ModelportError, *, as_json: bool) -> None:
    """Write an error for people, and for programs that asked for JSON."""
    if as_json:
        print_json(
            {
                "error": {
                    "kind": type(error).__name__,
                    "message": error.message,
                    "where": error.where,
                    "hint": error.hint,
                }
            }
        )
    print(f"error: {error}", file=sys.stderr)


def print_progress(line: str) -> None:
    """Tell people what happens."""
    print(line, file=sys.stderr, flush=True)


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write aligned columns to stdout."""
    cells = [list(header), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


def human_size(size: int) -> str:
    """Bytes with a unit: ``1.4 MB``."""
    number = float(size)
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def short_time(stamp: str) -> str:
    """A record's time to the second: ``2026-01-31 09:30:00Z``."""
    return f"{stamp[:10]} {stamp[11:19]}Z"


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(type(value).__name__)
