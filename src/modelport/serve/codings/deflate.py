"""``deflate``: a zlib stream (RFC 1950), as RFC 9110 §8.4.1.2 says; not bare deflate."""

from __future__ import annotations

import zlib
from typing import Final

from modelport.serve.members import too_large

#: The fastest: the time is the server's.
_LEVEL: Final = 1


class DeflateCoding:
    """See `modelport.serve.compression.Coding`."""

    names = ("deflate",)

    def decode(self, body: bytes, limit: int) -> bytes:
        """See the protocol."""
        stream = zlib.decompressobj()
        result = stream.decompress(body, limit + 1)
        if len(result) > limit:
            raise too_large(limit)
        if not stream.eof:
            raise EOFError("it is cut off")
        if stream.unused_data:
            raise ValueError("there are bytes behind its end")
        return result

    def encode(self, body: bytes) -> bytes:
        """See the protocol."""
        return zlib.compress(body, _LEVEL)
