"""What is to be deployed: a package, what it is called, and what one server of it needs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from modelport.core.package import Package
from modelport.core.tensors import TensorSpec
from modelport.deploy.images.reference import parse_reference

#: Characters that a number takes in JSON, with its comma: float32 has at most nine digits.
_NUMBER_BYTES: Final = 13
_TEXT_BYTES: Final = 64
_HEAD_BYTES: Final = 64


@dataclass(frozen=True)
class Footprint:
    """What one server of the package needs.

    Parameters
    ----------
    memory : int
        Bytes of resident memory at its peak.
    latency : float
        Seconds that one request with one row takes.
    processor : float
        Seconds of processor time that one request costs.
    start : float
        Seconds from the start of the process to the first answer.
    measured : bool
        Whether that was measured, or estimated from the package's size.
    """

    memory: int
    latency: float
    processor: float
    start: float
    measured: bool


@dataclass(frozen=True)
class Service:
    """What is to be deployed.

    Parameters
    ----------
    name : str
        Of the service, as a DNS label: lower-case letters, digits and dashes, at most 63.
    package : Package
        Opened and verified.
    version : int or None
        Its version in the registry, where it came from there.
    footprint : Footprint
    """

    name: str
    package: Package
    version: int | None
    footprint: Footprint

    @property
    def model(self) -> str:
        """What clients call the model."""
        return self.package.manifest.name

    @property
    def tag(self) -> str:
        """Twelve characters of the package digest: unique, and allowed in every name."""
        return self.package.digest.removeprefix("sha256:")[:12]

    def image(self, setting: str) -> str:
        """The image's reference: as it was set, or where `apply` will push it.

        Raises
        ------
        InputError
            When `setting` is no name of an image.
        """
        if not setting:
            return "<set image=registry/repository>"
        named = parse_reference(setting)
        return setting if named.digest or named.tag else f"{setting}:{self.tag}"

    @property
    def labels(self) -> dict[str, str]:
        """By which the package is found again, as Kubernetes and Google Cloud allow them.

        Source: https://cloud.google.com/resource-manager/docs/labels-overview (lower-case
        letters, digits, ``_`` and ``-``, at most 63), which is the stricter of the two.
        """
        found = {
            "managed-by": "modelport",
            "modelport-model": re.sub(r"[^a-z0-9_-]", "-", self.model.lower())[:63],
            "modelport-package": self.tag,
        }
        return found | ({"modelport-version": str(self.version)} if self.version else {})

    @property
    def request_bytes(self) -> int:
        """About how long a JSON request with one row is."""
        return _HEAD_BYTES + sum(map(_row_bytes, self.package.manifest.signature.inputs))


def _row_bytes(spec: TensorSpec) -> int:
    each = _TEXT_BYTES if spec.numpy_dtype.kind not in "biuf" else _NUMBER_BYTES
    size = math.prod(d if isinstance(d, int) else 1 for d in spec.shape)
    return len(spec.name) + 8 + size * each
