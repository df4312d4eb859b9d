"""Real request objects of azure-functions through the Python worker's application.

Usage: functions_azure.py PACKAGE...   (dense, echo, bytes: in this order)
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import azure.functions as func
import numpy as np
from azure.functions.decorators.function_app import FunctionApp
from lambda_events import v2_binary

KEY = "a-key-for-tests-only"
ROWS = np.arange(16, dtype=np.float32).reshape(2, 8)
JSON = {"content-type": "application/json"}


def one_function(app: Any) -> Any:
    """The only function, as the worker indexes it."""
    assert isinstance(app, func.AsgiFunctionApp), app
    (function,) = app.get_functions()
    trigger = next(b for b in function.get_bindings() if b.type == "httpTrigger")
    assert trigger.route == "/{*route}", trigger.route
    assert trigger.auth_level is func.AuthLevel.FUNCTION, trigger.auth_level
    return function.get_user_function()


async def ask(
    function: Any, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> func.HttpResponse:
    url = f"https://models.azurewebsites.net{path}"
    request = func.HttpRequest(method, url, headers=headers, body=body)
    response = await function(request, None)
    assert isinstance(response, func.HttpResponse), response
    return response


async def answers(function: Any) -> None:
    for front in ("/api", ""):  # the route prefix of host.json, or an empty one
        body = json.dumps({"instances": ROWS.tolist()}).encode()
        response = await ask(function, "POST", f"{front}/v1/models/dense:predict", body, JSON)
        assert (response.status_code, response.mimetype) == (200, "application/json")
        wanted = np.array(json.loads(response.get_body())["predictions"], np.float32)

        binary, pairs = v2_binary(ROWS, "FP32")
        path = f"{front}/v2/models/dense/infer"
        response = await ask(function, "POST", path, binary, dict(pairs))
        size = int(response.headers["inference-header-content-length"])
        assert response.status_code == 200, response.get_body()
        got = np.frombuffer(response.get_body()[size:], np.float32).reshape(2, 1)
        assert np.array_equal(got, wanted)

        for method, path, body, status in (
            ("GET", "/v2/health/ready", b"", 200),
            ("HEAD", "/v2/health/ready", b"", 200),
            ("GET", "/", b"", 200),
            ("GET", "/v2/models/dense?x=1", b"", 200),
            ("GET", "/v2/models/%64ense", b"", 200),
            ("GET", "/nowhere", b"", 404),
            ("POST", "/v1/models/dense:predict", b"", 400),
            ("POST", "/v1/models/dense:predict", b"\xff\x00", 400),
        ):
            response = await ask(function, method, front + path, body)
            assert response.status_code == status, (front, path, response.get_body())
        print(f"worker: JSON, binary, errors below {front or '/'}")
    response = await ask(function, "GET", "/api")
    assert response.status_code == 200
    many = [ask(function, "POST", "/api/v1/models/dense:predict", body, JSON) for _ in range(20)]
    for response in await asyncio.gather(*many):
        assert response.status_code == 400, response.get_body()  # `body` is no JSON here
    print("worker: 20 at once")


async def guard(packages: list[str]) -> None:
    from modelport.core.options import ServeOptions
    from modelport.serve.embed import load_app
    from modelport.serve.functions import create_function_app

    options = ServeOptions(api_key=KEY)
    routes = [route for _, route in load_app(packages, options).routes]
    function = one_function(create_function_app(packages, options=options))
    for route in routes:
        path = "/api" + route.example.format(model="dense")
        response = await ask(function, route.method, path, b"{}", JSON)
        status = response.status_code
        assert (status != 401) if route.health else (status == 401), (route, status)
    response = await ask(function, "GET", "/api/v2", headers={"X-Api-Key": KEY})
    assert response.status_code == 200
    print(f"worker: {len(routes)} routes refuse without the key")


async def main(packages: list[str]) -> None:
    os.environ["MODELPORT_MODELS"] = os.pathsep.join(packages)
    from modelport.serve.functions import create_function_app, function_app

    assert isinstance(function_app, FunctionApp | func.AsgiFunctionApp)
    await answers(one_function(function_app))
    await guard(packages)
    missing = create_function_app([packages[0] + "-nowhere"])
    try:
        await ask(one_function(missing), "GET", "/api/v2")
    except RuntimeError as error:
        print(f"worker: a missing model fails the invocation: {error}")  # and logs the cause
    else:
        raise AssertionError("a missing model was served")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
