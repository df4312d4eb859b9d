"""What platforms refuse about an image, read from an OCI layout; nothing is run or fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.deploy.diagnosis.base import Finding

#: Platforms that run images for one architecture.
_ONE_ARCHITECTURE: Final = (
    "cloudrun",
    "lambda",
    "sagemaker",
    "vertex",
    "azureml",
    "azure-functions",
)
_CAPABILITY: Final = "com.amazonaws.sagemaker.capabilities.accept-bind-to-port"
#: Manifests of attestations say this instead of a platform.
_UNKNOWN: Final = "unknown"


def diagnose_image(layout: Path, target: str, architecture: str = "amd64") -> list[Finding]:
    """Hold an image against what a target takes.

    Parameters
    ----------
    layout : Path
    target : str
    architecture : str
        Of the machines that it would run on: ``amd64``, ``arm64``.

    Raises
    ------
    InputError
        When `layout` is no OCI image layout.
    """
    try:
        manifests = _manifests(layout)
        configurations = [_read(layout, m["config"]["digest"]) for m in manifests]
        return _diagnose(manifests, configurations, target, architecture)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"the image layout is damaged: {error!r}", where=str(layout)) from error


def _diagnose(
    manifests: list[dict[str, Any]],
    configurations: list[dict[str, Any]],
    target: str,
    architecture: str,
) -> list[Finding]:
    platforms = [f"{c.get('os')}/{c.get('architecture')}" for c in configurations]
    found: list[Finding] = []
    if target in _ONE_ARCHITECTURE and f"linux/{architecture}" not in platforms:
        found.append(
            Finding(
                f"the image is for {', '.join(platforms)}, and {target} runs linux/{architecture}",
                "it was built for another processor: it would end with 'exec format error', or "
                "without any log",
                f"modelport image PACKAGE --platform linux/{architecture}",
            )
        )
    if target == "lambda" and len(manifests) > 1:
        found.append(
            Finding(
                f"the image is an index of {len(manifests)} platforms",
                "Lambda takes a manifest for one platform alone",
                f"modelport image PACKAGE --platform linux/{architecture}",
                source="https://docs.aws.amazon.com/lambda/latest/dg/images-create.html",
            )
        )
    for configuration in configurations:
        found += [f for f in _configured(configuration, target) if f not in found]
    return found


def _configured(configuration: dict[str, Any], target: str) -> list[Finding]:
    settings = configuration.get("config", {})
    found = []
    user = str(settings.get("User", "")).partition(":")[0]
    if target in ("kubernetes", "kserve") and (not user.isdecimal() or int(user) == 0):
        found.append(
            Finding(
                f"the image's user is {user or 'root'}",
                "pods that must not run as root need a number, and not 0",
                "USER 65532:65532 in the Dockerfile, or an image of 'modelport image'",
            )
        )
    if not settings.get("Entrypoint"):
        found.append(
            Finding(
                "the image has no entry point",
                "SageMaker, KServe and Vertex AI append arguments to the entry point; without one "
                "they are taken for the program",
                'ENTRYPOINT ["modelport", "serve"], in exec form',
            )
        )
    if target == "sagemaker" and settings.get("Labels", {}).get(_CAPABILITY) != "true":
        found.append(
            Finding(
                f"the image lacks the label {_CAPABILITY}=true",
                "SageMaker lets only images with it into pipelines of several containers",
                "set the label, if this image is to be part of one",
                weight="note",
            )
        )
    return found


def _manifests(layout: Path) -> list[dict[str, Any]]:
    """All manifests of images, through indices."""
    if not (layout / "oci-layout").is_file():
        raise InputError(
            f"not an OCI image layout: {layout}", hint="modelport image PACKAGE --out FOLDER"
        )
    queue = _load(layout / "index.json", layout).get("manifests", [])
    found = []
    seen: set[str] = set()  # an index may name itself
    while queue:
        descriptor = queue.pop(0)
        if descriptor.get("platform", {}).get("architecture") == _UNKNOWN:
            continue
        if descriptor["digest"] in seen:
            continue
        seen.add(descriptor["digest"])
        document = _read(layout, descriptor["digest"])
        if "manifests" in document:
            queue += document["manifests"]
        else:
            found.append(document)
    if not found:
        raise InputError(f"the layout holds no image: {layout}")
    return found


def _read(layout: Path, digest: str) -> dict[str, Any]:
    algorithm, _, encoded = digest.partition(":")
    if not (algorithm.isalnum() and encoded.isalnum()):
        raise InputError(f"not a digest: {digest!r}", where=str(layout))
    return _load(layout / "blobs" / algorithm / encoded, layout)


def _load(path: Path, layout: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"the image layout is damaged: {error}", where=str(layout)) from error
    if not isinstance(document, dict):
        raise InputError(
            f"the image layout is damaged: {path.name} is no object", where=str(layout)
        )
    return document
