"""The optimize stage: from a package and rows to a frontier, and to a better package or none."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelport.core.errors import UnsupportedError
from modelport.core.package import Package
from modelport.core.tensors import Array, Tensors
from modelport.optimize.base import Progress, Subject, Variant
from modelport.optimize.emit import emit
from modelport.optimize.evaluate import Bench, Measured, Rows
from modelport.optimize.frontier import Point, frontier, ranking
from modelport.optimize.metrics import Judge, make_judge
from modelport.optimize.original import Original
from modelport.optimize.outcome import Outcome
from modelport.optimize.report import to_json
from modelport.optimize.search import load_passes, search
from modelport.optimize.shelf import Shelf, rows_digest
from modelport.optimize.split import Thirds, thirds

ORIGINAL: Final = "original"
_ENGINE: Final = "onnxruntime"


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
        What the metric may lose.
    passes : tuple of str
        Empty: all.
    seconds : float
        In which passes may begin.
    threads : int
        With which it will be served.
    cache : Path or None
        Where variants are kept until the run ends, so that an interrupted one goes on; None:
        nowhere.
    """

    rows: Tensors
    target: Array | None = None
    metric: str = ""
    max_drop: float = 0.01
    passes: tuple[str, ...] = ()
    seconds: float = float("inf")
    threads: int = 1
    cache: Path | None = None


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
    """
    if package.manifest.engine != _ENGINE:
        raise UnsupportedError(
            f"{package.manifest.name} runs on {package.manifest.engine}; only ONNX models are "
            "optimized",
            hint="pack it without --engine native",
        )
    passes = load_passes(request.passes)
    model = Original(package, request.threads)
    parts = thirds(len(next(iter(request.rows.values()))))
    original = Variant(ORIGINAL, package.model_path.read_bytes())
    bench = Bench(
        _ENGINE, request.threads, request.max_drop,
        cores={max(os.sched_getaffinity(0))}, batches=model.batches,
    )  # fmt: skip
    report("asking the original")
    calibrate = model.prepare(original, _take(request.rows, parts.calibrate))
    subject = Subject(
        variant=original, signature=model.signature, engine=_ENGINE, rows=calibrate,
        answers=bench.answers(original, calibrate), threads=request.threads,
        max_drop=request.max_drop, deadline=time.monotonic() + request.seconds, task=model.task,
        target=None if request.target is None else request.target[parts.calibrate],
    )  # fmt: skip
    choosing = _rows(model, bench, original, request, parts.choose)
    baseline = bench.judge(original, choosing)
    with _shelf(request, package, calibrate) as shelf:
        found = search(passes, subject, bench, choosing, shelf, report)
        working = [item for item in found.measured if not item.failed]
        broken = [item for item in found.measured if item.failed]
        timed = bench.time(baseline, working, choosing, report)
        points = frontier(timed[0], [*timed[1:], *broken], request.max_drop)
        picked, held, failed = _hold(points, model, bench, original, request, parts, report)
    outcome = Outcome(
        points=tuple(points), picked=picked, held=held, failed=tuple(failed),
        refusals=tuple(found.refusals), metric=choosing.judge.name, rows=choosing.count,
    )  # fmt: skip
    if picked is None:
        return outcome
    variant = picked.measured.variant

    def answer(rows: Tensors) -> Tensors:
        return model.finish(bench.answers(variant, model.prepare(variant, rows)))

    document = to_json(outcome, request.max_drop)
    return replace(outcome, artifact=emit(package, variant, document, answer))


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


def _hold(
    points: Sequence[Point],
    model: Original,
    bench: Bench,
    original: Variant,
    request: Request,
    parts: Thirds,
    report: Progress,
) -> tuple[Point | None, Measured | None, list[tuple[str, str]]]:
    """The best variant that is also inside the budget on rows that nothing else has seen."""
    failed: list[tuple[str, str]] = []
    able = ranking(points)
    if not able:
        return None, None, failed
    rows = _rows(model, bench, original, request, parts.hold)
    for point in able:
        name = point.measured.variant.name
        report(f"holding {name} against rows that nothing has seen")
        held = bench.judge(point.measured.variant, rows)
        if held.failed or held.loss is None or held.loss.value > request.max_drop:
            loss = held.loss.value if held.loss is not None else float("nan")
            failed.append((name, held.failed or f"loses {loss:.4g} on rows that it had not seen"))
            continue
        return point, held, failed
    return None, None, failed


def _rows(
    model: Original, bench: Bench, original: Variant, request: Request, chosen: Array
) -> Rows:
    """Rows to judge by, with what the original makes of them."""
    rows = _take(request.rows, chosen)
    prepared = model.prepare(original, rows)
    answers = model.finish(bench.answers(original, prepared))
    target = None if request.target is None else request.target[chosen]
    judge: Judge = make_judge(request.metric, answers, target, model.task)

    def inputs(variant: Variant) -> Tensors:
        return model.prepare(variant, rows) if variant.files else prepared

    return Rows(inputs, model.finish, judge, judge.decide(answers), len(chosen))


def _take(rows: Tensors, chosen: Array) -> dict[str, Any]:
    return {name: np.asarray(array)[chosen] for name, array in rows.items()}
