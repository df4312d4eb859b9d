"""The other end of `modelport.optimize.measure.worker`: one process per variant."""

from __future__ import annotations

import contextlib
import json
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
from modelport.optimize.measure.worker import BUSY, NAMES

_LAST_WORDS: Final = 500
_END_SECONDS: Final = 5.0


def save_rows(folder: Path, rows: Tensors) -> None:
    """Write inputs where workers read them: a file for each, which may be mapped to memory.

    Texts are JSON: as NumPy has them, each would take as much as the longest.
    """
    folder.mkdir()
    for index, array in enumerate(rows.values()):
        if array.dtype.kind in "OU":
            document = {"shape": array.shape, "texts": [str(text) for text in array.flat]}
            (folder / f"{index}.json").write_text(json.dumps(document), encoding="utf-8")
        else:
            np.save(folder / f"{index}.npy", array)
    (folder / NAMES).write_text(json.dumps(list(rows)))


class Worker:
    """A variant in a process of its own, on one core, at the settings of a server.

    Parameters
    ----------
    variant : Variant
    threads : int
    folder : Path
        Where its files stand until it ends.
    cores : set of int
        On which it may run; empty: on all.
    seconds : float
        How long it may be silent; while it answers rows it says every second that it does.

    Raises
    ------
    EngineError
        When the engine cannot load the variant, with the engine's message.
    """

    def __init__(
        self,
        variant: Variant,
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
                # -P: nothing is imported from the folder that people happen to be in.
                sys.executable, "-P", "-m", "modelport.optimize.measure.worker",
                variant.engine, str(model), str(threads), ",".join(map(str, cores or ())),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )  # fmt: skip
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
        """Bytes that it had taken once it had answered the first rows, or after it was loaded."""
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
        if line == BUSY:
            return self._read()
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
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        words = lines[-1][-_LAST_WORDS:] if lines else ""
        why = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = "a process that is killed has usually taken too much memory" if code == -9 else ""
        return EngineError(
            f"the process ended with {why}" + (f": {words}" if words else ""),
            where=self.variant.name,
            hint=hint,
        )
