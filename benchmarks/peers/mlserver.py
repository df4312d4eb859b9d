"""MLServer with a runtime for ONNX, executed in the server's process."""

from __future__ import annotations

from peers.base import ProgramPeer

PEER = ProgramPeer(
    name="mlserver",
    program="mlserver_server.py",
    requirements=(
        "mlserver==1.7.1",
        "fastapi==0.115.14",
        "pydantic==2.14.3",
        "uvicorn==0.54.0",
        "uvloop==0.23.0",
        "httptools==0.9.0",
        "onnxruntime==1.31.1",
        "numpy==2.4.6",
    ),
)
