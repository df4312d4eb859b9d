"""modelport's own server, from its command line, with a package as users serve it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelport.api import pack
from modelport.core.options import PackOptions
from peers.base import standard_url


class Modelport:
    """``python -m modelport serve`` on the environment that runs the benchmark."""

    name = "modelport"
    requirements: tuple[str, ...] = ()

    def command(self, python: Path, model: Path, port: int) -> list[str]:
        """See `peers.base.Peer.command`; packs the model first."""
        folder = model.parent / "packages"
        package = pack(model, model.stem, out=folder, options=PackOptions(replace=True))
        return [
            str(python), "-m", "modelport", "serve", str(package.path),
            "--port", str(port), "--workers", "1", "--threads", "1",
        ]  # fmt: skip

    def environment(self) -> Mapping[str, str]:
        """See `peers.base.Peer.environment`."""
        return {}

    def supports(self, protocol: str) -> bool:
        """See `peers.base.Peer.supports`."""
        return protocol in ("v2-json", "v2-binary", "tfs")

    def url(self, protocol: str, model: str, port: int) -> str:
        """See `peers.base.Peer.url`."""
        return standard_url(protocol, model, port)


PEER = Modelport()
