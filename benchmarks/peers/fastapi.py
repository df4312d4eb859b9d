"""FastAPI on uvicorn with uvloop and httptools, orjson both ways, and no validation."""

from __future__ import annotations

from peers.base import ProgramPeer

PEER = ProgramPeer(
    name="fastapi",
    program="fastapi_server.py",
    requirements=(
        "fastapi==0.165.0",
        "starlette==1.10.0",
        "pydantic==2.14.3",
        "uvicorn==0.54.0",
        "uvloop==0.23.0",
        "httptools==0.9.0",
        "orjson==3.13.0",
        "onnxruntime==1.31.1",
        "numpy==2.4.6",
    ),
)
