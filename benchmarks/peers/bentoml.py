"""BentoML: one service with one worker."""

from __future__ import annotations

from peers.base import ProgramPeer

PEER = ProgramPeer(
    name="bentoml",
    program="bentoml_server.py",
    requirements=(
        "bentoml==1.4.39",
        "starlette==1.10.0",
        "pydantic==2.14.3",
        "uvicorn==0.54.0",
        "uvloop==0.23.0",
        "httptools==0.9.0",
        "onnxruntime==1.31.1",
        "numpy==2.4.6",
    ),
    variables={"BENTOML_DO_NOT_TRACK": "True"},
)
