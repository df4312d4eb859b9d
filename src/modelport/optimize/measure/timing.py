"""Times of several variants, so that what slows the machine slows all of them alike.

Rounds go through all variants, each time beginning with another one; each runs for some
milliseconds, warm. A variant's speed is the median over the rounds of its time divided into the
original's of the same round, so drift of the machine cancels. With one thread, executions of more
than half a millisecond are timed by the processor's clock: see
`modelport.optimize.measure.worker`.

Two processes of one model are not equally fast: memory lies elsewhere, and that stays so in all
rounds. Where the original runs in two processes, its time is the mean of both, and intervals are
widened by as much as they differ.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from modelport.core.tensors import Array
from modelport.optimize.measure.process import Worker

_ROUND_SECONDS: Final = 0.03
_WARM_UP: Final = 3
_FEWEST: Final = 2
_MOST: Final = 400
_RESAMPLES: Final = 1000
_SEED: Final = 7


@dataclass(frozen=True)
class Times:
    """What one variant took at one batch size.

    Parameters
    ----------
    batch : int
        Rows.
    p50, p99 : float
        Seconds per execution.
    speedup : float
        How many times faster than the original: the median over the rounds.
    low, high : float
        The 95 % interval of `speedup`, of a bootstrap over the rounds, widened.
    """

    batch: int
    p50: float
    p99: float
    speedup: float
    low: float
    high: float

    @property
    def throughput(self) -> float:
        """Rows per second."""
        return self.batch / self.p50


def time_together(
    workers: Mapping[str, Worker],
    original: str,
    rows: Mapping[str, Path],
    batch: int,
    *,
    twin: str = "",
    rounds: int = 25,
    seconds: float = 30.0,
) -> dict[str, Times]:
    """Time variants beside the original.

    Parameters
    ----------
    workers : mapping of str to Worker
        By name; with the original's.
    original : str
    rows : mapping of str to Path
        Saved inputs of each.
    twin : str
        The name of another process of the original; empty: there is none.
    batch : int
    rounds : int
    seconds : float
        Ends earlier after so many, with at least three rounds.

    Returns
    -------
    dict of str to Times

    Raises
    ------
    EngineError
        When one of them fails at this batch size.
    """
    counts = {}
    for name, worker in workers.items():
        worker.times(rows[name], batch, 1)
        lap = float(np.median(worker.times(rows[name], batch, _WARM_UP)))
        counts[name] = int(np.clip(_ROUND_SECONDS / max(lap, 1e-7), _FEWEST, _MOST))
    laps: dict[str, list[Array]] = {name: [] for name in workers}
    begin = time.monotonic()
    for turn in range(rounds):
        if turn >= 3 and time.monotonic() - begin > seconds:
            break
        for name in _rotated(list(workers), turn):
            worker = workers[name]
            worker.times(rows[name], batch, 1)  # the caches are somebody else's
            laps[name].append(worker.times(rows[name], batch, counts[name]))
    of_original, beside = _medians(laps[original]), _medians(laps[twin or original])
    reference = (of_original + beside) / 2
    apart = float(np.median(of_original / beside))
    return {
        name: _summary(batch, mine, reference, max(apart, 1 / apart))
        if name != original
        else _summary(batch, mine, of_original, 1.0)
        for name, mine in laps.items()
        if name != twin
    }


def _rotated(names: Sequence[str], turn: int) -> list[str]:
    at = turn % len(names)
    return [*names[at:], *names[:at]]


def _medians(rounds: Sequence[Array]) -> Array:
    return np.array([np.median(laps) for laps in rounds])


def _summary(batch: int, mine: Sequence[Array], reference: Array, apart: float) -> Times:
    ratios = reference / _medians(mine)
    random = np.random.default_rng(_SEED)
    picks = random.integers(0, len(ratios), (_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[picks], axis=1), [2.5, 97.5])
    every = np.concatenate(mine)
    return Times(
        batch=batch,
        p50=float(np.median(every)),
        p99=float(np.percentile(every, 99)),
        speedup=float(np.median(ratios)),
        low=float(low) / apart,
        high=float(high) * apart,
    )
