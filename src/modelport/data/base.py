"""Reading sample and input files."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from modelport.adapters import adapters_for_suffix, adapters_of, suffix_of
from modelport.core.errors import InputError, NotFoundError, UnsupportedError
from modelport.core.rows import Rows


class Reader(Protocol):
    """What a reader adapter does."""

    def read(self, path: Path) -> Rows:
        """Read a whole file.

        Raises
        ------
        InputError
            When the file is not what its ending says, with the place in it.
        """
        ...


def read_rows(path: Path) -> Rows:
    """Read a file with the adapter for its ending.

    Raises
    ------
    NotFoundError, UnsupportedError, InputError
    """
    if not path.is_file():
        siblings = path.parent.glob("*") if path.parent.is_dir() else ()
        raise NotFoundError(
            "file",
            path.name,
            sorted(p.name for p in siblings if p.is_file()),
            where=str(path.parent),
        )
    matches = adapters_for_suffix("reader", suffix_of(path))
    if not matches:
        known = [suffix for adapter in adapters_of("reader") for suffix in adapter.suffixes]
        raise UnsupportedError(
            f"no reader for files ending in {path.suffix!r}",
            where=str(path),
            hint=f"use one of {' '.join(known)}",
        )
    if not path.stat().st_size:
        raise InputError("file is empty", where=str(path))
    reader: Reader = matches[0].load()
    return reader.read(path)
