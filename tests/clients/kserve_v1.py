"""KServe's client, version 1: ``kserve_v1.py PORT``, with the models of its test."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable
from typing import Any

import httpx
import numpy as np
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent, from_http
from kserve import InferenceRESTClient, RESTConfig

base = f"http://127.0.0.1:{sys.argv[1]}"
ROWS = {"instances": [[1.5, 2.0], [3.0, -4.0]]}
ATTRIBUTES = {"type": "org.example.rows", "source": "/tests", "id": "36077800-0c23", "time": "now"}


async def use(client: InferenceRESTClient) -> None:
    assert await client.is_server_live(base)
    assert await client.is_model_ready(base, "same-float32")
    print("live and ready")

    answer: Any = await client.infer(base, ROWS, model_name="same-float32")
    assert answer == {"predictions": ROWS["instances"]}, answer
    answer = await client.infer(base, {"instances": ["a", "b"]}, model_name="text")
    assert answer == {"predictions": ["a", "b"]}, answer
    print("infer")

    explained = await status_of(client.explain(base, "same-float32", ROWS))
    assert explained == 501, explained
    unknown = await status_of(client.explain(base, "nothing", ROWS))
    assert unknown == 404, unknown
    unready = await status_of(client.is_model_ready(base, "nothing"))
    assert unready == 404, unready
    text = {"instances": [["a"]]}
    wrong = await status_of(client.infer(base, text, model_name="same-float32"))
    assert wrong == 400, wrong
    print("errors")


async def status_of(asked: Awaitable[object]) -> int:
    """The status of a request that must fail, with KServe's shape of an error."""
    try:
        await asked
    except httpx.HTTPStatusError as error:
        document = error.response.json()
        if list(document) == ["error"] and isinstance(document["error"], str):
            return error.response.status_code
        return 0
    return 200


asyncio.run(use(InferenceRESTClient(RESTConfig(protocol="v1"))))

listed = httpx.get(f"{base}/v1/models").json()["models"]
assert "same-float32" in listed, listed
ready = httpx.get(f"{base}/v1/models/same-float32")
assert ready.status_code == 200
assert {**ready.json(), "name": "same-float32", "ready": True} == ready.json()
print("the list and the state")

for make, mode in ((to_binary, "binary"), (to_structured, "structured")):
    event = CloudEvent({**ATTRIBUTES, "time": "2026-01-01T00:00:00Z"}, ROWS)
    headers, body = make(event)
    got = httpx.post(f"{base}/v1/models/same-float32:predict", headers=headers, content=body)
    assert got.status_code == 200, got.text
    answer = from_http(dict(got.headers), got.content)
    assert answer["type"] == "io.kserve.inference.response"
    assert answer["source"] == "io.kserve.inference.same-float32"
    assert answer["id"] != ATTRIBUTES["id"]
    data = answer.data if isinstance(answer.data, dict) else json.loads(answer.data)
    assert data == {"predictions": ROWS["instances"]}, data
    structured = got.headers["content-type"] == "application/cloudevents+json"
    assert structured == (mode == "structured")
    print(f"CloudEvents, {mode}")

raw = np.array(ROWS["instances"], np.float32).tobytes()
got = httpx.post(
    f"{base}/v1/models/same-float32:predict",
    headers={"content-type": "application/octet-stream"},
    content=raw,
)
assert got.json() == {"predictions": ROWS["instances"]}, got.text
print("raw bytes")
