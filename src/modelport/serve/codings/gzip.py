"""``gzip``: RFC 1952, of which a body may have several members."""

from __future__ import annotations

import gzip
import zlib
from functools import partial
from typing import Final

from modelport.serve.members import read_members

#: The fastest: the time is the server's.
_LEVEL: Final = 1
#: zlib's way to say: the largest window, with a gzip header and trailer.
_WBITS: Final = 31


class GzipCoding:
    """See `modelport.serve.compression.Coding`."""

    names = ("gzip", "x-gzip")

    def decode(self, body: bytes, limit: int) -> bytes:
        """See the protocol."""
        return read_members(body, limit, partial(zlib.decompressobj, _WBITS))

    def encode(self, body: bytes) -> bytes:
        """See the protocol."""
        return gzip.compress(body, _LEVEL, mtime=0)
