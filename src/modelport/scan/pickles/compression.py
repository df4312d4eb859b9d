"""Decompressing what joblib compresses, with bounds.

joblib chooses by the first bytes, and so do we, by the same ones (``joblib/compressor.py``).
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from modelport.core.errors import InputError, LimitError, UnsupportedError

#: Any file may grow to this size; beyond it the growth is bounded as well.
FREE_SIZE = 256 << 20
MOST_GROWTH = 200
MOST_SIZE = 16 << 30
_CHUNK = 1 << 20
# xz -9 needs 65 MiB; a header may ask for 4 GiB.
_LZMA_MEMORY = 256 << 20


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


_MAGIC: Final[tuple[tuple[bytes, str], ...]] = (
    (b"ZF", "zfile"),
    (b"\x78", "zlib"),
    (b"\x1f\x8b", "gzip"),
    (b"BZ", "bz2"),
    (b"\x5d\x00", "lzma"),
    (b"\xfd\x37\x7a\x58\x5a", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
)
_OPENERS: Final[dict[str, Callable[[], _Decompressor]]] = {
    "zlib": lambda: zlib.decompressobj(zlib.MAX_WBITS),
    "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
    "bz2": bz2.BZ2Decompressor,
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY),
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY),
}
_ERRORS: Final = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)


@dataclass(frozen=True)
class Decompressed:
    """The outcome.

    Parameters
    ----------
    content : bytes
        All of the first stream.
    problem : str
        Non-empty when the file is not one that joblib writes.
    """

    content: bytes
    problem: str = ""


def compression_of(content: bytes) -> str:
    """``zlib``, ``gzip``, ``bz2``, ``lzma``, ``xz``, ``lz4``, ``zfile``; empty for none."""
    for magic, kind in _MAGIC:
        if content.startswith(magic):
            return kind
    return ""


def peek(content: bytes, kind: str, size: int = 4096) -> bytes:
    """The first decompressed bytes; empty when they cannot be had."""
    if kind not in _OPENERS:
        return b""
    try:
        return _OPENERS[kind]().decompress(content[:_CHUNK], size)
    except _ERRORS:
        return b""


def decompress(content: bytes, kind: str, *, where: str) -> Decompressed:
    """Decompress one stream, which must be all there is.

    Raises
    ------
    InputError
        When it is damaged or truncated.
    LimitError
        When it grows beyond all bounds.
    UnsupportedError
        For lz4, and for what joblib wrote before 0.10.
    """
    if kind == "zfile":
        raise UnsupportedError(
            "written by joblib before 0.10",
            where=where,
            hint="load it with the joblib that wrote it, and dump it again with a newer one",
        )
    if kind not in _OPENERS:
        raise UnsupportedError(
            f"{kind} compression cannot be read",
            where=where,
            hint='dump it again with joblib.dump(model, path, compress="zlib")',
        )
    most = min(max(FREE_SIZE, MOST_GROWTH * len(content)), MOST_SIZE)
    decompressor = _OPENERS[kind]()
    pieces, size, position = [], 0, 0
    try:
        while not decompressor.eof:
            piece, position = _next_piece(decompressor, content, position)
            if not piece and position >= len(content) and not decompressor.eof:
                raise InputError(f"{kind} stream is truncated after {size} bytes", where=where)
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise LimitError(
                    f"the {kind} stream grows to more than {most} bytes",
                    where=where,
                    hint="dump the model again without compression",
                )
    except _ERRORS as error:
        raise InputError(f"not a {kind} stream: {error}", where=where) from error
    left = len(decompressor.unused_data) + len(content) - position
    problem = f"{left} bytes follow the {kind} stream" if left else ""
    return Decompressed(b"".join(pieces), problem)


def _next_piece(decompressor: _Decompressor, content: bytes, position: int) -> tuple[bytes, int]:
    """Feed the decompressor until it gives something, or there is nothing left to feed."""
    piece = b""
    while not piece and not decompressor.eof:
        # zlib hands back what it could not take yet; the others keep it.
        waiting = getattr(decompressor, "unconsumed_tail", b"")
        if not waiting and getattr(decompressor, "needs_input", True):
            waiting = content[position : position + _CHUNK]
            position += _CHUNK
        piece = decompressor.decompress(waiting, _CHUNK)
        if not piece and not waiting:
            break
    return piece, min(position, len(content))
