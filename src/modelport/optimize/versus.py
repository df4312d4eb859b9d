"""Two packages side by side on the same rows: which one is better, and where they differ."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelport.core.errors import EngineError, InputError
from modelport.core.package import Package
from modelport.core.tensors import Array, Tensors
from modelport.optimize.base import Progress, Variant
from modelport.optimize.evaluate import Bench, Measured, Rows
from modelport.optimize.measure.process import Worker, save_rows
from modelport.optimize.measure.timing import Times, time_together
from modelport.optimize.metrics import Judge, make_judge
from modelport.optimize.original import Original

_BATCH: Final = 32
_SHOWN: Final = 10


@dataclass(frozen=True)
class Difference:
    """A row to which the two give different answers.

    Parameters
    ----------
    row : int
    first, second : str
        Their answers.
    error : float
        How far apart; 1 for labels.
    """

    row: int
    first: str
    second: str
    error: float


@dataclass(frozen=True)
class Versus:
    """What the comparison found.

    Parameters
    ----------
    metric : str
    first, second : Measured
        The second one's loss is against the first one; its speed-up, too.
    flips : int or None
        Rows with another label; None: the models answer numbers.
    rows : int
    differences : tuple of Difference
        The rows that differ most.
    """

    metric: str
    first: Measured
    second: Measured
    flips: int | None
    rows: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Side:
    """A package and its inputs for the rows.

    Parameters
    ----------
    package : Package
    rows : mapping of str to ndarray
        As its clients send them.
    """

    package: Package
    rows: Tensors


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
    models = [Original(side.package, threads) for side in (first, second)]
    variants = [
        Variant("A", first.package.model_path.read_bytes()),
        Variant("B", second.package.model_path.read_bytes(), passes=("other",)),
    ]
    benches = [
        Bench(side.package.manifest.engine, threads, 0.0, cores={max(os.sched_getaffinity(0))})
        for side in (first, second)
    ]
    inputs = [
        model.prepare(variant, side.rows)
        for model, variant, side in zip(models, variants, (first, second), strict=True)
    ]
    report("asking the first one")
    answers = models[0].finish(benches[0].answers(variants[0], inputs[0]))
    judge = make_judge(metric, answers, target, models[0].task)
    before = judge.decide(answers)
    report("asking the second one")
    other = models[1].finish(benches[1].answers(variants[1], inputs[1]))
    after = _comparable(judge, other, answers)
    measured = [
        bench.judge(variant, Rows(_always(rows), model.finish, judge, before, count))
        for bench, variant, model, rows in zip(benches, variants, models, inputs, strict=True)
    ]
    for item in measured:
        if item.failed:
            raise EngineError(item.failed, where=item.variant.name)
    report("timing both")
    single, bulk = _times(benches, variants, inputs)
    return Versus(
        judge.name,
        _with_times(measured[0], single["A"], bulk.get("A")),
        _with_times(measured[1], single["B"], bulk.get("B")),
        *_differences(before, after),
    )


def _always(rows: Tensors) -> Callable[[Variant], Tensors]:
    def inputs(variant: Variant) -> Tensors:
        return rows

    return inputs


def _comparable(judge: Judge, other: Tensors, answers: Tensors) -> Any:
    try:
        after = judge.decide(other)
    except (InputError, ValueError) as error:
        raise InputError(
            f"their answers cannot be compared: {error}",
            hint="both have to answer the same question",
        ) from error
    if not isinstance(after, Mapping) and after.shape != judge.decide(answers).shape:
        raise InputError(
            f"their answers cannot be compared: {judge.decide(answers).shape[1:]} numbers a row "
            f"and {after.shape[1:]}"
        )
    return after


def _differences(before: Any, after: Any) -> tuple[int | None, int, tuple[Difference, ...]]:
    if isinstance(before, Mapping):  # a metric of the user's own, of all outputs
        name = next(iter(before))
        before, after = before[name], after[name]
    count = len(before)
    if before.dtype.kind != "f":
        changed = np.asarray(before != after).reshape(count, -1).any(axis=1)
        errors = changed.astype(np.float64)
        flips: int | None = int(changed.sum())
    else:
        errors = np.asarray(np.abs(before - after)).reshape(count, -1).max(axis=1)
        flips = None
    errors = np.asarray(errors)
    worst = [row for row in np.argsort(-errors, kind="stable")[:_SHOWN] if errors[row] > 0]
    return (
        flips,
        count,
        tuple(
            Difference(int(row), _short(before[row]), _short(after[row]), float(errors[row]))
            for row in worst
        ),
    )


def _short(value: Any) -> str:
    flat = np.asarray(value).ravel()
    shown = ", ".join(f"{item:.6g}" if isinstance(item, float) else str(item) for item in flat[:4])
    return shown + (", …" if len(flat) > 4 else "")


def _times(
    benches: list[Bench], variants: list[Variant], inputs: list[Tensors]
) -> tuple[dict[str, Times], dict[str, Times]]:
    with tempfile.TemporaryDirectory(prefix="modelport-") as name, ExitStack() as stack:
        folder = Path(name)
        workers, paths = {}, {}
        for bench, variant, rows in zip(benches, variants, inputs, strict=True):
            workers[variant.name] = stack.enter_context(
                Worker(variant, bench.engine, bench.threads, folder, cores=bench.cores)
            )
            paths[variant.name] = folder / f"{variant.name}.npz"
            save_rows(paths[variant.name], rows)
        single = time_together(workers, "A", paths, 1)
        try:
            return single, time_together(workers, "A", paths, _BATCH)
        except EngineError:  # a fixed batch size
            return single, {}


def _with_times(item: Measured, single: Times, bulk: Times | None) -> Measured:
    return replace(item, single=single, bulk=bulk)
