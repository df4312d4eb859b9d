"""The parity report in words, for the terminal and the model card.

The report itself is plain data in the manifest; the convert stage makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modelport.core.compare import OutputComparison

#: Probes that passed are named up to this number.
_NAMED: Final = 12


def describe_parity(report: Mapping[str, Any]) -> list[str]:
    """Render a parity report, one fact per line, the verdict first."""
    lines = []
    if report["rows_are"] == "none":
        lines.append("parity was not checked: there were no rows, and none could be made up")
    else:
        sizes = ", ".join(str(size) for size in report["batches"])
        lines.append(
            f"{report['rows']} {report['rows_are']} rows"
            + (f" in batches of {sizes}" if sizes else "")
            + f": {report['label_flips']} label flips"
        )
    lines += [_describe_output(output) for output in report["outputs"]]
    passed = [probe for probe in report["probes"] if probe["passed"]]
    if passed:
        rows = sum(probe["rows"] for probe in passed)
        names = ", ".join(_short(probe) for probe in passed[:_NAMED])
        more = f", and {len(passed) - _NAMED} more" if len(passed) > _NAMED else ""
        lines.append(f"{len(passed)} probes pass ({rows} rows made to hurt): {names}{more}")
    lines += [_describe_probe(probe) for probe in report["probes"] if not probe["passed"]]
    lines += [
        f"attempt {attempt['name']}: {attempt['outcome']}"
        + (f" ({attempt['reason']})" if attempt["reason"] else "")
        for attempt in report["attempts"]
    ]
    return lines + [f"note: {note}" for note in report["notes"]]


def _describe_output(plain: Mapping[str, Any]) -> str:
    return OutputComparison(**{**plain, "worst": tuple(plain["worst"])}).describe()


def _short(probe: Mapping[str, Any]) -> str:
    return str(probe["name"]) + (" (refused by both)" if probe["refused"] else "")


def _describe_probe(probe: Mapping[str, Any]) -> str:
    verdict = "refused" if probe["refuses"] else "reported only"
    text = f"{probe['name']}: {verdict}; {probe['rows']} rows, {probe['flips']} flips"
    if probe["max_error"]:
        text += f", max error {probe['max_error']:.2g}"
    return text + (f"; {probe['note']}" if probe["note"] else "")
