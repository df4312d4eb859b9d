"""The parity report in words, for the terminal and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def describe_parity(report: Mapping[str, Any]) -> list[str]:
    """Render a parity report, one fact per line."""
    return [f"rows: {report.get('rows', 0)}"]
