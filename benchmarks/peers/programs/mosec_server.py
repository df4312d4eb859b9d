"""A Mosec server with one worker, with or without dynamic batching.

Batches cost it far less for each request under load, and a lone client the waiting time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from mosec import Server, Worker
from numpy.typing import NDArray
from onnx_session import open_session


class Model(Worker):
    """Executes the model that the environment names."""

    def __init__(self) -> None:
        super().__init__()
        self._session = open_session(os.environ["BENCHMARK_MODEL"])

    def deserialize(self, data: bytes) -> NDArray[np.float32]:
        """Read a V2 inference request."""
        tensor = orjson.loads(data)["inputs"][0]
        return np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])

    def forward(self, data: Any) -> Any:
        """Execute the model: for one row, or for a list of them if Mosec batches."""
        if isinstance(data, list):
            output = self._session.run(["output"], {"input": np.concatenate(data)})[0]
            return list(output[:, None])
        return self._session.run(["output"], {"input": data})[0]

    def serialize(self, data: NDArray[np.float32]) -> bytes:
        """Write a V2 inference response."""
        output: dict[str, Any] = {
            "name": "output",
            "datatype": "FP32",
            "shape": data.shape,
            "data": data.ravel(),
        }
        return orjson.dumps(
            {"model_name": "model", "outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY
        )


if __name__ == "__main__":
    model, port = sys.argv[1:]
    os.environ["BENCHMARK_MODEL"] = model
    # Mosec reads the command line itself.
    sys.argv[1:] = [
        "--address", "127.0.0.1", "--port", port, "--log-level", "warning",
        "--timeout", "60000", "--max-request-size", str(64 << 20),
    ]  # fmt: skip
    server = Server()
    server.append_worker(
        Model,
        num=1,
        max_batch_size=int(os.environ["BENCHMARK_BATCH"]),
        max_wait_time=1,  # milliseconds; the least that Mosec takes
        route=f"/v2/models/{Path(model).stem}/infer",
    )
    server.run()
