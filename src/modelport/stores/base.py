"""Where bytes live. Create-if-absent is the only primitive that the registry needs.

It is what local disks, S3, GCS and Azure all offer atomically; conditional *replacement* is
not (see Ceph's ``If-Match``), so nothing here ever overwrites.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol
from urllib.parse import urlsplit

from modelport.adapters import adapters_for_suffix, adapters_of
from modelport.core.errors import UnsupportedError


class Store(Protocol):
    """Objects by key. Keys are relative paths with ``/`` between their parts."""

    @property
    def url(self) -> str:
        """Where this is, for messages."""
        ...

    def get(self, key: str) -> bytes:
        """The object's bytes.

        Raises
        ------
        NotFoundError
            When there is none.
        """
        ...

    def exists(self, key: str) -> bool:
        """Whether there is an object."""
        ...

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Create an object; readers see all of it or nothing.

        Returns
        -------
        bool
            False when the key was taken, also by a writer of the same moment.
        """
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Keys below `prefix` (a key ending in ``/``), in no particular order."""
        ...


class StoreFamily(Protocol):
    """What a store adapter does: open stores of one URL scheme."""

    def open(self, url: str) -> Store:
        """Open the store at `url`, which need not exist yet."""
        ...


def open_store(url: str) -> Store:
    """Open the store that a URL or a folder names.

    Raises
    ------
    UnsupportedError
        When no adapter answers for the scheme, listing those that do.
    """
    scheme = urlsplit(url).scheme if "://" in url else "file"
    matches = adapters_for_suffix("store", scheme)
    if not matches:
        schemes = [suffix for adapter in adapters_of("store") for suffix in adapter.suffixes]
        raise UnsupportedError(
            f"no store for {scheme}:// addresses",
            where=url,
            hint=f"a folder, or one of {', '.join(s + '://' for s in schemes)}",
        )
    family: StoreFamily = matches[0].load()
    return family.open(url)
