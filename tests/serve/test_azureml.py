"""Azure ML online endpoints: the scoring route, probes, headers and the description."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import run_client

from modelport.core.errors import LimitError
from modelport.serve.protocols.azureml import HEADER_LIMIT, identifiers

from . import onnx_models
from .conftest import Serve
from .packages import build_package, reference
from .running import RunningServer
from .test_processing import PHOTOS
from .upload_models import ROWS, image_package, plain_packages


@pytest.fixture(scope="module")
def server(module_path: Path) -> Iterator[RunningServer]:
    with RunningServer(module_path / "server", plain_packages(module_path)) as running:
        yield running


NAMES = [f"c{i}" for i in range(8)]


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ({"data": ROWS.tolist()}, "predictions"),
        ({"instances": ROWS.tolist()}, "predictions"),
        ({"instances": [{"x": row} for row in ROWS.tolist()]}, "predictions"),
        (ROWS.tolist(), "predictions"),
        ({"inputs": {"x": ROWS.tolist()}}, "outputs"),
        ({"input_data": ROWS.tolist()}, "predictions"),
        ({"input_data": {"x": ROWS.tolist()}}, "outputs"),
        ({"input_data": {"columns": NAMES, "data": ROWS.tolist()}}, "predictions"),
        ({"input_data": {"columns": list(range(8)), "index": [0], "data": ROWS.tolist()}},
         "predictions"),
        ({"dataframe_split": {"data": ROWS.tolist()}}, "predictions"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["application/json", "", "application/json; charset=utf-8"])
def test_score(server: RunningServer, document: Any, key: str, kind: str) -> None:
    answer = server.post("/score", document, {"Content-Type": kind} if kind else {})
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {key}
    expected = reference(onnx_models.dense(0), {"x": ROWS})["y"]
    np.testing.assert_array_equal(np.float32(answer.json()[key]), expected)


def test_nan_is_a_bare_token(tmp_path: Path, serve: Serve) -> None:
    """As Python's own ``json`` writes it for Microsoft's server."""
    floats = np.float32([[1, 2]])
    same = build_package(tmp_path / "m", "same", onnx_models.identity("float32"), {"x": floats})
    answer = serve([same.path]).post("/score", b'{"data": [[NaN, -Infinity]]}')
    assert answer.body == b'{"predictions":[[NaN,-Infinity]]}'


def test_an_image(tmp_path: Path, serve: Serve) -> None:
    server = serve([image_package(tmp_path, "colours", keep=False).path])
    answer = server.post("/score", PHOTOS[0], {"Content-Type": "image/jpeg"})
    assert answer.status == 200, answer.body
    (row,) = answer.json()["predictions"]
    assert row.keys() == {"label", "probability"}


def test_csv(server: RunningServer) -> None:
    lines = "\n".join(",".join(map(str, row)) for row in ROWS.tolist()).encode()
    answer = server.post("/score", lines, {"Content-Type": "text/csv", "x-request-id": "7"})
    assert answer.headers["x-request-id"] == "7"
    assert answer.headers["x-ms-run-function-failed"] == "False"
    expected = reference(onnx_models.dense(0), {"x": ROWS})["y"]
    np.testing.assert_array_equal(np.float32(answer.json()["predictions"]), expected)


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"", {}, 400, "body is empty"),
        (b"{", {}, 400, "not JSON"),
        (b'{"data": [[1]]}', {}, 400, "expected [N, 8]"),
        (b'{"data": [[true]]}', {}, 400, "needs float32"),
        (b'{"input_data": 3}', {}, 400, "has shape []"),
        (b'{"input_data": {"data": 3}}', {}, 400, "'data' in 'dataframe_split'"),
        (b'{"input_data": {"columns": ["a"], "data": [[1]]}}', {}, 400, "columns"),
        (b"{}", {}, 400, "the model takes x"),
        (PHOTOS[0], {"Content-Type": "image/jpeg"}, 415, "not image/jpeg"),
        (b"a", {"Content-Type": "application/xml"}, 415, "not application/xml"),
        (b"1,2,3,4,5,6,7,8", {"Accept": "image/png", "Content-Type": "text/csv"}, 406, "image/png"),
        (b"[[1]]", {"Content-Encoding": "br"}, 415, "br"),
    ],
)
def test_errors(
    server: RunningServer, body: bytes, headers: Mapping[str, str], status: int, message: str
) -> None:
    answer = server.post("/score", body, {**headers, "x-request-id": "mine"})
    assert answer.status == status, answer.body
    ((key, text),) = answer.json().items()
    assert key == "message"
    assert message in text
    assert answer.headers["x-ms-run-function-failed"] == "False"
    assert answer.headers["x-request-id"] in ("mine", answer.headers["x-ms-request-id"])


def test_a_model_that_fails(tmp_path: Path, serve: Serve) -> None:
    golden = {"i": np.arange(3)}
    lookup = build_package(tmp_path / "m", "lookup", onnx_models.lookup(), golden)
    answer = serve([lookup.path]).post("/score", {"data": [99]})
    assert answer.status == 500
    assert answer.json().keys() == {"message"}
    assert answer.headers["x-ms-run-function-failed"] == "True"
    assert answer.headers["x-request-id"] == answer.headers["x-ms-request-id"]


def test_identifiers() -> None:
    made = dict(identifiers({}))
    assert made.keys() == {"x-request-id", "x-ms-request-id"}
    assert len(set(made.values())) == 1
    assert dict(identifiers({})) != made
    with pytest.raises(LimitError, match="x-request-id must not exceed 100 characters"):
        identifiers({"x-request-id": "x" * (HEADER_LIMIT + 1)})


@pytest.mark.parametrize("value", ["a\tb", "caf\xe9", "\x7f"])
def test_identifiers_that_no_header_should_have(server: RunningServer, value: str) -> None:
    answer = server.post("/score", {"data": ROWS.tolist()}, {"x-request-id": value})
    assert answer.status in (200, 400)
    assert answer.headers["x-request-id"] != value


def test_probes(server: RunningServer) -> None:
    for path, text in (("/healthz", b"Healthy"), ("/ready", b"Ready")):
        answer = server.get(path)
        assert (answer.status, answer.body) == (200, text)
        assert answer.headers["content-type"].startswith("text/plain")
        assert server.request("HEAD", path).status == 200
        assert server.request("POST", path, b"").status == 405


def test_not_ready_before_the_model_is(tmp_path: Path, launch: Serve) -> None:
    steps = {"n": np.array([200_000], np.int64)}
    slow = build_package(tmp_path / "slow", "slow", onnx_models.laborious(), steps)
    server = launch([slow.path])
    seen: list[int] = []

    def ready() -> bool:
        assert server.get("/healthz").status == 200
        if not seen:
            assert server.post("/score", {"data": [1]}).status == 503
        seen.append(server.get("/ready").status)
        return seen[-1] == 200

    server.wait_for("readiness", ready)
    assert set(seen) == {503, 200}


def test_swagger(server: RunningServer) -> None:
    for query in ("", "?version=3.1"):
        document = server.get(f"/swagger.json{query}").json()
        assert document["openapi"] == "3.1.0"
        assert document["paths"].keys() == {"/score", "/healthz", "/ready", "/swagger.json"}
        schema = document["paths"]["/score"]["post"]["requestBody"]["content"]["application/json"]
        assert json.dumps(schema)
    for version in ("2", "3", "9", ""):
        answer = server.get(f"/swagger.json?version={version}&")
        assert answer.status == (404 if version else 200)


def test_options_and_methods(server: RunningServer) -> None:
    answer = server.request("OPTIONS", "/score", headers={"x-request-id": "o"})
    assert (answer.status, answer.body, answer.headers["x-request-id"]) == (200, b"", "o")
    answer = server.get("/score")
    assert (answer.status, answer.json()) == (405, {"message": "Method not allowed"})
    assert answer.headers["allow"] == "OPTIONS, POST"
    assert server.get("/score/deeper").json() == {"message": "Not Found"}
    answer = server.request("PUT", "/score", b"", {"x-request-id": "x" * 101})
    assert answer.status == 431


def test_what_callers_see(server: RunningServer) -> None:
    printed = run_client("azure_score", f"http://127.0.0.1:{server.port}")
    assert printed.splitlines()[-1] == "probes"
