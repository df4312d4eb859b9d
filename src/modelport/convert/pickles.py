"""Pickled models, plain or by joblib, without the packages that wrote them.

The scan has passed the file. As a second line of defence only names are looked up that
`modelport.core.allowed_globals` allows, or that the user trusted by name. Arrays that joblib puts
between the instructions are read here as ``NumpyArrayWrapper.read_array`` of joblib does.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any, ClassVar, Final

import numpy as np

from modelport.core.allowed_globals import ARRAY_WRAPPER, is_allowed
from modelport.core.errors import InputError, UnsafeError, UnsupportedError
from modelport.core.source import AuditedSource
from modelport.core.tensors import Array

#: What unpickling raises for a damaged file, or for one that other versions wrote.
LOAD_ERRORS: Final = (
    pickle.UnpicklingError, ArithmeticError, AssertionError, AttributeError, EOFError,
    ImportError, LookupError, MemoryError, OSError, RecursionError, RuntimeError, TypeError,
    ValueError, lzma.LZMAError, struct.error, zlib.error,
)  # fmt: skip

_LZ4: Final = b"\x04\x22\x4d\x18"
_DECOMPRESS: Final[tuple[tuple[bytes, Callable[[bytes], bytes]], ...]] = (
    (b"\x78", zlib.decompress),
    (b"\x1f\x8b", gzip.decompress),
    (b"BZh", bz2.decompress),
    (b"\xfd7zXZ", lzma.decompress),
    (b"\x5d\x00", lzma.decompress),
)


def load_pickled(audited: AuditedSource) -> Any:
    """Load the object of a pickle or joblib file.

    Warnings of libraries about their own versions are not shown: parity is with the model as it
    was loaded.

    Raises
    ------
    InputError
        When the file is damaged, or was written by versions that cannot be read here.
    UnsafeError
        When the file names something that is neither allowed nor trusted.
    UnsupportedError
        For a compression that Python itself cannot read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return unpickle(audited)
        except LOAD_ERRORS as error:
            first = next(iter(str(error).splitlines()), "")
            raise InputError(
                f"the file cannot be loaded: {type(error).__name__}: {first}",
                where=audited.source.name,
                hint="it may need the versions of the libraries that wrote it",
            ) from error


def unpickle(audited: AuditedSource) -> Any:
    """As `load_pickled`, with the warnings and the errors (`LOAD_ERRORS`) of the libraries."""
    source = audited.source
    stream = io.BytesIO(decompressed(source.content, source.name))
    return _Unpickler(stream, frozenset(audited.trusted)).load()


def decompressed(content: bytes, name: str) -> bytes:
    """The bytes of the pickle itself.

    Raises
    ------
    UnsupportedError
        For a compression that Python itself cannot read.
    """
    if content.startswith(_LZ4):
        raise UnsupportedError(
            "the file is compressed with lz4", where=name, hint="save it with compress=('gzip', 3)"
        )
    for prefix, decompress in _DECOMPRESS:
        if content.startswith(prefix):
            return decompress(content)
    return content


def check_global(module: str, name: str, trusted: frozenset[str]) -> None:
    """Refuse a name that is neither allowed nor trusted.

    Raises
    ------
    UnsafeError
    """
    if not is_allowed(module, name) and f"{module}.{name}" not in trusted:
        raise UnsafeError(
            f"the file refers to {module}.{name}, which models do not need",
            hint="if you trust who made the file, say so with --trust",
        )


class _Wrapper:
    """Takes the attributes by which joblib announces an array."""

    shape: tuple[int, ...]
    order: str
    dtype: np.dtype[Any]
    numpy_array_alignment_bytes: int | None

    def read(self, unpickler: _Unpickler) -> Array:
        """The array, whose bytes are next in the stream."""
        if self.dtype.hasobject:
            array = _Unpickler(unpickler.stream, unpickler.trusted).load()
            if not isinstance(array, np.ndarray):
                raise pickle.UnpicklingError("an array of objects is not an array")
            return array
        stream = unpickler.stream
        if getattr(self, "numpy_array_alignment_bytes", None) is not None:
            stream.read(stream.read(1)[0])
        count = int(np.prod(self.shape, dtype=np.int64))
        data = stream.read(count * self.dtype.itemsize)
        array = np.frombuffer(data, dtype=self.dtype, count=count).copy()
        return array.reshape(self.shape, order="F" if self.order == "F" else "C")


class _Unpickler(pickle._Unpickler):
    """In Python, so that it reads not one byte beyond what an instruction needs."""

    stack: list[Any]

    def __init__(self, stream: io.BytesIO, trusted: frozenset[str]) -> None:
        super().__init__(stream)
        self.stream = stream
        self.trusted = trusted

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ARRAY_WRAPPER:
            return _Wrapper
        check_global(module, name, self.trusted)
        return super().find_class(module, name)

    def load_build(self) -> None:
        """As the original; then an array takes the place of its announcement."""
        super().load_build()  # type: ignore[misc]
        if isinstance(self.stack[-1], _Wrapper):
            self.stack[-1] = self.stack[-1].read(self)

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
    }
