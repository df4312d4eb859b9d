"""From the original to all variants: passes in their order, on what earlier ones left."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from modelport.adapters import Adapter, adapters_of, find_adapter
from modelport.core.errors import InputError, ModelportError
from modelport.optimize.base import (
    LOAD,
    NUMBERS,
    ORDER,
    OWN_STUDENT,
    REDUCE,
    Pass,
    Progress,
    Subject,
)
from modelport.optimize.evaluate import Bench, Measured, Rows
from modelport.optimize.shelf import Shelf

#: The share of the time after which no pass of an order begins: what shrinks a network trains for
#: long, and the others, which build on it, need their turn.
_UNTIL: Final = {REDUCE: 0.6, NUMBERS: 1.0, LOAD: 1.0}
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


def load_passes(names: Sequence[str], *, with_student: bool = False) -> list[Pass]:
    """The passes of these names, or all that are installed; in their order.

    Parameters
    ----------
    names : sequence of str
        ``-NAME``: not this one.
    with_student : bool
        Whether the user gives a network to be taught; without one nobody asked for its pass.

    Raises
    ------
    NotFoundError, MissingPackageError
        For a name that is not known, or whose packages are missing.
    InputError
        When none is left.
    """
    wanted, unwanted = _named(names)
    chosen: list[Pass] = [
        adapter.load() for adapter in wanted or adapters_of("pass")
        if adapter not in unwanted and (wanted or not adapter.missing())
        and (wanted or with_student or adapter.name != OWN_STUDENT)
    ]  # fmt: skip
    if not chosen:
        raise InputError(
            "no pass is left" if names else "no pass is installed", where="--passes",
            hint="pip install 'modelport[optimize]'",
        )  # fmt: skip
    return sorted(chosen, key=lambda one: ORDER.index(one.order))


def missing_passes(names: Sequence[str]) -> list[Refusal]:
    """Those that nobody excluded, and whose packages are not installed."""
    wanted, unwanted = _named(names)
    return [
        Refusal(
            adapter.name, "",
            f"needs {', '.join(adapter.missing())}: pip install 'modelport[{adapter.extra}]'",
        )
        for adapter in ([] if wanted else adapters_of("pass"))
        if adapter not in unwanted and adapter.missing()
    ]  # fmt: skip


def _named(names: Sequence[str]) -> tuple[list[Adapter], list[Adapter]]:
    """Which passes are wanted, and which are not."""
    distinct = list(dict.fromkeys(names))
    return (
        [find_adapter("pass", name) for name in distinct if not name.startswith("-")],
        [find_adapter("pass", name[1:]) for name in distinct if name.startswith("-")],
    )


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
    begin = time.monotonic()
    variants = [subject.variant]
    for order in ORDER:
        deadline = begin + _UNTIL[order] * (subject.deadline - begin)
        steps = [
            (one, replace(subject, variant=variant, deadline=deadline))
            for variant in variants
            for one in passes
            if one.order == order and one.name not in variant.passes
        ]
        made: list[Measured] = []
        round_begin = time.monotonic()
        for done, (one, mine) in enumerate(steps):
            spent = time.monotonic() - round_begin
            step = _step(ORDER.index(order) + 1, done, len(steps), spent)
            title = f"{one.name} of {mine.variant.name} ({step})"
            for measured in _try(one, mine, bench, rows, shelf, found, title, report):
                made.append(measured)
                found.measured.append(measured)
        if order != LOAD:
            kept = _promising(made, bench.budget)[: _CARRIED[order]]
            variants += [item.variant for item in kept]
    return found


def _step(number: int, done: int, steps: int, spent: float) -> str:
    """How far a round is, and how long its others will take if they are like those before."""
    told = f"round {number} of {len(ORDER)}, step {done + 1} of {steps}"
    if not done:
        return told
    left = spent / done * (steps - done)
    return (
        f"{told}, about {left:.0f} s to go" if left < 90 else f"{told}, about {left / 60:.0f} min"
    )


def _try(
    one: Pass,
    subject: Subject,
    bench: Bench,
    rows: Rows,
    shelf: Shelf,
    found: Found,
    title: str,
    report: Progress,
) -> Iterator[Measured]:
    of = subject.variant.name
    names = {item.variant.name for item in found.measured}
    try:
        why = one.refuses(subject)
        if not why and time.monotonic() >= subject.deadline:
            why = "the time was up (--budget)"
        if why:
            found.refusals.append(Refusal(one.name, of, why))
            return
        report(title)
        for variant in shelf.variants(one, subject, report):
            distinct = replace(variant, name=_distinct(variant.name, names))
            names.add(distinct.name)
            measured = bench.judge(distinct, rows)
            told = measured.failed or (
                f"{len(variant.model) / 1e6:.2f} MB, {rows.judge.name} {measured.metric:.4f}"
            )
            report(f"  {distinct.name}: {told}")
            yield measured
    except ModelportError as error:
        found.refusals.append(Refusal(one.name, of, error.line))
    except Exception as error:  # what one pass cannot do must not cost what the others did
        if os.environ.get("MODELPORT_DEBUG"):
            raise
        why = (
            f"a defect in modelport: {type(error).__name__}: {error}; MODELPORT_DEBUG=1 shows "
            "where: please report it"
        )
        found.refusals.append(Refusal(one.name, of, why))


def _distinct(name: str, names: set[str]) -> str:
    """A name that no other variant has: people and programs tell them apart by it."""
    return next(
        told for told in (name, *(f"{name} ({count})" for count in range(2, len(names) + 3)))
        if told not in names
    )  # fmt: skip


def _promising(made: Sequence[Measured], budget: float) -> list[Measured]:
    """Those inside the budget, the smallest first: fewer operations are fewer bytes."""
    able = [item for item in made if item.loss is not None and item.loss.value <= budget]
    return sorted(able, key=lambda item: item.size)
