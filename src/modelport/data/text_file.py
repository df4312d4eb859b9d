"""``.txt``: every line is a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modelport.core.errors import InputError
from modelport.core.rows import Rows


class TextReader:
    """One text per line; empty lines are left out.

    A folder of such files has one text per file instead (`read_whole`).
    """

    def read(self, path: Path) -> Rows:
        """See `modelport.data.base.Reader.read`."""
        lines = [line for line in _text(path).splitlines() if line.strip()]
        return Rows({"": np.asarray(lines, dtype=object)}, where=str(path))

    def read_whole(self, path: Path) -> Rows:
        """The whole file as one row."""
        return Rows(
            {"": np.asarray([_text(path).strip()], dtype=object)}, str(path), names=(path.name,)
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8: {error}", where=str(path)) from error
