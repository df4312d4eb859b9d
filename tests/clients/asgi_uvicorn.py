"""uvicorn serves `modelport.serve.asgi:app`, and a FastAPI application with ours mounted in it.

Usage: asgi_uvicorn.py PACKAGE...   (dense, echo, bytes: in this order)
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from pathlib import Path

import numpy as np
from asgi_process import LIMIT, Running, chunks, running
from lambda_events import v2_binary

from modelport.core.options import ServeOptions
from modelport.serve.embed import load_app

KEY = "a-key-for-tests-only"
UVICORN = [sys.executable, "-m", "uvicorn", "--port", "{port}", "--log-level", "warning"]
ROWS = np.arange(16, dtype=np.float32).reshape(2, 8)
BODY = json.dumps({"instances": ROWS.tolist()}).encode()
JSON = {"content-type": "application/json"}

FASTAPI = """
from fastapi import FastAPI
from modelport.serve.asgi import create_app

app = FastAPI()

@app.get("/hello")
def hello() -> dict[str, str]:
    return {"hello": "world"}

app.mount("/ml/models", create_app(PACKAGES))
"""


def answers(server: Running, front: str = "") -> None:
    """What every server must bring there and back."""
    status, headers, body = server.ask("POST", f"{front}/v1/models/dense:predict", BODY, JSON)
    assert (status, headers["content-type"]) == (200, "application/json"), body
    assert headers["content-length"] == str(len(body))
    wanted = np.array(json.loads(body)["predictions"], np.float32)

    binary, pairs = v2_binary(ROWS, "FP32")
    path = f"{front}/v2/models/dense/infer"
    status, headers, answer = server.ask("POST", path, binary, dict(pairs))
    size = int(headers["inference-header-content-length"])
    assert status == 200, answer
    assert np.array_equal(np.frombuffer(answer[size:], np.float32).reshape(2, 1), wanted)

    parts = chunks([BODY[:10], b"", BODY[10:20], BODY[20:]])
    assert server.ask("POST", f"{front}/v1/models/dense:predict", parts, JSON)[2] == body
    encoded = f"{front}/v1/models/%64ense:predict?x=%20"
    assert server.ask("POST", encoded, BODY, JSON)[2] == body

    status, headers, head = server.ask("HEAD", f"{front}/v2/health/ready")
    assert (status, head) == (200, b"")
    status, headers, head = server.ask("HEAD", f"{front}/v2/nowhere")
    assert (status, head) == (404, b"")
    for method, path, expected in (
        ("GET", "/v2/health/ready", 200),
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/v2/models/%2564ense", 404),  # decoded once, not twice
        ("DELETE", "/v2/models/dense", 405),
        ("POST", "/v1/models/dense:predict", 400),
    ):
        status, _, body = server.ask(method, front + path)
        assert status == expected, (method, path, status, body)
    request = {"accept-encoding": "gzip", **JSON}
    many = json.dumps({"instances": [[0.5, 0.25]] * 9000}).encode()
    _, headers, zipped = server.ask("POST", f"{front}/v1/models/echo:predict", many, request)
    assert headers["content-encoding"] == "gzip", headers
    assert len(zipped) < len(many) // 10
    print(f"{front or '/'}: JSON, binary, chunks, escapes, HEAD, errors, gzip")


def limits(packages: str) -> None:
    with running(
        [*UVICORN, "modelport.serve.asgi:app"],
        MODELPORT_MODELS=packages,
        MODELPORT_MAX_BODY="100000",
        MODELPORT_BODY_TIMEOUT="0.5",
    ) as server:
        path = "/v1/models/dense:predict"
        status, _, body = server.ask("POST", path, b" " * 100_001, JSON)
        assert (status, "100001" in body.decode()) == (413, True), body
        status, _, body = server.ask("POST", path, chunks([b" " * 60_000] * 2), JSON)
        assert status == 413, body
        with socket.create_connection(("127.0.0.1", server.port), LIMIT) as connection:
            # 413 comes although none of the announced terabyte ever does.
            announced = b"content-length: 1000000000000\r\n\r\n"
            connection.sendall(b"POST %b HTTP/1.1\r\nhost: x\r\n%b" % (path.encode(), announced))
            assert connection.recv(100).startswith(b"HTTP/1.1 413"), "413"
        with socket.create_connection(("127.0.0.1", server.port), LIMIT) as connection:
            slow = b"content-length: 10\r\n\r\n[1"
            connection.sendall(b"POST %b HTTP/1.1\r\nhost: x\r\n%b" % (path.encode(), slow))
            assert connection.recv(100).startswith(b"HTTP/1.1 408"), "408"
        with socket.create_connection(("127.0.0.1", server.port), LIMIT) as connection:
            connection.sendall(b"POST %b HTTP/1.1\r\nhost: x\r\n%b" % (path.encode(), slow))
        upgrade = {
            "connection": "upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }
        assert server.ask("GET", "/v2", None, upgrade)[0] in (200, 403)
        assert server.ask("POST", path, BODY, JSON)[0] == 200
        assert "Traceback" not in server.log(), server.log()
        print("limits: too large, too slow, gone; WebSocket")


def guard(packages: list[str]) -> None:
    routes = [route for _, route in load_app(packages, ServeOptions(api_key=KEY)).routes]
    command = [*UVICORN, "modelport.serve.asgi:app"]
    models = os.pathsep.join(packages)
    with running(command, MODELPORT_MODELS=models, MODELPORT_API_KEY=KEY) as server:
        for route in routes:
            path = route.example.format(model="dense")
            status, headers, body = server.ask(route.method, path, b"{}", JSON)
            assert (status != 401) if route.health else (status == 401), (route, status, body)
            if status == 401:
                assert headers["www-authenticate"] == "Bearer"
        large = server.ask("POST", "/v1/models/dense:predict", chunks([b"[" * 70_000]), JSON)
        assert large[0] == 401
        for name, value in (("authorization", f"Bearer {KEY}"), ("X-Api-Key", KEY)):
            assert server.ask("GET", "/v2", None, {name: value})[0] == 200
        assert server.ask("GET", "/v2", None, {"x-api-key": KEY[:-1]})[0] == 401
        print(f"guard: {len(routes)} routes refuse without the key")


def mounted(packages: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        code = FASTAPI.replace("PACKAGES", repr(packages))
        Path(folder, "shop.py").write_text(code, encoding="utf-8")
        with running([*UVICORN, "shop:app"], folder=folder) as server:
            assert server.ask("GET", "/hello")[2] == b'{"hello":"world"}'
            answers(server, "/ml/models")
            assert server.ask("GET", "/ml/models")[0] in (200, 307)
            assert server.ask("GET", "/v2/health/ready")[0] == 404  # FastAPI's own
        broken = code.replace(packages[0], packages[0] + "-nowhere")
        Path(folder, "shop.py").write_text(broken, encoding="utf-8")
        with running([*UVICORN, "shop:app"], folder=folder) as server:
            assert server.ask("GET", "/hello")[0] == 200
            status, _, body = server.ask("GET", "/ml/models/v2/health/ready")
            assert (status, "nowhere" in body.decode()) == (503, False), body
            assert "package not found" in server.log(), server.log()
            print("mounted, and the model is missing: 503, the cause in the log alone")


def start(packages: str) -> None:
    command = [*UVICORN, "modelport.serve.asgi:app"]
    with running(command, wait=False, MODELPORT_MODELS=packages + "-nowhere") as server:
        assert server.process.wait(LIMIT) != 0
        assert "package not found" in server.log(), server.log()
        assert "Traceback" not in server.log(), server.log()
        print("lifespan: a missing model ends the server, and it says why")
    # A folder of one's own in front, as a reverse proxy has it.
    with running([*command, "--root-path", "/front"], MODELPORT_MODELS=packages) as server:
        assert server.ask("GET", "/v2/health/ready")[0] == 200
        print("root path of the server")


def main(packages: list[str]) -> None:
    joined = os.pathsep.join(packages)
    with running([*UVICORN, "modelport.serve.asgi:app"], MODELPORT_MODELS=joined) as server:
        answers(server)
        assert server.ask("GET", "/v2/health/ready")[0] == 200  # loaded by the lifespan
    mounted(packages)
    limits(joined)
    guard(packages)
    start(joined)


if __name__ == "__main__":
    main(sys.argv[1:])
