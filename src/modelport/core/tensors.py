"""Element types and tensor specifications.

modelport names element types as NumPy does (``float32``, ``int64``, ``bool``), plus
``string``: an object array of `str`, and ``bytes``: an object array of `bytes` (encoded images),
which only models with processing take (see `modelport.core.processing`). Every protocol keeps
its own table from these names to its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modelport.core.errors import SignatureError

Array = NDArray[Any]
Tensors = Mapping[str, Array]

STRING: Final = "string"
BYTES: Final = "bytes"

#: modelport element type → the NumPy dtype that holds it; `BYTES` is none that an engine takes.
NUMPY_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "bool": np.dtype(np.bool_),
    **{f"{u}int{bits}": np.dtype(f"{u}int{bits}") for u in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    STRING: np.dtype(object),
}

_NAMES: Final = {dtype: name for name, dtype in NUMPY_DTYPES.items()}


def holds_bytes(array: Array) -> bool:
    """Whether an object array holds `bytes`."""
    return array.dtype == object and any(isinstance(item, bytes) for item in array.ravel()[:1])


def dtype_name(array: Array) -> str:
    """Modelport's name of an array's element type.

    Raises
    ------
    SignatureError
        For element types that no signature can hold (complex, datetime …).
    """
    name = _NAMES.get(array.dtype)
    if name is None:
        if array.dtype.kind in "US":
            return STRING
        raise SignatureError(f"unsupported element type: {array.dtype}")
    return name


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named input or output of a model.

    Parameters
    ----------
    name : str
    dtype : str
        A key of `NUMPY_DTYPES`, or `BYTES`.
    shape : tuple of int or str
        A string is a symbolic dimension: any size, but the same wherever the signature
        repeats the symbol.
    columns : tuple of str
        Names along the last axis, where the source model knew them.
    refuses : tuple of str
        ``nan``, ``infinity``: values that the source model refuses, and so must we.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    columns: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()
    numpy_dtype: np.dtype[Any] = field(init=False, repr=False, compare=False)
    #: Axis and size of every dimension that is not symbolic.
    _fixed: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        numpy_dtype = NUMPY_DTYPES.get(STRING if self.dtype == BYTES else self.dtype)
        if numpy_dtype is None:
            raise SignatureError(
                f"unsupported element type: {self.dtype}",
                where=self.name,
                hint=f"one of {', '.join(NUMPY_DTYPES)}",
            )
        object.__setattr__(self, "numpy_dtype", numpy_dtype)
        fixed = tuple((axis, d) for axis, d in enumerate(self.shape) if isinstance(d, int))
        object.__setattr__(self, "_fixed", fixed)

    @property
    def shape_text(self) -> str:
        """The shape for people: ``[N, 8]``."""
        return f"[{', '.join(str(d) for d in self.shape)}]"

    def to_json(self) -> dict[str, Any]:
        """The plain form that the manifest stores."""
        plain: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        if self.columns:
            plain["columns"] = list(self.columns)
        if self.refuses:
            plain["refuses"] = list(self.refuses)
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> TensorSpec:
        """The inverse of `to_json`."""
        return cls(
            name=str(plain["name"]),
            dtype=str(plain["dtype"]),
            shape=tuple(d if isinstance(d, int) else str(d) for d in plain["shape"]),
            columns=tuple(plain.get("columns", ())),
            refuses=tuple(plain.get("refuses", ())),
        )

    def check(self, array: Array) -> Array:
        """Return `array` as this specification's element type and rank, or say why not.

        A missing trailing dimension of 1 is added (a column sent as ``[N]`` fits ``[N, 1]``);
        nothing else is reshaped and no element type is converted.

        Raises
        ------
        SignatureError
            Naming the input, what it needs and what it got.
        """
        if array.dtype != self.numpy_dtype:
            raise SignatureError(
                f"input {self.name} has element type {array.dtype}, expected {self.dtype}"
            )
        rank = len(self.shape)
        if array.ndim != rank:
            if array.ndim != rank - 1 or self.shape[-1] != 1:
                raise self._misfit(array)
            array = array[..., np.newaxis]
        shape = array.shape
        for axis, size in self._fixed:
            if shape[axis] != size:
                raise self._misfit(array)
        if self.refuses and array.dtype.kind == "f":
            # One cheap product first; only when it is not finite look at each element.
            flat = array.reshape(-1)
            if not np.isfinite(np.vdot(flat, flat)):
                self._check_values(array)
        return array

    def _check_values(self, array: Array) -> None:
        bad = np.isnan(array) if "nan" in self.refuses else np.zeros(array.shape, dtype=bool)
        if "infinity" in self.refuses:
            bad |= np.isinf(array)
        if bad.any():
            position = np.unravel_index(int(np.argmax(bad)), array.shape)
            raise SignatureError(
                f"input {self.name} holds {array[position]} at {[int(p) for p in position]}; "
                f"the source model refuses {' and '.join(self.refuses)}, and so does this one"
            )

    def _misfit(self, array: Array) -> SignatureError:
        return SignatureError(
            f"input {self.name} has shape {list(array.shape)}, expected {self.shape_text}"
        )
