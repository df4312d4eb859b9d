"""modelport's own server with ``--http2``: the same request path behind Granian."""

from __future__ import annotations

from pathlib import Path

from peers.modelport import Modelport


class ModelportHttp2(Modelport):
    """``python -m modelport serve --http2``, asked in HTTP/1.1 as all the others are."""

    name = "modelport_http2"

    def command(self, python: Path, model: Path, port: int) -> list[str]:
        """See `peers.base.Peer.command`."""
        return [*super().command(python, model, port), "--http2"]


PEER = ModelportHttp2()
