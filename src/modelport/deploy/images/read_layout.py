"""Images in layouts and archives that others wrote."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from modelport.core.digest import sha256_file
from modelport.core.errors import (
    InputError,
    IntegrityError,
    NotFoundError,
    UnsupportedError,
)
from modelport.deploy.images.descriptors import check_manifest
from modelport.deploy.images.layout import (
    CONFIG,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    TAG,
    Document,
    read_document,
)
from modelport.deploy.images.platforms import Platform

_PART: Final = re.compile(r"index\.json|blobs/sha256/[0-9a-f]{64}")


def find_image(folder: Path, tag: str, platform: Platform) -> tuple[str, Document, Path]:
    """The digest and manifest of a layout's image, and where its blobs are."""
    index = folder / "index.json"
    if not index.is_file():
        raise NotFoundError(
            "OCI layout", str(folder), hint="skopeo copy docker://NAME oci:DIR makes one"
        )
    try:
        entries = json.loads(index.read_bytes())["manifests"]
        entries = [entry for entry in entries if not entry.get("artifactType")]
        tags = [entry.get("annotations", {}).get(TAG, "") for entry in entries]
        check_manifest({"manifests": entries}, str(index))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"the index cannot be read: {error}", where=str(index)) from error
    if tag and tag not in tags:
        raise NotFoundError("image in the layout", tag, filter(None, tags), where=str(folder))
    if not tag and len(set(tags)) > 1:
        raise InputError(
            f"the layout holds several images: {', '.join(tags)}",
            where=str(folder),
            hint="oci:DIR:TAG",
        )
    blobs = folder / "blobs" / "sha256"
    chosen = [entry for entry, name in zip(entries, tags, strict=True) if name == tag or not tag]
    seen = []
    for descriptor, manifest in _manifests(blobs, chosen):
        told = descriptor.get("platform") or read_document(blobs, manifest["config"])
        seen.append(f"{told.get('os')}/{told.get('architecture')}")
        if seen[-1] == str(platform):
            return descriptor["digest"], manifest, blobs
    raise NotFoundError("platform in the base image", str(platform), seen, where=str(folder))


def _manifests(
    blobs: Path, descriptors: Sequence[Mapping[str, Any]], depth: int = 3
) -> Iterator[tuple[Mapping[str, Any], Document]]:
    for descriptor in descriptors:
        document = read_document(blobs, descriptor)
        check_manifest(document, str(blobs))
        media_type = document.get("mediaType") or descriptor.get("mediaType")
        if media_type in (INDEX, DOCKER_INDEX) and depth:
            yield from _manifests(blobs, document.get("manifests", []), depth - 1)
            continue
        kind = document.get("config", {}).get("mediaType")
        is_image = media_type == MANIFEST and kind == CONFIG and "artifactType" not in document
        if is_image or (media_type == DOCKER_MANIFEST and kind):
            yield descriptor, document


def unpack_archive(archive: Path, cache: Path) -> Path:
    """An OCI archive as a layout in the cache, under the digest of its bytes."""
    if not archive.is_file():
        raise NotFoundError("OCI archive", str(archive))
    folder = cache / "unpacked" / sha256_file(archive)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new.", dir=folder.parent) as beside:
        new = Path(beside, "layout")
        try:
            with tarfile.open(archive) as opened:
                _extract(opened, new)
        except (tarfile.TarError, OSError) as error:
            why = getattr(error, "strerror", None) or "it is no tar archive"
            raise InputError(f"not an OCI archive: {archive}: {why}") from error
        if not (new / "index.json").is_file():
            raise UnsupportedError(
                f"{archive} is no OCI archive",
                hint="skopeo copy docker-archive:FILE oci:DIR, and --base oci:DIR",
            )
        with contextlib.suppress(OSError):  # another process was faster
            new.rename(folder)
        return folder


def _extract(opened: tarfile.TarFile, folder: Path) -> None:
    """What a layout consists of: its index, and blobs; neither links nor anything else."""
    (folder / "blobs" / "sha256").mkdir(parents=True)
    for member in opened:
        path = member.name.removeprefix("./")
        source = opened.extractfile(member) if member.isreg() and _PART.fullmatch(path) else None
        if source is not None:
            with source, (folder / path).open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
