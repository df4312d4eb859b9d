"""`verify` against real servers, right and wrong, through every protocol."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.core.errors import (
    DeadlineError,
    EngineError,
    InputError,
    LimitError,
    ModelportError,
    NotFoundError,
    ParityError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from modelport.core.package import Package
from modelport.core.tensors import Array
from modelport.deploy.verify import PROTOCOLS, ask_endpoint, verify_endpoint
from modelport.deploy.verify import stage as stage_module
from modelport.deploy.verify.protocols import protocol_of_address
from tests.serve import onnx_models
from tests.serve.packages import build_package
from tests.serve.running import RunningServer, free_port

from .front import forward, front

RANDOM = np.random.default_rng(3)
ROWS = RANDOM.normal(size=(5, 8)).astype(np.float32)

#: Models whose values a careless codec changes, and their golden inputs.
MODELS: dict[str, tuple[bytes, dict[str, Array], bool]] = {
    "dense": (onnx_models.dense(), {"x": ROWS}, True),
    "two": (
        onnx_models.sum_of_two(),
        {"a": ROWS[:, :3], "b": np.arange(10).reshape(5, 2)},
        True,
    ),
    "classes": (onnx_models.classifier(), {"x": ROWS[:, :3]}, True),
    "texts": (
        onnx_models.identity("string", ("N",)),
        {"x": np.array(["", "grüße 😀", 'quo"te\\'], object)},
        True,
    ),
    "large": (
        onnx_models.identity("int64"),
        {"x": np.array([[2**53 + 1, -1], [2**63 - 1, -(2**63)]])},
        True,
    ),
    "flags": (onnx_models.identity("bool"), {"x": np.array([[True, False], [False, False]])}, True),
    "neighbours": (onnx_models.centred(), {"x": ROWS[:, :2]}, False),
    "no-batch": (onnx_models.summary(), {"x": ROWS[:, :2]}, False),
    "specials": (
        onnx_models.identity("float32"),
        {"x": np.array([[0.1, 3.4e38], [np.nan, 1], [np.inf, -np.inf], [1e-45, -0.0]], np.float32)},
        True,
    ),
    "half": (onnx_models.identity("float16"), {"x": np.ones((2, 2), np.float16) / 3}, True),
}

#: Where a server has the first model's route of a protocol.
ROUTES = {
    "v2": "",
    "tfserving": "",
    "kserve-v1": "",
    "sagemaker": "/invocations",
    "vertex": "/vertex/1:predict",
    "azureml": "/score",
    "mlflow": "",
    "lambda": "",
    "cloudrun": "",
}
FLAGS = ("--predict-route", "/vertex/1:predict", "--health-route", "/vertex/1")


def build(folder: Path, name: str, **more: Any) -> Package:
    model, inputs, independent = MODELS[name]
    return build_package(folder, name, model, inputs, row_independent=independent, **more)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], tuple[RunningServer, Package]]]:
    """A server for each model, started when it is first asked for."""
    folder = tmp_path_factory.mktemp("verify")
    found: dict[str, tuple[RunningServer, Package]] = {}
    with ExitStack() as stack:

        def start(name: str) -> tuple[RunningServer, Package]:
            if name not in found:
                package = build(folder / name, name)
                server = RunningServer(folder / f"{name}-server", [package.path], FLAGS)
                found[name] = stack.enter_context(server), package
            return found[name]

        yield start


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELPORT_API_KEY", raising=False)


def quiet(line: str) -> None:
    """Nobody listens."""


def address(server: RunningServer, path: str = "") -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def check(package: Package, url: str, protocol: str = "auto") -> Any:
    return verify_endpoint(package, url, protocol, quiet, patience=0)


CASES = [
    (name, protocol)
    for name in MODELS
    for protocol in ROUTES
    if not (name == "half" and protocol not in ("v2", "lambda", "cloudrun"))
]


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_every_protocol_brings_the_package_s_answers(
    running: Callable[[str], tuple[RunningServer, Package]], name: str, protocol: str
) -> None:
    server, package = running(name)
    found = check(package, address(server, ROUTES[protocol]), protocol)
    golden = package.golden()
    assert golden is not None
    assert found.agrees
    assert found.records + found.left_out == golden.rows
    assert found.left_out == (2 if (name, protocol) == ("specials", "vertex") else 0)
    assert {c.name for c in found.comparisons} == set(golden.outputs)
    # Alone and in a batch, a sum of floats may be added up in another order.
    assert all(c.max_absolute <= (1e-5 if name == "two" else 0) for c in found.comparisons)
    independent = package.manifest.row_independent
    assert len(found.seconds) == (found.records if independent else 1)


def test_every_protocol_is_tested() -> None:
    assert set(ROUTES) | {"azure-functions"} == set(PROTOCOLS)


def test_tensorflow_serving_s_protocols_refuse_what_they_cannot_carry(
    running: Callable[[str], tuple[RunningServer, Package]],
) -> None:
    server, package = running("half")
    with pytest.raises(UnsupportedError, match="float16"):
        check(package, address(server), "tfserving")


FALSIFIED = [
    (name, protocol) for name in ("dense", "two", "classes", "neighbours") for protocol in ROUTES
]


@pytest.mark.parametrize(("name", "protocol"), FALSIFIED)
def test_every_protocol_notices_other_answers(
    running: Callable[[str], tuple[RunningServer, Package]],
    tmp_path: Path,
    name: str,
    protocol: str,
) -> None:
    server, package = running(name)
    output = package.manifest.signature.outputs[0].name
    wrong = "label" if name == "classes" else output
    other = build(tmp_path / "other", name, wrong_output=wrong)
    with pytest.raises(ParityError, match=f"other answers than the package: {wrong}:") as caught:
        check(other, address(server, ROUTES[protocol]), protocol)
    report = caught.value.report
    assert report["agrees"] is False
    golden = other.golden()
    assert golden is not None
    if other.manifest.row_independent:
        assert report["differing_records"] == list(range(golden.rows))


def test_one_wrong_record_is_named(
    running: Callable[[str], tuple[RunningServer, Package]],
) -> None:
    server, package = running("dense")
    asked = 0

    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        nonlocal asked
        status, found, answer = forward(server.port, path, method, headers, body)
        asked += 1
        if asked == 3:
            document = json.loads(answer)
            document["outputs"][0]["data"][0] += 0.01
            answer = json.dumps(document).encode()
        return status, found, answer

    with front(reply) as url:
        found = ask_endpoint(package, url, "v2", quiet)
    assert not found.agrees
    assert found.differing_records == (2,)
    assert found.comparisons[0].differing == 1
    assert found.comparisons[0].worst == (2, 0)
    assert found.comparisons[0].max_absolute == pytest.approx(0.01, rel=1e-3)


SHAPES = {
    "": "v2",
    "/": "v2",
    "/dense": "v2",
    "/v2/models/dense": "v2",
    "/v2/models/dense/versions/1": "v2",
    "/v2/models/dense/infer": "v2",
    "/v1/models/dense": "tfserving",
    "/v1/models/dense:predict": "tfserving",
    "/v1/models/dense/versions/1:predict": "tfserving",
    "/invocations": "mlflow",
    "/score": "azureml",
    "/vertex/1:predict": "vertex",
}


@pytest.mark.parametrize("path", SHAPES)
def test_an_address_tells_its_protocol(
    running: Callable[[str], tuple[RunningServer, Package]], path: str
) -> None:
    server, package = running("dense")
    assert check(package, address(server, path)).protocol == SHAPES[path]


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("sagemaker://eu-west-1/churn", "sagemaker"),
        ("https://europe-west4-aiplatform.googleapis.com/v1/projects/p/endpoints/1", "vertex"),
        ("https://1.europe-west4-2.prediction.vertexai.goog/v1/x:predict", "vertex"),
        ("https://churn.westeurope.inference.ml.azure.com/score", "azureml"),
        ("https://churn.azurewebsites.net", "azure-functions"),
        ("https://churn.azurewebsites.net/api/v2/models/churn/infer", "azure-functions"),
        ("https://churn-abc-ew.a.run.app", "cloudrun"),
        ("https://abc.lambda-url.eu-west-1.on.aws", "lambda"),
        ("https://abc.execute-api.eu-west-1.amazonaws.com/prod", "lambda"),
        ("http://host:8080", ""),
    ],
)
def test_platforms_addresses(url: str, protocol: str) -> None:
    assert protocol_of_address(url) == protocol


def test_an_address_that_needs_signatures_is_told_in_its_other_form() -> None:
    with pytest.raises(InputError) as caught:
        protocol_of_address(
            "https://runtime.sagemaker.eu-west-1.amazonaws.com/endpoints/churn/invocations"
        )
    assert "sagemaker://eu-west-1/churn" in caught.value.hint


def test_a_stage_of_an_api_gateway_is_a_base_path(
    running: Callable[[str], tuple[RunningServer, Package]],
) -> None:
    server, package = running("dense")

    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        if not path.startswith("/prod/"):
            return 403, {"content-type": "application/json"}, b'{"message":"Forbidden"}'
        return forward(server.port, path.removeprefix("/prod"), method, headers, body)

    with front(reply) as url:
        assert check(package, f"{url}/prod", "lambda").agrees
        assert check(package, f"{url}/prod").agrees
        with pytest.raises(UnauthenticatedError, match="Forbidden"):
            check(package, url, "lambda")


def test_azure_functions_are_below_api_and_get_the_functions_key(
    running: Callable[[str], tuple[RunningServer, Package]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, package = running("dense")

    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        if headers.get("x-functions-key") != "the-key-of-the-function":
            return 401, {}, b""
        if not path.startswith("/api/"):
            return 404, {}, b""
        return forward(server.port, path.removeprefix("/api"), method, headers, body)

    with front(reply) as url:
        with pytest.raises(UnauthenticatedError, match="401: nothing"):
            check(package, url, "azure-functions")
        monkeypatch.setenv("MODELPORT_API_KEY", "the-key-of-the-function")
        for base in ("", "/api", "/api/v2/models/dense/infer"):
            assert check(package, url + base, "azure-functions").agrees


def test_azure_ml_s_deployment_is_a_header(
    running: Callable[[str], tuple[RunningServer, Package]],
) -> None:
    server, package = running("dense")
    seen: list[tuple[str, str | None]] = []

    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        seen.append((path, headers.get("azureml-model-deployment")))
        return forward(server.port, path, method, headers, body)

    with front(reply) as url:
        assert check(package, f"{url}/score?deployment=blue", "azureml").agrees
        assert check(package, url, "azureml").agrees
    assert set(seen) == {("/score", "blue"), ("/score", None)}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Package]]:
    folder = tmp_path_factory.mktemp("guarded")
    package = build(folder / "dense", "dense")
    (folder / "keys").write_text("correct-horse-battery-staple\n")
    flags = ["--api-key-file", folder / "keys"]
    with RunningServer(folder / "server", [package.path], flags) as server:
        yield server, package


@pytest.mark.parametrize("protocol", ["auto", "v2", "tfserving", "mlflow", "azureml"])
def test_the_key_comes_from_the_environment(
    guarded: tuple[RunningServer, Package], protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, package = guarded
    url = address(server, ROUTES.get(protocol, ""))
    with pytest.raises(UnauthenticatedError) as caught:
        check(package, url, protocol)
    assert "MODELPORT_API_KEY" in caught.value.hint
    monkeypatch.setenv("MODELPORT_API_KEY", "wrong-horse-battery-staple")
    with pytest.raises(UnauthenticatedError) as caught:
        check(package, url, protocol)
    assert "wrong-horse" not in str(caught.value)
    monkeypatch.setenv("MODELPORT_API_KEY", "correct-horse-battery-staple")
    assert check(package, url, protocol).agrees


def test_a_password_in_the_address_is_refused(package: Package) -> None:
    with pytest.raises(InputError, match="password") as caught:
        check(package, "http://user:secret@127.0.0.1:1/")
    assert "secret" not in str(caught.value)


def test_the_key_does_not_follow_a_redirect(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELPORT_API_KEY", "correct-horse-battery-staple")
    seen: list[str] = []

    def thief(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        seen.append(path)
        return 200, {}, b"{}"

    with (
        front(thief) as other,
        front(lambda *_: (307, {"location": other}, b"")) as url,
        pytest.raises(InputError, match=f"answered 307.*points to {other}"),
    ):
        check(package, url, "v2")
    assert not seen


JSON = {"content-type": "application/json"}
HTML = {"content-type": "text/html"}
ANSWERS: dict[str, tuple[int, dict[str, str], bytes, type[ModelportError], str]] = {
    "a page": (200, HTML, b"<html>login</html>", EngineError, "text/html, which is no JSON"),
    "a list": (200, JSON, b"[]", EngineError, "no inference of Open Inference V2"),
    "no outputs": (200, JSON, b'{"outputs": []}', ParityError, "output is missing"),
    "nothing": (200, {}, b"", EngineError, "no JSON"),
    "deep": (200, JSON, b"[" * 100_000, EngineError, "no JSON"),
    "too large": (413, HTML, b"Request Entity Too Large", LimitError, "413"),
    "not found": (404, HTML, b"<h1>404</h1>", InputError, "404"),
    "the container failed": (
        424,
        {"ms-azureml-model-error-statuscode": "500", "ms-azureml-model-error-reason": "boom"},
        b"",
        EngineError,
        "the container itself: 500 boom",
    ),
    "failed": (500, JSON, b'{"error": "boom"}', EngineError, "500.*boom"),
    "overloaded": (503, {}, b"later", UnavailableError, "503: later"),
    "control characters": (500, {}, b"\x1b[31mred\x07", EngineError, r"\?\[31mred\?"),
    "text for numbers": (
        200,
        JSON,
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1], "data": ["a"]}]}',
        EngineError,
        "values for output y",
    ),
    "another type": (
        200,
        JSON,
        b'{"outputs": [{"name": "y", "datatype": "INT64", "shape": [1, 1], "data": [1]}]}',
        EngineError,
        "another model answers",
    ),
    "another shape": (
        200,
        JSON,
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}',
        ParityError,
        "shape is",
    ),
    "fewer values than the shape": (
        200,
        JSON,
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1]}]}',
        EngineError,
        "no inference",
    ),
    "null": (
        200,
        JSON,
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [null]}]}',
        ParityError,
        "outside tolerance",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_other_answers_are_told_as_what_they_are(package: Package, name: str) -> None:
    status, headers, body, kind, text = ANSWERS[name]
    with front(lambda *_: (status, headers, body)) as url:
        with pytest.raises(kind, match=text) as caught:
            check(package, url, "v2")
        assert type(caught.value) is kind
        assert url in str(caught.value)


ROW_ANSWERS: dict[str, tuple[bytes, type[ModelportError], str]] = {
    "no key": (b'{"answers": [[1]]}', EngineError, "neither predictions nor outputs, but: answers"),
    "empty": (b"{}", EngineError, "an empty object"),
    "a text": (b'{"predictions": ["a"]}', EngineError, "output y"),
    "ragged": (b'{"predictions": [[1], [1, 2]]}', EngineError, "output y"),
    "more rows": (b'{"predictions": [[1], [2]]}', ParityError, "shape is"),
    "a number": (b'{"predictions": 1}', ParityError, "shape is"),
    "without the output": (b'{"predictions": [{"z": 1}]}', EngineError, "without output y"),
    "true": (b'{"predictions": [[true]]}', EngineError, "output y"),
}


@pytest.mark.parametrize("name", ROW_ANSWERS)
def test_other_rows_are_told_as_what_they_are(package: Package, name: str) -> None:
    body, kind, text = ROW_ANSWERS[name]
    with front(lambda *_: (200, JSON, body)) as url, pytest.raises(kind, match=text):
        check(package, url, "tfserving")


def test_a_wrong_model_name_is_refused(
    running: Callable[[str], tuple[RunningServer, Package]], package: Package
) -> None:
    server, _ = running("dense")
    with pytest.raises(InputError, match=r"404.*churn"):
        check(package, address(server), "v2")


def test_a_closed_port_is_unavailable(package: Package) -> None:
    with pytest.raises(UnavailableError, match="no answer from"):
        check(package, f"http://127.0.0.1:{free_port()}")


def test_a_slow_server_is_given_up(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    original = stage_module.WebCarrier
    monkeypatch.setattr(stage_module, "WebCarrier", lambda *a: original(*a, timeout=0.2))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(DeadlineError, match="no answer"):
            check(package, f"http://127.0.0.1:{silent.getsockname()[1]}", "v2")


def test_an_endpoint_that_starts_is_waited_for(
    running: Callable[[str], tuple[RunningServer, Package]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, package = running("dense")
    monkeypatch.setattr(stage_module, "_PAUSE_SECONDS", 0.01)
    answers = iter([503, 502, 200])
    lines: list[str] = []

    def reply(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        if (status := next(answers, 200)) != 200:
            return status, {}, b"starting"
        return forward(server.port, path, method, headers, body)

    with front(reply) as url:
        assert verify_endpoint(package, url, "v2", lines.append, patience=30).agrees
    assert len(lines) == 2


def test_a_package_without_golden_records_is_asked_and_nothing_is_claimed(tmp_path: Path) -> None:
    package = build_package(tmp_path / "dense", "dense", onnx_models.dense(), None)
    lines: list[str] = []
    with RunningServer(tmp_path / "server", [package.path]) as server:
        found = verify_endpoint(package, address(server), "v2", lines.append, patience=0)
    assert (found.records, found.comparisons, len(found.seconds)) == (0, (), 1)
    assert "no golden records" in lines[0]


def test_an_unknown_protocol_is_told_with_those_that_exist(package: Package) -> None:
    with pytest.raises(NotFoundError, match="tfserving"):
        check(package, "http://127.0.0.1:1", "soap")


@pytest.mark.parametrize("url", ["ftp://host", "host:8080", "http://host:port", "http://", ""])
def test_what_is_no_address_is_refused(package: Package, url: str) -> None:
    with pytest.raises(InputError):
        check(package, url, "v2")
