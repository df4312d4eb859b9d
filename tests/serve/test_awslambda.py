"""AWS Lambda: the runtime client, other people's readers of events, and what they do not see."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport.core.errors import InputError, UnauthenticatedError, UnsupportedError
from modelport.core.options import ServeOptions
from modelport.serve.awslambda import Handler, create_handler
from modelport.serve.base import Response
from modelport.serve.hosts.envelopes import bare_request, text_of
from modelport.serve.hosts.gateway_paths import inner_path, query_of
from modelport.serve.hosts.lambda_events import source_of
from tests.clients import run_client

from .onnx_models import dense, identity
from .packages import build_package
from .running import LIMIT

ROWS = [[float(column + row) for column in range(8)] for row in range(2)]


@pytest.fixture(scope="module")
def packages(module_path: Path) -> list[Path]:
    build_package(module_path / "dense", "dense", dense(), {"x": np.ones((3, 8), np.float32)})
    build_package(module_path / "echo", "echo", identity("float64"), None)
    build_package(module_path / "bytes", "bytes", identity("uint8", ("N",)), None)
    return [module_path / name for name in ("dense", "echo", "bytes")]


@pytest.fixture(scope="module")
def handler(packages: list[Path]) -> Handler:
    return create_handler(packages)


@pytest.mark.slow
def test_runtime_client_of_aws(packages: list[Path]) -> None:
    output = run_client("lambda_runtime", *packages)
    for kind in ("rest", "http_1", "http_2", "url", "alb", "alb_multi"):
        assert f"{kind}: text, and V2 binary, bit for bit the same" in output
        assert f"{kind}: 1040 bytes of an image there and back" in output


def test_events_are_real_and_read_as_others_read_them(packages: list[Path]) -> None:
    output = run_client("lambda_oracle", *packages)
    assert output.count("as mangum has it") == 6 * 16


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"path": "/v2/models"}, "/v2/models"),
        ({"path": "/"}, "/"),
        ({"path": "/v2/models/%64ense"}, "/v2/models/dense"),
        ({"path": "/prod/v2", "stage": "prod"}, "/v2"),
        ({"path": "/prod", "stage": "prod"}, "/"),
        ({"path": "/prod/", "stage": "prod"}, "/"),
        ({"path": "/production/v2", "stage": "prod"}, "/production/v2"),
        ({"path": "/v2/v2/models", "stage": "v2"}, "/v2/models"),
        ({"path": "/v2/models", "template": "/{proxy+}", "parameters": {"proxy": "v2/models"},
          "stage": "v2"}, "/v2/models"),
        ({"path": "/ml/v2", "template": "/{any+}", "parameters": {"any": "v2"}}, "/v2"),
        ({"path": "/ml/v2%20x", "template": "/{any+}", "parameters": {"any": "v2 x"}}, "/v2 x"),
        ({"path": "/p/ml/v2", "template": "/ml/{x+}", "parameters": {"x": "v2"}}, "/ml/v2"),
        ({"path": "/p/ml/v2", "template": "/ml/{x+}", "parameters": {"x": "v2"}, "base": "ml"},
         "/v2"),
        ({"path": "/p/v2/models/m", "template": "/v2/models/{m}", "parameters": {"m": "m"}},
         "/v2/models/m"),
        ({"path": "/p/ping", "template": "/ping"}, "/ping"),
        ({"path": "/v2", "template": "/{proxy+}", "parameters": {}}, "/v2"),
        ({"path": "/v2", "template": "$default"}, "/v2"),
        ({"path": "/ml/models/v2", "base": "/ml/models/"}, "/v2"),
        ({"path": "/ml/modelsv2", "base": "/ml/models"}, "/ml/modelsv2"),
        ({"path": "/ml", "base": "ml"}, "/"),
        ({"path": "/v2", "base": "/"}, "/v2"),
    ],
)  # fmt: skip
def test_paths_behind_a_gateway(arguments: dict[str, Any], path: str) -> None:
    assert inner_path(**arguments) == path


def test_queries_are_encoded_again() -> None:
    assert query_of([("a", "1 2"), ("a", "ü&="), ("b", "")]) == "a=1%202&a=%C3%BC%26%3D&b="


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("application/json", b'{"a":1}', '{"a":1}'),
        ("application/json; charset=utf-8", "é".encode(), "é"),
        ("Text/CSV", b"1,2", "1,2"),
        ("application/problem+json", b"{}", "{}"),
        ("application/json", b"\xff", None),
        ("application/octet-stream", b"text", None),
        ("image/png", b"text", None),
        ("", b"text", None),
        ("application/octet-stream", b"", ""),
    ],
)
def test_what_is_text(kind: str, body: bytes, text: str | None) -> None:
    assert text_of(Response(200, body, (("content-type", kind),))) == text


def test_compressed_text_is_none() -> None:
    headers = (("content-type", "application/json"), ("content-encoding", "deflate"))
    assert text_of(Response(200, b"x\x01", headers)) is None


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"instances": [[1]]}, "/v1/models/m:predict"),
        ({"instances": [[1]], "parameters": {}}, "/v1/models/m:predict"),
        ({"inputs": [[1]]}, "/v1/models/m:predict"),
        ({"inputs": {"x": [[1]]}}, "/v1/models/m:predict"),
        ({"inputs": []}, "/v1/models/m:predict"),
        ({"inputs": [{"name": "x", "datatype": "FP32"}]}, "/v2/models/m/infer"),
        ({"inputs": [[1]], "params": {}}, "/invocations"),
        ({"instances": [[1]], "params": {}}, "/invocations"),
        ({"dataframe_split": {}}, "/invocations"),
        ({"dataframe_records": []}, "/invocations"),
    ],
)
def test_keys_of_a_bare_document_tell_its_protocol(document: dict[str, Any], path: str) -> None:
    request = bare_request(document, ["m", "other"])
    assert (request.method, request.path) == ("POST", path)
    assert json.loads(request.body) == document


@pytest.mark.parametrize("document", [None, 1, "x", [], {}, {"a": 1}, {"inputs": None}])
def test_other_documents_are_refused(document: Any) -> None:
    with pytest.raises(InputError, match="the event is"):
        bare_request(document, ["m"])


def test_mlflow_documents(handler: Handler) -> None:
    columns = [f"c{number}" for number in range(8)]
    wanted = handler({"instances": ROWS})["predictions"]
    answer = handler({"inputs": ROWS, "params": {}})
    assert np.array_equal(answer["predictions"], wanted)
    with pytest.raises(InputError):
        handler({"dataframe_split": {"columns": columns, "data": [[None]]}})


def test_a_bare_document_keeps_its_numbers(packages: list[Path]) -> None:
    echo = create_handler([packages[1]])
    rows = [[0.1, 1e-310], [-0.0, 12345678901234567890.0]]
    assert str(echo({"instances": rows})) == str({"predictions": rows})
    answer = echo({"instances": [[float("nan"), float("inf")]]})["predictions"][0]
    assert np.isnan(answer[0])
    assert answer[1] == float("inf")


def test_binary_outputs_need_an_http_event(handler: Handler) -> None:
    tensor = {"name": "x", "shape": [2, 8], "datatype": "FP32", "data": ROWS}
    event = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    with pytest.raises(UnsupportedError, match="binary"):
        handler(event)


def test_the_key_is_asked_for(packages: list[Path]) -> None:
    options = ServeOptions(api_key="a-key-for-tests-only")
    closed = create_handler([packages[0]], options=options)
    event = {"httpMethod": "GET", "path": "/v2"}
    assert closed(event)["statusCode"] == 401
    key = {"multiValueHeaders": {"X-API-Key": ["a-key-for-tests-only"]}, "headers": None}
    assert closed(event | key)["statusCode"] == 200
    # Two keys are no key, whichever is the right one.
    key["multiValueHeaders"] = {"X-API-Key": ["a-key-for-tests-only", "x"]}
    assert closed(event | key)["statusCode"] == 401
    with pytest.raises(UnauthenticatedError):
        closed({"instances": ROWS})


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_LIKELY = {
    "httpMethod": st.sampled_from(["GET", "POST", "HEAD", "OPTIONS"]) | _ANYTHING,
    "path": st.sampled_from(["/v2", "/v2/models/dense/infer", "/invocations"]) | _ANYTHING,
    "rawPath": st.sampled_from(["/v2", "/prod/v1/models/dense:predict"]) | _ANYTHING,
    "requestContext": st.sampled_from(
        [{"elb": {}}, {"http": {"method": "POST"}}, {"http": {}, "stage": "prod"}, {"stage": 1}]
    )
    | _ANYTHING,
    "headers": st.dictionaries(st.text(), st.text() | st.none()) | _ANYTHING,
    "multiValueHeaders": st.dictionaries(st.text(), st.lists(st.text())) | _ANYTHING,
    "queryStringParameters": _ANYTHING,
    "rawQueryString": _ANYTHING,
    "pathParameters": _ANYTHING,
    "resource": st.sampled_from(["/{proxy+}", "/{", "/{a}{b+}"]) | _ANYTHING,
    "routeKey": _ANYTHING,
    "cookies": _ANYTHING,
    "body": st.text() | _ANYTHING,
    "isBase64Encoded": _ANYTHING,
    "version": _ANYTHING,
    "instances": _ANYTHING,
    "inputs": _ANYTHING,
}


@settings(max_examples=400, deadline=None)
@given(event=st.fixed_dictionaries({}, optional=_LIKELY) | _ANYTHING)
def test_any_event_is_answered_or_refused(handler: Handler, event: Any) -> None:
    if source_of(event) is None:
        with contextlib.suppress(InputError, UnsupportedError):  # no defect, nothing unavailable
            json.dumps(handler(event))
        return
    answer = handler(event)
    json.dumps(answer)
    assert answer["statusCode"] < 500
    assert isinstance(answer["body"], str)


def test_importing_loads_nothing_and_the_handler_says_what_is_missing() -> None:
    code = "import sys, modelport.serve.awslambda as m; assert 'onnxruntime' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LIMIT)
    command = [sys.executable, "-c", code + "; m.nothing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert "AttributeError: module 'modelport.serve.awslambda' has no attribute" in done.stderr
