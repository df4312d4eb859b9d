"""modelport's own server with gRPC beside HTTP, asked over gRPC."""

from __future__ import annotations

from pathlib import Path

from peers.modelport import Modelport


class ModelportGrpc(Modelport):
    """``python -m modelport serve … --grpc-port``."""

    name = "modelport_grpc"

    def command(self, python: Path, model: Path, port: int) -> list[str]:
        """See `peers.base.Peer.command`."""
        return [*super().command(python, model, port), "--grpc-port", str(port + 1)]

    def supports(self, protocol: str) -> bool:
        """See `peers.base.Peer.supports`."""
        return protocol == "v2-grpc"


PEER = ModelportGrpc()
