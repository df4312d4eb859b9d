"""NumPy element types, rebuilt from a pickle's description and checked against NumPy itself.

The scan needs the real size of an element to step over an array's bytes. It also must not let a
forged description pass: ``dtype.__setstate__`` believes what it is told, and an object type that
claims to hold no objects turns an array's bytes into pointers.

The state is documented by ``arraydescr_reduce`` in NumPy's ``descriptor.c``: version, byte order,
subarray, names, fields, item size, alignment, flags and, from version 4, the unit of a time.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from modelport.scan.pickles.standins import Made, is_made_by

_CODE = re.compile(r"[biufcmMOSUV]\d{0,9}", re.ASCII)
_NATIVE = (-1, -1)
_ALIGNED_STRUCT = 0x80
_FLAG_BITS = 0xFF  # NumPy 1 writes them as a signed number
_UNITS = tuple(b"Y M W D h m s ms us ns ps fs as generic".split())
_MOST_DIMENSIONS = 64
_MOST_ELEMENTS = 2**63 - 1
Dtype = np.dtype[Any]


def element_count(shape: object) -> int | None:
    """How many elements an array of that shape has; None when it is not a shape NumPy allows."""
    if not isinstance(shape, tuple) or len(shape) > _MOST_DIMENSIONS:
        return None
    count = 1
    for size in shape:
        if type(size) is not int or not 0 <= size <= _MOST_ELEMENTS:
            return None
        count *= size
        if count > _MOST_ELEMENTS:
            return None
    return count


def base_dtype(arguments: tuple[Any, ...]) -> Dtype | None:
    """The type that ``numpy.dtype(code, align, copy)`` gives; None unless NumPy pickles it so."""
    if len(arguments) != 3 or type(arguments[0]) is not str:
        return None
    code, align, copy = arguments
    if not _CODE.fullmatch(code) or align not in (False, 0) or copy not in (True, 1):
        return None
    try:
        dtype: Dtype = np.dtype(code)
    except (TypeError, ValueError):
        return None
    return dtype


def with_state(base: Dtype, state: object) -> Dtype | None:
    """The type after ``__setstate__(state)``; None unless NumPy would have written that state."""
    if not isinstance(state, tuple) or len(state) not in (8, 9):
        return None
    version, order, subarray, names, fields, size, alignment, flags = state[:8]
    if (version, len(state)) not in ((3, 8), (4, 9)) or order not in ("<", ">", "|", "="):
        return None
    try:
        if subarray is not None:
            real = _subarray(subarray) if names is None and fields is None else None
        elif fields is not None:
            real = _structure(names, fields, size, aligned=bool(flags & _ALIGNED_STRUCT))
        else:
            real = base.newbyteorder(order) if names is None else None
    except (TypeError, ValueError, OverflowError):
        return None
    if real is None or real.itemsize != base.itemsize:
        return None
    if type(flags) is not int or (flags ^ real.flags) & _FLAG_BITS:
        return None
    # A time without its unit crashes NumPy.
    if (len(state) == 9) != (base.kind in "mM") or not _is_time_unit(state[8:]):
        return None
    # NumPy believes the size of a type that has no size of its own, even a negative one.
    sizes = (real.itemsize, real.alignment) if real.kind in "SUV" else _NATIVE
    return real if (size, alignment) == sizes else None


def _subarray(subarray: object) -> Dtype | None:
    if not isinstance(subarray, tuple) or len(subarray) != 2:
        return None
    element, shape = subarray
    if not isinstance(element, Made) or element.dtype is None:
        return None
    if element_count(shape) is None:
        return None
    description: Any = (element.dtype, shape)
    dtype: Dtype = np.dtype(description)
    return dtype


def _structure(names: object, fields: object, size: int, *, aligned: bool) -> Dtype | None:
    if not isinstance(names, tuple) or any(type(name) is not str for name in names):
        return None
    if type(fields) is not dict or set(fields) != set(names) or not names:
        return None
    formats, offsets = [], []
    for name in names:
        field = fields[name]
        if not isinstance(field, tuple) or len(field) != 2:
            return None
        element, offset = field
        if not isinstance(element, Made) or element.dtype is None or type(offset) is not int:
            return None
        formats.append(element.dtype)
        offsets.append(offset)
    layout: Any = {"names": names, "formats": formats, "offsets": offsets, "itemsize": size}
    dtype: Dtype = np.dtype(layout, align=aligned)
    return dtype


def _is_time_unit(rest: tuple[Any, ...]) -> bool:
    """Whether what follows the flags is nothing, or ``(None, (unit, count, 1, 1))``."""
    if not rest:
        return True
    metadata = rest[0]
    if not isinstance(metadata, tuple) or len(metadata) != 2 or metadata[0] not in (None, {}):
        return False
    unit = metadata[1]
    return (
        isinstance(unit, tuple)
        and len(unit) == 4
        and (unit[0] in _UNITS or is_made_by(unit[0], "_codecs.encode"))
        and all(type(number) is int for number in unit[1:])
    )
