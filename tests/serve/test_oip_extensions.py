"""V2's extensions and odd corners: parameters, classification, BF16, statistics, configuration."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.adapters import find_adapter
from modelport.core.tensors import Array
from modelport.serve.base import ModelSpec, Request

from . import onnx_models
from .oip_app import OipApp
from .packages import build_package, reference

ROWS = np.array([[0.5, 2, 1], [5, -1, 5]], np.float32)
HALVES = np.array([[1.5, -2]], np.float16)


@pytest.fixture(scope="module")
def app(module_path: Path) -> OipApp:
    models = {
        "classifier": (onnx_models.classifier(), {"x": ROWS}),
        "half": (onnx_models.identity("float16"), {"x": HALVES}),
        "text": (onnx_models.identity("string"), {"x": np.array([["a", "b"]], object)}),
        "wide": (onnx_models.identity("float64"), {"x": np.ones((1, 2))}),
        "same": (onnx_models.identity("float32"), {"x": np.ones((2, 2), np.float32)}),
        "vector": (onnx_models.identity("float32", ("N",)), {"x": np.ones(3, np.float32)}),
        "fixed": (onnx_models.identity("int64", (4,)), {"x": np.arange(4)}),
        "scalar": (onnx_models.identity("float32", ()), {"x": np.float32(1)}),
    }
    specs = []
    for name, (model, inputs) in models.items():
        golden = {key: np.asarray(value) for key, value in inputs.items()}
        package = build_package(module_path / name, name, model, golden)
        specs.append(ModelSpec(name, 1, str(package.path), digest=package.digest))
    newer = build_package(module_path / "newer", "same", onnx_models.identity("float32"), None)
    return OipApp([*specs, ModelSpec("same", 7, str(newer.path))])


def tensor(values: Array, datatype: str = "FP32", **changes: Any) -> dict[str, Any]:
    described = {"name": "x", "shape": list(values.shape), "datatype": datatype}
    return {**described, "data": values.ravel().tolist(), **changes}


def raw_tensor(values: Array, datatype: str, size: int) -> dict[str, Any]:
    described = tensor(values, datatype, parameters={"binary_data_size": size})
    del described["data"]
    return described


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"sequence_id": 7, "sequence_start": True, "sequence_end": False},
        {"sequence_id": "a"},
        {"priority": 0, "timeout": 10**6},
        {"triton_enable_empty_final_response": True},
        {"headers": {"a": "b"}, "content_type": "np", "mine": 1.5, "yours": None},
        {"binary_data_output": False},
    ],
    ids=str,
)
def test_parameters_that_are_accepted(app: OipApp, parameters: dict[str, Any]) -> None:
    document = {"parameters": parameters, "inputs": [tensor(ROWS[:, :2])]}
    assert app.infer("same", document).json()["outputs"][0]["data"] == ROWS[:, :2].ravel().tolist()


@pytest.mark.parametrize("padding", ["", " " * 2000], ids=["small", "large"])
@pytest.mark.parametrize(
    "parameters",
    [
        {"sequence_id": -1},
        {"sequence_id": 1.5},
        {"sequence_id": True},
        {"sequence_id": None},
        {"sequence_id": [1]},
        {"sequence_start": 1},
        {"sequence_end": "true"},
        {"priority": "high"},
        {"priority": -1},
        {"timeout": 0.5},
        {"timeout": True},
        {"timeout": {}},
        {"binary_data_output": 1},
        {"binary_data_output": "yes"},
        {"triton_mine": 1},
        {"triton_": True},
        {"triton_enable_empty_final_response": 1},
        [],
        "x",
        1,
        True,
    ],
    ids=str,
)
def test_parameters_that_are_refused(app: OipApp, parameters: Any, padding: str) -> None:
    document = {"mine": padding, "parameters": parameters, "inputs": [tensor(ROWS[:, :2])]}
    answer = app.infer("same", document)
    assert answer.status == 400
    key = next(iter(parameters)) if isinstance(parameters, dict) else "parameters"
    assert key in answer.error()


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": [tensor(ROWS[:, :2], parameters=[1])]},
        {"inputs": [tensor(ROWS[:, :2], parameters={"shared_memory_region": "a"})]},
        {"outputs": [{"name": "y", "parameters": {"shared_memory_region": "a"}}]},
        {"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
        {"outputs": [{"name": "y", "parameters": "binary"}]},
        {"outputs": [{"name": "y", "parameters": {"classification": -1}}]},
        {"outputs": [{"name": "y", "parameters": {"classification": True}}]},
        {"outputs": [{"name": "y", "parameters": {"classification": "2"}}]},
        {"outputs": [{"name": "y", "parameters": {"classification": [2]}}]},
    ],
    ids=str,
)
def test_parameters_of_tensors_that_are_refused(app: OipApp, changes: Mapping[str, Any]) -> None:
    answer = app.infer("same", {"inputs": [tensor(ROWS[:, :2])], **changes})
    assert answer.status == 400
    assert f"{next(iter(changes))}[0]" in answer.error()


def test_null_means_nothing(app: OipApp) -> None:
    document = {"id": None, "parameters": None, "outputs": None}
    item = tensor(ROWS[:, :2], parameters=None)
    assert app.infer("same", {**document, "inputs": [item]}).status == 200
    document["outputs"] = [{"name": "y", "parameters": None}]
    assert app.infer("same", {**document, "inputs": [item]}).status == 200


def classes(app: OipApp, model: str, values: Array, output: str, count: int) -> tuple[Any, Any]:
    parameters = {"classification": count}
    outputs = [{"name": output, "parameters": parameters}]
    (got,) = app.infer(model, {"inputs": [tensor(values)], "outputs": outputs}).json()["outputs"]
    assert got["datatype"] == "BYTES"
    return got["shape"], got["data"]


def test_classification(app: OipApp) -> None:
    scores = reference(onnx_models.classifier(), {"x": ROWS})["scores"]
    expected = [[1, 2], [0, 2]]  # of equal scores the first is better
    shape, texts = classes(app, "classifier", ROWS, "scores", 2)
    assert shape == [2, 2]
    assert texts == [f"{scores[row][i]:f}:{i}" for row in (0, 1) for i in expected[row]]
    shape, texts = classes(app, "classifier", ROWS, "scores", 10**18)
    assert shape == [2, 3]
    assert [text.split(":")[1] for text in texts] == ["1", "2", "0", "0", "2", "1"]


def test_classification_of_integers(app: OipApp) -> None:
    assert classes(app, "classifier", ROWS, "label", 1) == ([2, 1], ["1:0", "0:0"])


def test_classification_without_a_batch(app: OipApp) -> None:
    values = np.array([3, -9, 3, 8])
    outputs = [{"name": "y", "parameters": {"classification": 3}}]
    document = {"inputs": [tensor(values, "INT64")], "outputs": outputs}
    (got,) = app.infer("fixed", document).json()["outputs"]
    assert (got["shape"], got["data"]) == ([3], ["8:3", "3:0", "3:2"])


def test_classification_beside_other_outputs_and_as_bytes(app: OipApp) -> None:
    outputs = [
        {"name": "scores", "parameters": {"classification": 1, "binary_data": True}},
        {"name": "label", "parameters": {"classification": 0}},
    ]
    answer = app.infer("classifier", {"inputs": [tensor(ROWS)], "outputs": outputs})
    scores, label = answer.json()["outputs"]
    assert scores["shape"] == [2, 1]
    assert label["data"] == [1, 0]
    raw = answer.body[-scores["parameters"]["binary_data_size"] :]
    (length,) = struct.unpack_from("<I", raw)
    assert raw[4 : 4 + length].decode().endswith(":1")


@pytest.mark.parametrize("model", ["text"])
def test_what_has_no_classes(app: OipApp, model: str) -> None:
    outputs = [{"name": "y", "parameters": {"classification": 1}}]
    values = np.array([["a", "b"]], object)
    answer = app.infer(model, {"inputs": [tensor(values, "BYTES")], "outputs": outputs})
    assert answer.status == 400
    assert "class result not available" in answer.error()


def test_bfloat16_is_widened(app: OipApp) -> None:
    """The upper half of an FP32 is one, whatever the lower half would be."""
    raw = bytes.fromhex("803f 0080 c07f 4940".replace(" ", ""))
    values = np.zeros((2, 2))
    document = {"inputs": [raw_tensor(values, "BF16", len(raw))]}
    got = app.infer("same", {**document, "parameters": {"binary_data_output": True}}, raw)
    assert got.json()["outputs"][0]["datatype"] == "FP32"
    floats = np.frombuffer(got.body[-16:], "<f4")
    assert floats.tobytes().hex() == "0000803f" + "00000080" + "0000c07f" + "00004940"


@pytest.mark.parametrize("size", [0, 2, 7, 9, 16])
def test_bfloat16_has_two_bytes(app: OipApp, size: int) -> None:
    document = {"inputs": [raw_tensor(np.zeros((2, 2)), "BF16", size)]}
    answer = app.infer("same", document, b"\0" * size)
    assert answer.status == 400
    assert "BF16" in answer.error()


@pytest.mark.parametrize("model", ["wide", "half", "text", "fixed"])
def test_bfloat16_for_other_types_is_refused(app: OipApp, model: str) -> None:
    document = {"inputs": [raw_tensor(np.zeros((1, 2)), "BF16", 4)]}
    answer = app.infer(model, document, b"\0" * 4)
    assert answer.status == 400
    assert "datatype BF16" in answer.error()


@pytest.mark.parametrize(("model", "datatype"), [("same", "BF16"), ("half", "FP16")])
def test_what_json_cannot_hold(app: OipApp, model: str, datatype: str) -> None:
    answer = app.infer(model, {"inputs": [tensor(np.ones((1, 2)), datatype)]})
    assert answer.status == 400
    assert f"{datatype}, which JSON cannot hold" in answer.error()


def test_halves_are_not_written_as_json(app: OipApp) -> None:
    document = {"inputs": [raw_tensor(HALVES, "FP16", 4)]}
    answer = app.infer("half", document, HALVES.tobytes())
    assert answer.status == 400
    assert "binary_data_output" in answer.error()
    everything = {**document, "parameters": {"binary_data_output": True}}
    assert app.infer("half", everything, HALVES.tobytes()).body.endswith(HALVES.tobytes())
    one = {"name": "y", "parameters": {"binary_data": True}}
    assert app.infer("half", {**document, "outputs": [one]}, HALVES.tobytes()).status == 200
    best = {"name": "y", "parameters": {"classification": 1}}
    answer = app.infer("half", {**document, "outputs": [best]}, HALVES.tobytes())
    assert answer.json()["outputs"][0]["data"] == ["1.500000:0"]


def statistics(app: OipApp, path: str) -> list[dict[str, Any]]:
    answer = app.ask("GET", path)
    assert answer.status == 200
    return list(answer.json()["model_stats"])


def test_statistics(module_path: Path) -> None:
    model = onnx_models.identity("float32")
    path = build_package(module_path / "counted", "counted", model, None).path
    app = OipApp([ModelSpec("counted", 1, str(path)), ModelSpec("counted", 2, str(path))])
    (one,) = statistics(app, "/v2/models/counted/versions/1/stats")
    assert (one["inference_count"], one["execution_count"], one["last_inference"]) == (0, 0, 0)
    assert one["batch_stats"] == []

    for rows in (1, 3, 3):
        values = np.zeros((rows, 2), np.float32)
        place = "counted/versions/1"
        assert app.infer(place, {"inputs": [tensor(values)]}).status == 200
    assert app.infer("counted/versions/1", {"inputs": []}).status == 400
    assert app.infer("counted/versions/1", {}).status == 400

    (one,) = statistics(app, "/v2/models/counted/versions/1/stats")
    assert (one["name"], one["version"]) == ("counted", "1")
    assert (one["inference_count"], one["execution_count"]) == (7, 3)
    assert one["last_inference"] > 1.7e12
    stats = one["inference_stats"]
    assert {key: stats[key]["count"] for key in stats} == {
        "success": 3, "fail": 2, "queue": 3, "compute_input": 3, "compute_infer": 3,
        "compute_output": 3, "cache_hit": 0, "cache_miss": 0,
    }  # fmt: skip
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert abs(sum(stats[key]["ns"] for key in parts) - stats["success"]["ns"]) <= len(parts)
    assert all(stats[key]["ns"] > 0 for key in (*parts, "success", "fail"))
    batches = {batch["batch_size"]: batch["compute_infer"] for batch in one["batch_stats"]}
    assert {size: batch["count"] for size, batch in batches.items()} == {1: 1, 3: 2}
    assert all(batch["ns"] > 0 for batch in batches.values())

    both = statistics(app, "/v2/models/counted/stats")
    assert [item["version"] for item in both] == ["1", "2"]
    assert [item["inference_count"] for item in both] == [7, 0]


def test_statistics_of_the_event_loop_and_of_threads_are_added(module_path: Path) -> None:
    model = onnx_models.identity("float32")
    path = build_package(module_path / "both", "both", model, None).path
    app = OipApp([ModelSpec("both", 1, str(path))])
    document = {"inputs": [tensor(ROWS[:, :2])]}
    assert app.infer("both", document).status == 200
    request = Request("POST", "/v2/models/both/infer", {}, json.dumps(document).encode())

    async def in_the_loop() -> int:
        app.table.attach(asyncio.get_running_loop())
        return (await app.app.handle(request)).status

    assert asyncio.run(in_the_loop()) == 200
    (one,) = statistics(app, "/v2/models/both/stats")
    assert one["inference_count"] == 4
    assert one["batch_stats"][0]["batch_size"] == 2
    assert one["batch_stats"][0]["compute_infer"]["count"] == 2


def test_statistics_of_all_models(app: OipApp) -> None:
    found = [(item["name"], item["version"]) for item in statistics(app, "/v2/models/stats")]
    assert found == [(model.spec.name, str(model.spec.version)) for model in app.table.models]
    assert app.ask("GET", "/v2/models/nothing/stats").status == 404
    assert "version" in app.ask("GET", "/v2/models/same/versions/2/stats").error()


def test_configuration(app: OipApp) -> None:
    config = app.ask("GET", "/v2/models/classifier/config").json()
    assert config["name"] == "classifier"
    assert (config["platform"], config["backend"]) == ("onnxruntime_onnx", "onnxruntime")
    assert config["max_batch_size"] == app.options.max_batch
    (x,) = config["input"]
    assert (x["name"], x["data_type"], x["dims"]) == ("x", "TYPE_FP32", [3])
    label, scores = config["output"]
    assert (label["data_type"], label["dims"], label["reshape"]) == (
        "TYPE_INT64", [1], {"shape": []},
    )  # fmt: skip
    assert (scores["dims"], "reshape" in scores) == ([3], False)
    text = app.ask("GET", "/v2/models/text/versions/1/config").json()
    assert text["input"][0]["data_type"] == "TYPE_STRING"


@pytest.mark.parametrize(("model", "dims"), [("fixed", [4]), ("scalar", [1])])
def test_configuration_without_a_batch(app: OipApp, model: str, dims: list[int]) -> None:
    config = app.ask("GET", f"/v2/models/{model}/config").json()
    assert config["max_batch_size"] == 0
    assert config["input"][0]["dims"] == dims
    assert ("reshape" in config["output"][0]) == (model == "scalar")


def test_unknown_configurations(app: OipApp) -> None:
    assert app.ask("GET", "/v2/models/nothing/config").status == 404
    assert app.ask("GET", "/v2/models/same/versions/3/config").status == 404
    assert app.ask("GET", "/v2/models/same/versions/7/config").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/same/ready",
        "/v2/models/same/versions/7/ready",
        "/v2",
        "/v2/models/same/stats",
    ],
)
def test_head(app: OipApp, path: str) -> None:
    """Probes ask with HEAD, too."""
    head, get = app.ask("HEAD", path), app.ask("GET", path)
    assert (head.status, head.body) == (200, b"")
    assert get.status == 200
    assert get.json()


def test_which_routes_are_what(app: OipApp) -> None:
    routes = find_adapter("protocol", "oip").load().routes(app.options)
    assert [route.example for route in routes if route.health] == [
        "/v2/health/live", "/v2/health/ready", "/v2/models/{model}/ready",
    ]  # fmt: skip
    assert [route.example for route in routes if route.control] == [
        "/v2/repository/models/{model}/load", "/v2/repository/models/{model}/unload",
    ]  # fmt: skip
    for route in routes:
        assert route.pattern.fullmatch(route.example.replace("{model}", "a"))


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v2/models/stats", "GET"),
        ("POST", "/v2/models/same/stats", "GET"),
        ("DELETE", "/v2/models/same/config", "GET"),
        ("GET", "/v2/repository/index", "POST"),
        ("GET", "/v2/repository/models/same/load", "POST"),
        ("PUT", "/v2/repository/models/same/unload", "POST"),
        ("GET", "/v2/repository/mine/models/same/load", "POST"),
    ],
)
def test_wrong_methods(app: OipApp, method: str, path: str, allowed: str) -> None:
    answer = app.ask(method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)
    assert answer.error() == "Method Not Allowed"


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository",
        "/v2/repository/models",
        "/v2/repository/models/same",
        "/v2/systemsharedmemory/status",
        "/v2/logging",
        "/v2/models/same/trace/setting",
        "/v2/models/same/generate",
    ],
)
def test_what_is_not_there(app: OipApp, path: str) -> None:
    for method in ("GET", "POST"):
        answer = app.ask(method, path)
        assert (answer.status, answer.error()) == (404, "Not Found")


DEEP = b"[" * 900 + b"]" * 900


@pytest.mark.parametrize("padding", [b"", b" " * 4000], ids=["small", "large"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[{"name":"x","shape":%b,"datatype":"FP32","data":[1]}]}',
        b'{"inputs":[{"name":"x","shape":[1,2],"datatype":%b,"data":[1,2]}]}',
        b'{"inputs":[{"name":%b,"shape":[1,2],"datatype":"FP32","data":[1,2]}]}',
        b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":%b}]}',
        b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":'
        b'{"binary_data_size":%b}}]}',
        b'{"id":%b,"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}',
        b'{"outputs":[{"name":%b}],"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32",'
        b'"data":[1,2]}]}',
        b'{"outputs":[{"name":"y","parameters":{"classification":%b}}],"inputs":[{"name":"x",'
        b'"shape":[1,2],"datatype":"FP32","data":[1,2]}]}',
        b'{"parameters":{"timeout":%b},"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32",'
        b'"data":[1,2]}]}',
    ],
)
@pytest.mark.parametrize(
    "value",
    [DEEP, b"1e400", b"-1", b"9" * 4000, b'"%b"' % (b"long" * 20_000), b"[1.5]", b'{"a":[]}'],
    ids=["deep", "infinity", "negative", "digits", "text", "list", "object"],
)
def test_hostile_values(app: OipApp, body: bytes, value: bytes, padding: bytes) -> None:
    """They are refused, with a message that is short."""
    answer = app.ask("POST", "/v2/models/same/infer", padding + body % value)
    if answer.status == 200:  # text is an ID, however long
        assert body.startswith(b'{"id"')
        assert value[:1] == b'"'
        return
    assert answer.status == 400
    assert len(answer.error()) < 400


@pytest.mark.parametrize(
    "shape", [[10**4000, 10**4000], [2**63], [2**62] * 64, [1] * 65, [0] * 100_000]
)
def test_shapes_that_no_tensor_has(app: OipApp, shape: list[int]) -> None:
    """Numbers too long to be written, and a product that would take hours."""
    document = {"inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": [1]}]}
    answer = app.infer("same", document)
    assert answer.status == 400
    assert "shape" in answer.error()
