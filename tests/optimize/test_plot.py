"""The frontier's picture: readable when it is crowded, and there whatever was measured."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from modelport.optimize.plot import FrontierPlot


def variant(
    name: str, size: float, speed: float, loss: float | None, pareto: bool
) -> dict[str, Any]:
    told = None if loss is None else {"value": loss, "low": loss - 0.004, "high": loss + 0.004}
    return {
        "name": name, "bytes": int(size), "pareto": pareto, "loss": told,
        "one_row": {"speedup": speed},
    }  # fmt: skip


def report(*variants: dict[str, Any], picked: str | None = None) -> dict[str, Any]:
    return {
        "variants": [variant("original", 4e6, 1.0, None, False), *variants], "picked": picked,
        "max_drop": 0.01, "metric": "accuracy", "sentence": "what it came to",
    }  # fmt: skip


def crowded() -> dict[str, Any]:
    random = np.random.default_rng(0)
    others = [
        variant(f"other {index}", random.uniform(1e5, 4e6), random.uniform(0.5, 3), 0.02, False)
        for index in range(30)
    ]
    best = [
        variant(f"channels, {index} %", 1e6 / (1 + index), 2 + index / 50, index / 2000, True)
        for index in range(25)
    ]
    worse = variant("useless", 1e5, 9.0, 0.5, True)
    return report(*others, *best, worse, picked="channels, 7 %")


def words(picture: bytes) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture.decode())


def test_the_frontier_is_numbered_and_the_numbers_are_explained() -> None:
    shown = words(FrontierPlot().draw(crowded(), "svg"))
    assert "what it came to" in shown
    assert sum("(picked)" in line for line in shown) == 1
    assert not any("other" in line or "useless" in line for line in shown)
    assert any(line.startswith("and 7 more") for line in shown)
    assert "what may be lost: 0.01" in shown


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_same_report_is_the_same_picture(kind: str) -> None:
    assert FrontierPlot().draw(crowded(), kind) == FrontierPlot().draw(crowded(), kind)


def test_there_is_a_picture_when_nothing_could_be_measured() -> None:
    broken = {"name": "broken", "bytes": 10, "failed": "it does not load", "pareto": False}
    assert FrontierPlot().draw(report(broken), "png").startswith(b"\x89PNG")
    assert FrontierPlot().draw({**report(), "variants": [broken]}, "png").startswith(b"\x89PNG")


def test_what_is_better_than_the_original_is_inside_the_picture() -> None:
    picture = FrontierPlot().draw(report(variant("better", 2e6, 2.0, -0.2, True)), "svg")
    assert any("better" in line for line in words(picture))
