"""Blobs between a registry and an image layout: verified, resumed, never sent twice.

Sources: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-blobs and
``#pushing-a-blob-monolithically``; the folder is
https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from modelport.core.digest import sha256_file
from modelport.core.errors import InputError, IntegrityError, PlatformError
from modelport.deploy.base import Progress
from modelport.deploy.images.descriptors import blob_path
from modelport.deploy.images.exchange import TransientError, again
from modelport.deploy.images.session import Session
from modelport.deploy.limits import amount

_CHUNK: Final = 1 << 20
_REPORT_SECONDS: Final = 1.0
_BYTES: Final = "application/octet-stream"


def download(
    session: Session, descriptor: Mapping[str, Any], blobs: Path, doing: str, report: Progress
) -> Path:
    """Bring a blob into a folder, unless it is there; what breaks off goes on where it was.

    Raises
    ------
    IntegrityError
        When its bytes are not those of its digest.
    """
    digest, size = str(descriptor["digest"]), int(descriptor["size"])
    path = blob_path(blobs, digest)
    if path.is_file() and path.stat().st_size == size and _is(path, digest):
        return path
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    meter = _Meter(doing, size, report)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        again(lambda: _fetch(session, digest, size, partial, meter), session.pause)
        if not _is(partial, digest):
            raise IntegrityError(
                f"{session.reference.name} sent other bytes than those of {digest}",
                hint="nothing was kept; try again, and mistrust what is in between",
            )
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def upload(
    session: Session,
    descriptor: Mapping[str, Any],
    blobs: Path,
    doing: str,
    report: Progress,
    *,
    other: str = "",
) -> bool:
    """Send a blob, unless the registry has it; whether it was sent.

    Parameters
    ----------
    session, descriptor, blobs, doing, report
        As for `download`.
    other : str
        A repository of the same registry that may have it: then it is not sent, either.

    Raises
    ------
    IntegrityError
        When the folder's blob is not that of its digest.
    PlatformError
        When the registry refuses it.
    """
    digest, size = str(descriptor["digest"]), int(descriptor["size"])
    path = blob_path(blobs, digest)

    def attempt() -> bool:
        # Asked again at each attempt: the answer to a whole upload may be what was lost.
        if _has(session, digest):
            report(f"{doing}: is there already")
            return False
        if not path.is_file() or path.stat().st_size != size or not _is(path, digest):
            raise IntegrityError(f"blob {digest} is missing or damaged", where=str(blobs))
        url = _begin(session, digest, other)
        if not url:
            report(f"{doing}: is in {other} already")
            return False
        _send(session, url, digest, size, path, _Meter(doing, size, report))
        return True

    return again(attempt, session.pause)


class _Meter:
    """Reports a transfer when it begins, and every second how far it is."""

    def __init__(self, doing: str, size: int, report: Progress) -> None:
        self._text = f"{doing} ({amount(size, 'bytes')})"
        self._size, self._report = size, report
        self._last = time.monotonic()
        report(self._text)

    def at(self, done: int) -> None:
        now = time.monotonic()
        if now - self._last >= _REPORT_SECONDS and self._size:
            self._last = now
            self._report(f"{self._text}: {100 * done // self._size} %")


def _is(path: Path, digest: str) -> bool:
    return f"sha256:{sha256_file(path)}" == digest


def _fetch(session: Session, digest: str, size: int, partial: Path, meter: _Meter) -> None:
    """Add to the file what it lacks."""
    have = partial.stat().st_size if partial.is_file() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with session.send("GET", session.url(f"/blobs/{digest}"), headers) as response:
        if response.status not in (200, 206):
            raise session.refuse(response, f"give blob {digest}")
        if response.status == 200 or not _starts_at(response, have):
            have = 0
        with _of_disk(partial):
            os.truncate(partial, have) if partial.is_file() else partial.touch()
        while chunk := response.read(_CHUNK):
            have += len(chunk)
            if have > size:
                raise IntegrityError(f"blob {digest} is longer than the {size} bytes declared")
            with _of_disk(partial), partial.open("ab") as file:
                file.write(chunk)
            meter.at(have)
        if response.length:
            raise TransientError(f"{session.reference.host} broke off after {have} bytes")
        if have < size:
            raise IntegrityError(f"blob {digest} has {have} bytes of the {size} declared")


@contextmanager
def _of_disk(path: Path) -> Iterator[None]:
    """Around writing while a connection is open: an error of the disk is none of the network."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _starts_at(response: HTTPResponse, have: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _has(session: Session, digest: str) -> bool:
    """Whether the registry says so; what else it says has no words: those come with the blob."""
    with session.send("HEAD", session.url(f"/blobs/{digest}")) as response:
        return response.status == 200


def _begin(session: Session, digest: str, other: str) -> str:
    """Where to send a blob; empty: the registry took it from another of its repositories."""
    mount = f"?mount={digest}&from={quote(other, safe='')}"
    for query in (mount, "") if other else ("",):
        start = session.url(f"/blobs/uploads/{query}")
        with session.send("POST", start, {"Content-Type": _BYTES}, (list, 0)) as response:
            location = response.headers.get("Location", "")
            if response.status == 202 and location:
                return session.resolve(start, location)
            if query and response.status == 201:
                return ""
            if not query:
                raise session.refuse(response, f"take blob {digest}")
    raise AssertionError(other)


def _send(session: Session, url: str, digest: str, size: int, path: Path, meter: _Meter) -> None:
    """Put a whole blob where the registry says.

    Each attempt is an upload of its own: what became of a broken one, nobody knows.
    """
    # The query that is there belongs to the registry, for example its state of the upload.
    url += f"{'&' if '?' in url else '?'}digest={digest}"
    body = (lambda: _read(path, meter), size)
    with session.send("PUT", url, {"Content-Type": _BYTES}, body) as response:
        if response.status == 404:  # another instance of the registry, which knows no such upload
            raise TransientError(f"{session.reference.registry} forgot an upload")
        if response.status not in (201, 204):
            raise session.refuse(response, f"take blob {digest}")


def _read(path: Path, meter: _Meter) -> Iterator[bytes]:
    done = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
                done += len(chunk)
                meter.at(done)
    except OSError as error:
        raise PlatformError(f"cannot read {path}: {error.strerror}") from error
