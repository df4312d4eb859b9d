"""Images to registries: what is there is not sent again, and the tag comes last.

Sources: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pushing-manifests,
and for the fallback of registries without referrers ``#pushing-manifests-with-subject``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelport.core.digest import canonical_json, sha256_bytes
from modelport.core.errors import InputError, IntegrityError, NotFoundError, PlatformError
from modelport.deploy.base import Progress
from modelport.deploy.images.blobs import upload
from modelport.deploy.images.descriptors import blob_path, check_manifest
from modelport.deploy.images.exchange import again
from modelport.deploy.images.layout import (
    INDEX,
    MANIFEST,
    TAG,
    Document,
    check_blob,
    read_document,
)
from modelport.deploy.images.pull import get_manifest
from modelport.deploy.images.reference import Reference, parse_reference
from modelport.deploy.images.session import Session


def push_layout(
    layout: Path,
    reference_text: str,
    report: Progress,
    *,
    insecure: bool = False,
    elsewhere: Mapping[str, str] | None = None,
) -> str:
    """Push an image layout: blobs first, the tag last, so that nobody sees half of it.

    Manifests of ``index.json`` that have a ``subject`` (an SBOM, a signature) are pushed as
    referrers. A name without a tag gets the layout's own.

    Parameters
    ----------
    layout : Path
    reference_text : str
    report : callable
    insecure : bool
        Plain HTTP; registries on this machine are always asked so.
    elsewhere : mapping of str to str
        Repositories of the same registry that may have a blob, by its digest.

    Returns
    -------
    str
        The digest under which it can be pulled.

    Raises
    ------
    IntegrityError
        When the layout is damaged, or the registry kept something else.
    PlatformError
        When the registry refuses.
    """
    reference = parse_reference(reference_text)
    image, *referrers = _read_index(layout)
    blobs = layout / "blobs" / "sha256"
    others = {
        digest: repository
        for digest, repository in (elsewhere or {}).items()
        if repository != reference.repository and blob_path(blobs, digest).is_file()
    }
    pusher = _Pusher(reference, blobs, others, report, insecure=insecure)
    digest = str(image["digest"])
    pusher.push(image, digest)
    for referrer in referrers:
        try:
            pusher.push(referrer, str(referrer["digest"]))
        except PlatformError as error:
            # The image has its SBOM inside, too; some registries take nothing but images.
            report(f"not attached to the image: {referrer.get('artifactType')}: {error}")
    tag = reference.tag or image.get("annotations", {}).get(TAG) or "latest"
    pusher.put(tag, pusher.content(image))
    report(f"pushed {reference.name}@{digest}")
    return digest


def _read_index(layout: Path) -> list[Document]:
    """The image of a layout, and what refers to it."""
    path = layout / "index.json"
    try:
        index = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"not an image layout: {error}", where=str(path)) from None
    if not isinstance(index, dict):
        raise InputError("not an image layout", where=str(path))
    check_manifest(index, str(path))
    if not index.get("manifests"):
        raise InputError("an image layout without an image", where=str(path))
    return list(index["manifests"])


class _Pusher:
    """Pushes what is in one layout to one repository."""

    def __init__(
        self,
        reference: Reference,
        blobs: Path,
        others: Mapping[str, str],
        report: Progress,
        *,
        insecure: bool,
    ) -> None:
        self._blobs, self._others, self._report = blobs, others, report
        repositories = set(others.values())
        self._session = Session(reference, "pull,push", insecure=insecure, others=repositories)

    def content(self, descriptor: Mapping[str, Any]) -> bytes:
        """The bytes of a manifest in the layout, verified."""
        return check_blob(self._blobs, descriptor).read_bytes()

    def push(self, descriptor: Mapping[str, Any], name: str) -> None:
        """All that a manifest needs, then the manifest."""
        content = self.content(descriptor)
        manifest = read_document(self._blobs, descriptor)
        check_manifest(manifest, str(self._blobs))
        for child in manifest.get("manifests", []):
            self.push(child, str(child["digest"]))
        layers = manifest.get("layers", [])
        for number, layer in enumerate(layers, 1):
            self._send(layer, f"layer {number} of {len(layers)}")
        if "config" in manifest:
            self._send(manifest["config"], "configuration")
        self.put(name, content)

    def _send(self, descriptor: Mapping[str, Any], what: str) -> None:
        doing = f"pushing {self._session.reference.repository}: {what}"
        other = self._others.get(str(descriptor["digest"]), "")
        upload(self._session, descriptor, self._blobs, doing, self._report, other=other)

    def put(self, name: str, content: bytes) -> None:
        """Put a manifest under a tag or its digest."""
        manifest: Document = json.loads(content)
        digest = f"sha256:{sha256_bytes(content)}"
        headers = {"Content-Type": _media_type(manifest)}
        url = self._session.url(f"/manifests/{name}")

        def send() -> bool:
            body = (lambda: [content], len(content))
            with self._session.send("PUT", url, headers, body) as response:
                if response.status != 201:
                    raise self._session.refuse(response, f"take manifest {name}")
                kept = response.headers.get("Docker-Content-Digest", digest)
                if kept != digest:
                    raise IntegrityError(f"{digest} was pushed, and {kept} kept", where=url)
                return "OCI-Subject" in response.headers

        if not again(send, self._session.pause) and "subject" in manifest:
            self._refer(manifest, digest, len(content))

    def _refer(self, manifest: Document, digest: str, size: int) -> None:
        """List a manifest under its subject's tag, for registries that keep no such list."""
        tag = str(manifest["subject"]["digest"]).replace(":", "-")
        try:
            index, _ = get_manifest(self._session, tag)
        except NotFoundError:
            index = {}
        if "manifests" not in index:
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
        if any(item["digest"] == digest for item in index["manifests"]):
            return
        entry: Document = {"mediaType": _media_type(manifest), "digest": digest, "size": size}
        kind = manifest.get("artifactType") or manifest.get("config", {}).get("mediaType")
        entry |= {"artifactType": kind} if kind else {}
        entry |= {"annotations": manifest["annotations"]} if manifest.get("annotations") else {}
        index["manifests"].append(entry)
        self.put(tag, canonical_json(index))


def _media_type(manifest: Mapping[str, Any]) -> str:
    """A manifest's own type, or that of its shape."""
    return str(manifest.get("mediaType") or (INDEX if "manifests" in manifest else MANIFEST))
