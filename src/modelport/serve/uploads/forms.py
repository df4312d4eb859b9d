"""The parts of forms: ``multipart/form-data`` and ``application/x-www-form-urlencoded``.

Every count and length is bounded, whatever a client sends.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from modelport.core.errors import InputError, LimitError, MediaTypeError

#: Parts of one body: more rows than a person picks files.
MOST_PARTS: Final = 1024

_MOST_PADDING: Final = 64

MULTIPART: Final = "multipart/form-data"

#: The parser would write a line about every broken body, as often as a client likes.
_silent = logging.getLogger(f"{__name__}.parser")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form.

    Parameters
    ----------
    name : str
    filename : str
        As the client wrote it: never a path to open.
    media_type : str
        Empty where the part says none.
    data : bytes
    """

    name: str
    filename: str
    media_type: str
    data: bytes


def media_type_of(header: str | None) -> tuple[str, dict[str, str]]:
    """A ``Content-Type`` header's type, in lower case, and its parameters.

    Raises
    ------
    InputError
        When it is no header that can be read.
    """
    try:
        kind, options = _options_of(header or "")
        return kind.decode("latin-1"), {
            key.decode("latin-1"): value.decode("latin-1") for key, value in options.items()
        }
    except UnicodeEncodeError as error:
        raise InputError("header Content-Type holds characters that no header has") from error


def parts_of(body: bytes, boundary: str) -> list[Part]:
    """The parts of a ``multipart/form-data`` body (RFC 7578, RFC 2046 §5.1).

    Raises
    ------
    InputError
        When it is broken, cut off or without parts; headers of a part are limited to 8 lines
        of about 4 KiB.
    MediaTypeError
        For a part in a transfer encoding, which RFC 7578 §4.7 deprecates.
    LimitError
        For more than `MOST_PARTS` parts.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    if not boundary:
        raise InputError("header Content-Type names no boundary between the parts")
    delimiter = boundary.encode("latin-1")
    _check_delimiters(body, delimiter)
    collector = _Collector()
    try:
        parser = MultipartParser(delimiter, collector.callbacks())  # type: ignore[arg-type]
        parser.logger = _silent
        parser.write(body)
    except FormParserError as error:
        raise InputError(f"multipart body is broken: {error}") from error
    if not collector.ended:
        raise InputError("multipart body ends before its closing boundary")
    if not collector.parts:
        raise InputError("multipart body has no parts")
    return collector.parts


def _check_delimiters(body: bytes, boundary: bytes) -> None:
    """Keep from the parser what it would take seconds for: it walks them byte by byte.

    RFC 2046 §5.1.1 forbids the delimiter inside a part, also with something behind it; padding
    after it is allowed, and nobody writes any.
    """
    delimiter = b"\r\n--" + boundary
    if body.count(delimiter) > MOST_PARTS:
        raise LimitError(f"multipart body has more than {MOST_PARTS} parts")
    position = 0 if body.startswith(delimiter[2:]) else body.find(delimiter)
    while position >= 0:
        end = position + len(delimiter)
        padding = body[end : end + _MOST_PADDING]
        if len(padding) == _MOST_PADDING and not padding.strip(b" \t"):
            raise InputError(f"multipart body has {_MOST_PADDING} blanks behind a delimiter")
        position = body.find(delimiter, end)


class _Collector:
    """Takes what the parser finds."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._headers: dict[str, bytes] = {}
        self._name = b""
        self._value = b""
        self._data: list[bytes] = []

    def callbacks(self) -> dict[str, Any]:
        """By the parser's names."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._end,
            "on_end": self._last,
        }

    def _begin(self) -> None:
        if len(self.parts) == MOST_PARTS:
            raise LimitError(f"multipart body has more than {MOST_PARTS} parts")
        self._headers = {}
        self._data = []

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value
        self._name = self._value = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end(self) -> None:
        where = f"part {len(self.parts)}"
        disposition, options = _options_of(self._headers.get("content-disposition"))
        if disposition != b"form-data" or b"name" not in options:
            raise InputError("no 'Content-Disposition: form-data; name=…'", where=where)
        coding = self._headers.get("content-transfer-encoding", b"binary").decode("latin-1")
        if coding.strip().lower() not in ("7bit", "8bit", "binary"):
            raise MediaTypeError(
                f"part is encoded as {coding!r:.40}; send it as it is", where=where
            )
        kind, _ = _options_of(self._headers.get("content-type"))
        self.parts.append(
            Part(
                name=_text_of(options[b"name"]),
                filename=_text_of(options.get(b"filename", b"")),
                media_type=kind.decode("latin-1"),
                data=b"".join(self._data),
            )
        )

    def _last(self) -> None:
        self.ended = True


def _options_of(header: str | bytes | None) -> tuple[bytes, dict[bytes, bytes]]:
    """Servers without uploads do not wait for the import."""
    from python_multipart.multipart import parse_options_header

    return parse_options_header(header)


def _text_of(raw: bytes) -> str:
    """Browsers write names in UTF-8, older programs in Latin-1."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def fields_of(body: bytes) -> list[Part]:
    """The fields of an ``application/x-www-form-urlencoded`` body (WHATWG URL §5.1).

    Raises
    ------
    LimitError
        For more than `MOST_PARTS` fields.
    """
    try:
        # Latin-1 keeps every byte as it is, so that a file may be sent percent-encoded.
        pairs = parse_qsl(
            body.decode("latin-1"),
            keep_blank_values=True,
            encoding="latin-1",
            max_num_fields=MOST_PARTS,
        )
    except ValueError as error:
        raise LimitError(f"form has more than {MOST_PARTS} fields") from error
    return [
        Part(_text_of(name.encode("latin-1")), "", "", value.encode("latin-1"))
        for name, value in pairs
    ]
