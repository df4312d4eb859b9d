"""What is in the layers of a base image."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, cast

from modelport.core.errors import IntegrityError

_PYTHON: Final = re.compile(r"(?:.*/)?s?bin/python3\.(\d+)")
_OLDEST: Final = 11
_LIBC: Final = re.compile(r"(?:usr/)?lib(?:64)?/(?:[\w-]+/)?libc(?:\.so\.6|-2\.\d+\.so)")
_LIBC_VERSION: Final = re.compile(rb"stable release version (\d+)\.(\d+)")
_DEBIAN: Final = "var/lib/dpkg/status"
_RELEASE: Final = ("etc/os-release", "usr/lib/os-release")

#: In the names of the cached findings: another number when `_Findings` changes.
_FORMAT: Final = 2


@dataclass(frozen=True)
class Findings:
    """What one layer has of what matters.

    Parameters
    ----------
    pythons : list of str
        Paths of interpreters, without a leading ``/``.
    glibc : list of int
        Its version; empty: not in this layer.
    packages : list of list of str or None
        Debian packages: name, version, architecture; None: not in this layer.
    removed : list of str
        Paths that this layer takes away.
    system : str
        ``debian-12``; empty: not in this layer.
    """

    pythons: list[str] = field(default_factory=list)
    glibc: list[int] = field(default_factory=list)
    packages: list[list[str]] | None = None
    removed: list[str] = field(default_factory=list)
    system: str = ""


@dataclass(frozen=True)
class Contents:
    """What matters of all layers.

    Parameters
    ----------
    python : str
        The interpreter's absolute path; empty: there is none.
    version : str
        Of the interpreter: ``3.11``.
    glibc : tuple of int
    packages : tuple
        Debian packages: name, version, architecture.
    system : str
        ``debian-12``, ``ubuntu-24.04``; empty: it does not say.
    """

    python: str
    version: str
    glibc: tuple[int, ...]
    packages: tuple[tuple[str, ...], ...]
    system: str = ""

    @classmethod
    def stacked(cls, layers: Sequence[Findings], search_path: Sequence[str]) -> Contents:
        """Layers upon each other, the last on top; the first Python of the path counts."""
        pythons: set[str] = set()
        glibc: list[int] = []
        packages: list[list[str]] = []
        system = ""
        for layer in layers:
            gone = ["" if path == "." else f"{path}/" for path in layer.removed]
            pythons = {p for p in pythons if not any(f"{p}/".startswith(g) for g in gone)}
            pythons |= set(layer.pythons)
            glibc = layer.glibc or glibc
            system = layer.system or system
            packages = packages if layer.packages is None else layer.packages
        for folder in search_path:
            here = [p for p in pythons if str(PurePosixPath("/", p).parent) == folder]
            if here:
                newest = max(here, key=_minor)
                version = f"3.{_minor(newest)}"
                found = tuple(tuple(package) for package in packages)
                return cls(f"/{newest}", version, tuple(glibc), found, system)
        return cls("", "", tuple(glibc), (), system)


class _Hashing:
    """Passes on what is read, and knows its digest."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        return data

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def look_into(path: Path, diff_id: str, cache: Path) -> Findings:
    """Read a layer once, and remember what was found.

    Parameters
    ----------
    path : Path
        A tar archive, with or without gzip.
    diff_id : str
        The digest of the archive without gzip.
    cache : Path

    Raises
    ------
    IntegrityError
        When the archive cannot be read, or is not what `diff_id` says.
    """
    known = cache / f"{diff_id.removeprefix('sha256:')}.{path.name}.{_FORMAT}.json"
    try:
        return Findings(**json.loads(known.read_bytes()))
    except (OSError, ValueError, TypeError):
        pass
    try:
        findings = _read(path, diff_id)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise IntegrityError(f"a base layer cannot be read: {error}", where=str(path)) from error
    cache.mkdir(parents=True, exist_ok=True)
    beside = known.with_suffix(".new")
    beside.write_text(json.dumps(asdict(findings)))
    beside.replace(known)
    return findings


def _read(path: Path, diff_id: str) -> Findings:
    findings = Findings()
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        inner = _Hashing(cast("IO[bytes]", gzip.GzipFile(fileobj=file) if is_gzip else file))
        with tarfile.open(fileobj=cast("Any", inner), mode="r|") as archive:
            for member in archive:
                findings = _noted(findings, archive, member)
        while inner.read(1 << 20):  # what pads the archive belongs to the digest
            pass
    if inner.digest != diff_id:
        raise IntegrityError(
            f"a base layer has the digest {inner.digest}, not {diff_id}", where=str(path)
        )
    return findings


def _noted(findings: Findings, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Findings:
    """The findings with those of one entry."""
    path = PurePosixPath(member.name)
    name = str(path).removeprefix("/")
    python = _PYTHON.fullmatch(name)
    if python and int(python[1]) >= _OLDEST and not member.isdir():
        return replace(findings, pythons=[*findings.pythons, name])
    if path.name.startswith(".wh."):
        return replace(findings, removed=[*findings.removed, _removed(PurePosixPath(name))])
    if not member.isfile():
        return findings
    if _LIBC.fullmatch(name):
        found = _LIBC_VERSION.search(_content(archive, member))
        return replace(findings, glibc=[int(found[1]), int(found[2])]) if found else findings
    if name == _DEBIAN:
        return replace(findings, packages=_debian_packages(_content(archive, member)))
    if name in _RELEASE:
        return replace(findings, system=_system(_content(archive, member)))
    return findings


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""


def _system(release: bytes) -> str:
    """What ``os-release`` says: ``ID`` and ``VERSION_ID``."""
    lines = release.decode("utf-8", "replace").splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    told = (fields.get(key, "").strip("\"'") for key in ("ID", "VERSION_ID"))
    return "-".join(filter(None, told))


def _removed(path: PurePosixPath) -> str:
    """What a whiteout takes away: a path, or all of a folder (``.wh..wh..opq``)."""
    if path.name == ".wh..wh..opq":
        return str(path.parent)
    return str(path.parent / path.name.removeprefix(".wh."))


def _debian_packages(status: bytes) -> list[list[str]]:
    packages = []
    for paragraph in status.decode("utf-8", "replace").split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in paragraph.splitlines()
            if ": " in line and not line.startswith(" ")
        )
        if fields.get("Status", "").endswith(" installed"):
            packages.append([fields["Package"], fields["Version"], fields["Architecture"]])
    return sorted(packages)


def _minor(python: str) -> int:
    return int(python.rpartition(".")[2])
