"""Events as AWS documents them, built from one plain request; every field that AWS sends is there.

`lambda_oracle.py` holds them against the data classes of aws-lambda-powertools.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Pairs = Sequence[tuple[str, str]]

_TIME = {"requestTime": "21/Nov/2026:11:00:00 +0000", "requestTimeEpoch": 1795258800000}


@dataclass(frozen=True)
class Plain:
    """A request as its client meant it: nothing encoded."""

    method: str = "GET"
    path: str = "/"
    query: Pairs = ()
    headers: Pairs = ()
    body: bytes = b""
    #: Null or absent wherever the source may say so, instead of empty.
    nulls: bool = False

    @property
    def is_text(self) -> bool:
        kind = dict(self.headers).get("content-type", "application/json")
        return kind.startswith(("text/", "application/json"))

    @property
    def encoded_query(self) -> str:
        return "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in self.query)


def _body(plain: Plain, empty: Any) -> dict[str, Any]:
    if not plain.body:
        return {"body": empty, "isBase64Encoded": False}
    if plain.is_text:
        return {"body": plain.body.decode(), "isBase64Encoded": False}
    return {"body": base64.b64encode(plain.body).decode(), "isBase64Encoded": True}


def _last(pairs: Pairs) -> dict[str, str]:
    return dict(pairs)


def _all(pairs: Pairs) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


def _comma(pairs: Pairs) -> dict[str, str]:
    return {name: ",".join(values) for name, values in _all(pairs).items()}


def _titled(pairs: Pairs) -> Pairs:
    """REST APIs keep the client's casing."""
    return [("-".join(part.capitalize() for part in k.split("-")), v) for k, v in pairs]


def rest(plain: Plain, *, base: str = "", resource: str = "/{proxy+}") -> dict[str, Any]:
    """API Gateway REST API; `base` is the base path mapping of a custom domain."""
    headers = _titled(plain.headers)
    null = None if plain.nulls else {}
    path = base + plain.path
    parameters = {"proxy": plain.path[1:]} if resource == "/{proxy+}" else None
    return {
        "resource": resource,
        "path": path,
        "httpMethod": plain.method,
        "headers": _last(headers) or null,
        "multiValueHeaders": _all(headers) or null,
        "queryStringParameters": _last(plain.query) or null,
        "multiValueQueryStringParameters": _all(plain.query) or null,
        "pathParameters": parameters,
        "stageVariables": None,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "id",
            "authorizer": None,
            "domainName": "ml.example.com" if base else "id.execute-api.eu-west-1.amazonaws.com",
            "extendedRequestId": "extended",
            "httpMethod": plain.method,
            "identity": {"sourceIp": "192.0.2.1", "userAgent": "agent"},
            "path": f"/prod{plain.path}",
            "protocol": "HTTP/1.1",
            "requestId": "request",
            "resourceId": "resource",
            "resourcePath": resource,
            "stage": "prod",
            **_TIME,
        },
        **_body(plain, None),
    }


def http_1(plain: Plain, *, stage: str = "$default") -> dict[str, Any]:
    """API Gateway HTTP API that is set to payload format 1.0."""
    event = rest(plain)
    front = "" if stage == "$default" else f"/{stage}"
    event["requestContext"] |= {"stage": stage, "path": front + plain.path}
    return {"version": "1.0", **event, "path": front + plain.path}


def http_2(
    plain: Plain, *, stage: str = "$default", base: str = "", route: str = "$default"
) -> dict[str, Any]:
    """API Gateway HTTP API, payload format 2.0; `base` is the mapping of a custom domain."""
    front = base or ("" if stage == "$default" else f"/{stage}")
    path = front + quote(plain.path, safe="/:")
    pairs = [(name.lower(), value) for name, value in plain.headers if name.lower() != "cookie"]
    cookies = [value for name, value in plain.headers if name.lower() == "cookie"]
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route,
        "rawPath": path,
        "rawQueryString": plain.encoded_query,
        "headers": _comma(pairs),
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "id",
            "domainName": "ml.example.com" if base else "id.execute-api.eu-west-1.amazonaws.com",
            "domainPrefix": "id",
            "http": {
                "method": plain.method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "agent",
            },
            "requestId": "request",
            "routeKey": route,
            "stage": stage,
            "time": "21/Nov/2026:11:00:00 +0000",
            "timeEpoch": 1795258800000,
        },
        **_body(plain, None),
    }
    if cookies:
        event["cookies"] = cookies
    if plain.query:
        event["queryStringParameters"] = _comma(plain.query)
    if "{proxy+}" in route:
        event["pathParameters"] = {"proxy": plain.path[1:]}
    if not plain.body and not plain.nulls:
        del event["body"]
    return event


def url(plain: Plain) -> dict[str, Any]:
    """A function URL."""
    event = http_2(plain)
    event["requestContext"] |= {
        "accountId": "anonymous",
        "authentication": None,
        "authorizer": None,
        "domainName": "id.lambda-url.eu-west-1.on.aws",
    }
    return event | {"pathParameters": None, "stageVariables": None}


def _elb(plain: Plain) -> dict[str, Any]:
    group = (
        "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/models/6d0ecf831eec9f09"
    )
    return {
        "requestContext": {"elb": {"targetGroupArn": group}},
        "httpMethod": plain.method,
        "path": quote(plain.path, safe="/:"),
    }


def _encoded(plain: Plain) -> Pairs:
    """A load balancer decodes no query."""
    return [(quote(name, safe=""), quote(value, safe="")) for name, value in plain.query]


def alb(plain: Plain) -> dict[str, Any]:
    """An Application Load Balancer."""
    pairs = [(name.lower(), value) for name, value in plain.headers]
    return {
        **_elb(plain),
        "queryStringParameters": _last(_encoded(plain)),
        "headers": _last(pairs),
        **_body(plain, ""),
    }


def alb_multi(plain: Plain) -> dict[str, Any]:
    """An Application Load Balancer whose target group has multi-value headers switched on."""
    pairs = [(name.lower(), value) for name, value in plain.headers]
    return {
        **_elb(plain),
        "multiValueQueryStringParameters": _all(_encoded(plain)),
        "multiValueHeaders": _all(pairs),
        **_body(plain, ""),
    }


#: The kinds of HTTP events, by name.
KINDS: dict[str, Callable[[Plain], dict[str, Any]]] = {
    "rest": rest,
    "http_1": http_1,
    "http_2": http_2,
    "url": url,
    "alb": alb,
    "alb_multi": alb_multi,
}


def body_of(answer: dict[str, Any]) -> bytes:
    """The body that a client gets, as the gateway decodes it."""
    assert isinstance(answer["body"], str), answer
    if answer["isBase64Encoded"]:
        return base64.b64decode(answer["body"], validate=True)
    return answer["body"].encode()


def headers_of(answer: dict[str, Any]) -> dict[str, str]:
    """The headers that a client gets."""
    several = answer.get("multiValueHeaders") or {}
    headers = dict(answer.get("headers") or {})
    assert all(isinstance(value, str) for value in headers.values()), headers
    return headers | {name: ", ".join(values) for name, values in several.items()}


def v2_binary(array: Any, datatype: str) -> tuple[bytes, Pairs]:
    """A V2 request with its one input, and its answer, as raw bytes."""
    raw = array.tobytes()
    document = {
        "inputs": [
            {
                "name": "x",
                "shape": list(array.shape),
                "datatype": datatype,
                "parameters": {"binary_data_size": len(raw)},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
    head = json.dumps(document).encode()
    headers = [
        ("content-type", "application/octet-stream"),
        ("Inference-Header-Content-Length", str(len(head))),
    ]
    return head + raw, headers
