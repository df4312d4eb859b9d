"""Columns of a table become a model's inputs, by name where there are names.

An input takes the columns that its specification names; without such names one column of its
own name, whose cells may be lists; and the single input of a model whose columns have no names
takes as many columns as it is wide, in the order in which they come. Columns that belong to no
input are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelport.core.errors import InputError, SignatureError
from modelport.core.signature import Signature
from modelport.core.tensors import BYTES, STRING, Array, TensorSpec

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Part:
    """The columns of one input.

    Parameters
    ----------
    spec : TensorSpec
    positions : sequence of int
        Which columns of the table, in the input's order.
    stacked : bool
        They are the input's last dimensions; otherwise the one column is the whole input.
    """

    spec: TensorSpec
    positions: Sequence[int]
    stacked: bool

    def shaped(self, array: Array) -> Array:
        """A matrix ``[rows, columns]`` as the input's shape."""
        if self.stacked and len(self.spec.shape) > 2:
            try:
                return array.reshape(len(array), *self.spec.shape[1:])
            except (TypeError, ValueError):
                return array  # the signature says what it needs
        return array


def plan(names: Sequence[str] | None, width: int, signature: Signature) -> list[Part]:
    """Find each input's columns.

    Parameters
    ----------
    names : sequence of str or None
        None: columns are told by their order alone.
    width : int
        How many columns there are.
    signature : Signature

    Raises
    ------
    InputError
        When names repeat.
    SignatureError
        Naming the columns that are missing.
    """
    if names is None:
        return _by_order(width, signature)
    at = {name: position for position, name in enumerate(names)}
    if len(at) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"column names repeat: {twice[:80]}")
    parts: list[Part] = []
    missing: list[str] = []
    for spec in signature.inputs:
        if spec.name in at:
            parts.append(Part(spec, [at[spec.name]], stacked=False))
        elif spec.columns:
            missing += [name for name in spec.columns if name not in at]
            parts.append(Part(spec, [at.get(name, 0) for name in spec.columns], stacked=True))
        elif len(signature.inputs) == 1 and _width(spec) in (width, None):
            return _by_order(width, signature)
        else:
            missing.append(spec.name)
    if missing:
        raise SignatureError(
            f"columns are missing: {_list(missing)}; the model takes "
            f"{_list(names_of(signature))}; the data has {_list(names)}"
        )
    return parts


def names_of(signature: Signature) -> list[str]:
    """The columns that `plan` looks for, by name."""
    return [name for spec in signature.inputs for name in spec.columns or (spec.name,)]


def in_order(positions: Sequence[int], width: int) -> bool:
    """Whether these are all columns of a table, one after the other."""
    everything = range(width)
    return positions == everything or list(positions) == list(everything)


def _by_order(width: int, signature: Signature) -> list[Part]:
    widths = [_width(spec) for spec in signature.inputs]
    if len(widths) == 1 and widths[0] is None:
        widths = [width]
    if None in widths:
        raise SignatureError(
            f"columns without names do not tell which input they belong to; the model takes "
            f"{_list(names_of(signature))}"
        )
    total = sum(size or 0 for size in widths)
    if total != width:
        taken = ", ".join(f"{spec.name} {spec.shape_text}" for spec in signature.inputs[:_SHOWN])
        raise SignatureError(f"rows have {width} columns, the model takes {total}: {taken}")
    parts, used = [], 0
    for spec, size in zip(signature.inputs, widths, strict=True):
        end = used + (size or 0)
        parts.append(Part(spec, range(used, end), stacked=len(spec.shape) > 1))
        used = end
    return parts


def _width(spec: TensorSpec) -> int | None:
    """How many numbers one row has; None where that is open."""
    sizes = spec.shape[1:]
    return math.prod(size for size in sizes if isinstance(size, int)) if all(
        isinstance(size, int) for size in sizes
    ) else None  # fmt: skip


def cast(array: Array, spec: TensorSpec) -> Array:
    """An array that came with its own element type, as an input's.

    Numbers of any size become floating-point ones, integers other integers where they fit;
    numbers never become integers by rounding, nor text numbers, nor truth values either.

    Raises
    ------
    SignatureError
    """
    target = spec.numpy_dtype
    if array.dtype == target and target.kind != "O":
        return array
    if spec.dtype == STRING:
        return _texts(array, spec)
    if spec.dtype == BYTES:
        if all(isinstance(item, bytes) for item in array.ravel()):
            return array.astype(object)
        raise _refused(array, spec)
    kind = array.dtype.kind
    if target.kind == "f" and kind in "iuf":
        with np.errstate(over="ignore", invalid="ignore"):
            return array.astype(target)
    if target.kind in "iu" and kind in "iu":
        limits = np.iinfo(target)
        if array.size and (int(array.min()) < limits.min or int(array.max()) > limits.max):
            raise SignatureError(f"input {spec.name} holds a number out of {spec.dtype}'s range")
        return array.astype(target)
    raise _refused(array, spec)


def _texts(array: Array, spec: TensorSpec) -> Array:
    if array.dtype.kind == "U":
        return array.astype(object)
    if array.dtype.kind == "O":
        items = ["" if item is None else item for item in array.ravel()]
        if all(isinstance(item, str) for item in items):
            texts = np.empty(len(items), dtype=object)
            texts[:] = items
            return texts.reshape(array.shape)
    raise _refused(array, spec)


def _refused(array: Array, spec: TensorSpec) -> SignatureError:
    held = "other things" if array.dtype.kind == "O" else str(array.dtype)
    return SignatureError(
        f"input {spec.name} needs {spec.dtype}, and holds {held}: that is no safe conversion"
    )


def _list(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 80 else name[:79] + "…" for name in names[:_SHOWN]]
    return ", ".join(shown) + (", …" if len(names) > _SHOWN else "")
