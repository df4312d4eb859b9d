"""``.onnx``: protocol buffers, walked without the ``onnx`` package.

A slim server has no ``onnx``, and must be able to check a file. An ONNX file cannot run code, but
it can name files beside it (*external data*), and it can be truncated. The walker follows the
messages of ``onnx.proto`` that can hold a tensor, and steps over everything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from modelport.core.errors import InputError, LimitError
from modelport.core.source import Source
from modelport.scan.base import Finding, ScanReport

#: protobuf's own readers stop at 100.
MOST_DEPTH: Final = 100
MOST_FIELDS: Final = 50_000_000

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Message → field number → the message inside it (onnx.proto, IR version 13).
_INSIDE: Final[dict[str, dict[int, str]]] = {
    "Model": {7: "Graph", 8: "OperatorSet", 14: "Entry", 20: "Training", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "External"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 9: "OperatorSet", 11: "Attribute"},
    "OperatorSet": {},
    "Entry": {},
    "External": {},
}
_PLAIN_LOCATION = re.compile(r"[\w.\- /]+")
_MODEL_FIELDS: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})


class OnnxScanner:
    """Walks every message of the file; a cut anywhere inside one shows."""

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Scanner.recognises`.

        protobuf has no magic bytes. Writers put the IR version first, a small number, and
        another field of a model after it.
        """
        content = source.content[:64]
        return (
            len(content) > 3
            and content[0] == 1 << 3 | _VARINT
            and 0 < content[1] < 0x80
            and content[2] >> 3 in _MODEL_FIELDS
            and content[2] & 7 in (_VARINT, _BYTES)
        )

    def scan(self, source: Source) -> ScanReport:
        """See `modelport.scan.base.Scanner.scan`."""
        where = str(source.path or source.name)
        walker = _Walker(source.content, where)
        walker.walk()
        if not walker.has_graph or not walker.opsets:
            missing = "graph" if not walker.has_graph else "operator set"
            raise InputError(
                f"not an ONNX model, or truncated: it has no {missing}",
                where=where,
                hint="save or download the file again",
            )
        findings = [
            Finding("file", repr(location), "external data", why)
            for location in walker.locations
            if (why := _location_problem(location))
        ]
        return ScanReport(
            format="onnx",
            findings=tuple(findings + walker.findings),
            external_files=tuple(
                location for location in walker.locations if not _location_problem(location)
            ),
            details={"ir_version": walker.ir_version, **walker.opsets},
        )


def _location_problem(location: str) -> str:
    """Why a location of external data is refused; empty for a plain relative path."""
    if not location:
        return "it names no file"
    if location.startswith("/") or ".." in location.split("/"):
        return "it leaves the model's folder"
    # Also stops drives, back slashes, URLs and ONNX Runtime's tag for memory addresses.
    if not _PLAIN_LOCATION.fullmatch(location):
        return "not a plain relative path"
    return ""


class _Walker:
    """Iterative, so that no file can exhaust Python's stack."""

    def __init__(self, content: bytes, where: str) -> None:
        self._content = content
        self._where = where
        self._fields = 0
        self.has_graph = False
        self.ir_version = 0
        self.opsets: dict[str, int] = {}
        self.locations: dict[str, None] = {}
        self.findings: list[Finding] = []

    def walk(self) -> None:
        """Visit every message that can hold a tensor."""
        waiting = [("Model", 0, len(self._content), 0)]
        while waiting:
            message, start, end, depth = waiting.pop()
            if depth > MOST_DEPTH:
                raise self._damage(start, f"messages are nested more than {MOST_DEPTH} deep")
            leaf: dict[int, Any] = {}
            inside = _INSIDE[message]
            for number, kind, value, stop in self._read(start, end):
                child = inside.get(number)
                if child is None:
                    leaf[number] = value if kind == _VARINT else (value, stop)
                elif kind != _BYTES:
                    raise self._damage(start, f"field {number} of a {message} is not a message")
                else:
                    self.has_graph |= message == "Model" and child == "Graph"
                    waiting.append((child, value, stop, depth + 1))
            self._note(message, leaf, start)

    def _note(self, message: str, leaf: dict[int, Any], start: int) -> None:
        if message == "Model" and isinstance(leaf.get(1), int):
            self.ir_version = leaf[1]
        elif message == "OperatorSet" and isinstance(leaf.get(2), int):
            domain = self._text(leaf.get(1), start)
            self.opsets[f"opset:{domain}" if domain else "opset"] = leaf[2]
        elif message == "External":
            key, value = self._text(leaf.get(1), start), self._text(leaf.get(2), start)
            if key == "location":
                self.locations[value] = None
            elif key in ("offset", "length") and not (value.isascii() and value.isdigit()):
                what = f"{key} {value[:40]!r}"
                self.findings.append(Finding("file", what, "external data", "not a number"))

    def _read(self, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Fields of one message: number, wire type, then a number, or where its bytes are."""
        while position < end:
            self._fields += 1
            if self._fields > MOST_FIELDS:
                raise LimitError(f"more than {MOST_FIELDS} fields", where=self._where)
            begin = position
            tag, position = self._varint(position, end)
            number, kind = tag >> 3, tag & 7
            value, stop = position, position
            if kind == _VARINT:
                value, stop = self._varint(position, end)
            elif kind == _BYTES:
                size, value = self._varint(position, end)
                stop = value + size
            elif kind in (_FIXED32, _FIXED64):
                stop = position + (4 if kind == _FIXED32 else 8)
            else:
                raise self._damage(begin, f"wire type {kind} does not exist")
            if number == 0:
                raise self._damage(begin, "field number 0 does not exist")
            if stop > end:
                raise self._damage(begin, f"{stop - end} bytes are missing")
            yield number, kind, value, stop
            position = stop

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value, shift = 0, 0
        for place in range(position, min(position + 10, end)):
            byte = self._content[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, place + 1
            shift += 7
        raise self._damage(position, "a number does not end")

    def _text(self, span: Any, start: int) -> str:
        if not isinstance(span, tuple):
            return ""
        try:
            return self._content[span[0] : span[1]].decode()
        except UnicodeDecodeError:
            raise self._damage(start, "a name is not text") from None

    def _damage(self, position: int, what: str) -> InputError:
        return InputError(
            f"not an ONNX file, or truncated, at byte {position}: {what}",
            where=self._where,
            hint="save or download the file again",
        )
