"""Activations as uint8 and weights as int8, with ranges from calibration rows.

Weights are rounded so that their errors cancel, biases move the means back, and the nodes that
lose most are left in float32, one after the other, until the labels of the calibration rows are
inside the budget. See `modelport.optimize.quantize.static` for the formulas.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.base import NUMBERS, Progress, Subject, Variant
from modelport.optimize.onnx_graph import operators, parse, serialize, weights
from modelport.optimize.quantize.correction import correct_biases
from modelport.optimize.quantize.ranges import METHODS, Range, observe
from modelport.optimize.quantize.rounding import Rounder
from modelport.optimize.quantize.static import (
    activations,
    quantize,
    source_graph,
    weighted_nodes,
)
from modelport.optimize.session import served

#: Rows that ranges are observed on; for roundings, corrections and comparisons fewer are enough.
_CALIBRATION_ROWS: Final = 128
_ROUNDING_ROWS: Final = 64
_COMPARED_ROWS: Final = 48
_HISTOGRAM_ROWS: Final = 16
#: Nodes that are tried in float32: the first ones, the last one, and those with the widest weights.
_SUSPECTS: Final = 6
_MOST_LEFT: Final = 4
#: Channels from which on a first convolution gains by bytes.
_NARROW: Final = 4
#: A node has to take away this share of the noise to be worth it, and a method, which cuts off
#: what a few calibration rows do not have but others may, this one.
_WORTH: Final = 0.03
_WORTH_CUTTING: Final = 0.15
_SECONDS: Final = 120.0

_QUANTIZED: Final = frozenset(
    {"DequantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger",
     "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulNBits"}
)  # fmt: skip


class Int8StaticPass:
    """See the module."""

    name = "int8-static"
    order = NUMBERS
    #: The largest error on calibration rows of a single operator, as a share of the largest output.
    tolerance = 0.05

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        model = parse(subject.variant.model)
        found = operators(model)
        if found & _QUANTIZED:
            return "it is quantized already"
        if _attends(model):
            return "transformers have outliers that one range for all rows loses: int8-dynamic"
        return "" if found & {"Conv", "Gemm", "MatMul"} else "no convolutions and no matrices"

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        work = _prepare(subject, report)
        plain, loss = work.finished(())
        yield subject.variant.then("int8-static", serialize(plain), **work.told(()))
        left: list[str] = []
        if _has_narrow_stem(work):
            left = [work.nodes[0].name]
            yield self._mixed(subject, work, left)[0]
        if loss <= subject.max_drop / 2:
            return
        best = work.noise(left)
        for name in _ranked(work, left, report):
            if len(left) >= _MOST_LEFT or time.monotonic() > work.deadline:
                return
            noise = work.noise((*left, name))
            if noise > best * (1 - _WORTH):
                continue
            left, best = [*left, name], noise
            variant, loss = self._mixed(subject, work, left)
            yield variant
            if loss <= subject.max_drop / 2:
                return

    def _mixed(self, subject: Subject, work: _Work, left: list[str]) -> tuple[Variant, float]:
        model, loss = work.finished(left)
        title = f"int8-static, {len(left)} float"
        return subject.variant.then(title, serialize(model), **work.told(left)), loss


@dataclass(frozen=True)
class _Work:
    """What all variants of a subject share."""

    source: onnx.ModelProto
    nodes: Sequence[onnx.NodeProto]
    ranges: dict[str, Range]
    rounder: Rounder
    rows: Tensors
    expected: Tensors
    narrow: bool
    deadline: float
    method: str = "minmax"

    def quantized(self, left_float: Sequence[str], method: str = "") -> onnx.ModelProto:
        """With rounded weights."""
        model = quantize(
            self.source, self.ranges, method or self.method, left_float, narrow=self.narrow
        )
        self.rounder.apply(model)
        return model

    def noise(self, left_float: Sequence[str], method: str = "") -> float:
        """What is lost before the biases are corrected."""
        return _noise(self.expected, served(self.quantized(left_float, method), self.rows))

    def finished(self, left_float: Sequence[str]) -> tuple[onnx.ModelProto, float]:
        """With corrected biases, and the share of the calibration rows that it loses."""
        model = self.quantized(left_float)
        correct_biases(self.source, model, self.nodes, self.rows, deadline=self.deadline)
        return model, _loss(self.expected, served(model, self.rows))

    def told(self, left_float: Sequence[str]) -> dict[str, object]:
        """For the report."""
        return {
            "calibration": self.method,
            "weight_bits": 7 if self.narrow else 8,
            "left_float": list(left_float),
        }


def _prepare(subject: Subject, report: Progress) -> _Work:
    source = source_graph(subject.variant.model)
    nodes = weighted_nodes(source)
    if not nodes:
        raise UnsupportedError("no convolution or matrix with constant weights outside branches")
    deadline = min(subject.deadline, time.monotonic() + _SECONDS)
    ranges = observe(
        source, activations(source), _first(subject.rows, _CALIBRATION_ROWS),
        histograms=_HISTOGRAM_ROWS,
    )  # fmt: skip
    if not ranges:
        raise UnsupportedError("no finite activations on the calibration rows")
    report(f"  ranges of {len(ranges)} tensors, {len(nodes)} nodes with weights")
    rounder = Rounder(source, nodes, _first(subject.rows, _ROUNDING_ROWS), deadline=deadline)
    rows = _first(subject.rows, _COMPARED_ROWS)
    work = _Work(
        source, nodes, ranges, rounder, rows, served(source, rows), not _multiplies_bytes(),
        deadline,
    )  # fmt: skip
    method, least = "minmax", work.noise(())
    for other in METHODS[1:]:
        noise = work.noise((), other)
        if noise < least * (1 - _WORTH_CUTTING):
            method, least = other, noise
    report(f"  calibration by {method}")
    return _Work(**{**vars(work), "method": method})


def _has_narrow_stem(work: _Work) -> bool:
    """Whether the first node is a convolution of a few channels, as of colours.

    Bytes are multiplied four at a time, so it is no faster with them, and it is where most of
    the noise comes from.
    """
    first = work.nodes[0]
    constants = {item.name: item for item in work.source.graph.initializer}
    return first.op_type == "Conv" and constants[first.input[1]].dims[1] < _NARROW


def _ranked(work: _Work, left: Sequence[str], report: Progress) -> list[str]:
    """The nodes that are better left in float32, too, the best one first."""
    whole = work.noise(left)
    gains: dict[str, float] = {}
    for name in _suspects(work):
        if time.monotonic() > work.deadline:
            break
        if name not in left:
            gains[name] = whole - work.noise((*left, name))
    better = [name for name in sorted(gains, key=lambda n: -gains[n]) if gains[name] > 0]
    report(f"  left in float32, one by one: {', '.join(better[:3]) or 'none helps'}")
    return better


def _suspects(work: _Work) -> list[str]:
    """The first nodes and the last, and those whose weights are spread widest."""
    names = [node.name for node in work.nodes]
    constants = {item.name: item for item in work.source.graph.initializer}
    spread = {
        node.name: _spread(numpy_helper.to_array(constants[node.input[1]])) for node in work.nodes
    }
    wide = sorted(spread, key=lambda name: -spread[name])
    return list(dict.fromkeys([*names[:3], *names[-1:], *wide]))[:_SUSPECTS]


def _spread(weight: Array) -> float:
    """How much larger the largest weight is than the usual one."""
    size = np.abs(weight)
    return float(size.max(initial=0.0) / max(float(np.median(size)), 1e-12))


def _noise(expected: Tensors, found: Tensors) -> float:
    """The error's share of the signal, 1 / SQNR, without the mean, which biases move back."""
    signal = error = 0.0
    for name, array in expected.items():
        if array.dtype.kind == "f":
            wide = array.astype(np.float64)
            off = wide - found[name]
            signal += float(np.sum(wide**2))
            error += float(np.sum((off - off.mean(axis=0)) ** 2))
    return error / max(signal, 1e-30)


def _loss(expected: Tensors, found: Tensors) -> float:
    """Rows with another label, for answers that look like scores of labels; else the noise."""
    first = next((name for name, array in expected.items() if array.dtype.kind == "f"), "")
    if first and expected[first].ndim == 2 and expected[first].shape[1] > 1:
        return float(np.mean(expected[first].argmax(axis=1) != found[first].argmax(axis=1)))
    return _noise(expected, found)


def _attends(model: onnx.ModelProto) -> bool:
    """Whether matrices are multiplied that are both computed."""
    constants = set(weights(model))
    products = (node for node in model.graph.node if node.op_type == "MatMul")
    return "Attention" in operators(model) or (
        "Softmax" in operators(model) and any(constants.isdisjoint(node.input) for node in products)
    )


def _multiplies_bytes() -> bool:
    """Whether the processor adds products of bytes without saturation: VNNI, or not x86."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    path = Path("/proc/cpuinfo")
    return not path.is_file() or "vnni" in path.read_text(encoding="utf-8", errors="replace")


def _first(rows: Tensors, count: int) -> Tensors:
    return {name: array[:count] for name, array in rows.items()}
