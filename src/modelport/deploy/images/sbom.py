"""What is in an image, as a CycloneDX 1.6 document.

Source: https://cyclonedx.org/docs/1.6/json/. There is no time in it, and its serial number is
made of its content: the same image has the same document.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from modelport import __version__
from modelport.core.digest import canonical_json, sha256_bytes
from modelport.core.package import Package
from modelport.deploy.images.base import Base
from modelport.deploy.images.wheels import Wheel

MEDIA_TYPE: Final = "application/vnd.cyclonedx+json"

#: What CycloneDX calls the task of a model is free text; ``unknown`` says nothing.
_UNKNOWN: Final = "unknown"


def describe_image(package: Package, base: Base, wheels: Sequence[Wheel]) -> dict[str, Any]:
    """The bill of materials of an image: model, server, wheels, and what the base tells.

    Parameters
    ----------
    package : Package
    base : Base
    wheels : sequence of Wheel
    """
    manifest = package.manifest
    image = f"image:{manifest.name}"
    server = f"pkg:pypi/modelport@{__version__}"
    python = [_wheel(wheel) for wheel in wheels]
    system = base.contents.system or "debian"
    debian = [_debian(system, *fields) for fields in base.contents.packages]
    components = [
        _model(package),
        {
            "type": "application",
            "bom-ref": server,
            "name": "modelport",
            "version": __version__,
            "purl": server,
            "licenses": [{"expression": "Apache-2.0"}],
        },
        _base(base),
        *python,
        *debian,
    ]
    refs = [component["bom-ref"] for component in components]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": image,
                "name": manifest.name,
                "version": package.digest,
            },
            "tools": {
                "components": [{"type": "application", "name": "modelport", "version": __version__}]
            },
        },
        "components": components,
        "dependencies": [
            {"ref": image, "dependsOn": refs[:3]},
            {"ref": server, "dependsOn": [wheel["bom-ref"] for wheel in python]},
            {"ref": refs[2], "dependsOn": [package["bom-ref"] for package in debian]},
        ],
    }
    name = sha256_bytes(canonical_json(document))
    return document | {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, name)}"}


def _model(package: Package) -> dict[str, Any]:
    manifest = package.manifest
    signature = manifest.signature
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{manifest.name}",
        "name": manifest.name,
        "version": package.digest,
        "hashes": [_sha256(package.digest.removeprefix("sha256:"))],
        "modelCard": {
            "modelParameters": {
                **({"task": manifest.task} if manifest.task != _UNKNOWN else {}),
                "inputs": [{"format": _tensor(spec.to_json())} for spec in signature.inputs],
                "outputs": [{"format": _tensor(spec.to_json())} for spec in signature.outputs],
            }
        },
        "properties": [
            {"name": "modelport:engine", "value": manifest.engine},
            *(
                {"name": f"modelport:file:{path}", "value": f"sha256:{entry.sha256}"}
                for path, entry in sorted(manifest.files.items())
            ),
        ],
    }


def _tensor(plain: Mapping[str, Any]) -> str:
    shape = ", ".join(map(str, plain["shape"]))
    return f"{plain['name']}: {plain['dtype']}[{shape}]"


def _base(base: Base) -> dict[str, Any]:
    return {
        "type": "container",
        "bom-ref": "base",
        "name": base.name or "base image",
        "version": base.digest,
        "hashes": [_sha256(base.digest.removeprefix("sha256:"))],
    }


def _wheel(wheel: Wheel) -> dict[str, Any]:
    url = f"pkg:pypi/{wheel.name}@{quote(wheel.version)}"
    return {
        "type": "library",
        "bom-ref": url,
        "name": wheel.name,
        "version": wheel.version,
        "purl": url,
        "hashes": [_sha256(wheel.sha256)],
        **_licenses(wheel),
    }


def _licenses(wheel: Wheel) -> dict[str, Any]:
    if wheel.license:
        return {"licenses": [{"expression": wheel.license}]}
    if wheel.license_name:
        return {"licenses": [{"license": {"name": wheel.license_name}}]}
    return {}


def _debian(system: str, name: str, version: str, architecture: str) -> dict[str, Any]:
    vendor = quote(system.partition("-")[0])
    url = f"pkg:deb/{vendor}/{quote(name)}@{quote(version)}?arch={architecture}"
    url += f"&distro={quote(system)}"
    return {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}


def _sha256(content: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": content}
