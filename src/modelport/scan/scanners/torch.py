"""PyTorch's files: ``torch.save``, old and new, TorchScript, and ``torch.export.save``.

Written against PyTorch 2.13: ``torch/serialization.py``, ``torch/export/pt2_archive/_package.py``
and ``torch/csrc/jit/serialization``. PyTorch itself is not needed.
"""

from __future__ import annotations

import re
from typing import Final

from modelport.core.errors import InputError, UnsupportedError
from modelport.core.source import Source
from modelport.core.torch_globals import LEGACY_TORCH_MAGIC
from modelport.scan.archives.zip_archive import ZipArchive, member_finding, member_names, open_zip
from modelport.scan.base import Finding, ScanReport
from modelport.scan.pickles.damage import DAMAGE, say
from modelport.scan.pickles.log import Abandoned, Log
from modelport.scan.pickles.reader import Reader
from modelport.scan.pickles.torch_calls import Storage
from modelport.scan.pickles.torch_unpickler import ScriptUnpickler, TorchUnpickler
from modelport.scan.torch.exported_program import check_document
from modelport.scan.torch.torchscript_code import check_code

_LEGACY_PICKLES: Final = 5  # magic number, version, system, the object itself, storage keys
_COMPILED: Final = (".so", ".cpp", ".cubin", ".o", ".dylib", ".dll", ".ptx", ".hsaco")
_PT2_PICKLES = re.compile(
    r"(data/(weights|constants|sample_inputs)/.+\.pt|serialized_\w+\.pt)", re.ASCII
)
_PT2_DOCUMENTS = re.compile(
    r"(models/.+|data/(weights|constants)/.+\.json|serialized_exported_program\.json)"
)
_OPAQUE: Final = "opaque_obj"
_CUSTOM_OBJECT: Final = "custom_obj"
_SUFFIX_HINT: Final = "save it again with the PyTorch that wrote it"


class TorchScanner:
    """Tells the formats apart by their members, and checks what each of them could run."""

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Scanner.recognises`."""
        return source.content.startswith(LEGACY_TORCH_MAGIC) or bool(
            torch_format(member_names(source.content))
        )

    def scan(self, source: Source) -> ScanReport:
        """See `modelport.scan.base.Scanner.scan`."""
        where = str(source.path or source.name)
        if source.content.startswith(LEGACY_TORCH_MAGIC):
            return _scan_legacy(source.content, where)
        kind = torch_format(member_names(source.content))
        # PyTorch's C++ reader finds members whatever their case is.
        archive = open_zip(source.content, where).lower_case()
        if archive.findings:
            return ScanReport(kind or "torch", findings=archive.findings)
        archive.check_all()
        scan = {"torchscript": _scan_script, "pt2": _scan_exported}.get(kind, _scan_saved)
        return scan(archive, where)


def torch_format(names: list[str]) -> str:
    """``torch``, ``torchscript`` or ``pt2`` by an archive's members; empty for none of them."""
    lower = [name.lower() for name in names]
    plain = {name.partition("/")[2] for name in lower} | set(lower)
    if "archive_format" in plain or "serialized_exported_program.json" in plain:
        return "pt2"
    # PyTorch tells TorchScript by this member as well.
    if "constants.pkl" in plain and "data.pkl" in plain:
        return "torchscript"
    return "torch" if "data.pkl" in plain else ""


def _root(archive: ZipArchive, member: str, where: str) -> str:
    """The folder that everything in a PyTorch archive is in: the first member's."""
    root = archive.names[0].partition("/")[0] + "/"
    found = [name for name in archive.sizes if name == member or name.endswith(f"/{member}")]
    if f"{root}{member}" in archive.sizes:
        return root
    if member in archive.sizes:
        return ""
    raise InputError(
        f"the archive has {found[0] if found else 'no'} {member} where PyTorch does not look",
        where=where,
        hint=_SUFFIX_HINT,
    )


def _scan_saved(archive: ZipArchive, where: str) -> ScanReport:
    """A zip file of ``torch.save``."""
    root = _root(archive, "data.pkl", where)
    log = Log()
    content = archive.read(f"{root}data.pkl")
    damage = _read_pickle(TorchUnpickler(Reader(content), log), archive, root + "data", "data.pkl")
    findings = [
        member_finding(name, "another pickle, where PyTorch writes none")
        for name in archive.sizes
        if name.endswith((".pkl", ".pickle")) and name != f"{root}data.pkl"
    ]
    return _report("torch", log, damage, where, findings=findings)


def _scan_script(archive: ZipArchive, where: str) -> ScanReport:
    """A TorchScript file: code, and pickles for PyTorch's C++ reader."""
    root = _root(archive, "data.pkl", where)
    log, findings, damage = Log(), list[Finding](), ""
    operators: dict[str, None] = {}
    for name in archive.sizes:
        member = name.removeprefix(root)
        if member in ("data.pkl", "constants.pkl"):
            folder = root + ("data" if member == "data.pkl" else "constants")
            reader = Reader(archive.read(name))
            damage = damage or _read_pickle(ScriptUnpickler(reader, log), archive, folder, member)
        elif member.startswith("code/") and member.endswith(".py"):
            called, found = check_code(archive.read(name), member, where)
            operators |= called
            findings += found
        elif member == "model.json":
            findings.append(member_finding(name, "an older format, which hides its code elsewhere"))
    return _report("torchscript", log, damage, where, tuple(operators), findings)


def _scan_exported(archive: ZipArchive, where: str) -> ScanReport:
    """A file of ``torch.export.save``: JSON documents, raw weights, some pickled parts."""
    first = "archive_format"
    root = (
        "" if "serialized_exported_program.json" in archive.sizes else _root(archive, first, where)
    )
    if root + first in archive.sizes and archive.read(root + first) != b"pt2":
        raise UnsupportedError("an archive of PyTorch of an unknown kind", where=where)
    log, findings, damage = Log(), list[Finding](), ""
    operators: dict[str, None] = {}
    for name in archive.sizes:
        member = name.removeprefix(root)
        if member.startswith("data/aotinductor/") or member.endswith(_COMPILED):
            findings.append(member_finding(member, "compiled code, which loading it would run"))
        elif member.startswith("executorch/"):
            findings.append(member_finding(member, "a program for another engine"))
        elif _PT2_DOCUMENTS.fullmatch(member):
            called, found, payloads = check_document(archive.read(name), member, where)
            operators |= called
            findings += found
            folder = name.rpartition("/")[0]
            for path, pickled in payloads.items():
                damage = damage or _read_payload(
                    archive, f"{folder}/{path}".lower(), pickled, log, findings
                )
        elif _PT2_PICKLES.fullmatch(member):
            damage = damage or _read_nested(archive, name, log, findings)
    return _report("pt2", log, damage, where, tuple(operators), findings)


def _read_payload(
    archive: ZipArchive, name: str, pickled: bool, log: Log, findings: list[Finding]
) -> str:
    """A weight or a constant: raw numbers, unless the document says otherwise."""
    base = name.rpartition("/")[2]
    if name not in archive.sizes:
        return f"{base} is missing"
    if base.startswith(_OPAQUE):
        findings.append(member_finding(base, "a Python object, pickled"))
    elif base.startswith(_CUSTOM_OBJECT):
        findings.append(member_finding(base, "an object of a compiled class"))
    elif pickled:
        return _read_nested(archive, name, log, findings)
    return ""


def _read_nested(archive: ZipArchive, name: str, log: Log, findings: list[Finding]) -> str:
    """A file of ``torch.save`` inside the archive."""
    content = archive.read(name)
    if not content:
        return ""
    inner = Source(name, path=None, content=content)
    if not TorchScanner().recognises(inner):
        findings.append(member_finding(name, "not a file of torch.save"))
        return ""
    report = TorchScanner().scan(inner)
    if report.format not in ("torch", "torch-legacy"):
        findings.append(member_finding(name, f"another model inside ({report.format})"))
    for full in report.globals:
        log.name(full)
    findings += [
        Finding(found.kind, found.what, f"{name}, {found.where}", found.why)
        for found in report.findings
    ]
    return report.damage


def _read_pickle(unpickler: TorchUnpickler, archive: ZipArchive, folder: str, member: str) -> str:
    """Read a pickle, and compare what it says of its storages with the archive."""
    try:
        unpickler.load()
    except Abandoned:
        return ""
    except DAMAGE as error:
        place = unpickler.reader.position
        return f"{member} is damaged or truncated at byte {place}: {say(error)}"
    if unpickler.reader.remaining:
        unpickler.log.note("stream", f"bytes after the end of {member}", "nothing reads them")
    for key, storage in unpickler.storages.items():
        size = archive.sizes.get(f"{folder}/{key}".lower(), -1)
        if size < storage.size:
            return f"storage {key} has {size} bytes, and {storage.size} are announced"
    return ""


def _scan_legacy(content: bytes, where: str) -> ScanReport:
    """Five pickles, then each storage: a count of its elements, and their bytes."""
    log, reader = Log(), Reader(content)
    damage = ""
    try:
        damage = _read_legacy(reader, log)
    except Abandoned:
        pass
    except DAMAGE as error:
        damage = f"damaged or truncated at byte {reader.position}: {say(error)}"
    return _report("torch-legacy", log, damage, where)


def _read_legacy(reader: Reader, log: Log) -> str:
    storages: dict[str, Storage] = {}
    keys: object = None
    for number in range(_LEGACY_PICKLES):
        unpickler = TorchUnpickler(reader, log)
        keys = unpickler.load()
        if unpickler.storages and number != _LEGACY_PICKLES - 2:
            log.note("stream", "a header", "refers to storages")
        storages |= unpickler.storages
    if type(keys) is not list:
        return "the list of its storages is no list"
    for key in map(str, keys):
        if key not in storages:
            return f"storage {key} is in the file, and nothing refers to it"
        announced, storage = int.from_bytes(reader.read(8), "little"), storages.pop(key)
        if announced * storage.element != storage.size:
            return f"storage {key} has {announced} elements, and not as many as announced"
        reader.skip(storage.size)
    if storages:
        return f"storages {', '.join(storages)} are missing"
    if reader.remaining:
        log.position = reader.position
        log.note("stream", "bytes after the end", "nothing reads them")
    return ""


def _report(
    kind: str,
    log: Log,
    damage: str,
    where: str,
    operators: tuple[str, ...] = (),
    findings: list[Finding] | None = None,
) -> ScanReport:
    every = (*log.findings, *(findings or ()))
    if damage and not every:
        raise InputError(damage, where=where, hint="save or download the file again")
    return ScanReport(kind, (*log.names, *operators), every, damage)
