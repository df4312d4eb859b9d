"""The frontier as a picture: what is lost, over speed and over size.

Shapes tell what colours do: the original is a diamond, the picked variant a star, the frontier is
numbered discs, the others are hollow, and what loses more than the picture holds points downwards
at its edge.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

_PICKED: Final = "#b3261e"
_FRONTIER: Final = "#1b4f8f"
_OTHER: Final = "#8a8f96"
_SALT: Final = "modelport"
#: The picture goes down to so many budgets.
_DEEPEST: Final = 5.0
#: Numbers with a name beside the picture.
_NAMED: Final = 18
_TITLE: Final = 120
_NAME: Final = 34

Variant = Mapping[str, Any]


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
        figure = Figure(figsize=(12, 5.2), layout="constrained")
        _draw(figure, report)
        picture = io.BytesIO()
        with mpl.rc_context({"svg.hashsalt": _SALT, "svg.fonttype": "none"}):
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            figure.savefig(picture, format=kind, dpi=140, metadata=metadata)
        return picture.getvalue()


def _draw(figure: Figure, report: Mapping[str, Any]) -> None:
    shown = [item for item in report["variants"] if item.get("one_row")]
    shown.sort(key=lambda item: (-_speedup(item), item["bytes"]))
    floor = _floor(shown, report["max_drop"])
    numbered = [item for item in shown if _numbered(item, report["picked"], floor)]
    unit, factor = ("MB", 1e6) if any(item["bytes"] >= 1e6 for item in shown) else ("kB", 1e3)

    def megabytes(item: Variant) -> float:
        return float(item["bytes"]) / factor

    left, right, key = figure.subplots(1, 3, width_ratios=(1.0, 1.0, 0.62))
    for axes, place, title in (
        (left, _speedup, "times as fast as the original, one row at a time"),
        (right, megabytes, f"size of the model, {unit}"),
    ):
        for item in shown:
            _point(axes, item, place, report["picked"], floor)
        _numbers(axes, numbered, place)
        axes.axhline(-report["max_drop"], color="black", linewidth=1, linestyle="--")
        axes.set_xlabel(title)
        axes.margins(x=0.1)
        axes.grid(alpha=0.25)
        axes.set_ylim(floor * 1.08, _top(shown, floor))
    left.axvline(1.0, color="#666666", linewidth=0.8)
    left.set_ylabel(f"change of {report['metric']}")
    left.annotate(
        f"what may be lost: {report['max_drop']:g}", (0.99, -report["max_drop"]),
        xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7.5,
    )  # fmt: skip
    right.tick_params(labelleft=False)
    _key(key, numbered, report["picked"], megabytes, unit)
    figure.suptitle("\n".join(textwrap.wrap(report["sentence"], _TITLE)), fontsize=10)


def _numbered(item: Variant, picked: str | None, floor: float) -> bool:
    return _kind(item, picked) in ("picked", "frontier") and _loss(item) <= -floor


def _floor(shown: Sequence[Variant], budget: float) -> float:
    """How far down the picture goes: not to what is of no use to anybody."""
    losses = [_loss(item) for item in shown]
    worst = max([loss for loss in losses if loss <= _DEEPEST * budget], default=0.0)
    return -max(worst, 1.5 * budget)


def _top(shown: Sequence[Variant], floor: float) -> float:
    best = max([-_loss(item) for item in shown], default=0.0)
    return max(best, 0.0) - 0.12 * floor


def _point(
    axes: Any, item: Variant, place: Callable[[Variant], float], picked: str | None, floor: float
) -> None:
    kind = _kind(item, picked)
    x, y = place(item), -_loss(item)
    if y < floor:
        axes.scatter(x, floor * 1.04, s=28, marker="v", facecolors="none", edgecolors=_OTHER)
        return
    loss = item["loss"]
    if kind and loss is not None:
        axes.plot([x, x], [max(-loss["high"], floor * 1.08), -loss["low"]], color=_OTHER,
                  linewidth=0.8, zorder=2)  # fmt: skip
    style = {
        "picked": {"marker": "*", "s": 190, "color": _PICKED, "zorder": 5},
        "frontier": {"marker": "o", "s": 34, "color": _FRONTIER, "zorder": 4},
        "original": {"marker": "D", "s": 36, "color": "black", "zorder": 4},
        "": {"marker": "o", "s": 22, "facecolors": "none", "edgecolors": _OTHER, "zorder": 3},
    }[kind]
    axes.scatter(x, y, **style)


def _kind(item: Variant, picked: str | None) -> str:
    if item["name"] == picked:
        return "picked"
    if item["loss"] is None:
        return "original"
    return "frontier" if item["pareto"] else ""


def _numbers(axes: Any, items: Sequence[Variant], place: Callable[[Variant], float]) -> None:
    """The number of each, alternately above and below, so that neighbours do not overlap."""
    order = sorted(range(len(items)), key=lambda index: place(items[index]))
    for turn, index in enumerate(order):
        across, up = ((0, 8), (7, -11), (-7, 8), (0, -14))[turn % 4]
        axes.annotate(
            str(index + 1), (place(items[index]), -_loss(items[index])), fontsize=8,
            xytext=(across, up), textcoords="offset points", ha="center", va="center", zorder=6,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip


def _key(
    axes: Any, items: Sequence[Variant], picked: str | None,
    megabytes: Callable[[Variant], float], unit: str,
) -> None:  # fmt: skip
    """What the numbers mean."""
    axes.set_axis_off()
    lines = ["◆  the original"]
    for number, item in enumerate(items[:_NAMED], start=1):
        mark = " (picked)" if item["name"] == picked else ""
        name = textwrap.shorten(item["name"], _NAME, placeholder=" …")
        lines.append(f"{number}  {name}{mark}\n     {_speedup(item):.2f}×, {megabytes(item):.3g} "
                     f"{unit}, {-_loss(item):+.4f}")  # fmt: skip
    if len(items) > _NAMED:
        lines.append(f"and {len(items) - _NAMED} more: see the table")
    size = 8 if len(lines) <= _NAMED // 2 + 1 else 6.5
    axes.text(0, 1, "\n".join(lines), va="top", fontsize=size, linespacing=1.25,
              transform=axes.transAxes)  # fmt: skip


def _speedup(item: Variant) -> float:
    return float(item["one_row"]["speedup"])


def _loss(item: Variant) -> float:
    loss = item["loss"]
    return 0.0 if loss is None else float(loss["value"])
