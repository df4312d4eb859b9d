"""Granian's RSGI, simdjson and orjson; it trusts the request and knows one model only."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import orjson
import simdjson
from granian.constants import Interfaces
from granian.server import Server
from onnx_session import open_session

_session = None
_parser = simdjson.Parser()
_HEADERS = [("content-type", "application/json")]


async def app(_scope: Any, protocol: Any) -> None:
    """Answer every request as if it were a correct V2 inference request."""
    document = _parser.parse(await protocol())
    tensor = document["inputs"].at_pointer("/0")
    numbers = np.frombuffer(tensor["data"].as_buffer(of_type="d"), dtype="d").astype("f")
    row = numbers.reshape([*tensor["shape"]])
    del document, tensor  # the parser is not reused while anything of its document lives
    output = _session.run(["output"], {"input": row})[0]
    answer = {
        "model_name": "model",
        "outputs": [
            {
                "name": "output",
                "datatype": "FP32",
                "shape": output.shape,
                "data": output.ravel(),
            }
        ],
    }
    protocol.response_bytes(200, _HEADERS, orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))


if __name__ == "__main__":
    os.environ["BENCHMARK_MODEL"] = sys.argv[1]
    Server(
        "granian_server:app",
        address="127.0.0.1",
        port=int(sys.argv[2]),
        interface=Interfaces.RSGI,
        log_enabled=False,
        websockets=False,
    ).serve()
else:
    _session = open_session(os.environ["BENCHMARK_MODEL"])
