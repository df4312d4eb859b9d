"""What the optimization benchmarks have in common: one line of the table about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def summary(
    title: str, report: Mapping[str, Any], *, seconds: float, peak: int, fresh: str = ""
) -> dict[str, Any]:
    """A run of ``optimize`` as one line.

    Parameters
    ----------
    title : str
        Of the model, for people.
    report : mapping
        What `modelport.api.optimize` reports.
    seconds : float
        That it took, trainings included.
    peak : int
        Bytes that the process held at most.
    fresh : str
        What the picked variant does on rows that `optimize` never got, for people.
    """
    original, *others = report["variants"]
    line: dict[str, Any] = {
        "title": title,
        "sentence": report["sentence"],
        "metric": report["metric"],
        "picked": report["picked"],
        "variants": len(others),
        "seconds": round(seconds),
        "peak_mb": round(peak / 1e6),
        "fresh": fresh,
    }
    for picked in others:
        if picked["name"] == report["picked"]:
            line["bytes"] = [original["bytes"], picked["bytes"]]
            line["load_ms"] = [_ms(item["load_seconds"]) for item in (original, picked)]
            line["memory_mb"] = [round(item["peak_memory"] / 1e6) for item in (original, picked)]
            line["one_row"] = _times(picked["one_row"])
            line["bulk"] = _times(picked["bulk"])
            line["held_out"] = report["held_out"]["loss"]
    return line


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 2)


def _times(times: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if times is None:
        return None
    return {
        "batch": times["batch"],
        "p50_ms": round(times["p50_seconds"] * 1e3, 4),
        "speedup": round(times["speedup"], 2),
        "interval": [round(value, 2) for value in times["speedup_interval"]],
    }
