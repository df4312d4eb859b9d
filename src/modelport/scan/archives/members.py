"""The files of a container, in memory, and the model among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from modelport.core.errors import InputError
from modelport.core.source import Source


def inner_source(outer: Source, files: Mapping[str, bytes], member: str) -> Source:
    """The file or folder `member` of a container as a source of its own.

    Parameters
    ----------
    outer : Source
        The container.
    files : mapping of str to bytes
        All files in it by relative path.
    member : str
        A file, or a folder of some; empty for the container's top folder.

    Raises
    ------
    InputError
        When there is no such member.
    """
    path = outer.path / member if outer.path is not None else None
    name = f"{outer.name}!{member}" if member else outer.name
    folder, _, base = member.rpartition("/")
    if member in files:
        # Files beside it may belong to it; the audit keeps only those that it refers to.
        beside = _below(files, folder)
        del beside[base]
        return replace(outer, name=name, path=path, content=files[member], files=beside)
    inside = _below(files, member)
    if not inside:
        raise InputError(f"{member} is missing in it", where=str(outer.path))
    return replace(outer, name=name, path=path, content=b"", files=inside)


def _below(files: Mapping[str, bytes], folder: str) -> dict[str, bytes]:
    prefix = f"{folder}/" if folder else ""
    return {
        name.removeprefix(prefix): content
        for name, content in files.items()
        if name.startswith(prefix)
    }
