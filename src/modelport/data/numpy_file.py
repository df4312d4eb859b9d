"""``.npy`` and ``.npz``, never with pickles inside."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from modelport.core.errors import InputError
from modelport.core.rows import Rows
from modelport.core.tensors import Array


class NumpyReader:
    """An ``.npy`` is one array without a name; an ``.npz`` holds arrays by name."""

    def read(self, path: Path) -> Rows:
        """See `modelport.data.base.Reader.read`."""
        try:
            with path.open("rb") as file:
                loaded = np.load(file, allow_pickle=False)
                if isinstance(loaded, np.ndarray):
                    return Rows({"": _text_as_objects(loaded)}, where=str(path))
                with loaded as archive:
                    arrays = {name: _text_as_objects(archive[name]) for name in archive.files}
        except (ValueError, OSError, BadZipFile, EOFError) as error:
            hint = "object arrays hold pickles; save text as fixed-width strings"
            raise InputError(
                f"not a plain NumPy file: {error}",
                where=str(path),
                hint=hint if "pickle" in str(error) else "",
            ) from error
        return Rows(arrays, where=str(path))


def _text_as_objects(array: Array) -> Array:
    return array.astype(np.str_).astype(object) if array.dtype.kind in "US" else array
