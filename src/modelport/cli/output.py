"""What a person or a program reads: stdout for data, stderr for people."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from modelport.core.errors import ModelportError

#: Seconds between two signs of life: on a terminal, and in a log.
_TICK: Final = 1.0
_LOG_TICK: Final = 30.0
#: A step that tells how far it is: ``pulling x: layer 1 of 4 (50 MiB): 40 %``.
_PERCENT: Final = re.compile(r"(.*): (\d{1,3}) %")
_BAR: Final = 20
_UP: Final = "\x1b[1A\x1b[2K\r"


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
                    **({"report": error.report} if error.report else {}),
                }
            }
        )
    print(f"error: {error}", file=sys.stderr)


def print_progress(line: str) -> None:
    """Tell people what happens."""
    print(line, file=sys.stderr, flush=True)


class Progress:
    """Tells people what happens, and that something still does.

    Called with a line at each step. While a step goes on, its time counts on the same line of a
    terminal; in a log, a line says so every half minute.

    Examples
    --------
    >>> with Progress() as progress:  # doctest: +SKIP
    ...     api.pack("model.joblib", "churn", progress=progress)
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._line = ""
        self._step = ""
        self._since = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._ticker.join()

    def __call__(self, line: str) -> None:
        """Begin the next step, or tell how far it is: ``STEP: 40 %``."""
        with self._lock:
            found = _PERCENT.fullmatch(line)
            goes_on = found is not None and found[1] == self._step
            self._step = found[1] if found else line
            if found and self._terminal:
                done = _BAR * min(int(found[2]), 100) // 100
                line = f"{found[1]} [{'#' * done}{'.' * (_BAR - done)}] {found[2]} %"
            self._line = line
            if not goes_on:
                self._since = time.monotonic()
                print_progress(line)
            elif self._terminal:  # in a log the next sign of life has it
                print_progress(f"{_UP}{line}")

    def _tick(self) -> None:
        period = _TICK if self._terminal else _LOG_TICK
        while not self._ended.wait(period):
            with self._lock:
                seconds = int(time.monotonic() - self._since)
                if not self._line or seconds < period:
                    continue
                # On a terminal the step's own line is written anew, one row up.
                start = _UP if self._terminal else "still "
                print_progress(f"{start}{self._line} ({seconds} s)")


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
