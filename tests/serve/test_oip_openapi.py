"""What V2's routes say of themselves, held against what they answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest

from modelport.adapters import find_adapter
from modelport.serve.base import ModelSpec
from modelport.serve.openapi import document

from . import onnx_models
from .oip_app import HEADER, Answered, OipApp
from .packages import build_package

FLOATS = np.array([[1, 2], [3, 4]], np.float32)
DATA = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2.5, 3, 4]}
RAW = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
BF16 = {**RAW, "datatype": "BF16", "parameters": {"binary_data_size": 4}}
HALF = {**RAW, "datatype": "FP16", "parameters": {"binary_data_size": 4}}


@pytest.fixture(scope="module")
def app(module_path: Path) -> OipApp:
    store = module_path / "store"
    models = {
        "floats": (onnx_models.identity("float32"), {"x": FLOATS}),
        "half": (onnx_models.identity("float16"), {"x": FLOATS.astype(np.float16)}),
        "text": (onnx_models.identity("string"), {"x": FLOATS.astype(str).astype(object)}),
        "column": (onnx_models.identity("int64", ("N", 1)), {"x": np.array([[1]])}),
        "two": (onnx_models.sum_of_two(), {"a": np.ones((1, 3), np.float32), "b": np.ones((1, 2))}),
        "later": (onnx_models.dense(), {"x": np.ones((1, 8), np.float32)}),
    }
    specs = []
    for name, (model, inputs) in models.items():
        golden = {k: a.astype(np.int64) if k == "b" else a for k, a in inputs.items()}
        package = build_package(store / name, name, model, golden)
        if name != "later":
            specs.append(ModelSpec(name, 1, str(package.path), digest=package.digest))
    return OipApp(specs, store)


@pytest.fixture(scope="module")
def paths(app: OipApp) -> dict[str, Any]:
    protocol = find_adapter("protocol", "oip").load()
    routes = [(protocol, route) for route in protocol.routes(app.options)]
    models = [model.identity for model in app.table.models if model.identity is not None]
    described = document(routes, models, closed=False)
    assert json.loads(json.dumps(described)) == described
    return dict(described["paths"])


def schemas(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        if "schema" in node:
            yield node["schema"]
        for child in node.values():
            yield from schemas(child)
    elif isinstance(node, list):
        for child in node:
            yield from schemas(child)


def test_every_schema_is_one(paths: dict[str, Any]) -> None:
    found = list(schemas(paths))
    assert len(found) > 100
    for schema in found:
        jsonschema_rs.meta.validate(
            {**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"}
        )


def test_every_route_is_described(app: OipApp, paths: dict[str, Any]) -> None:
    """But for the one that nobody should use."""
    for route in find_adapter("protocol", "oip").load().routes(app.options):
        path = route.example.replace("{model}", "floats")
        if "other" in path:
            assert path not in paths
        else:
            assert paths[path][route.method.lower()]["summary"]


def check(paths: dict[str, Any], method: str, path: str, answer: Answered) -> None:
    """The answer must be one that is described."""
    described = paths[path][method.lower()]["responses"]
    assert str(answer.status) in described, (path, answer.status, answer.body)
    content = described[str(answer.status)].get("content", {})
    if not answer.body:
        assert not content
        return
    schema = content[answer.headers["content-type"]]["schema"]
    if HEADER not in answer.headers:
        jsonschema_rs.Draft202012Validator(schema).validate(answer.json())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2"),
        ("GET", "/v2/health/live"),
        ("GET", "/v2/health/ready"),
        ("GET", "/v2/models"),
        ("GET", "/v2/models/stats"),
        ("GET", "/v2/models/floats"),
        ("GET", "/v2/models/text"),
        ("GET", "/v2/models/two/config"),
        ("GET", "/v2/models/floats/ready"),
        ("GET", "/v2/models/floats/stats"),
        ("POST", "/v2/repository/index"),
    ],
)
def test_answers(app: OipApp, paths: dict[str, Any], method: str, path: str) -> None:
    answer = app.ask(method, path)
    assert answer.status == 200
    check(paths, method, path, answer)


@pytest.mark.parametrize(
    ("model", "body", "raw"),
    [
        ("floats", {"inputs": [DATA]}, b""),
        ("floats", {"inputs": [{**DATA, "data": [[1, 2], [3, 4]]}], "id": "a"}, b""),
        ("floats", {"inputs": [RAW], "parameters": {"binary_data_output": True}}, b"\0" * 8),
        ("floats", {"inputs": [BF16], "outputs": [{"name": "y"}]}, b"\0" * 4),
        (
            "floats",
            {
                "inputs": [DATA],
                "parameters": {"priority": 1},
                "outputs": [{"name": "y", "parameters": {"classification": 1}}],
            },
            b"",
        ),
        ("half", {"inputs": [HALF], "parameters": {"binary_data_output": True}}, b"\0" * 4),
        (
            "text",
            {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "BYTES", "data": ["a", "b"]}]},
            b"",
        ),
        (
            "column",
            {"inputs": [{"name": "x", "shape": [2], "datatype": "INT64", "data": [1, 2]}]},
            b"",
        ),
        (
            "two",
            {
                "inputs": [
                    {"name": "b", "shape": [1, 2], "datatype": "INT64", "data": [1, 2]},
                    {"name": "a", "shape": [1, 3], "datatype": "FP32", "data": [[1, 2, 3]]},
                ]
            },
            b"",
        ),
    ],
)
def test_requests(
    app: OipApp, paths: dict[str, Any], model: str, body: dict[str, Any], raw: bytes
) -> None:
    """What the server takes, the schema takes, too."""
    path = f"/v2/models/{model}/infer"
    schema = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    jsonschema_rs.Draft202012Validator(schema).validate(body)
    answer = app.infer(model, body, raw)
    assert answer.status == 200, answer.body
    check(paths, "POST", path, answer)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("floats", {}),
        ("floats", {"inputs": []}),
        ("floats", {"inputs": [{**DATA, "name": "z"}]}),
        ("floats", {"inputs": [{**DATA, "datatype": "FP64"}]}),
        ("floats", {"inputs": [{**DATA, "datatype": "BF16"}]}),
        ("floats", {"inputs": [{**DATA, "shape": [4]}]}),
        ("floats", {"inputs": [{**DATA, "data": ["a"] * 4}]}),
        ("floats", {"inputs": [{**DATA, "parameters": {"binary_data_size": 16}}]}),
        ("floats", {"inputs": [DATA, DATA]}),
        ("floats", {"inputs": [DATA], "outputs": [{"name": "z"}]}),
        ("floats", {"inputs": [DATA], "id": 1}),
        ("half", {"inputs": [{**DATA, "datatype": "FP16"}]}),
    ],
)
def test_what_neither_takes(
    app: OipApp, paths: dict[str, Any], model: str, body: dict[str, Any]
) -> None:
    path = f"/v2/models/{model}/infer"
    schema = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert not jsonschema_rs.Draft202012Validator(schema).is_valid(body)
    answer = app.infer(model, body)
    assert answer.status == 400
    check(paths, "POST", path, answer)


def test_failures(app: OipApp, paths: dict[str, Any]) -> None:
    load = "/v2/repository/models/later/load"
    paths = {**paths, load: paths["/v2/repository/models/floats/load"]}
    check(paths, "POST", load, app.ask("POST", load, b"x"))
    check(paths, "POST", load, app.ask("POST", load))
    assert app.table.get("later").identity is not None
    unload = "/v2/repository/models/column/unload"
    for status in (200, 404):
        answer = app.ask("POST", unload)
        assert answer.status == status
        check(paths, "POST", unload, answer)
    for path in ("/v2/models/column", "/v2/models/column/config", "/v2/models/column/ready"):
        answer = app.ask("GET", path)
        assert answer.status == 503
        check(paths, "GET", path, answer)
    app.table.load("column")
    app.table.draining = True
    answer = app.ask("GET", "/v2/health/ready")
    assert answer.status == 503
    check(paths, "GET", "/v2/health/ready", answer)
    app.table.draining = False
