"""MLServer with one model in its own process (``parallel_workers`` 0: no process hop)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import uvloop
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse
from onnx_session import open_session


class OnnxModel(MLModel):
    """Executes one ONNX model."""

    async def load(self) -> bool:
        """Open the session."""
        self._session = open_session(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a V2 inference request."""
        row = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32, copy=False)
        (output,) = self._session.run(["output"], {"input": row})
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("output", output)]
        )


async def serve(path: str, port: int) -> None:
    """Serve until the process is told to end."""
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=port,
        grpc_port=port + 1,
        metrics_endpoint=None,
        parallel_workers=0,
        gzip_enabled=False,
    )
    model = ModelSettings(
        name=Path(path).stem,
        implementation="mlserver_server.OnnxModel",
        parameters=ModelParameters(uri=path),
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    # As MLServer's own command line does.
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
