"""Forests and boosted trees: the same answers from fewer nodes, then fewer trees and splits.

Several sizes are proposed, from nearly all trees to few. What they leave out is made up for by new
votes that come close to the original's own sums on the calibration rows; no label is needed.
Which of them is small and still good is decided on other rows, with an interval: the smallest
prefix that is inside the budget on the rows it was picked by often is not on others.

Of forests with hundreds of thousands of nodes only small sizes are proposed, and of millions of
votes the first trees are what is made smaller: everything else would take minutes and gigabytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final

import numpy as np
import onnx

from modelport.core.errors import UnsupportedError
from modelport.optimize.base import REDUCE, Progress, Subject, Variant
from modelport.optimize.classic.ensemble import OPERATORS, Ensemble
from modelport.optimize.classic.lossless import simplified, without_equal_sides
from modelport.optimize.classic.narrow import narrowed
from modelport.optimize.classic.refit import refitted
from modelport.optimize.classic.seen import seen
from modelport.optimize.classic.shrink import (
    Cuts,
    Rows,
    cuts_of,
    first_trees,
    rescaled,
    round_size,
    seen_by,
    with_fewer_splits,
)
from modelport.optimize.classic.tree_nodes import decides_alike, empty, read
from modelport.optimize.classic.tree_writer import write
from modelport.optimize.onnx_graph import nodes, operators, parse, serialize

#: Shares of the trees, and of the nodes, that are tried; the larger ones first.
_TREES: Final = (0.8, 0.6, 0.4, 0.2, 0.1)
_SPLITS: Final = (0.7, 0.5, 0.25, 0.1)
_BOTH: Final = ((0.8, 0.7), (0.4, 0.5))
#: Of more nodes only the smaller shares are tried: to write, load and measure a million of them
#: takes half a minute.
_MANY_NODES: Final = 300_000
_SMALL: Final = 0.4
#: Nodes times targets that are changed; of larger ensembles, the first trees alone.
_MOST_CHANGED: Final = 4_000_000
#: Fewer trees are not cut.
_FEWEST_TREES: Final = 4
_KEEPS_NUMBERS: Final = ("Cast", "Identity", "Reshape", "Squeeze")
_FEWEST_ROWS: Final = 10
_MOST_SIMPLIFIED: Final = 100_000
_MOST_ROWS: Final = 8192


@dataclass(frozen=True, eq=False)
class _Held:
    """The trees of one node that are changed, and the calibration rows as they come to it."""

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
        inside = sum(node.op_type in OPERATORS for node in nodes(model)) - len(_holders(model))
        return "its trees are inside branches or loops of the graph" if inside else ""

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        frame, whole = _taken_apart(subject.variant.model)
        total, least, made = _trees(whole), len(subject.variant.model), 0
        for name, left, content in _smaller(subject, frame, whole, report):
            if len(content) < least:
                made += 1
                least = len(content) if name == "same answers" else least
                yield subject.variant.then(
                    f"trees, {name}", content, trees=_trees(left), nodes=_nodes(left), of=total
                )
        if not made:
            raise UnsupportedError(f"nothing smaller answers in the place of {_described(whole)}")


def _smaller(
    subject: Subject, frame: onnx.ModelProto, whole: Sequence[Ensemble], report: Progress
) -> Iterator[tuple[str, Sequence[Ensemble], bytes]]:
    """Names, trees and models that are different from each other."""
    few = _nodes(whole) <= _MANY_NODES
    made: set[bytes] = set()
    if few:
        same = [simplified(ensemble) for ensemble in whole]
        report(f"  {_described(whole)}; {_described(same)} give the same answers")
        if _decide_alike(frame, whole, same):
            content = serialize(_with(frame, same))
            made.add(content)
            yield "same answers", same, content
    if not all(ensemble.sums for ensemble in whole):
        raise UnsupportedError("its trees do not add up: none can be left out")
    if _are_looked_up(frame):
        raise UnsupportedError("its leaves have numbers that are looked up: none can be left out")
    held = _held(subject, frame, whole)
    if not few:
        parts = [item.ensemble for item in held]
        report(f"  of {_described(whole)}, {_described(parts)} are made smaller")
    for name, change in _ladder(held, _trees(whole), few=few):
        if time.monotonic() > subject.deadline:
            return
        left = [_simplified(change(item)) for item in held]
        content = narrowed(_with(frame, left))
        if content not in made and _decide_alike(frame, whole, left):
            made.add(content)
            yield name, left, content


def _ladder(
    held: Sequence[_Held], total: int, *, few: bool
) -> Iterator[tuple[str, Callable[[_Held], Ensemble]]]:
    """Ways to make them smaller, the gentlest first."""
    if few:
        yield "all", lambda held: held.ensemble
    if total >= _FEWEST_TREES:
        shares = [share for share in _TREES if few or share <= _SMALL]
        counts = {sum(_rounds(item.ensemble, share) for item in held): share for share in shares}
        for count, share in counts.items():
            yield f"{count} of {total}", partial(_prefix, share=share)
    if held[0].rows is None:
        return
    whole = total == sum(item.ensemble.trees for item in held)
    for share in _SPLITS:
        if few or share <= _SMALL:
            of = "the splits" if whole else f"the first {held[0].ensemble.trees} trees' splits"
            yield f"{share:.0%} of {of}", partial(_cut, share=share)
    if total >= _FEWEST_TREES and few:
        for trees, splits in _BOTH:
            name = f"{trees:.0%} of the trees, {splits:.0%} of their splits"
            yield name, partial(_both, trees=trees, splits=splits)


def _simplified(ensemble: Ensemble) -> Ensemble:
    """Of many nodes it takes long, and what it finds was found in the whole already."""
    return simplified(ensemble) if len(ensemble.mode) <= _MOST_SIMPLIFIED else ensemble


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


def _holders(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in OPERATORS]


def _taken_apart(content: bytes) -> tuple[onnx.ModelProto, list[Ensemble]]:
    """The graph without what its nodes of trees hold, and that."""
    model = parse(content)
    whole = [read(node) for node in _holders(model)]
    for node in _holders(model):
        empty(node)
    return _copy(model), whole  # a copy: memory of a message is freed as a whole


def _are_looked_up(model: onnx.ModelProto) -> bool:
    """Whether votes are no votes but numbers of leaves: isolation forests look up their depth."""
    numbers = {node.output[0] for node in _holders(model)}
    for node in model.graph.node:
        if numbers & set(node.input):
            if node.op_type == "LabelEncoder":
                return True
            if node.op_type in _KEEPS_NUMBERS:
                numbers.update(node.output)
    return False


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _with(frame: onnx.ModelProto, ensembles: Sequence[Ensemble]) -> onnx.ModelProto:
    made = _copy(frame)
    for node, ensemble in zip(_holders(made), ensembles, strict=True):
        write(node, ensemble)
    return made


def _decide_alike(
    frame: onnx.ModelProto, before: Sequence[Ensemble], after: Sequence[Ensemble]
) -> bool:
    return all(map(decides_alike, _holders(frame), before, after))


def _held(subject: Subject, frame: onnx.ModelProto, whole: Sequence[Ensemble]) -> list[_Held]:
    """The trees, with what comes to them and what they make of it where rows are enough."""
    parts = [without_equal_sides(_part(ensemble)) for ensemble in whole]
    count = len(next(iter(subject.rows.values())))
    if count < _FEWEST_ROWS:
        return [_Held(ensemble, None) for ensemble in parts]
    wanted = [node.input[0] for node in _holders(frame)]
    some = {name: array[:_MOST_ROWS] for name, array in subject.rows.items()}
    given = seen(frame, some, wanted)
    if any(given[name].ndim != 2 for name in wanted):
        raise UnsupportedError("its trees take a single row, not a table")
    return [
        _Held(ours, seen_by(ensemble, given[name]))
        for ours, ensemble, name in zip(parts, whole, wanted, strict=True)
    ]


def _part(ensemble: Ensemble) -> Ensemble:
    """The first trees, as many as there is memory and time to change."""
    ends = np.append(ensemble.roots[1:], len(ensemble.mode))
    size = round_size(ensemble)
    count = int(np.searchsorted(ends * ensemble.targets, _MOST_CHANGED, side="right"))
    count = max(count - count % size, size)
    return ensemble if count >= ensemble.trees else first_trees(ensemble, count)


def _trees(ensembles: Sequence[Ensemble]) -> int:
    return sum(ensemble.trees for ensemble in ensembles)


def _nodes(ensembles: Sequence[Ensemble]) -> int:
    return sum(len(ensemble.mode) for ensemble in ensembles)


def _described(ensembles: Sequence[Ensemble]) -> str:
    return f"{_trees(ensembles):,} trees with {_nodes(ensembles):,} nodes"
