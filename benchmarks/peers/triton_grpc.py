"""The same Triton as in ``triton.py``, asked over gRPC."""

from __future__ import annotations

from dataclasses import replace

from peers.triton import PEER as TRITON

PEER = replace(
    TRITON, name="triton_grpc", protocols=("v2-grpc",), arguments=("grpc",), shares="triton"
)
