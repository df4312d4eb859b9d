"""Activations as uint8 and weights as int8, with ranges from calibration rows.

Weights are rounded so that their errors cancel; biases move the means back, and scales what has
shrunk; the nodes that lose most are left in float32, one after the other, until the labels of the
calibration rows are inside the budget. See `modelport.optimize.quantize` for the formulas: static,
ranges, rounding, correction.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.base import NUMBERS, Progress, Subject, Variant
from modelport.optimize.onnx_graph import QUANTIZED, operators, parse, serialize, weights
from modelport.optimize.quantize.correction import correct
from modelport.optimize.quantize.ranges import METHODS, Range, observe
from modelport.optimize.quantize.rounding import Rounder
from modelport.optimize.quantize.static import (
    activations,
    quantize,
    source_graph,
    weighted_nodes,
)
from modelport.optimize.session import served

#: Rows that ranges are observed on, at least and at most; for histograms, roundings, corrections
#: and comparisons fewer are enough. In between: as many as take so many bytes in one tensor.
_MANY: Final = (64, 512)
_SOME: Final = (16, 256)
_BYTES: Final = 2**28
#: Nodes that are tried in float32: the first ones, the last one, and those with the widest weights.
_SUSPECTS: Final = 6
_MOST_LEFT: Final = 4
#: A network starts narrow with convolutions of fewer inputs per output than this, or of no more
#: outputs than that; this many of them at most.
_NARROW: Final = 4
_FEW: Final = 16
_START: Final = 3
#: A node has to take away this share of the noise to be worth it, and a method, which cuts off
#: what a few calibration rows do not have but others may, this one.
_WORTH: Final = 0.03
_WORTH_CUTTING: Final = 0.1
_SECONDS: Final = 120.0


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
        if found & QUANTIZED:
            return "it is quantized already"
        if _attends(model):
            return "transformers have outliers that one range for all rows loses: int8-dynamic"
        return "" if found & {"Conv", "Gemm", "MatMul"} else "no convolutions and no matrices"

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        work = _prepare(subject, report)
        plain, loss = work.finished(())
        yield subject.variant.then("int8-static", serialize(plain), **work.told(()))
        left = list(work.start)
        if left:
            mixed, loss = self._mixed(subject, work, left)
            yield mixed
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
    start: Sequence[str]
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
        correct(self.source, model, self.nodes, self.rows)
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
        raise UnsupportedError(
            "no convolution or matrix with constant float32 weights outside branches"
        )
    deadline = min(subject.deadline, time.monotonic() + _SECONDS)
    many, some = _limited(source, subject.rows)
    count = len(next(iter(some.values())))
    ranges = observe(source, activations(source), many, histograms=count)
    if not ranges:
        raise UnsupportedError("no finite activations on the calibration rows")
    report(f"  ranges of {len(ranges)} tensors, {len(nodes)} nodes with weights")
    rounder = Rounder(source, nodes, some, deadline=deadline)
    work = _Work(
        source, nodes, ranges, rounder, some, served(source, some), not _multiplies_bytes(),
        deadline, _narrow_start(source, nodes),
    )  # fmt: skip
    method, least = "minmax", work.noise(work.start)
    for other in METHODS[1:]:
        if time.monotonic() > deadline:
            break
        noise = work.noise(work.start, other)
        if noise < least * (1 - _WORTH_CUTTING):
            method, least = other, noise
    report(f"  calibration by {method}")
    return replace(work, method=method)


def _limited(source: onnx.ModelProto, rows: Tensors) -> tuple[Tensors, Tensors]:
    """Many rows and some, as memory has them."""
    one = {name: array[:1] for name, array in rows.items()}
    sizes = [item.size for item in observe(source, activations(source), one, histograms=0).values()]
    able = _BYTES // max([1, *sizes])
    many, some = int(np.clip(2 * able, *_MANY)), int(np.clip(able, *_SOME))
    return (
        {name: array[:many] for name, array in rows.items()},
        {name: array[:some] for name, array in rows.items()},
    )


def _narrow_start(source: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """The first nodes, where they are convolutions of few channels: of colours, of each channel.

    Bytes are multiplied four at a time, so these are no faster with them, images are large there,
    and it is where most of the noise comes from.
    """
    constants = {item.name: item for item in source.graph.initializer}
    found: list[str] = []
    for node in nodes[:_START]:
        if node.op_type != "Conv":
            break
        outputs, inputs = constants[node.input[1]].dims[:2]
        if inputs >= _NARROW and (not found or outputs > _FEW):
            break
        found.append(node.name)
    return found


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
    """The error's share of what differs between rows, without what corrections move back.

    That is the means of the outputs, and one factor for all of an output.
    """
    signal = error = 0.0
    for name, array in expected.items():
        if array.dtype.kind == "f" and array.ndim:
            wanted, got = _centred(array), _centred(found[name])
            slope = np.sum(wanted * got) / max(float(np.sum(got**2)), 1e-30)
            signal += float(np.sum(wanted**2))
            error += float(np.sum((wanted - slope * got) ** 2))
    return error / max(signal, 1e-30)


def _centred(array: Array) -> Array:
    wide = array.astype(np.float64)
    found: Array = wide - wide.mean(axis=0)
    return found


def _loss(expected: Tensors, found: Tensors) -> float:
    """Rows with another label, for answers that look like scores of labels; else 1 - R^2."""
    first = next((name for name, array in expected.items() if array.dtype.kind == "f"), "")
    if first and expected[first].ndim == 2 and expected[first].shape[1] > 1:
        return float(np.mean(expected[first].argmax(axis=1) != found[first].argmax(axis=1)))
    floats = [name for name, array in expected.items() if array.dtype.kind == "f" and array.ndim]
    error = sum(float(np.sum((expected[one] - found[one]).astype(float) ** 2)) for one in floats)
    return error / max(sum(float(np.sum(_centred(expected[one]) ** 2)) for one in floats), 1e-30)


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
