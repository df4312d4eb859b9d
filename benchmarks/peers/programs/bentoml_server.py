"""A BentoML service; started with MODEL PORT it becomes ``bentoml serve`` of itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from onnx_session import open_session

if __name__ == "__main__":
    os.environ["BENCHMARK_MODEL"] = sys.argv[1]
    os.environ["BENTOML_HOME"] = str(Path.cwd())
    os.execv(
        sys.executable,
        [
            sys.executable, "-m", "bentoml", "serve", "--quiet", "--host", "127.0.0.1",
            "--port", sys.argv[2], "--working-dir", str(Path(__file__).parent),
            "bentoml_server:Model",
        ],
    )  # fmt: skip

_PATH = os.environ["BENCHMARK_MODEL"]


@bentoml.service(
    workers=1,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Model:
    """Executes one model."""

    def __init__(self) -> None:
        self._session = open_session(_PATH)

    @bentoml.api(route=f"/v2/models/{Path(_PATH).stem}/infer")
    async def infer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Answer a V2 inference request."""
        tensor = inputs[0]
        row = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
        (output,) = self._session.run(["output"], {"input": row})
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
