"""The model that Triton's Python backend loads: it batches what arrives together."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as backend
from onnx_session import open_session


class TritonPythonModel:
    """Executes one ONNX model; Triton requires this name."""

    def initialize(self, arguments: dict[str, Any]) -> None:
        """Open the session."""
        parameters = json.loads(arguments["model_config"])["parameters"]
        self._session = open_session(parameters["path"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests that Triton's dynamic batcher put together."""
        rows = [
            backend.get_input_tensor_by_name(request, "input").as_numpy() for request in requests
        ]
        batch = rows[0] if len(rows) == 1 else np.concatenate(rows)
        (output,) = self._session.run(["output"], {"input": batch})
        parts = np.split(output, np.cumsum([len(row) for row in rows])[:-1])
        return [
            backend.InferenceResponse(output_tensors=[backend.Tensor("output", part)])
            for part in parts
        ]
