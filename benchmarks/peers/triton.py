"""NVIDIA Triton, as nvidia-pytriton ships it: its Python backend, with dynamic batching."""

from __future__ import annotations

from peers.base import ProgramPeer

PEER = ProgramPeer(
    name="triton",
    program="triton_server.py",
    requirements=(
        "nvidia-pytriton==0.7.0",
        "onnxruntime==1.31.1",
        "numpy==1.26.4",
    ),
    protocols=("v2-json", "v2-binary"),
)
