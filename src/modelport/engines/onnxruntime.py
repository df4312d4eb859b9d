"""ONNX Runtime, on the CPU."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any, Final

# ONNX Runtime reports home, and writes a device number to the home folder, unless told not to
# before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from modelport.core.errors import EngineError, SignatureError, UnsupportedError
from modelport.core.signature import Signature
from modelport.core.tensors import STRING, Array, Tensors, TensorSpec
from modelport.engines.base import EngineOptions

_DTYPES: Final = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    "tensor(string)": STRING,
    **{f"tensor({u}int{bits})": f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)},
}

_FATAL_ONLY: Final = 4
#: Field 4 of a node, as protobuf writes it.
_RECURRENT: Final = (b"\x22\x04LSTM", b"\x22\x03GRU")


class OnnxRuntimeEngine:
    """Executes ONNX models with all graph optimizations and without spinning threads."""

    def load(self, model: Path | bytes, options: EngineOptions) -> OnnxRuntimeModel:
        """See `modelport.engines.base.Engine.load`."""
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = options.threads
        session_options.inter_op_num_threads = 1
        session_options.log_severity_level = _FATAL_ONLY  # we raise what it would print
        # Spinning workers take the cores from the other models and from the event loop.
        session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not options.optimize:
            session_options.graph_optimization_level = (
                onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            )
        try:
            session = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model),
                session_options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:  # ONNX Runtime has no common base class for its errors
            where = "" if isinstance(model, bytes) else str(model)
            raise EngineError(
                f"ONNX Runtime cannot load the model: {error}", where=where
            ) from error
        return _NeverEmpty(session) if _has_recurrence(model) else OnnxRuntimeModel(session)


class OnnxRuntimeModel:
    """An ONNX Runtime session.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._signature = Signature(
            inputs=tuple(_spec(node) for node in session.get_inputs()),
            outputs=tuple(_spec(node) for node in session.get_outputs()),
        )
        self._output_names = [spec.name for spec in self._signature.outputs]
        # Without one, ONNX Runtime builds new run options for every call.
        self._run_options = onnxruntime.RunOptions()

    @property
    def signature(self) -> Signature:
        """See `modelport.engines.base.LoadedModel.signature`."""
        return self._signature

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """See `modelport.engines.base.LoadedModel.run`."""
        try:
            values = self._session.run(self._output_names, inputs, self._run_options)
        except Exception as error:  # ONNX Runtime has no common base class for its errors
            raise EngineError(f"ONNX Runtime failed: {error}") from error
        return dict(zip(self._output_names, values))  # noqa: B905 - on the request path


class _NeverEmpty(OnnxRuntimeModel):
    """ONNX Runtime ends the whole process when an LSTM or a GRU gets no rows."""

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """See `modelport.engines.base.LoadedModel.run`."""
        empty = next((name for name, array in inputs.items() if not array.size), None)
        if empty is not None:
            raise SignatureError(
                f"input {empty} is empty ({list(inputs[empty].shape)}), which ONNX Runtime's LSTM "
                "and GRU cannot take"
            )
        return super().run(inputs)


def _has_recurrence(model: Path | bytes) -> bool:
    """Whether a model file has such nodes: their type as it stands in `NodeProto.op_type`."""
    if isinstance(model, bytes):
        return any(node in model for node in _RECURRENT)
    with open(model, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(node) >= 0 for node in _RECURRENT)


def _spec(node: Any) -> TensorSpec:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise UnsupportedError(
            f"ONNX type {node.type} of {node.name} is not a tensor that can be served",
            hint="export classifiers with zipmap=False",
        )
    # A dimension without a name is its own symbol: nothing is known about it.
    shape = tuple(
        d if isinstance(d, int) and d >= 0 else d or f"{node.name}_{axis}"
        for axis, d in enumerate(node.shape)
    )
    return TensorSpec(name=node.name, dtype=dtype, shape=shape)
