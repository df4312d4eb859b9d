"""What images run on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelport.core.errors import UnsupportedError


@dataclass(frozen=True)
class Platform:
    """What an image runs on: ``linux/amd64``."""

    os: str
    architecture: str

    @property
    def machine(self) -> str:
        """What wheels and the kernel call the processor."""
        return _MACHINES[self.architecture]

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}"


_MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}


def parse_platforms(text: str) -> tuple[Platform, ...]:
    """Read ``linux/amd64,linux/arm64``.

    Raises
    ------
    UnsupportedError
        For others than these two, of which there are wheels.
    """
    platforms = []
    for word in text.split(","):
        system, _, architecture = word.strip().partition("/")
        architecture = architecture.removesuffix("/v8")
        if system != "linux" or architecture not in _MACHINES:
            raise UnsupportedError(
                f"no images are made for the platform {word.strip()!r}",
                where="--platform",
                hint=f"of: {', '.join(f'linux/{name}' for name in _MACHINES)}",
            )
        platforms.append(Platform(system, architecture))
    return tuple(dict.fromkeys(platforms))
