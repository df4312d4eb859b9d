"""HDF5 files: what reading one could make the HDF5 library open, load or allocate.

The walk uses h5py, as Keras does: a second parser would see another file than the loader. But the
library is C, and damaged files crash it or keep it for ever; so it walks in a process of its own,
and only files that it has come through reach the loader.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any, Final

from modelport.core.errors import InputError, LimitError
from modelport.scan.base import Finding

MAGIC: Final = b"\x89HDF\r\n\x1a\n"
_WALK: Final = "modelport.scan.keras.hdf5_walk"
_LEAST_SECONDS: Final = 60.0
_BYTES_PER_SECOND: Final = 1 << 20
_HEAP: Final = b"GCOL\x01\0\0\0"
_HEAP_HEADER: Final = 16
_NO_PLUGINS: Final = "::"
_USUAL_SIZES: Final = b"\x08\x08"


@dataclass(frozen=True)
class HDF5Facts:
    """What was seen in a file.

    Parameters
    ----------
    findings : tuple of Finding
    attributes : dict of str to str
        The root's attributes that are one text.
    others : frozenset of str
        The names of the root's other attributes.
    datasets : int
    damage : str
        Non-empty when the file has findings and, besides, cannot be read to its end.
    """

    findings: tuple[Finding, ...]
    attributes: dict[str, str]
    others: frozenset[str]
    datasets: int
    damage: str


def read_hdf5(content: bytes, where: str, place: str = "") -> HDF5Facts:
    """Walk a file.

    Parameters
    ----------
    content : bytes
    where : str
        The file, for errors.
    place : str
        What to call the content in findings, when it is inside that file.

    Raises
    ------
    InputError
        When it is damaged or truncated.
    LimitError
        When its arrays are far larger than the file.
    """
    title = f"the HDF5 file {place}".rstrip()
    damage = _structure_problem(content)
    found: dict[str, Any] = {"damage": damage} if damage else _walk(content)
    if "limit" in found:
        raise LimitError(f"{title} is too large: {found['limit']}", where=where)
    findings = tuple(Finding(**finding) for finding in found.get("findings", ()))
    damage = f"{title} is damaged or truncated: {found['damage']}" if found["damage"] else ""
    if damage and not findings:
        raise InputError(damage, where=where, hint="save the model again")
    return HDF5Facts(
        tuple(replace(f, where=f"{place}:{f.where}" if place else f.where) for f in findings),
        found["attributes"],
        frozenset(found["others"]),
        found["datasets"],
        damage,
    )


def _walk(content: bytes) -> dict[str, Any]:
    """What the other process says, or why it ended."""
    # Of the current folder nothing is imported: it may be where the model was downloaded.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    try:
        done = subprocess.run(  # noqa: S603 — our own module, with our own interpreter
            [sys.executable, "-P", "-m", _WALK],
            input=content,
            capture_output=True,
            timeout=max(_LEAST_SECONDS, len(content) / _BYTES_PER_SECOND),
            env={**os.environ, "PYTHONPATH": path, "HDF5_PLUGIN_PRELOAD": _NO_PLUGINS},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"damage": "HDF5 does not come to an end"}
    if done.returncode < 0:
        return {"damage": f"HDF5 crashes (signal {-done.returncode})"}
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return {"damage": said[-1] if said else f"HDF5 ends with {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _structure_problem(content: bytes) -> str:
    """What is wrong with the heaps in which texts stand; HDF5 never returns from a bad one.

    Its reader (``H5HG__cache_heap_deserialize``) goes to the next object by this one's size, and
    the free space at the end, object 0, may say that it has none.
    """
    sizes = content[13:15] if content[8:9] in (b"\0", b"\1") else content[9:11]
    if sizes != _USUAL_SIZES:
        return "it has numbers of a size that nobody writes"
    start = content.find(_HEAP)
    while start >= 0:
        end = min(start + int.from_bytes(content[start + 8 : start + 16], "little"), len(content))
        position = start + _HEAP_HEADER
        while position + _HEAP_HEADER <= end:
            size = int.from_bytes(content[position + 8 : position + 16], "little")
            if int.from_bytes(content[position : position + 2], "little"):
                size = _HEAP_HEADER + (size + 7) // 8 * 8
            elif size < _HEAP_HEADER:
                return f"the heap at byte {start} does not end"
            position += size
        start = content.find(_HEAP, start + 1)
    return ""
