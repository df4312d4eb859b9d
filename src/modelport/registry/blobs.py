"""Packages in and out of a store, file by file, each under its digest."""

from __future__ import annotations

from pathlib import Path

from modelport.core.digest import sha256_bytes
from modelport.core.errors import IntegrityError, NotFoundError
from modelport.core.manifest import Manifest, read_manifest
from modelport.core.package import MANIFEST, Package, is_package, open_package, write_package
from modelport.registry.layout import blob_key, place
from modelport.registry.records import VersionRecord
from modelport.stores.base import Store


def upload(store: Store, package: Package) -> None:
    """Store a package's files, then its manifest, passing over what is there already.

    Raises
    ------
    IntegrityError
        When a file was changed after the package was opened.
    """
    for relative, entry in package.manifest.files.items():
        # Even an existing blob's file is read: a push says that *this* package is stored.
        path = package.path / relative
        try:
            content = path.read_bytes()
        except OSError as error:
            raise IntegrityError(
                f"package file cannot be read: {relative}", where=str(package.path)
            ) from error
        if sha256_bytes(content) != entry.sha256:
            raise IntegrityError(
                f"package file has other bytes than its manifest says: {relative}",
                where=str(package.path),
                hint="pack it again",
            )
        _put(store, entry.sha256, content)
    manifest = package.manifest.to_bytes()
    _put(store, sha256_bytes(manifest), manifest)


def download(store: Store, record: VersionRecord, out: Path) -> Package:
    """Write the package of a version to the folder `out`, all of it or nothing.

    A folder that holds this package already is verified and left as it is.

    Raises
    ------
    IntegrityError
        When a blob is missing or has other bytes than its digest says.
    ConflictError
        When something else is at `out`.
    """
    manifest = _manifest(store, record)
    if is_package(out) and (out / MANIFEST).read_bytes() == manifest.to_bytes():
        return open_package(out)
    files = {
        relative: _get(store, entry.sha256, needed_by=f"{relative} of {record.key}")
        for relative, entry in manifest.files.items()
    }
    return write_package(out, manifest, files)


def _manifest(store: Store, record: VersionRecord) -> Manifest:
    sha256 = record.manifest.removeprefix("sha256:")
    data = _get(store, sha256, needed_by=f"the manifest of {record.key}")
    manifest = read_manifest(data, where=place(store, blob_key(sha256)))
    if manifest.name != record.model:
        raise IntegrityError(
            f"version record of {record.model} points at a package of {manifest.name}",
            where=place(store, record.key),
        )
    return manifest


def _put(store: Store, sha256: str, content: bytes) -> None:
    key = blob_key(sha256)
    if not store.exists(key):
        store.put_if_absent(key, content)


def _get(store: Store, sha256: str, *, needed_by: str) -> bytes:
    key = blob_key(sha256)
    try:
        content = store.get(key)
    except NotFoundError as error:
        raise IntegrityError(
            f"blob is missing: {needed_by}",
            where=place(store, key),
            hint="push the same package again: that puts missing blobs back",
        ) from error
    if sha256_bytes(content) != sha256:
        raise IntegrityError(
            f"blob has other bytes than its digest says: {needed_by}",
            where=place(store, key),
            hint="delete the blob and push the same package again: that puts it back",
        )
    return content
