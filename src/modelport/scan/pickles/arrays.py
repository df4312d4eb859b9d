"""Arrays inside joblib files: how many bytes follow the wrapper that announces them.

Written against ``NumpyArrayWrapper.read_array`` in joblib's ``numpy_pickle.py`` (0.10 to 1.6).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from modelport.core.allowed_globals import ARRAY_WRAPPER
from modelport.scan.pickles.dtypes import element_count
from modelport.scan.pickles.log import Abandoned, Log
from modelport.scan.pickles.reader import Reader
from modelport.scan.pickles.standins import Made, Named

_KEYS = frozenset({"subclass", "shape", "order", "dtype", "allow_mmap"})
_CLASSES = frozenset({"numpy.ndarray", "numpy.matrix", "numpy.matrixlib.defmatrix.matrix"})
_ALIGNMENT = "numpy_array_alignment_bytes"  # since joblib 1.2


def read_array(state: object, reader: Reader, log: Log) -> bool:
    """Step over the array that a wrapper's `state` announces.

    Returns
    -------
    bool
        True when nothing was skipped, because a pickle of the array's objects follows instead.

    Raises
    ------
    EOFError
        When the file is shorter than the array.
    Abandoned
        When the state is not one that joblib writes; the finding is in the log.
    """
    dtype, count = _checked(state)
    if dtype is None or count is None or not isinstance(state, dict):
        log.note("array", ".".join(ARRAY_WRAPPER), "not an array as joblib writes it")
        raise Abandoned
    if dtype.hasobject:
        if dtype.kind != "O":
            log.note("array", "a structured array", "its fields hold Python objects")
            raise Abandoned
        return True
    if state.get(_ALIGNMENT) is not None:
        reader.skip(reader.read(1)[0])
    reader.skip(count * dtype.itemsize)
    return False


def _checked(state: object) -> tuple[np.dtype[Any] | None, int | None]:
    """Element type and count, when the wrapper's attributes are complete and plain."""
    if type(state) is not dict or state.keys() - {_ALIGNMENT} != _KEYS:
        return None, None
    element, subclass = state["dtype"], state["subclass"]
    plain = (
        isinstance(element, Made)
        and element.dtype is not None
        and element.dtype.itemsize > 0
        and state["order"] in ("C", "F")
        and type(state["allow_mmap"]) is bool
        and type(state.get(_ALIGNMENT)) in (int, type(None))
        and isinstance(subclass, Named)
        and subclass.full in _CLASSES
    )
    return (element.dtype, element_count(state["shape"])) if plain else (None, None)
