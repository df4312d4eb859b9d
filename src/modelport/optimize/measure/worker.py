"""A process that holds one variant.

``python -m modelport.optimize.measure.worker ENGINE MODEL THREADS CORES``

It loads the model as a server does, and then answers one JSON line on stdout for each on stdin::

    {"answer": "rows", "to": "answers.npz", "batch": 64}
    {"time": "rows", "batch": 1, "times": 200}
    {"load": 3}
    {"memory": true}

An answer ``{"error": "…"}`` is the engine's own message; ``busy`` comes every second before the
answer to many rows. The process ends with stdin.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelport.adapters import find_adapter
from modelport.core.errors import ModelportError
from modelport.core.tensors import Array, Tensors
from modelport.engines.base import Engine, EngineOptions, LoadedModel

#: What is said while an answer takes long.
BUSY: Final = b"busy\n"
#: Beside the arrays of a folder of rows: their names, in order.
NAMES: Final = "names.json"

#: Executions of more nanoseconds are timed by the processor's clock.
_LONG: Final = 500_000
_STATUS: Final = Path("/proc/self/status")


def main() -> None:
    """Answer requests until stdin ends."""
    name, model, threads, cores = sys.argv[1:]
    if cores:  # before the engine starts threads
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    parent = _Parent()
    try:
        engine: Engine = find_adapter("engine", name).load()
        held = _Held(engine, Path(model), EngineOptions(threads=int(threads)), parent)
    except ModelportError as error:
        parent.say({"error": error.message})
        return
    parent.say({"load": held.load_seconds})
    for line in sys.stdin:
        try:
            parent.say(held.answer(json.loads(line)))
        except ModelportError as error:
            parent.say({"error": error.message})


class _Parent:
    """Who reads stdout, which nobody else writes to: what engines print goes to stderr."""

    def __init__(self) -> None:
        self._stdout = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        self._said = time.monotonic()

    def say(self, answer: dict[str, Any]) -> None:
        """An answer."""
        self._write(json.dumps(answer).encode() + b"\n")

    def busy(self) -> None:
        """The answer takes some time."""
        if time.monotonic() - self._said > 1:
            self._write(BUSY)

    def _write(self, line: bytes) -> None:
        while line:  # a pipe may take a part
            line = line[self._stdout.write(line) or 0 :]
        self._said = time.monotonic()


class _Held:
    """A loaded model, and what can be asked about it."""

    def __init__(
        self, engine: Engine, model: Path, options: EngineOptions, parent: _Parent
    ) -> None:
        self._engine, self._model, self._options, self._parent = engine, model, options, parent
        self.load_seconds = self._load()
        self._memory = _peak_memory()
        self._ran = False

    def _load(self) -> float:
        start = time.perf_counter()
        self._loaded: LoadedModel = self._engine.load(self._model, self._options)
        return time.perf_counter() - start

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What one line asks for."""
        if "answer" in request:
            return self._answers(request["answer"], request["to"], request["batch"])
        if "time" in request:
            return self._times(request["time"], request["batch"], request["times"])
        if "load" in request:
            return {"load": min(self._load() for _ in range(request["load"]))}
        return {"memory": self._memory}

    def _answers(self, rows: str, to: str, batch: int) -> dict[str, Any]:
        inputs = _read(rows)
        count = len(next(iter(inputs.values())))
        parts = []
        for at in range(0, count, batch):
            parts.append(self._loaded.run(_batch(inputs, at, batch)))
            if not self._ran:  # from here on, rows and answers are most of it
                self._memory, self._ran = _peak_memory(), True
            self._parent.busy()
        joined = {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}
        arrays: dict[str, Any] = {
            name: array.astype(np.str_) if array.dtype == object else array
            for name, array in joined.items()
        }
        np.savez(to, **arrays)
        return {"rows": count}

    def _times(self, rows: str, batch: int, times: int) -> dict[str, Any]:
        inputs = _read(rows)
        count = len(next(iter(inputs.values())))
        batches = [
            _batch(inputs, at, batch) for at in range(0, max(1, min(count, 8 * batch)), batch)
        ]
        run, clock = self._loaded.run, self._clock(batches[0])
        laps = []
        for index in range(times):
            ask = batches[index % len(batches)]
            start = clock()
            run(ask)
            laps.append(clock() - start)
        return {"nanoseconds": laps}

    def _clock(self, ask: Tensors) -> Callable[[], int]:
        """How executions are timed.

        On one thread both clocks tell the same on an idle machine. On a busy one an execution
        that is longer than the scheduler's slice is interrupted each time, and a shorter one
        hardly ever, which would make the faster of two variants look faster still. For the
        shortest executions asking the processor's clock itself would cost too much.
        """
        start = time.perf_counter_ns()
        self._loaded.run(ask)
        long = time.perf_counter_ns() - start > _LONG
        return time.process_time_ns if long and self._options.threads == 1 else time.perf_counter_ns


def _batch(inputs: Tensors, at: int, count: int) -> dict[str, Array]:
    """So many rows; behind the last one comes the first, since some models take no fewer."""
    found = {}
    for name, array in inputs.items():
        found[name] = np.take(array, range(at, at + count), axis=0, mode="wrap")
    return found


@cache
def _read(folder: str) -> dict[str, Array]:
    """Inputs; numbers stay on disk until they are used."""
    names = json.loads((Path(folder) / NAMES).read_text())
    return {name: _read_one(Path(folder), index) for index, name in enumerate(names)}


def _read_one(folder: Path, index: int) -> Array:
    texts = folder / f"{index}.json"
    if not texts.is_file():
        return np.asanyarray(np.load(folder / f"{index}.npy", mmap_mode="r", allow_pickle=False))
    document = json.loads(texts.read_text(encoding="utf-8"))
    return np.array(document["texts"], dtype=object).reshape(document["shape"])


def _peak_memory() -> int:
    """Bytes that were resident at the peak; 0 where the system does not tell.

    ``ru_maxrss`` is of no use: a process inherits it from whoever started it.
    """
    if not _STATUS.is_file():
        return 0
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
