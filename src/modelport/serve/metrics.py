"""Counters that cost nanoseconds, in memory that all workers share.

One anonymous shared mapping holds a row of numbers per worker. A worker only ever writes its
own row, and any worker answers ``/metrics`` with the sum over all, in the Prometheus text
format 0.0.4.
"""

from __future__ import annotations

import mmap
import os
import resource
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from modelport.serve.base import ModelSpec

#: Upper bounds of the latency histogram, in seconds.
BUCKETS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10,
)  # fmt: skip

#: Statuses counted on their own; any other is counted as ``other``.
CODES: Final = (200, 400, 401, 404, 405, 408, 409, 413, 415, 431, 500, 501, 503, 504)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_ITEM: Final = 8


#: Batch sizes beyond so many different ones are not told apart.
_MOST_SIZES: Final = 128


class ModelCounters:
    """Numbers of one model version in one worker, written by one thread.

    Parameters
    ----------
    numbers : memoryview of float
        Of float64, `SIZE` long: requests by code, buckets, then one number each.
    """

    _BUCKET: Final = len(CODES) + 1
    SECONDS: Final = _BUCKET + len(BUCKETS) + 1
    EXECUTIONS: Final = SECONDS + 1
    ROWS: Final = SECONDS + 2
    IN_FLIGHT: Final = SECONDS + 3
    READY: Final = SECONDS + 4
    #: Of answered requests: seconds until decoded, in the queue and the model, and to encode.
    INPUT_SECONDS: Final = SECONDS + 5
    WAIT_SECONDS: Final = SECONDS + 6
    OUTPUT_SECONDS: Final = SECONDS + 7
    #: Seconds of the executions, once for every request that shared them.
    INFER_SECONDS: Final = SECONDS + 8
    #: When the last request was answered, in Unix seconds.
    LAST: Final = SECONDS + 9
    SIZE: Final = SECONDS + 10

    def __init__(self, numbers: memoryview[float]) -> None:
        self.numbers = numbers
        self._code_index = {code: index for index, code in enumerate(CODES)}
        #: Rows → executions and their seconds, of this worker.
        self.batches: dict[int, list[float]] = {}

    def started(self) -> None:
        """A request has begun."""
        self.numbers[self.IN_FLIGHT] += 1

    def answered(
        self, status: int, seconds: float, waited: float = 0.0, encoded: float = 0.0
    ) -> None:
        """Count the answer to a request that `started`, and the time it took.

        Parameters
        ----------
        status : int
        seconds : float
            From the whole request read to its answer encoded.
        waited, encoded : float
            Of these: in the queue and the model; to encode the answer.
        """
        numbers = self.numbers
        numbers[self.IN_FLIGHT] -= 1
        numbers[self._code_index.get(status, len(CODES))] += 1
        numbers[self._BUCKET + bisect_left(BUCKETS, seconds)] += 1
        numbers[self.SECONDS] += seconds
        if waited:
            numbers[self.INPUT_SECONDS] += seconds - waited - encoded
            numbers[self.WAIT_SECONDS] += waited
            numbers[self.OUTPUT_SECONDS] += encoded
            numbers[self.LAST] = time.time()

    def executed(self, rows: int, requests: int, seconds: float) -> None:
        """Count one execution of the model."""
        numbers = self.numbers
        numbers[self.EXECUTIONS] += 1
        numbers[self.ROWS] += rows
        numbers[self.INFER_SECONDS] += seconds * requests
        batch = self.batches.get(rows)
        if batch is None and len(self.batches) < _MOST_SIZES:
            batch = self.batches[rows] = [0.0, 0.0]
        if batch is not None:
            batch[0] += 1
            batch[1] += seconds

    def set_ready(self, ready: bool) -> None:
        """Say whether this worker can answer for the model."""
        self.numbers[self.READY] = float(ready)


class SharedCounters(ModelCounters):
    """The same for threads that write at once."""

    def __init__(self, numbers: memoryview[float]) -> None:
        super().__init__(numbers)
        self._lock = threading.Lock()

    def started(self) -> None:
        """See `ModelCounters`."""
        with self._lock:
            super().started()

    def answered(
        self, status: int, seconds: float, waited: float = 0.0, encoded: float = 0.0
    ) -> None:
        """See `ModelCounters`."""
        with self._lock:
            super().answered(status, seconds, waited, encoded)

    def executed(self, rows: int, requests: int, seconds: float) -> None:
        """See `ModelCounters`."""
        with self._lock:
            super().executed(rows, requests, seconds)


class Metrics:
    """All counters of a server.

    Every worker has two rows of numbers: one that its event loop writes, and one that its other
    threads share.

    Parameters
    ----------
    labels : sequence of str
        Rendered label sets, one per model version, such as ``model="digits",version="3"``.
        Index 0 is for requests that reach no model.
    workers : int
    """

    def __init__(self, labels: Sequence[str], workers: int) -> None:
        #: None: a model that was removed.
        self._labels: list[str | None] = list(labels)
        self._workers = workers
        self._fixed = len(labels)
        self._row = len(labels) * ModelCounters.SIZE
        # Anonymous and shared: workers that are forked later see the same pages.
        size = max(1, self._row * workers * 2) * _ITEM
        self._memory = memoryview(mmap.mmap(-1, size)).cast("d")
        #: Numbers of models that came later; there is one worker then.
        self._added: list[memoryview[float]] = []
        self._adding = threading.Lock()
        self._worker = 0
        self._started = time.time()

    def enter_worker(self, worker: int) -> None:
        """Say which worker this process is, and forget what its predecessor left undone.

        Readiness stays: a worker that replaces another listens only when it has loaded.
        """
        self._worker = worker
        for model in range(len(self._labels)):
            for numbers in self._rows(worker, model):
                numbers[ModelCounters.IN_FLIGHT] = 0.0

    def add(self, labels: str) -> int:
        """Make room for one more model, or find the room that it had; only in a lone worker."""
        with self._adding:  # models of different names are loaded at once
            if labels in self._labels:
                return self._labels.index(labels)
            self._added.append(memoryview(bytearray(2 * ModelCounters.SIZE * _ITEM)).cast("d"))
            self._labels.append(labels)
            return len(self._labels) - 1

    def remove(self, index: int) -> None:
        """Show a model no more."""
        self._labels[index] = None

    def model(self, index: int) -> tuple[ModelCounters, SharedCounters]:
        """Counters in this worker of the model with that index: the loop's, and the threads'."""
        loop, threads = self._rows(self._worker, index)
        return ModelCounters(loop), SharedCounters(threads)

    def ready_everywhere(self, index: int) -> bool:
        """Whether every worker can answer for the model."""
        return all(
            self._rows(worker, index)[0][ModelCounters.READY] for worker in range(self._workers)
        )

    def _rows(self, worker: int, model: int) -> list[memoryview[float]]:
        size = ModelCounters.SIZE
        if model >= self._fixed:
            added = self._added[model - self._fixed]
            return [added[:size], added[size:]]
        starts = [(2 * worker + part) * self._row + model * size for part in (0, 1)]
        return [self._memory[start : start + size] for start in starts]

    def render(self) -> bytes:
        """The exposition, summed over workers."""
        models = [
            (labels, self.summed(index))
            for index, labels in enumerate(self._labels)
            if labels is not None
        ]
        lines: list[str] = []
        for lines_of in (_requests, _latencies, _executions, self._gauges):
            lines.extend(lines_of(models))
        lines.extend(self._process())
        return ("\n".join(lines) + "\n").encode()

    def summed(self, model: int) -> list[float]:
        """The numbers of one model, summed over workers and threads (`LAST`: the latest)."""
        rows = [row for worker in range(self._workers) for row in self._rows(worker, model)]
        sums = [sum(values) for values in zip(*rows, strict=True)]
        sums[ModelCounters.LAST] = max(row[ModelCounters.LAST] for row in rows)
        return sums

    def _gauges(self, models: Sequence[tuple[str, list[float]]]) -> Iterator[str]:
        yield from _head("modelport_requests_in_flight", "gauge", "Requests being answered now.")
        for labels, numbers in models:
            yield f"modelport_requests_in_flight{{{labels}}} {numbers[ModelCounters.IN_FLIGHT]:g}"
        yield from _head("modelport_model_ready", "gauge", "1 when every worker can answer.")
        for index, shown in enumerate(self._labels[1:], start=1):
            if shown is not None:
                yield f"modelport_model_ready{{{shown}}} {int(self.ready_everywhere(index))}"

    def _process(self) -> Iterator[str]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield from _head("process_cpu_seconds_total", "counter", "CPU time of this worker.")
        yield f"process_cpu_seconds_total {usage.ru_utime + usage.ru_stime:.3f}"
        yield from _head("process_resident_memory_bytes", "gauge", "Memory of this worker.")
        yield f"process_resident_memory_bytes {_resident_bytes(usage.ru_maxrss)}"
        yield from _head("process_start_time_seconds", "gauge", "Start, in Unix seconds.")
        yield f"process_start_time_seconds {self._started:.3f}"


def metrics_of(models: Sequence[ModelSpec], workers: int) -> Metrics:
    """Counters for these models, which have the indices from 1."""
    labels = ['model="",version=""', *(model_labels(m.name, m.version) for m in models)]
    return Metrics(labels, workers)


def model_labels(name: str, version: int) -> str:
    """Labels of one model version, escaped as the format asks."""
    escaped = name.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'model="{escaped}",version="{version}"'


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _requests(models: Sequence[tuple[str, list[float]]]) -> Iterator[str]:
    yield from _head("modelport_requests_total", "counter", "Answers by HTTP status.")
    for labels, numbers in models:
        for code, count in zip((*CODES, "other"), numbers, strict=False):
            if count:
                yield f'modelport_requests_total{{{labels},code="{code}"}} {count:.0f}'


def _latencies(models: Sequence[tuple[str, list[float]]]) -> Iterator[str]:
    name = "modelport_request_duration_seconds"
    yield from _head(name, "histogram", "From the whole request read to its answer encoded.")
    first, last = ModelCounters._BUCKET, ModelCounters.SECONDS
    for labels, numbers in models:
        counts = list(accumulate(numbers[first:last]))
        for bound, count in zip((*BUCKETS, "+Inf"), counts, strict=True):
            yield f'{name}_bucket{{{labels},le="{bound}"}} {count:.0f}'
        yield f"{name}_sum{{{labels}}} {numbers[last]:.9f}"
        yield f"{name}_count{{{labels}}} {counts[-1]:.0f}"


def _executions(models: Sequence[tuple[str, list[float]]]) -> Iterator[str]:
    for name, text, index in (
        ("modelport_executions_total", "Executions of the model.", ModelCounters.EXECUTIONS),
        ("modelport_rows_total", "Rows in those executions.", ModelCounters.ROWS),
    ):
        yield from _head(name, "counter", text)
        for labels, numbers in models[1:]:
            yield f"{name}{{{labels}}} {numbers[index]:.0f}"


def _resident_bytes(peak_kib: int) -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # not Linux: the peak is the nearest that there is
        return peak_kib * 1024
