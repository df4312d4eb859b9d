"""KServe's model server without gRPC and without a log line for each request."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from kserve import InferOutput, InferRequest, InferResponse, ModelServer
from kserve import Model as KServeModel
from kserve.utils.utils import generate_uuid
from onnx_session import open_session


class Model(KServeModel):
    """Executes one model, for V1 and V2 requests."""

    def __init__(self, path: str) -> None:
        super().__init__(Path(path).stem)
        self._session = open_session(path)
        self.ready = True

    async def predict(
        self, payload: dict[str, Any] | InferRequest, *_: Any, **__: Any
    ) -> dict[str, Any] | InferResponse:
        """Answer in the protocol of the request."""
        if isinstance(payload, dict):
            row = np.array(payload["instances"], dtype=np.float32)
            (output,) = self._session.run(["output"], {"input": row})
            return {"predictions": output.tolist()}
        (output,) = self._session.run(["output"], {"input": payload.inputs[0].as_numpy()})
        tensor = InferOutput("output", list(output.shape), "FP32")
        binary = bool((payload.parameters or {}).get("binary_data_output"))
        tensor.set_data_from_numpy(output, binary_data=binary)
        return InferResponse(payload.id or generate_uuid(), self.name, [tensor])


def _on_loopback(config: type[uvicorn.Config]) -> Any:
    """KServe has no option for the address and listens on all of them: overrule it."""

    def create(*arguments: Any, **options: Any) -> uvicorn.Config:
        return config(*arguments, **{**options, "host": "127.0.0.1"})

    return create


if __name__ == "__main__":
    uvicorn.Config = _on_loopback(uvicorn.Config)
    ModelServer(
        http_port=int(sys.argv[2]), workers=1, enable_grpc=False, enable_latency_logging=False
    ).start([Model(sys.argv[1])])
