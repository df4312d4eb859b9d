"""Compressed bodies, both ways, and never more than the limit of an uncompressed one.

Content codings as RFC 9110 §8.4 names them: ``gzip``, ``deflate`` (a zlib stream), and ``zstd``
where the package zstandard is installed.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final

from modelport.core.errors import InputError, LimitError, MediaTypeError
from modelport.serve.base import Response

_ZSTD: Final = find_spec("zstandard") is not None
#: Fast settings: the time is the server's.
_GZIP_LEVEL: Final = 1
_ZSTD_LEVEL: Final = 1


def decompress(body: bytes, coding: str, limit: int) -> bytes:
    """The body that a client compressed.

    Parameters
    ----------
    body : bytes
    coding : str
        The header ``Content-Encoding``.
    limit : int
        Most bytes of the result; reading stops there, however small the body is.

    Raises
    ------
    MediaTypeError
        For a coding that is not known here.
    InputError
        When the body is damaged or cut off.
    LimitError
    """
    for name in reversed([part.strip().lower() for part in coding.split(",")]):
        if name in ("", "identity"):
            continue
        decoder = _DECODERS.get(name)
        if decoder is None:
            known = ", ".join(_DECODERS)
            raise MediaTypeError(f"Content-Encoding is {name[:40]!r}; known here: {known}")
        try:
            body = decoder(body, limit)
        except (zlib.error, EOFError, ValueError) as error:
            raise InputError(f"body is not {name}: {error}") from error
    return body


def compress(response: Response, accepted: str) -> Response:
    """Compress an answer in the first coding that the client accepts and we know."""
    names = _accepted(accepted)
    for name, encoder in _ENCODERS.items():
        if name in names:
            headers = (
                *response.headers,
                ("content-encoding", name),
                ("vary", "accept-encoding"),
            )
            return Response(response.status, encoder(response.body), headers)
    return response


def _accepted(header: str) -> set[str]:
    """Codings of an ``Accept-Encoding`` header that are not ruled out by ``q=0``."""
    names = set()
    for part in header.lower().split(","):
        name, _, parameters = part.partition(";")
        if parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            names.add(name.strip())
    return names


def _inflate(wbits: int) -> Callable[[bytes, int], bytes]:
    def decode(body: bytes, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while body:  # gzip allows several members, one after the other
            stream = zlib.decompressobj(wbits)
            part = stream.decompress(body, limit - size + 1)
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            if not stream.eof:
                raise EOFError("it is cut off")
            parts.append(part)
            body = stream.unused_data
        return b"".join(parts)

    return decode


def _unzstd(body: bytes, limit: int) -> bytes:
    import zstandard

    try:
        # One byte more than the limit at most is ever written, whatever the frame announces.
        with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
            result: bytes = reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise ValueError(error) from error
    if len(result) > limit:
        raise _too_large(limit)
    return result


def _zstd(body: bytes) -> bytes:
    import zstandard

    compressed: bytes = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(body)
    return compressed


def _too_large(limit: int) -> LimitError:
    return LimitError(f"body has more than {limit} bytes once it is decompressed: the limit")


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _inflate(31),
    "deflate": _inflate(15),
    **({"zstd": _unzstd} if _ZSTD else {}),
}

#: In our order of preference.
_ENCODERS: dict[str, Callable[[bytes], Any]] = {
    **({"zstd": _zstd} if _ZSTD else {}),
    "gzip": lambda body: gzip.compress(body, _GZIP_LEVEL, mtime=0),
    "deflate": lambda body: zlib.compress(body, _GZIP_LEVEL),
}
