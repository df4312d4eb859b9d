"""TorchServe: inference, management and the shape of its errors."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import run_client

from modelport import api
from modelport.core.options import ServeOptions
from modelport.core.package import Package
from modelport.serve.protocols.torchserve import TorchServe

from . import onnx_models
from .conftest import Serve
from .packages import build_package, reference
from .running import Answer, RunningServer
from .test_processing import PHOTOS
from .upload_models import ROWS, image_package, plain_packages, text_package

BOUNDARY = "limit"
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


def multipart(*parts: tuple[str, bytes]) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="%s"; filename="f"\r\n\r\n'
    return b"".join((head % name).encode() + data + b"\r\n" for name, data in parts) + (
        f"--{BOUNDARY}--\r\n".encode()
    )


@pytest.fixture(scope="module")
def packages(module_path: Path) -> dict[str, Package]:
    return {
        "colours": image_package(module_path, "colours", top_k=3, keep=False),
        "words": text_package(module_path, "words"),
    }


@pytest.fixture(scope="module")
def server(packages: dict[str, Package], module_path: Path) -> Iterator[RunningServer]:
    newer = build_package(module_path / "newer", "dense", onnx_models.dense(1), {"x": ROWS}).path
    models = [*(p.path for p in packages.values()), *plain_packages(module_path), newer]
    with RunningServer(module_path / "server", models) as running:
        yield running


def expected_labels(package: Package, photos: Any) -> list[dict[str, float]]:
    answer = api.predict(str(package.path), photos)
    return [
        dict(zip(labels, map(float, numbers), strict=True))
        for labels, numbers in zip(answer["labels"], answer["probabilities"], strict=True)
    ]


def same(found: Any, expected: Mapping[str, float]) -> None:
    assert list(found) == list(expected)  # best first
    for label, number in expected.items():
        assert np.float32(found[label]) == np.float32(number)


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("path", ["/predictions/colours", "/predictions/colours/1.0"])
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (PHOTOS[0], {}),
        (PHOTOS[0], FORM),
        (PHOTOS[0], {"Content-Type": "image/jpeg"}),
        (PHOTOS[0], {"Content-Type": "application/octet-stream"}),
        (multipart(("data", PHOTOS[0])), MULTIPART),
        (multipart(("body", PHOTOS[0])), MULTIPART),
        (json.dumps({"data": {"b64": base64.b64encode(PHOTOS[0]).decode()}}).encode(), JSON),
    ],
)
def test_an_image(
    server: RunningServer, packages: dict[str, Package], method: str, path: str, body: bytes,
    headers: Mapping[str, str],
) -> None:  # fmt: skip
    answer = server.request(method, path, body, headers)
    assert answer.status == 200, answer.body
    same(answer.json(), expected_labels(packages["colours"], PHOTOS[:1])[0])


def test_several_images(server: RunningServer, packages: dict[str, Package]) -> None:
    body = multipart(*(("data", photo) for photo in PHOTOS))
    found = server.post("/predictions/colours", body, MULTIPART).json()
    for row, expected in zip(found, expected_labels(packages["colours"], PHOTOS), strict=True):
        same(row, expected)


def test_images_in_the_json_envelope(server: RunningServer, packages: dict[str, Package]) -> None:
    instances = [{"data": {"b64": base64.b64encode(photo).decode()}} for photo in PHOTOS[:2]]
    renamed = [{"image": item["data"]} for item in instances]
    found = server.post("/predictions/colours", {"instances": renamed}).json()
    assert found.keys() == {"predictions"}
    expected = expected_labels(packages["colours"], PHOTOS[:2])
    for row, labels in zip(found["predictions"], expected, strict=True):
        same(row, labels)


@pytest.mark.parametrize(
    ("model", "body", "headers", "expected"),
    [
        ("same", [[1, 2], [3, 4]], {}, [[1, 2], [3, 4]]),
        ("same", {"instances": [[1, 2]]}, {}, {"predictions": [[1, 2]]}),
        ("same", {"inputs": {"x": [[1, 2]]}}, {}, {"predictions": [[1, 2]]}),
        ("same", {"data": [[1, 2]]}, {}, [[1, 2]]),
        ("same", {"x": [1, 2]}, {}, [[1, 2]]),
        ("same", b"[[NaN, 1]]", {}, [[None, 1]]),
        ("same", b"data=[1,2]", FORM, [[1, 2]]),
        ("same", b"1,2\n3,4", {"Content-Type": "text/csv"}, {"predictions": [[1, 2], [3, 4]]}),
        ("two", {"a": [1, 2, 3], "b": [4, 5]}, {}, [15]),
        ("summary", [[1, 2], [3, 4]], {}, {"rows": [[1, 2], [3, 4]], "mean": 2.5}),
        ("truth", [[True, False]], {}, [[True, False]]),
        ("half", [[1.5, 2]], {}, [[1.5, 2]]),
        ("echo", ["a", "ß"], {}, ["a", "ß"]),
        ("echo", b"some text", {"Content-Type": "text/plain"}, ["some text"]),
    ],
)
def test_any_model(
    server: RunningServer, model: str, body: Any, headers: Mapping[str, str], expected: Any
) -> None:
    answer = server.post(f"/predictions/{model}", body, headers)
    assert answer.status == 200, answer.body
    assert answer.json() == expected


def test_versions(server: RunningServer) -> None:
    for path, seed in (("", 1), ("/1", 0), ("/1.0", 0), ("/2", 1)):
        found = server.post(f"/predictions/dense{path}", ROWS.tolist()).json()
        expected = reference(onnx_models.dense(seed), {"x": ROWS})["y"]
        np.testing.assert_array_equal(np.float32(found), expected)


def test_a_text(server: RunningServer, packages: dict[str, Package]) -> None:
    expected = api.predict(str(packages["words"].path), ["free money"])
    found = server.post("/predictions/words", b"data=free+money", FORM).json()
    assert found.keys() == {expected["label"][0]}


def check_error(answer: Answer, status: int, kind: str, message: str) -> None:
    assert answer.status == status, answer.body
    document = answer.json()
    assert document.keys() == {"code", "type", "message"}
    assert (document["code"], document["type"]) == (status, kind)
    assert message in document["message"]
    check_headers(answer)


def check_headers(answer: Answer) -> None:
    """Those that every answer of TorchServe has."""
    uuid.UUID(answer.headers["x-request-id"])
    assert answer.headers["pragma"] == "no-cache"
    assert answer.headers["cache-control"] == "no-cache; no-store, must-revalidate, private"
    assert answer.headers["expires"] == "Thu, 01 Jan 1970 00:00:00 UTC"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind", "message"),
    [
        ("POST", "/predictions/nobody", b"x", 404, "ModelNotFoundException", "nobody"),
        ("POST", "/predictions/dense/9", b"x", 404, "ModelVersionNotFoundException", "9"),
        ("POST", "/predictions/dense/x%2Fy", b"x", 404, "ResourceNotFoundException", ""),
        ("POST", "/predictions/dense", b"", 400, "BadRequestException", "body is empty"),
        ("POST", "/predictions/dense", b"{", 400, "BadRequestException", "not JSON"),
        ("POST", "/predictions/dense", b"[[1]]", 400, "BadRequestException", "expected [N, 8]"),
        ("POST", "/predictions/colours", b"no", 400, "BadRequestException", "not a JPEG"),
        ("GET", "/predictions/dense", b"", 405, "MethodNotAllowedException", "GET"),
        ("DELETE", "/predictions/dense", b"", 405, "MethodNotAllowedException", "DELETE"),
        ("POST", "/predictions/", b"", 404, "ResourceNotFoundException", "not found"),
        ("POST", "/explanations/dense", b"x", 501, "UnsupportedOperationException", "dense"),
        ("POST", "/explanations/dense/1", b"x", 501, "UnsupportedOperationException", "dense"),
        ("POST", "/explanations/nobody", b"x", 404, "ModelNotFoundException", "nobody"),
        ("GET", "/explanations/dense", b"", 405, "MethodNotAllowedException", "GET"),
        ("GET", "/models/nobody", b"", 404, "ModelNotFoundException", "nobody"),
        ("GET", "/models/dense/9", b"", 404, "ModelVersionNotFoundException", "9"),
        ("GET", "/models?limit=x", b"", 400, "BadRequestException", "limit is 'x'"),
        ("GET", "/models?next_page_token=1e9", b"", 400, "BadRequestException", "next_page_token"),
        ("GET", f"/models?limit={'9' * 5000}", b"", 400, "BadRequestException", "limit is"),
        ("GET", "/models?" + "a=1&" * 100, b"", 400, "BadRequestException", "64 parameters"),
        ("POST", "/models?url=x", b"", 405, "MethodNotAllowedException", "--model-control"),
        ("DELETE", "/models/dense", b"", 405, "MethodNotAllowedException", "--model-control"),
        ("PUT", "/models", b"", 405, "MethodNotAllowedException", "PUT"),
        ("PUT", "/models/dense?min_worker=2", b"", 400, "BadRequestException", "--workers"),
        ("PUT", "/models/dense?max_worker=0", b"", 400, "BadRequestException", "--workers"),
        ("PUT", "/models/dense?min_worker=a", b"", 400, "BadRequestException", "min_worker"),
        ("PUT", "/models/nobody", b"", 404, "ModelNotFoundException", "nobody"),
        ("PUT", "/models/dense/1/set-default", b"", 501, "UnsupportedOperationException",
         "version 2 of model dense answers"),
        ("PUT", "/models/dense/9/set-default", b"", 404, "ModelVersionNotFoundException", "9"),
    ],
)  # fmt: skip
def test_errors(
    server: RunningServer, method: str, path: str, body: bytes, status: int, kind: str, message: str
) -> None:
    check_error(server.request(method, path, body), status, kind, message)


def test_headers(server: RunningServer) -> None:
    answers = [server.get("/models"), server.post("/predictions/same", [[1, 2]])]
    for answer in answers:
        assert answer.headers["content-type"] == "application/json"
        check_headers(answer)
    assert len({answer.headers["x-request-id"] for answer in answers}) == 2


def test_list(server: RunningServer) -> None:
    everything = server.get("/models").json()["models"]
    names = [item["modelName"] for item in everything]
    assert names == sorted(names)
    assert {"colours", "dense", "two"} <= set(names)
    assert all("/" not in item["modelUrl"] for item in everything)
    seen, token = [], "0"
    while token:
        page = server.get(f"/models?limit=3&next_page_token={token}").json()
        assert len(page["models"]) <= 3
        seen += page["models"]
        token = page.get("nextPageToken", "")
    assert seen == everything
    for query in ("limit=0", "limit=-5", "limit=100000", "limit=", "next_page_token=-1"):
        assert server.get(f"/models?{query}").json()["models"] == everything
    assert server.get("/models?next_page_token=999").json() == {"models": []}


def test_describe(server: RunningServer) -> None:
    (model,) = server.get("/models/dense").json()
    assert (model["modelName"], model["modelVersion"], model["engine"]) == (
        "dense", "2", "onnxruntime_onnx",
    )  # fmt: skip
    assert (model["minWorkers"], model["maxWorkers"], model["loadedAtStartup"]) == (1, 1, True)
    (worker,) = model["workers"]
    assert worker["status"] == "READY"
    assert model["jobQueueStatus"] == {"remainingCapacity": 1024, "pendingRequests": 0}
    assert [m["modelVersion"] for m in server.get("/models/dense/all").json()] == ["1", "2"]
    assert [m["modelVersion"] for m in server.get("/models/dense/1").json()] == ["1"]


def test_what_is_so_already_is_agreed_to(server: RunningServer) -> None:
    for query in ("", "?min_worker=1", "?min_worker=0&max_worker=4", "?synchronous=true"):
        answer = server.request("PUT", f"/models/dense{query}", b"")
        assert answer.json() == {"status": "Workers scaled to 1 for model: dense"}
    answer = server.request("PUT", "/models/dense/2/set-default", b"")
    text = 'Default version successfully updated for model "dense" to "2"'
    assert (answer.status, answer.json()) == (200, {"status": text})


def test_the_description_of_the_api(server: RunningServer) -> None:
    described = server.request("OPTIONS", "/").json()
    assert described == server.get("/api-description").json()
    assert described["openapi"] == "3.1.0"
    assert {"/predictions/dense", "/models", "/models/dense"} <= described["paths"].keys()
    assert "/v2/models/dense/infer" not in described["paths"]


def test_sagemaker_has_the_paths_of_multi_model_endpoints() -> None:
    paths = {route.example for route in TorchServe().routes(ServeOptions(multi_model=True))}
    assert not any(path.startswith("/models") for path in paths)
    assert "/predictions/{model}" in paths


def build_store(tmp_path: Path) -> tuple[list[Path], list[str]]:
    """Two versions of ``dense``; the store has ``extra`` and a broken package."""
    store = tmp_path / "store"
    build_package(store / "extra", "extra", onnx_models.dense(3), {"x": ROWS})
    broken = build_package(store / "broken", "broken", onnx_models.dense(3), {"x": ROWS})
    (broken.path / "model" / "model.onnx").write_bytes(b"no model")
    models = [
        build_package(tmp_path / f"v{seed}", "dense", onnx_models.dense(seed), {"x": ROWS}).path
        for seed in range(2)
    ]
    return models, ["--model-control", "--model-store", str(store)]


@pytest.fixture
def controlled(tmp_path: Path, serve: Serve) -> RunningServer:
    """A server of a test's own: it is changed."""
    return serve(*build_store(tmp_path))


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One that refuses to be changed."""
    folder = tmp_path_factory.mktemp("unchanged")
    with RunningServer(folder / "server", *build_store(folder)) as running:
        yield running


def test_register_and_unregister(controlled: RunningServer) -> None:
    answer = controlled.post("/models?url=extra&model_name=added&initial_workers=1", b"")
    text = 'Model "added" Version: 1 registered with 1 initial workers'
    assert (answer.status, answer.json()) == (200, {"status": text})
    found = controlled.post("/predictions/added", ROWS.tolist()).json()
    expected = reference(onnx_models.dense(3), {"x": ROWS})["y"]
    np.testing.assert_array_equal(np.float32(found), expected)
    again = controlled.post("/models?url=extra&model_name=added", b"")
    check_error(again, 409, "ConflictStatusException", "loaded already")
    assert "loadedAtStartup" not in controlled.get("/models/added").json()[0]
    answer = controlled.request("DELETE", "/models/added/1.0")
    assert (answer.status, answer.json()) == (200, {"status": 'Model "added" unregistered'})
    check_error(
        controlled.post("/predictions/added", b"[]"), 404, "ModelNotFoundException", "added"
    )
    check_error(controlled.request("DELETE", "/models/added"), 404, "ModelNotFoundException", "")
    answer = controlled.post("/models", {"url": "extra", "handler": None}, JSON)
    assert answer.json()["status"].startswith('Model "extra" Version: 1 registered')
    assert controlled.post("/predictions/extra", ROWS.tolist()).status == 200


def test_the_default_version_stays_while_there_are_others(controlled: RunningServer) -> None:
    for path in ("/models/dense", "/models/dense/2"):
        check_error(
            controlled.request("DELETE", path), 403, "InvalidModelVersionException",
            "Cannot remove default version for model dense",
        )  # fmt: skip
    assert controlled.request("DELETE", "/models/dense/1").status == 200
    assert controlled.request("DELETE", "/models/dense").status == 200
    assert controlled.get("/models").json() == {"models": []}


@pytest.mark.parametrize(
    ("query", "body", "status", "message"),
    [
        ("", b"", 400, "parameter url is required"),
        ("?url=", b"", 400, "parameter url is required"),
        ("?model_name=x", b"", 400, "parameter url is required"),
        ("?url=nowhere", b"", 404, "nowhere"),
        ("?url=nowhere%2Fe", b"", 404, "nowhere"),
        ("?url=..", b"", 400, "model_name is '..'"),
        ("?url=../v0&model_name=x", b"", 400, "outside the model store"),
        ("?url=/etc&model_name=x", b"", 400, "outside the model store"),
        ("?url=extra&model_name=a/b", b"", 400, "model_name is 'a/b'"),
        ("?url=extra&model_name=" + "a" * 129, b"", 400, "at most 128"),
        ("?url=extra&model_name=%00", b"", 400, "model_name is"),
        ("?url=%00&model_name=x", b"", 400, "url is '\\x00'"),
        ("?url=" + "a" * 5000 + "&model_name=x", b"", 400, "at most 255"),
        ("?url=https://example.com/densenet161.mar", b"", 400, "is an archive"),
        ("", b"{", 400, "not JSON"),
        ("", b"[]", 400, "not a JSON object"),
        ("", b'{"url": {"a": 1}, "model_name": "x"}', 404, ""),
        ("", b'{"url": null}', 400, "parameter url is required"),
        ("?url=broken", b"", 503, "broken"),
    ],
)
def test_what_cannot_be_registered(
    unchanged: RunningServer, query: str, body: bytes, status: int, message: str
) -> None:
    answer = unchanged.post(f"/models{query}", body, JSON)
    assert answer.status == status, answer.body
    assert message in answer.json()["message"]
    assert [item["modelName"] for item in unchanged.get("/models").json()["models"]] == ["dense"]


def test_real_client(packages: dict[str, Package], tmp_path: Path, serve: Serve) -> None:
    store = tmp_path / "store"
    build_package(store / "extra", "extra", onnx_models.dense(3), {"x": ROWS})
    photo = tmp_path / "cat.jpg"
    photo.write_bytes(PHOTOS[0])
    server = serve([packages["colours"].path], ["--model-control", "--model-store", store])
    printed = run_client("torchserve_rest", server.port, "colours", photo, "extra")
    assert printed.splitlines()[-1] == "management"
