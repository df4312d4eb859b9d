"""Are our synthetic events real ones, and do we read them as others do?

The data classes of aws-lambda-powertools parse every kind; mangum, a Lambda adapter for ASGI,
gives the same events to our ASGI application and must come to the same answers as our handler.

Usage: lambda_oracle.py PACKAGE...   (dense, echo)
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any
from urllib.parse import unquote

import numpy as np
from aws_lambda_powertools.utilities import data_classes
from lambda_events import KINDS, Plain, body_of, headers_of, v2_binary
from mangum import Mangum

from modelport.serve.asgi import create_app
from modelport.serve.awslambda import create_handler

CLASSES: dict[str, Any] = {
    "rest": data_classes.APIGatewayProxyEvent,
    "http_1": data_classes.APIGatewayProxyEvent,
    "http_2": data_classes.APIGatewayProxyEventV2,
    "url": data_classes.LambdaFunctionUrlEvent,
    "alb": data_classes.ALBEvent,
    "alb_multi": data_classes.ALBEvent,
}

ROWS = np.arange(16, dtype=np.float32).reshape(2, 8)
BINARY, BINARY_HEADERS = v2_binary(ROWS, "FP32")
JSON = [("content-type", "application/json")]

CASES = {
    "ready": Plain("GET", "/v2/health/ready"),
    "root": Plain("GET", "/"),
    "head": Plain("HEAD", "/v2/health/ready"),
    "nulls": Plain("GET", "/v2/models/dense", nulls=True),
    "json": Plain(
        "POST", "/v1/models/dense:predict", headers=JSON,
        body=json.dumps({"instances": ROWS.tolist()}).encode(),
    ),
    "nan": Plain(
        "POST", "/v1/models/echo:predict", headers=JSON,
        body=b'{"instances":[[NaN,Infinity],[-Infinity,1e300]]}',
    ),
    "binary": Plain("POST", "/v2/models/dense/infer", headers=BINARY_HEADERS, body=BINARY),
    "gzip": Plain(
        "POST", "/v1/models/echo:predict", headers=[*JSON, ("accept-encoding", "gzip")],
        body=json.dumps({"instances": [[0.1, 0.2]] * 9000}).encode(),
    ),
    "empty": Plain("POST", "/v1/models/dense:predict", headers=JSON),
    "not json": Plain("POST", "/v1/models/dense:predict", headers=JSON, body="[é".encode()),
    "unknown": Plain("GET", "/v2/models/nobody"),
    "no route": Plain("GET", "/nowhere/at all/ü"),
    "method": Plain("DELETE", "/v2/models/dense"),
    "query": Plain("GET", "/v2/models", query=[("a", "1 2"), ("a", "ü&="), ("b", "")]),
    "openapi": Plain("GET", "/openapi.json"),
    "cookies": Plain("GET", "/v2", headers=[("cookie", "a=1"), ("accept", "text/html, a/b")]),
}  # fmt: skip


def check_real(kind: str, plain: Plain, event: dict[str, Any]) -> None:
    """The oracle reads out of the event what we meant."""
    parsed = CLASSES[kind](event)
    assert parsed.http_method == plain.method, kind
    assert unquote(parsed.path) == plain.path, (kind, parsed.path)
    assert bool(parsed.is_base64_encoded) == bool(plain.body and not plain.is_text), kind
    if plain.body:
        body = parsed.body.encode() if plain.is_text else base64.b64decode(parsed.body)
        assert body == plain.body, kind
    headers = {k.lower(): v for k, v in parsed.resolved_headers_field.items()}
    for name, value in plain.headers:
        if name.lower() == "cookie" and kind in ("http_2", "url"):
            assert value in event["cookies"], kind
            continue
        found = headers[name.lower()]
        text = ",".join(found) if isinstance(found, list) else found
        assert text == value, (kind, name, found)


def comparable(answer: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
    headers = headers_of(answer)
    headers.pop("content-length", None)  # gateways compute it
    return answer["statusCode"], body_of(answer), headers


def main(packages: list[str]) -> None:
    ours = create_handler(packages)
    theirs = Mangum(create_app(packages), lifespan="off")
    for kind, build in KINDS.items():
        for name, plain in CASES.items():
            event = build(plain)
            json.dumps(event)
            check_real(kind, plain, event)
            reference = comparable(theirs(build(plain), None))
            mine = comparable(ours(event, None))
            assert mine == reference, f"{kind} {name}:\n{mine}\n{reference}"
            print(f"{kind} {name}: {mine[0]}, {len(mine[1])} bytes, as mangum has it")


if __name__ == "__main__":
    main(sys.argv[1:])
