"""What an image is made of, layer upon layer.

::

    base                the layers of another image, as they are
    dependencies        the server's wheels, for the base's Python and processor
    server              modelport itself, as it is installed here
    bill of materials   /usr/share/modelport/sbom.json
    model               the package at /models/NAME

Layers that do not change from model to model come from a cache, and registries have them already.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelport.core.digest import canonical_json, sha256_bytes, sha256_file
from modelport.core.errors import UnsupportedError
from modelport.core.options import ImageOptions
from modelport.core.package import Package
from modelport.deploy.base import Progress
from modelport.deploy.images.base import Base, open_base
from modelport.deploy.images.config import image_config, manifest_annotations
from modelport.deploy.images.layers import Entry, Layer, write_layer
from modelport.deploy.images.layout import CONFIG, MANIFEST, Document, Layout
from modelport.deploy.images.platforms import Platform
from modelport.deploy.images.sbom import MEDIA_TYPE, describe_image
from modelport.deploy.images.server import (
    SBOM,
    Compiler,
    dependency_entries,
    find_compiler,
    own_digest,
    server_entries,
)
from modelport.deploy.images.wheels import PYTHONS, Pin, Wheel, get_wheels

#: Part of the names of cached layers: another number when the same inputs give other bytes.
_FORMAT: Final = 2


@dataclass(frozen=True)
class Built:
    """The sizes of an image for one platform.

    Parameters
    ----------
    platform : str
    digest : str
        Of its manifest.
    base : int
        Compressed bytes of the base's layers.
    layers : dict of str to int
        Compressed bytes of ours.
    """

    platform: str
    digest: str
    base: int
    layers: dict[str, int]

    @property
    def ours(self) -> int:
        """Compressed bytes of our layers."""
        return sum(self.layers.values())


@dataclass(frozen=True)
class Assembly:
    """What the images of all platforms are made with.

    Parameters
    ----------
    package : Package
    pins : sequence of Pin
        Of the server's requirements.
    options : ImageOptions
    cache : Path
        Keeps wheels, layers and base images.
    staging : Path
        A folder that goes away afterwards.
    report : callable
    """

    package: Package
    pins: Sequence[Pin]
    options: ImageOptions
    cache: Path
    staging: Path
    report: Progress

    def add_image(self, layout: Layout, platform: Platform) -> tuple[Document, Document, Built]:
        """Add the image of one platform; its descriptor, its SBOM's, and its sizes."""
        options, manifest = self.options, self.package.manifest
        base = open_base(options.base, platform, self.cache, self.report, insecure=options.insecure)
        python = base.contents.version
        if not options.lock and python not in PYTHONS:
            raise UnsupportedError(
                f"the base image has Python {python}; modelport's lock file has wheels for "
                f"{', '.join(PYTHONS)}",
                where=options.base,
                hint="take another base, or a lock file of your own with --lock FILE",
            )
        wheels = get_wheels(self.pins, python, platform.machine, self.cache, self.report)
        compiler = self._compiler(python)
        bill = describe_image(self.package, base, wheels)
        layers = [
            *self._server_layers(base, wheels, compiler),
            (self._layer([Entry(SBOM, canonical_json(bill))]), "bill of materials"),
            (self._layer(_model_entries(self.package)), "model"),
        ]
        _add_base(layout, base)
        for layer, _ in layers:
            layout.add_file(layer.path, layer.digest)
        config = image_config(self.package, base, layers, compiler.version)
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": layout.add_json(config, CONFIG),
            "layers": [*base.layers, *(layer.descriptor for layer, _ in layers)],
            "annotations": manifest_annotations(config["config"]["Labels"]),
        }
        descriptor = layout.add_json(document, MANIFEST)
        descriptor["platform"] = {
            "os": platform.os,
            "architecture": platform.architecture,
            **({"variant": config["variant"]} if "variant" in config else {}),
        }
        artifact = layout.add_artifact(descriptor, bill, MEDIA_TYPE)
        sizes = {what: layer.size for layer, what in layers}
        self.report(f"{manifest.name} for {platform}: {descriptor['digest']}")
        return descriptor, artifact, Built(str(platform), descriptor["digest"], base.size, sizes)

    def _compiler(self, python: str) -> Compiler:
        found = find_compiler(python) if self.options.bytecode else Compiler()
        if self.options.bytecode and not found.path:
            self.report(
                f"no Python {python} is here to compile the modules with: "
                "the server takes longer to start"
            )
        return found

    def _server_layers(
        self, base: Base, wheels: Sequence[Wheel], compiler: Compiler
    ) -> list[tuple[Layer, str]]:
        """What is the same for all models; each layer's key has all that it is made of."""
        python, interpreter = base.contents.version, base.contents.python
        same = [_FORMAT, python, base.platform.machine, compiler.version]
        digests = [wheel.sha256 for wheel in wheels]
        # Nothing in our own lock file imports its tests; of others nobody knows.
        tests = bool(self.options.lock)

        def dependencies(folder: Path) -> Iterable[Entry]:
            return dependency_entries(wheels, folder, python, compiler.path, tests=tests)

        def server(folder: Path) -> Iterable[Entry]:
            return server_entries(folder, interpreter, python, compiler.path)

        return [
            (self._cached(["dependencies", *same, digests, tests], dependencies), "dependencies"),
            (self._cached(["server", *same, interpreter, own_digest()], server), "server"),
        ]

    def _layer(self, entries: Iterable[Entry]) -> Layer:
        number = sum(1 for _ in self.staging.glob("*.layer"))
        return write_layer(self.staging / f"{number}.layer", entries)

    def _cached(self, same: Sequence[Any], entries: Callable[[Path], Iterable[Entry]]) -> Layer:
        """A layer from the cache, or made and kept there."""
        key = sha256_bytes(canonical_json(list(same)))
        path = self.cache / "layers" / f"{key}.tar.gz"
        facts = path.with_suffix(".json")
        try:
            told = json.loads(facts.read_bytes())
            if f"sha256:{sha256_file(path)}" == told["digest"]:
                return Layer(path, **told)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        self.report(f"packing the {same[0]} layer")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.staging) as folder:
            site = Path(folder, "site")
            site.mkdir()
            made = write_layer(Path(folder, "layer"), entries(site))
            told = {
                "digest": made.digest,
                "diff_id": made.diff_id,
                "size": made.size,
                "unpacked": made.unpacked,
            }
            Path(folder, "facts").write_text(json.dumps(told))
            made.path.replace(path)
            Path(folder, "facts").replace(facts)
        return Layer(path, **told)


def _add_base(layout: Layout, base: Base) -> None:
    for layer in base.layers:
        name = str(layer["digest"]).removeprefix("sha256:")
        target = layout.blobs / name
        if base.name:
            layout.add_file(base.blobs / name, layer["digest"])
        elif not target.exists():
            # Copied, so that whoever changes the base's folder does not change the image.
            shutil.copyfile(base.blobs / name, target)


def _model_entries(package: Package) -> list[Entry]:
    folder = f"models/{package.manifest.name}"
    return [
        Entry(f"{folder}/{path.relative_to(package.path).as_posix()}", path)
        for path in sorted(package.path.rglob("*"))
        if path.is_file()
    ]
