"""``.tflite``: a FlatBuffer, whose offsets and indices the interpreter trusts.

Its operations are TensorFlow Lite's own. Custom ones do nothing until a program brings them. *Flex*
is what some builds of TensorFlow bring: by it a file may use any operation of TensorFlow, and those
are held to the rules for SavedModels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from modelport.core.source import Source
from modelport.scan.base import Finding, ScanReport
from modelport.scan.encodings.flatbuffer import TEXT, FlatBuffer, Schema, Union, flexbuffer_texts
from modelport.scan.tensorflow.check import node_problem
from modelport.scan.tensorflow.graph import read_node
from modelport.scan.tensorflow.rules import ASSET_PATHS, CHECKPOINT_PATHS

_IDENTIFIER: Final = b"TFL3"
_FLEX: Final = "Flex"
_CUSTOM: Final = 32
_NEGATIVE: Final = 128
_OPTIONAL: Final = -1

# Field numbers of schema.fbs, version 3 (TensorFlow 2.21).
_OPTIONS: Final = {
    3: "Lists1And2", 17: "List0", 30: "List0", 111: "Texts", 115: "List0",
}  # fmt: skip
_OPTIONS_2: Final = {
    2: "Wide3", 3: "Wide3", 4: "Convolution", 5: "CustomCall", 6: "Wide3", 7: "Scatter",
    9: "Wide3", 10: "Wide3", 12: "Dot", 13: "Wide5", 16: "Gather", 17: "Wide3",
    21: "Composite", 23: "List0",
}  # fmt: skip
_SCHEMA: Final[Schema] = {
    "Model": {
        1: ("OperatorCode",), 2: ("SubGraph",), 3: TEXT, 4: ("Buffer",), 5: 4, 6: ("Metadata",),
        7: ("Signature",), 8: ("Group",), 9: ("Outside",),
    },
    "OperatorCode": {1: TEXT},
    "SubGraph": {0: ("Tensor",), 1: 4, 2: 4, 3: ("Operator",), 4: TEXT},
    "Tensor": {0: 4, 3: TEXT, 4: "Quantization", 6: "Sparsity", 7: 4, 9: ("Variant",)},
    "Quantization": {0: 4, 1: 4, 2: 4, 3: 8, 5: Union({1: "Bytes0"})},
    "Sparsity": {0: 4, 1: 4, 2: ("Dimension",)},
    "Dimension": {
        3: Union({1: "List0", 2: "Shorts0", 3: "Bytes0"}),
        5: Union({1: "List0", 2: "Shorts0", 3: "Bytes0"}),
    },
    "Variant": {0: 4},
    "Operator": {1: 4, 2: 4, 4: Union(_OPTIONS), 5: 1, 7: 1, 8: 4, 12: Union(_OPTIONS_2)},
    "Buffer": {0: 1},
    "Metadata": {0: TEXT},
    "Signature": {0: ("TensorMap",), 1: ("TensorMap",), 2: TEXT},
    "TensorMap": {0: TEXT},
    "Group": {0: TEXT},
    "Outside": {4: TEXT},
    "": {},
    "Bytes0": {0: 1}, "Shorts0": {0: 2}, "List0": {0: 4}, "Lists1And2": {1: 4, 2: 4},
    "Texts": {0: TEXT, 1: TEXT},
    "Wide3": {0: 8, 1: 8, 2: 8}, "Wide5": {0: 8, 1: 8, 2: 8, 3: 8, 4: 8},
    "Convolution": {0: 8, 1: 8, 2: 8, 3: 8, 4: 1, 7: 8, 10: 8, 13: 8, 16: 4},
    "CustomCall": {0: TEXT, 2: TEXT, 4: 4, 5: 1}, "Scatter": {1: 8, 2: 8, 3: 8},
    "Dot": {0: 8, 1: 8, 2: 8, 3: 8, 4: 4}, "Gather": {0: 8, 1: 8, 2: 8, 4: 8},
    "Composite": {0: TEXT, 2: 1},
}  # fmt: skip


class TfliteScanner:
    """Follows every offset, checks every index, and looks into Flex operations."""

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Scanner.recognises`."""
        return source.content[4:8] == _IDENTIFIER

    def scan(self, source: Source) -> ScanReport:
        """See `modelport.scan.base.Scanner.scan`."""
        where = str(source.path or source.name)
        model = FlatBuffer(source.content, where, "a TensorFlow Lite model")
        if not self.recognises(source):
            raise model.damage(4, f"{_IDENTIFIER.decode()} is missing")
        model.check(_SCHEMA, "Model")
        walk = _Walk(model, source.content, where)
        walk.walk()
        return ScanReport(
            format="tflite",
            findings=tuple(dict.fromkeys(walk.findings)),
            details={
                "operators": walk.operators,
                **{f"custom:{name}": count for name, count in sorted(walk.custom.items())},
            },
        )


class _Walk:
    def __init__(self, model: FlatBuffer, content: bytes, where: str) -> None:
        self._model = model
        self._content = content
        self._where = where
        self.findings: list[Finding] = []
        self.custom: Counter[str] = Counter()
        self.operators = 0

    def walk(self) -> None:
        model, root = self._model, self._model.root
        codes = [self._code(code) for code in model.tables(root, 1)]
        buffers = model.tables(root, 4)
        subgraphs = model.tables(root, 2)
        if not subgraphs:
            raise model.damage(root, "it has no graph")
        for buffer in buffers:
            self._outside(model.scalar(buffer, 1, 8), model.scalar(buffer, 2, 8), buffer)
        for outside in model.tables(root, 8):
            name = model.bytes(outside, 0).decode(errors="replace")
            self.findings.append(
                Finding("file", repr(name), "external buffers", "its numbers are in another file")
            )
        counts = [
            self._subgraph(number, subgraph, codes, len(buffers))
            for number, subgraph in enumerate(subgraphs)
        ]
        for metadata in model.tables(root, 6):
            self._index([model.scalar(metadata, 1, 4)], len(buffers), "buffer", metadata)
        for signature in model.tables(root, 7):
            subgraph = model.scalar(signature, 4, 4)
            self._index([subgraph], len(counts), "graph", signature)
            for side in (0, 1):
                named = [model.scalar(entry, 1, 4) for entry in model.tables(signature, side)]
                self._index(named, counts[subgraph], "tensor", signature)

    def _code(self, code: int) -> str:
        """The name of a custom operation; empty for one of TensorFlow Lite's own."""
        narrow = self._model.scalar(code, 0, 1)
        # Old files have one signed byte, new ones both; the larger one counts.
        number = max(narrow if narrow < _NEGATIVE else 0, self._model.scalar(code, 3, 4))
        return self._model.bytes(code, 1).decode(errors="replace") if number == _CUSTOM else ""

    def _subgraph(self, number: int, subgraph: int, codes: list[str], buffers: int) -> int:
        model = self._model
        tensors = model.tables(subgraph, 0)
        for tensor in tensors:
            self._index([model.scalar(tensor, 2, 4)], buffers, "buffer", tensor)
            if min(model.numbers(tensor, 0), default=0) < 0:
                raise model.damage(tensor, "a tensor's size is negative")
        for field in (1, 2):
            self._index(model.numbers(subgraph, field), len(tensors), "tensor", subgraph)
        for operator in model.tables(subgraph, 3):
            code = model.scalar(operator, 0, 4)
            self._index([code], len(codes), "operation", operator)
            for field in (1, 2, 8):
                used = [n for n in model.numbers(operator, field) if n != _OPTIONAL]
                self._index(used, len(tensors), "tensor", operator)
            self.operators += 1
            if codes[code]:
                self.custom[codes[code]] += 1
                self._custom(codes[code], operator, f"graph {number}, operator {self.operators}")
        return len(tensors)

    def _custom(self, name: str, operator: int, place: str) -> None:
        offset = self._model.scalar(operator, 9, 8)
        size = self._model.scalar(operator, 10, 8)
        self._outside(offset, size, operator)
        if not name.startswith(_FLEX):
            return
        options = self._content[offset : offset + size] or self._model.bytes(operator, 5)
        texts = flexbuffer_texts(options)
        if len(texts) != 2:
            why = "its TensorFlow operation cannot be read"
            self.findings.append(Finding("global", name, place, why))
            return
        node = read_node(texts[1], self._where)
        what, why = node_problem(node)
        if node.op in CHECKPOINT_PATHS or node.op in ASSET_PATHS:
            what, why = node.op, "it reads or writes files"
        if not what and texts[0] != node.op.encode():
            what, why = name, "it names two different operations of TensorFlow"
        if what:
            self.findings.append(Finding("global", what, place, why))

    def _outside(self, offset: int, size: int, table: int) -> None:
        """Data of large models stands behind the FlatBuffer."""
        if offset + size > len(self._content):
            raise self._model.damage(table, "data goes beyond the end")

    def _index(self, numbers: Iterable[int], count: int, what: str, table: int) -> None:
        for number in numbers:
            if not 0 <= number < count:
                raise self._model.damage(table, f"there is no {what} number {number}")
