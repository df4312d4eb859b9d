"""The image that ours is built upon: where it comes from, and what is in it.

Its layers stay as they are, by digest. They are read once to find what has to fit: the Python,
the C library, and the Debian packages for the SBOM.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelport.core.errors import (
    InputError,
    IntegrityError,
    NotFoundError,
    PlatformError,
    UnsupportedError,
)
from modelport.deploy.base import Progress
from modelport.deploy.images.layers import GZIP_LAYER
from modelport.deploy.images.layout import (
    CONFIG,
    INDEX,
    MANIFEST,
    TAG,
    Document,
    check_blob,
    find_blob,
    read_document,
)
from modelport.deploy.images.look import Contents, look_into
from modelport.deploy.images.registry import pull_base

#: Docker's media types mean the same bytes as OCI's.
_DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
_DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
_LAYERS: Final = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": GZIP_LAYER,
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
    GZIP_LAYER: GZIP_LAYER,
    "application/vnd.oci.image.layer.v1.tar": "application/vnd.oci.image.layer.v1.tar",
}
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Platform:
    """What an image runs on: ``linux/amd64``."""

    os: str
    architecture: str

    @property
    def machine(self) -> str:
        """What wheels and the kernel call the processor."""
        return _MACHINES[self.architecture]

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}"


_MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Base:
    """A base image, for one platform.

    Parameters
    ----------
    name : str
        Its name in its registry; empty for one that comes from a file.
    digest : str
        Of its manifest.
    platform : Platform
    config : mapping
        The image's configuration, whole.
    layers : tuple of mapping
        Descriptors with OCI's media types.
    blobs : Path
        The folder that has its blobs.
    contents : Contents
        What was found in it.
    """

    name: str
    digest: str
    platform: Platform
    config: Mapping[str, Any]
    layers: tuple[Mapping[str, Any], ...]
    blobs: Path
    contents: Contents

    @property
    def size(self) -> int:
        """Compressed bytes of its layers."""
        return sum(int(layer["size"]) for layer in self.layers)


def parse_platforms(text: str) -> tuple[Platform, ...]:
    """Read ``linux/amd64,linux/arm64``.

    Raises
    ------
    UnsupportedError
        For others than these two, of which there are wheels.
    """
    platforms = []
    for word in text.split(","):
        system, _, architecture = word.strip().partition("/")
        architecture = architecture.removesuffix("/v8")
        if system != "linux" or architecture not in _MACHINES:
            raise UnsupportedError(
                f"no images are made for the platform {word.strip()!r}",
                where="--platform",
                hint=f"of: {', '.join(f'linux/{name}' for name in _MACHINES)}",
            )
        platforms.append(Platform(system, architecture))
    return tuple(dict.fromkeys(platforms))


def open_base(
    text: str, platform: Platform, cache: Path, report: Progress, *, insecure: bool = False
) -> Base:
    """Get a base image and look into it.

    Parameters
    ----------
    text : str
        ``registry/repository:tag``, ``oci:DIR[:TAG]``, or the path of an OCI archive.
    platform : Platform
    cache : Path
        Keeps what is pulled or unpacked.
    report : callable
    insecure : bool
        Plain HTTP for the registry.

    Raises
    ------
    NotFoundError
        When it does not exist, or not for this platform.
    IntegrityError
        When its bytes differ from their digests.
    UnsupportedError
        When modelport cannot run in it.
    """
    name = ""
    if text.startswith("oci:"):
        folder, _, tag = text.removeprefix("oci:").partition(":")
        digest, manifest, blobs = _from_layout(Path(folder), tag, platform)
        config = read_document(blobs, manifest["config"])
    elif text.endswith(".tar") or Path(text).is_file():
        digest, manifest, blobs = _from_layout(_unpack(Path(text), cache), "", platform)
        config = read_document(blobs, manifest["config"])
    else:
        layout = cache / "base"
        try:
            pulled = pull_base(text, str(platform), layout, report, insecure=insecure)
        except PlatformError as error:
            hint = error.hint or "--base oci:DIR takes an OCI layout, and needs no registry"
            raise PlatformError(error.message, where=f"base {text}", hint=hint) from error
        name, digest, blobs = pulled.name, pulled.digest, layout / "blobs" / "sha256"
        manifest, config = pulled.manifest, pulled.config
    layers = tuple(_as_oci(layer, text) for layer in manifest["layers"])
    _check_platform(config, platform, text)
    diff_ids = config.get("rootfs", {}).get("diff_ids", [])
    if len(diff_ids) != len(layers):
        raise IntegrityError("the base image's layers and their diff_ids differ", where=text)
    report(f"base {text}: {len(layers)} layers")
    looked = [
        look_into(check_blob(blobs, layer), diff_id, cache / "looks")
        for layer, diff_id in zip(layers, diff_ids, strict=True)
    ]
    contents = Contents.stacked(looked, _search_path(config))
    _check_contents(contents, text)
    return Base(name, digest, platform, config, layers, blobs, contents)


def _from_layout(folder: Path, tag: str, platform: Platform) -> tuple[str, Document, Path]:
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
        media_type = document.get("mediaType") or descriptor.get("mediaType")
        if media_type in (INDEX, _DOCKER_INDEX) and depth:
            yield from _manifests(blobs, document.get("manifests", []), depth - 1)
        elif media_type in (MANIFEST, _DOCKER_MANIFEST) and "artifactType" not in document:
            find_blob(blobs, document["config"])
            if document["config"].get("mediaType") == CONFIG or media_type == _DOCKER_MANIFEST:
                yield descriptor, document


def _unpack(archive: Path, cache: Path) -> Path:
    """An OCI archive as a layout in the cache, anew each time: archives get overwritten."""
    if not archive.is_file():
        raise NotFoundError("OCI archive", str(archive))
    folder = cache / "unpacked" / archive.stem
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"not an OCI archive: {archive}: {error}") from error
    if not (folder / "index.json").is_file():
        raise UnsupportedError(
            f"{archive} is no OCI archive",
            hint="skopeo copy docker-archive:FILE oci:DIR, and --base oci:DIR",
        )
    return folder


def _as_oci(layer: Mapping[str, Any], text: str) -> Mapping[str, Any]:
    media_type = _LAYERS.get(str(layer.get("mediaType")))
    if media_type is None or layer.get("urls"):
        raise UnsupportedError(
            f"the base has a layer that cannot be read here: {layer.get('mediaType')}",
            where=text,
            hint="layers are tar or gzip: skopeo copy --dest-compress-format gzip writes such",
        )
    return {"mediaType": media_type, "digest": layer["digest"], "size": layer["size"]}


def _check_platform(config: Mapping[str, Any], platform: Platform, text: str) -> None:
    told = f"{config.get('os')}/{config.get('architecture')}"
    if told != str(platform):
        raise NotFoundError("platform in the base image", str(platform), [told], where=text)


def _search_path(config: Mapping[str, Any]) -> list[str]:
    variables = config.get("config", {}).get("Env") or []
    listed = [v.partition("=")[2] for v in variables if v.startswith("PATH=")]
    return (listed[-1] if listed else _PATH).split(":")


def _check_contents(contents: Contents, text: str) -> None:
    if not contents.python:
        raise UnsupportedError(
            "the base image has no Python 3.11 or newer on its PATH",
            where=text,
            hint="take one such as python:3.13-slim-bookworm",
        )
    if contents.glibc < (2, 28):
        told = ".".join(map(str, contents.glibc)) if any(contents.glibc) else "none"
        raise UnsupportedError(
            f"the wheels need glibc 2.28 or newer, the base image has {told}",
            where=text,
            hint="Alpine has musl instead; take one such as python:3.13-slim-bookworm",
        )
