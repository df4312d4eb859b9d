"""Columns with outliers are made smaller before a product, and the rows of its matrix larger.

Smoothing (Xiao et al., "SmoothQuant", 2022, equation 4) divides the columns of X by

    s_j = max|X_j| ** alpha / max|W_j| ** (1 - alpha)

and multiplies the rows of W by it, so that a few columns with outliers do not use up the range of
all others. It costs one multiplication by a vector before the product; alpha is chosen for each
tensor by the error of the product on the calibration rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx

from modelport.core.tensors import Array
from modelport.optimize.quantize.products import matrix_of, products, steps

_ALPHAS: Final = (0.5, 0.65, 0.75, 0.85, 0.95)
#: By which smoothing has to lower the error of a product to be worth its multiplication.
_WORTH: Final = 0.4
_COMPARED: Final = 512


def smoothing(model: onnx.ModelProto, samples: Mapping[str, Array]) -> dict[str, Array]:
    """By what the columns of each tensor are to be divided; only where it is worth it."""
    constants = {item.name: item for item in model.graph.initializer}
    readers: dict[str, list[Array]] = {}
    for node in products(model.graph, constants):
        readers.setdefault(node.input[0], []).append(matrix_of(node, constants))
    found: dict[str, Array] = {}
    for name, sample in samples.items():
        weights = np.concatenate(readers[name], axis=1)
        few = sample[:_COMPARED]
        wanted = few @ weights
        least = _error(few, weights, wanted) * (1 - _WORTH)
        reach, sizes = np.abs(sample).max(axis=0), np.abs(weights).max(axis=1)
        for alpha in _ALPHAS:
            scales = np.maximum(reach, 1e-5) ** alpha / np.maximum(sizes, 1e-5) ** (1 - alpha)
            scales = (scales / np.exp(np.mean(np.log(scales)))).astype(np.float32)
            error = _error(few / scales, weights * scales[:, None], wanted)
            if error < least:
                found[name], least = scales, error
    return found


def _error(inputs: Array, weights: Array, wanted: Array) -> float:
    """Of a product with bytes, as a sum of squares."""
    low, high = min(float(inputs.min()), 0.0), max(float(inputs.max()), 0.0)
    step = max(high - low, 1e-12) / 255
    scales = steps(weights, axis=0)
    found = (np.round(inputs / step) * step) @ (np.round(weights / scales) * scales)
    return float(np.sum((found - wanted) ** 2))
