"""Weights as int8, activations as uint8 with a range of their own in every request.

For matrices: transformers, recurrent networks, perceptrons. A convolution would be slower by it
than in float32 and stays as it is. An embedding becomes int8, too: it is read, not computed with.
See `modelport.optimize.quantize.dynamic` for the formulas.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from modelport.core.errors import UnsupportedError
from modelport.core.quiet import quiet_stderr
from modelport.core.tensors import Tensors
from modelport.optimize.base import NUMBERS, Progress, Subject, Variant
from modelport.optimize.onnx_graph import (
    QUANTIZED,
    at_least,
    operators,
    parse,
    scopes,
    serialize,
)
from modelport.optimize.quantize.dynamic import Plan, quantize_dynamically
from modelport.optimize.quantize.products import observe_products, products, tables
from modelport.optimize.quantize.smoothing import smoothing
from modelport.optimize.session import simplified

_MATRICES: Final = frozenset({"MatMul", "Gemm", "LSTM", "GRU"})
#: DynamicQuantizeLinear came with it.
_OPSET: Final = 11
_ROWS: Final = 64


class Int8DynamicPass:
    """See the module."""

    name = "int8-dynamic"
    order = NUMBERS
    #: The largest error on calibration rows of a single operator, as a share of the largest output.
    tolerance = 0.05

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        found = operators(parse(subject.variant.model))
        if found & QUANTIZED:
            return "it is quantized already"
        return "" if found & _MATRICES else "no matrix products"

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        source = parse(simplified(at_least(subject.variant.model, _OPSET)))
        scoped = list(scopes(source.graph))
        count = sum(len(list(products(*scope))) for scope in scoped)
        looked_up = sum(len(list(tables(*scope))) for scope in scoped)
        recurrent = "LSTM" in operators(source)
        if not count and not recurrent:
            raise UnsupportedError("no matrix product with a constant matrix that is large enough")
        rows: Tensors = {name: array[:_ROWS] for name, array in subject.rows.items()}
        samples = observe_products(source, rows)
        smooth = smoothing(source, samples)
        told = {"products": count, "tables": looked_up, "lstm": recurrent}
        plain = quantize_dynamically(source, Plan(samples=samples))
        yield _made(subject, "int8-dynamic", plain, {**told, "smoothed": 0})
        if smooth:
            report(f"  smoothed: {len(smooth)} of {len(samples)} tensors")
            model = quantize_dynamically(source, Plan(smooth, samples))
            yield _made(subject, "int8-dynamic, smooth", model, {**told, "smoothed": len(smooth)})


def _made(subject: Subject, title: str, model: onnx.ModelProto, told: dict[str, object]) -> Variant:
    content = serialize(model)
    if told["lstm"]:
        content = _recurrent(content)
    return replace(subject.variant.then(title, content, **told), row_independent=False)


def _recurrent(model: bytes) -> bytes:
    """With the weights of LSTMs as int8, by ONNX Runtime's own quantizer."""
    with tempfile.TemporaryDirectory(prefix="modelport-") as folder, quiet_stderr():
        path, out = Path(folder) / "source.onnx", Path(folder) / "quantized.onnx"
        path.write_bytes(model)
        try:
            quantize_dynamic(
                path, out, op_types_to_quantize=["LSTM"], per_channel=True,
                weight_type=QuantType.QInt8,
            )  # fmt: skip
        except Exception as error:  # the quantizer has no common base class for its errors
            raise UnsupportedError(f"the quantizer says: {error}") from error
        return out.read_bytes()
