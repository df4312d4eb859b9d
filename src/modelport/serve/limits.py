"""What this process may use: from the control group, not from the host."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def usable_cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole cores that this process may use, at least 1.

    The smallest of the scheduler's affinity mask and the CPU quota of the control group
    (version 2: ``cpu.max``; version 1: ``cpu.cfs_quota_us``), rounded down.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = _quota_v2(root) or _quota_v1(root)
    return max(1, min(cores, int(quota)) if quota else cores)


def prefer_throughput() -> None:
    """Ask Linux not to let a thread that wakes up interrupt the one that runs.

    Where network threads and the threads that answer hand requests to each other, each hand-over
    is two context switches on a busy core under the default policy. Under ``SCHED_BATCH``, which
    threads started from here on inherit, they come in batches: a third to a half less CPU time
    for a small request. An idle core is not affected. A container may forbid the call; then it
    stays as it was.
    """
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def free_memory(
    root: Path = Path("/sys/fs/cgroup"), meminfo: Path = Path("/proc/meminfo")
) -> int | None:
    """Bytes that this process may still take; None where nobody tells.

    The smallest of what the machine has left (``MemAvailable``) and what the control group has
    left (version 2: ``memory.max`` − ``memory.current``; version 1: ``limit_in_bytes`` −
    ``usage_in_bytes``). Pages of files count as used there, although they can be dropped, so
    those that nobody uses (``inactive_file``) are added again.
    """
    free = [_available(meminfo), _left(root, "memory.max", "memory.current", "inactive_file")]
    version1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    free.append(_left(root / "memory", *version1))
    known = [number for number in free if number is not None]
    return min(known) if known else None


def _available(meminfo: Path) -> int | None:
    words = _words(meminfo)
    position = words.index("MemAvailable:") if "MemAvailable:" in words else -1
    return int(words[position + 1]) * 1024 if position >= 0 else None


def _left(folder: Path, limit: str, used: str, reclaimable: str) -> int | None:
    most, now = _words(folder / limit), _words(folder / used)
    if not (most and now) or most[0] == "max":
        return None
    counters = _words(folder / "memory.stat")
    position = counters.index(reclaimable) if reclaimable in counters else -1
    back = int(counters[position + 1]) if position >= 0 else 0
    return max(0, int(most[0]) - int(now[0]) + back)


def _quota_v2(root: Path) -> float | None:
    words = _words(root / "cpu.max")
    if len(words) == 2 and words[0] != "max":
        return int(words[0]) / int(words[1])
    return None


def _quota_v1(root: Path) -> float | None:
    quota = _words(root / "cpu" / "cpu.cfs_quota_us")
    period = _words(root / "cpu" / "cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        return int(quota[0]) / int(period[0])
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
