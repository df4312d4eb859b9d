"""Reading sample and input files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import numpy as np

from modelport.adapters import adapters_for_suffix, adapters_of, suffix_of
from modelport.core.errors import InputError, LimitError, NotFoundError, UnsupportedError
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


#: Of a folder of images or texts.
_MOST_FILES: Final = 100_000
_MOST_BYTES: Final = 4 << 30


@runtime_checkable
class WholeReader(Protocol):
    """A reader for which a file in a folder is one row, whatever it is alone."""

    def read_whole(self, path: Path) -> Rows:
        """Read a whole file as one row."""
        ...


def read_rows(path: Path) -> Rows:
    """Read a file with the adapter for its ending, or a folder of images or texts.

    Raises
    ------
    NotFoundError, UnsupportedError, InputError
    """
    if path.is_dir():
        return _read_folder(path)
    return _reader_of(path).read(path)


def _read_folder(folder: Path) -> Rows:
    """Every file below it that is a row by itself, in the order of their names."""
    suffixes = {
        suffix
        for adapter in adapters_of("reader")
        if adapter.name in ("image", "text")
        for suffix in adapter.suffixes
    }
    files = sorted(
        path for path in folder.rglob("*")
        if suffix_of(path) in suffixes and path.is_file() and not path.name.startswith(".")
    )  # fmt: skip
    if not files:
        raise InputError(
            f"the folder holds no images or texts: {folder}", hint=" ".join(sorted(suffixes))
        )
    size = sum(path.stat().st_size for path in files)
    if len(files) > _MOST_FILES or size > _MOST_BYTES:
        raise LimitError(
            f"the folder holds {len(files)} files of {size} bytes", where=str(folder),
            hint="a few hundred rows are enough",
        )  # fmt: skip
    return read_files(files, where=str(folder))


def read_files(files: Sequence[Path], *, where: str) -> Rows:
    """Files of one kind as the rows of one column, each called by its name.

    Raises
    ------
    InputError
        Also when images and texts are mixed.
    """
    matches = (adapters_for_suffix("reader", suffix_of(path))[:1] for path in files)
    kinds = {adapter.name for match in matches for adapter in match}
    if len(kinds) > 1:
        raise InputError(f"files of several kinds: {', '.join(sorted(kinds))}", where=where)
    parts = []
    for path in files:
        reader = _reader_of(path)
        rows = reader.read_whole(path) if isinstance(reader, WholeReader) else reader.read(path)
        if rows.unnamed is None:
            raise InputError("columns of several files are not joined", where=str(path))
        parts.append(rows.unnamed)
    lengths = [len(part) for part in parts]
    folder = Path(where) if where else None
    names = [
        path.relative_to(folder).as_posix() if folder else str(path)
        for path, length in zip(files, lengths, strict=True)
        for _ in range(length)
    ]
    return Rows({"": np.concatenate(parts)}, where, tuple(names))


def _reader_of(path: Path) -> Reader:
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
    return reader
