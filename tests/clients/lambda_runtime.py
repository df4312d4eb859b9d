"""AWS's own runtime client runs our handler against a small Runtime API.

Usage: lambda_runtime.py PACKAGE...   (dense, echo, bytes: in this order)
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from lambda_events import KINDS, Plain, body_of, headers_of, http_1, http_2, rest, v2_binary

from modelport.core.options import ServeOptions
from modelport.serve.embed import load_app

KEY = "a-key-for-tests-only"
LIMIT = 60.0
JSON = [("content-type", "application/json")]
ROWS = np.arange(16, dtype=np.float32).reshape(2, 8)
#: What a PNG file begins with, and bytes that are no text in any way.
IMAGE = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)) * 4


class RuntimeApi(ThreadingHTTPServer):
    """Lambda's side: hands out events, takes answers (contract: 2018-06-01/runtime)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Calls)
        self.events: queue.Queue[tuple[str, bytes] | None] = queue.Queue()
        self.answers: queue.Queue[tuple[str, str, Any]] = queue.Queue()

    def handle_error(self, *arguments: Any) -> None:
        """Say nothing: a runtime that has ended resets its connections."""

    def invoke(self, event: Any) -> tuple[str, Any]:
        """Send an event; ``response`` or ``error``, and what came back."""
        number = str(uuid.uuid4())
        self.events.put((number, json.dumps(event).encode()))
        path, text, _ = self.answers.get(timeout=LIMIT)
        kind = path.rsplit("/", 1)[-1]
        assert path == f"/2018-06-01/runtime/invocation/{number}/{kind}", path
        return kind, text


class Calls(BaseHTTPRequestHandler):
    """One call of the runtime client."""

    server: RuntimeApi
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet, and waits for no acknowledgement

    def do_GET(self) -> None:
        if self.path.endswith("/restore/next"):
            self.server.answers.put((self.path, "", None))
            self._send(200, b"", {})
            return
        event = self.server.events.get()
        if event is None:
            self.close_connection = True
            return
        number, body = event
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": number,
            "Lambda-Runtime-Deadline-Ms": "4102444800000",
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-west-1:1234:function:f",
            "Lambda-Runtime-Trace-Id": "Root=1-0",
        }
        self._send(200, body, headers)

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.answers.put((self.path, body.decode(), dict(self.headers)))
        self._send(202, b"{}", {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def function(packages: list[str], **variables: str) -> Iterator[tuple[RuntimeApi, Any]]:
    """A function: the Runtime API, and the runtime client's process."""
    api = RuntimeApi()
    threading.Thread(target=api.serve_forever, daemon=True).start()
    process = subprocess.Popen(
        [sys.executable, "-m", "awslambdaric", "modelport.serve.awslambda.handler"],
        env={
            **os.environ,
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.server_address[1]}",
            "MODELPORT_MODELS": os.pathsep.join(packages),
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield api, process
    finally:
        process.kill()
        process.communicate()
        api.events.put(None)
        api.shutdown()
        api.server_close()


def http(api: RuntimeApi, event: dict[str, Any]) -> dict[str, Any]:
    kind, text = api.invoke(event)
    assert kind == "response", text
    answer = json.loads(text, parse_constant=no_constant)
    assert isinstance(answer["statusCode"], int), answer
    return answer


def no_constant(token: str) -> None:
    raise AssertionError(f"bare {token} outside of a string: a gateway answers 502")


def events_of(packages: list[str]) -> None:
    binary, binary_headers = v2_binary(ROWS, "FP32")
    raw_headers = [("content-type", "image/png"), ("Inference-Header-Content-Length", "0")]
    with function(packages) as (api, _):
        for kind, build in KINDS.items():
            body = json.dumps({"instances": ROWS.tolist()}).encode()
            text = http(api, build(Plain("POST", "/v1/models/dense:predict", (), JSON, body)))
            assert (text["statusCode"], text["isBase64Encoded"]) == (200, False), text
            wanted = np.array(json.loads(text["body"])["predictions"], np.float32)

            plain = Plain("POST", "/v2/models/dense/infer", (), binary_headers, binary)
            answer = http(api, build(plain))
            assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, True), answer
            size = int(headers_of(answer)["inference-header-content-length"])
            got = np.frombuffer(body_of(answer)[size:], np.float32).reshape(2, 1)
            assert np.array_equal(got, wanted), kind
            print(f"{kind}: text, and V2 binary, bit for bit the same")

            image = http(
                api, build(Plain("POST", "/v2/models/bytes/infer", (), raw_headers, IMAGE))
            )
            assert image["statusCode"] == 200, image
            size = int(headers_of(image)["inference-header-content-length"])
            assert body_of(image)[size:] == IMAGE, kind
            print(f"{kind}: {len(IMAGE)} bytes of an image there and back")

            nan = Plain("POST", "/v1/models/echo:predict", (), JSON, b'{"instances":[[NaN,1.5]]}')
            assert http(api, build(nan))["body"] == '{"predictions":[[NaN,1.5]]}', kind
            print(f"{kind}: NaN stays inside the string")

            for nulls in (False, True):
                empty = http(api, build(Plain("POST", "/v1/models/dense:predict", nulls=nulls)))
                assert empty["statusCode"] == 400, empty
                assert "error" in json.loads(empty["body"]), empty
                event = build(Plain("GET", "/v2/health/ready", nulls=nulls))
                if nulls:
                    several = "multiValueHeaders" in event and kind == "alb_multi"
                    event["multiValueHeaders" if several else "headers"] = None
                ready = http(api, event)
                assert (ready["statusCode"], ready["isBase64Encoded"]) == (200, False), ready
            print(f"{kind}: empty bodies, null headers")

            shape(kind, ready)


def shape(kind: str, answer: dict[str, Any]) -> None:
    """Exactly the keys that the source knows."""
    common = {"statusCode", "body", "isBase64Encoded"}
    wanted = {
        "alb": {*common, "statusDescription", "headers"},
        "alb_multi": {*common, "statusDescription", "multiValueHeaders"},
    }.get(kind, {*common, "headers"})
    assert set(answer) == wanted, answer
    if kind.startswith("alb"):
        assert answer["statusDescription"] == "200 OK", answer
    print(f"{kind}: the answer has the keys that its source expects")


def paths(packages: list[str]) -> None:
    """Stages and mappings in front of our paths, and what only looks like one."""
    ready = Plain("GET", "/v2/health/ready")
    events = {
        "stage in rawPath": http_2(ready, stage="prod"),
        "stage in rawPath, greedy route": http_2(ready, stage="prod", route="ANY /{proxy+}"),
        "stage called v2": http_2(ready, stage="v2"),
        "stage called v2, own domain": http_2(ready, stage="v2", base="/m", route="ANY /{proxy+}"),
        "stage in path, payload 1.0": http_1(ready, stage="prod"),
        "mapping of a domain": rest(ready, base="/ml"),
        "mapping, literal resource": rest(ready, base="/ml", resource="/v2/health/ready"),
        "mapping, HTTP API": http_2(ready, base="/ml", route="ANY /{proxy+}"),
    }
    with function(packages) as (api, _):
        for name, event in events.items():
            answer = http(api, event)
            assert answer["statusCode"] == 200, (name, answer)
            print(f"path: {name}")
    with function(packages, MODELPORT_BASE_PATH="ml/models") as (api, _):
        answer = http(api, KINDS["alb"](Plain("GET", "/ml/models/v2/health/ready")))
        assert answer["statusCode"] == 200, answer
        assert http(api, KINDS["alb"](ready))["statusCode"] == 200
        print("path: MODELPORT_BASE_PATH")


def direct(packages: list[str]) -> None:
    """Bare documents: the answer itself, and errors as function errors."""
    rows = ROWS.tolist()
    v2 = {"inputs": [{"name": "x", "shape": [2, 8], "datatype": "FP32", "data": rows}]}
    with function(packages) as (api, _):
        kind, text = api.invoke({"instances": rows})
        assert kind == "response", text
        wanted = json.loads(text)["predictions"]
        for name, document, read in (
            ("columns", {"inputs": rows}, lambda a: a["outputs"]),
            ("named columns", {"inputs": {"x": rows}}, lambda a: a["outputs"]),
            ("V2", v2, lambda a: [[value] for value in a["outputs"][0]["data"]]),
        ):
            kind, text = api.invoke(document)
            assert kind == "response", text
            assert read(json.loads(text)) == wanted, (name, text)
            print(f"direct: {name}")
        for name, event, error in (
            ("too few columns", {"instances": [[1.0]]}, "InputError"),
            ("no inference", {"key": 1}, "InputError"),
            ("queue", {"Records": [{"body": "{}"}]}, "InputError"),
            ("a list", [1, 2], "InputError"),
            ("a string", "instances", "InputError"),
            ("null", None, "InputError"),
            ("nothing", {}, "InputError"),
        ):
            kind, text = api.invoke(event)
            document = json.loads(text)
            assert (kind, document["errorType"]) == ("error", error), text
            assert document["errorMessage"], text
            print(f"direct: {name}: {document['errorMessage'].splitlines()[0]}")
        assert api.invoke({"instances": rows})[0] == "response"


def garbage(packages: list[str]) -> None:
    """Events that only nearly are what they look like."""
    good = rest(Plain("POST", "/v1/models/dense:predict", (), JSON, b'{"instances":[[1]]}'))
    url = KINDS["url"](Plain("GET", "/v2"))
    cases = {
        "body is an object": (good | {"body": {"instances": []}}, 400),
        "body is no base64": (good | {"isBase64Encoded": True, "body": "€"}, 400),
        "body is cut base64": (good | {"isBase64Encoded": True, "body": "QUJ"}, 400),
        "half a surrogate": (good | {"body": "\ud800"}, 400),
        "half a surrogate in the path": (good | {"path": "/\ud800", "resource": None}, 404),
        "half a surrogate in a header": (good | {"headers": {"x-api-key": "\ud800"}}, 400),
        "headers are a list": (good | {"headers": [1], "multiValueHeaders": 7}, 400),
        "header is a number": (good | {"multiValueHeaders": {"content-length": [7, None]}}, 400),
        "no context": ({"httpMethod": "GET", "path": "/v2"}, 200),
        "no path": ({"httpMethod": "GET"}, 200),
        "context is null": ({"httpMethod": "GET", "path": "/v2", "requestContext": None}, 200),
        "path is null": (url | {"rawPath": None}, 200),
        "method in lower case": ({"httpMethod": "get", "path": "/v2"}, 200),
        "no such method": ({"httpMethod": "BREW", "path": "/v2"}, 405),
        "parameters are null": (url | {"routeKey": "GET /{a}/{b+}", "rawPath": "/v2"}, 200),
    }
    with function(packages) as (api, _):
        for name, (event, status) in cases.items():
            answer = http(api, event)
            assert answer["statusCode"] == status, (name, answer)
            print(f"garbage: {name}: {status}")


def sizes(packages: list[str]) -> None:
    """An answer that Lambda would not pass on is an error that says so."""
    echo = packages[1]
    rows = np.random.default_rng(0).normal(size=(150_000, 2))
    body, headers = v2_binary(rows, "FP64")  # 2.4 MB there, 3.2 MB as base64
    many = b'{"instances":[' + b",".join([b"[1,1]"] * 800_000) + b"]}"  # 4.8 MB
    with function([echo]) as (api, _):
        plain = Plain("POST", "/v2/models/echo/infer", (), headers, body)
        assert http(api, rest(plain))["statusCode"] == 200
        assert http(api, KINDS["alb"](plain))["statusCode"] == 413
        large = http(api, rest(Plain("POST", "/v1/models/echo:predict", (), JSON, many)))
        assert large["statusCode"] == 413, large
        assert "6291556" in json.loads(large["body"])["error"], large
        zipped = Plain(
            "POST", "/v1/models/echo:predict", (), [*JSON, ("accept-encoding", "gzip")], many
        )
        assert http(api, rest(zipped))["statusCode"] == 200
        kind, text = api.invoke(json.loads(many))
        assert (kind, json.loads(text)["errorType"]) == ("error", "LimitError"), text
    print("sizes: 413 above 6 MB (1 MB behind a load balancer)")
    with function([echo], MODELPORT_MAX_BODY="1000") as (api, _):
        refused = http(api, rest(Plain("POST", "/v1/models/echo:predict", (), JSON, b" " * 1001)))
        assert refused["statusCode"] == 413, refused
    print("sizes: max_body")


def guard(packages: list[str]) -> None:
    """Every route without the key, through every kind of event."""
    app = load_app(packages, ServeOptions(api_key=KEY))
    routes = [route for _, route in app.routes]
    with function(packages, MODELPORT_API_KEY=KEY) as (api, _):
        for kind, build in KINDS.items():
            for route in routes:
                path = route.example.format(model="dense")
                answer = http(api, build(Plain(route.method, path, (), JSON, b"{}")))
                status = answer["statusCode"]
                assert (status != 401) if route.health else (status == 401), (route, answer)
                if status == 401:
                    assert headers_of(answer)["www-authenticate"] == "Bearer", answer
            for name, value in (("authorization", f"Bearer {KEY}"), ("X-Api-Key", KEY)):
                assert (
                    http(api, build(Plain("GET", "/v2", (), [(name, value)])))["statusCode"] == 200
                )
            wrong = Plain("GET", "/v2", (), [("x-api-key", KEY + "x")])
            assert http(api, build(wrong))["statusCode"] == 401
            print(f"{kind}: {len(routes)} routes refuse without the key")
        kind, text = api.invoke({"instances": ROWS.tolist()})
        assert (kind, json.loads(text)["errorType"]) == ("error", "UnauthenticatedError"), text
        print("direct: refused without the key")


def start(packages: list[str]) -> None:
    """What happens before the first event."""
    with function([packages[0] + "-nowhere"]) as (api, process):
        path, text, _ = api.answers.get(timeout=LIMIT)
        document = json.loads(text)
        assert path == "/2018-06-01/runtime/init/error", path
        assert document["errorType"] == "NotFoundError", document
        assert "package not found" in document["errorMessage"], document
        assert process.wait(LIMIT) == 1
        print(f"init: {document['errorMessage'].splitlines()[0]}")
    with function(packages, AWS_LAMBDA_INITIALIZATION_TYPE="snap-start") as (api, _):
        path, _, _ = api.answers.get(timeout=LIMIT)
        assert path == "/2018-06-01/runtime/restore/next", path
        assert api.invoke({"instances": ROWS.tolist()})[0] == "response"
        print("init: SnapStart")


if __name__ == "__main__":
    for check in (events_of, paths, direct, garbage, sizes, guard, start):
        check(sys.argv[1:])
