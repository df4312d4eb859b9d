"""Azure Functions and Google Cloud Functions; the host of custom handlers is played here."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.adapters import adapters_of
from modelport.core.options import ServeOptions
from tests.clients import run_client

from .onnx_models import dense, identity
from .packages import build_package
from .running import LIMIT, RunningServer, free_port

KEY = "a-key-for-tests-only"
ROWS = [[float(column + row) for column in range(8)] for row in range(2)]
PREDICT = "/v1/models/dense:predict"
BODY = json.dumps({"instances": ROWS})
V2 = {"inputs": [{"name": "x", "shape": [2, 8], "datatype": "FP32", "data": ROWS}]}


@pytest.fixture(scope="module")
def packages(module_path: Path) -> list[Path]:
    build_package(module_path / "dense", "dense", dense(), {"x": np.ones((3, 8), np.float32)})
    build_package(module_path / "echo", "echo", identity("float64"), None)
    build_package(module_path / "bytes", "bytes", identity("uint8", ("N",)), None)
    return [module_path / name for name in ("dense", "echo", "bytes")]


class Handler(RunningServer):
    """The handler's process, as the host starts it."""

    def __init__(self, home: Path, packages: list[Path], variables: dict[str, str]) -> None:
        super().__init__(home, packages)
        self._variables = variables

    def start(self) -> Handler:
        self.home.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "modelport", "serve", *self._models],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={
                    **os.environ,
                    "FUNCTIONS_CUSTOMHANDLER_PORT": str(self.port),
                    **self._variables,
                },
                start_new_session=True,
            )
        return self

    def invoke(self, data: Any, function: str = "model") -> tuple[int, Any]:
        """What the host sends for an invocation that it wraps up."""
        document = {"Data": data, "Metadata": {"sys": {"MethodName": function}}}
        answer = self.request(
            "POST",
            f"/{function}",
            json.dumps(document).encode(),
            {
                "content-type": "application/json; charset=utf-8",
                "x-azure-functions-invocationid": "5ac25a3d-79e8-4ba3-8ca6-4ea62b33dd34",
            },
        )
        return answer.status, answer.json()

    def http(self, **fields: Any) -> dict[str, Any]:
        """An HTTP trigger; the content of the output ``res``."""
        status, document = self.invoke({"req": trigger(**fields)})
        assert status == 200, document
        assert set(document) == {"Outputs", "Logs", "ReturnValue"}, document
        result: dict[str, Any] = document["Outputs"]["res"]
        # The host refuses an output that lacks one of them.
        assert set(result) == {"statusCode", "status", "body", "headers"}, result
        assert all(isinstance(value, str) for value in result["headers"].values())
        return result


def trigger(
    path: str = "/api/v2",
    method: str = "GET",
    body: str | None = None,
    headers: dict[str, list[str]] | None = None,
) -> dict[str, Any]:
    """The request, as the host's ``GetRequestAsJObject`` writes it."""
    item: dict[str, Any] = {
        "Url": f"http://localhost:7071{path}",
        "Method": method,
        "Query": "{}",
        "Headers": {"Host": ["localhost:7071"], "Content-Type": ["application/json"]}
        | (headers or {}),
        "Params": {"path": path.removeprefix("/api/")},
    }
    return item if body is None else item | {"Body": body}


@pytest.fixture(scope="module")
def start(module_path: Path, packages: list[Path]) -> Iterator[Callable[..., Handler]]:
    with ExitStack() as stack:

        def begin(**variables: str) -> Handler:
            home = module_path / f"handler-{len(list(module_path.glob('handler-*')))}"
            return stack.enter_context(Handler(home, packages, variables))

        yield begin


@pytest.fixture(scope="module")
def handler(start: Callable[..., Handler]) -> Handler:
    return start()


@pytest.fixture(scope="module")
def predictions(handler: Handler) -> Any:
    answer = handler.post(PREDICT, {"instances": ROWS})
    assert answer.status == 200
    return answer.json()["predictions"]


@pytest.mark.parametrize("front", ["", "/api"])
def test_requests_that_the_host_passes_on(handler: Handler, predictions: Any, front: str) -> None:
    answer = handler.post(f"{front}{PREDICT}", {"instances": ROWS})
    assert (answer.status, answer.json()["predictions"]) == (200, predictions)
    assert handler.get(f"{front}/v2/health/ready").status == 200
    assert handler.get(f"{front}/v2/models/nobody").status == 404
    assert handler.post(f"{front}{PREDICT}", b"").status == 400
    assert handler.get(f"{front}/").status == 200


def test_api_without_more_is_the_root(handler: Handler) -> None:
    assert handler.get("/api").status == 200
    assert handler.get("/apis").status == 404


def test_wrapped_json(handler: Handler, predictions: Any) -> None:
    result = handler.http(path=f"/api{PREDICT}", method="POST", body=BODY)
    assert (result["statusCode"], result["status"]) == ("200", "200 OK")
    assert result["headers"]["content-type"] == "application/json"
    assert json.loads(result["body"])["predictions"] == predictions


def test_wrapped_nan_stays_inside_the_string(handler: Handler) -> None:
    path = "/api/v1/models/echo:predict"
    result = handler.http(path=path, method="POST", body='{"instances":[[NaN,1.5]]}')
    assert result["body"] == '{"predictions":[[NaN,1.5]]}'


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"path": "/api/v2/health/ready"}, "200"),
        ({"path": "/v2/health/ready"}, "200"),
        ({"path": "/api/v2/health/ready", "method": "HEAD"}, "200"),
        ({"path": "/api/v2/models/%64ense?x=%20"}, "200"),
        ({"path": "/api/v2/models/nobody"}, "404"),
        ({"path": "/api/nowhere"}, "404"),
        ({"path": "/api/v2/models/dense", "method": "DELETE"}, "405"),
        ({"path": f"/api{PREDICT}", "method": "POST"}, "400"),
        ({"path": f"/api{PREDICT}", "method": "POST", "body": ""}, "400"),
        ({"path": f"/api{PREDICT}", "method": "POST", "body": "\ud800"}, "400"),
        ({"path": f"/api{PREDICT}", "method": "POST", "body": "{"}, "400"),
        ({"path": "/api/\ud800"}, "404"),
        ({"path": "]://[:x", "method": "\ud800"}, "400"),
    ],
)
def test_wrapped_statuses(handler: Handler, fields: dict[str, Any], status: str) -> None:
    assert handler.http(**fields)["statusCode"] == status


def test_wrapped_bytes_are_base64(handler: Handler) -> None:
    raw = np.array(ROWS, np.float32).tobytes()
    tensor = {
        "name": "x",
        "shape": [2, 8],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {
        "Content-Type": ["application/octet-stream"],
        "Inference-Header-Content-Length": [str(len(head))],
    }
    path = "/api/v2/models/dense/infer"
    body = base64.b64encode(head + raw).decode()
    result = handler.http(path=path, method="POST", headers=headers, body=body)
    plain = handler.http(path=path, method="POST", body=json.dumps(V2))
    assert (result["statusCode"], result["body"]) == ("200", plain["body"])
    broken = handler.http(path=path, method="POST", headers=headers, body=body[:-3])
    assert broken["statusCode"] == "400"


def test_binary_answers_are_refused_inside_json(handler: Handler) -> None:
    wanted = V2 | {"parameters": {"binary_data_output": True}}
    path = "/api/v2/models/dense/infer"
    result = handler.http(path=path, method="POST", body=json.dumps(wanted))
    assert result["statusCode"] == "406"
    assert "enableProxyingHttpRequest" in json.loads(result["body"])["error"]
    # The host passes such answers on where it does not wrap them up.
    assert handler.post(path, wanted).headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("times", [0, 1, 2])
def test_other_triggers_answer_by_return_value(
    handler: Handler, predictions: Any, times: int
) -> None:
    message: Any = {"instances": ROWS}
    for _ in range(times):
        message = json.dumps(message)
    status, document = handler.invoke({"item": message}, "onmessage")
    assert (status, document["Outputs"]) == (200, {})
    assert document["ReturnValue"]["predictions"] == predictions


def test_other_triggers_with_v2(handler: Handler, predictions: Any) -> None:
    _, document = handler.invoke({"item": json.dumps(V2)}, "onmessage")
    data = document["ReturnValue"]["outputs"][0]["data"]
    assert data == [value for row in predictions for value in row]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"item": "no JSON"},
        {"item": "{}"},
        {"item": 7},
        {"item": None},
        {"item": "[" * 100_000},
        {"a": "{}", "b": "{}"},
        {"item": json.dumps({"instances": [[1.0]]})},
        {"req": {"Url": 7, "Method": "GET"}},
    ],
)
def test_other_triggers_fail_the_invocation(handler: Handler, data: Any) -> None:
    status, document = handler.invoke(data, "onmessage")
    assert status == 400
    assert document["error"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"Data": {}}',
        b'{"Data": [], "Metadata": {}}',
        b'["Data", "Metadata"]',
        b'"Metadata"',
        b'{"Metadata"',
        b"[" * 100_000 + b'"Metadata"',
    ],
)
def test_what_is_no_envelope_is_a_request(handler: Handler, body: bytes) -> None:
    assert handler.post("/model", body).status == 404


def test_another_route_prefix(start: Callable[..., Handler]) -> None:
    name = "AzureFunctionsJobHost__extensions__http__routePrefix"
    handler = start(**{name: "ml/models"})
    assert handler.get("/ml/models/v2/health/ready").status == 200
    assert handler.get("/api/v2/health/ready").status == 404
    assert handler.http(path="/ml/models/v2/health/ready")["statusCode"] == "200"


def test_every_route_needs_the_key(start: Callable[..., Handler]) -> None:
    handler = start(MODELPORT_API_KEY=KEY)
    routes = [
        route
        for adapter in adapters_of("protocol")
        for route in adapter.load().routes(ServeOptions())
    ]
    assert len(routes) > 40
    for route in routes:
        path = f"/api{route.example.format(model='dense')}"
        answer = handler.request(route.method, path, b"{}")
        wrapped = handler.http(path=path, method=route.method, body="{}")
        assert (answer.status == 401) is not route.health, (route, answer.status)
        assert (wrapped["statusCode"] == "401") is not route.health, (route, wrapped)
    large = json.dumps({"instances": ROWS * 2000})
    assert len(large) > 70_000
    path = f"/api{PREDICT}"
    for headers, status in (({}, "401"), ({"X-Api-Key": [KEY]}, "200")):
        result = handler.http(path=path, method="POST", body=large, headers=headers)
        assert result["statusCode"] == status
    assert handler.invoke({"item": BODY}, "onmessage")[0] == 401


def test_limits(start: Callable[..., Handler]) -> None:
    handler = start(MODELPORT_MAX_BODY="2000")
    assert handler.post(f"/api{PREDICT}", b" " * 2001).status == 413
    assert handler.post("/model", b" " * 2001).status == 413


def test_python_worker_of_azure(packages: list[Path]) -> None:
    output = run_client("functions_azure", *packages)
    assert "routes refuse without the key" in output


def test_functions_framework_of_google(packages: list[Path]) -> None:
    output = run_client("functions_google", *packages)
    assert "routes refuse without the key" in output


def test_importing_loads_nothing() -> None:
    code = "import sys, modelport.serve.functions; assert 'onnxruntime' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LIMIT)


def test_without_azure_functions_it_says_what_is_missing() -> None:
    code = "from modelport.serve.functions import function_app"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, timeout=LIMIT, capture_output=True, text=True
    )
    # Azure's other packages may be here: they share the name "azure".
    assert re.search(
        r"package azure(\.functions)? is needed to run in Azure Functions", done.stderr
    )


def test_a_forked_worker_loads_by_itself(packages: list[Path]) -> None:
    code = """
import os, sys
from modelport.serve.embed import load_app
from modelport.serve.hosts.on_demand import OnDemand

held = OnDemand(lambda: load_app(sys.argv[1:]))
mine = held.get()
assert held.get() is mine
child = os.fork()
if child == 0:
    os._exit(0 if held.app is None and held.get() is not mine else 1)
assert os.waitpid(child, 0)[1] == 0
assert held.app is mine
"""
    command = [sys.executable, "-c", code, str(packages[0])]
    subprocess.run(command, check=True, timeout=LIMIT)
