"""Two packages side by side on the same rows: which one is better, and where they differ."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelport.core.errors import EngineError, InputError
from modelport.core.package import Package
from modelport.core.tensors import Array, Tensors
from modelport.optimize.answers import LABELS, Form, form_of, has_labels, labels_of
from modelport.optimize.base import Progress
from modelport.optimize.differences import (
    Difference,
    Flip,
    differences,
    scores_apart,
    shown_columns,
)
from modelport.optimize.evaluate import Bench, Measured, Rows
from modelport.optimize.judge import Judge
from modelport.optimize.measure.process import Worker, save_rows
from modelport.optimize.measure.timing import Times, time_together
from modelport.optimize.metrics import make_judge
from modelport.optimize.original import Original, one_core, variant_of

_BATCH: Final = 32
_HINT: Final = "both have to answer the same question"


@dataclass(frozen=True)
class Versus:
    """What the comparison found.

    Parameters
    ----------
    metric : str
    first, second : Measured
        The second one's loss is against the first one; its speed-up, too.
    rows : int
    flips : tuple of Flip or None
        Labels that differ, the most frequent first; None: the models answer numbers.
    only_first, only_second : int or None
        Rows that one of them alone answers rightly; None: the metric counts no right answers.
    differences : tuple of Difference
        The rows that differ most.
    """

    metric: str
    first: Measured
    second: Measured
    rows: int
    flips: tuple[Flip, ...] | None
    only_first: int | None
    only_second: int | None
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Side:
    """A package and its inputs for the rows.

    Parameters
    ----------
    package : Package
    rows : mapping of str to ndarray
        As its clients send them.
    names : tuple of str
        What the rows are called, where each is a file.
    """

    package: Package
    rows: Tensors
    names: tuple[str, ...] = ()


class _Asked:
    """One side, ready to be asked."""

    def __init__(self, name: str, side: Side, threads: int) -> None:
        self.model = Original(side.package, threads)
        passes = () if name == "A" else ("other",)
        self.variant = replace(variant_of(name, side.package), passes=passes)
        self.bench = Bench(threads, 0.0, cores=one_core(), fixed=self.model.fixed)
        self.inputs = self.model.prepare(self.variant, side.rows)

    def answers(self) -> tuple[Tensors, Form]:
        """What it answers clients, and how that is read."""
        answers = self.finish(self.bench.answers(self.variant, self.inputs))
        return answers, form_of(answers, self.model.task)

    def finish(self, answers: Tensors) -> Tensors:
        """What clients get; of a model that answers scores alone, with its labels."""
        finished = self.model.finish(answers)
        form = form_of(finished, self.model.task)
        if form.kind != LABELS or has_labels(finished):
            return finished
        return {**finished, _LABEL: labels_of(finished, form)}

    def measured(self, judge: Judge, before: Any, rows: int) -> Measured:
        """Its metric, load time and memory."""
        asked = Rows(lambda _: self.inputs, self.finish, judge, before, rows)
        found = self.bench.judge(self.variant, asked)
        if found.failed:
            raise EngineError(found.failed, where=self.variant.name)
        return found


#: The name of labels that are made of scores.
_LABEL: Final = "label"


def compare(
    first: Side,
    second: Side,
    target: Array | None,
    metric: str,
    threads: int,
    report: Progress,
) -> Versus:
    """Compare two packages on the same rows.

    Raises
    ------
    InputError
        When their answers cannot be compared, or the metric does not fit.
    EngineError
        When one of them fails.
    """
    count = len(next(iter(first.rows.values())))
    report("asking A")
    a = _Asked("A", first, threads)
    answers, form = a.answers()
    judge = make_judge(metric, answers, target, a.model.task, form)
    before = judge.decide(answers)
    report("asking B")
    b = _Asked("B", second, threads)
    other, other_form = b.answers()
    if form.kind != other_form.kind:
        raise InputError(
            f"A answers {form.kind} and B {other_form.kind}: they cannot be compared", hint=_HINT
        )
    after = _comparable(judge, before, other)
    measured = [asked.measured(judge, before, count) for asked in (a, b)]
    report("timing both")
    single, bulk = _times((a, b))
    found = differences(
        before, after, scores_apart(answers, other),
        shown_columns(first.rows, first.package.manifest.signature), first.names,
    )  # fmt: skip
    right = judge.strata(before, after)[0] if judge.strata and judge.name == "accuracy" else None
    return Versus(
        judge.name,
        replace(measured[0], single=single["A"], bulk=bulk.get("A")),
        replace(measured[1], single=single["B"], bulk=bulk.get("B")),
        count,
        found.flips,
        None if right is None else int(np.sum(right[0] & ~right[1])),
        None if right is None else int(np.sum(right[1] & ~right[0])),
        found.worst,
    )


def _comparable(judge: Judge, before: Any, other: Tensors) -> Any:
    """What the second one decides, if that can be held against what the first one does."""
    try:
        after = judge.decide(other)
    except (InputError, ValueError) as error:
        raise InputError(f"their answers cannot be compared: {error}", hint=_HINT) from error
    if isinstance(before, Mapping):
        return after
    if after.shape != before.shape:
        raise InputError(
            f"their answers cannot be compared: {list(before.shape[1:])} a row and "
            f"{list(after.shape[1:])}", hint=_HINT,
        )  # fmt: skip
    if before.dtype.kind == "U" and not set(before.ravel()) & set(after.ravel()):
        raise InputError(
            f"their labels have nothing in common: {before.flat[0]}, … and {after.flat[0]}, …",
            hint=_HINT,
        )
    return after


def _times(sides: tuple[_Asked, _Asked]) -> tuple[dict[str, Times], dict[str, Times]]:
    """Of one row, and of a batch where both take one."""
    with tempfile.TemporaryDirectory(prefix="modelport-") as name, ExitStack() as stack:
        folder = Path(name)
        workers, paths = {}, {}
        for side in sides:
            mine = side.variant.name
            worker = Worker(side.variant, side.bench.threads, folder, cores=side.bench.cores)
            workers[mine] = stack.enter_context(worker)
            paths[mine] = folder / mine
            save_rows(paths[mine], side.inputs)
        fixed = {side.model.fixed for side in sides} - {0}
        single = time_together(workers, "A", paths, max(fixed, default=1))
        return single, {} if fixed else time_together(workers, "A", paths, _BATCH)
