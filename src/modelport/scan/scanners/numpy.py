"""``.npy`` and ``.npz``: arrays, which may hold pickled objects.

Arrays are not models, so that no framework takes them; the scan tells whether they are safe.
"""

from __future__ import annotations

import ast
import re
from typing import Any, Final

import numpy as np

from modelport.core.errors import InputError
from modelport.core.source import Source
from modelport.scan.archives.zip_archive import member_finding, member_names, open_zip
from modelport.scan.base import Finding, ScanReport
from modelport.scan.pickles.damage import DAMAGE, say
from modelport.scan.pickles.dry_unpickler import DryUnpickler
from modelport.scan.pickles.dtypes import element_count
from modelport.scan.pickles.log import Abandoned, Log
from modelport.scan.pickles.reader import Reader

_MAGIC: Final = b"\x93NUMPY"
_MOST_HEADER: Final = 1 << 20
_MEMBER = re.compile(r"[^/]+(/[^/]+)*\.npy")


class NumpyScanner:
    """Reads the header of each array, and the pickle of each array of objects."""

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Scanner.recognises`."""
        if source.content.startswith(_MAGIC):
            return True
        names = member_names(source.content)
        return bool(names) and all(_MEMBER.fullmatch(name) for name in names)

    def scan(self, source: Source) -> ScanReport:
        """See `modelport.scan.base.Scanner.scan`."""
        where = str(source.path or source.name)
        log, findings, damage = Log(), list[Finding](), ""
        if source.content.startswith(_MAGIC):
            damage = _scan_array(source.content, source.name, log, findings)
        else:
            archive = open_zip(source.content, where)
            if archive.findings:
                return ScanReport("numpy", findings=archive.findings)
            for name in archive.sizes:
                damage = damage or _scan_array(archive.read(name), name, log, findings)
        findings += log.findings
        if damage and not findings:
            raise InputError(damage, where=where, hint="save or download the file again")
        return ScanReport("numpy", tuple(log.names), tuple(findings), damage)


def _scan_array(content: bytes, name: str, log: Log, findings: list[Finding]) -> str:
    """Check one array; returns what is damaged about it."""
    reader = Reader(content)
    try:
        dtype, count = _header(reader)
    except (*DAMAGE, SyntaxError, MemoryError, RecursionError) as error:
        return f"{name} is damaged or truncated: {say(error)}"
    if not dtype.hasobject:
        left = reader.remaining - count * dtype.itemsize
        if left < 0:
            return f"{name} is truncated: {-left} bytes are missing"
        if left:
            findings.append(member_finding(name, f"{left} bytes follow the array"))
        return ""
    findings.append(Finding("array", f"the objects in {name}", "array", "they are pickled"))
    try:
        DryUnpickler(reader, log).load()
    except Abandoned:
        pass
    except DAMAGE as error:
        return f"{name} is damaged at byte {reader.position}: {say(error)}"
    return ""


def _header(reader: Reader) -> tuple[np.dtype[Any], int]:
    """Element type and count, as ``numpy.lib.format`` reads them."""
    if reader.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it is no array")
    major = reader.read(2)[0]
    if major not in (1, 2, 3):
        raise ValueError(f"version {major} does not exist")
    size = int.from_bytes(reader.read(2 if major == 1 else 4), "little")
    if size > _MOST_HEADER:
        raise ValueError("its header is too long")
    header = ast.literal_eval(reader.read(size).decode("utf-8" if major == 3 else "latin1").strip())
    if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("its header is not one that NumPy writes")
    count = element_count(header["shape"])
    if count is None or type(header["fortran_order"]) is not bool:
        raise ValueError("its shape is not one that NumPy writes")
    dtype: np.dtype[Any] = np.lib.format.descr_to_dtype(header["descr"])
    return dtype, count
