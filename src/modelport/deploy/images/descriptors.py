"""Manifests and descriptors that others wrote: read only when they are what they should be.

Source: https://github.com/opencontainers/image-spec/blob/v1.1.0/descriptor.md and ``manifest.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from modelport.core.errors import UnsupportedError

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def blob_path(blobs: Path, digest: str) -> Path:
    """Where a folder of blobs keeps one.

    Raises
    ------
    UnsupportedError
        When the digest is no SHA-256 one.
    """
    if not _DIGEST.fullmatch(digest):
        raise UnsupportedError(f"not a SHA-256 digest: {digest!r}", where=str(blobs))
    return blobs / digest.removeprefix("sha256:")


def check_manifest(document: Mapping[str, Any], where: str) -> None:
    """Refuse what is neither an image's manifest nor an index, or names its parts badly.

    Raises
    ------
    UnsupportedError
        With its media type.
    """
    if "manifests" in document:
        listed: Any = document["manifests"]
    else:
        layers = document.get("layers")
        listed = [document.get("config"), *layers] if isinstance(layers, list) else None
    if not isinstance(listed, list) or not all(map(_is_descriptor, listed)):
        raise UnsupportedError(
            f"not a manifest of schema 2: {document.get('mediaType', 'unknown')}", where=where
        )


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Refuse an image's configuration that does not say what it is of.

    Raises
    ------
    UnsupportedError
    """
    inside = config.get("config", {})
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    variables = (inside.get("Env") or []) if isinstance(inside, dict) else None
    for listed in (diff_ids, variables):
        if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
            raise UnsupportedError("not the configuration of an image", where=where)


def _is_descriptor(value: Any) -> bool:
    if not isinstance(value, dict) or not _DIGEST.fullmatch(str(value.get("digest"))):
        return False
    size = value.get("size")
    parts = (value.get("platform", {}), value.get("annotations", {}))
    return type(size) is int and size >= 0 and all(isinstance(part, dict) for part in parts)
