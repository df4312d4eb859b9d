"""FlatBuffers, checked before anything follows their offsets.

A FlatBuffer is read where it lies: every offset in it is trusted by the code that a schema's
compiler made. `check` follows all offsets that a schema knows, as the library's own verifier does.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from modelport.core.errors import InputError, LimitError

MOST_TABLES: Final = 20_000_000
_FIRST_FIELD: Final = 4


@dataclass(frozen=True, slots=True)
class Union:
    """A field whose table is of the kind that the field before it says; others have no offsets.

    Parameters
    ----------
    kinds : mapping of int to str
    """

    kinds: Mapping[int, str]


#: What a field holds: the size of a list's numbers, ``text``, a table, a list of tables, a union.
Field = int | str | tuple[str] | Union
Schema = Mapping[str, Mapping[int, Field]]
TEXT: Final = "text"


class FlatBuffer:
    """Tables by their place in the content; see the field numbers in the schema.

    Parameters
    ----------
    content : bytes
    where : str
        The file, for errors.
    what : str
        What the file should be, for errors: ``a TensorFlow Lite model``.
    """

    def __init__(self, content: bytes, where: str, what: str) -> None:
        self._content = content
        self._where = where
        self._what = what

    @property
    def root(self) -> int:
        """The outermost table."""
        return self.number(0, 4)

    def number(self, position: int, size: int, *, signed: bool = False) -> int:
        """The number of `size` bytes at a place.

        Raises
        ------
        InputError
            When the place is outside of the content.
        """
        if position < 0 or position + size > len(self._content):
            raise self.damage(position, "an offset leaves the file")
        part = self._content[position : position + size]
        return int.from_bytes(part, "little", signed=signed)

    def field(self, table: int, index: int) -> int:
        """The place of a table's field; 0 for one that is not there."""
        vtable = table - self.number(table, 4, signed=True)
        size = self.number(vtable, 2)
        entry = _FIRST_FIELD + 2 * index
        if entry + 2 > size:
            return 0
        offset = self.number(vtable + entry, 2)
        return table + offset if offset else 0

    def scalar(self, table: int, index: int, size: int, default: int = 0) -> int:
        """A number in a table; signed when it has four bytes."""
        place = self.field(table, index)
        return self.number(place, size, signed=size == 4) if place else default

    def follow(self, place: int) -> int:
        """Where the offset at a place leads."""
        return place + self.number(place, 4)

    def items(self, table: int, index: int, size: int) -> tuple[int, int]:
        """The place and the count of a list of numbers of `size` bytes, which is there as a whole.

        Raises
        ------
        InputError
            When it goes beyond the end.
        """
        place = self.field(table, index)
        if not place:
            return 0, 0
        start = self.follow(place)
        count = self.number(start, 4)
        if start + 4 + count * size > len(self._content):
            raise self.damage(start, "a list goes beyond the end")
        return start + 4, count

    def numbers(self, table: int, index: int) -> tuple[int, ...]:
        """A list of whole numbers of four bytes."""
        start, count = self.items(table, index, 4)
        return struct.unpack_from(f"<{count}i", self._content, start) if count else ()

    def tables(self, table: int, index: int) -> list[int]:
        """The places of the tables in a list."""
        start, count = self.items(table, index, 4)
        return [self.follow(start + 4 * number) for number in range(count)]

    def bytes(self, table: int, index: int) -> bytes:
        """A list of bytes, or a text."""
        start, count = self.items(table, index, 1)
        return self._content[start : start + count]

    def check(self, schema: Schema, root: str) -> None:
        """Follow every offset that the schema knows.

        Raises
        ------
        InputError
            When one leads out of the content.
        LimitError
            When there are more tables than any model has.
        """
        seen: set[tuple[str, int]] = set()
        waiting = [(root, self.root)]
        while waiting:
            kind, table = waiting.pop()
            if (kind, table) in seen:
                continue
            seen.add((kind, table))
            if len(seen) > MOST_TABLES:
                raise LimitError(f"more than {MOST_TABLES} tables", where=self._where)
            self._check_extent(table)
            for index, field in schema[kind].items():
                waiting += self._check_field(table, index, field)

    def _check_extent(self, table: int) -> None:
        vtable = table - self.number(table, 4, signed=True)
        size, extent = self.number(vtable, 2), self.number(vtable + 2, 2)
        inside = max(vtable + size, table + extent) <= len(self._content)
        if size < _FIRST_FIELD or size % 2 or not inside:
            raise self.damage(table, "a table goes beyond the end")
        entries = struct.unpack_from(f"<{size // 2 - 2}H", self._content, vtable + _FIRST_FIELD)
        if any(offset >= extent for offset in entries if offset):
            raise self.damage(table, "a field is outside of its table")

    def _check_field(self, table: int, index: int, field: Field) -> list[tuple[str, int]]:
        place = self.field(table, index)
        if not place:
            return []
        if isinstance(field, int):
            self.items(table, index, field)
        elif isinstance(field, tuple):
            return [(field[0], inner) for inner in self.tables(table, index)]
        elif isinstance(field, Union):
            kind = field.kinds.get(self.scalar(table, index - 1, 1), "")
            return [(kind, self.follow(place))]
        elif field == TEXT:
            start, count = self.items(table, index, 1)
            if self.number(start + count, 1):
                raise self.damage(start, "a text does not end")
        else:
            return [(field, self.follow(place))]
        return []

    def damage(self, position: int, what: str) -> InputError:
        """The error for a damaged file."""
        return InputError(
            f"not {self._what}, or truncated, at byte {position}: {what}",
            where=self._where,
            hint="save or download the file again",
        )


def flexbuffer_texts(content: bytes) -> list[bytes]:
    """The texts in a FlexBuffer that is a list of texts; empty when it is anything else."""
    try:
        return _flexbuffer_texts(content)
    except (IndexError, ValueError):
        return []


_VECTOR, _STRING, _BLOB = 10, 5, 25


def _flexbuffer_texts(content: bytes) -> list[bytes]:
    def number(position: int, size: int) -> int:
        if position < 0 or position + size > len(content) or size not in (1, 2, 4, 8):
            raise ValueError("outside")
        return int.from_bytes(content[position : position + size], "little")

    width, packed = content[-1], content[-2]
    place = len(content) - 2 - width
    if packed >> 2 != _VECTOR:
        return []
    start, step = place - number(place, width), 1 << (packed & 3)
    texts = []
    for index in range(number(start - step, step)):
        kind = number(start + number(start - step, step) * step + index, 1)
        at = start + index * step
        if kind >> 2 not in (_STRING, _BLOB):
            return []
        text, size = at - number(at, step), 1 << (kind & 3)
        length = number(text - size, size)
        if text + length > len(content):
            return []
        texts.append(content[text : text + length])
    return texts
