"""What this process may use: from the control group, not from the host."""

from __future__ import annotations

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
