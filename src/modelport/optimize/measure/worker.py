"""A process that holds one variant: ``python -m modelport.optimize.measure.worker ENGINE MODEL``.

It loads the model as a server does, and then answers one JSON line on stdout for each on stdin::

    {"answer": "rows.npz", "to": "answers.npz", "batch": 64}
    {"time": "rows.npz", "batch": 1, "times": 200}
    {"load": 3}
    {"memory": true}

An answer ``{"error": "…"}`` is the engine's own message. The process ends with stdin.
"""

from __future__ import annotations

import json
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelport.adapters import find_adapter
from modelport.core.errors import ModelportError
from modelport.core.tensors import Array
from modelport.engines.base import Engine, EngineOptions, LoadedModel

_STATUS: Final = Path("/proc/self/status")


def main() -> None:
    """Answer requests until stdin ends."""
    engine: Engine = find_adapter("engine", sys.argv[1]).load()
    model, options = Path(sys.argv[2]), EngineOptions(threads=int(sys.argv[3]))
    try:
        held = _Held(engine, model, options)
    except ModelportError as error:
        _say({"error": error.message})
        return
    _say({"load": held.load_seconds})
    for line in sys.stdin:
        try:
            _say(held.answer(json.loads(line)))
        except ModelportError as error:
            _say({"error": error.message})


class _Held:
    """A loaded model, and what can be asked about it."""

    def __init__(self, engine: Engine, model: Path, options: EngineOptions) -> None:
        self._engine, self._model, self._options = engine, model, options
        self.load_seconds = self._load()

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
        return {"memory": _peak_memory()}

    def _answers(self, rows: str, to: str, batch: int) -> dict[str, Any]:
        inputs = _read(rows)
        count = len(next(iter(inputs.values())))
        parts = [
            self._loaded.run({name: array[at : at + batch] for name, array in inputs.items()})
            for at in range(0, count, batch)
        ]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
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
            {name: np.take(array, range(at, at + batch), axis=0, mode="wrap")
             for name, array in inputs.items()}
            for at in range(0, max(1, min(count, 8 * batch)), batch)
        ]  # fmt: skip
        run, clock = self._loaded.run, time.perf_counter_ns
        laps = []
        for index in range(times):
            ask = batches[index % len(batches)]
            start = clock()
            run(ask)
            laps.append(clock() - start)
        return {"nanoseconds": laps}


@cache
def _read(path: str) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as archive:
        return {
            name: archive[name].astype(object) if archive[name].dtype.kind == "U" else archive[name]
            for name in archive.files
        }


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


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
