"""Zip archives, read so that no two readers can see different things in one.

Models in a zip archive are read by several libraries: Python's ``zipfile``, PyTorch's C++ reader,
NumPy, Keras. They find a member by the archive's directory, by its local header, or by searching
for marks, and an archive can be made to show each of them another content (*polyglots*). What
passes here has one reading only: members stand one after another from the first byte on, each
under one name, and the directory ends the file. Sizes are bounded before anything is unpacked.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from modelport.core.errors import InputError, LimitError, UnsupportedError
from modelport.scan.base import Finding

MAGIC: Final = b"PK\x03\x04"
MOST_MEMBERS: Final = 100_000
#: Any archive may grow to this size; beyond it the growth is bounded as well.
FREE_SIZE = 256 << 20
MOST_GROWTH: Final = 200
MOST_SIZE: Final = 16 << 30

_LOCAL: Final = struct.Struct("<4s5H3L2H")
_END_MARK: Final = b"PK\x05\x06"
_END_SIZE: Final = 22
_ZIP64_ENDS: Final = 56 + 20
# Data descriptors: with or without a mark, with sizes of 4 or of 8 bytes.
_DESCRIPTOR_SIZES: Final = frozenset({12, 16, 20, 24})
_ENCRYPTED, _DESCRIBED = 0x1, 0x8
_SYMBOLIC_LINK: Final = 0xA  # the file type in the upper bits of Unix's mode
_MOST_COMMENT: Final = 256
_DRIVE = re.compile(r"[A-Za-z]:")
_READABLE: Final = frozenset(
    {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
)
_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class ZipArchive:
    """An archive whose structure was checked.

    Parameters
    ----------
    names : tuple of str
        All members in the order of the archive's directory, folders too.
    sizes : dict of str to int
        The unpacked size of each file in it; folders are left out.
    findings : tuple of Finding
        What is wrong with its structure. Nothing may be read from an archive that has any.
    """

    names: tuple[str, ...]
    sizes: dict[str, int]
    findings: tuple[Finding, ...]
    _read: Callable[[str], bytes]
    _where: str

    def read(self, name: str) -> bytes:
        """A member's content, checked against its checksum.

        Raises
        ------
        InputError
            When it is damaged, or is not there.
        """
        try:
            return self._read(name)
        except KeyError:
            raise InputError(f"the archive has no {name}", where=self._where) from None
        except _ERRORS as error:
            raise InputError(
                f"the archive's member {name!r} is damaged: {error}",
                where=self._where,
                hint="save or download the file again",
            ) from error

    def lower_case(self) -> ZipArchive:
        """The same archive for readers to whom upper and lower case are one.

        Names that differ in nothing else are a finding.
        """
        originals = {name.lower(): name for name in self.names}
        findings = list(self.findings)
        if len(originals) != len(self.names):
            kept = set(originals.values())
            findings += [
                member_finding(name, "another member's name differs in its case only")
                for name in self.names
                if name not in kept
            ]
        return ZipArchive(
            tuple(originals),
            {name.lower(): size for name, size in self.sizes.items()},
            tuple(findings),
            lambda name: self._read(originals[name]),
            self._where,
        )

    def check_all(self) -> None:
        """Read every member once, so that damage anywhere shows now.

        Raises
        ------
        InputError
        """
        for name in self.sizes:
            self.read(name)


def member_names(content: bytes) -> list[str]:
    """The names in an archive's directory; none when it is no archive, or damaged."""
    if not content.startswith(MAGIC):
        return []
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.namelist()
    except _ERRORS:
        return []


def open_zip(content: bytes, where: str) -> ZipArchive:
    """Check an archive's structure without unpacking anything.

    Raises
    ------
    InputError
        When it is damaged or truncated.
    LimitError
        When it would grow beyond all bounds.
    UnsupportedError
        When it is encrypted, or packed in a way that cannot be unpacked.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        members = archive.infolist()
        findings = _structure(content, archive, members)
    except _ERRORS as error:
        raise InputError(
            f"the zip archive is damaged or truncated: {error}",
            where=where,
            hint="save or download the file again",
        ) from error
    if len(members) > MOST_MEMBERS:
        raise LimitError(f"the archive has more than {MOST_MEMBERS} members", where=where)
    most = min(max(FREE_SIZE, MOST_GROWTH * len(content)), MOST_SIZE)
    if sum(member.file_size for member in members) > most:
        raise LimitError(f"the archive grows to more than {most} bytes", where=where)
    for member in members:
        if member.flag_bits & _ENCRYPTED or member.compress_type not in _READABLE:
            raise UnsupportedError(
                f"the archive's member {member.filename!r} is encrypted or packed in a way that "
                "cannot be unpacked",
                where=where,
                hint="write the archive without a password",
            )
    sizes = {member.filename: member.file_size for member in members if not member.is_dir()}
    names = tuple(member.filename for member in members)
    return ZipArchive(names, sizes, tuple(findings), archive.read, where)


def name_problem(name: str) -> str:
    """Why a member's name is refused; empty for a plain relative path."""
    if name.startswith("/") or _DRIVE.match(name):
        return "an absolute path"
    if ".." in name.split("/"):
        return "it leaves the archive"
    if "\\" in name or not name.isprintable() or not name:
        return "not a plain name"
    return ""


def member_finding(name: str, why: str) -> Finding:
    """A finding about one member of an archive."""
    return Finding("file", repr(name), "archive", why)


def _structure(
    content: bytes, archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]
) -> list[Finding]:
    findings = []
    seen: set[str] = set()
    for member in members:
        why = name_problem(member.orig_filename)
        if not why and member.filename in seen:
            why = "there are two members of this name"
        if not why and member.external_attr >> 28 == _SYMBOLIC_LINK:
            why = "a symbolic link"
        if not why:
            why = _header_problem(content, member)
        if why:
            findings.append(member_finding(member.filename, why))
        seen.add(member.filename)
    if not findings:
        findings += [
            Finding("file", "the zip archive", "archive", why)
            for why in (_gaps(content, archive, members), _end_problem(content, archive))
            if why
        ]
    return findings


def _header_problem(content: bytes, member: zipfile.ZipInfo) -> str:
    """Why a local header is refused; empty when it says what the directory says."""
    name, flags, method, packed, size = _local_header(content, member)
    if name != member.orig_filename.encode("utf-8" if flags & 0x800 else "cp437", "replace"):
        return "called otherwise in its local header"
    if method != member.compress_type or (flags ^ member.flag_bits) & _ENCRYPTED:
        return "packed otherwise in its local header"
    # Larger members have their sizes in an extra field, and streamed ones behind their data.
    for local, listed in ((packed, member.compress_size), (size, member.file_size)):
        if local not in (listed, 0xFFFFFFFF) and not (flags & _DESCRIBED and local == 0):
            return "of another size in its local header"
    return ""


def _local_header(content: bytes, member: zipfile.ZipInfo) -> tuple[bytes, int, int, int, int]:
    start = member.header_offset
    fields = _LOCAL.unpack_from(content, start)
    if fields[0] != MAGIC:
        raise zipfile.BadZipFile(f"{member.filename!r} has no local header")
    begin = start + _LOCAL.size
    return content[begin : begin + fields[9]], fields[2], fields[3], fields[7], fields[8]


def _gaps(content: bytes, archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> str:
    """Why the places of the members are refused; empty when they follow each other."""
    position = 0
    ordered = sorted(members, key=lambda member: member.header_offset)
    for member, following in zip(ordered, [*ordered[1:], None], strict=True):
        if member.header_offset != position:
            return f"bytes before {member.filename!r} belong to no member"
        fields = _LOCAL.unpack_from(content, position)
        end = position + _LOCAL.size + fields[9] + fields[10] + member.compress_size
        position = following.header_offset if following else archive.start_dir
        gap = position - end
        if gap and not (fields[2] & _DESCRIBED and gap in _DESCRIPTOR_SIZES):
            return f"bytes after {member.filename!r} belong to no member"
    return ""


def _end_problem(content: bytes, archive: zipfile.ZipFile) -> str:
    """Why the end of the archive is refused; empty when the directory ends the file."""
    if len(archive.comment) > _MOST_COMMENT or b"PK" in archive.comment:
        return "something is hidden in its comment"
    end = len(content) - _END_SIZE - len(archive.comment)
    if content[end : end + 4] != _END_MARK:
        return "bytes follow its directory"
    (size,) = struct.unpack_from("<L", content, end + 12)
    between = end - archive.start_dir - size
    # PyTorch and Java write the 64-bit records always, and the size in them where it is large.
    if between not in (0, _ZIP64_ENDS) and size != 0xFFFFFFFF:
        return "its directory is not where it says"
    return ""
