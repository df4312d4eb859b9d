"""Removes whole blocks: residual blocks, halves of encoder layers.

Those go first whose input and output are most alike on the rows at hand, see
`modelport.optimize.reduce.blocks`; what is left learns the original's answers again, see
`modelport.optimize.train.distil`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import onnx

from modelport.core.errors import ModelportError, UnsupportedError
from modelport.optimize.base import REDUCE, Progress, Subject, Variant
from modelport.optimize.onnx_graph import serialize
from modelport.optimize.reduce.blocks import Block, alikeness, blocks_of, without_blocks
from modelport.optimize.train.clock import Allowance
from modelport.optimize.train.lesson import lesson_of
from modelport.optimize.train.source import Source, source_of
from modelport.optimize.train.trainings import Plan, train_in_turn

#: Shares of the multiplications that are left, at most.
_SHARES: Final = (0.5, 0.75)
_COMPARED_ROWS: Final = 64
_LEAST_SAVED: Final = 0.1


@dataclass(frozen=True)
class _Work:
    source: Source
    blocks: Sequence[Block]

    def cost(self, model: onnx.ModelProto) -> float:
        """The share of the multiplications that are left."""
        outputs = {node.output[0] for node in model.graph.node}
        nodes = self.source.model.graph.node
        left = sum(
            cost for place, cost in self.source.costs.items() if nodes[place].output[0] in outputs
        )
        return left / self.source.total


class LayersPass:
    """See the module."""

    name = "layers"
    order = REDUCE
    tolerance = float("inf")

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        try:
            _work(subject)
        except ModelportError as error:
            return error.line
        return ""

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        allowance = Allowance(subject.deadline)
        work = _work(subject)
        lesson = lesson_of(subject, work.source.total)
        for plan, model, detail in train_in_turn(_plans(work, subject), lesson, allowance, report):
            yield subject.variant.then(plan.name, serialize(model), **detail)


def _plans(work: _Work, subject: Subject) -> Iterator[Plan]:
    """Networks with fewer blocks, the smallest first."""
    model = work.source.model
    rows = {name: array[:_COMPARED_ROWS] for name, array in subject.rows.items()}
    alike = alikeness(model, work.blocks, rows)
    order = sorted(work.blocks, key=lambda block: -alike[block])
    moments = work.source.moments(subject)
    seen: set[int] = set()
    for share in _SHARES:
        count = _enough(work, order, share)
        smaller = without_blocks(model, order[:count])
        left = work.cost(smaller)
        if count in seen or left > 1 - _LEAST_SAVED:
            continue
        seen.add(count)
        names = {node.name for node in smaller.graph.node}
        norms = {name: found for name, found in moments.items() if name in names}
        yield Plan(
            f"layers, without {count}", smaller, norms, changed=1 - left,
            detail={
                "multiplications": round(left, 4),
                "blocks": len(order),
                "removed": [block.end for block in order[:count]],
                "alike": [round(alike[block], 4) for block in order[:count]],
            },
        )  # fmt: skip


def _work(subject: Subject) -> _Work:
    source = source_of(subject)
    blocks = blocks_of(source.model, source.observed)
    if not blocks:
        raise UnsupportedError("no block adds to what it gets, so none can be left out")
    work = _Work(source, blocks)
    if work.cost(without_blocks(source.model, blocks)) > 1 - _LEAST_SAVED:
        raise UnsupportedError("its blocks take less than a tenth of the time")
    return work


def _enough(work: _Work, order: Sequence[Block], share: float) -> int:
    """How many have to go, so that at most the share is left; of several blocks one stays."""
    most = max(len(order) - 1, 1)
    for count in range(1, most):
        if work.cost(without_blocks(work.source.model, order[:count])) <= share:
            return count
    return most
