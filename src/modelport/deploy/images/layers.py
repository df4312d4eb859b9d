"""Layers: the same files give the same bytes, whoever packs them, where and when.

A layer is a tar archive of sorted entries that belong to root, with times of zero and modes of
0644 or 0755: every user can read them, as AWS Lambda and OpenShift need, which choose a user of
their own.

Source: https://github.com/opencontainers/image-spec/blob/v1.1.0/layer.md.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, cast

from modelport.core.errors import InputError

GZIP_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"

#: Beyond 6, layers of compiled code take twice the time and are one percent smaller.
_LEVEL: Final = 6


@dataclass(frozen=True)
class Entry:
    """One file or symbolic link of a layer.

    Parameters
    ----------
    path : str
        Without a leading ``/``.
    content : bytes or Path
        Its bytes, or a file that has them.
    executable : bool
    link : str
        What it points to; then it has no content.
    """

    path: str
    content: bytes | Path = b""
    executable: bool = False
    link: str = ""


@dataclass(frozen=True)
class Layer:
    """A layer on disk.

    Parameters
    ----------
    path : Path
        The compressed archive.
    digest : str
        ``sha256:…`` of it.
    diff_id : str
        ``sha256:…`` of the archive before compression.
    size : int
        Bytes, compressed.
    unpacked : int
        Bytes of the archive before compression.
    media_type : str
    """

    path: Path
    digest: str
    diff_id: str
    size: int
    unpacked: int
    media_type: str = GZIP_LAYER

    @property
    def descriptor(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


class _Hashing:
    """Passes bytes on, and knows their digest and number."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def write_layer(path: Path, entries: Iterable[Entry]) -> Layer:
    """Pack entries into a gzipped tar archive.

    Folders are added by themselves.

    Parameters
    ----------
    path : Path
        The archive to write.
    entries : iterable of Entry
        In any order; paths are unique.

    Raises
    ------
    InputError
        When two entries have the same path.
    """
    with path.open("wb") as file:
        outer = _Hashing(file)
        # No name and no time in gzip's header.
        with gzip.GzipFile("", "wb", _LEVEL, cast("IO[bytes]", outer), mtime=0) as compressed:
            inner = _Hashing(cast("IO[bytes]", compressed))
            write_tar(cast("IO[bytes]", inner), entries)
    return Layer(path, outer.digest, inner.digest, outer.size, inner.size)


def write_tar(file: IO[bytes], entries: Iterable[Entry]) -> None:
    """Write a tar archive: folders before what is in them, all in order.

    Raises
    ------
    InputError
        When two entries have the same path.
    """
    by_path: dict[str, Entry] = {}
    folders: set[str] = set()
    for entry in entries:
        if entry.path in by_path:
            raise InputError(f"two files of the image have the same path: {entry.path}")
        by_path[entry.path] = entry
        folders |= {str(parent) for parent in PurePosixPath(entry.path).parents} - {"."}
    if both := sorted(folders & by_path.keys()):
        raise InputError(f"a path of the image is a file and a folder: {both[0]}")
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted({*by_path, *folders}):
            if path in folders:
                archive.addfile(_info(path, tarfile.DIRTYPE, 0o755))
            else:
                _add(archive, by_path[path])


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    if entry.link:
        info = _info(entry.path, tarfile.SYMTYPE, 0o777)
        info.linkname = entry.link
        archive.addfile(info)
        return
    info = _info(entry.path, tarfile.REGTYPE, 0o755 if entry.executable else 0o644)
    if isinstance(entry.content, bytes):
        info.size = len(entry.content)
        archive.addfile(info, BytesIO(entry.content))
        return
    with entry.content.open("rb") as source:
        info.size = source.seek(0, 2)
        source.seek(0)
        archive.addfile(info, source)


def _info(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type = kind
    info.mode = mode
    info.uname = info.gname = ""
    return info
