"""Images from and to registries, over the OCI distribution API, with the standard library.

Sources: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md, and for the
fallback of registries without referrers ``#pushing-manifests-with-subject``;
https://github.com/opencontainers/image-spec/blob/v1.1.0/image-index.md (platforms).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelport.core.digest import canonical_json, sha256_bytes
from modelport.core.errors import InputError, IntegrityError, NotFoundError, UnsupportedError
from modelport.deploy.base import Progress
from modelport.deploy.images.blobs import blob_path, download, upload
from modelport.deploy.images.exchange import again
from modelport.deploy.images.reference import Reference, parse_reference
from modelport.deploy.images.session import Session, read_all

INDEX: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
_DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
_INDEXES: Final = (INDEX, _DOCKER_INDEX)
_MANIFESTS: Final = (MANIFEST, _DOCKER_MANIFEST)
_ACCEPT: Final = {"Accept": ", ".join((*_INDEXES, *_MANIFESTS))}
_TAG: Final = "org.opencontainers.image.ref.name"
_DEEPEST: Final = 3

Json = dict[str, Any]


@dataclass(frozen=True)
class Pulled:
    """An image for one platform, whose configuration and layers are in a layout.

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
    manifest: Json
    config: Json


def resolve_digest(reference_text: str, *, insecure: bool = False) -> str:
    """The digest of what a name means now: of the index, where there is one.

    Raises
    ------
    NotFoundError
        When the registry has no such image.
    """
    session = Session(parse_reference(reference_text), "pull", insecure=insecure)
    return _get(session, session.reference.wanted)[1]


def pull_base(
    reference_text: str, platform: str, layout: Path, report: Progress, *, insecure: bool = False
) -> Pulled:
    """Bring the configuration and the layers of one image into a layout's blobs.

    Parameters
    ----------
    reference_text : str
    platform : str
        ``linux/amd64``, ``linux/arm64/v8``.
    layout : Path
        Its ``blobs/sha256`` gets them; what is there already is verified, and not pulled again.
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
    session = Session(parse_reference(reference_text), "pull", insecure=insecure)
    report(f"looking up {session.reference}")
    manifest, digest = _get(session, session.reference.wanted)
    for _ in range(_DEEPEST):
        if "manifests" not in manifest:
            break
        chosen = _choose(manifest["manifests"], platform, session.reference)
        manifest, digest = _get(session, chosen)
    if not isinstance(manifest.get("config"), dict) or not isinstance(manifest.get("layers"), list):
        raise UnsupportedError(
            f"not a manifest of schema 2: {manifest.get('mediaType', 'unknown')}",
            where=str(session.reference),
        )
    name = f"pulling {session.reference.repository}"
    path = download(session, manifest["config"], layout, f"{name}: configuration", report)
    config: Json = json.loads(path.read_bytes())
    _expect_platform(config, platform, session.reference)
    for number, layer in enumerate(manifest["layers"], 1):
        doing = f"{name}: layer {number} of {len(manifest['layers'])}"
        download(session, layer, layout, doing, report)
    return Pulled(str(session.reference), digest, manifest, config)


def push_layout(
    layout: Path, reference_text: str, report: Progress, *, insecure: bool = False
) -> str:
    """Push an image layout: blobs first, the tag last, so that nobody sees half of it.

    Manifests of ``index.json`` that have a ``subject`` (an SBOM, a signature) are pushed as
    referrers. Several images become one index. A name without a tag gets the layout's own.

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
    session = Session(reference, "pull,push", insecure=insecure)
    pusher = _Pusher(session, layout, report)
    descriptors = _read_json(layout / "index.json").get("manifests", [])
    images = [item for item in descriptors if not pusher.is_referrer(item)]
    if not images:
        raise InputError("an image layout without an image", where=str(layout))
    for image in images:
        pusher.push(image, str(image["digest"]))
    for referrer in (item for item in descriptors if item not in images):
        pusher.push(referrer, str(referrer["digest"]))
    if len(images) == 1:
        content = pusher.content(images[0])
    else:
        bare = [{k: v for k, v in item.items() if k != "annotations"} for item in images]
        content = canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": bare})
    digest = f"sha256:{sha256_bytes(content)}"
    if reference.digest and reference.digest != digest:
        raise IntegrityError(f"the layout is {digest}, not {reference.digest}", where=str(layout))
    own_tag = images[0].get("annotations", {}).get(_TAG) if len(images) == 1 else None
    pusher.put(reference.digest or reference.tag or own_tag or "latest", content)
    report(f"pushed {reference.name}@{digest}")
    return digest


class _Pusher:
    """Pushes what is in one layout to one repository."""

    def __init__(self, session: Session, layout: Path, report: Progress) -> None:
        self._session, self._layout, self._report = session, layout, report

    def content(self, descriptor: Mapping[str, Any]) -> bytes:
        """The bytes of a manifest in the layout, verified."""
        path = blob_path(self._layout, str(descriptor["digest"]))
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        if f"sha256:{sha256_bytes(content)}" != descriptor["digest"]:
            raise IntegrityError(
                f"blob {descriptor['digest']} is missing or damaged", where=str(self._layout)
            )
        return content

    def is_referrer(self, descriptor: Mapping[str, Any]) -> bool:
        """Whether a manifest says that it is about another."""
        return "subject" in json.loads(self.content(descriptor))

    def push(self, descriptor: Mapping[str, Any], name: str) -> None:
        """All that a manifest needs, then the manifest."""
        content = self.content(descriptor)
        manifest: Json = json.loads(content)
        for child in manifest.get("manifests", []):
            self.push(child, str(child["digest"]))
        layers = manifest.get("layers", [])
        text = f"pushing {self._session.reference.repository}"
        for number, layer in enumerate(layers, 1):
            doing = f"{text}: layer {number} of {len(layers)}"
            upload(self._session, layer, self._layout, doing, self._report)
        if "config" in manifest:
            doing = f"{text}: configuration"
            upload(self._session, manifest["config"], self._layout, doing, self._report)
        self.put(name, content)

    def put(self, name: str, content: bytes) -> None:
        """Put a manifest under a tag or its digest."""
        manifest: Json = json.loads(content)
        digest = f"sha256:{sha256_bytes(content)}"
        headers = {"Content-Type": media_type(manifest)}
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

    def _refer(self, manifest: Json, digest: str, size: int) -> None:
        """List a manifest under its subject's tag, for registries that keep no such list."""
        tag = str(manifest["subject"]["digest"]).replace(":", "-")
        try:
            index, _ = _get(self._session, tag)
        except NotFoundError:
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
        if any(item.get("digest") == digest for item in index["manifests"]):
            return
        entry: Json = {"mediaType": media_type(manifest), "digest": digest, "size": size}
        kind = manifest.get("artifactType") or manifest.get("config", {}).get("mediaType")
        entry |= {"artifactType": kind} if kind else {}
        entry |= {"annotations": manifest["annotations"]} if manifest.get("annotations") else {}
        index["manifests"].append(entry)
        self.put(tag, canonical_json(index))


def media_type(manifest: Mapping[str, Any]) -> str:
    """A manifest's own type, or that of its shape."""
    return str(manifest.get("mediaType") or (INDEX if "manifests" in manifest else MANIFEST))


def _get(session: Session, name: str) -> tuple[Json, str]:
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
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict):
        raise UnsupportedError("a manifest that is no JSON object", where=url)
    return manifest, digest


def _named(reference: Reference, name: str) -> str:
    return f"{reference.name}{'@' if name.startswith('sha256:') else ':'}{name}"


def _choose(manifests: list[Json], platform: str, reference: Reference) -> str:
    """The digest of the manifest for a platform."""
    system, architecture, variant = _split(platform)
    found: list[tuple[str, str]] = []
    for item in manifests:
        own = item.get("platform", {})
        if (own.get("os"), own.get("architecture")) == (system, architecture):
            found.append((own.get("variant", ""), str(item["digest"])))
    for wanted in (variant, "v8" if architecture == "arm64" else ""):
        for own_variant, digest in found:
            if own_variant == wanted:
                return digest
    if found and not variant:
        return found[0][1]
    names = [_name(item.get("platform", {})) for item in manifests]
    known = sorted({name for name in names if "unknown" not in name})
    raise NotFoundError("platform", platform, known, where=str(reference))


def _expect_platform(config: Json, platform: str, reference: Reference) -> None:
    """An image without an index is for one platform only."""
    if (config.get("os"), config.get("architecture")) != _split(platform)[:2]:
        raise NotFoundError("platform", platform, [_name(config)], where=str(reference))


def _split(platform: str) -> tuple[str, str, str]:
    parts = platform.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise InputError(f"not a platform: {platform!r}", hint="linux/amd64, linux/arm64")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def _name(platform: Mapping[str, Any]) -> str:
    parts = (platform.get(key) for key in ("os", "architecture", "variant"))
    return "/".join(str(part) for part in parts if part)


def _read_json(path: Path) -> Json:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"not an image layout: {error}", where=str(path)) from None
    if not isinstance(document, dict):
        raise InputError("not an image layout", where=str(path))
    return document
