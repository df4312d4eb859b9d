"""Large matrices with 8 or 4 bits per weight, and activations as they are.

Smaller than in float32, and more exact than with activations as bytes; for matrices that do not
fit into the caches also faster. See `modelport.optimize.quantize.weight_only` for the formulas.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from modelport.core.errors import UnsupportedError
from modelport.optimize.base import NUMBERS, Progress, Subject, Variant
from modelport.optimize.onnx_graph import QUANTIZED, operators, parse, scopes, serialize
from modelport.optimize.quantize.dynamic import Plan
from modelport.optimize.quantize.products import observe_products, products
from modelport.optimize.quantize.weight_only import BLOCKS, quantize_weights
from modelport.optimize.session import simplified

_LEAST: Final = 2**16
_ROWS: Final = 64


class WeightOnlyPass:
    """See the module."""

    name = "weight-only"
    order = NUMBERS
    #: The largest error on calibration rows of a single operator, as a share of the largest output.
    tolerance = 0.2

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        found = operators(parse(subject.variant.model))
        if found & QUANTIZED:
            return "it is quantized already"
        return "" if found & {"MatMul", "Gemm"} else "no matrix products"

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        source = parse(simplified(subject.variant.model))
        sizes = [
            int(np.prod(constants[node.input[1]].dims))
            for graph, constants in scopes(source.graph)
            for node in products(graph, constants)
        ]
        if max(sizes, default=0) < _LEAST:
            raise UnsupportedError(
                f"the largest constant matrix has {max(sizes, default=0):,} numbers; it pays from "
                f"{_LEAST:,} on"
            )
        rows = {name: array[:_ROWS] for name, array in subject.rows.items()}
        plan = Plan(samples=observe_products(source, rows))
        for bits in BLOCKS:
            model = quantize_weights(source, plan, bits)
            title = f"weight-only, {bits} bits"
            yield subject.variant.then(title, serialize(model), products=len(sizes))
