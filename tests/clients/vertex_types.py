"""Vertex AI's own types parse our answers, and its reference server answers the same body alike.

Arguments: URL, predict route, health route, name of the model. It takes ``x`` float32 [N, 8].
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import numpy as np
import requests
import tritonclient.http as triton
from google.cloud.aiplatform.prediction.model_server import CprModelServer
from google.cloud.aiplatform.prediction.predictor import Predictor
from google.cloud.aiplatform_v1.types import PredictRequest, PredictResponse
from google.protobuf import json_format

URL, PREDICT, HEALTH, MODEL = sys.argv[1:]
ROWS = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
BINARY = "application/vnd.vertex-ai-triton.binary+json;json-header-size="
JSON = {"Content-Type": "application/json"}


def post(body: bytes, headers: dict[str, str]) -> requests.Response:
    return requests.post(URL + PREDICT, data=body, headers=headers, timeout=60)


def request_body(parameters: Any = None) -> bytes:
    """As Vertex AI writes a request of its API into the container's body."""
    given = {"instances": ROWS.tolist(), **({"parameters": parameters} if parameters else {})}
    request = PredictRequest.from_json(json.dumps(given))
    return json_format.MessageToJson(PredictRequest.pb(request)).encode()


def parse(answer: requests.Response) -> PredictResponse:
    """As Vertex AI reads the answer."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return PredictResponse.from_json(answer.text)


def check_types() -> np.ndarray:
    found = []
    for parameters in (None, {"confidenceThreshold": 0.5}):
        answer = parse(post(request_body(parameters), JSON))
        found.append(np.array([list(row) for row in answer.predictions]))
        assert found[-1].shape == (len(ROWS), 1), answer
    expected = found[0]
    assert (found[1] == expected).all()
    print("PredictRequest and PredictResponse")
    return expected


def check_health() -> None:
    answer = requests.get(URL + HEALTH, timeout=60)
    assert (answer.status_code, answer.json()) == (200, {})
    print("health route")


def check_triton(expected: np.ndarray) -> None:
    """The requests of Triton's ``qa/L0_vertex_ai``."""
    item = triton.InferInput("x", list(ROWS.shape), "FP32")
    make = triton.InferenceServerClient.generate_request_body
    read = triton.InferenceServerClient.parse_response_body
    redirect = {"X-Vertex-Ai-Triton-Redirect": f"v2/models/{MODEL}/infer"}
    for asked in (False, True):
        wanted = [triton.InferRequestedOutput("y", binary_data=asked)]
        for sent in (False, True):
            item.set_data_from_numpy(ROWS, binary_data=sent)
            body, size = make([item], outputs=wanted)
            kind = {"Content-Type": f"{BINARY}{size}"} if sent else JSON
            for headers in (kind, {**kind, **redirect}):
                answer = post(body, headers)
                assert answer.status_code == 200, answer.text
                length = answer.headers.get("Inference-Header-Content-Length")
                assert (length is not None) is asked
                result = read(answer.content, header_length=int(length) if length else None)
                assert (result.as_numpy("y") == expected.astype(np.float32)).all()
    item.set_data_from_numpy(ROWS, binary_data=True)
    body, size = make([item])
    for kind in (f"additional-string/{BINARY}{size}", f"{BINARY}x{size}", f"{BINARY}-123",
                 f"{BINARY}123456"):  # fmt: skip
        assert post(body, {"Content-Type": kind}).status_code == 400, kind
    print("Triton's media type and redirect")


class SameAnswers(Predictor):
    """A custom prediction routine that knows what our model answers."""

    def load(self, artifacts_uri: str) -> None:
        self.answers = json.loads(os.environ["ANSWERS"])

    def predict(self, instances: Any) -> Any:
        assert len(instances["instances"]) == len(self.answers)
        return {"predictions": self.answers}


def check_reference(expected: np.ndarray) -> None:
    """The same bytes to Google's own server: the same status, type and document."""
    os.environ.update(
        AIP_HTTP_PORT="1", AIP_HEALTH_ROUTE=HEALTH, AIP_PREDICT_ROUTE=PREDICT,
        AIP_STORAGE_URI="", HANDLER_MODULE="google.cloud.aiplatform.prediction.handler",
        HANDLER_CLASS="PredictionHandler", PREDICTOR_MODULE="__main__",
        PREDICTOR_CLASS="SameAnswers", ANSWERS=json.dumps(expected.tolist()),
    )  # fmt: skip
    app = CprModelServer()
    for method, path, body in (
        ("POST", PREDICT, request_body()), ("GET", HEALTH, b""), ("GET", PREDICT, b""),
    ):  # fmt: skip
        status, headers, content = asyncio.run(call(app, method, path, body))
        ours = requests.request(method, URL + path, data=body, headers=JSON, timeout=60)
        assert ours.status_code == status, (path, ours.status_code, status)
        assert ours.headers["content-type"].partition(";")[0] == headers[b"content-type"].decode()
        if status == 200:
            assert ours.json() == json.loads(content)
    print("CprModelServer answers alike")


async def call(app: Any, method: str, path: str, body: bytes) -> tuple[int, Any, bytes]:
    """One request, in the server's own process."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1),
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(m["body"] for m in sent[1:])


if __name__ == "__main__":
    check_health()
    answers = check_types()
    check_triton(answers)
    check_reference(answers)
