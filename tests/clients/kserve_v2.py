"""KServe's REST client with protocol V2. Argument: ``host:port``; models as `tritonclient_http`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, InferResponse, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

DATATYPES = {
    "bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64", "string": "BYTES",
    **{f"{u}int{n}": f"{u}INT{n}".upper() for u in ("", "u") for n in (8, 16, 32, 64)},
}  # fmt: skip


def values_of(dtype: str) -> Any:
    if dtype == "bool":
        return np.array([[True, False], [False, True]])
    if dtype == "string":
        return np.array([["", "grüße"], ["日本語", 'quo"te']], object)
    if "int" in dtype:
        return np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max], [0, 1]], dtype)
    return np.array([[1.5, -0.0], [np.finfo(dtype).max, 0.1]], dtype)


def put(values: Any, binary: bool, name: str = "x") -> Any:
    dtype = "string" if values.dtype == object else values.dtype.name
    tensor = InferInput(name, list(values.shape), DATATYPES[dtype])
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def same(got: Any, expected: Any) -> None:
    assert got.shape == expected.shape, (got.shape, expected.shape)
    if expected.dtype == object:
        texts = [t.decode() if isinstance(t, bytes) else t for t in got.ravel()]
        assert texts == expected.ravel().tolist(), texts
        return
    assert got.dtype == expected.dtype
    assert got.tobytes() == expected.tobytes(), (got, expected)


async def ask(
    client: InferenceRESTClient, url: str, model: str, tensor: Any, **named: Any
) -> InferResponse:
    request = InferRequest(model, [tensor], **named)
    answer = await client.infer(url, request, model_name=model)
    assert isinstance(answer, InferResponse)
    return answer


async def health(client: InferenceRESTClient, url: str) -> None:
    assert await client.is_server_live(url) is True
    assert await client.is_server_ready(url) is True
    assert await client.is_model_ready(url, "dense") is True


async def every_datatype(client: InferenceRESTClient, url: str) -> None:
    for dtype in DATATYPES:
        values = values_of(dtype)
        model = f"same-{dtype}"
        for sent in (True, False):
            if dtype == "float16" and not sent:
                continue  # the client itself refuses to send it
            everything = {"parameters": {"binary_data_output": True}}
            got = await ask(client, url, model, put(values, sent), **everything)
            same(got.outputs[0].as_numpy(), values)
            outputs = [RequestedOutput("y", {"binary_data": True})]
            got = await ask(client, url, model, put(values, sent), request_outputs=outputs)
            same(got.outputs[0].as_numpy(), values)
            if dtype != "float16":
                got = await ask(client, url, model, put(values, sent))
                same(got.outputs[0].as_numpy(), values)


async def identity_and_empty(client: InferenceRESTClient, url: str) -> None:
    rows = np.ones((2, 2), np.float32)
    got = await ask(client, url, "same-float32", put(rows, True), request_id="a b")
    assert got.id == "a b"
    assert got.model_name == "same-float32"
    for binary in (True, False):
        got = await ask(client, url, "cube", put(np.zeros((0, 3, 2), np.float32), binary))
        assert got.outputs[0].shape == [0, 3, 2]
    document = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[1.5, 2]]}]}
    got = await client.infer(url, document, model_name="same-float32")
    assert got.outputs[0].as_numpy().tolist() == [[1.5, 2]]


async def refused(status: int, part: str, asking: Any) -> None:
    error = None
    try:
        await asking
    except httpx.HTTPStatusError as raised:
        error = raised
    assert error is not None, "it was not refused"
    assert error.response.status_code == status, error
    assert part in str(error), error


async def errors(client: InferenceRESTClient, url: str) -> None:
    rows = np.ones((1, 8), np.float32)
    await refused(404, "not found: nothing", ask(client, url, "nothing", put(rows, True)))
    await refused(400, "[1, 7]", ask(client, url, "dense", put(rows[:, :7], False)))
    await refused(400, "unknown input: z", ask(client, url, "dense", put(rows, True, "z")))
    halves = put(np.ones((1, 2), np.float16), True)
    await refused(400, "FP16", ask(client, url, "same-float16", halves))
    document = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP16", "data": [1, 2]}]}
    asking = client.infer(url, document, model_name="same-float16")
    await refused(400, "FP16", asking)


async def main() -> None:
    url = f"http://{sys.argv[1]}"
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    for case in (health, every_datatype, identity_and_empty, errors):
        await case(client, url)
        print(case.__name__)
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
