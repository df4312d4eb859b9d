"""KServe's Python model server."""

from __future__ import annotations

from peers.base import ProgramPeer

PEER = ProgramPeer(
    name="kserve",
    program="kserve_server.py",
    requirements=(
        "kserve==0.21.0",
        "fastapi==0.165.0",
        "starlette==1.10.0",
        "pydantic==2.14.3",
        "uvicorn==0.54.0",
        "uvloop==0.23.0",
        "httptools==0.9.0",
        "onnxruntime==1.31.1",
        "numpy==2.4.6",
    ),
    protocols=("v2-json", "v2-binary", "tfs"),
)
