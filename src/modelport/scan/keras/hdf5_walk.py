"""The walk through an HDF5 file, in a process of its own: see `modelport.scan.keras.hdf5`.

The content stays in memory, no link is followed but those inside the file, and no dataset is
read: HDF5 opens what a dataset refers to only then.
"""

from __future__ import annotations

import json
import sys
from math import prod
from typing import Any, Final

import h5py

from modelport.core.errors import LimitError
from modelport.scan.base import Finding

MOST_OBJECTS: Final = 1_000_000
MOST_DEPTH: Final = 200
#: Any file may hold arrays of this many bytes in all; beyond it growth is bounded as well.
FREE_SIZE: Final = 256 << 20
MOST_GROWTH: Final = 200
_MOST_FINDINGS: Final = 100

# What is compiled into the library and h5py. Any other makes HDF5 load libraries from a folder.
_FILTERS: Final = frozenset(
    {
        h5py.h5z.FILTER_DEFLATE,
        h5py.h5z.FILTER_SHUFFLE,
        h5py.h5z.FILTER_FLETCHER32,
        h5py.h5z.FILTER_SZIP,
        h5py.h5z.FILTER_NBIT,
        h5py.h5z.FILTER_SCALEOFFSET,
        h5py.h5z.FILTER_LZF,
    }
)
# What h5py raises for files that are none.
_DAMAGE: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,
)


class Walk:
    """Walk a file; the findings and the root's attributes remain.

    Parameters
    ----------
    content : bytes

    Attributes
    ----------
    findings : list of Finding
    attributes : dict of str to str
        The root's attributes that are one text.
    others : list of str
        The names of the root's other attributes.
    datasets : int
    damage : str
        Why it cannot be read to its end.

    Raises
    ------
    LimitError
        When its arrays are far larger than the file.
    """

    def __init__(self, content: bytes) -> None:
        self.findings: list[Finding] = []
        self.attributes: dict[str, str] = {}
        self.others: list[str] = []
        self.datasets = 0
        self.damage = ""
        self._size = 0
        self._most = max(FREE_SIZE, MOST_GROWTH * len(content))
        try:
            with _opened(content) as file:
                self._read_attributes(file)
                self._walk(file.id)
        except _DAMAGE as error:
            self.damage = str(error).splitlines()[0] if str(error) else type(error).__name__

    def to_json(self) -> dict[str, Any]:
        """What remains, in plain form."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "attributes": self.attributes,
            "others": self.others,
            "datasets": self.datasets,
            "damage": self.damage,
        }

    def _read_attributes(self, file: Any) -> None:
        """Read the texts among the root's attributes: Keras' configuration is there."""
        for name in file.attrs:
            if not isinstance(name, str):
                raise ValueError("an attribute's name is not text")
            attribute = h5py.h5a.open(file.id, name.encode())
            if attribute.shape != () or attribute.get_type().get_class() != h5py.h5t.STRING:
                self.others.append(name)
                continue
            value = file.attrs[name]
            self.attributes[name] = value if isinstance(value, str) else bytes(value).decode()

    def _walk(self, root: Any) -> None:
        """Visit every object once; iterative, since groups may be nested and linked in circles."""
        seen = set()
        waiting: list[tuple[Any, str, int]] = [(root, "", 0)]
        while waiting:
            node, path, depth = waiting.pop()
            info = h5py.h5o.get_info(node)
            if (info.fileno, info.addr) in seen:
                continue
            seen.add((info.fileno, info.addr))
            if len(seen) > MOST_OBJECTS or depth > MOST_DEPTH:
                raise LimitError(
                    f"it has more than {MOST_OBJECTS} objects, or more than {MOST_DEPTH} levels"
                )
            if isinstance(node, h5py.h5g.GroupID):
                for name in node:
                    child = self._child(node, name, f"{path}/{name.decode(errors='replace')}")
                    if child is not None:
                        at = f"{path}/{name.decode(errors='replace')}"
                        waiting.append((child, at, depth + 1))
            elif isinstance(node, h5py.h5d.DatasetID):
                self._dataset(node, path)

    def _child(self, group: Any, name: bytes, path: str) -> Any:
        kind = group.links.get_info(name).type
        if kind == h5py.h5l.TYPE_HARD:
            return h5py.h5o.open(group, name)
        if kind == h5py.h5l.TYPE_SOFT:
            target = group.links.get_val(name).decode(errors="replace")
            self._note(repr(target), path, "a soft link, which no model file has")
        elif kind == h5py.h5l.TYPE_EXTERNAL:
            file, inside = group.links.get_val(name)
            target = f"{file.decode(errors='replace')}:{inside.decode(errors='replace')}"
            self._note(repr(target), path, "a link into another file")
        else:
            self._note(path, path, "a link of a kind that only a program can follow")
        return None

    def _dataset(self, dataset: Any, path: str) -> None:
        self.datasets += 1
        plan = dataset.get_create_plist()
        for number in range(plan.get_external_count()):
            name = plan.get_external(number)[0].decode(errors="replace")
            self._note(repr(name), path, "its numbers are in another file")
        if plan.get_layout() == h5py.h5d.VIRTUAL:
            for number in range(plan.get_virtual_count()):
                name = plan.get_virtual_filename(number)
                self._note(repr(name), path, "its numbers are in other datasets (virtual)")
            return
        for number in range(plan.get_nfilters()):
            code = plan.get_filter(number)[0]
            if code not in _FILTERS:
                self._note(f"filter {code}", path, "HDF5 would load a library for it")
        if plan.get_external_count():
            return
        kind = dataset.get_type()
        self._size += prod(dataset.shape or ()) * kind.get_size()
        if self._size > self._most:
            raise LimitError(f"its arrays are larger than {self._most} bytes")

    def _note(self, what: str, path: str, why: str) -> None:
        if len(self.findings) < _MOST_FINDINGS:
            self.findings.append(Finding("file", what, path or "/", why))


def _opened(content: bytes) -> Any:
    """The file in memory; its name stands for nothing on the disk."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(backing_store=False)
    access.set_file_image(content)
    return h5py.File(h5py.h5f.open(b"model", h5py.h5f.ACC_RDONLY, fapl=access))


def main() -> None:
    """Read a file from the standard input, and write what is in it as JSON."""
    try:
        found = Walk(sys.stdin.buffer.read()).to_json()
    except LimitError as error:
        found = {"limit": error.message}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
