"""Images with nothing in them but what is looked for, and OCI's published schemas."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from modelport.deploy.images.base import Base, open_base
from modelport.deploy.images.layers import GZIP_LAYER, Entry, write_layer
from modelport.deploy.images.layout import (
    CONFIG,
    MANIFEST,
    Layout,
)
from modelport.deploy.images.platforms import Platform

AMD64 = Platform("linux", "amd64")
SCHEMAS = Path(__file__).with_name("oci_schema")
LIBC = b"\x7fELF GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36."
RELEASE = b'NAME="Some Linux"\nID=ubuntu\nVERSION_ID="24.04"\n'
STATUS = (
    b"Package: libc6\nStatus: install ok installed\nVersion: 2.36-9+deb12u9\nArchitecture: amd64\n"
    b"Description: x\n more: text\n\nPackage: gone\nStatus: deinstall ok config-files\n"
    b"Version: 1\nArchitecture: all\n"
)


def quiet(line: str) -> None:
    """Report nothing."""


def members(path: Path) -> list[tarfile.TarInfo]:
    """The entries of a layer."""
    with tarfile.open(path) as archive:
        return archive.getmembers()


def check_schema(document: Any, name: str) -> None:
    """Hold a document against the OCI image specification's published schema."""

    def retrieve(uri: str) -> Resource[Any]:
        content = json.loads((SCHEMAS / uri.rpartition("/")[2]).read_bytes())
        return Resource.from_contents(content, default_specification=DRAFT4)

    schema = json.loads((SCHEMAS / name).read_bytes())
    registry: Registry[Any] = Registry(retrieve=retrieve)  # type: ignore[call-arg]
    jsonschema.Draft4Validator(schema, registry=registry).validate(document)


def small_base(
    folder: Path,
    *,
    architecture: str = "amd64",
    python: str = "usr/local/bin/python3.11",
    libc: bytes = LIBC,
    config: dict[str, Any] | None = None,
    more: tuple[list[Entry], ...] = (),
    layer_type: str = GZIP_LAYER,
    tag: str = "base",
) -> Path:
    """A base image with nothing in it but what is looked for."""
    layout = Layout(folder)
    assert layout.blobs.is_dir()
    first = [Entry(python, b"", executable=True)] if python else []
    first += [Entry("usr/lib/x86_64-linux-gnu/libc.so.6", libc)] if libc else []
    first += [Entry("var/lib/dpkg/status", STATUS), Entry("etc/os-release", RELEASE)]
    layers = []
    for number, entries in enumerate([first, *more]):
        layer = write_layer(folder / f"{number}.layer", entries)
        layout.add_file(layer.path, layer.digest)
        layer.path.unlink()
        layers.append(layer)
    document = {
        "os": "linux",
        "architecture": architecture,
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin", "LANG=C"], "Cmd": ["sh"], "User": "0"},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        **(config or {}),
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": layout.add_json(document, CONFIG),
        "layers": [layer.descriptor | {"mediaType": layer_type} for layer in layers],
    }
    layout.finish(layout.add_json(manifest, MANIFEST), tag)
    return folder


def opened(folder: Path, tmp_path: Path, text: str = "") -> Base:
    """A base image, opened."""
    return open_base(text or f"oci:{folder}", AMD64, tmp_path / "cache", quiet)
