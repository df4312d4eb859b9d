"""What a process and its children take, as Linux tells it. Source: ``proc(5)``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """Of a tree of processes.

    Parameters
    ----------
    memory : int
        Bytes: the sum of the resident sets at their peaks.
    seconds : float
        Processor time, of user and system.
    """

    memory: int
    seconds: float


def usage_of_tree(root: int) -> Usage | None:
    """Usage of a process and all its descendants; None when it is gone, or cannot be told."""
    parents = _parents()
    if root not in parents:
        return None
    tree = {root}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    found = [usage for pid in tree if (usage := _usage(pid)) is not None]
    if not found:
        return None
    return Usage(sum(usage.memory for usage in found), sum(usage.seconds for usage in found))


def _parents() -> dict[int, int]:
    found: dict[int, int] = {}
    if not _PROC.is_dir():
        return found
    for name in os.listdir(_PROC):
        fields = _stat(int(name)) if name.isdecimal() else None
        if fields is not None:
            found[int(name)] = int(fields[1])
    return found


def _stat(pid: int) -> list[str] | None:
    """The fields of ``/proc/PID/stat`` from the state on; the name before may hold anything."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _usage(pid: int) -> Usage | None:
    fields = _stat(pid)
    try:
        status = (_PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    peak = [line.split() for line in status.splitlines() if line.startswith("VmHWM:")]
    if fields is None or not peak:
        return None
    ticks = int(fields[11]) + int(fields[12])
    return Usage(int(peak[0][1]) * 1024, ticks / os.sysconf("SC_CLK_TCK"))
