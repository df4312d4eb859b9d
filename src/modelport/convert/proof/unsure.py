"""Rows on which the source model itself is not sure: its answer depends on the rows beside them.

Silence has no loudest moment: a model that normalizes by it divides rounding by rounding, and
answers the same row otherwise in another batch. There is nothing that an export could agree with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelport.convert.base import SourceModel
from modelport.convert.proof.probes import Answer, take_rows
from modelport.core.compare import Tolerance, compare
from modelport.core.errors import InputError


def excuse_unsure(
    source: SourceModel,
    answers: Sequence[Answer],
    judged: Sequence[dict[str, Any]],
    tolerance: Tolerance,
) -> None:
    """Let a difference refuse nothing where the source model differs from itself; say so.

    Parameters
    ----------
    answers : sequence of Answer
    judged : sequence of dict
        As `modelport.convert.proof.probes.judge` returns them for the answers; edited in place.
    """
    for answer, entry in zip(answers, judged, strict=False):
        if entry["refuses"] and (largest := _own_difference(source, answer, tolerance)):
            entry["refuses"] = entry["gate"] = False
            entry["note"] += (
                f"; reported only: the source model answers these rows otherwise one by one, by up "
                f"to {largest:.2g}"
            )


def _own_difference(source: SourceModel, answer: Answer, tolerance: Tolerance) -> float:
    """How far the answers to single rows are from those to all; 0 where they agree."""
    if len(answer.answered) < 2:
        return 0.0
    try:
        pieces = [
            source.predict(take_rows(answer.probe.rows, np.asarray([row])))
            for row in answer.answered
        ]
    except InputError:
        return 0.0
    alone = {name: np.concatenate([piece[name] for piece in pieces]) for name in answer.outputs}
    outputs = compare(answer.outputs, alone, tolerance)
    return max((o.max_absolute for o in outputs if not o.agrees), default=0.0)
