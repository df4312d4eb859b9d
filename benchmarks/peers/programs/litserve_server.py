"""A LitServe server with one API process and one worker, on its faster queue (ZeroMQ).

It batches, which is faster here than not to.
"""

from __future__ import annotations

import sys
from pathlib import Path

import litserve
import numpy as np
from numpy.typing import NDArray
from onnx_session import open_session


class Model(litserve.LitAPI):
    """Executes one model."""

    def __init__(self, path: str) -> None:
        super().__init__(
            api_path=f"/v2/models/{Path(path).stem}/infer", max_batch_size=32, batch_timeout=0.001
        )
        self._path = path

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self._session = open_session(self._path)

    # LitServe makes a schema of the types of the next two, and validates; without, it does not.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """Read a V2 inference request."""
        tensor = request["inputs"][0]
        return np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])

    def batch(self, inputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Put rows together."""
        return inputs[0] if len(inputs) == 1 else np.concatenate(inputs)

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Execute the model."""
        output: NDArray[np.float32] = self._session.run(["output"], {"input": x})[0]
        return output

    def unbatch(self, output: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Take rows apart, each with a batch axis of its own."""
        return list(output[:, None])

    def encode_response(self, output):  # type: ignore[no-untyped-def]
        """Write a V2 inference response."""
        return {
            "model_name": "model",
            "outputs": [
                {
                    "name": "output",
                    "datatype": "FP32",
                    "shape": list(output.shape),
                    "data": output.ravel().tolist(),
                }
            ],
        }


if __name__ == "__main__":
    litserve.LitServer(
        Model(sys.argv[1]), accelerator="cpu", workers_per_device=1, fast_queue=True, timeout=60
    ).run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
