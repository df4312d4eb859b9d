"""Mosec: HTTP in Rust, the model in a process of its own behind a socket."""

from __future__ import annotations

from peers.base import ProgramPeer

PEER = ProgramPeer(
    name="mosec",
    program="mosec_server.py",
    requirements=(
        "mosec==0.9.8",
        "orjson==3.13.0",
        "onnxruntime==1.31.1",
        "numpy==2.4.6",
    ),
    variables={"BENCHMARK_BATCH": "1"},
)
