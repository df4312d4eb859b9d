"""Protocol buffers, walked without their schema's library; a cut anywhere shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from modelport.core.errors import InputError, LimitError

MOST_FIELDS: Final = 50_000_000
#: Wire types: how a field is stored.
VARINT, _FIXED64, BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_TAG: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Span:
    """Where a message or a text stands in the content."""

    start: int
    stop: int


class Messages:
    """The fields of messages.

    Parameters
    ----------
    content : bytes
    where : str
        The file, for errors.
    what : str
        What the file should be, for errors: ``a SavedModel``.
    """

    def __init__(self, content: bytes, where: str, what: str) -> None:
        self._content = content
        self._where = where
        self._what = what
        self._fields = 0

    @property
    def whole(self) -> Span:
        """The outermost message."""
        return Span(0, len(self._content))

    def fields(self, span: Span) -> Iterator[tuple[int, int | Span]]:
        """Field numbers and values; of texts, bytes and messages the place.

        Raises
        ------
        InputError
            When the message is damaged or cut.
        LimitError
            When the file has more fields than any model.
        """
        position = span.start
        while position < span.stop:
            self._fields += 1
            if self._fields > MOST_FIELDS:
                raise LimitError(f"more than {MOST_FIELDS} fields", where=self._where)
            begin = position
            tag, position = self._varint(position, span.stop)
            number, kind = tag >> 3, tag & 7
            value: int | Span = 0
            if kind == VARINT:
                value, position = self._varint(position, span.stop)
            elif kind == BYTES:
                size, start = self._varint(position, span.stop)
                position = start + size
                value = Span(start, position)
            elif kind in (_FIXED32, _FIXED64):
                position += 4 if kind == _FIXED32 else 8
            else:
                raise self.damage(begin, f"wire type {kind} does not exist")
            if number == 0 or tag > _MOST_TAG:
                raise self.damage(begin, f"field number {number} does not exist")
            if position > span.stop:
                raise self.damage(begin, f"{position - span.stop} bytes are missing")
            yield number, value

    def inside(self, span: Span, number: int) -> list[Span]:
        """The places of all fields of one number that are texts, bytes or messages."""
        return [v for n, v in self.fields(span) if n == number and isinstance(v, Span)]

    def entries(self, span: Span, number: int) -> list[tuple[str, Span]]:
        """Keys and values of a map from text to messages.

        Raises
        ------
        InputError
            When an entry has more than one key or value.
        """
        found = []
        for entry in self.inside(span, number):
            places: dict[int, Span] = {}
            for inner, place in self.fields(entry):
                if inner in places:  # readers merge the two, in ways of their own
                    raise self.damage(entry.start, "an entry has two values")
                if isinstance(place, Span):
                    places[inner] = place
            nothing = Span(entry.stop, entry.stop)
            found.append((self.text(places.get(1, nothing)), places.get(2, nothing)))
        return found

    def bytes(self, span: Span) -> bytes:
        """The bytes at a place."""
        return self._content[span.start : span.stop]

    def text(self, span: Span | int) -> str:
        """The text at a place.

        Raises
        ------
        InputError
            When it is not text.
        """
        if not isinstance(span, Span):
            return ""
        try:
            return self.bytes(span).decode()
        except UnicodeDecodeError:
            raise self.damage(span.start, "a name is not text") from None

    def numbers(self, value: Span | int) -> list[int]:
        """Integers, packed or single."""
        if not isinstance(value, Span):
            return [value]
        found, position = [], value.start
        while position < value.stop:
            number, position = self._varint(position, value.stop)
            found.append(number)
        return found

    def damage(self, position: int, what: str) -> InputError:
        """The error for a damaged file."""
        return InputError(
            f"not {self._what}, or truncated, at byte {position}: {what}",
            where=self._where,
            hint="save or download the file again",
        )

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value, shift = 0, 0
        for place in range(position, min(position + 10, end)):
            byte = self._content[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, place + 1
            shift += 7
        raise self.damage(position, "a number does not end")
