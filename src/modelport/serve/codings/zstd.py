"""``zstd``: RFC 8878, of which a body may have several frames."""

from __future__ import annotations

from typing import Final

import zstandard

from modelport.serve.members import read_members, too_large

#: The fastest of the ordinary ones: the time is the server's.
_LEVEL: Final = 1
#: RFC 9659: a content coding needs no larger window, and a server no more memory than this.
_WINDOW: Final = 8 * 1024 * 1024


class ZstdCoding:
    """See `modelport.serve.compression.Coding`."""

    names = ("zstd",)

    def decode(self, body: bytes, limit: int) -> bytes:
        """See the protocol."""
        try:
            size = _measure(body, limit)
            if size > limit:
                raise too_large(limit)
            return read_members(body, limit, _Frame)
        except zstandard.ZstdError as error:
            raise ValueError(error) from error

    def encode(self, body: bytes) -> bytes:
        """See the protocol."""
        compressed: bytes = zstandard.ZstdCompressor(level=_LEVEL).compress(body)
        return compressed


def _measure(body: bytes, limit: int) -> int:
    """Bytes of the result, or more than `limit`, whatever the frames announce.

    The only interface of the library that can stop in the middle; but it takes a body that is
    cut off for a whole one, so that what it reads is not the result yet.
    """
    size = 0
    with _decompressor().stream_reader(body, read_across_frames=True) as reader:
        while size <= limit and (part := reader.read(1024 * 1024)):
            size += len(part)
    return size


class _Frame:
    """One frame; `_measure` has made sure that there is not too much in it."""

    def __init__(self) -> None:
        self._stream = _decompressor().decompressobj()

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    @property
    def unused_data(self) -> bytes:
        unused: bytes = self._stream.unused_data
        return unused

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        result: bytes = self._stream.decompress(data)
        return result


def _decompressor() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(max_window_size=_WINDOW)
