"""Triton's classification extension: the best classes of an output, as text.

``<value>:<index>[:<label>]``, the highest value first. Source: Triton's
``docs/protocol/extension_classification.md``, ``src/classification.cc`` (how numbers are
written) and ``src/http_server.cc`` (the shape).
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from modelport.core.errors import InputError
from modelport.core.tensors import Array, TensorSpec
from modelport.serve.oip.codec import shown

#: The protocol's integers have 64 bits.
_END: Final = 2**64


def class_count(value: Any) -> int:
    """How many classes the output parameter ``classification`` asks for; 0: the output itself.

    Raises
    ------
    InputError
    """
    if type(value) is not int or not 0 <= value < _END:
        raise InputError(
            f"parameter 'classification' is {shown(value)}, expected an integer from 0"
        )
    return value


def check_classes(spec: TensorSpec) -> None:
    """Check that an output has values that can be compared.

    Raises
    ------
    InputError
        For text, bytes and booleans.
    """
    if spec.numpy_dtype.kind not in "iuf":
        raise InputError(
            f"class result not available for output {spec.name} due to unsupported type "
            f"{spec.dtype}"
        )


def classify(array: Array, spec: TensorSpec, count: int, *, batched: bool) -> Array:
    """The `count` best classes of each row.

    Parameters
    ----------
    array : ndarray
        The output; all dimensions but the batch are one list of classes.
    spec : TensorSpec
        Of the output; its `columns` are the labels, where there is one for every class.
    count : int
        All, where there are fewer classes.
    batched : bool
        The first dimension is the batch.

    Returns
    -------
    ndarray of str
        ``[batch, count]``, or ``[count]`` without a batch. Of equal values the first in the
        output comes first; NaN comes last.
    """
    sizes = array.shape[1:] if batched and array.ndim else array.shape
    rows = array.reshape(-1, math.prod(sizes)) if math.prod(sizes) else array.reshape(0, 0)
    labels = spec.columns if len(spec.columns) == rows.shape[1] else ()
    count = min(count, rows.shape[1])
    texts = np.empty((len(rows), count), dtype=object)
    for position, row in enumerate(rows):
        texts[position] = [_text(row, int(i), labels) for i in _best(row)[:count]]
    if batched and array.ndim:
        return texts.reshape(array.shape[0], count)
    return texts.reshape(count)


def _best(row: Array) -> Array:
    """Indices of the highest values first."""
    if row.dtype.kind == "f":
        row = np.where(np.isnan(row), -np.inf, row)
    # A stable sort of the reversed row, reversed: equal values stay in order.
    ascending = np.argsort(row[::-1], kind="stable")
    return len(row) - 1 - ascending[::-1]


def _text(row: Array, index: int, labels: tuple[str, ...]) -> str:
    value = row[index].item()
    text = f"{value:f}" if isinstance(value, float) else str(value)
    return f"{text}:{index}:{labels[index]}" if labels else f"{text}:{index}"
