"""Encoded images, as they are: each file is a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modelport.core.rows import Rows


class ImageReader:
    """One row of the file's bytes; the model's processing decodes them."""

    def read(self, path: Path) -> Rows:
        """See `modelport.data.base.Reader.read`."""
        array = np.empty(1, dtype=object)
        array[0] = path.read_bytes()
        return Rows({"": array}, where=str(path), names=(path.name,))
