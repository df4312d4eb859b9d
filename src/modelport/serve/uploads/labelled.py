"""Answers for people: rows of outputs by name, and labels with their probabilities.

Everything is written as strict JSON (RFC 8259): a NaN or an infinity is ``null``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import orjson

from modelport.core.signature import Signature
from modelport.core.tensors import STRING, Array

#: Outputs of a labels step; see `modelport.processing.labels`.
_PAIRS: Final = (
    ("label", "probability"),
    ("labels", "probabilities"),
    ("top_label", "top_probability"),
    ("top_labels", "top_probabilities"),
)


def label_outputs(signature: Signature) -> tuple[str, str] | None:
    """The names of the outputs with labels and with their probabilities, if there are any."""
    specs = signature.outputs_by_name
    for label, probability in _PAIRS:
        if (
            label in specs
            and probability in specs
            and specs[label].dtype == STRING
            and specs[label].shape == specs[probability].shape
            and len(specs[label].shape) in (1, 2)
        ):
            return label, probability
    return None


def best_labels(outputs: Mapping[str, Array], names: tuple[str, str]) -> list[list[dict[str, Any]]]:
    """Per row ``{"label", "probability"}``, best first."""
    # One label per row stands in a column of its own; there may be no rows at all.
    labels, probabilities = (
        array if array.ndim == 2 else array[:, np.newaxis]
        for array in (outputs[name] for name in names)
    )
    return [
        [
            {"label": label, "probability": probability}
            for label, probability in zip(row, numbers, strict=True)
        ]
        for row, numbers in zip(labels, probabilities, strict=True)
    ]


def rows_by_name(outputs: Mapping[str, Array]) -> list[dict[str, Any]] | None:
    """Per row its outputs by name; None where the outputs have no rows in common."""
    sizes = {array.shape[0] if array.ndim else None for array in outputs.values()}
    if len(sizes) != 1 or None in sizes:
        return None
    (count,) = sizes
    return [{name: array[i] for name, array in outputs.items()} for i in range(count or 0)]


def dumps_strict(value: Any) -> bytes:
    """Encode plain values, and arrays among them, as strict JSON."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)


def strict(body: bytes) -> bytes:
    """JSON with ``null`` in place of the bare tokens ``NaN``, ``Infinity`` and ``-Infinity``."""
    if b"NaN" in body or b"Infinity" in body:
        return orjson.dumps(json.loads(body))
    return body


def _plain(item: Any) -> Any:
    if isinstance(item, bytes):
        return item.decode("utf-8", errors="replace")
    if isinstance(item, (np.ndarray, np.generic)):  # objects, and what orjson knows not
        return item.tolist()
    raise TypeError(type(item).__name__)
