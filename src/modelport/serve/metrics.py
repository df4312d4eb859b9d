"""Counters that cost nanoseconds, in memory that all workers share.

One anonymous shared mapping holds a row of numbers per worker. A worker only ever writes its
own row, and any worker answers ``/metrics`` with the sum over all, in the Prometheus text
format 0.0.4.
"""

from __future__ import annotations

import mmap
import os
import resource
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

#: Upper bounds of the latency histogram, in seconds.
BUCKETS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10,
)  # fmt: skip

#: Statuses counted on their own; any other is counted as ``other``.
CODES: Final = (200, 400, 404, 405, 409, 413, 500, 501, 503)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_ITEM: Final = 8


class ModelCounters:
    """Numbers of one model version in one worker.

    Parameters
    ----------
    numbers : memoryview of float
        Of float64, `SIZE` long: requests by code, buckets, sum of seconds, executions, rows,
        in flight, ready.
    """

    SIZE: Final = len(CODES) + 1 + len(BUCKETS) + 1 + 1 + 2 + 1 + 1

    _BUCKET: Final = len(CODES) + 1
    _SECONDS: Final = _BUCKET + len(BUCKETS) + 1
    _EXECUTIONS: Final = _SECONDS + 1
    _ROWS: Final = _EXECUTIONS + 1
    _IN_FLIGHT: Final = _ROWS + 1
    _READY: Final = _IN_FLIGHT + 1

    def __init__(self, numbers: memoryview[float]) -> None:
        self._numbers = numbers
        self._code_index = {code: index for index, code in enumerate(CODES)}

    def started(self) -> None:
        """A request has begun."""
        self._numbers[self._IN_FLIGHT] += 1

    def answered(self, status: int, seconds: float) -> None:
        """Count the answer to a request that `started`, and the time it took."""
        numbers = self._numbers
        numbers[self._IN_FLIGHT] -= 1
        numbers[self._code_index.get(status, len(CODES))] += 1
        numbers[self._BUCKET + bisect_left(BUCKETS, seconds)] += 1
        numbers[self._SECONDS] += seconds

    def executed(self, rows: int) -> None:
        """Count one execution of the model."""
        self._numbers[self._EXECUTIONS] += 1
        self._numbers[self._ROWS] += rows

    def set_ready(self, ready: bool) -> None:
        """Say whether this worker can answer for the model."""
        self._numbers[self._READY] = float(ready)


class Metrics:
    """All counters of a server.

    Parameters
    ----------
    labels : sequence of str
        Rendered label sets, one per model version, such as ``model="digits",version="3"``.
        Index 0 is for requests that reach no model.
    workers : int
    """

    def __init__(self, labels: Sequence[str], workers: int) -> None:
        self._labels = list(labels)
        self._workers = workers
        self._row = len(labels) * ModelCounters.SIZE
        # Anonymous and shared: workers that are forked later see the same pages.
        self._memory = memoryview(mmap.mmap(-1, max(1, self._row * workers) * _ITEM)).cast("d")
        self._worker = 0
        self._started = time.time()

    def enter_worker(self, worker: int) -> None:
        """Say which worker this process is, and forget what its predecessor left undone.

        Readiness stays: a worker that replaces another listens only when it has loaded.
        """
        self._worker = worker
        for model in range(len(self._labels)):
            self._slice(worker, model)[ModelCounters._IN_FLIGHT] = 0.0

    def model(self, index: int) -> ModelCounters:
        """Counters in this worker of the model with that index."""
        return ModelCounters(self._slice(self._worker, index))

    def ready_everywhere(self, index: int) -> bool:
        """Whether every worker can answer for the model."""
        return all(
            self._slice(worker, index)[ModelCounters._READY] for worker in range(self._workers)
        )

    def _slice(self, worker: int, model: int) -> memoryview[float]:
        start = worker * self._row + model * ModelCounters.SIZE
        return self._memory[start : start + ModelCounters.SIZE]

    def render(self) -> bytes:
        """The exposition, summed over workers."""
        models = [(label, self._summed(index)) for index, label in enumerate(self._labels)]
        lines: list[str] = []
        for lines_of in (_requests, _latencies, _executions, self._gauges):
            lines.extend(lines_of(models))
        lines.extend(self._process())
        return ("\n".join(lines) + "\n").encode()

    def _summed(self, model: int) -> list[float]:
        rows = (self._slice(worker, model) for worker in range(self._workers))
        return [sum(values) for values in zip(*rows, strict=True)]

    def _gauges(self, models: Sequence[tuple[str, list[float]]]) -> Iterator[str]:
        yield from _head("modelport_requests_in_flight", "gauge", "Requests being answered now.")
        for labels, numbers in models:
            yield f"modelport_requests_in_flight{{{labels}}} {numbers[ModelCounters._IN_FLIGHT]:g}"
        yield from _head("modelport_model_ready", "gauge", "1 when every worker can answer.")
        for index, (labels, _) in enumerate(models[1:], start=1):
            yield f"modelport_model_ready{{{labels}}} {int(self.ready_everywhere(index))}"

    def _process(self) -> Iterator[str]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield from _head("process_cpu_seconds_total", "counter", "CPU time of this worker.")
        yield f"process_cpu_seconds_total {usage.ru_utime + usage.ru_stime:.3f}"
        yield from _head("process_resident_memory_bytes", "gauge", "Memory of this worker.")
        yield f"process_resident_memory_bytes {_resident_bytes(usage.ru_maxrss)}"
        yield from _head("process_start_time_seconds", "gauge", "Start, in Unix seconds.")
        yield f"process_start_time_seconds {self._started:.3f}"


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
    first, last = ModelCounters._BUCKET, ModelCounters._SECONDS
    for labels, numbers in models:
        counts = list(accumulate(numbers[first:last]))
        for bound, count in zip((*BUCKETS, "+Inf"), counts, strict=True):
            yield f'{name}_bucket{{{labels},le="{bound}"}} {count:.0f}'
        yield f"{name}_sum{{{labels}}} {numbers[last]:.9f}"
        yield f"{name}_count{{{labels}}} {counts[-1]:.0f}"


def _executions(models: Sequence[tuple[str, list[float]]]) -> Iterator[str]:
    for name, text, index in (
        ("modelport_executions_total", "Executions of the model.", ModelCounters._EXECUTIONS),
        ("modelport_rows_total", "Rows in those executions.", ModelCounters._ROWS),
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
