"""A source model on its way in: first named, then audited, only then loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelport.core.digest import sha256_bytes
from modelport.core.errors import NotFoundError


@dataclass(frozen=True)
class Source:
    """What the user trained: a file, or a live object.

    Parameters
    ----------
    name : str
        How to call it in messages.
    path : Path or None
        The file; None for a live object.
    model : object
        The live object; None for a file.
    content : bytes
        The file's bytes, read once: what the scan sees is what the loader gets.
    """

    name: str
    path: Path | None = None
    model: Any = None
    content: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, thing: Any) -> Source:
        """Make a source of a path (`str` or `Path`) or of a live model object.

        Raises
        ------
        NotFoundError
            When a path does not exist.
        """
        if not isinstance(thing, str | Path):
            return cls(name=type(thing).__name__, model=thing)
        path = Path(thing)
        if not path.exists():
            near = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
            raise NotFoundError("source model", path.name, near, where=str(path.parent))
        return cls(name=path.name, path=path, content=path.read_bytes() if path.is_file() else b"")

    @property
    def digest(self) -> str:
        """SHA-256 of the content; empty for a live object."""
        return sha256_bytes(self.content) if self.path is not None else ""


@dataclass(frozen=True)
class AuditedSource:
    """A source that the scan has passed. Only the scan stage makes these.

    Parameters
    ----------
    source : Source
    format : str
        What the scan recognised: ``pickle``, ``joblib``, ``skops``, ``onnx``, ``object``.
    trusted : tuple of str
        Globals that were let through only because the user said ``--trust``; recorded in the
        package's provenance.
    """

    source: Source
    format: str
    trusted: tuple[str, ...] = ()
