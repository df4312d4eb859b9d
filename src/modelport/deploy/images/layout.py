"""OCI image layouts: folders and archives of blobs that are named by their digest.

::

    oci-layout
    index.json              manifests[0]: the image, tagged; then what refers to it, untagged
    blobs/sha256/…

With one platform the image is a manifest, as AWS Lambda needs it; with several an index of
manifests. What refers to it is SBOMs: manifests with an ``artifactType`` and a ``subject``. They
are in folders; archives hold the image alone, because ``podman load`` and ``skopeo copy`` take
an archive without a name only then.

Source: https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelport.core.digest import canonical_json, sha256_bytes, sha256_file
from modelport.core.errors import ConflictError, InputError, IntegrityError
from modelport.deploy.images.descriptors import blob_path
from modelport.deploy.images.layers import Entry, write_tar

INDEX: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
#: Docker's media types mean the same bytes as OCI's.
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
EMPTY: Final = "application/vnd.oci.empty.v1+json"
TAG: Final = "org.opencontainers.image.ref.name"

Document = dict[str, Any]

_VERSION: Final = b'{"imageLayoutVersion":"1.0.0"}'
_BLOBS: Final = "blobs/sha256"
_ARCHIVES: Final = (".gz", ".tgz", ".zip", ".zst", ".xz", ".oci")


@dataclass(frozen=True)
class Layout:
    """A layout that is being written.

    Parameters
    ----------
    folder : Path
        Exists.
    """

    folder: Path

    @property
    def blobs(self) -> Path:
        """Where blobs are, each named by the hexadecimal part of its digest."""
        blobs = self.folder / _BLOBS
        blobs.mkdir(parents=True, exist_ok=True)
        return blobs

    def add_json(self, document: Mapping[str, Any], media_type: str) -> Document:
        """Add a JSON document; its descriptor."""
        content = canonical_json(document)
        digest = sha256_bytes(content)
        (self.blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def add_file(self, source: Path, digest: str) -> None:
        """Add a file whose digest is known, without copying it if that can be."""
        target = self.blobs / digest.removeprefix("sha256:")
        if target.exists():
            return
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copyfile(source, target)

    def add_artifact(
        self, subject: Mapping[str, Any], content: Mapping[str, Any], media_type: str
    ) -> Document:
        """Add a document that refers to an image; the descriptor of its manifest."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": media_type,
            "config": self.add_json({}, EMPTY) | {"data": "e30="},
            "layers": [self.add_json(content, media_type)],
            "subject": {key: subject[key] for key in ("mediaType", "digest", "size")},
        }
        return self.add_json(manifest, MANIFEST) | {"artifactType": media_type}

    def finish(self, image: Document, tag: str, artifacts: Sequence[Document] = ()) -> None:
        """Write the index: the image, and what refers to it."""
        (self.folder / "oci-layout").write_bytes(_VERSION)
        tagged = image | {"annotations": {TAG: tag}}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [tagged, *artifacts]}
        (self.folder / "index.json").write_bytes(canonical_json(index))


def write_archive(layout: Layout, path: Path, name: str) -> None:
    """Write a layout's image as an OCI archive.

    With one platform it also has the ``manifest.json`` by which Docker's classic image store
    loads archives.

    Parameters
    ----------
    layout : Layout
        Finished.
    path : Path
    name : str
        What Docker calls the image, without its tag.
    """
    image = json.loads((layout.folder / "index.json").read_bytes())["manifests"][0]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [image]}
    entries = [
        Entry("oci-layout", _VERSION),
        Entry("index.json", canonical_json(index)),
        *(
            Entry(f"{_BLOBS}/{digest}", layout.blobs / digest)
            for digest in sorted(set(_reachable(layout.blobs, image)))
        ),
    ]
    if image["mediaType"] == MANIFEST:
        manifest = read_document(layout.blobs, image)
        docker = {
            "Config": _blob(manifest["config"]),
            "RepoTags": [f"{name}:{image['annotations'][TAG]}"],
            "Layers": [_blob(layer) for layer in manifest["layers"]],
        }
        entries.append(Entry("manifest.json", canonical_json([docker])))
    with path.open("wb") as file:
        write_tar(file, entries)


def read_document(blobs: Path, descriptor: Mapping[str, Any]) -> Document:
    """A JSON blob, verified.

    Raises
    ------
    IntegrityError
        When it is missing, or has other bytes than its digest says.
    """
    path = find_blob(blobs, descriptor)
    content = path.read_bytes()
    if f"sha256:{sha256_bytes(content)}" != descriptor["digest"]:
        raise IntegrityError("a blob has other bytes than its digest says", where=str(path))
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"a blob is no JSON: {error}", where=str(path)) from error
    if not isinstance(document, dict):
        raise IntegrityError("a blob is no JSON object", where=str(path))
    return document


def find_blob(blobs: Path, descriptor: Mapping[str, Any]) -> Path:
    """Where a blob is.

    Raises
    ------
    IntegrityError
        When it is missing.
    UnsupportedError
        When its digest is no SHA-256 one.
    """
    path = blob_path(blobs, str(descriptor.get("digest", "")))
    if not path.is_file():
        raise IntegrityError(f"blob {descriptor['digest']} is missing", where=str(blobs))
    return path


def check_blob(blobs: Path, descriptor: Mapping[str, Any]) -> Path:
    """Where a blob is, its bytes verified.

    Raises
    ------
    IntegrityError
        When it is missing, or has other bytes than its digest says.
    """
    path = find_blob(blobs, descriptor)
    if sha256_file(path) != path.name:
        raise IntegrityError("a blob has other bytes than its digest says", where=str(path))
    return path


def place(layout: Layout, out: Path, name: str, *, replace: bool) -> None:
    """Put a finished layout where it belongs, as a folder or an archive.

    It is written beside its place and renamed. Writing the image that is already there changes
    nothing.

    Raises
    ------
    ConflictError
        When something else is there, and may not be replaced.
    """
    is_archive = out.suffix == ".tar"
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=_parent(out)))
    staged = beside / out.name
    try:
        if is_archive:
            write_archive(layout, staged, name)
        else:
            shutil.move(layout.folder, staged)
        if out.exists() and not _may_replace(staged, out, replace=replace):
            return
        _swap(staged, out, beside / "old")
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _swap(staged: Path, out: Path, old: Path) -> None:
    """Rename one to the other; what was there comes back when that cannot be."""
    if not out.is_dir():
        staged.rename(out)
        return
    out.rename(old)
    try:
        staged.rename(out)
    except OSError:
        old.rename(out)
        raise


def check_place(out: Path) -> None:
    """Refuse a place that `place` would refuse, before there is anything to be placed.

    Raises
    ------
    ConflictError
        When something that is no image is there.
    InputError
        When its name promises what is not written.
    """
    if out.suffix in _ARCHIVES:
        raise InputError(
            f"no such archives are written: {out}",
            where="--out",
            hint="FILE.tar is an archive, whose layers are compressed; another name is a folder",
        )
    as_archive = out.suffix == ".tar"
    if out.exists() and not (out.is_file() if as_archive else (out / "index.json").is_file()):
        raise ConflictError(f"cannot write an image here, something else exists: {out}")


def _may_replace(staged: Path, out: Path, *, replace: bool) -> bool:
    """Whether the place must be changed; raises when it must not be."""
    if staged.is_dir() and (out / "index.json").is_file():
        if (out / "index.json").read_bytes() == (staged / "index.json").read_bytes():
            return False
        if replace:
            return True
    elif staged.is_file() and out.is_file():
        if sha256_file(out) == sha256_file(staged):
            return False
        if replace:
            return True
    else:
        raise ConflictError(f"cannot write an image here, something else exists: {out}")
    raise ConflictError(f"another image exists: {out}", hint="--force replaces it")


def _parent(out: Path) -> Path:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from error
    return out.parent


def _reachable(blobs: Path, descriptor: Mapping[str, Any]) -> Iterator[str]:
    yield descriptor["digest"].removeprefix("sha256:")
    document = read_document(blobs, descriptor)
    for child in document.get("manifests", ()):
        yield from _reachable(blobs, child)
    for child in (document.get("config"), *document.get("layers", ())):
        if child:
            yield child["digest"].removeprefix("sha256:")


def _blob(descriptor: Mapping[str, Any]) -> str:
    return f"{_BLOBS}/{descriptor['digest'].removeprefix('sha256:')}"
