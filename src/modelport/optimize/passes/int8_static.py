"""Activations as uint8 and weights as int8, with ranges from calibration rows.

Made with and without the nodes in float32 that lose most by it, since one such node may cost more
than all others together; means are moved back by the biases. See
`modelport.optimize.quantize.static` for the formulas.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from modelport.core.tensors import Tensors
from modelport.optimize.base import NUMBERS, Progress, Subject, Variant
from modelport.optimize.onnx_graph import operators, parse, serialize
from modelport.optimize.quantize.correction import correct_biases
from modelport.optimize.quantize.ranges import Range, observe
from modelport.optimize.quantize.static import (
    activations,
    quantize,
    source_graph,
    weighted_nodes,
)
from modelport.optimize.session import Probe

#: Rows that ranges are observed on; for corrections and comparisons fewer are enough.
_CALIBRATION_ROWS: Final = 128
_COMPARED_ROWS: Final = 32
#: Nodes that are tried in float32: the first ones, the last one, and those with the most noise.
_SUSPECTS: Final = 6


@dataclass(frozen=True)
class _Work:
    """What all variants of a subject share."""

    source: onnx.ModelProto
    nodes: Sequence[onnx.NodeProto]
    ranges: dict[str, Range]
    rows: Tensors
    deadline: float

    def quantized(self, left_float: Sequence[str] = (), method: str = "minmax") -> onnx.ModelProto:
        return quantize(self.source, self.ranges, method, left_float)


class Int8StaticPass:
    """See the module."""

    name = "int8-static"
    order = NUMBERS

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        found = operators(parse(subject.variant.model))
        if found & {"DequantizeLinear", "MatMulInteger", "DynamicQuantizeLSTM"}:
            return "it is quantized already"
        if "LayerNormalization" in found or ("Softmax" in found and "MatMul" in found
                                             and "Conv" not in found):  # fmt: skip
            return "transformers have outliers that one range for all rows loses"
        return "" if found & {"Conv", "Gemm", "MatMul"} else "no convolutions and no matrices"

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        work = _prepare(subject)
        report(f"  ranges of {len(work.ranges)} tensors, {len(work.nodes)} nodes with weights")
        plain = work.quantized()
        correct_biases(work.source, plain, work.nodes, work.rows, deadline=work.deadline)
        yield subject.variant.then("int8-static", serialize(plain), calibration="minmax")
        left = _worst(work, subject.answers, report)
        for count in sorted({1, 2, len(left)} - {0}):
            if count > len(left) or time.monotonic() > work.deadline:
                return
            chosen = left[:count]
            mixed = work.quantized(chosen)
            correct_biases(work.source, mixed, work.nodes, work.rows, deadline=work.deadline)
            yield subject.variant.then(
                f"int8-static, {count} float", serialize(mixed), calibration="minmax",
                left_float=chosen,
            )  # fmt: skip


def _prepare(subject: Subject) -> _Work:
    source = source_graph(subject.variant.model)
    calibration = _first(subject.rows, _CALIBRATION_ROWS)
    ranges = observe(source, activations(source), calibration, histograms=False)
    return _Work(
        source, weighted_nodes(source), ranges, _first(subject.rows, _COMPARED_ROWS),
        subject.deadline,
    )  # fmt: skip


def _worst(work: _Work, answers: Tensors, report: Progress) -> list[str]:
    """The nodes that are better left in float32, the worst one first."""
    expected = _answers(work.source, work.rows)
    noise = {(): _noise(expected, _answers(work.quantized(), work.rows))}
    gains: dict[str, float] = {}
    for name in _suspects(work):
        if time.monotonic() > work.deadline:
            break
        left = _noise(expected, _answers(work.quantized([name]), work.rows))
        gains[name] = noise[()] - left
    better = [name for name in sorted(gains, key=lambda n: -gains[n]) if gains[name] > 0]
    report(f"  left in float32, one by one: {', '.join(better[:3]) or 'none helps'}")
    return better[:4]


def _suspects(work: _Work) -> list[str]:
    """The first nodes and the last, and those whose weights are spread widest."""
    names = [node.name for node in work.nodes]
    ends = [*names[:3], *names[-1:]]
    constants = {item.name: item for item in work.source.graph.initializer}
    spread = {
        node.name: _spread(onnx.numpy_helper.to_array(constants[node.input[1]]))
        for node in work.nodes
    }
    wide = sorted(spread, key=lambda name: -spread[name])
    return list(dict.fromkeys([*ends, *wide]))[:_SUSPECTS]


def _spread(weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    """How much larger the largest weight is than the usual one."""
    size = np.abs(weight)
    return float(size.max() / max(float(np.median(size)), 1e-12))


def _answers(model: onnx.ModelProto, rows: Tensors) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    return [
        array.astype(np.float64)
        for array in Probe(model, ()).run(rows).values()
        if array.dtype.kind == "f"
    ]


def _noise(
    expected: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float64]]],
    found: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float64]]],
) -> float:
    """The error's share of the signal: 1 / SQNR."""
    signal = sum(float(np.sum(array**2)) for array in expected)
    error = sum(float(np.sum((a - b) ** 2)) for a, b in zip(expected, found, strict=True))
    return error / max(signal, 1e-30)


def _first(rows: Tensors, count: int) -> Tensors:
    return {name: array[:count] for name, array in rows.items()}
