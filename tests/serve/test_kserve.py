"""KServe V1: its client, the list, readiness while loading, explain, and CloudEvents."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from clients import run_client

from modelport.core.options import ServeOptions
from modelport.serve.app import App
from modelport.serve.base import ModelSpec, Request, Response
from modelport.serve.guard import Guard
from modelport.serve.metrics import metrics_of
from modelport.serve.models import State
from modelport.serve.protocols.kserve import KServe
from modelport.serve.protocols.tfserving import TensorFlowServing
from modelport.serve.table import ModelTable
from modelport.serve.tfserving import cloud_events

from . import onnx_models
from .packages import build_package
from .running import Answer, RunningServer

PREDICT = "/v1/models/same-float32:predict"
ROWS = {"instances": [[1.5, 2.0]]}
EVENT = {"specversion": "1.0", "id": "7", "source": "/tests", "type": "org.example.rows"}
STRUCTURED = {"content-type": "application/cloudevents+json"}


@pytest.fixture(scope="module")
def server(module_path: Path) -> Iterator[RunningServer]:
    models = [
        build_package(
            module_path / f"same-{dtype}",
            f"same-{dtype}",
            onnx_models.identity(dtype),
            {"x": np.ones((2, 2), dtype)},
        ).path
        for dtype in ("float32", "int64")
    ]
    text = onnx_models.identity("string", ("N",))
    golden = {"x": np.array(["a"], object)}
    models.append(build_package(module_path / "text", "text", text, golden).path)
    with RunningServer(module_path / "server", models) as running:
        yield running


def test_the_client(server: RunningServer) -> None:
    printed = run_client("kserve_v1", server.port)
    assert "CloudEvents, structured" in printed
    assert "raw bytes" in printed


def test_curl(server: RunningServer) -> None:
    """With curl's own content type, which is that of a form."""
    url = f"http://127.0.0.1:{server.port}{PREDICT}"
    done = subprocess.run(
        ["curl", "-sS", "-d", json.dumps(ROWS), url],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == b'{"predictions":[[1.5,2.0]]}'


def test_the_list(server: RunningServer) -> None:
    for path in ("/v1/models", "/V1/Models", "/v1/models?x=1"):
        answer = server.get(path)
        assert answer.status == 200
        assert answer.json() == {"models": ["same-float32", "same-int64", "text"]}
    answer = server.post("/v1/models", {})
    assert (answer.status, answer.json()) == (400, {"error": "Malformed request: POST /v1/models"})


def test_explain(server: RunningServer) -> None:
    for body in (ROWS, b"", b"\xff"):
        answer = server.post("/v1/models/same-float32:explain", body)
        assert answer.status == 501
        assert "no explainer" in answer.json()["error"]
    assert server.post("/v1/models/nothing:explain", ROWS).status == 404


def ce_headers(**changes: str | None) -> dict[str, str]:
    attributes = {**EVENT, **changes}
    return {f"ce-{name}": value for name, value in attributes.items() if value is not None}


def attributes_of(answer: Answer) -> dict[str, str]:
    return {
        name.lower().removeprefix("ce-"): value
        for name, value in answer.headers.items()
        if name.lower().startswith("ce-")
    }


def check_attributes(attributes: Mapping[str, Any]) -> None:
    assert attributes["specversion"] == "1.0"
    assert attributes["type"] == "io.kserve.inference.response"
    assert attributes["source"] == "io.kserve.inference.same-float32"
    assert len(attributes["id"]) == 36
    assert "T" in attributes["time"]


@pytest.mark.parametrize("version", ["0.3", "1.0"])
def test_binary_events(server: RunningServer, version: str) -> None:
    answer = server.post(PREDICT, ROWS, ce_headers(specversion=version))
    assert (answer.status, answer.json()) == (200, {"predictions": ROWS["instances"]})
    assert answer.headers["content-type"] == "application/json"
    check_attributes(attributes_of(answer))
    columns = server.post(PREDICT, {"inputs": [[1, 2]]}, ce_headers())
    assert columns.json() == {"outputs": [[1.0, 2.0]]}
    check_attributes(attributes_of(columns))


def test_binary_events_of_other_content(server: RunningServer) -> None:
    raw = np.array([[1.5, 2.0]], np.float32).tobytes()
    headers = {**ce_headers(), "content-type": "application/octet-stream"}
    answer = server.post(PREDICT, raw, headers)
    assert (answer.status, answer.json()) == (200, {"predictions": ROWS["instances"]})
    check_attributes(attributes_of(answer))


@pytest.mark.parametrize("name", EVENT)
def test_what_is_no_binary_event_is_a_plain_request(server: RunningServer, name: str) -> None:
    answer = server.post(PREDICT, ROWS, ce_headers(**{name: None}))
    assert (answer.status, answer.json()) == (200, {"predictions": ROWS["instances"]})
    assert not attributes_of(answer)


@pytest.mark.parametrize("padding", [b"", b" " * 2000], ids=["small", "large"])
def test_structured_events(server: RunningServer, padding: bytes) -> None:
    body = padding + json.dumps({**EVENT, "data": ROWS}).encode()
    charset = {"content-type": "Application/CloudEvents+JSON; charset=utf-8"}
    for headers in (STRUCTURED, charset):
        answer = server.post(PREDICT, body, headers)
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/cloudevents+json"
        event = answer.json()
        check_attributes(event)
        assert event["datacontenttype"] == "application/json"
        assert event["data"] == {"predictions": ROWS["instances"]}
    # Without its content type it is opened, and answered as any other, as KServe does.
    answer = server.post(PREDICT, body)
    assert answer.json() == {"predictions": ROWS["instances"]}


def test_structured_events_in_base64(server: RunningServer) -> None:
    event = {**EVENT, "data_base64": "eyJpbnB1dHMiOiBbWzEsIDJdXX0="}
    answer = server.post(PREDICT, event, STRUCTURED)
    assert answer.json()["data"] == {"outputs": [[1.0, 2.0]]}


@pytest.mark.parametrize(
    ("headers", "body", "text"),
    [
        (ce_headers(specversion="2.0"), ROWS, "2.0"),
        (STRUCTURED, {**EVENT, "specversion": "9", "data": ROWS}, "'9'"),
        (STRUCTURED, {**EVENT, "specversion": 1, "data": ROWS}, "no specversion"),
        (STRUCTURED, {**EVENT, "id": None, "data": ROWS}, "no id"),
        (STRUCTURED, {"specversion": "1.0", "data": ROWS}, "no id, source, type"),
        (STRUCTURED, EVENT, "not a JSON object"),
        (STRUCTURED, {**EVENT, "data": [1]}, "not a JSON object"),
        (STRUCTURED, {**EVENT, "data": "text"}, "not a JSON object"),
        (STRUCTURED, {**EVENT, "data_base64": "!"}, "not Base64"),
        (STRUCTURED, {**EVENT, "data_base64": "AAAA"}, "not JSON"),
        (STRUCTURED, {**EVENT, "data": {}}, "Missing 'inputs' or 'instances' key"),
        (ce_headers(), {}, "Missing 'inputs' or 'instances' key"),
    ],
)
def test_events_that_are_refused(
    server: RunningServer, headers: dict[str, str], body: Any, text: str
) -> None:
    answer = server.post(PREDICT, body, headers)
    assert answer.status == 400
    assert list(answer.json()) == ["error"]
    assert text in answer.json()["error"]


@pytest.mark.parametrize(
    ("model", "content_type", "status"),
    [
        ("same-float32", "application/octet-stream", 200),
        ("same-float32", "application/json", 400),
        ("same-float32", "application/ld+json", 400),
        ("same-float32", "text/plain", 400),
        ("same-float32", "", 400),
        ("text", "application/octet-stream", 400),
    ],
)
def test_bodies_other_than_json(
    server: RunningServer, model: str, content_type: str, status: int
) -> None:
    body = np.array([[1.5, 2.0]], np.float32).tobytes()
    answer = server.post(f"/v1/models/{model}:predict", body, {"content-type": content_type})
    assert answer.status == status
    if status == 200:
        assert answer.json() == {"predictions": ROWS["instances"]}
    odd = server.post(PREDICT, body[:-1], {"content-type": "application/octet-stream"})
    assert odd.status == 400


def ask(app: App, path: str) -> tuple[int, Any]:
    response = app.answer(Request("GET", path, {}, b""))
    return response.status, json.loads(response.body)


def test_readiness_while_loading(tmp_path: Path) -> None:
    package = build_package(tmp_path / "m", "m", onnx_models.dense(0), {"x": np.ones((2, 8), "f4")})
    specs = [ModelSpec("m", 1, str(package.path))]
    options = ServeOptions()
    table = ModelTable(specs, metrics_of(specs, 1))
    app = App(table, [KServe(), TensorFlowServing()], options, Guard([]))

    def version(state: str) -> dict[str, Any]:
        status = {"error_code": "OK", "error_message": ""}
        return {"version": "1", "state": state, "status": status}

    status, answer = ask(app, "/v1/models/m")
    assert status == 503
    assert answer == {
        "name": "m",
        "ready": False,
        "model_version_status": [version("LOADING")],
        "error": "Model with name m is not ready.",
    }
    # KServe has no versions: these paths are TensorFlow Serving's alone, which answers 200.
    expected = {"model_version_status": [version("LOADING")]}
    assert ask(app, "/v1/models/m/versions/1") == (200, expected)
    assert ask(app, "/v1/models/m/versions/0") == (200, expected)
    assert ask(app, "/v1/models/m/labels/any") == (200, expected)
    assert ask(app, "/v1/models") == (200, {"models": ["m"]})
    assert ask(app, "/v1/models/m/metadata")[0] == 503

    table.metrics.enter_worker(0)
    table.load_all()
    status, answer = ask(app, "/v1/models/m")
    assert (status, answer["ready"], "error" in answer) == (200, True, False)
    table.draining = True
    status, answer = ask(app, "/v1/models/m")
    assert (status, answer["model_version_status"]) == (503, [version("AVAILABLE")])
    table.models[0].state = State.END
    assert ask(app, "/v1/models/m/versions/1")[1]["model_version_status"] == [version("END")]


@pytest.mark.parametrize("name", ["モデル", "a\r\nx: y"])
def test_a_cloud_events_source_is_a_uri(name: str) -> None:
    """Names are any text; a header of an ASGI server is Latin-1, and nowhere has it line ends."""
    response = cloud_events.wrap(Response(200, b"{}"), name, binary=True)
    source = dict(response.headers)["ce-source"]
    assert source.isascii()
    assert source.isprintable()
    assert unquote(source) == f"io.kserve.inference.{name}"
