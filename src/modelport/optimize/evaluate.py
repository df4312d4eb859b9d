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
from modelport.optimize.base import Progress, Variant
from modelport.optimize.measure.process import Worker, save_rows
from modelport.optimize.measure.timing import Times, time_together
from modelport.optimize.metrics import Judge
from modelport.optimize.significance import Loss, paired_loss

#: Batch sizes that are tried beside 1; the one with the most rows per second is reported.
BATCHES: Final = (4, 8, 16, 32, 64)
_LOADS: Final = 3
#: Variants whose processes are in memory at once, with the original's.
_TOGETHER: Final = 6
_TRIAL_ROUNDS: Final = 3


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
        One row at a time, and the batch size with the most rows per second; None: not timed.
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
    engine : str
    threads : int
    budget : float
        The loss that is accepted.
    cores : set of int
        On which the processes run.
    batch : int
        Rows per execution while answers are collected.
    batches : tuple of int
        Batch sizes that the model takes besides 1.
    """

    engine: str
    threads: int
    budget: float
    cores: set[int] = field(default_factory=set)
    batch: int = 32
    batches: tuple[int, ...] = BATCHES

    def answers(self, variant: Variant, inputs: Tensors) -> dict[str, Array]:
        """What a variant answers, in a process that has seen nothing else.

        Raises
        ------
        EngineError
            When it does not load, does not run, or takes the memory that there is.
        """
        with self._folder() as folder, self._worker(variant, folder) as worker:
            save_rows(folder / "rows.npz", inputs)
            return worker.answers(folder / "rows.npz", self.batch)

    def judge(self, variant: Variant, rows: Rows) -> Measured:
        """Its metric and its loss; its size, load time and memory."""
        size = len(variant.model) + sum(map(len, variant.files.values()))
        try:
            with self._folder() as folder, self._worker(variant, folder) as worker:
                save_rows(folder / "rows.npz", rows.inputs(variant))
                found = worker.answers(folder / "rows.npz", self.batch)
                load, memory = worker.best_load(_LOADS), worker.peak_memory()
        except EngineError as error:
            return Measured(variant, size, failed=error.line)
        decided = rows.judge.decide(rows.finish(found))
        if not _finite(decided):
            return Measured(variant, size, failed="it answers NaN or infinities")
        metric = rows.judge.score(decided, np.arange(rows.count))
        loss = _loss(rows, decided, self.budget) if variant.passes else None
        return Measured(variant, size, metric, loss, load, memory)

    def time(
        self, original: Measured, others: Sequence[Measured], rows: Rows, report: Progress
    ) -> list[Measured]:
        """The original and the others with their times, in groups that run together."""
        timed: dict[str, Measured] = {}
        for at in range(0, max(len(others), 1), _TOGETHER):
            group = [original, *others[at : at + _TOGETHER]]
            report(f"timing {', '.join(item.variant.name for item in group)}")
            with self._group(group, rows) as (workers, paths):
                name = original.variant.name
                single = time_together(workers, name, paths, 1)
                bulk = self._bulk(workers, name, paths)
            for item in group:
                mine = item.variant.name
                found = replace(item, single=single[mine], bulk=bulk.get(mine))
                timed.setdefault(mine, found)
        return [timed[item.variant.name] for item in (original, *others)]

    def _bulk(
        self, workers: Mapping[str, Worker], original: str, rows: Mapping[str, Path]
    ) -> dict[str, Times]:
        """Times at the batch size at which the original answers the most rows per second."""
        best: dict[str, Times] = {}
        chosen = 0
        for batch in self.batches:
            try:
                trial = time_together(
                    {original: workers[original]}, original, rows, batch, rounds=_TRIAL_ROUNDS
                )[original]
            except EngineError:
                break
            if chosen and trial.throughput < best[original].throughput:
                break
            best[original], chosen = trial, batch
        return time_together(workers, original, rows, chosen) if chosen else {}

    @contextmanager
    def _group(
        self, group: Sequence[Measured], rows: Rows
    ) -> Iterator[tuple[dict[str, Worker], dict[str, Path]]]:
        with ExitStack() as stack:
            folder = stack.enter_context(self._folder())
            workers = {
                item.variant.name: stack.enter_context(self._worker(item.variant, folder))
                for item in group
            }
            yield workers, _saved(group, rows, folder)

    def _worker(self, variant: Variant, folder: Path) -> Worker:
        return Worker(variant, self.engine, self.threads, folder, cores=self.cores)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
            yield Path(folder)


def _saved(group: Sequence[Measured], rows: Rows, folder: Path) -> dict[str, Path]:
    """The inputs of each variant; those without processing of their own share a file."""
    shared = folder / "rows.npz"
    save_rows(shared, rows.inputs(group[0].variant))
    paths: dict[str, Path] = {}
    for index, item in enumerate(group):
        paths[item.variant.name] = shared
        if item.variant.files:
            paths[item.variant.name] = folder / f"rows-{index}.npz"
            save_rows(paths[item.variant.name], rows.inputs(item.variant))
    return paths


def _loss(rows: Rows, decided: Any, budget: float) -> Loss:
    judge = rows.judge

    def score(chosen: Array) -> tuple[float, float]:
        return judge.score(rows.decided, chosen), judge.score(decided, chosen)

    hits = (judge.hits(rows.decided), judge.hits(decided)) if judge.share else None
    return paired_loss(score, rows.count, budget, hits=hits)


def _finite(decided: Any) -> bool:
    arrays = decided.values() if isinstance(decided, Mapping) else [decided]
    return all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in arrays)
