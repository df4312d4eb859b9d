"""The session that every Python server here holds: one thread, no spinning."""

from __future__ import annotations

import onnxruntime


def open_session(path: str) -> onnxruntime.InferenceSession:
    """Load an ONNX model on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
