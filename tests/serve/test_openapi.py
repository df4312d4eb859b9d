"""One valid OpenAPI document for everything that is answered over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schemathesis

from modelport.core.options import ServeOptions
from modelport.core.signature import Signature
from modelport.core.tensors import NUMPY_DTYPES, TensorSpec
from modelport.serve.base import ModelIdentity, Route, WireProtocol
from modelport.serve.json_codec import dumps
from modelport.serve.openapi import document, element, nested, operation

from . import onnx_models
from .packages import build_package
from .routes import FLAGS, MULTI_MODEL, OPTIONS, label, routes_of
from .running import RunningServer

Serve = Callable[..., RunningServer]

SIGNATURES = {
    "one": Signature(
        (TensorSpec("x", "float32", ("N", 8)),), (TensorSpec("y", "float32", ("N", 1)),)
    ),
    "several": Signature(
        (TensorSpec("a", "float32", ("N", 3)), TensorSpec("b", "int64", ("N",))),
        (TensorSpec("label", "string", ("N",)), TensorSpec("scores", "float32", ("N", 3))),
    ),
    "scalar": Signature((TensorSpec("x", "float32", ()),), (TensorSpec("y", "float32", ()),)),
    "open": Signature(
        (TensorSpec("x", "uint8", ("N", "H", "W", 3)),), (TensorSpec("y", "bool", ("N", "M")),)
    ),
    "image": Signature(
        (TensorSpec("image", "bytes", ("N",)),),
        (
            TensorSpec("labels", "string", ("N", 5)),
            TensorSpec("probabilities", "float32", ("N", 5)),
        ),
    ),
    "every type": Signature(
        tuple(TensorSpec(f"in_{dtype}", dtype, ("N", 2)) for dtype in NUMPY_DTYPES),
        tuple(TensorSpec(f"out_{dtype}", dtype, ("N", 2)) for dtype in NUMPY_DTYPES),
    ),
}


def identity(signature: Signature, name: str = "model") -> ModelIdentity:
    return ModelIdentity(name, 1, signature, "onnxruntime_onnx")


def check(described: dict[str, Any]) -> None:
    """Hold it against OpenAPI's own JSON schema, which schemathesis brings, and load it."""
    schema = schemathesis.openapi.from_dict(json.loads(dumps(described)))
    schema.validate()
    assert [result.err() for result in schema.get_all_operations() if result.ok() is None] == []


@pytest.mark.parametrize(
    "options", [OPTIONS, MULTI_MODEL, ServeOptions()], ids=["all", "multi-model", "default"]
)
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("signature", SIGNATURES.values(), ids=SIGNATURES)
def test_the_document_is_valid(signature: Signature, closed: bool, options: ServeOptions) -> None:
    check(document(routes_of("protocol", options), [identity(signature)], closed=closed))


#: There is one repository, without a name: every other is refused.
NOWHERE = {"/v2/repository/other/index"}

ROUTES = pytest.mark.parametrize(
    ("protocol", "route"),
    [pytest.param(*item, id=label(*item)) for item in routes_of("protocol", OPTIONS)]
    + [
        pytest.param(*item, id=f"{label(*item)} multi-model")
        for item in routes_of("protocol", MULTI_MODEL)
        if item[0].name == "sagemaker"
    ],
)


@ROUTES
def test_every_route_describes_itself(protocol: WireProtocol, route: Route) -> None:
    described = protocol.operation(route, identity(SIGNATURES["one"]))
    assert (not described) is (route.example in NOWHERE), "no route is left out"
    if not described:
        return
    assert described["summary"]
    assert {"200", "401"} <= set(described["responses"]) or "501" in described["responses"]
    assert all(answer["description"] for answer in described["responses"].values())
    assert ("requestBody" in described) >= (route.answer is None)
    if route.answer is None:
        assert {"400", "404", "413", "503"} <= set(described["responses"])


def test_a_validator_that_can_refuse() -> None:
    broken = document(routes_of("protocol"), [identity(SIGNATURES["one"])], closed=False)
    broken["paths"]["/metrics"]["get"]["responses"]["200"].pop("description")
    with pytest.raises(Exception, match="description"):
        check(broken)


def test_health_routes_say_that_they_need_no_key() -> None:
    routes, models = routes_of("protocol"), [identity(SIGNATURES["one"])]
    opened = document(routes, models, closed=True)
    closed = document(routes, models, closed=True, guard_health=True)
    anonymous = document(routes, models, closed=False)
    assert opened["security"]
    assert opened["paths"]["/v2/health/live"]["get"]["security"] == []
    assert "security" not in opened["paths"]["/metrics"]["get"]
    assert "security" not in closed["paths"]["/v2/health/live"]["get"]
    assert "security" not in anonymous
    assert "components" not in anonymous


def test_models_have_paths_of_their_own() -> None:
    models = [identity(SIGNATURES["one"], "first"), identity(SIGNATURES["image"], "a b/{c}")]
    described = document(routes_of("protocol"), models, closed=False)
    check(described)
    paths = described["paths"]
    assert "/v2/models/first/infer" in paths
    assert "/v2/models/a%20b%2F%7Bc%7D/infer" in paths
    bodies = [
        json.dumps(paths[path]["post"]["requestBody"])
        for path in ("/v2/models/first/infer", "/v2/models/a%20b%2F%7Bc%7D/infer", "/invocations")
    ]
    assert len(set(bodies)) == 3
    # Where a path names no model, the first answers.
    first = document(routes_of("protocol"), models[:1], closed=False)
    assert paths["/invocations"] == first["paths"]["/invocations"]


def test_without_any_model() -> None:
    described = document(routes_of("protocol"), [], closed=False)
    check(described)
    assert "/metrics" in described["paths"]
    assert "/invocations" not in described["paths"]


def test_the_first_route_of_a_path_is_described() -> None:
    routes = routes_of("protocol")
    described = document(routes, [identity(SIGNATURES["one"])], closed=False)
    for path, item in described["paths"].items():
        for method, found in item.items():
            answering = next(
                protocol.name
                for protocol, route in routes
                if route.method == method.upper() and route.pattern.fullmatch(path)
            )
            assert found["tags"] == [answering], (method, path)


@pytest.mark.parametrize(
    ("spec", "schema"),
    [
        (TensorSpec("x", "int8", ()), {"type": "integer", "minimum": -128, "maximum": 127}),
        (TensorSpec("x", "uint64", ()), {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}),
        (TensorSpec("x", "float16", ()), {"type": "number"}),
        (TensorSpec("x", "bool", ()), {"type": "boolean"}),
        (TensorSpec("x", "string", ()), {"type": "string"}),
    ],
)
def test_elements(spec: TensorSpec, schema: dict[str, Any]) -> None:
    assert element(spec) == schema
    assert nested(spec) == schema
    of_two = {"type": "array", "items": schema, "minItems": 2, "maxItems": 2}
    matrix = replace(spec, shape=("N", 2))
    assert nested(matrix) == {"type": "array", "items": of_two}
    assert nested(matrix, batch=False) == of_two


def test_parts_of_an_operation() -> None:
    text = {"text/plain": {"type": "string"}}
    described = operation(
        "It does.",
        body=text,
        optional_body=True,
        answer=text,
        failures=(404,),
        query={"limit": {"type": "integer"}},
        others={503: text, 204: {}},
    )
    responses = described["responses"]
    assert list(responses) == ["200", "204", "401", "404", "503"]
    assert responses["204"]["content"] == {}
    assert responses["503"]["content"] == {"text/plain": {"schema": {"type": "string"}}}
    assert described["requestBody"]["required"] is False
    assert described["parameters"] == [
        {"name": "limit", "in": "query", "schema": {"type": "integer"}}
    ]


@pytest.fixture(scope="module")
def server(module_path: Path) -> Iterator[RunningServer]:
    golden = {"x": np.ones((2, 8), np.float32)}
    paths = [
        build_package(module_path / name, name, onnx_models.dense(seed), golden).path
        for seed, name in enumerate(("first", "second"))
    ]
    with RunningServer(module_path / "server", paths, FLAGS) as running:
        yield running


def test_a_running_server_tells_of_all_models(server: RunningServer) -> None:
    answer = server.get("/openapi.json")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    described = answer.json()
    check(described)
    assert described["openapi"].startswith("3.1")
    assert {"/v2/models/first/infer", "/v2/models/second/infer"} <= set(described["paths"])


def test_one_model_alone(server: RunningServer) -> None:
    described = server.get("/openapi.json?model=second").json()
    check(described)
    assert "/v2/models/second/infer" in described["paths"]
    assert not [path for path in described["paths"] if "first" in path]


@pytest.mark.parametrize("query", ["model=third", "model=", "model=first&model=third"])
def test_models_that_there_are_not(server: RunningServer, query: str) -> None:
    answer = server.get(f"/openapi.json?{query}")
    assert answer.status == (200 if query == "model=" else 404), answer.body
