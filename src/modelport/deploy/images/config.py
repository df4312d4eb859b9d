"""How the image runs, and what its labels say.

Source: https://github.com/opencontainers/image-spec/blob/v1.1.0/config.md and ``annotations.md``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelport import __version__
from modelport.core.digest import canonical_json
from modelport.core.package import Package
from modelport.deploy.images.base import Base
from modelport.deploy.images.layers import Layer
from modelport.deploy.images.server import BINARIES

#: Neither root nor anybody whom a base knows; numeric, as Kubernetes' ``runAsNonRoot`` needs it.
USER: Final = "65532:65532"
ENTRYPOINT: Final = (f"{BINARIES}/modelport", "serve")
HEALTH_CHECK: Final = (f"{BINARIES}/healthcheck",)
PORT: Final = 8080
#: Seconds between health checks, for one, and until failures count; failures in a row.
INTERVAL: Final = 10
TIMEOUT: Final = 6
START_PERIOD: Final = 60
RETRIES: Final = 3

#: All times in an image: the same bytes whenever it is made.
EPOCH: Final = "1970-01-01T00:00:00Z"

_NANOSECONDS: Final = 10**9

_ENVIRONMENT: Final = {
    "HOME": "/tmp",  # noqa: S108 - the only folder that is written to, where the rest is read-only
    "MODELPORT_HOST": "0.0.0.0",  # noqa: S104 - containers are reached from outside
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}


def image_config(
    package: Package, base: Base, layers: Sequence[tuple[Layer, str]], bytecode: str
) -> dict[str, Any]:
    """The configuration of an image.

    Parameters
    ----------
    package : Package
    base : Base
    layers : sequence of (Layer, str)
        Ours, each with what it is, in order.
    bytecode : str
        The exact version of the Python that compiled the modules; empty: none did.
    """
    below = base.config
    empty = [{"created_by": "base"} for _ in base.layers]
    told = [h for h in below.get("history") or () if isinstance(h, Mapping)]
    whole = sum(not h.get("empty_layer") for h in told) == len(base.layers)
    ours = [{"created": EPOCH, "created_by": f"modelport image: {what}"} for _, what in layers]
    return {
        "created": EPOCH,
        "os": base.platform.os,
        "architecture": base.platform.architecture,
        **{key: below[key] for key in ("variant", "os.version") if key in below},
        "config": {
            "User": USER,
            "ExposedPorts": {f"{PORT}/tcp": {}},
            "Env": _environment(below.get("config", {}).get("Env") or ()),
            "Entrypoint": list(ENTRYPOINT),
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
            # OCI reserves the field for Docker, which runs it; Podman reads it of Docker's format.
            "Healthcheck": {
                "Test": ["CMD", *HEALTH_CHECK],
                "Interval": INTERVAL * _NANOSECONDS,
                "Timeout": TIMEOUT * _NANOSECONDS,
                "StartPeriod": START_PERIOD * _NANOSECONDS,
                "Retries": RETRIES,
            },
            "Labels": labels(package, base, bytecode),
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": [*below["rootfs"]["diff_ids"], *(layer.diff_id for layer, _ in layers)],
        },
        "history": [*([_dated(h) for h in told] if whole else map(_dated, empty)), *ours],
    }


def labels(package: Package, base: Base, bytecode: str) -> dict[str, str]:
    """What tools and people read of an image without running it."""
    manifest = package.manifest
    standard = {
        "title": manifest.name,
        "description": f"modelport {__version__} serving the model {manifest.name}",
        "version": package.digest.removeprefix("sha256:")[:12],
        "base.digest": base.digest,
        **({"base.name": base.name} if base.name else {}),
    }
    return {
        **{f"org.opencontainers.image.{key}": value for key, value in standard.items()},
        "io.modelport.version": __version__,
        "io.modelport.package.digest": package.digest,
        "io.modelport.signature": canonical_json(manifest.signature.to_json()).decode(),
        "io.modelport.bytecode": bytecode or "none",
        # For engines that do not read it from the configuration.
        "io.modelport.healthcheck": json.dumps(HEALTH_CHECK),
        # SageMaker reads these two; see "Build your own container for multi-model endpoints".
        "com.amazonaws.sagemaker.capabilities.multi-models": "true",
        "com.amazonaws.sagemaker.capabilities.accept-bind-to-port": "true",
    }


def manifest_annotations(labels: Mapping[str, str]) -> dict[str, str]:
    """Those labels that a manifest has, too: registries show them."""
    wanted = ("org.opencontainers.image.", "io.modelport.package.")
    return {key: value for key, value in labels.items() if key.startswith(wanted)}


def _environment(below: Sequence[str]) -> list[str]:
    """The base's variables with ours over them, and our programs first on the path."""
    variables = dict(text.partition("=")[::2] for text in below)
    path = variables.get("PATH") or "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    variables |= _ENVIRONMENT | {"PATH": f"{BINARIES}:{path}"}
    variables.pop("PYTHONPATH", None)  # the base's modules are not ours
    variables.pop("PYTHONHOME", None)
    return [f"{name}={value}" for name, value in variables.items()]


def _dated(history: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with a time: some tools do not read entries without."""
    return {"created": EPOCH, **history}
