"""What variants are worth: their metric, their times, their size, load time and memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelport.core.errors import EngineError
from modelport.core.tensors import Array, Tensors
from modelport.engines.base import BARE_FILE_ENGINE
from modelport.optimize.base import Progress, Variant
from modelport.optimize.judge import Judge
from modelport.optimize.measure.process import Worker, save_rows
from modelport.optimize.measure.timing import Times, time_together
from modelport.optimize.significance import Loss

#: Batch sizes that are tried beside 1; the one with the most rows per second is reported.
BATCHES: Final = (4, 8, 16, 32, 64)
#: Rows at which engines are compared that choose what executes a model by how many there are.
MANY: Final = 4096
_BATCH: Final = 32
#: Seconds; larger batches than those that take so long are not tried.
_LONG: Final = 0.25
_LOADS: Final = 3
#: Variants whose processes are in memory at once, with the original's.
_TOGETHER: Final = 6
_TRIAL_ROUNDS: Final = 3
_ROUNDS: Final = 25
#: For those that lose too much, whatever their speed.
_FEWER_ROUNDS: Final = 9
#: The original, in another process.
_TWIN: Final = "the original again"


@dataclass(frozen=True)
class Measured:
    """A variant and what was measured of it.

    Parameters
    ----------
    variant : Variant
    size : int
        Bytes of the model, with the files of processing that it replaces.
    metric : float
        On the rows that candidates are chosen by.
    loss : Loss or None
        Against the original; None: it is the original.
    load : float
        Seconds to load it.
    memory : int
        Bytes that were resident at the peak of loading and running it.
    single, bulk : Times or None
        One row at a time, and the batch size at which the original answers the most rows per
        second, or `MANY` rows where it runs on another engine; None: not timed.
    failed : str
        Why nothing was measured.
    """

    variant: Variant
    size: int
    metric: float = float("nan")
    loss: Loss | None = None
    load: float = 0.0
    memory: int = 0
    single: Times | None = None
    bulk: Times | None = None
    failed: str = ""


@dataclass(frozen=True)
class Rows:
    """Rows that variants are judged by.

    Parameters
    ----------
    inputs : callable
        From a variant to the engine's inputs: variants may bring processing of their own.
    finish : callable
        From the engine's outputs to those that clients get.
    judge : Judge
    decided : Any
        What the judge made of the original's answers.
    count : int
    """

    inputs: Callable[[Variant], Tensors]
    finish: Callable[[Tensors], Tensors]
    judge: Judge
    decided: Any
    count: int


@dataclass(frozen=True)
class Bench:
    """How variants are measured.

    Parameters
    ----------
    threads : int
    budget : float
        The loss that is accepted.
    cores : set of int
        On which the processes run.
    fixed : int
        The only batch size that the model takes; 0: it takes any.
    """

    threads: int
    budget: float
    cores: set[int] = field(default_factory=set)
    fixed: int = 0

    def answers(self, variant: Variant, inputs: Tensors) -> dict[str, Array]:
        """What a variant answers, in a process that has seen nothing else.

        Raises
        ------
        EngineError
            When it does not load, does not run, or takes the memory that there is.
        """
        with self._folder() as folder, self._worker(variant, folder) as worker:
            save_rows(folder / "rows", inputs)
            return worker.answers(folder / "rows", self._batch(variant))

    def judge(self, variant: Variant, rows: Rows) -> Measured:
        """Its metric and its loss; its size, load time and memory."""
        size = len(variant.model) + sum(map(len, variant.files.values()))
        try:
            with self._folder() as folder, self._worker(variant, folder) as worker:
                save_rows(folder / "rows", rows.inputs(variant))
                found = worker.answers(folder / "rows", self._batch(variant))
                load, memory = worker.best_load(_LOADS), worker.peak_memory()
        except EngineError as error:
            return Measured(variant, size, failed=error.line)
        decided = rows.judge.decide(rows.finish(found))
        if not _finite(decided):
            return Measured(variant, size, failed="it answers NaN or infinities")
        metric = rows.judge.score(decided)
        loss = rows.judge.loss(rows.decided, decided, self.budget) if variant.passes else None
        return Measured(variant, size, metric, loss, load, memory)

    def time(
        self, original: Measured, others: Sequence[Measured], rows: Rows, report: Progress
    ) -> list[Measured]:
        """The original and the others with their times, in groups that run together.

        Raises
        ------
        EngineError
            When the original fails; another one that fails says so itself.
        """
        first = self._alone(original, rows)
        batch = first.bulk.batch if first.bulk is not None else 0
        ordered = sorted(others, key=self._is_hopeless)
        timed: list[Measured] = []
        for at in range(0, len(ordered), _TOGETHER):
            group = ordered[at : at + _TOGETHER]
            names = ", ".join(item.variant.name for item in group)
            report(f"timing {at + len(group)} of {len(ordered)}: {names}")
            timed += self._apart(original, group, rows, batch)
        return [first, *timed]

    def _is_hopeless(self, item: Measured) -> bool:
        """Whether it loses too much, with all the luck of its interval."""
        return item.loss is not None and item.loss.low > self.budget

    def _alone(self, original: Measured, rows: Rows) -> Measured:
        """The original at a row, and at the batch size at which it answers the most a second."""
        name = original.variant.name
        with self._group([original], rows) as (workers, paths):
            single = time_together(workers, name, paths, self.fixed or 1, twin=_TWIN)[name]
            bulk = None if self.fixed else self._best_batch(workers[name], paths[name])
        return replace(original, single=single, bulk=bulk)

    def _best_batch(self, worker: Worker, rows: Path) -> Times | None:
        name = worker.variant.name
        best: Times | None = None
        for batch in BATCHES:
            try:
                found = time_together(
                    {name: worker}, name, {name: rows}, batch, rounds=_TRIAL_ROUNDS
                )
            except EngineError:
                break
            if best is not None and found[name].throughput < best.throughput:
                break
            best = found[name]
            if best.p50 > _LONG:
                break
        return best

    def _apart(
        self, original: Measured, group: Sequence[Measured], rows: Rows, batch: int
    ) -> list[Measured]:
        """A group with its times; when one fails, each one on its own."""
        try:
            return self._together(original, group, rows, batch)
        except EngineError as error:
            if len(group) == 1:
                return [replace(group[0], failed=error.line)]
            parts = [self._apart(original, [item], rows, batch) for item in group]
            return [item for found in parts for item in found]

    def _together(
        self, original: Measured, group: Sequence[Measured], rows: Rows, batch: int
    ) -> list[Measured]:
        """A group with its times, against those of the original."""
        name = original.variant.name
        rounds = _FEWER_ROUNDS if all(map(self._is_hopeless, group)) else _ROUNDS
        with self._group([original, *group], rows) as (workers, paths):
            single, bulk = (
                time_together(workers, name, paths, size, twin=_TWIN, rounds=rounds) if size else {}
                for size in (self.fixed or 1, batch)
            )
            bulk = bulk | self._many(workers, name, paths)
        return [
            replace(item, single=single[item.variant.name], bulk=bulk.get(item.variant.name))
            for item in group
        ]

    def _many(
        self, workers: Mapping[str, Worker], original: str, rows: Mapping[str, Path]
    ) -> dict[str, Times]:
        """Times of variants on other engines than the original's, for many rows at once."""
        engine = workers[original].variant.engine
        others = [name for name, one in workers.items() if one.variant.engine != engine]
        if not others or self.fixed:
            return {}
        timed = {name: workers[name] for name in (original, _TWIN, *others)}
        found = time_together(timed, original, rows, MANY, twin=_TWIN)
        return {name: found[name] for name in others}

    def _batch(self, variant: Variant) -> int:
        """Rows per execution while answers are collected.

        What answers to many rows is judged by many: to few it is ONNX Runtime that answers.
        """
        return self.fixed or (_BATCH if variant.engine == BARE_FILE_ENGINE else MANY)

    @contextmanager
    def _group(
        self, group: Sequence[Measured], rows: Rows
    ) -> Iterator[tuple[dict[str, Worker], dict[str, Path]]]:
        with ExitStack() as stack:
            folder = stack.enter_context(self._folder())
            paths = _saved(group, rows, folder)
            variants = {item.variant.name: item.variant for item in group}
            variants[_TWIN] = group[0].variant
            workers = {
                name: stack.enter_context(self._worker(variant, folder))
                for name, variant in variants.items()
            }
            yield workers, {**paths, _TWIN: paths[group[0].variant.name]}

    def _worker(self, variant: Variant, folder: Path) -> Worker:
        return Worker(variant, self.threads, folder, cores=self.cores)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
            yield Path(folder)


def _saved(group: Sequence[Measured], rows: Rows, folder: Path) -> dict[str, Path]:
    """The inputs of each variant; those without processing of their own share a file."""
    shared = folder / "rows"
    save_rows(shared, rows.inputs(group[0].variant))
    paths: dict[str, Path] = {}
    for index, item in enumerate(group):
        paths[item.variant.name] = shared
        if item.variant.files:
            paths[item.variant.name] = folder / f"rows-{index}"
            save_rows(paths[item.variant.name], rows.inputs(item.variant))
    return paths


def _finite(decided: Any) -> bool:
    arrays = decided.values() if isinstance(decided, Mapping) else [decided]
    return all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in arrays)
