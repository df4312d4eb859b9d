"""Rows of data as a file holds them, before they are a model's tensors."""

from __future__ import annotations

import base64
import contextlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from modelport.core.errors import InputError, SignatureError
from modelport.core.signature import Signature
from modelport.core.tensors import BYTES, STRING, Array, TensorSpec

#: See `Rows.blur_in_float32`.
_BLUR: Final = 1e-6


@dataclass(frozen=True)
class Rows:
    """Columns (or whole tensors) by name, or one array without a name.

    Parameters
    ----------
    columns : dict of str to ndarray
        Columns are of equal length; tensors need not be, when the model's inputs are not. An
        array without a name stands under ``""``.
    where : str
        Where they come from, for messages.
    names : tuple of str
        What each row is called, where every row is a file.
    """

    columns: dict[str, Array]
    where: str = ""
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths = {name: len(a) if a.ndim else 1 for name, a in self.columns.items()}
        if not lengths or not max(lengths.values()):
            raise InputError("there are no rows", where=self.where)
        # Tensors may have their batch on another axis, or none at all: the signature tells.
        columns = all(array.ndim == 1 for array in self.columns.values())
        if columns and len(set(lengths.values())) > 1:
            raise InputError(f"columns differ in length: {lengths}", where=self.where)

    @property
    def unnamed(self) -> Array | None:
        """The one array without a name, if that is what this is."""
        return self.columns.get("") if len(self.columns) == 1 else None

    def __len__(self) -> int:
        first = next(iter(self.columns.values()))
        return len(first) if first.ndim else 1

    @property
    def fit_float32(self) -> bool:
        """Whether float32 holds every number in the columns exactly."""
        return all(_fits_float32(array) for array in self.columns.values())

    @property
    def blur_in_float32(self) -> bool:
        """Whether float32 moves numbers by more than a millionth of their column's spread.

        Times in seconds since 1970 move by a minute.
        """
        return any(_blurs(array) for array in self.columns.values())

    def bind(self, signature: Signature) -> dict[str, Array]:
        """Arrange the columns as the inputs of `signature`, in its element types.

        Columns are matched with inputs by name, or with the ``columns`` of a single input;
        arrays without matching names fit a single input by their shape. Columns that the
        model does not use are left out (see `unused`).

        Raises
        ------
        SignatureError
            Saying which columns are missing or do not fit, and which there are.
        """
        inputs = signature.inputs_by_name
        if inputs.keys() <= self.columns.keys():
            return self._checked(signature, self.columns)
        if len(inputs) == 1:
            (spec,) = inputs.values()
            return self._checked(signature, {spec.name: self._single(spec)})
        missing = [name for name in inputs if name not in self.columns]
        raise SignatureError(
            f"columns are missing: {', '.join(missing)}; the model takes {', '.join(inputs)}; "
            f"the data has {self._names()}",
            where=self.where,
        )

    def unused(self, signature: Signature) -> list[str]:
        """Names of columns that `bind` leaves out."""
        names = [name for name in self.columns if name]
        used = set(signature.inputs_by_name)
        if not used <= set(names) and len(used) == 1:
            (spec,) = signature.inputs
            named = spec.columns and set(spec.columns) <= set(names)
            used = set(spec.columns) if named else set(names)
        return [name for name in names if name not in used]

    def _checked(self, signature: Signature, tensors: dict[str, Array]) -> dict[str, Array]:
        specs = signature.inputs_by_name
        cast = {name: self._cast(tensors[name], spec) for name, spec in specs.items()}
        try:
            return signature.check(cast)
        except SignatureError as error:
            # A signature does not know where its tensors come from.
            raise SignatureError(
                error.message, where=self.where or error.where, hint=error.hint
            ) from error

    def _single(self, spec: TensorSpec) -> Array:
        """All columns as the one tensor `spec`."""
        if self.unnamed is not None:
            return self.unnamed
        if spec.columns and set(spec.columns) <= self.columns.keys():
            return np.stack([self.columns[name] for name in spec.columns], axis=-1)
        arrays = list(self.columns.values())
        if len(arrays) == 1 and arrays[0].ndim == len(spec.shape):
            return arrays[0]
        if spec.columns:
            missing = [name for name in spec.columns if name not in self.columns]
            raise SignatureError(
                f"columns are missing: {', '.join(missing)}; the data has {self._names()}",
                where=self.where,
            )
        if all(array.ndim == 1 for array in arrays) and len(arrays) == spec.shape[-1]:
            return np.stack(arrays, axis=-1)
        raise SignatureError(
            f"{len(arrays)} columns do not fit input {spec.name} {spec.shape_text}; "
            f"the data has {self._names()}",
            where=self.where,
        )

    def _names(self) -> str:
        names = [name or "one array without a name" for name in self.columns]
        return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")

    def _cast(self, array: Array, spec: TensorSpec) -> Array:
        if spec.dtype == BYTES:
            return self._bytes(array, spec)
        if spec.dtype == STRING:
            try:
                texts = [_text(item) for item in array.ravel()]
            except UnicodeDecodeError as error:
                raise SignatureError(
                    f"input {spec.name} needs text: {error}", where=self.where
                ) from error
            return np.asarray(texts, dtype=object).reshape(array.shape)
        if array.dtype == object or array.dtype.kind in "US":
            try:
                array = _numbers(array)
            except (ValueError, TypeError, OverflowError) as error:
                raise SignatureError(
                    f"input {spec.name} needs numbers: {error}", where=self.where
                ) from error
        target = spec.numpy_dtype
        if array.dtype == target:
            return array
        with np.errstate(over="ignore", invalid="ignore"):
            cast = array.astype(target)
        # Between int64 and uint64 a number may come back although its sign was lost.
        if target.kind in "iub" and not (
            np.array_equal(cast.astype(array.dtype), array) and np.array_equal(cast < 0, array < 0)
        ):
            raise SignatureError(
                f"input {spec.name} needs {spec.dtype} and the data has other values "
                f"({array.dtype})",
                where=self.where,
            )
        return cast

    def _bytes(self, array: Array, spec: TensorSpec) -> Array:
        """Encoded images; text is Base64, as in JSON."""
        items = np.empty(array.shape, dtype=object)
        for position, item in np.ndenumerate(array):
            try:
                items[position] = item if isinstance(item, bytes) else decode_base64(item)
            except (TypeError, ValueError) as error:
                raise SignatureError(
                    f"input {spec.name} needs bytes of files, and holds a {type(item).__name__}",
                    where=self.where,
                    hint="give a file, a folder of files, or Base64 text",
                ) from error
        return items


def _real(array: Array) -> Array:
    """The numbers in a column; none in one of text."""
    if array.dtype == object:
        numbers = [n for n in array.ravel() if isinstance(n, int | float | np.number)]
        return np.asarray(numbers, dtype=np.float64)
    return array if array.dtype.kind in "iuf" else np.empty(0)


def _fits_float32(array: Array) -> bool:
    numbers = _real(array)
    with np.errstate(over="ignore"):
        rounded = numbers.astype(np.float32)
    return np.array_equal(rounded, numbers, equal_nan=numbers.dtype.kind == "f")


def _blurs(array: Array) -> bool:
    numbers = _real(array).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(numbers.astype(np.float32) - numbers)
        spread = np.nanmax(numbers, 0, initial=-np.inf) - np.nanmin(numbers, 0, initial=np.inf)
    # A sample in which a column never changes does not tell its spread.
    return bool(((error > _BLUR * spread) & (spread > 0)).any())


def decode_base64(text: str) -> bytes:
    """The bytes that Base64 text stands for; padding may be missing.

    Raises
    ------
    ValueError, TypeError
    """
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _numbers(array: Array) -> Array:
    """Text or objects as numbers; integers beyond 2**53 stay what they are."""
    if all(isinstance(item, int | str | bytes) for item in array.ravel()):
        for dtype in (np.int64, np.uint64):
            with contextlib.suppress(ValueError, OverflowError):
                return array.astype(dtype)
    return array.astype(np.float64)


def _text(item: Any) -> str:
    if item is None or (isinstance(item, float) and item != item):
        return ""
    return item.decode() if isinstance(item, bytes) else str(item)
