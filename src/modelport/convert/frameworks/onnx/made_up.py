"""Rows for an ONNX model that came without a sample.

A file tells element types and some sizes, and not which values make sense. So rows are tried, the
likeliest first, until the model answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Final

import numpy as np

from modelport.convert.frameworks.onnx.shapes import Declared
from modelport.core.rows import Rows
from modelport.core.tensors import NUMPY_DTYPES, STRING, Array

_ROWS: Final = 64
#: Rows of large inputs (images) are fewer, so that this takes seconds.
_MOST_ELEMENTS: Final = 1 << 20
#: Sizes for dimensions that the file leaves open, other than the batch: a length that most
#: networks take, the usual sides of images, and what recurrent networks and text recognisers want.
SIZES: Final = (32, 16, 224, 1, 48, 8, 128, 512)
#: Integers are codes, indices or flags: below 10, of 0 and 1, all 0.
_BELOW: Final = (10, 2, 1)
_WORDS: Final = ("", "a", "modelport", "żółw 東京", "12", "-1.5", "The quick brown fox")


def possible_rows(inputs: Sequence[Declared]) -> Iterator[Rows]:
    """Rows to try; always the same for the same inputs."""
    shapes = [declared.shape or (f"{declared.name}_0", f"{declared.name}_1") for declared in inputs]
    free = any(isinstance(d, str) for shape in shapes for d in shape[1:])
    whole = any(NUMPY_DTYPES[declared.dtype].kind in "iu" for declared in inputs)
    counts = (_ROWS, 1) if any(s and isinstance(s[0], str) for s in shapes) else (_ROWS,)
    for count, size, below in product(
        counts, SIZES if free else SIZES[:1], _BELOW if whole else _BELOW[:1]
    ):
        generator = np.random.default_rng(20261121)
        leads = {shape[0] for shape in shapes if shape}
        sizes = [_sized(shape, leads, count, size) for shape in shapes]
        elements = max(int(np.prod(sized[1:], dtype=np.int64)) for sized in sizes)
        most = max(2, _MOST_ELEMENTS // max(1, elements))
        if count > most:
            sizes = [_sized(shape, leads, most, size) for shape in shapes]
        columns = {
            declared.name: _values(declared, sized, below, generator)
            for declared, sized in zip(inputs, sizes, strict=True)
        }
        if any(array.size for array in columns.values()):
            yield Rows(columns, "made-up rows")


def _sized(
    shape: tuple[int | str, ...], leads: set[int | str], count: int, size: int
) -> tuple[int, ...]:
    """The first dimension's symbol is the batch wherever it stands (a recurrent state's second)."""
    return tuple(d if isinstance(d, int) else count if d in leads else size for d in shape)


def _values(
    declared: Declared, shape: tuple[int, ...], below: int, generator: np.random.Generator
) -> Array:
    dtype = NUMPY_DTYPES[declared.dtype]
    if declared.dtype == STRING:
        return generator.choice(np.asarray(_WORDS, dtype=object), size=shape)
    if dtype.kind == "f":
        return np.asarray(generator.normal(size=shape)).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(generator.random(size=shape) < 0.5)
    name = declared.name.lower()
    if "mask" in name:
        return np.ones(shape, dtype)
    if "token_type" in name or "segment" in name:
        return np.zeros(shape, dtype)
    # Images come as bytes.
    most = 256 if dtype == np.uint8 and below == _BELOW[0] else below
    return np.asarray(generator.integers(0, most, size=shape)).astype(dtype)
