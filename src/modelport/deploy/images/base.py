"""The image that ours is built upon: where it comes from, and what is in it.

Its layers stay as they are, by digest. They are read once to find what has to fit: the Python,
the C library, and the Debian packages for the SBOM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelport.core.errors import (
    IntegrityError,
    NotFoundError,
    PlatformError,
    UnsupportedError,
)
from modelport.deploy.base import Progress
from modelport.deploy.images.descriptors import check_config
from modelport.deploy.images.elsewhere import note_blobs
from modelport.deploy.images.layers import GZIP_LAYER
from modelport.deploy.images.layout import (
    check_blob,
    read_document,
)
from modelport.deploy.images.look import Contents, look_into
from modelport.deploy.images.platforms import Platform
from modelport.deploy.images.pull import pull_base
from modelport.deploy.images.read_layout import find_image, unpack_archive
from modelport.deploy.images.reference import parse_reference

_LAYERS: Final = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": GZIP_LAYER,
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
    GZIP_LAYER: GZIP_LAYER,
    "application/vnd.oci.image.layer.v1.tar": "application/vnd.oci.image.layer.v1.tar",
}
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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
        digest, manifest, blobs = find_image(Path(folder).expanduser(), tag, platform)
        config = read_document(blobs, manifest["config"])
    elif text.endswith(".tar") or Path(text).is_file():
        digest, manifest, blobs = find_image(unpack_archive(Path(text), cache), "", platform)
        config = read_document(blobs, manifest["config"])
    else:
        reference, blobs = parse_reference(text), cache / "base" / "blobs" / "sha256"
        try:
            pulled = pull_base(reference, str(platform), blobs, report, insecure=insecure)
        except PlatformError as error:
            hint = error.hint or "--base oci:DIR takes an OCI layout, and needs no registry"
            raise PlatformError(error.message, where=f"base {text}", hint=hint) from error
        name, digest, manifest, config = (
            pulled.name, pulled.digest, pulled.manifest, pulled.config
        )  # fmt: skip
        note_blobs(cache, reference, [layer["digest"] for layer in manifest["layers"]])
    check_config(config, text)
    layers = tuple(_as_oci(layer, text) for layer in manifest["layers"])
    _check_platform(config, platform, text)
    diff_ids = config["rootfs"]["diff_ids"]
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
