"""Vertex AI: the routes that the platform names, and what its front end relies on."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import run_client

from modelport.core.options import ServeOptions
from modelport.serve.protocols.vertex import VertexAI

from . import onnx_models
from .conftest import Serve
from .packages import build_package, reference
from .running import RunningServer
from .test_processing import PHOTOS
from .upload_models import ROWS, image_package, plain_packages

HEALTH = "/v1/endpoints/8140/deployedModels/77"
PREDICT = f"{HEALTH}:predict"
FLAGS = ("--predict-route", PREDICT, "--health-route", HEALTH)
V2_BINARY = "application/vnd.vertex-ai-triton.binary+json"


@pytest.fixture(scope="module")
def server(module_path: Path) -> Iterator[RunningServer]:
    with RunningServer(module_path / "server", plain_packages(module_path), FLAGS) as running:
        yield running


def only(model: str) -> dict[str, str]:
    """The header that sends a request to another model than the first."""
    return {"X-Vertex-Ai-Triton-Redirect": f"v2/models/{model}/infer"}


def test_routes_are_matched_as_they_are() -> None:
    routes = VertexAI().routes(ServeOptions(predict_route="/a.b:predict+(x)", health_route="/h"))
    assert [route.method for route in routes] == ["POST", "GET"]
    assert routes[0].pattern.fullmatch("/a.b:predict+(x)")
    assert not routes[0].pattern.fullmatch("/aXb:predict+(x)")
    assert not routes[0].pattern.fullmatch("/a.b:predict+(x)/")
    assert [route.health for route in routes] == [False, True]
    assert not VertexAI().routes(ServeOptions())
    (route,) = VertexAI().routes(ServeOptions(predict_route="score"))
    assert route.example == "/score"


@pytest.mark.parametrize("parameters", [{}, {"parameters": None}, {"parameters": {"a": [1]}}])
def test_instances(server: RunningServer, parameters: Mapping[str, Any]) -> None:
    expected = reference(onnx_models.dense(0), {"x": ROWS})["y"]
    answer = server.post(PREDICT, {"instances": ROWS.tolist(), **parameters})
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert document.keys() == {"predictions"}
    np.testing.assert_array_equal(np.float32(document["predictions"]), expected)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (ROWS.tobytes(), {"Content-Type": "application/octet-stream"}),
        (json.dumps(ROWS.tolist()).encode(), {"Content-Type": "application/json"}),
        (
            "\n".join(",".join(map(str, row)) for row in ROWS.tolist()).encode(),
            {"Content-Type": "text/csv"},
        ),
        (
            b"\n".join(json.dumps(row).encode() for row in ROWS.tolist()),
            {"Content-Type": "application/jsonl"},
        ),
        (json.dumps({"dataframe_split": {"data": ROWS.tolist()}}).encode(), {}),
    ],
)
def test_raw_predict(server: RunningServer, body: bytes, headers: Mapping[str, str]) -> None:
    expected = reference(onnx_models.dense(0), {"x": ROWS})["y"]
    answer = server.post(PREDICT, body, headers)
    assert answer.status == 200, answer.body
    np.testing.assert_array_equal(np.float32(answer.json()["predictions"]), expected)


def test_raw_predict_in_columns(server: RunningServer) -> None:
    expected = reference(onnx_models.dense(0), {"x": ROWS})["y"]
    document = server.post(PREDICT, {"inputs": {"x": ROWS.tolist()}}).json()
    np.testing.assert_array_equal(np.float32(document["outputs"]), expected)


def test_raw_predict_answers_csv(server: RunningServer) -> None:
    answer = server.post(
        PREDICT, b"1,2,3,4,5,6,7,8", {"Content-Type": "text/csv", "Accept": "text/csv"}
    )
    assert answer.headers["content-type"] == "text/csv"
    assert (
        float(answer.body) == server.post(PREDICT, [list(range(1, 9))]).json()["predictions"][0][0]
    )


def v2(values: Any, datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    array = np.asarray(values)
    item = {"name": "x", "shape": list(array.shape), "datatype": datatype}
    return {"inputs": [{**item, "data": array.ravel().tolist()}], **more}


def test_open_inference(server: RunningServer) -> None:
    expected = reference(onnx_models.dense(0), {"x": ROWS})["y"]
    for headers in (
        {},
        only("dense"),
        {"X-Vertex-AI-Triton-Redirect": "/v2/models/dense/versions/1/infer"},
    ):
        document = server.post(PREDICT, v2(ROWS, id="7"), headers).json()
        assert (document["id"], document["model_name"]) == ("7", "dense")
        found = np.float32(document["outputs"][0]["data"]).reshape(-1, 1)
        np.testing.assert_array_equal(found, expected)


def test_a_redirect_reaches_every_model(server: RunningServer) -> None:
    """Also after the first model has answered at the same path."""
    assert server.post(PREDICT, {"instances": ROWS.tolist()}).status == 200
    document = server.post(PREDICT, v2([[1, 2]]), only("same")).json()
    assert document["outputs"][0]["data"] == [1, 2]
    assert server.post(PREDICT, {"instances": ROWS.tolist()}).status == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("v2/models/nobody/infer", 404),
        ("v2/models/dense/versions/9/infer", 404),
        ("metrics", 400),
        ("v2/repository/models/dense/unload", 400),
        ("v2/models/dense/infer/", 400),
        ("../metrics", 400),
        ("", 400),
        ("x" * 5000, 400),
    ],
)  # fmt: skip
def test_redirects_that_lead_nowhere(server: RunningServer, target: str, status: int) -> None:
    """A header must not open what a gateway keeps shut."""
    answer = server.post(PREDICT, v2(ROWS), {"X-Vertex-Ai-Triton-Redirect": target})
    assert answer.status == status
    assert len(answer.body) < 500


def test_binary_bodies(server: RunningServer) -> None:
    expected = reference(onnx_models.dense(0), {"x": ROWS})["y"]
    item = {"name": "x", "shape": [5, 8], "datatype": "FP32"}
    document = {"inputs": [{**item, "parameters": {"binary_data_size": ROWS.nbytes}}]}
    head = json.dumps({**document, "parameters": {"binary_data_output": True}}).encode()
    for kind in (f"{V2_BINARY};json-header-size={len(head)}",
                 f"{V2_BINARY}; json-header-size={len(head)}"):  # fmt: skip
        answer = server.post(PREDICT, head + ROWS.tobytes(), {"Content-Type": kind})
        assert answer.status == 200, answer.body
        length = int(answer.headers["Inference-Header-Content-Length"])
        found = np.frombuffer(answer.body[length:], np.float32).reshape(5, 1)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", ["", "x", "-1", "0", "1e3", "99999", "9" * 5000, "+5"])
def test_binary_bodies_of_no_length(server: RunningServer, size: str) -> None:
    kind = f"{V2_BINARY};json-header-size={size}"
    answer = server.post(PREDICT, b'{"inputs":[]}', {"Content-Type": kind})
    assert answer.status == 400, answer.body
    assert "json-header-size=N" in answer.json()["error"]
    assert server.post(PREDICT, b"{}", {"Content-Type": V2_BINARY}).status == 400


def test_nan_is_null(tmp_path: Path, serve: Serve) -> None:
    """Vertex AI reads answers as `google.protobuf.Value`, which has no NaN."""
    floats = np.float32([[1, 2]])
    same = build_package(tmp_path / "m", "same", onnx_models.identity("float32"), {"x": floats})
    server = serve([same.path], FLAGS)
    answer = server.post(PREDICT, b'{"instances": [[NaN, Infinity], [-Infinity, 1.5]]}')
    assert answer.body == b'{"predictions":[[null,null],[null,1.5]]}'
    answer = server.post(PREDICT, b"nan,1", {"Content-Type": "text/csv"})
    assert answer.json() == {"predictions": [[None, 1.0]]}


def test_as_many_predictions_as_instances(tmp_path: Path, serve: Serve) -> None:
    """Batch prediction puts them side by side."""
    floats = np.float32([[1, 2], [3, 4]])
    package = build_package(tmp_path / "m", "summary", onnx_models.summary(), {"x": floats})
    server = serve([package.path], FLAGS)
    answer = server.post(PREDICT, {"instances": floats.tolist()})
    assert answer.status == 400
    assert (
        "2 instances have no prediction each: output mean has the shape []"
        in answer.json()["error"]
    )
    assert server.post(PREDICT, {"inputs": floats.tolist()}).json()["outputs"]["mean"] == 2.5


def test_images(tmp_path: Path, serve: Serve) -> None:
    server = serve([image_package(tmp_path, "colours", keep=False).path], FLAGS)
    instances = [{"b64": base64.b64encode(photo).decode()} for photo in PHOTOS[:2]]
    rows = server.post(PREDICT, {"instances": instances}).json()["predictions"]
    assert [row.keys() for row in rows] == [{"label", "probability"}] * 2
    (row,) = server.post(PREDICT, PHOTOS[0], {"Content-Type": "image/jpeg"}).json()["predictions"]
    assert row == rows[0]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "body is empty"),
        (b"{", 400, "not JSON"),
        (b'{"instances": []}', 400, "instances"),
        (b'{"instances": [[1]]}', 400, "expected [N, 8]"),
        (b'{"instances": [["a"]]}', 400, "needs float32"),
        (b'{"instances": [[1]], "inputs": [[1]]}', 400, "not both"),
        (
            b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": []}]}',
            400,
            "elements",
        ),
        (b'{"inputs": [{"datatype": 1}]}', 400, "name"),
        (b'"datatype"', 400, "holds"),
        (struct.pack("<8f", *range(8)), 400, ""),
    ],
)
def test_malformed(server: RunningServer, body: bytes, status: int, message: str) -> None:
    answer = server.post(PREDICT, body, {"Content-Type": "application/json"})
    assert answer.status == status, answer.body
    assert message in answer.json()["error"]


def test_a_route_that_is_another_protocol_s_as_well(tmp_path: Path, serve: Serve) -> None:
    """What the platform names comes first: ``/predict`` is the usual choice."""
    package = build_package(tmp_path / "m", "dense", onnx_models.dense(0), {"x": ROWS})
    server = serve([package.path], ["--predict-route", "/predict", "--health-route", "/health"])
    expected = reference(onnx_models.dense(0), {"x": ROWS})["y"]
    found = server.post("/predict", {"instances": ROWS.tolist()}).json()["predictions"]
    np.testing.assert_array_equal(np.float32(found), expected)
    assert server.post("/predict/dense", {"instances": ROWS.tolist()}).status == 200
    assert server.get("/health").status == 200


def test_methods(server: RunningServer) -> None:
    for method, path, allow in (("GET", PREDICT, "POST"), ("POST", HEALTH, "GET")):
        answer = server.request(method, path, b"")
        assert (answer.status, answer.headers["allow"]) == (405, allow)


def test_health(server: RunningServer) -> None:
    answer = server.get(HEALTH)
    assert (answer.status, answer.body) == (200, b"{}")
    assert server.request("HEAD", HEALTH).status == 200


def test_health_before_the_model_is_ready(tmp_path: Path, launch: Serve) -> None:
    """The port opens at once; the route says 503 until every golden record is answered."""
    steps = {"n": np.array([200_000], np.int64)}
    slow = build_package(tmp_path / "slow", "slow", onnx_models.laborious(), steps)
    server = launch([slow.path], FLAGS)
    seen: list[tuple[int, bytes]] = []

    def ready() -> bool:
        answer = server.get(HEALTH)
        seen.append((answer.status, answer.body))
        return answer.status == 200

    server.wait_for("readiness", ready)
    assert set(seen) == {(503, b"{}"), (200, b"{}")}


def test_openapi(server: RunningServer) -> None:
    paths = server.get("/openapi.json").json()["paths"]
    assert {"200", "400", "415", "503"} <= paths[PREDICT]["post"]["responses"].keys()
    assert paths[HEALTH]["get"]["responses"].keys() >= {"200", "503"}


def test_real_types_and_reference_server(server: RunningServer) -> None:
    url = f"http://127.0.0.1:{server.port}"
    printed = run_client("vertex_types", url, PREDICT, HEALTH, "dense")
    assert printed.splitlines()[-1] == "CprModelServer answers alike"
