"""Names of images: ``registry/repository:tag@digest``, as Docker writes and completes them.

Sources: the grammar of https://github.com/distribution/reference (``docker.io`` and ``library/``
where nothing is said), the names and tags of
https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from modelport.core.errors import InputError

#: What a name without a registry means, and the host that answers for it.
DOCKER_HUB: Final = "docker.io"
_DOCKER_HUB_API: Final = "registry-1.docker.io"

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_LABEL: Final = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::\d{{1,5}})?")
_LONGEST: Final = 255


@dataclass(frozen=True)
class Reference:
    """An image's name, complete.

    Parameters
    ----------
    registry : str
        Host, with the port if it was given: ``docker.io``, ``127.0.0.1:5000``.
    repository : str
    tag : str
        Empty: none was given.
    digest : str
        ``sha256:…``; empty: none was given.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def wanted(self) -> str:
        """What to ask the registry for: the digest, else the tag, else ``latest``."""
        return self.digest or self.tag or "latest"

    @property
    def name(self) -> str:
        """``registry/repository``."""
        return f"{self.registry}/{self.repository}"

    @property
    def host(self) -> str:
        """The host that answers the distribution API."""
        return _DOCKER_HUB_API if self.registry == DOCKER_HUB else self.registry

    @property
    def loopback(self) -> bool:
        """Whether the registry is on this machine, where plain HTTP is the custom."""
        host = re.sub(r":\d+$", "", self.registry).strip("[]")
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{'@' + self.digest if self.digest else ''}"


def parse_reference(text: str) -> Reference:
    """Read a name as Docker does: ``alpine`` is ``docker.io/library/alpine``.

    Raises
    ------
    InputError
        When it is none, with the part that is wrong.
    """
    if not text or text != text.strip() or "://" in text:
        raise _wrong(text, "a name has no scheme and no spaces")
    rest, _, digest = text.partition("@")
    if "@" in text and not _DIGEST.fullmatch(digest):
        raise _wrong(text, f"not a digest: {digest!r}: sha256: and 64 hexadecimal digits")
    first, slash, others = rest.partition("/")
    named = bool(slash) and ("." in first or ":" in first or first == "localhost")
    registry, path = (first, others) if named else (DOCKER_HUB, rest)
    path, colon, tag = path.partition(":")
    if registry == "index.docker.io":
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    if not _HOST.fullmatch(registry) or not _is_port(registry):
        raise _wrong(text, f"not a host: {registry!r}")
    if not _REPOSITORY.fullmatch(path):
        hint = "lower-case letters, digits and single . _ - between them, parts separated by /"
        raise _wrong(text, f"not a repository: {path!r}: {hint}")
    if colon and not _TAG.fullmatch(tag):
        raise _wrong(text, f"not a tag: {tag!r}: at most 128 letters, digits and _ . -")
    reference = Reference(registry.lower(), path, tag, digest)
    if len(reference.name) > _LONGEST:
        raise _wrong(text, f"more than {_LONGEST} characters")
    return reference


def _is_port(registry: str) -> bool:
    """Whether the port is one, where there is one; an IPv6 address has colons in brackets."""
    found = re.search(r":(\d+)$", registry)
    return found is None or 0 < int(found[1]) < 1 << 16


def _wrong(text: str, why: str) -> InputError:
    return InputError(
        f"not an image reference: {text!r}: {why}", hint="registry.example/team/name:tag"
    )
