"""The optimize stage: from a package and rows to a frontier, and to a better package or none."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelport.adapters import find_adapter
from modelport.core.errors import EngineError, InputError, UnsupportedError
from modelport.core.package import Package
from modelport.core.tensors import Array, Tensors
from modelport.optimize.answers import Form, check_complete, form_of, target_labels
from modelport.optimize.base import OwnStudent, Progress, Subject, Variant
from modelport.optimize.emit import emit
from modelport.optimize.evaluate import Bench, Measured, Rows
from modelport.optimize.frontier import Point, frontier, ranking
from modelport.optimize.metrics import make_judge
from modelport.optimize.original import Original, one_core, variant_of
from modelport.optimize.outcome import Outcome
from modelport.optimize.report import to_json
from modelport.optimize.search import Found, load_passes, missing_passes, search
from modelport.optimize.shelf import Shelf, rows_digest
from modelport.optimize.significance import ERROR, holding_error
from modelport.optimize.split import Thirds, thirds

ORIGINAL: Final = "original"
_ONNX: Final = ".onnx"


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Parameters
    ----------
    rows : mapping of str to ndarray
        The package's inputs, as clients send them.
    target : ndarray or None
        The right answers.
    metric : str
        See `modelport.optimize.metrics`; empty: by the target and the model.
    max_drop : float
        What the metric may lose, in its own unit.
    passes : tuple of str
        Empty: all; ``-NAME``: all but this one.
    seconds : float
        In which passes may begin.
    threads : int
        With which it will be served.
    cache : Path or None
        Where variants are kept until the run ends, so that an interrupted one goes on; None:
        nowhere.
    student : OwnStudent or None
        A network of the user's, to be taught.
    """

    rows: Tensors
    target: Array | None = None
    metric: str = ""
    max_drop: float = 0.01
    passes: tuple[str, ...] = ()
    seconds: float = float("inf")
    threads: int = 1
    cache: Path | None = None
    student: OwnStudent | None = None


def optimize(package: Package, request: Request, report: Progress) -> Outcome:
    """Make variants of a package's model, measure them beside it, and pick one, or none.

    Parameters
    ----------
    package : Package
        Verified.
    request : Request
    report : callable

    Raises
    ------
    UnsupportedError
        When the package's engine is not one whose models can be changed.
    InputError
        When the rows are too few, or the metric does not fit.
    EngineError
        When the original itself cannot be measured.
    """
    _check(package, request)
    passes = load_passes(request.passes, with_student=request.student is not None)
    study = _Study(package, request)
    report(f"asking the original about {len(study.parts.choose)} rows, three times")
    subject = study.subject()
    choosing = study.rows(study.parts.choose)
    baseline = study.baseline(choosing)
    with _shelf(request, package, subject.rows) as shelf:
        found = search(passes, subject, study.bench, choosing, shelf, report)
        found.refusals += missing_passes(request.passes)
        points = _timed(study, baseline, found, choosing, report)
        outcome = _held(study, points, found, choosing, report)
        if outcome.picked is None:
            return outcome
        variant = outcome.picked.measured.variant
        document = to_json(outcome, request.max_drop)
        artifact = emit(package, variant, document, lambda rows: study.answers(variant, rows))
    return replace(outcome, artifact=artifact)


def _check(package: Package, request: Request) -> None:
    """Refuse what no rows and no passes can change anything about."""
    if _ONNX not in find_adapter("engine", package.manifest.engine).suffixes:
        raise UnsupportedError(
            f"{package.manifest.name} runs on {package.manifest.engine}; only ONNX models are "
            "optimized",
            hint="pack the source model again without --engine native",
        )
    signature = package.manifest.signature
    if signature.batch_symbol is None and not signature.fixed_batch:
        raise UnsupportedError(
            f"{package.manifest.name} does not answer row by row: the first dimensions of its "
            "inputs and outputs differ, so its rows cannot be told apart",
            where=", ".join(
                f"{spec.name} {spec.shape_text}" for spec in (*signature.inputs, *signature.outputs)
            ),
        )
    if not (0 < request.max_drop < math.inf):
        raise InputError(
            f"--max-drop is {request.max_drop:g}: no number of rows can show that nothing is lost",
            where="--max-drop", hint="what the metric may lose, above 0: 0.01 is one point of "
            "accuracy",
        )  # fmt: skip


class _Study:
    """A package, its rows, and how variants of it are measured."""

    def __init__(self, package: Package, request: Request) -> None:
        self.request = request
        if request.target is not None:
            check_complete(request.target)
        self.parts: Thirds = thirds(len(next(iter(request.rows.values()))))
        self.model = Original(package, request.threads)
        self.original = variant_of(ORIGINAL, package)
        self.bench = Bench(
            request.threads, request.max_drop, cores=one_core(), fixed=self.model.fixed
        )

    def subject(self) -> Subject:
        """What passes work on."""
        target, parts = self.request.target, self.parts
        rows, answers = self._calibration
        return Subject(
            variant=self.original, signature=self.model.signature, rows=rows,
            answers=answers, threads=self.request.threads, max_drop=self.request.max_drop,
            deadline=time.monotonic() + self.request.seconds, task=self.model.task,
            target=None if target is None else target[parts.calibrate],
            student=self.request.student,
        )  # fmt: skip

    @cached_property
    def _calibration(self) -> tuple[Tensors, Tensors]:
        rows = self.model.prepare(self.original, self._take(self.parts.calibrate))
        return rows, self.bench.answers(self.original, rows)

    @cached_property
    def _form(self) -> Form:
        form = form_of(self.model.finish(self._calibration[1]), self.model.task)
        target = self.request.target
        if target is None or self.request.metric not in ("f1", "recall"):
            return form
        # Whether there are two labels must not depend on which rows are in which third.
        return replace(form, labels=frozenset(target_labels(target).tolist()))

    def rows(self, chosen: Array, error: float = ERROR) -> Rows:
        """Rows to judge by, with what the original makes of them."""
        rows = self._take(chosen)
        prepared = self.model.prepare(self.original, rows)
        answers = self.model.finish(self.bench.answers(self.original, prepared))
        request = self.request
        target = None if request.target is None else request.target[chosen]
        judge = make_judge(request.metric, answers, target, self.model.task, self._form)
        if judge.bounded and request.max_drop >= 1:
            raise InputError(
                f"--max-drop is {request.max_drop:g}, and {judge.name} cannot lose more than all",
                where="--max-drop", hint="in the metric's own unit: 0.01 is one point of accuracy",
            )  # fmt: skip

        def inputs(variant: Variant) -> Tensors:
            return self.model.prepare(variant, rows) if variant.files else prepared

        return Rows(
            inputs, self.model.finish, replace(judge, error=error), judge.decide(answers),
            len(chosen),
        )  # fmt: skip

    def baseline(self, rows: Rows) -> Measured:
        """The original, measured."""
        measured = self.bench.judge(self.original, rows)
        if measured.failed:
            raise EngineError(f"the original cannot be measured: {measured.failed}")
        if not math.isfinite(measured.metric):
            raise InputError(
                f"the original's {rows.judge.name} is {measured.metric}", where="--metric"
            )
        return measured

    def answers(self, variant: Variant, rows: Tensors) -> Tensors:
        """What a variant answers clients."""
        return self.model.finish(self.bench.answers(variant, self.model.prepare(variant, rows)))

    def _take(self, chosen: Array) -> dict[str, Any]:
        return {name: np.asarray(array)[chosen] for name, array in self.request.rows.items()}


@contextmanager
def _shelf(request: Request, package: Package, rows: Tensors) -> Iterator[Shelf]:
    """Where variants are kept; emptied when the block ends well."""
    digest = package.digest.removeprefix("sha256:")[:16]
    if request.cache is None:
        with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
            yield Shelf(Path(folder) / digest, rows_digest(rows))
        return
    shelf = Shelf(request.cache / digest, rows_digest(rows))
    yield shelf
    shelf.clear()


def _timed(
    study: _Study, baseline: Measured, found: Found, rows: Rows, report: Progress
) -> list[Point]:
    """The original and all variants, with their times and verdicts."""
    working = [item for item in found.measured if not item.failed]
    broken = [item for item in found.measured if item.failed]
    first, *others = study.bench.time(baseline, working, rows, report)
    return frontier(first, [*others, *broken], study.request.max_drop)


def _held(
    study: _Study, points: Sequence[Point], found: Found, choosing: Rows, report: Progress
) -> Outcome:
    """The best variant that is also inside the budget on rows that nothing else has seen."""
    outcome = Outcome(
        points=tuple(points), picked=None, held=None, failed=(), refusals=tuple(found.refusals),
        metric=choosing.judge.name, rows=choosing.count,
    )  # fmt: skip
    able = ranking(points)
    if not able:
        return outcome
    rows = study.rows(study.parts.hold, holding_error(len(found.measured)))
    failed: list[tuple[str, str]] = []
    for point in able:
        variant = point.measured.variant
        report(f"holding {variant.name} against rows that nothing has seen")
        held = study.bench.judge(variant, rows)
        why = _why_not(held, study.request.max_drop)
        if not why:
            return replace(outcome, picked=point, held=held, failed=tuple(failed))
        failed.append((variant.name, why))
    return replace(outcome, failed=tuple(failed))


def _why_not(held: Measured, budget: float) -> str:
    """Why a variant does not hold; empty: it does."""
    loss = held.loss
    if held.failed or loss is None:
        return held.failed or "nothing was measured"
    if loss.value <= budget and loss.bound <= budget:
        return ""
    told = f"loses {loss.value:.4g}, at most {loss.bound:.4g}, on rows that it had not seen"
    if loss.needed > 0:
        told += f"; about {3 * loss.needed:,} rows in all would tell"
    return told
