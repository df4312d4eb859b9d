"""Statistics of the sample rows, for drift to be measured against later."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np

from modelport.core.signature import Signature
from modelport.core.tensors import STRING, Array, Tensors, TensorSpec

_QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_TOP: Final = 20


def describe_rows(inputs: Tensors, signature: Signature) -> dict[str, Any]:
    """Describe the sample as the model's inputs, plainly and always the same way.

    Parameters
    ----------
    inputs : mapping of str to ndarray
        All rows, bound to `signature`.

    Returns
    -------
    dict
        ``{"rows": n, "inputs": {name: [column, …]}}``. A matrix has one entry per column, any
        other tensor one for all its elements. Numbers have ``count``, ``missing`` (NaN),
        ``infinite``, ``mean``, ``std``, ``min``, ``max`` and ``quantiles`` over the finite
        elements; text has ``count``, ``missing`` (empty), ``distinct`` and ``top``, the most
        frequent values with their counts. Where most values differ they are free text or
        people's names rather than categories, and stay out of the package, as does any value
        that occurs once. Never NaN or infinity: JSON has neither.
    """
    first = next(iter(inputs.values()))
    return {
        "rows": len(first) if first.ndim else 1,
        "inputs": {
            spec.name: _describe_input(spec, inputs[spec.name]) for spec in signature.inputs
        },
    }


def _describe_input(spec: TensorSpec, array: Array) -> list[dict[str, Any]]:
    if array.ndim != 2:
        return [_describe_column(spec.name, array.ravel())]
    names = spec.columns or (
        (spec.name,)
        if array.shape[1] == 1
        else tuple(f"{spec.name}[{i}]" for i in range(array.shape[1]))
    )
    return [_describe_column(name, array[:, i]) for i, name in enumerate(names)]


def _describe_column(name: str, values: Array) -> dict[str, Any]:
    if values.dtype.kind in "OUS":
        return {"name": name, "dtype": STRING, **_describe_text(values)}
    return {"name": name, "dtype": str(values.dtype), **_describe_numbers(values)}


def _describe_text(values: Array) -> dict[str, Any]:
    counts = Counter(str(value) for value in values)
    missing = counts.pop("", 0)
    # Equal counts in alphabetical order: the same rows give the same bytes.
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if 2 * len(counts) > len(values) - missing:
        ordered = []
    return {
        "count": len(values),
        "missing": missing,
        "distinct": len(counts),
        "top": [[value, count] for value, count in ordered[:_TOP] if count > 1],
    }


def _describe_numbers(values: Array) -> dict[str, Any]:
    wide = values.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    plain: dict[str, Any] = {
        "count": len(wide),
        "missing": int(np.isnan(wide).sum()),
        "infinite": int(np.isinf(wide).sum()),
    }
    if not finite.size:
        return plain
    # Scaled first, so that the squares of large numbers do not overflow.
    scale = float(np.abs(finite).max()) or 1.0
    scaled = finite / scale
    return {
        **plain,
        "mean": float(scaled.mean()) * scale,
        "std": float(scaled.std()) * scale,
        "min": float(finite.min()),
        "max": float(finite.max()),
        "quantiles": {
            str(q): float(value)
            for q, value in zip(_QUANTILES, np.quantile(scaled, _QUANTILES) * scale, strict=True)
        },
    }
