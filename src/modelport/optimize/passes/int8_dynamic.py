"""Weights as int8, activations as uint8 with a range of their own in every request.

For matrices: transformers, recurrent networks, perceptrons. A convolution would be slower by it
than in float32 and stays as it is. An embedding may be int8, too: it is read, not computed with.

Weights: scale = max|w| / 127 per output channel, zero point 0, rounded to the nearest even.
Activations: scale = (max - min) / 255 over the tensor, with zero in the range, at run time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from onnxruntime.quantization import QuantType, quantize_dynamic

from modelport.core.errors import UnsupportedError
from modelport.core.quiet import quiet_stderr
from modelport.optimize.base import NUMBERS, Progress, Subject, Variant
from modelport.optimize.onnx_graph import operators, parse
from modelport.optimize.session import simplified

_MATRICES: Final = ("MatMul", "Gemm", "LSTM", "GRU", "Attention", "EmbedLayerNormalization")


class Int8DynamicPass:
    """See the module."""

    name = "int8-dynamic"
    order = NUMBERS

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        found = operators(parse(subject.variant.model))
        if found & {"DequantizeLinear", "MatMulInteger", "DynamicQuantizeLSTM"}:
            return "it is quantized already"
        return "" if found & set(_MATRICES) else "no matrix products"

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        source = simplified(subject.variant.model)
        has_tables = "Gather" in operators(parse(source))
        plain = subject.variant.then("int8-dynamic", _quantized(source, _MATRICES))
        yield replace(plain, row_independent=False)
        if has_tables:
            both = _quantized(source, (*_MATRICES, "Gather"))
            tables = subject.variant.then("int8-dynamic, tables too", both)
            yield replace(tables, row_independent=False)


def _quantized(source: bytes, kinds: tuple[str, ...]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="modelport-") as folder, quiet_stderr():
        path, out = Path(folder) / "source.onnx", Path(folder) / "quantized.onnx"
        path.write_bytes(source)
        try:
            quantize_dynamic(
                path, out, op_types_to_quantize=list(kinds), per_channel=True,
                weight_type=QuantType.QInt8, extra_options={"MatMulConstBOnly": True},
            )  # fmt: skip
        except Exception as error:  # the quantizer has no common base class for its errors
            raise UnsupportedError(f"the quantizer says: {error}") from error
        return out.read_bytes()
