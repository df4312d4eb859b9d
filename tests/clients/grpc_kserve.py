"""KServe's gRPC client, and its stubs. Argument: ``host:port``.

The server has ``same-DTYPE`` (x → y, shape [N, 2]) for every element type, ``dense``, and
``later`` in its store.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.errors import InferenceError
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs

TYPES = {
    "bool": "BOOL",
    "int8": "INT8",
    "int64": "INT64",
    "uint16": "UINT16",
    "uint64": "UINT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}


async def ask(client: Any, values: Any, datatype: str, *, raw: bool) -> Any:
    tensor = InferInput("x", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=raw)
    name = f"same-{values.dtype}" if values.dtype != object else "same-string"
    return (await client.infer(InferRequest(name, [tensor], request_id="seven"))).outputs[0]


async def calls(url: str) -> None:
    client = InferenceGRPCClient(url, channel_args=[("grpc.enable_retries", 0)], retries=1)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("dense")
    print("readiness")
    for dtype, datatype in TYPES.items():
        values = np.array([[0, 1], [1, 0]], dtype)
        for raw in (True, False):
            if raw or dtype != "float16":  # which has no typed form
                output = await ask(client, values, datatype, raw=raw)
                assert (output._raw_data is not None) == raw
                assert np.array_equal(output.as_numpy(), values), (dtype, raw)
                assert output.as_numpy().dtype == dtype
    texts = np.array([["", "grüße"]], object)
    for raw in (True, False):
        output = await ask(client, texts, "BYTES", raw=raw)
        got = [item.decode() if isinstance(item, bytes) else item for item in
               output.as_numpy().ravel()]  # fmt: skip
        assert got == ["", "grüße"]
    print("every datatype, raw and typed")
    absent = InferRequest("absent", [InferInput("x", [1], "FP32", [1.0])])
    answer = (await asyncio.gather(client.infer(absent), return_exceptions=True))[0]
    assert isinstance(answer, InferenceError | grpc.RpcError), answer
    assert "absent" in str(answer), answer
    print("an unknown model")
    await client.close()


def repository(url: str) -> None:
    with grpc.insecure_channel(url) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        answer = stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="later"))
        assert answer.model_name == "later"
        assert answer.isLoaded
        assert stub.ModelReady(messages.ModelReadyRequest(name="later")).ready
        answer = stub.RepositoryModelUnload(
            messages.RepositoryModelUnloadRequest(model_name="later")
        )
        assert answer.isUnloaded
    print("repository")


if __name__ == "__main__":
    asyncio.run(calls(sys.argv[1]))
    repository(sys.argv[1])
