"""Universal Binary JSON as XGBoost writes it, read strictly and with bounds.

https://ubjson.org/type-reference/ (draft 12), of which XGBoost writes objects and arrays without
a count, arrays of one number type with a count, strings and numbers.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np

from modelport.scan.pickles.reader import Reader

MOST_DEPTH: Final = 64
MOST_VALUES: Final = 50_000_000

_NUMBERS: Final = {
    "i": ">i1", "U": ">u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8",
}  # fmt: skip
_CONSTANTS: Final = {"T": True, "F": False, "Z": None}


def load_ubjson(content: bytes) -> Any:
    """Decode one value; arrays of one number type become NumPy arrays.

    Raises
    ------
    ValueError
        When the content is damaged, nested too deep, too large, or has one key twice.
    """
    decoder = _Decoder(content)
    try:
        value = decoder.value(decoder.mark(), 0)
    except (EOFError, UnicodeDecodeError, struct.error) as error:
        raise ValueError(f"byte {decoder.reader.position}: {error}") from error
    if decoder.reader.remaining:
        raise ValueError(f"byte {decoder.reader.position}: more bytes after the end")
    return value


class _Decoder:
    def __init__(self, content: bytes) -> None:
        self.reader = Reader(content)
        self._values = 0

    def mark(self) -> str:
        """The next type marker."""
        return self.reader.read(1).decode("latin-1")

    def value(self, mark: str, depth: int) -> Any:
        """The value that follows its marker."""
        self._values += 1
        if depth > MOST_DEPTH:
            raise ValueError(f"values are nested more than {MOST_DEPTH} deep")
        if self._values > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values")
        if mark == "{":
            return self._object(depth)
        if mark == "[":
            return self._array(depth)
        if mark == "S":
            return self._text()
        if mark == "C":
            return self.reader.read(1).decode()
        if mark in _NUMBERS:
            return self._numbers(mark, 1)[0].item()
        if mark in _CONSTANTS:
            return _CONSTANTS[mark]
        raise ValueError(f"byte {self.reader.position - 1}: {mark!r} is no type")

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (mark := self.mark()) != "}":
            key = self._text_of(self._length(mark))
            if key in found:
                raise ValueError(f"the key {key!r} stands twice")
            found[key] = self.value(self.mark(), depth + 1)
        return found

    def _array(self, depth: int) -> Any:
        mark = self.mark()
        if mark == "$":
            kind = self.mark()
            if kind not in _NUMBERS or self.mark() != "#":
                raise ValueError(f"byte {self.reader.position}: not an array of numbers")
            return self._numbers(kind, self._length(self.mark()))
        found = []
        if mark == "#":
            length = self._length(self.mark())
            return [self.value(self.mark(), depth + 1) for _ in range(length)]
        while mark != "]":
            found.append(self.value(mark, depth + 1))
            mark = self.mark()
        return found

    def _numbers(self, kind: str, count: int) -> Any:
        dtype = np.dtype(_NUMBERS[kind])
        return np.frombuffer(self.reader.read(count * dtype.itemsize), dtype)

    def _length(self, mark: str) -> int:
        if mark not in "iUIlL":
            raise ValueError(f"byte {self.reader.position}: a length is not an integer")
        length = int(self._numbers(mark, 1)[0])
        if length < 0:
            raise ValueError(f"byte {self.reader.position}: a length is negative")
        return length

    def _text(self) -> str:
        return self._text_of(self._length(self.mark()))

    def _text_of(self, length: int) -> str:
        return self.reader.read(length).decode()
