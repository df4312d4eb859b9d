"""Images from registries, over the OCI distribution API, with the standard library.

Sources: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests,
https://github.com/opencontainers/image-spec/blob/v1.1.0/image-index.md (platforms).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelport.core.digest import sha256_bytes
from modelport.core.errors import IntegrityError, NotFoundError, UnsupportedError
from modelport.deploy.base import Progress
from modelport.deploy.images.blobs import download
from modelport.deploy.images.descriptors import check_manifest
from modelport.deploy.images.exchange import again
from modelport.deploy.images.layout import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    Document,
    read_document,
)
from modelport.deploy.images.reference import Reference
from modelport.deploy.images.session import Session, read_all

_ACCEPT: Final = {"Accept": ", ".join((INDEX, DOCKER_INDEX, MANIFEST, DOCKER_MANIFEST))}
_DEEPEST: Final = 3
_MOST_CONFIG: Final = 16 << 20


@dataclass(frozen=True)
class Pulled:
    """An image for one platform, whose configuration and layers are in a folder of blobs.

    Parameters
    ----------
    name : str
        As it was asked for, complete: ``docker.io/library/python:3.11-slim``.
    digest : str
        Of the platform's manifest.
    manifest, config : dict
    """

    name: str
    digest: str
    manifest: Document
    config: Document


def pull_base(
    reference: Reference, platform: str, blobs: Path, report: Progress, *, insecure: bool = False
) -> Pulled:
    """Bring the configuration and the layers of one image into a folder of blobs.

    Parameters
    ----------
    reference : Reference
    platform : str
        ``linux/amd64``.
    blobs : Path
        Gets them; what is there already is verified, and not pulled again.
    report : callable
    insecure : bool
        Plain HTTP; registries on this machine are always asked so.

    Returns
    -------
    Pulled

    Raises
    ------
    NotFoundError
        When there is no such image, or not for that platform, with those that there are.
    IntegrityError
        When bytes are not those of their digest.
    """
    session = Session(reference, "pull", insecure=insecure)
    report(f"looking up {reference}")
    manifest, digest = get_manifest(session, reference.wanted)
    for _ in range(_DEEPEST):
        if "manifests" not in manifest:
            break
        chosen = _choose(manifest["manifests"], platform, reference)
        manifest, digest = get_manifest(session, chosen)
    if "manifests" in manifest or manifest["config"]["size"] > _MOST_CONFIG:
        raise UnsupportedError("not the manifest of an image", where=str(reference))
    name = f"pulling {reference.repository}"
    download(session, manifest["config"], blobs, f"{name}: configuration", report)
    config = read_document(blobs, manifest["config"])
    if _name(config) != platform:
        raise NotFoundError("platform", platform, [_name(config)], where=str(reference))
    for number, layer in enumerate(manifest["layers"], 1):
        doing = f"{name}: layer {number} of {len(manifest['layers'])}"
        download(session, layer, blobs, doing, report)
    return Pulled(str(reference), digest, manifest, config)


def get_manifest(session: Session, name: str) -> tuple[Document, str]:
    """A manifest and its digest, which is verified where it was asked for or is told."""
    url = session.url(f"/manifests/{name}")

    def fetch() -> tuple[bytes, str]:
        with session.send("GET", url, _ACCEPT) as response:
            if response.status == 404:
                raise NotFoundError("image", _named(session.reference, name))
            if response.status != 200:
                raise session.refuse(response, f"give {_named(session.reference, name)}")
            return read_all(response), response.headers.get("Docker-Content-Digest", "")

    content, told = again(fetch, session.pause)
    digest = f"sha256:{sha256_bytes(content)}"
    expected = name if name.startswith("sha256:") else told
    if expected.startswith("sha256:") and expected != digest:
        raise IntegrityError(f"{session.reference.name} sent {digest} for {expected}")
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict):
        raise UnsupportedError("a manifest that is no JSON object", where=url)
    check_manifest(manifest, _named(session.reference, name))
    return manifest, digest


def _named(reference: Reference, name: str) -> str:
    return f"{reference.name}{'@' if name.startswith('sha256:') else ':'}{name}"


def _choose(manifests: Sequence[Document], platform: str, reference: Reference) -> str:
    """The digest of the manifest for a platform, of its plainest variant."""
    found: dict[str, str] = {}
    for item in manifests:
        own = item.get("platform", {})
        if _name(own) == platform:
            found.setdefault(str(own.get("variant", "")), str(item["digest"]))
    for variant in ("", "v8", *found):
        if variant in found:
            return found[variant]
    names = {_name(item.get("platform", {})) for item in manifests}
    known = sorted(name for name in names if "unknown" not in name)  # attestations
    raise NotFoundError("platform", platform, known, where=str(reference))


def _name(platform: Mapping[str, Any]) -> str:
    return f"{platform.get('os', 'unknown')}/{platform.get('architecture', 'unknown')}"
