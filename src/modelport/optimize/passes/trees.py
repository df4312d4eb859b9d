"""Forests and boosted trees: the same answers from fewer nodes, then fewer trees and splits.

Several sizes are proposed, from nearly all trees to few. What they leave out is made up for by new
votes that come close to the original's own sums on the calibration rows; no label is needed.
Which of them is small and still good is decided on other rows, with an interval: the smallest
prefix that is inside the budget on the rows it was picked by often is not on others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final

import onnx

from modelport.core.errors import UnsupportedError
from modelport.optimize.base import REDUCE, Progress, Subject, Variant
from modelport.optimize.classic.ensemble import OPERATORS, Ensemble
from modelport.optimize.classic.lossless import simplified, without_equal_sides
from modelport.optimize.classic.narrow import narrowed
from modelport.optimize.classic.seen import seen
from modelport.optimize.classic.shrink import (
    Cuts,
    Rows,
    cuts_of,
    first_trees,
    refitted,
    rescaled,
    round_size,
    seen_by,
    with_fewer_splits,
)
from modelport.optimize.classic.tree_nodes import read, write
from modelport.optimize.onnx_graph import nodes, operators, parse, serialize

#: Shares of the trees, and of the nodes, that are tried; the larger ones first.
_TREES: Final = (0.8, 0.6, 0.4, 0.2, 0.1)
_SPLITS: Final = (0.7, 0.5, 0.25, 0.1)
_BOTH: Final = ((0.8, 0.7), (0.4, 0.5))
#: Fewer trees are not cut.
_FEWEST_TREES: Final = 4
_FEWEST_ROWS: Final = 10
_MOST_SIMPLIFIED: Final = 100_000
_MOST_ROWS: Final = 8192


@dataclass(frozen=True, eq=False)
class _Held:
    """The trees of one node, and the calibration rows as they come to it."""

    ensemble: Ensemble
    rows: Rows | None

    @cached_property
    def cuts(self) -> Cuts:
        """What its subtrees are worth to the rows."""
        assert self.rows is not None  # noqa: S101 - otherwise nothing is cut
        return cuts_of(self.ensemble, self.rows)


class TreesPass:
    """See the module."""

    name = "trees"
    order = REDUCE
    tolerance = float("inf")

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        model = parse(subject.variant.model)
        if not operators(model) & set(OPERATORS):
            return "no trees"
        inside = sum(node.op_type in OPERATORS for node in nodes(model)) - len(_places(model))
        return "its trees are inside branches or loops of the graph" if inside else ""

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        model = parse(subject.variant.model)
        whole = [read(model.graph.node[place]) for place in _places(model)]
        same = [simplified(ensemble) for ensemble in whole]
        report(f"  {_described(whole)}; {_described(same)} give the same answers")
        plain = _with(model, same)
        if len(plain) < len(subject.variant.model):
            yield subject.variant.then(
                "trees, same answers", plain, trees=_trees(same), nodes=_nodes(same)
            )
        if not all(ensemble.sums for ensemble in same):
            raise UnsupportedError("its trees do not add up: none can be left out")
        held = _held(subject, model, [without_equal_sides(ensemble) for ensemble in whole])
        made = {plain}
        for name, change in _ladder(held):
            if time.monotonic() > subject.deadline:
                return
            left = [_simplified(change(item)) for item in held]
            content = narrowed(parse(_with(model, left)))
            if len(content) < len(plain) and content not in made:
                made.add(content)
                yield subject.variant.then(
                    f"trees, {name}", content, trees=_trees(left), nodes=_nodes(left)
                )


def _ladder(held: Sequence[_Held]) -> Iterator[tuple[str, Callable[[_Held], Ensemble]]]:
    """Ways to make them smaller, the gentlest first."""
    total = sum(item.ensemble.trees for item in held)
    has_rows = held[0].rows is not None
    yield "all", lambda held: held.ensemble
    if total >= _FEWEST_TREES:
        counts = {sum(_rounds(item.ensemble, share) for item in held): share for share in _TREES}
        for count, share in counts.items():
            yield f"{count} of {total}", partial(_prefix, share=share)
    if has_rows:
        for share in _SPLITS:
            yield f"{share:.0%} of the splits", partial(_cut, share=share)
        if total >= _FEWEST_TREES:
            for trees, splits in _BOTH:
                name = f"{trees:.0%} of the trees, {splits:.0%} of their splits"
                yield name, partial(_both, trees=trees, splits=splits)


def _simplified(ensemble: Ensemble) -> Ensemble:
    """Of many nodes it takes long, and what it finds was found in the whole already."""
    return simplified(ensemble) if len(ensemble.mode) <= _MOST_SIMPLIFIED else ensemble


def _whole(held: _Held) -> Ensemble:
    """For numbers in float32 alone."""
    return held.ensemble


def _prefix(held: _Held, share: float) -> Ensemble:
    part = first_trees(held.ensemble, _rounds(held.ensemble, share))
    return part if held.rows is None else refitted(rescaled(part, held.rows), held.rows)


def _cut(held: _Held, share: float) -> Ensemble:
    assert held.rows is not None  # noqa: S101 - otherwise it is not on the ladder
    return refitted(with_fewer_splits(held.cuts, share), held.rows)


def _both(held: _Held, trees: float, splits: float) -> Ensemble:
    assert held.rows is not None  # noqa: S101 - likewise
    part = first_trees(held.ensemble, _rounds(held.ensemble, trees))
    return _cut(_Held(rescaled(part, held.rows), held.rows), splits)


def _rounds(ensemble: Ensemble, share: float) -> int:
    """So many trees, in whole rounds of boosting."""
    size = round_size(ensemble)
    return max(1, round(share * ensemble.trees / size)) * size


def _places(model: onnx.ModelProto) -> list[int]:
    return [place for place, node in enumerate(model.graph.node) if node.op_type in OPERATORS]


def _with(model: onnx.ModelProto, ensembles: Sequence[Ensemble]) -> bytes:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for place, ensemble in zip(_places(copy), ensembles, strict=True):
        write(copy.graph.node[place], ensemble)
    return serialize(copy)


def _held(subject: Subject, model: onnx.ModelProto, ensembles: Sequence[Ensemble]) -> list[_Held]:
    """The trees, with what comes to them and what they make of it where rows are enough."""
    count = len(next(iter(subject.rows.values())))
    if count < _FEWEST_ROWS:
        return [_Held(ensemble, None) for ensemble in ensembles]
    wanted = [model.graph.node[place].input[0] for place in _places(model)]
    some = {name: array[:_MOST_ROWS] for name, array in subject.rows.items()}
    given = seen(model, some, wanted)
    return [
        _Held(ensemble, seen_by(ensemble, given[name]))
        for ensemble, name in zip(ensembles, wanted, strict=True)
    ]


def _trees(ensembles: Sequence[Ensemble]) -> int:
    return sum(ensemble.trees for ensemble in ensembles)


def _nodes(ensembles: Sequence[Ensemble]) -> int:
    return sum(len(ensemble.mode) for ensemble in ensembles)


def _described(ensembles: Sequence[Ensemble]) -> str:
    return f"{_trees(ensembles):,} trees with {_nodes(ensembles):,} nodes"
