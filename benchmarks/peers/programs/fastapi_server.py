"""FastAPI as fast as it goes: the route takes the raw request, orjson reads and writes."""

from __future__ import annotations

import sys

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from onnx_session import open_session

_SESSION = open_session(sys.argv[1])
app = FastAPI(openapi_url=None)


@app.post("/v2/models/{name}/infer")
async def infer(name: str, request: Request) -> Response:
    """Answer a V2 inference request."""
    tensor = orjson.loads(await request.body())["inputs"][0]
    row = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
    (output,) = _SESSION.run(["output"], {"input": row})
    answer = {
        "model_name": name,
        "outputs": [
            {
                "name": "output",
                "datatype": "FP32",
                "shape": output.shape,
                "data": output.ravel(),
            }
        ],
    }
    return Response(
        orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json"
    )


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
