"""Decompression in small bites, bounded whatever a client sends: what content codings share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from modelport.core.errors import LimitError

#: What a member leaves over is copied; in windows of this size, that stays cheap.
_WINDOW: Final = 64 * 1024
#: A body may have several compressed members, one after the other: parallel compressors write
#: one for every 64 KiB to 1 MiB. Millions of empty ones would only cost time.
_MEMBERS: Final = 4096


class Stream(Protocol):
    """A decompressor of one member: zlib's, and zstandard's through a wrapper."""

    @property
    def eof(self) -> bool:
        """Whether the member is complete."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What came behind its end."""
        ...

    def decompress(self, data: bytes, max_length: int, /) -> Any:
        """Go on, and stop at `max_length` bytes of result."""
        ...


def read_members(body: bytes, limit: int, new_stream: Callable[[], Stream]) -> bytes:
    """All members of a compressed body, one after the other.

    Parameters
    ----------
    body : bytes
    limit : int
        Most bytes of the result; nothing beyond is decompressed.
    new_stream : callable
        Makes the decompressor of the next member.

    Raises
    ------
    EOFError
        When the last member is cut off.
    LimitError
        When there would be more bytes, or there are too many members.
    """
    parts: list[bytes] = []
    size = members = 0
    stream: Stream | None = None
    for start in range(0, len(body), _WINDOW):
        window = body[start : start + _WINDOW]
        while window:
            if stream is None:
                stream = new_stream()
                members += 1
                if members > _MEMBERS:
                    raise LimitError(f"body has more than {_MEMBERS} compressed members")
            part = stream.decompress(window, limit - size + 1)
            size += len(part)
            if size > limit:
                raise too_large(limit)
            parts.append(part)
            window = b""
            if stream.eof:
                window = stream.unused_data
                stream = None
    if stream is not None:
        raise EOFError("it is cut off")
    return b"".join(parts)


def too_large(limit: int) -> LimitError:
    """The error of a body that is over the limit once it is decompressed."""
    return LimitError(f"body has more than {limit} bytes once it is decompressed: the limit")
