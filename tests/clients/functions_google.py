"""Google's functions framework runs `modelport.serve.functions.http`, under gunicorn.

Usage: functions_google.py PACKAGE...   (dense, echo, bytes: in this order)
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from asgi_process import Running, chunks, running
from lambda_events import v2_binary

from modelport.core.options import ServeOptions
from modelport.serve.embed import load_app

KEY = "a-key-for-tests-only"
ROWS = np.arange(16, dtype=np.float32).reshape(2, 8)
BODY = json.dumps({"instances": ROWS.tolist()}).encode()
JSON = {"content-type": "application/json"}
COMMAND = [sys.executable, "-m", "functions_framework", "--target=http", "--host=127.0.0.1"]
COMMAND += ["--port={port}"]


def answers(server: Running) -> None:
    assert server.ask("GET", "/v2/health/ready")[0] == 200
    status, headers, body = server.ask("POST", "/v1/models/dense:predict", BODY, JSON)
    assert (status, headers["content-type"]) == (200, "application/json"), body
    wanted = np.array(json.loads(body)["predictions"], np.float32)
    assert (
        server.ask("POST", "/v1/models/dense:predict", chunks([BODY[:9], BODY[9:]]), JSON)[2]
        == body
    )

    binary, pairs = v2_binary(ROWS, "FP32")
    status, headers, answer = server.ask("POST", "/v2/models/dense/infer", binary, dict(pairs))
    size = int(headers["inference-header-content-length"])
    assert status == 200, answer
    assert np.array_equal(np.frombuffer(answer[size:], np.float32).reshape(2, 1), wanted)
    print("JSON, chunks, binary")

    for method, path, body, expected in (
        ("HEAD", "/v2/health/ready", None, 200),
        ("GET", "/", None, 200),
        ("GET", "/v2/models/%64ense?x=%20", None, 200),
        ("GET", "/nowhere", None, 404),
        ("DELETE", "/v2/models/dense", None, 405),
        ("POST", "/v1/models/dense:predict", b"", 400),
        ("POST", "/v1/models/dense:predict", b"\xff\x00", 400),
        ("POST", "/v1/models/dense:predict", b" " * 200_001, 413),
        ("POST", "/v1/models/dense:predict", chunks([b" " * 150_000] * 2), 413),
    ):
        status, _, answer = server.ask(method, path, body, JSON)
        assert status == expected, (method, path, status, answer)
        print(f"{method} {path}: {status}")
    head = server.ask("POST", "/v1/models/echo:predict", b'{"instances":[[NaN,1]]}', JSON)
    assert head[2] == b'{"predictions":[[NaN,1.0]]}', head
    assert "Traceback" not in server.log(), server.log()


def main(packages: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        code = "from modelport.serve.functions import http\n"
        Path(folder, "main.py").write_text(code, encoding="utf-8")
        models = os.pathsep.join(packages)
        shared = {"folder": folder, "MODELPORT_MODELS": models}
        # More than one worker: they are forked after `main` was imported.
        with running(COMMAND, **shared, WORKERS="2", MODELPORT_MAX_BODY="200000") as server:
            answers(server)
        routes = [route for _, route in load_app(packages, ServeOptions(api_key=KEY)).routes]
        with running(COMMAND, **shared, MODELPORT_API_KEY=KEY) as server:
            for route in routes:
                path = route.example.format(model="dense")
                status, _, body = server.ask(route.method, path, b"{}", JSON)
                assert (status != 401) if route.health else (status == 401), (route, body)
            assert server.ask("GET", "/v2", None, {"X-Api-Key": KEY})[0] == 200
            assert server.ask("GET", "/v2/health/ready")[0] == 200
            print(f"{len(routes)} routes refuse without the key")
        missing = {"folder": folder, "MODELPORT_MODELS": models + "-nowhere"}
        with running(COMMAND, **missing) as server:
            status, _, body = server.ask("GET", "/v2/health/ready")
            assert (status, b"nowhere" in body) == (503, False), body
            assert "package not found" in server.log(), server.log()
            print("a missing model: 503, the cause in the log alone")


if __name__ == "__main__":
    main(sys.argv[1:])
