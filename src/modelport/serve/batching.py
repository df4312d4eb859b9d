"""Requests that are ready together run together; nobody waits for a timer.

A model faster than a thread hop runs on the event loop: all requests that become ready in
one turn of the loop share an execution (*tick batching*). A slower model runs on threads:
while they are busy requests queue up, and a thread that becomes free takes as many as pay.

How many pay follows from the execution time measured at load, ``a·n + b`` seconds for ``n``
rows: batching saves part of ``b`` only, so it stops where the share of ``b`` in each row's
time has fallen to `_WORTHWHILE`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from modelport.core.errors import DeadlineError, UnavailableError
from modelport.core.tensors import Array, Tensors
from modelport.serve.metrics import ModelCounters

Run = Callable[[Tensors], dict[str, Array]]

#: A hop to a thread and back costs 30–60 µs; below this a model runs on the loop.
_INLINE_SECONDS: Final = 200e-6
#: The loop is never held longer than this by one shared execution.
_TICK_SECONDS: Final = 1e-3
#: Where the fixed cost per row falls below this share, more rows do not pay.
_WORTHWHILE: Final = 0.05


@dataclass(frozen=True)
class LatencyModel:
    """Seconds that `n` rows take: ``a·n + b``.

    Parameters
    ----------
    a : float
        Seconds per further row.
    b : float
        Seconds per execution.
    """

    a: float
    b: float

    @classmethod
    def measure(cls, run: Run, one_row: Tensors) -> LatencyModel:
        """Time one row and several; the smallest of a few runs is the least disturbed."""
        run(one_row)  # the first run allocates
        single = _best_time(run, one_row, repeats=5)
        rows = 8 if single < _INLINE_SECONDS else 2
        several = {name: np.repeat(array, rows, axis=0) for name, array in one_row.items()}
        run(several)
        many = _best_time(run, several, repeats=3)
        a = max((many - single) / (rows - 1), 1e-9)
        return cls(a=a, b=max(single - a, 0.0))

    @property
    def inline(self) -> bool:
        """Whether one row is faster than a hop to a thread."""
        return self.a + self.b < _INLINE_SECONDS

    def rows_that_pay(self, limit: int) -> int:
        """How many rows are worth sharing one execution, at most `limit`."""
        worthwhile = math.ceil(self.b / (_WORTHWHILE * self.a))
        if self.inline:
            worthwhile = min(worthwhile, int((_TICK_SECONDS - self.b) / self.a))
        return max(1, min(limit, worthwhile))


def _best_time(run: Run, inputs: Tensors, repeats: int) -> float:
    best = math.inf
    for _ in range(repeats):
        started = time.perf_counter()
        run(inputs)
        best = min(best, time.perf_counter() - started)
    return best


_Shape = tuple[tuple[int, ...], ...]
#: A request in the queue: its inputs, its rows, their trailing shapes (only requests with equal
#: ones can stand in one array), and who waits. A plain tuple, for the request path.
_Waiting = tuple[dict[str, Array], int, _Shape, asyncio.Future[dict[str, Array]]]


class Batcher:
    """Runs one model for many concurrent requests.

    Parameters
    ----------
    run : callable
        Executes the model; thread-safe.
    max_rows : int
        Most rows in one shared execution; 1 when rows may not share (the model was not
        proven row-independent, or sharing does not pay).
    executor : ThreadPoolExecutor or None
        None runs the model on the event loop.
    threads : int
        How many executions may run at once on `executor`.
    same_shapes : bool
        True when the signature leaves only the number of rows open.
    max_queue : int
        Most requests waiting.
    timeout : float
        Seconds that a request may wait and run on `executor`; 0: no limit.
    counters, thread_counters : ModelCounters
        Told of every execution, on the event loop and on other threads.
    """

    def __init__(
        self,
        run: Run,
        *,
        max_rows: int,
        executor: ThreadPoolExecutor | None,
        threads: int,
        same_shapes: bool,
        max_queue: int,
        timeout: float,
        counters: ModelCounters,
        thread_counters: ModelCounters,
    ) -> None:
        self._run = run
        self._max_rows = max_rows
        self._executor = executor
        self._free = threads
        self._same_shapes = same_shapes
        self._max_queue = max_queue
        self._timeout = timeout
        self._counters = counters
        self._thread_counters = thread_counters
        #: Where `submit` is called; None until then.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: deque[_Waiting] = deque()

    @property
    def waiting(self) -> int:
        """Requests in the queue now."""
        return len(self._queue)

    @property
    def inline(self) -> bool:
        """Whether the model is so fast that it runs on the thread that asks."""
        return self._executor is None

    @property
    def immediate(self) -> bool:
        """Whether `run` answers at once, so that there is nothing to wait for."""
        return self._executor is None and self._max_rows == 1

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say in which event loop `submit` is called, so that other threads can join it."""
        self._loop = loop

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Run one request's inputs here and now, on the event loop.

        Raises
        ------
        EngineError
            When the model fails on these inputs.
        """
        return self._run_alone(inputs, self._counters)

    def run_on_thread(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Run one request's inputs from a thread that may block, perhaps together with others'.

        A fast model runs right here. A slow one joins the queue of the event loop, where there
        is one, so that the requests of all transports share its batches and its limits.

        Raises
        ------
        ModelportError
            As `submit`.
        """
        if self._executor is None or self._loop is None:
            return self._run_alone(inputs, self._thread_counters)
        return asyncio.run_coroutine_threadsafe(self._submitted(inputs), self._loop).result()

    async def _submitted(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return await self.submit(inputs)

    def _run_alone(self, inputs: dict[str, Array], counters: ModelCounters) -> dict[str, Array]:
        started = time.perf_counter()
        outputs = self._run(inputs)
        counters.executed(_rows(inputs), 1, time.perf_counter() - started)
        return outputs

    def submit(self, inputs: dict[str, Array]) -> asyncio.Future[dict[str, Array]]:
        """Run one request's inputs soon, perhaps together with others'.

        Returns
        -------
        Future
            Of the outputs, or of the `EngineError` that these inputs cause.

        Raises
        ------
        UnavailableError
            When the queue is full; `DeadlineError` when the time is over.
        """
        queue = self._queue
        if len(queue) >= self._max_queue:
            raise UnavailableError(
                f"{len(queue)} requests are waiting already", hint="retry later, or add workers"
            )
        loop = asyncio.get_running_loop()
        shape = () if self._same_shapes else tuple([a.shape[1:] for a in inputs.values()])
        future: asyncio.Future[dict[str, Array]] = loop.create_future()
        queue.append((inputs, _rows(inputs), shape, future))
        if self._executor is not None:
            if self._timeout:
                timer = loop.call_later(self._timeout, _expire, future, self._timeout)
                future.add_done_callback(lambda _: timer.cancel())
            self._dispatch(self._executor)
        elif len(queue) == 1:
            # Whatever else becomes ready in this turn of the loop is in the queue by then.
            loop.call_soon(self._tick)
        return future

    def _tick(self) -> None:
        while self._queue:
            group = self._take()
            self._deliver(group, *_attempt(self._run, group))

    def _dispatch(self, executor: ThreadPoolExecutor) -> None:
        """Start executions while threads are free and requests wait."""
        loop = asyncio.get_running_loop()
        while self._free and self._queue:
            group = self._take()
            if not group:
                continue
            self._free -= 1
            job = loop.run_in_executor(executor, _attempt, self._run, group)
            job.add_done_callback(partial(self._finished, executor, group))

    def _finished(
        self,
        executor: ThreadPoolExecutor,
        group: list[_Waiting],
        job: asyncio.Future[_Outcome],
    ) -> None:
        self._free += 1
        self._dispatch(executor)
        self._deliver(group, *job.result())

    def _take(self) -> list[_Waiting]:
        """Requests from the head of the queue that can share one execution."""
        queue = self._queue
        group: list[_Waiting] = []
        room, first = self._max_rows, None
        while queue:
            _, rows, shape, future = queue[0]
            if group and (rows > room or shape != first):
                break
            member = queue.popleft()
            if future.done():  # the client went away
                continue
            if not group:
                first = shape
            room -= rows
            group.append(member)
        return group

    def _deliver(
        self,
        group: list[_Waiting],
        outputs: dict[str, Array] | None,
        error: Exception | None,
        seconds: float,
    ) -> None:
        if outputs is not None:
            self._share_out(group, outputs, seconds)
        elif len(group) == 1:
            ((_, _, _, future),) = group
            if error is not None and not future.done():
                future.set_exception(error)
        else:
            # One request's rows failed the whole batch: each answers for itself.
            for member in group:
                self._retry([member])

    def _retry(self, alone: list[_Waiting]) -> None:
        """Run one request of a failed batch where the batch ran: a slow model holds no loop."""
        if self._executor is None:
            self._deliver(alone, *_attempt(self._run, alone))
            return
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(self._executor, _attempt, self._run, alone)
        job.add_done_callback(lambda done: self._deliver(alone, *done.result()))

    def _share_out(self, group: list[_Waiting], outputs: dict[str, Array], seconds: float) -> None:
        """Give every request of a batch its own rows."""
        if len(group) == 1:
            ((_, rows, _, future),) = group
            if not future.done():
                future.set_result(outputs)
            self._counters.executed(rows, 1, seconds)
            return
        start = 0
        for _, rows, _, future in group:
            stop = start + rows
            if not future.done():
                future.set_result({name: array[start:stop] for name, array in outputs.items()})
            start = stop
        self._counters.executed(start, len(group), seconds)


#: Outputs or an error, and the seconds that it took.
_Outcome = tuple[dict[str, Array] | None, Exception | None, float]


def _attempt(run: Run, group: list[_Waiting]) -> _Outcome:
    started = time.perf_counter()
    try:
        if not group:
            return None, None, 0.0
        inputs = group[0][0]
        if len(group) > 1:
            inputs = {
                name: np.concatenate([member[0][name] for member in group]) for name in inputs
            }
        return run(inputs), None, time.perf_counter() - started
    except Exception as error:  # also a defect is told to those who wait, or they wait for ever
        return None, error, 0.0


def _rows(inputs: Tensors) -> int:
    shape = next(iter(inputs.values())).shape
    return shape[0] if shape else 1


def _expire(future: asyncio.Future[dict[str, Array]], seconds: float) -> None:
    if not future.done():
        future.set_exception(DeadlineError(f"no answer within {seconds:g} s", hint="see --timeout"))
