"""``manifest.json``: what a package is, as data.

The package digest is the SHA-256 of the canonical form of this document. It lists every
other file with its own SHA-256, so one digest pins all bytes. It holds no time and no host
name: packing the same source with the same rows gives the same digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from modelport.core.compare import Tolerance, tolerance_from_json
from modelport.core.digest import canonical_json, sha256_bytes
from modelport.core.errors import InputError, IntegrityError, ModelportError, UnsupportedError
from modelport.core.processing import Processing
from modelport.core.signature import Signature

Value = TypeVar("Value")

#: The newest format. Older formats stay readable through `_READERS`.
FORMAT = 2

#: The format of a package without processing: the same bytes as ever.
_PLAIN = 1

_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")


def check_name(name: str) -> str:
    """Return `name` if it can name a model everywhere: URLs, folders, OCI repositories.

    Raises
    ------
    InputError
        With the rule, when it cannot.
    """
    if not _NAME.fullmatch(name) or len(name) > 128:
        raise InputError(
            f"not a model name: {name!r}",
            hint="lower-case letters, digits and single . _ - between them, at most 128",
        )
    return name


@dataclass(frozen=True)
class FileEntry:
    """One file of a package.

    Parameters
    ----------
    sha256 : str
        Hexadecimal digest of its bytes.
    size : int
        In bytes.
    """

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The decoded manifest; the fields are those of `modelport.core.artifact.Artifact`."""

    name: str
    engine: str
    model_file: str
    files: Mapping[str, FileEntry]
    signature: Signature
    task: str
    tolerance: Tolerance
    row_independent: bool
    parity: Mapping[str, Any]
    provenance: Mapping[str, Any]
    processing: Processing | None = None

    def to_bytes(self) -> bytes:
        """The canonical document."""
        processing = self.processing
        return canonical_json(
            {
                **({"processing": processing.to_json()} if processing is not None else {}),
                "format": _PLAIN if processing is None else FORMAT,
                "name": self.name,
                "engine": self.engine,
                "model_file": self.model_file,
                "files": {
                    path: {"sha256": entry.sha256, "size": entry.size}
                    for path, entry in self.files.items()
                },
                "signature": self.signature.to_json(),
                "task": self.task,
                "tolerance": self.tolerance.to_json(),
                "row_independent": self.row_independent,
                "parity": self.parity,
                "provenance": self.provenance,
            }
        )

    @property
    def digest(self) -> str:
        """The package digest, ``sha256:…``."""
        return f"sha256:{sha256_bytes(self.to_bytes())}"


def read_manifest(data: bytes, *, where: str) -> Manifest:
    """Decode a manifest of any format ever written.

    Raises
    ------
    IntegrityError
        When the document is damaged.
    UnsupportedError
        When a newer modelport wrote it.
    """
    try:
        document = json.loads(data)
        format_number = int(document["format"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(f"manifest cannot be read: {error}", where=where) from error
    reader = _READERS.get(format_number)
    if reader is None:
        raise UnsupportedError(
            f"package format {format_number} is newer than this modelport reads ({FORMAT})",
            where=where,
            hint="upgrade modelport",
        )
    try:
        manifest = reader(document)
        canonical = manifest.to_bytes()
    except (KeyError, TypeError, ValueError, AttributeError, ModelportError) as error:
        raise IntegrityError(
            f"manifest is incomplete or damaged: {error!r}", where=where
        ) from error
    if canonical != data:
        raise IntegrityError("manifest is not in its canonical form", where=where)
    return manifest


def _read_1(document: Mapping[str, Any]) -> Manifest:
    return Manifest(
        name=check_name(document["name"]),
        engine=_typed(document["engine"], str),
        model_file=_typed(document["model_file"], str),
        files={
            path: FileEntry(sha256=entry["sha256"], size=int(entry["size"]))
            for path, entry in document["files"].items()
        },
        signature=Signature.from_json(document["signature"]),
        task=_typed(document["task"], str),
        tolerance=tolerance_from_json(document["tolerance"]),
        row_independent=bool(document["row_independent"]),
        parity=_typed(document["parity"], dict),
        provenance=_typed(document["provenance"], dict),
    )


def _read_2(document: Mapping[str, Any]) -> Manifest:
    plain = _read_1(document)
    processing = Processing.from_json(document["processing"])
    if missing := [name for name in processing.files if name not in plain.files]:
        raise KeyError(missing[0])
    return replace(plain, processing=processing)


def _typed(value: Any, kind: type[Value]) -> Value:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.40} is no {kind.__name__}")
    return value


_READERS = {1: _read_1, 2: _read_2}
