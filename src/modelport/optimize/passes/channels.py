"""Removes whole channels and neurons, and lets the rest learn the original's answers again.

What is left is a smaller dense network, which every processor runs faster. Widths are multiples
of 16, since those between are computed like the next one; channels that go together (residual
sums, depthwise convolutions) go together. The least important ones go, see
`modelport.optimize.reduce.widths`; then the network is trained on the original's answers to the
rows at hand, see `modelport.optimize.train.distil`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx

from modelport.core.errors import ModelportError, UnsupportedError
from modelport.optimize.base import REDUCE, Progress, Subject, Variant
from modelport.optimize.onnx_graph import serialize
from modelport.optimize.reduce.widths import (
    cost_without,
    importance,
    narrower,
    ratio_for,
    without_channels,
)
from modelport.optimize.session import Probe
from modelport.optimize.train.clock import Allowance
from modelport.optimize.train.graph import Moments
from modelport.optimize.train.lesson import lesson_of
from modelport.optimize.train.prunable import LEAST_SAVED, Prunable, prunable
from modelport.optimize.train.trainings import Plan, train_in_turn

#: Shares of the multiplications that are left.
_SHARES: Final = (0.25, 0.5, 0.75)
_IMPORTANCE_ROWS: Final = 128


class ChannelsPass:
    """See the module."""

    name = "channels"
    order = REDUCE
    tolerance = float("inf")

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        try:
            prunable(subject)
        except ModelportError as error:
            return error.line
        return ""

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        allowance = Allowance(subject.deadline)
        work = prunable(subject)
        lesson = lesson_of(subject, work.source.total)
        for plan, model, detail in train_in_turn(_plans(work, subject), lesson, allowance, report):
            yield subject.variant.then(plan.name, serialize(model), **detail)


def _plans(work: Prunable, subject: Subject) -> Iterator[Plan]:
    """Narrower networks, the smallest first."""
    source, labels = work.source, work.labels
    rows = {name: array[:_IMPORTANCE_ROWS] for name, array in subject.rows.items()}
    weights = importance(source.model, labels, source.observed, rows)
    moments = source.moments(subject)
    seen: set[frozenset[int]] = set()
    for share in _SHARES:
        ratio = ratio_for(share, work.groups, weights, labels, source.costs, source.model)
        gone = narrower(work.groups, weights, ratio)
        left = cost_without(labels, source.costs, source.model, gone) / source.total
        if gone in seen or left > 1 - LEAST_SAVED:
            continue
        seen.add(gone)
        model, kept = without_channels(source.model, labels, gone)
        _check(model, subject)
        norms = {
            name: Moments(found.mean[kept[name]], found.deviation[kept[name]])
            for name, found in moments.items()
            if name in kept
        }
        widths = {name: int(mask.sum()) for name, mask in kept.items()}
        yield Plan(
            f"channels, {left:.0%}", model, norms, changed=1 - left,
            detail={"multiplications": round(left, 4), "widths": widths},
        )  # fmt: skip


def _check(model: onnx.ModelProto, subject: Subject) -> None:
    """It still runs, with outputs of the same shapes: a graph may carry its widths in numbers.

    Raises
    ------
    UnsupportedError
        When it does not.
    """
    few = {name: array[:3] for name, array in subject.rows.items()}
    try:
        found = Probe(model, ()).run(few)
    except UnsupportedError as error:
        raise UnsupportedError(f"without channels: {error.message}") from error
    for name, answer in subject.answers.items():
        if found[name].shape[1:] != answer.shape[1:] or (
            found[name].dtype.kind == "f" and not np.isfinite(found[name]).all()
        ):
            raise UnsupportedError(f"without channels the output {name} is another one")
