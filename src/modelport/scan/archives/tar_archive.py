"""Tar archives, read into memory with bounds and without following anything in them."""

from __future__ import annotations

import io
import tarfile
from typing import Final

from modelport.core.errors import InputError, LimitError
from modelport.scan.archives import zip_archive
from modelport.scan.archives.zip_archive import member_finding, name_problem
from modelport.scan.base import Finding

_BLOCK: Final = tarfile.BLOCKSIZE
_ERRORS: Final = (tarfile.TarError, EOFError, OSError, ValueError, OverflowError)


def is_tar(beginning: bytes) -> bool:
    """Whether the first block is a header: the sum of its bytes is written in it."""
    try:
        tarfile.TarInfo.frombuf(beginning[:_BLOCK], "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def read_tar(content: bytes, where: str) -> tuple[dict[str, bytes], list[Finding]]:
    """All files of a tar archive by name, and what is wrong with it.

    Raises
    ------
    InputError
        When it is damaged or truncated.
    LimitError
        When it has too many members.
    """
    files: dict[str, bytes] = {}
    findings: list[Finding] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                why = _member_problem(member, name, name in files)
                if why:
                    findings.append(member_finding(name, why))
                elif member.isfile():
                    files[name] = _content(archive, member, name)
                if len(files) + len(findings) > zip_archive.MOST_MEMBERS:
                    raise LimitError("the archive has too many members", where=where)
            end = archive.offset
        if len(content) < end + _BLOCK:
            raise EOFError("it has no end")
    except _ERRORS as error:
        raise InputError(
            f"the tar archive is damaged or truncated: {error}",
            where=where,
            hint="write or download the archive again",
        ) from error
    if content[end:].strip(b"\0"):
        findings.append(Finding("file", "the tar archive", "archive", "bytes follow its end"))
    return files, findings


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> bytes:
    stream = archive.extractfile(member)
    content = stream.read() if stream else b""
    if len(content) != member.size:
        raise EOFError(f"{name!r} has {len(content)} bytes of {member.size}")
    return content


def _member_problem(member: tarfile.TarInfo, name: str, known: bool) -> str:
    """Why a member is refused; empty for a plain file or folder."""
    if member.isdir() and name in ("", "."):
        return ""
    if why := name_problem(name):
        return why
    if member.issym() or member.islnk():
        return "a link"
    if member.issparse() or not (member.isfile() or member.isdir()):
        return "neither a file nor a folder"
    return "there are two members of this name" if known else ""
