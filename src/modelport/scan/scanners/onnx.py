"""``.onnx``: protocol buffers, walked without the ``onnx`` package.

A slim server has no ``onnx``, and must be able to check a file. An ONNX file cannot run code, but
it can name files beside it (*external data*), and it can be truncated. The walker follows the
messages of ``onnx.proto`` that can hold a tensor, and steps over everything else.
"""

from __future__ import annotations

import re
from typing import Final

from modelport.core.errors import InputError
from modelport.core.source import Source
from modelport.scan.base import Finding, ScanReport
from modelport.scan.encodings.protobuf import BYTES, VARINT, Messages, Span

#: protobuf's own readers stop at 100.
MOST_DEPTH: Final = 100

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
            and content[0] == 1 << 3 | VARINT
            and 0 < content[1] < 0x80
            and content[2] >> 3 in _MODEL_FIELDS
            and content[2] & 7 in (VARINT, BYTES)
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
        self._messages = Messages(content, where, "an ONNX file")
        self.has_graph = False
        self.ir_version = 0
        self.opsets: dict[str, int] = {}
        self.locations: dict[str, None] = {}
        self.findings: list[Finding] = []

    def walk(self) -> None:
        """Visit every message that can hold a tensor."""
        waiting = [("Model", self._messages.whole, 0)]
        while waiting:
            message, span, depth = waiting.pop()
            if depth > MOST_DEPTH:
                raise self._messages.damage(
                    span.start, f"messages are nested more than {MOST_DEPTH} deep"
                )
            leaf: dict[int, int | Span] = {}
            inside = _INSIDE[message]
            for number, value in self._messages.fields(span):
                child = inside.get(number)
                if child is None:
                    leaf[number] = value
                elif not isinstance(value, Span):
                    raise self._messages.damage(
                        span.start, f"field {number} of a {message} is not a message"
                    )
                else:
                    self.has_graph |= message == "Model" and child == "Graph"
                    waiting.append((child, value, depth + 1))
            self._note(message, leaf)

    def _note(self, message: str, leaf: dict[int, int | Span]) -> None:
        text = self._messages.text
        number = leaf.get(1 if message == "Model" else 2)
        if message == "Model" and isinstance(number, int):
            self.ir_version = number
        elif message == "OperatorSet" and isinstance(number, int):
            domain = text(leaf.get(1, 0))
            self.opsets[f"opset:{domain}" if domain else "opset"] = number
        elif message == "External":
            key, value = text(leaf.get(1, 0)), text(leaf.get(2, 0))
            if key == "location":
                self.locations[value] = None
            elif key in ("offset", "length") and not (value.isascii() and value.isdigit()):
                what = f"{key} {value[:40]!r}"
                self.findings.append(Finding("file", what, "external data", "not a number"))
