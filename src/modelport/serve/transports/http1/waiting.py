"""A request that waits, without a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from modelport.serve.base import Response


class Waiting:
    """Runs the rest of a coroutine, whenever what it waits for is there.

    Parameters
    ----------
    answering : coroutine
        It has run up to its first ``await``.
    waits : object
        What that gave to the event loop: a future, or None.
    done : callable
        Given the answer, or what the coroutine raised.
    """

    __slots__ = ("_answering", "_done", "_waits")

    def __init__(
        self,
        answering: Coroutine[Any, Any, Response],
        waits: Any,
        done: Callable[[Response | BaseException], None],
    ) -> None:
        self._answering = answering
        self._done = done
        self._waits: asyncio.Future[Any] | None = None
        self._wait_for(waits)

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        if self._waits is not None:
            self._waits.cancel()

    def _wait_for(self, waits: Any) -> None:
        self._waits = waits
        if waits is None:
            asyncio.get_running_loop().call_soon(self._resume)
        else:
            waits._asyncio_future_blocking = False  # as asyncio's own tasks do
            waits.add_done_callback(self._resume)

    def _resume(self, _: Any = None) -> None:
        try:
            waits = self._answering.send(None)
        except StopIteration as done:
            self._done(done.value)
        except (Exception, asyncio.CancelledError) as error:
            self._done(error)
        else:
            self._wait_for(waits)
