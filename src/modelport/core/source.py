"""A source model on its way in: first named, then audited, only then loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from modelport.core.digest import canonical_json, sha256_bytes
from modelport.core.errors import LimitError, NotFoundError, UnsafeError

#: More than the files of any model format; a folder beyond it is not a model.
MOST_FILES: Final = 10_000


@dataclass(frozen=True)
class Source:
    """What the user trained: a file, a folder, or a live object.

    Parameters
    ----------
    name : str
        How to call it in messages.
    path : Path or None
        The file or folder; None for a live object. Nothing is read from it any more: a source
        from inside another one (an archive) may have a path that does not exist.
    model : object
        The live object; None for a file or folder.
    content : bytes
        The file's bytes, read once: what the scan sees is what the loader gets. Empty for a
        folder.
    files : mapping of str to bytes
        The files of a folder by relative path, with ``/`` between its parts, read once; for a
        file, those beside it that it refers to (ONNX's external data).
    factory : str
        ``module:name`` of a class or function that makes the model to which the file holds the
        weights. Naming it is the user's consent to run it.
    signature : str
        Which of several signatures is meant, for files that have several (SavedModel).
    """

    name: str
    path: Path | None = None
    model: Any = None
    content: bytes = field(default=b"", repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    factory: str = ""
    signature: str = ""

    @classmethod
    def of(cls, thing: Any, *, factory: str = "", signature: str = "") -> Source:
        """Make a source of a path (`str` or `Path`) or of a live model object.

        Raises
        ------
        NotFoundError
            When a path does not exist.
        UnsafeError
            When something in a folder is a link out of it.
        """
        if not isinstance(thing, str | Path):
            return cls(type(thing).__name__, model=thing, factory=factory, signature=signature)
        path = Path(thing)
        if not path.exists():
            near = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
            raise NotFoundError("source model", path.name, near, where=str(path.parent))
        name = path.name or path.resolve().name
        if path.is_dir():
            return cls(name, path, files=_read_folder(path), factory=factory, signature=signature)
        return cls(name, path, content=path.read_bytes(), factory=factory, signature=signature)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return (
            self.path is not None and not self.content and (bool(self.files) or self.path.is_dir())
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the content, or of the list of all digests; empty for a live object."""
        if self.path is None:
            return ""
        if not self.files:
            return sha256_bytes(self.content)
        digests = {name: sha256_bytes(data) for name, data in sorted(self.files.items())}
        return sha256_bytes(canonical_json({"content": sha256_bytes(self.content), **digests}))


def _read_folder(folder: Path) -> dict[str, bytes]:
    root = folder.resolve()
    files: dict[str, bytes] = {}
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if not path.is_file():
                continue
            if not path.resolve().is_relative_to(root):
                raise UnsafeError(
                    f"a link leaves the folder: {path.relative_to(folder)}",
                    where=str(folder),
                    hint="copy the file into the folder",
                )
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
            if len(files) > MOST_FILES:
                raise LimitError(f"the folder has more than {MOST_FILES} files", where=str(folder))
    return files


@dataclass(frozen=True)
class AuditedSource:
    """A source that the scan has passed. Only the scan stage makes these.

    Parameters
    ----------
    source : Source
        Of containers (an MLflow folder, a TorchServe archive) the model inside.
    format : str
        What the scan recognised: ``pickle``, ``onnx``, ``torchscript`` …; ``object`` for a live
        object.
    trusted : tuple of str
        Globals that were let through only because the user said so; recorded in the package's
        provenance.
    containers : tuple of str
        Formats of the containers that it was found in, outermost first: ``mlflow``.
    notes : tuple of str
        What people should know about those: parts of them that were left out.
    globals : tuple of str
        Every class and function that the file names, in order of first appearance: the first
        one tells which framework pickled it.
    """

    source: Source
    format: str
    trusted: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    globals: tuple[str, ...] = ()
