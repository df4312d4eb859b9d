"""Times `session.run` without any server: the floor that servers are compared with.

Started as a program of its own, pinned like the servers: ``python raw.py MODEL SECONDS``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from models import INPUT, OUTPUT, Model, open_session
from server import BenchmarkError, pinned

_WARM_UP: Final = 0.2


@dataclass(frozen=True)
class RawTiming:
    """How long one execution of one row takes.

    Parameters
    ----------
    executions : int
        How many were timed, one after the other.
    seconds : float
        How long that took.
    processor_microseconds : float
        User and system time of one, on average.
    p50, p99 : float
        Percentiles of the wall time of one, in microseconds.
    """

    executions: int
    seconds: float
    processor_microseconds: float
    p50: float
    p99: float


def measure(model: Model, seconds: float, core: int, scheduler: str) -> RawTiming:
    """Time the model in a fresh process."""
    command = [sys.executable, __file__, str(model.path), str(seconds)]
    done = subprocess.run(
        pinned(command, core, scheduler),
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    if done.returncode:
        raise BenchmarkError(f"raw onnxruntime failed:\n{done.stderr}")
    document: dict[str, Any] = json.loads(done.stdout)
    return RawTiming(**document)


def _time_here(path: Path, seconds: float) -> RawTiming:
    session = open_session(path)
    shape = [1, *session.get_inputs()[0].shape[1:]]
    feed = {INPUT: np.random.default_rng(0).random(shape, dtype=np.float32)}
    run, outputs, now = session.run, [OUTPUT], time.perf_counter_ns
    deadline = now() + int(_WARM_UP * 1e9)
    while now() < deadline:
        run(outputs, feed)
    laps: list[int] = []
    lap = laps.append
    processor = time.process_time_ns()
    start = before = now()
    deadline = start + int(seconds * 1e9)
    while before < deadline:
        run(outputs, feed)
        after = now()
        lap(after - before)
        before = after
    processor = time.process_time_ns() - processor
    p50, p99 = np.percentile(laps, [50, 99]) / 1e3
    return RawTiming(
        len(laps), (before - start) / 1e9, processor / len(laps) / 1e3, float(p50), float(p99)
    )


if __name__ == "__main__":
    print(json.dumps(asdict(_time_here(Path(sys.argv[1]), float(sys.argv[2])))))
