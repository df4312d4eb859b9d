"""Images of packages, written without a container engine, and pushed if that is wanted."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelport.core.errors import InputError
from modelport.core.options import ImageOptions
from modelport.core.package import Package
from modelport.deploy.base import Progress
from modelport.deploy.images.assembly import Assembly, Built
from modelport.deploy.images.elsewhere import find_blobs, note_blobs
from modelport.deploy.images.layout import INDEX, Layout, check_place, place
from modelport.deploy.images.platforms import parse_platforms
from modelport.deploy.images.push import push_layout
from modelport.deploy.images.reference import Reference, parse_reference
from modelport.deploy.images.requirements import requirements


@dataclass(frozen=True)
class Image:
    """An image that has been written or pushed.

    Parameters
    ----------
    digest : str
        Of the manifest, or of the index where there are several platforms.
    tag : str
    out : Path or None
    reference : str
        ``registry/repository@sha256:…``; empty: it was not pushed.
    platforms : tuple of Built
    """

    digest: str
    tag: str
    out: Path | None
    reference: str
    platforms: tuple[Built, ...]

    def to_json(self) -> dict[str, Any]:
        """The plain form."""
        return {
            "digest": self.digest,
            "tag": self.tag,
            "out": str(self.out) if self.out else None,
            "reference": self.reference or None,
            "platforms": [
                {
                    "platform": built.platform,
                    "digest": built.digest,
                    "base_bytes": built.base,
                    "our_bytes": built.ours,
                    "layers": built.layers,
                }
                for built in self.platforms
            ],
        }


def build(package: Package, options: ImageOptions, report: Progress) -> Image:
    """Write the image of a package, and push it if that is wanted.

    Parameters
    ----------
    package : Package
    options : ImageOptions
    report : callable

    Raises
    ------
    InputError
        When the base, the lock file, the platform or the place cannot be used.
    IntegrityError
        When bytes differ from their digest.
    PlatformError
        When an index or a registry refuses.
    """
    platforms = parse_platforms(options.platform)
    pins = requirements(package, options.lock)
    target = parse_reference(options.push) if options.push else None
    if target is not None and target.digest:
        raise InputError(f"cannot push to a digest: {options.push}", where="--push")
    name = package.manifest.name
    tag = target.tag if target and target.tag else package.digest.removeprefix("sha256:")[:12]
    out = Path(options.out).expanduser() if options.out else None
    if out is None and target is None:
        out = Path(f"{name}.oci.tar")
    if out is not None:
        check_place(out)
    cache = Path(options.cache).expanduser() / "images"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".image.", dir=cache))
    except OSError as error:
        raise InputError(f"cannot write to the cache: {cache}: {error.strerror}") from error
    try:
        layout = Layout(staging / "layout")
        chosen = replace(options, insecure=_insecure_base(options, target))
        assembly = Assembly(package, pins, chosen, cache, staging, report)
        made = [assembly.add_image(layout, platform) for platform in platforms]
        manifests = [descriptor for descriptor, _, _ in made]
        image = manifests[0]
        if len(manifests) > 1:
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
            image = layout.add_json(index, INDEX)
        layout.finish(image, tag, [artifact for _, artifact, _ in made])
        reference = ""
        if target is not None:
            text = f"{target.name}:{tag}"
            known = find_blobs(cache, target.registry)
            digest = push_layout(
                layout.folder, text, report, insecure=options.insecure, elsewhere=known
            )
            note_blobs(cache, target, (f"sha256:{path.name}" for path in layout.blobs.iterdir()))
            reference = f"{target.name}@{digest}"
        if out is not None:
            report(f"writing {out}")
            place(layout, out, name, replace=options.replace)
    except OSError as error:
        raise InputError(f"the image cannot be written: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Image(image["digest"], tag, out, reference, tuple(built for _, _, built in made))


def _insecure_base(options: ImageOptions, target: Reference | None) -> bool:
    """Whether the base's registry may be asked without TLS: one that was not meant is never."""
    if not options.insecure or target is None:
        return options.insecure
    try:
        return parse_reference(options.base).registry == target.registry
    except InputError:  # a layout or an archive
        return False
