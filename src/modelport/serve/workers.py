"""Several worker processes: started together, replaced when one dies, stopped in order.

Workers are forked before anything heavy is imported and listen on the same port with
``SO_REUSEPORT``; the kernel spreads connections among them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from modelport.core.errors import ModelportError

#: A worker that keeps dying younger than this cannot live here.
_YOUNG_SECONDS = 5.0
_YOUNG_DEATHS = 3
_PR_SET_PDEATHSIG = 1


@dataclass
class _Fleet:
    work: Callable[[int, bool], int]
    report: Callable[[str], None]
    stopping: bool = False
    exit_code: int = 0
    #: Process id → (worker number, start).
    alive: dict[int, tuple[int, float]] = field(default_factory=dict)
    #: Worker number → how often in a row it died young.
    young_deaths: dict[int, int] = field(default_factory=dict)

    def start(self, worker: int, *, again: bool = False) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _end_with(parent)
            os._exit(_be_worker(self.work, worker, again))
        self.alive[pid] = (worker, time.monotonic())

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.stopping = True
        for pid in self.alive:
            os.kill(pid, number)

    def ended(self, pid: int, status: int) -> None:
        worker, born = self.alive.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        if self.stopping:
            self.exit_code = self.exit_code or max(code, 0)
            return
        young = time.monotonic() - born < _YOUNG_SECONDS
        self.young_deaths[worker] = self.young_deaths.get(worker, 0) + 1 if young else 0
        if code > 0 or self.young_deaths[worker] >= _YOUNG_DEATHS:
            # It refused to serve, or cannot live: the others must not go on half-served.
            self.report(f"worker {worker} ended with code {code}; stopping")
            self.exit_code = code if code > 0 else 1
            self.stop()
            return
        self.report(f"worker {worker} was ended by signal {-code}; starting another")
        self.start(worker, again=True)


def supervise(
    work: Callable[[int, bool], int], workers: int, grace: float, report: Callable[[str], None]
) -> int:
    """Run `workers` processes until SIGTERM or SIGINT.

    Parameters
    ----------
    work : callable
        Given the worker's number, and whether it replaces one that died; its result is that
        process's exit code.
    workers : int
    grace : float
        Seconds between SIGTERM and SIGKILL.
    report : callable

    Returns
    -------
    int
        0 after an orderly stop, else the exit code of the first worker that failed.
    """
    fleet = _Fleet(work, report)
    watched = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
    # Signals are taken one at a time below, so that none arrives between two lines.
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    for worker in range(workers):
        fleet.start(worker)
    deadline = None
    while fleet.alive:
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        received = (
            signal.sigwaitinfo(watched) if wait is None else signal.sigtimedwait(watched, wait)
        )
        if received is None:
            fleet.stop(signal.SIGKILL)
            deadline = time.monotonic() + grace
        elif received.si_signo != signal.SIGCHLD and not fleet.stopping:
            fleet.stop()
        _reap(fleet)
        if fleet.stopping and deadline is None:
            # Workers keep the grace themselves; this is for those that do not.
            deadline = time.monotonic() + grace + 5.0
    return fleet.exit_code


def _reap(fleet: _Fleet) -> None:
    while fleet.alive:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid in fleet.alive:
            fleet.ended(pid, status)


def _end_with(parent: int) -> None:
    """Have the kernel end this process when its parent dies without a word (SIGKILL).

    A worker without a parent would hold the port, and answer for a server that is gone.
    Linux only (``man 2 prctl``); elsewhere such workers stay.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)


def _be_worker(work: Callable[[int, bool], int], worker: int, again: bool) -> int:
    """Run in the child; never returns into the parent's code."""
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    try:
        return work(worker, again)
    except ModelportError as error:
        # Whichever worker is first to refuse ends the others, so each must say why.
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except BaseException:  # the child must end here, whatever happened
        import traceback

        traceback.print_exc()
        return 1
