"""A store in a folder, on a local disk or a mounted network file system.

An object appears in one step: its bytes are written whole into ``.staging``, synced to the
disk, and hard-linked to their name, which the kernel refuses when the name is taken. Whoever
dies on the way leaves at most a temporary in ``.staging``; nothing reads those, and a later
write removes them once they are a day old.

A file system without hard links (FAT, some FUSE and SMB mounts) gets the same promise from an
exclusive lock on ``.lock`` around "is the name free? then rename". The kernel drops that lock
when its holder dies, so a crash blocks nobody.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from modelport.core.errors import InputError, NotFoundError, UnavailableError

if sys.platform != "win32":
    import fcntl

STAGING: Final = ".staging"
LOCK: Final = ".lock"

#: Age in seconds beyond which a temporary has no living writer. One that lives all the same
#: (a laptop that slept) fails to publish and can be pushed again; nothing wrong is stored.
STALE_AFTER: Final = 24 * 3600

_PART: Final = re.compile(r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]*")

#: What `link` answers where the file system, or the system's policy, has no hard links.
_NO_HARD_LINKS: Final = {
    errno.EPERM,
    errno.EACCES,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
}


class LocalStoreFamily:
    """Opens stores in folders."""

    def open(self, url: str) -> LocalStore:
        """Open the store at `url`, which need not exist yet.

        Parameters
        ----------
        url : str
            A folder, with ``~`` for the home folder, or ``file:///…`` (percent-encoded).

        Raises
        ------
        InputError
            When `url` names no local folder.
        """
        return LocalStore(_folder_of(url))


class LocalStore:
    """Objects as files below one folder.

    Parameters
    ----------
    root : Path
        Made on the first write.
    hard_links : bool
        False takes the way for file systems without hard links from the start. All writers
        of one folder must agree; where the file system has none they do so by themselves.
    """

    def __init__(self, root: Path, *, hard_links: bool = True) -> None:
        self.root = root.absolute()
        self._staging = self.root / STAGING
        self._hard_links = hard_links

    @property
    def url(self) -> str:
        """The folder."""
        return str(self.root)

    def get(self, key: str) -> bytes:
        """The object's bytes.

        Raises
        ------
        NotFoundError
            When there is none.
        UnavailableError
            When the file system refuses.
        """
        path = self._path(key)
        with self._explained("read", key):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise NotFoundError("object", key, where=self.url) from None

    def exists(self, key: str) -> bool:
        """Whether there is an object."""
        path = self._path(key)
        with self._explained("look for", key):
            return path.is_file()

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Create an object; readers see all of it or nothing, also after a crash.

        Whatever the answer, the object that has the key now is safe on the disk.

        Returns
        -------
        bool
            False when the key was taken, also by a writer of the same moment.

        Raises
        ------
        UnavailableError
            When the file system refuses: full, read-only, not permitted.
        """
        final = self._path(key)
        temporary = self._staging / secrets.token_hex(16)
        with self._explained("write", key):
            if os.path.lexists(final):
                # The writer may not have come to this yet, and ours will rely on its object.
                _sync_folder(final.parent)
                return False
            _make_folder(self._staging)
            try:
                _write(temporary, content)
                self._sweep(now=temporary.stat().st_mtime)
                _make_folder(final.parent)
                created = self._publish(temporary, final)
                _sync_folder(final.parent)
            finally:
                temporary.unlink(missing_ok=True)
        return created

    def list(self, prefix: str) -> Iterator[str]:
        """Keys below `prefix` (a key ending in ``/``, or empty for all), in no order.

        A key written while the listing runs may be missing from it, even where a later one
        is not: ask `exists` before concluding anything from a gap.
        """
        folder = self._path(prefix.removesuffix("/")) if prefix else self.root
        with self._explained("list", prefix):
            for parent, folders, files in os.walk(folder, onerror=_raise_unless_gone):
                folders[:] = [name for name in folders if not name.startswith(".")]
                base = Path(parent).relative_to(self.root)
                for name in files:
                    if not name.startswith("."):
                        yield (base / name).as_posix()

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if not all(_PART.fullmatch(part) for part in parts):
            raise InputError(
                f"not an object key: {key!r}",
                hint="a relative path without empty parts, leading dots, backslashes or colons",
            )
        return self.root.joinpath(*parts)

    def _publish(self, temporary: Path, final: Path) -> bool:
        """Give the temporary its name unless that is taken."""
        if self._hard_links:
            try:
                os.link(temporary, final)
                return True
            except FileExistsError:
                # NFS repeats a request whose answer was lost and then finds its own link.
                return os.path.samefile(temporary, final)
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
        return _rename_if_absent(temporary, final, lock=self.root / LOCK)

    def _sweep(self, now: float) -> None:
        """Remove temporaries of the dead; `now` is the file server's clock, not ours."""
        with os.scandir(self._staging) as entries:
            for entry in entries:
                # Another sweep, or its owner, may remove it first.
                with suppress(OSError):
                    if now - entry.stat(follow_symlinks=False).st_mtime > STALE_AFTER:
                        os.unlink(entry.path)

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnavailableError(
                f"cannot {verb} {key or 'the store'}: {error.strerror or error}",
                where=self.url,
                hint="check the folder's permissions, free space and mount",
            ) from error


def _folder_of(url: str) -> Path:
    text = url
    if "://" in url:
        parts = urlsplit(url)
        local = parts.scheme == "file" and parts.netloc in ("", "localhost")
        if not local or parts.query or parts.fragment:
            raise InputError(
                f"not the address of a local folder: {url}",
                hint="file:///absolute/path, with ? and # percent-encoded",
            )
        text = unquote(parts.path)
        if sys.platform == "win32":
            text = text.lstrip("/")
    if not text or "\0" in text:
        raise InputError(f"not a folder: {url!r}")
    try:
        folder = Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"there is no home folder for {url}", hint="set HOME") from error
    if folder.exists() and not folder.is_dir():
        raise InputError(f"a store is a folder, and this is a file: {folder}")
    return folder


def _write(path: Path, content: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with open(path, "xb", opener=_world_readable) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _world_readable(path: str, flags: int) -> int:
    # Objects never change, so no umask should make them writable to a group.
    return os.open(path, flags, 0o644)


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each entered durably in the one above."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Wait until a folder's entries are on the disk, where that can be asked for."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # SMB and some FUSE file systems sync entries by themselves and refuse to be asked.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _rename_if_absent(temporary: Path, final: Path, *, lock: Path) -> bool:
    """Rename without replacing, for file systems without hard links."""
    if sys.platform == "win32":
        try:
            temporary.rename(final)  # refuses a taken name by itself there
        except FileExistsError:
            return False
        return True
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.path.lexists(final):
            return False
        os.rename(temporary, final)
        return True


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
