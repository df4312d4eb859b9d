"""The frontier as a picture: speed to the right, loss downwards, size as the area."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

_PICKED: Final = "#0b7a3b"
_FRONTIER: Final = "#1f6fb4"
_OTHER: Final = "#9aa3ad"
_AREA: Final = 900.0
_SALT: Final = "modelport"


class FrontierPlot:
    """Draws reports with matplotlib."""

    def draw(self, report: Mapping[str, Any], kind: str) -> bytes:
        """The picture of a report of `modelport.optimize.report.to_json`.

        Parameters
        ----------
        report : mapping
        kind : str
            ``svg`` or ``png``.

        Returns
        -------
        bytes
            The same report, the same bytes.
        """
        return _draw(report, kind)


def _draw(report: Mapping[str, Any], kind: str) -> bytes:
    shown = [item for item in report["variants"] if item.get("one_row")]
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    largest = max(item["bytes"] for item in shown)
    for item in shown:
        axes.scatter(
            item["one_row"]["speedup"], -_loss(item), s=max(12.0, _AREA * item["bytes"] / largest),
            color=_colour(item, report["picked"]), alpha=0.75, edgecolors="white", zorder=3,
        )  # fmt: skip
    _label(axes, [item for item in shown if item["pareto"] or item["name"] == report["picked"]])
    axes.axhline(-report["max_drop"], color="#c0392b", linewidth=1, linestyle="--")
    axes.axvline(1.0, color="#666666", linewidth=0.8)
    axes.set_xlabel("times as fast as the original, one row at a time")
    axes.set_ylabel(f"change of {report['metric']}")
    axes.set_title(report["sentence"], fontsize=9, wrap=True)
    axes.grid(alpha=0.25)
    picture = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": _SALT, "svg.fonttype": "none"}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(picture, format=kind, dpi=140, metadata=metadata)
    return picture.getvalue()


def _label(axes: Any, items: Sequence[Mapping[str, Any]]) -> None:
    for index, item in enumerate(sorted(items, key=lambda one: one["one_row"]["speedup"])):
        axes.annotate(
            item["name"], (item["one_row"]["speedup"], -_loss(item)), fontsize=7.5,
            xytext=(0, 16 if index % 2 else -20), textcoords="offset points", ha="center",
        )  # fmt: skip


def _loss(item: Mapping[str, Any]) -> float:
    loss = item["loss"]
    return 0.0 if loss is None else float(loss["value"])


def _colour(item: Mapping[str, Any], picked: str | None) -> str:
    if item["name"] == picked:
        return _PICKED
    return _FRONTIER if item["pareto"] else _OTHER
