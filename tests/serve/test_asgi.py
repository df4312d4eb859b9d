"""ASGI: real servers and frameworks, and what of the specification they do not show."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.core.errors import NotFoundError
from modelport.core.options import ServeOptions
from modelport.core.package import open_package
from modelport.serve.asgi import Application, create_app
from modelport.serve.embed import load_app
from modelport.serve.metrics import CODES
from tests.clients import run_client

from .onnx_models import dense, identity, laborious
from .packages import build_package
from .running import LIMIT

PREDICT = "/v1/models/dense:predict"
BODY = json.dumps({"instances": [[1.0] * 8]}).encode()

Message = dict[str, Any]


@pytest.fixture(scope="module")
def packages(module_path: Path) -> list[Path]:
    build_package(module_path / "dense", "dense", dense(), {"x": np.ones((3, 8), np.float32)})
    build_package(module_path / "echo", "echo", identity("float64"), None)
    build_package(module_path / "bytes", "bytes", identity("uint8", ("N",)), None)
    return [module_path / name for name in ("dense", "echo", "bytes")]


def scope(method: str = "GET", path: str = "/v2/health/ready", **more: Any) -> Message:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": None,
        "server": None,
    } | more


async def drive(app: Application, scope: Message, *received: Message) -> list[Message]:
    """Be the server of one scope: hand out messages, collect what is sent."""
    waiting = list(received)
    sent: list[Message] = []

    async def receive() -> Message:
        assert waiting, "the application asked for more than there is"
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def body(*parts: bytes) -> list[Message]:
    last = len(parts) - 1
    return [
        {"type": "http.request", "body": part, "more_body": number < last}
        for number, part in enumerate(parts)
    ]


def ask(app: Application, scope: Message, *parts: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    start, rest = asyncio.run(drive(app, scope, *body(*(parts or (b"",)))))
    assert (start["type"], rest["type"]) == ("http.response.start", "http.response.body")
    return start["status"], dict(start["headers"]), rest["body"]


def test_uvicorn_and_fastapi(packages: list[Path]) -> None:
    output = run_client("asgi_uvicorn", *packages)
    assert "/ml/models: JSON, binary, chunks, escapes, HEAD, errors, gzip" in output


@pytest.mark.parametrize(
    ("root", "path", "status"),
    [
        ("", "/v2/health/ready", 200),
        ("/ml", "/ml/v2/health/ready", 200),  # since ASGI 2.4
        ("/ml", "/v2/health/ready", 200),  # before
        ("/ml/", "/ml/v2/health/ready", 200),
        ("/ml", "/ml", 200),
        ("/ml", "/ml/", 200),
        ("/ml", "", 200),
        ("/m", "/ml/v2/health/ready", 404),
    ],
)
def test_places_to_be_mounted_at(packages: list[Path], root: str, path: str, status: int) -> None:
    app = create_app(packages[:1])
    assert ask(app, scope(path=path, root_path=root))[0] == status


def test_bodies_in_parts(packages: list[Path]) -> None:
    app = create_app(packages[:1])
    whole = ask(app, scope("POST", PREDICT), BODY)
    assert whole[0] == 200
    assert whole[1][b"content-length"] == str(len(whole[2])).encode()
    assert ask(app, scope("POST", PREDICT), BODY[:3], b"", BODY[3:], b"")[2] == whole[2]


def test_a_message_may_leave_its_fields_out(packages: list[Path]) -> None:
    sent = asyncio.run(
        drive(create_app(packages[:1]), scope("POST", PREDICT), {"type": "http.request"})
    )
    assert sent[0]["status"] == 400


def test_no_more_is_read_than_the_limit(packages: list[Path]) -> None:
    app = create_app(packages[:1], options=ServeOptions(max_body=100))
    announced = scope("POST", PREDICT, headers=[(b"content-length", b"101")])
    sent = asyncio.run(drive(app, announced))  # receives nothing at all
    assert sent[0]["status"] == 413
    endless = [{"type": "http.request", "body": b" " * 60, "more_body": True}] * 2
    sent = asyncio.run(drive(app, scope("POST", PREDICT), *endless))
    assert sent[0]["status"] == 413


def test_without_the_key_no_large_body_is_read(packages: list[Path]) -> None:
    app = create_app(packages[:1], options=ServeOptions(api_key="a-key-for-tests-only"))
    sent = asyncio.run(drive(app, scope("POST", PREDICT)))
    assert sent[0]["status"] == 401


def test_a_client_that_goes_is_not_answered(packages: list[Path]) -> None:
    app = create_app(packages[:1])
    messages = [{"type": "http.request", "body": b"{", "more_body": True}]
    sent = asyncio.run(drive(app, scope("POST", PREDICT), *messages, {"type": "http.disconnect"}))
    assert sent == []


def test_a_client_that_has_gone_is_no_error(packages: list[Path]) -> None:
    app = create_app(packages[:1])

    async def receive() -> Message:
        return body(BODY)[0]

    async def send(message: Message) -> None:
        raise OSError("gone")

    asyncio.run(app(scope("POST", PREDICT), receive, send))


def test_headers_that_come_twice_are_one_list(packages: list[Path]) -> None:
    app = create_app(packages[1:2])
    many = json.dumps({"instances": [[0.5, 0.25]] * 9000}).encode()
    headers = [(b"Accept-Encoding", b"br"), (b"accept-encoding", b"gzip")]
    found = ask(app, scope("POST", "/v1/models/echo:predict", headers=headers), many)[1]
    assert found[b"content-encoding"] == b"gzip"
    key = b"a-key-for-tests-only"
    closed = create_app(packages[:1], options=ServeOptions(api_key=key.decode()))
    for keys, status in (([key], 200), ([key, b"x"], 401), ([b"\xff"], 401)):
        pairs = [(b"x-api-key", value) for value in keys]
        assert ask(closed, scope(path="/v2", headers=pairs))[0] == status


@pytest.mark.parametrize("path", ["/v2/health/ready", "/v2", "/v2/nowhere", "/nowhere"])
def test_head_has_no_body(packages: list[Path], path: str) -> None:
    app = create_app(packages[:1])
    status, headers, answer = ask(app, scope("HEAD", path))
    assert (status, answer) == (ask(app, scope("GET", path))[0], b"")
    assert b"content-length" not in headers


def test_websockets_are_closed(packages: list[Path]) -> None:
    app = create_app(packages[:1])
    sent = asyncio.run(drive(app, scope(type="websocket"), {"type": "websocket.connect"}))
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_unknown_scopes_are_refused(packages: list[Path]) -> None:
    with pytest.raises(ValueError, match="'mqtt'"):
        asyncio.run(drive(create_app(packages[:1]), {"type": "mqtt"}))


def test_lifespan(packages: list[Path]) -> None:
    app = create_app(packages[:1])
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = asyncio.run(drive(app, {"type": "lifespan"}, *messages))
    assert [m["type"] for m in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_lifespan_says_what_is_wrong(module_path: Path) -> None:
    app = create_app([module_path / "nowhere"])
    (sent,) = asyncio.run(drive(app, {"type": "lifespan"}, {"type": "lifespan.startup"}))
    assert sent["type"] == "lifespan.startup.failed"
    assert "package not found" in sent["message"]


def test_a_package_that_cannot_be_loaded_is_tried_again(
    module_path: Path, packages: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    place = module_path / "late"
    app = create_app([place])
    status, _, answer = ask(app, scope())
    assert (status, str(place) in answer.decode()) == (503, False)
    assert str(place) in caplog.text
    place.symlink_to(packages[0])
    assert ask(app, scope())[0] == 200


def test_load_loads_at_once(packages: list[Path], module_path: Path) -> None:
    app = create_app(packages[:1])
    app.load()
    assert ask(app, scope())[0] == 200
    with pytest.raises(NotFoundError):
        create_app([module_path / "nowhere"]).load()


@pytest.fixture(scope="module")
def slow(module_path: Path) -> Path:
    """A model that runs on threads, through the queue of a loop."""
    path = build_package(module_path / "slow", "slow", laborious(), None).path
    (model,) = load_app([path]).table.models
    assert model.batcher is not None
    assert not model.batcher.immediate
    return path


def slow_body(path: Path) -> tuple[str, bytes]:
    (spec,) = open_package(path).manifest.signature.inputs
    sizes = [size if isinstance(size, int) else 1 for size in spec.shape]
    rows = np.ones(sizes, spec.numpy_dtype).tolist()
    return "/v1/models/slow:predict", json.dumps({"instances": rows}).encode()


def test_every_request_in_a_loop_of_its_own(slow: Path) -> None:
    app = create_app([slow])
    path, document = slow_body(slow)
    answers = [ask(app, scope("POST", path), document) for _ in range(3)]
    assert [status for status, _, _ in answers] == [200] * 3
    assert len({answer for _, _, answer in answers}) == 1


def test_two_loops_at_once(slow: Path) -> None:
    """Two threads with a loop each; the second joins the queue of the first."""
    loaded = load_app([slow])
    app = Application(lambda: loaded)
    path, document = slow_body(slow)
    ready, done = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    async def first() -> None:
        await drive(app, scope(), *body(b""))
        ready.set()
        while not done.is_set():
            assert (await drive(app, scope("POST", path), *body(document)))[0]["status"] == 200

    def run(main: Callable[[], Any]) -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failures.append(error)
            ready.set()

    thread = threading.Thread(target=run, args=(first,))
    thread.start()
    try:
        assert ready.wait(LIMIT)
        for _ in range(5):
            assert ask(app, scope("POST", path), document)[0] == 200
    finally:
        done.set()
        thread.join(LIMIT)
    assert not failures
    (model,) = loaded.table.models
    assert sum(model.thread_counters.numbers[: len(CODES) + 1]) == 5


def test_importing_loads_nothing() -> None:
    code = (
        "import sys, modelport.serve.asgi as m; assert 'onnxruntime' not in sys.modules; "
        "app = m.app; assert app is m.app; assert 'onnxruntime' not in sys.modules; m.nothing"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert "AttributeError: module 'modelport.serve.asgi' has no attribute" in done.stderr
