"""From the original to all variants: passes in their order, on what earlier ones left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from modelport.adapters import adapters_of, find_adapter
from modelport.core.errors import InputError, ModelportError
from modelport.optimize.base import LOAD, NUMBERS, ORDER, REDUCE, Pass, Progress, Subject
from modelport.optimize.evaluate import Bench, Measured, Rows
from modelport.optimize.shelf import Shelf

#: Variants of one order that the next order's passes build on, beside the original.
_CARRIED: Final = {REDUCE: 3, NUMBERS: 3}


@dataclass(frozen=True)
class Refusal:
    """A pass that could not do anything, and why."""

    name: str
    of: str
    why: str


@dataclass
class Found:
    """What a search came to."""

    measured: list[Measured] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)


def load_passes(names: Sequence[str]) -> list[Pass]:
    """The passes of these names, or all that are installed; in their order.

    Raises
    ------
    NotFoundError, MissingPackageError
        For a name that is not known, or whose packages are missing.
    """
    if names:
        chosen: list[Pass] = [find_adapter("pass", name).load() for name in names]
    else:
        chosen = [adapter.load() for adapter in adapters_of("pass") if not adapter.missing()]
    if not chosen:
        raise InputError("no pass is installed", hint="pip install 'modelport[optimize]'")
    return sorted(chosen, key=lambda one: ORDER.index(one.order))


def search(
    passes: Sequence[Pass],
    subject: Subject,
    bench: Bench,
    rows: Rows,
    shelf: Shelf,
    report: Progress,
) -> Found:
    """All variants of a model, judged; not timed yet.

    Parameters
    ----------
    passes : sequence of Pass
        In their order.
    subject : Subject
        The original.
    bench : Bench
    rows : Rows
        By which variants are chosen.
    shelf : Shelf
        What an interrupted run has left.
    report : callable
    """
    found = Found()
    parents = [subject]
    for order in ORDER:
        mine = [one for one in passes if one.order == order]
        made: list[Measured] = []
        for parent in parents:
            for one in mine:
                made += _try(one, parent, bench, rows, shelf, found, report)
        found.measured += made
        if order != LOAD:
            kept = _promising(made, bench.budget)[: _CARRIED[order]]
            parents += [replace(subject, variant=item.variant) for item in kept]
    return found


def _try(
    one: Pass,
    subject: Subject,
    bench: Bench,
    rows: Rows,
    shelf: Shelf,
    found: Found,
    report: Progress,
) -> Iterator[Measured]:
    of = subject.variant.name
    if one.name in subject.variant.passes:
        return
    why = one.refuses(subject)
    if not why and time.monotonic() >= subject.deadline:
        why = "the time was up (--budget)"
    if why:
        found.refusals.append(Refusal(one.name, of, why))
        return
    report(f"{one.name} of {of}")
    try:
        for variant in shelf.variants(one, subject, report):
            measured = bench.judge(variant, rows)
            told = measured.failed or (
                f"{len(variant.model) / 1e6:.2f} MB, {rows.judge.name} {measured.metric:.4f}"
            )
            report(f"  {variant.name}: {told}")
            yield measured
    except ModelportError as error:
        found.refusals.append(Refusal(one.name, of, error.line))


def _promising(made: Sequence[Measured], budget: float) -> list[Measured]:
    """Those inside the budget, the smallest first: fewer operations are fewer bytes."""
    able = [item for item in made if item.loss is not None and item.loss.value <= budget]
    return sorted(able, key=lambda item: item.size)
