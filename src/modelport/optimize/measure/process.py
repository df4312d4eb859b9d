"""The other end of `modelport.optimize.measure.worker`: one process per variant."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from modelport.core.errors import EngineError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.base import Variant

_LAST_WORDS: Final = 500
_END_SECONDS: Final = 5.0


def save_rows(path: Path, rows: Tensors) -> None:
    """Write inputs where workers read them."""
    arrays: dict[str, Any] = {
        name: array.astype(np.str_) if array.dtype == object else array
        for name, array in rows.items()
    }
    np.savez(path, **arrays)


class Worker:
    """A variant in a process of its own, on one core, at the settings of a server.

    Parameters
    ----------
    variant : Variant
    engine : str
    threads : int
    folder : Path
        Where its files stand until it ends.
    cores : set of int
        On which it may run; empty: on all.
    seconds : float
        How long one answer may take.

    Raises
    ------
    EngineError
        When the engine cannot load the variant, with the engine's message.
    """

    def __init__(
        self,
        variant: Variant,
        engine: str,
        threads: int,
        folder: Path,
        *,
        cores: set[int] | None = None,
        seconds: float = 300.0,
    ) -> None:
        self.variant = variant
        self._folder = Path(tempfile.mkdtemp(dir=folder))
        model = self._folder / "model.onnx"
        model.write_bytes(variant.model)
        self._seconds = seconds
        self._errors = (self._folder / "stderr").open("w+b")
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [
                sys.executable, "-m", "modelport.optimize.measure.worker",
                engine, str(model), str(threads),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )  # fmt: skip
        if cores:
            os.sched_setaffinity(self._process.pid, cores)
        try:
            self.load_seconds = float(self._read()["load"])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None  # noqa: S101 - it was opened with a pipe
        assert self._process.stdout is not None  # noqa: S101
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def answers(self, rows: Path, batch: int) -> dict[str, Array]:
        """What it answers to all rows."""
        to = self._folder / "answers.npz"
        self._ask({"answer": str(rows), "to": str(to), "batch": batch})
        with np.load(to, allow_pickle=False) as archive:
            return {
                name: array.astype(object) if array.dtype.kind == "U" else array
                for name, array in ((name, archive[name]) for name in archive.files)
            }

    def times(self, rows: Path, batch: int, times: int) -> Array:
        """Seconds of so many executions."""
        found = self._ask({"time": str(rows), "batch": batch, "times": times})
        return np.asarray(found["nanoseconds"], dtype=np.float64) / 1e9

    def best_load(self, times: int) -> float:
        """Seconds that loading it takes, the least of so many."""
        return float(self._ask({"load": times})["load"])

    def peak_memory(self) -> int:
        """Bytes."""
        return int(self._ask({"memory": True})["memory"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None  # noqa: S101 - it was opened with a pipe
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        return self._read()

    def _read(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - it was opened with a pipe
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(self._seconds):
                self._process.kill()
                raise EngineError(f"no answer after {self._seconds:.0f} s", where=self.variant.name)
        line = stdout.readline()
        if not line:
            raise self._ended()
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise EngineError(str(found["error"]), where=self.variant.name)
        return found

    def _ended(self) -> EngineError:
        """A process that ended by itself: of memory, or of a defect in the engine."""
        code = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip()[-_LAST_WORDS:]
        why = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = "a process that is killed has usually taken too much memory" if code == -9 else ""
        return EngineError(
            f"the process ended with {why}" + (f": {words}" if words else ""),
            where=self.variant.name,
            hint=hint,
        )
