"""V2's model repository: what is there, and clients that load and unload models."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.serve.base import ModelSpec
from modelport.serve.models import State

from . import onnx_models
from .oip_app import OipApp
from .packages import build_package
from .running import RunningServer

ROWS = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)
DOCUMENT = {
    "inputs": [{"name": "x", "shape": [2, 8], "datatype": "FP32", "data": ROWS.ravel().tolist()}]
}


@pytest.fixture(scope="module")
def store(module_path: Path) -> Path:
    folder = module_path / "store"
    for seed, name in enumerate(("first", "second")):
        build_package(folder / name, name, onnx_models.dense(seed), {"x": ROWS})
    build_package(folder / "elsewhere", "hidden", onnx_models.dense(2), {"x": ROWS})
    build_package(folder / "wrong", "wrong", onnx_models.dense(), {"x": ROWS}, wrong_output="y")
    return folder


@pytest.fixture
def app(store: Path) -> OipApp:
    return OipApp([ModelSpec("first", 1, str(store / "first"))], store)


def index(app: OipApp, document: Any = b"") -> list[dict[str, str]]:
    answer = app.ask("POST", "/v2/repository/index", document)
    assert answer.status == 200
    return list(answer.json())


def control(app: OipApp, name: str, action: str, document: Any = b"") -> int:
    answer = app.ask("POST", f"/v2/repository/models/{name}/{action}", document)
    if answer.status == 200:
        assert answer.body == b""
    else:
        assert answer.error()
    return answer.status


FIRST = {"name": "first", "version": "1", "state": "READY", "reason": ""}


@pytest.mark.parametrize("document", [b"", {}, {"ready": False}, {"ready": True}, {"ready": None}])
def test_the_index(app: OipApp, document: Any) -> None:
    assert index(app, document) == [FIRST]


def test_load_and_unload(app: OipApp) -> None:
    assert app.infer("second", DOCUMENT).status == 404
    assert control(app, "second", "load") == 200
    assert [item["name"] for item in index(app)] == ["first", "second"]
    assert app.infer("second", DOCUMENT).status == 200
    assert control(app, "second", "load", {"parameters": {}}) == 200

    assert control(app, "second", "unload", {"parameters": {"unload_dependents": True}}) == 200
    gone = {"name": "second", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    assert index(app) == [FIRST, gone]
    assert index(app, {"ready": True}) == [FIRST]
    assert app.infer("second", DOCUMENT).status == 503
    assert app.ask("GET", "/v2/models/second/ready").status == 503
    assert app.ask("GET", "/v2/models/second").status == 503
    assert app.ask("GET", "/v2/models/second/stats").json()["model_stats"][0]["inference_count"]
    assert app.ask("GET", "/v2/health/ready").status == 200

    assert control(app, "second", "unload") == 404
    assert control(app, "second", "load", {}) == 200
    assert app.infer("second", DOCUMENT).status == 200


def test_a_package_is_found_by_its_name(app: OipApp) -> None:
    assert control(app, "hidden", "load") == 200
    assert app.infer("hidden", DOCUMENT).status == 200


def test_a_wrong_model_is_not_loaded(app: OipApp) -> None:
    answer = app.ask("POST", "/v2/repository/models/wrong/load")
    assert answer.status == 503
    assert "golden records" in answer.error()
    assert index(app) == [FIRST]


@pytest.mark.parametrize(
    "name", ["nothing", "..", "UPPER", "a\0b", "a" * 300, "ü", "first/..", "%2e%2e", " "]
)
@pytest.mark.parametrize("action", ["load", "unload"])
def test_names_that_do_not_exist(app: OipApp, name: str, action: str) -> None:
    assert control(app, name, action) in (400, 404)
    assert index(app) == [FIRST]


@pytest.mark.parametrize(
    ("action", "parameters", "message"),
    [
        ("load", {"config": "{}"}, "config"),
        ("load", {"config": "{}", "file:1/model.onnx": "AA=="}, "config"),
        ("load", {"file:1/model.onnx": "AA=="}, "file:1/model.onnx"),
        ("load", {"other": 1}, "other"),
        ("load", [], "parameters"),
        ("load", "x", "parameters"),
        ("unload", {"unload_dependents": 1}, "unload_dependents"),
        ("unload", {"other": True}, "other"),
        ("unload", 0, "parameters"),
    ],
)
@pytest.mark.parametrize("padding", ["", " " * 2000], ids=["small", "large"])
def test_parameters_that_are_refused(
    app: OipApp, action: str, parameters: Any, message: str, padding: str
) -> None:
    document = {"mine": padding, "parameters": parameters}
    answer = app.ask("POST", f"/v2/repository/models/first/{action}", document)
    assert answer.status == 400
    assert message in answer.error()
    assert index(app) == [FIRST]


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b"1", b"\xff", b'"a"', b"nan"])
@pytest.mark.parametrize("path", ["index", "models/first/load", "models/first/unload"])
def test_bodies_that_are_no_objects(app: OipApp, path: str, body: bytes) -> None:
    answer = app.ask("POST", f"/v2/repository/{path}", body)
    assert answer.status == 400
    assert answer.error()
    assert index(app) == [FIRST]


@pytest.mark.parametrize("ready", [1, "true", [], {}])
def test_ready_is_a_boolean(app: OipApp, ready: Any) -> None:
    answer = app.ask("POST", "/v2/repository/index", {"ready": ready})
    assert answer.status == 400
    assert "'ready'" in answer.error()


@pytest.mark.parametrize(
    "path", ["mine/index", "mine/models/first/load", "mine/models/first/unload", "models/index"]
)
def test_other_repositories(app: OipApp, path: str) -> None:
    answer = app.ask("POST", f"/v2/repository/{path}")
    assert (answer.status, answer.error()) == (
        501, "'repository_name' specification is not supported",
    )  # fmt: skip
    assert index(app) == [FIRST]


def test_without_model_control(store: Path) -> None:
    app = OipApp([ModelSpec("first", 1, str(store / "first"))])
    for action in ("load", "unload"):
        answer = app.ask("POST", f"/v2/repository/models/first/{action}")
        assert answer.status == 503
        assert "explicit model load / unload is not allowed" in answer.error()
    assert index(app) == [FIRST]
    assert "model_repository" not in app.ask("GET", "/v2").json()["extensions"]


def test_the_extension_is_told(app: OipApp) -> None:
    assert app.ask("GET", "/v2").json()["extensions"] == [
        "binary_tensor_data", "classification", "model_configuration", "statistics",
        "model_repository", "model_repository(unload_dependents)",
    ]  # fmt: skip


def test_every_state_is_told(app: OipApp) -> None:
    (model,) = app.table.models
    for state, told in {
        State.LOADING: "LOADING", State.UNLOADING: "UNLOADING", State.END: "UNAVAILABLE",
    }.items():  # fmt: skip
        model.state, model.error = state, "because"
        assert index(app) == [{**FIRST, "state": told, "reason": "because"}]
    model.state, model.error = State.AVAILABLE, ""
    model.counters.set_ready(False)
    assert index(app) == [{**FIRST, "state": "LOADING"}], "another worker is not ready"


def test_loading_while_others_answer(app: OipApp) -> None:
    """No request to a model that stays is ever refused."""
    statuses: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            statuses.append(app.infer("first", DOCUMENT).status)

    clients = [threading.Thread(target=ask) for _ in range(2)]
    for client in clients:
        client.start()
    for _ in range(5):
        assert control(app, "second", "load") == 200
        assert control(app, "second", "unload") == 200
    stop.set()
    for client in clients:
        client.join()
    assert set(statuses) == {200}


@pytest.fixture(scope="module")
def server(store: Path, module_path: Path) -> Iterator[RunningServer]:
    flags = ["--model-control", "--model-store", store]
    with RunningServer(module_path / "server", [store / "first"], flags) as running:
        yield running


def test_over_http(server: RunningServer) -> None:
    path = "/v2/repository/models/second"
    assert server.post(f"{path}/load", b"").status == 200
    assert server.post("/v2/models/second/infer", DOCUMENT).status == 200
    assert [i["state"] for i in server.post("/v2/repository/index", b"").json()] == ["READY"] * 2
    loaded = server.post(f"{path}/unload", {})
    assert (loaded.status, loaded.body) == (200, b"")
    assert server.post("/v2/models/second/infer", DOCUMENT).status == 503
    assert server.post(f"{path}/unload", b"").status == 404
    assert server.request("GET", f"{path}/load").status == 405
    assert server.post("/v2/models/first/infer", DOCUMENT).status == 200


def test_compressed_bodies_of_control_routes(server: RunningServer) -> None:
    headers = {"Content-Encoding": "deflate"}
    assert server.post("/v2/repository/index", b"not deflate", headers).status == 400
