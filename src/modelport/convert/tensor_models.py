"""What adapters share whose models take tensors of known names, element types and shapes.

Keras, TensorFlow and TFLite models tell their signature; what follows from it alone is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np

from modelport.convert.base import Probe
from modelport.core.errors import InputError
from modelport.core.golden import choose_rows
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import Array, TensorSpec

_MADE_UP: Final = 64
#: Sizes that are tried for a dimension that may have any.
_SIZES: Final = (16, 64, 224)
_PROBED: Final = 4


def other_sizes(rows: Rows, signature: Signature) -> list[Probe]:
    """The same rows, longer and shorter along every dimension that may have any size.

    Parameters
    ----------
    rows : Rows
        Under the names of the signature's inputs.
    """
    batch = signature.batch_symbol
    free = {
        spec.name: [
            axis
            for axis, d in enumerate(spec.shape)
            if isinstance(d, str) and not (axis == 0 and d == batch)
        ]
        for spec in signature.inputs
    }
    if batch is None or not any(free.values()):
        return []
    chosen = choose_rows(len(rows), _PROBED)
    base = {spec.name: rows.columns[spec.name][chosen] for spec in signature.inputs}
    probes = []
    for title, resize in (
        ("one element less", lambda size: size - 1),
        ("half as large", lambda size: size // 2),
        ("twice as large and one more", lambda size: 2 * size + 1),
    ):
        columns = {n: _resized(array, free[n], resize) for n, array in base.items()}
        if all(array.size for array in columns.values()):
            probes.append(Probe(f"sizes that may vary: {title}", Rows(columns)))
    return probes


def _resized(array: Array, axes: Iterable[int], resize: Callable[[int], int]) -> Array:
    for axis in axes:
        positions = np.arange(resize(array.shape[axis])) % array.shape[axis]
        array = np.take(array, positions, axis=axis)
    return array


def made_up_rows(
    signature: Signature, predict: Callable[[Rows], dict[str, Array]], integers: int = 0
) -> Rows | None:
    """Normally distributed numbers, and integers below `integers`; None where that fails.

    Parameters
    ----------
    predict : callable
        The source model; it decides whether the rows are of any use.
    integers : int
        0 where nobody knows which integers the model takes.
    """
    for size in _SIZES:
        generator = np.random.default_rng(20261121)
        columns = {}
        for spec in signature.inputs:
            shape = [d if isinstance(d, int) else size for d in spec.shape]
            if spec.shape and isinstance(spec.shape[0], str):
                shape[0] = _MADE_UP
            if spec.numpy_dtype.kind == "f" and not integers:
                columns[spec.name] = generator.normal(size=shape).astype(spec.numpy_dtype)
            elif spec.numpy_dtype.kind in "fiu" and integers:
                columns[spec.name] = generator.integers(0, integers, shape).astype(spec.numpy_dtype)
            else:
                return None
        try:
            rows = Rows(columns, "made-up rows")
            predict(rows)
        except InputError:
            continue
        return rows
    return None


def integer_limits(rows: Rows, input_name: str, vocabulary: int) -> Probe:
    """Rows that hold the last identifier of a vocabulary, the one after it, and negative ones."""
    values = [vocabulary - 1, vocabulary, -1, -vocabulary, -vocabulary - 1]
    dtype = rows.columns[input_name].dtype
    if dtype.kind in "iu":
        values = [v for v in values if np.iinfo(dtype).min <= v <= np.iinfo(dtype).max]
    take = np.arange(len(values)) % len(rows)
    columns = {name: array[take] for name, array in rows.columns.items()}
    columns[input_name].reshape(len(values), -1)[:, 0] = values
    return Probe(f"identifiers at the limits of the vocabulary in {input_name}", Rows(columns))


def unique_names(names: Iterable[str]) -> Iterator[str]:
    """The names with a number after those that stood before: ``a a`` → ``a a_1``."""
    seen: set[str] = set()
    for name in names:
        number, unique = 0, name
        while unique in seen:
            number += 1
            unique = f"{name}_{number}"
        seen.add(unique)
        yield unique


def spec_with_symbols(name: str, dtype: str, shape: Iterable[int | None], batch: str) -> TensorSpec:
    """A specification whose unknown sizes have names; the first one is the batch."""
    return TensorSpec(
        name,
        dtype,
        tuple(
            size if size is not None else (batch if axis == 0 else f"{name}_{axis}")
            for axis, size in enumerate(shape)
        ),
    )
