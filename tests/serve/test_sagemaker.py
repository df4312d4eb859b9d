"""SageMaker's contract, on a real server and with its real clients."""

from __future__ import annotations

import base64
import http.client
import io
import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from clients import run_client

from modelport.core.errors import EngineError, InputError
from modelport.serve.protocols.sagemaker import SageMaker

from . import onnx_models
from .packages import build_package, reference
from .running import Answer, RunningServer
from .scoring_cases import CSV, JSON, LINES, NPY, V2, npy
from .test_processing import PHOTOS
from .upload_models import image_package, text_package

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
ROWS = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)
EXPECTED = reference(onnx_models.dense(0), {"x": ROWS})["y"]


@pytest.fixture(scope="module")
def models(module_path: Path) -> list[Path]:
    build_package(module_path / "dense", "dense", onnx_models.dense(0), {"x": ROWS})
    three = {"x": ROWS[:, :3].copy()}
    build_package(module_path / "classifier", "classifier", onnx_models.classifier(), three)
    build_package(
        module_path / "texts", "texts", onnx_models.identity("string", ("N",)),
        {"x": np.array(["a", "b"], object)},
    )  # fmt: skip
    packed = [image_package(module_path, "colours"), text_package(module_path, "words")]
    names = ("dense", "classifier", "texts")
    return [*(module_path / name for name in names), *(package.path for package in packed)]


@pytest.fixture(scope="module")
def server(models: list[Path], module_path: Path) -> Iterator[RunningServer]:
    flags = ["--threads", "3", "--max-body", str(5 << 20)]
    with RunningServer(module_path / "server", models, flags) as running:
        yield running
        assert "Traceback" not in running.log()
        assert "defect" not in running.log()


def invoke(
    server: RunningServer,
    body: Any,
    content_type: str = JSON,
    accept: str = "*/*",
    attributes: str = "",
) -> Answer:
    headers = {"Content-Type": content_type, "Accept": accept}
    if attributes:
        headers[ATTRIBUTES] = attributes
    return server.post("/invocations", body, headers)


def chosen(name: str) -> str:
    return f"tfs-model-name={name},tfs-method=predict"


def csv_of(rows: Any) -> bytes:
    return "\n".join(",".join(map(repr, row)) for row in rows.tolist()).encode()


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, {"instances": ROWS.tolist()}),
        (JSON, {"inputs": {"x": ROWS.tolist()}}),
        (CSV, csv_of(ROWS)),
        (LINES, "\n".join(map(json.dumps, ROWS.tolist())).encode()),
        (NPY, npy(ROWS)),
        ("application/octet-stream", ROWS.tobytes()),
    ],
)
def test_every_format_both_ways(server: RunningServer, content_type: str, body: Any) -> None:
    answer = invoke(server, body, content_type)
    assert (answer.status, answer.headers["content-type"]) == (200, JSON)
    got = np.float32(answer.json()["predictions"])
    assert got.tobytes() == EXPECTED.tobytes()
    text = invoke(server, body, content_type, CSV)
    assert text.headers["content-type"] == CSV
    assert np.float32(text.body.split(b"\n")).tobytes() == EXPECTED.tobytes()
    array = np.load(io.BytesIO(invoke(server, body, content_type, NPY).body))
    assert array.tobytes() == EXPECTED.tobytes()
    lines = invoke(server, body, content_type, LINES).body.split(b"\n")
    assert np.float32([json.loads(line) for line in lines]).tobytes() == EXPECTED.tobytes()


@pytest.mark.parametrize("content_type", [CSV, LINES])
@pytest.mark.parametrize("rows", [1, 2, 700])
def test_as_many_records_come_back_in_order(
    server: RunningServer, content_type: str, rows: int
) -> None:
    values = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    lines = [json.dumps(row) for row in values.tolist()]
    if content_type == CSV:
        lines = [line[1:-1] for line in lines]
    body = "\n".join(lines).encode() + b"\n"
    answer = invoke(server, body, content_type, content_type, chosen("classifier"))
    got = answer.body.decode().split("\n")
    assert len(got) == rows
    records = [[float(v) for v in r.split(",")] if content_type == CSV else json.loads(r)
               for r in got]  # fmt: skip
    labels = [int(r[0]) if content_type == CSV else r["label"] for r in records]
    assert labels == values.argmax(axis=1).tolist()


def test_custom_attributes_come_back_and_choose_the_model(server: RunningServer) -> None:
    for attributes in ("c000b4f9-df62-4c85", "a=1,b=2", "~" * 1024):
        answer = invoke(server, {"instances": ROWS.tolist()}, attributes=attributes)
        assert (answer.status, answer.headers[ATTRIBUTES]) == (200, attributes)
    for attributes in ("", "~" * 1025):
        answer = invoke(server, {"instances": ROWS.tolist()}, attributes=attributes)
        assert (answer.status, answer.headers[ATTRIBUTES]) == (200, None)
    body = {"instances": [[1, 5, 2]]}
    version = "tfs-model-name=classifier, tfs-model-version=1"
    for attributes in (chosen("classifier"), version):
        assert invoke(server, body, attributes=attributes).json()["predictions"][0]["label"] == 1
    assert invoke(server, body, attributes=chosen("nothing")).status == 404
    assert invoke(server, body, attributes=version + "9").status == 404
    wrong = invoke(server, body, attributes="tfs-method=classify")
    assert (wrong.status, wrong.json()["error_code"]) == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    ("body", "content_type", "accept", "status", "code"),
    [
        ({"instances": [[1]]}, JSON, JSON, 400, "INVALID_PARAMETER_VALUE"),
        ({}, JSON, JSON, 400, "BAD_REQUEST"),
        (b"", JSON, JSON, 400, "BAD_REQUEST"),
        (b"x", "application/x-recordio-protobuf", JSON, 415, "BAD_REQUEST"),
        ({"instances": ROWS.tolist()}, JSON, "text/html", 406, "BAD_REQUEST"),
        (b"1,2", CSV, CSV, 400, "INVALID_PARAMETER_VALUE"),
    ],
)
def test_errors(
    server: RunningServer, body: Any, content_type: str, accept: str, status: int, code: str
) -> None:
    answer = invoke(server, body, content_type, accept)
    assert (answer.status, answer.headers["content-type"]) == (status, JSON)
    document = answer.json()
    assert document.keys() == {"error_code", "message", "error"}
    assert document["error_code"] == code
    assert document["error"] == document["message"] != ""


def test_a_body_that_is_too_large(server: RunningServer) -> None:
    """Refused by its announced length, before it is sent."""
    with server.socket() as connection:
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {6 << 20}\r\n\r\n"
        connection.sendall(head.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        document = json.loads(answer.read())
        answer.close()
    assert (answer.status, document["error_code"]) == (413, "REQUEST_LIMIT_EXCEEDED")


def test_texts_as_they_are(server: RunningServer) -> None:
    answer = invoke(server, "Käse".encode(), "text/plain", attributes=chosen("texts"))
    assert answer.json() == {"predictions": ["Käse"]}


@pytest.mark.parametrize("kind", ["application/x-image", "image/jpeg", "image/png"])
def test_images_as_they_are(server: RunningServer, kind: str) -> None:
    """Through the package's own steps, and the same bits as in Base64."""
    for photo in PHOTOS[:4]:
        answer = invoke(server, photo, kind, attributes=chosen("colours"))
        assert answer.status == 200
        encoded = {"instances": [{"b64": base64.b64encode(photo).decode()}]}
        assert answer.json() == invoke(server, encoded, attributes=chosen("colours")).json()
        text = invoke(server, photo, kind, CSV, chosen("colours"))
        assert text.body.decode().split(",")[0] == answer.json()["predictions"][0]["label"]
    damaged = invoke(server, b"no image", kind, attributes=chosen("colours"))
    assert (damaged.status, damaged.json()["error_code"] != "") == (400, True)
    assert invoke(server, b"", kind, attributes=chosen("colours")).status == 400
    assert invoke(server, PHOTOS[0], kind).status == 415


def test_texts_through_the_steps_of_a_package(server: RunningServer) -> None:
    texts = ["free money", "good morning"]
    expected = invoke(server, {"instances": texts}, attributes=chosen("words")).json()
    table = "\n".join(texts).encode()
    assert invoke(server, table, CSV, attributes=chosen("words")).json() == expected
    plain = invoke(server, texts[0].encode(), "text/plain; charset=utf-8", LINES, chosen("words"))
    assert plain.headers["content-type"] == LINES
    assert json.loads(plain.body) == expected["predictions"][0]


def test_open_inference_binary(server: RunningServer) -> None:
    item = {"name": "x", "shape": [3, 8], "datatype": "FP32"}
    size = {"parameters": {"binary_data_size": ROWS.nbytes}}
    document = {"inputs": [item | size], "parameters": {"binary_data_output": True}}
    head = json.dumps(document).encode()
    kind = f"{V2};json-header-size={len(head)}"
    answer = invoke(server, head + ROWS.tobytes(), kind, kind)
    told, _, length = answer.headers["content-type"].partition(";json-header-size=")
    assert (answer.status, told) == (200, V2)
    assert answer.body[int(length) :] == EXPECTED.tobytes()
    plain = invoke(server, {"inputs": [item | {"data": ROWS.ravel().tolist()}]})
    assert plain.json()["outputs"][0]["data"] == pytest.approx(EXPECTED.ravel().tolist())


def test_health_and_parameters(server: RunningServer) -> None:
    assert server.get("/ping").json() == {"status": "Healthy"}
    assert server.get("/execution-parameters").json() == {
        "MaxConcurrentTransforms": 3,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": 5,
    }
    for method, path in (("GET", "/invocations"), ("PUT", "/invocations"), ("POST", "/ping")):
        answer = server.request(method, path, b"")
        assert answer.status == 405
        assert answer.headers["allow"] == ("GET" if path == "/ping" else "POST")


def test_ping_while_loading(launch: Any, models: list[Path], module_path: Path) -> None:
    """503 from the first connection on, and 200 only when the model is proven."""
    running = launch([models[0]])
    seen = []

    def healthy() -> bool:
        seen.append(running.get("/ping"))
        return seen[-1].status == 200

    running.wait_for("health", healthy)
    assert {answer.status for answer in seen} <= {200, 503}
    assert all(a.json() == {"status": "Unhealthy"} for a in seen if a.status == 503)


def test_a_model_of_one_row_takes_single_records(serve: Any, tmp_path: Path) -> None:
    one = onnx_models.identity("float32", (1, 2))
    build_package(tmp_path / "one", "one", one, {"x": np.ones((1, 2), np.float32)})
    running = serve([tmp_path / "one"])
    assert running.get("/execution-parameters").json()["BatchStrategy"] == "SINGLE_RECORD"


def test_curl(server: RunningServer, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.port}/invocations"
    (tmp_path / "rows.csv").write_bytes(csv_of(ROWS))

    def curl(*arguments: str) -> str:
        command = ["curl", "-sS", "-w", " %{http_code}", *arguments, url]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    file = ["--data-binary", f"@{tmp_path / 'rows.csv'}", "-H", "Content-Type: text/csv"]
    assert curl(*file).endswith("]]} 200")
    assert curl(*file, "-H", "Accept: text/csv").count("\n") == 2
    # Without a word about the body curl says that it is a form.
    assert curl("-d", "{}").endswith(" 415")
    assert curl("-d", json.dumps(ROWS.tolist()), "-H", "Content-Type:").endswith("]] 200")


def test_real_local_client(server: RunningServer) -> None:
    printed = run_client("sagemaker_local", server.port)
    assert printed.count("ok: ") == 7


def test_real_boto3(server: RunningServer) -> None:
    assert run_client("boto3_sagemaker", server.port).count("ok: ") == 5


@pytest.mark.parametrize(
    "text", ["std::bad_alloc", "CUDA out of memory", "Failed to allocate memory for X", "plain"]
)
def test_an_engine_without_memory_is_507(text: str) -> None:
    answer = SageMaker().error(EngineError(text))
    assert answer.status == (500 if text == "plain" else 507)
    assert SageMaker().error(InputError(text)).status == 400


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Models as the platform lays them out: a folder per hash, a package somewhere inside."""
    for number in range(3):
        folder = tmp_path / "models" / f"{number:064x}" / "model"
        build_package(folder / "nested", f"model-{number}", onnx_models.dense(number), {"x": ROWS})
    return tmp_path / "models"


@pytest.fixture
def several(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningServer]:
    """Detected by the platform's own variable; here its models are elsewhere."""
    monkeypatch.setenv("SAGEMAKER_MULTI_MODEL", "true")
    flags = ["--model-store", store, "--host", "127.0.0.1"]
    with RunningServer(tmp_path / "several", [], flags) as running:
        yield running
        assert "Traceback" not in running.log()
        assert "defect" not in running.log()


def load(server: RunningServer, name: str, url: object) -> Answer:
    return server.post("/models", {"model_name": name, "url": str(url)})


def test_a_multi_model_endpoint(several: RunningServer, store: Path) -> None:
    """Load, load again (409), invoke, unload, invoke (404)."""
    name = f"{1:064x}"
    url = str(store / name / "model")
    described = {"modelName": name, "modelUrl": url}
    assert several.get("/ping").status == 200
    assert several.get("/models").json() == {"models": []}
    invoked = f"/models/{name}/invoke"
    body = {"instances": ROWS.tolist()}
    assert several.post(invoked, body).status == 404
    assert several.get(f"/models/{name}").status == 404
    assert several.request("DELETE", f"/models/{name}").status == 404
    answer = load(several, name, url)
    assert (answer.status, answer.json()) == (200, described)
    assert load(several, name, url).status == 409
    assert several.get("/models").json() == {"models": [described]}
    assert several.get(f"/models/{name}").json() == described
    headers = {"X-Amzn-SageMaker-Target-Model": "a/b.tar.gz", ATTRIBUTES: "x=1"}
    answer = several.post(invoked, body, headers | {"Accept": CSV})
    assert (answer.status, answer.headers[ATTRIBUTES]) == (200, "x=1")
    expected = reference(onnx_models.dense(1), {"x": ROWS})["y"]
    assert np.float32(answer.body.split(b"\n")).tobytes() == expected.tobytes()
    answer = several.request("DELETE", f"/models/{name}")
    assert (answer.status, answer.json()) == (200, described)
    assert several.request("DELETE", f"/models/{name}").status == 404
    assert several.post(invoked, body).status == 404
    assert several.get("/models").json() == {"models": []}
    assert load(several, name, url).status == 200
    assert several.post(invoked, body).status == 200


@pytest.mark.parametrize("name", ["a/b", "a/invoke", "ü ?%41#", "models", "x" * 1000])
def test_names_are_opaque(several: RunningServer, store: Path, name: str) -> None:
    url = store / f"{0:064x}" / "model"
    path = f"/models/{quote(name, safe='')}"
    assert load(several, name, url).status == 200
    assert several.get(path).json() == {"modelName": name, "modelUrl": str(url)}
    assert several.post(f"{path}/invoke", {"instances": ROWS.tolist()}).status == 200
    assert several.request("DELETE", path).status == 200
    assert several.get(path).status == 404


def test_the_list_comes_in_pages(several: RunningServer, store: Path) -> None:
    url = store / f"{0:064x}" / "model"
    names = [f"model {number:03}" for number in range(103)]
    for name in reversed(names):
        assert load(several, name, url).status == 200
    first = several.get("/models").json()
    assert [item["modelName"] for item in first["models"]] == names[:100]
    second = several.get(f"/models?next_page_token={quote(first['nextPageToken'])}").json()
    assert [item["modelName"] for item in second["models"]] == names[100:]
    assert "nextPageToken" not in second
    assert several.get("/models?next_page_token=%C3%BC").status == 400
    assert several.get("/models?next_page_token=____").status == 400


@pytest.mark.parametrize(
    "document",
    [
        b"", b"[]", b"x", {}, {"model_name": "a"}, {"url": "/a"}, {"model_name": 1, "url": "/a"},
        {"model_name": "", "url": "/a"}, {"model_name": "a", "url": ""},
        {"model_name": "a\n", "url": "/a"}, {"model_name": "a" * 1025, "url": "/a"},
        *({"model_name": "a", "url": url} for url in (
            "/dev", "/proc/self/root", "/sys/x", "/opt/../proc", "proc", "//proc/self", "a\0",
            "/nowhere", "/etc", "file:///proc", "/" + "x" * 5000, "/dev/../dev/shm",
        )),
    ],
    ids=lambda document: repr(document)[:50],
)  # fmt: skip
def test_models_that_cannot_be_loaded(several: RunningServer, document: Any) -> None:
    answer = several.post("/models", document)
    assert answer.status == 400
    assert answer.json()["error_code"] == "BAD_REQUEST"
    assert several.get("/models").json() == {"models": []}


def test_links_out_of_the_store_are_not_followed(several: RunningServer, store: Path) -> None:
    (store / "link").symlink_to("/proc/self")
    answer = load(several, "a", store / "link")
    assert (answer.status, "no model may be loaded" in answer.json()["error"]) == (400, True)


def test_a_damaged_model_is_refused(several: RunningServer, store: Path) -> None:
    folder = store / f"{2:064x}" / "model"
    next(folder.rglob("model.onnx")).write_bytes(b"damaged")
    answer = load(several, "a", folder)
    assert (answer.status, answer.json()["error_code"]) == (400, "BAD_REQUEST")
    assert several.get("/models/a").status == 404
    assert several.get("/ping").status == 200


def test_no_memory_is_507(several: RunningServer, store: Path) -> None:
    """A file that is larger than the machine's memory, and takes no room on the disk."""
    folder = store / "large"
    folder.mkdir()
    with (folder / "model.onnx").open("wb") as file:
        file.truncate(1 << 42)
    answer = load(several, "a", folder)
    assert (answer.status, answer.json()["error_code"]) == (507, "RESOURCE_EXHAUSTED")
    assert load(several, "b", store / f"{0:064x}" / "model").status == 200


def test_models_are_loaded_at_the_same_time(several: RunningServer, store: Path) -> None:
    """Several clients load several models; of one model exactly one load succeeds."""
    jobs = [(f"m{number}", store / f"{number:064x}" / "model") for number in range(3)] * 4
    barrier = threading.Barrier(len(jobs))

    def ask(job: tuple[str, Path]) -> int:
        barrier.wait()
        return load(several, *job).status

    with ThreadPoolExecutor(len(jobs)) as pool:
        statuses = list(pool.map(ask, jobs))
    assert sorted(statuses) == [200] * 3 + [409] * 9
    assert [m["modelName"] for m in several.get("/models").json()["models"]] == ["m0", "m1", "m2"]


def test_real_boto3_on_a_multi_model_endpoint(several: RunningServer, store: Path) -> None:
    assert run_client("boto3_multi_model", several.port, store).count("ok: ") == 4


def test_routes_of_models_need_both_switches(server: RunningServer) -> None:
    assert server.post("/models", {"model_name": "a", "url": "/a"}).status != 200
    document = server.get("/openapi.json").json()
    assert "/models/dense/invoke" not in document["paths"]
    assert document["paths"]["/invocations"]["post"]["tags"] == ["sagemaker"]


def test_openapi(several: RunningServer, store: Path) -> None:
    assert load(several, "a", store / f"{0:064x}" / "model").status == 200
    paths = several.get("/openapi.json").json()["paths"]
    assert {"200", "400", "404", "406", "415", "507"} <= set(
        paths["/models/a/invoke"]["post"]["responses"]
    )
    assert {"200", "409", "507"} <= set(paths["/models"]["post"]["responses"])
    assert set(paths["/models/a"]) == {"get", "delete"}
