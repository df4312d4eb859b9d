"""In which repository of a registry a blob is: another one there takes it without an upload.

Source: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md
#mounting-a-blob-from-another-repository. What is noted here may be wrong by now: then the registry
asks for the blob.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from modelport.core.digest import sha256_bytes
from modelport.deploy.images.reference import Reference

_MOST: Final = 2000


def find_blobs(cache: Path, registry: str) -> dict[str, str]:
    """The repository of each blob that was seen in a registry, by digest."""
    try:
        found = json.loads(_file(cache, registry).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def note_blobs(cache: Path, reference: Reference, digests: Iterable[str]) -> None:
    """Note that a repository has blobs; the latest are kept."""
    known = find_blobs(cache, reference.registry)
    for digest in digests:
        known.pop(digest, None)
        known[digest] = reference.repository
    file = _file(cache, reference.registry)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    with contextlib.suppress(OSError):  # a note is worth no failure
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(dict(list(known.items())[-_MOST:])), encoding="utf-8")
        beside.replace(file)


def _file(cache: Path, registry: str) -> Path:
    return cache / "elsewhere" / f"{sha256_bytes(registry.encode())[:32]}.json"
