"""What the kernel tells about a tree of processes: its members, processor time and memory."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_POLICIES: Final = {os.SCHED_OTHER: "other", os.SCHED_BATCH: "batch"}


@dataclass(frozen=True)
class Memory:
    """Resident memory in bytes.

    Parameters
    ----------
    rss : int
        The sum over the processes; pages that several share count several times.
    pss : int
        The same with shared pages divided among those who share them.
    """

    rss: int
    pss: int


def tree(root: int) -> list[int]:
    """The process `root`, its descendants, and whoever else is in its session."""
    parents: dict[int, int] = {}
    members = {root}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
            if int(fields[3]) == root:
                members.add(int(entry.name))
    while found := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= found
    return sorted(pid for pid in members if pid in parents)


def started(root: int) -> set[tuple[int, int]]:
    """The tree as (process, its start time): together they name a process for ever."""
    found = ((pid, _stat(pid)) for pid in tree(root))
    return {(pid, int(fields[19])) for pid, fields in found if fields}


def is_running(pid: int, since: int) -> bool:
    """Whether the process that was started then still runs."""
    fields = _stat(pid)
    return bool(fields) and int(fields[19]) == since and fields[0] != "Z"


def processor_seconds(root: int) -> float:
    """User and system time of the tree, with that of children who ended and were waited for."""
    # proc(5): utime, stime, cutime and cstime are the fields 14 to 17, counted from 1.
    ticks = sum(int(value) for pid in tree(root) for value in _stat(pid)[11:15])
    return ticks / _TICKS_PER_SECOND


def core_seconds(core: int) -> float:
    """Time that a core was not idle since boot, whoever used it; the hypervisor's share too."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _waiting, interrupts, soft, steal = map(int, fields[:8])
            return (user + nice + system + interrupts + soft + steal) / _TICKS_PER_SECOND
    raise ValueError(f"no such core: {core}")


def memory(root: int) -> Memory:
    """Resident memory of the tree."""
    rss = pss = 0
    for pid in tree(root):
        try:
            rss += _kibibytes(Path(f"/proc/{pid}/status"), "VmRSS:")
            pss += _kibibytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")
        except OSError:  # it ended meanwhile
            continue
    return Memory(rss * 1024, pss * 1024)


def policy(root: int) -> str:
    """The scheduling policy of the tree's threads: ``other``, ``batch`` or ``mixed``."""
    policies: Counter[str] = Counter()
    for pid in tree(root):
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                number = os.sched_getscheduler(int(task.name))
                policies[_POLICIES.get(number, str(number))] += 1
        except OSError:  # it ended meanwhile
            continue
    return next(iter(policies)) if len(policies) == 1 else "mixed"


def _stat(pid: int) -> list[str]:
    """The fields of proc(5)'s stat file from the third on; none when the process has ended."""
    try:
        # The second is the name in parentheses, and may hold spaces and parentheses itself.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _kibibytes(path: Path, key: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0  # a process that is ending has no memory left to tell of
