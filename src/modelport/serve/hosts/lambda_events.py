"""The events by which AWS Lambda brings HTTP requests, and what each source expects back.

Sources: AWS Lambda developer guide ("Invoking a Lambda function using an Amazon API Gateway
endpoint", "Lambda function URLs", "Lambda quotas"), API Gateway developer guide ("Working with
AWS Lambda proxy integrations for HTTP APIs"), ELB user guide ("Lambda functions as targets").
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.core.options import MIB
from modelport.serve.base import Request, Response
from modelport.serve.hosts.envelopes import clean, joined, text_of
from modelport.serve.hosts.gateway_paths import inner_path, query_of

Event = Mapping[str, Any]
Reply = dict[str, Any]

#: Bytes of the JSON document that a function may answer, as Lambda's own error message says it.
LARGEST: Final = 6 * MIB + 100
#: The same of a load balancer.
_LARGEST_ALB: Final = MIB
#: JSON writes no byte of UTF-8 as more than this many.
_WORST_ESCAPE: Final = 6

#: Where a custom domain or a listener's rule puts the function.
BASE_PATH_VARIABLE: Final = "MODELPORT_BASE_PATH"


@dataclass(frozen=True)
class Source:
    """One kind of HTTP event.

    Parameters
    ----------
    read : callable
        The request of an event, without its body.
    write : callable
        What the source expects, given the event, the answer, and its body as a string.
    largest : int
        Bytes that it passes on.
    """

    read: Callable[[Event], Request]
    write: Callable[[Event, Response, str], Reply]
    largest: int = LARGEST

    def reply(self, event: Event, response: Response) -> Reply:
        """The answer to an event; binary bodies in base64."""
        text = text_of(response)
        body = base64.b64encode(response.body).decode() if text is None else text
        return self.write(event, response, body) | {"isBase64Encoded": text is None}

    def is_over(self, reply: Reply) -> bool:
        """Whether a reply is too large to be passed on."""
        # Only large answers are written twice to be measured.
        if len(reply["body"]) * 2 * _WORST_ESCAPE < self.largest:
            return False
        return len(json.dumps(reply)) > self.largest


def source_of(event: Any) -> Source | None:
    """What sent an event; None where it is no HTTP request."""
    if not isinstance(event, Mapping):
        return None
    context = _mapping(event, "requestContext")
    if "elb" in context:
        return _ALB
    if isinstance(context.get("http"), Mapping):
        return _PAYLOAD_2
    return _PAYLOAD_1 if isinstance(event.get("httpMethod"), str) else None


def _read_1(event: Event) -> Request:
    """API Gateway REST APIs, and HTTP APIs with payload 1.0."""
    context = _mapping(event, "requestContext")
    path = inner_path(
        clean(event.get("path") or "/"),
        template=clean(event.get("resource") or ""),
        parameters=_mapping(event, "pathParameters"),
        # REST APIs leave the stage out, HTTP APIs do not.
        stage=_stage(context) if "version" in event else "",
        base=os.environ.get(BASE_PATH_VARIABLE, ""),
    )
    values = _several(event, "QueryStringParameters", "queryStringParameters")
    return _made(event["httpMethod"], path, _headers(event), query_of(values))


def _read_2(event: Event) -> Request:
    """API Gateway HTTP APIs with payload 2.0, and function URLs."""
    context = _mapping(event, "requestContext")
    http = context["http"]
    path = inner_path(
        clean(event.get("rawPath") or http.get("path") or "/"),
        template=clean(event.get("routeKey") or "").partition(" ")[2],
        parameters=_mapping(event, "pathParameters"),
        stage=_stage(context),
        base=os.environ.get(BASE_PATH_VARIABLE, ""),
    )
    headers = _headers(event)
    if isinstance(cookies := event.get("cookies"), list):
        headers["cookie"] = "; ".join(clean(cookie) for cookie in cookies)
    return _made(http.get("method", "GET"), path, headers, event.get("rawQueryString") or "")


def _read_alb(event: Event) -> Request:
    base = os.environ.get(BASE_PATH_VARIABLE, "")
    path = inner_path(clean(event.get("path") or "/"), base=base)
    values = _several(event, "QueryStringParameters", "queryStringParameters")
    query = "&".join(f"{name}={value}" for name, value in values)  # it is still encoded
    return _made(event.get("httpMethod", "GET"), path, _headers(event), query)


def _made(method: object, path: str, headers: dict[str, str], query: object) -> Request:
    return Request(clean(method).upper(), path, headers, b"", clean(query))


def _write_1(event: Event, response: Response, body: str) -> Reply:
    values = _by_name(response)
    reply: Reply = {
        "statusCode": response.status,
        "headers": {name: items[0] for name, items in values.items() if len(items) == 1},
        "body": body,
    }
    several = {name: items for name, items in values.items() if len(items) > 1}
    return reply | ({"multiValueHeaders": several} if several else {})


def _write_2(event: Event, response: Response, body: str) -> Reply:
    values = _by_name(response)
    cookies = values.pop("set-cookie", [])
    reply: Reply = {
        "statusCode": response.status,
        "headers": {name: ",".join(items) for name, items in values.items()},
        "body": body,
    }
    return reply | ({"cookies": cookies} if cookies else {})


def _write_alb(event: Event, response: Response, body: str) -> Reply:
    values = _by_name(response)
    # The target group is set to one of the two, and takes no other.
    if "multiValueHeaders" in event:
        headers: Reply = {"multiValueHeaders": values}
    else:
        headers = {"headers": {name: ", ".join(items) for name, items in values.items()}}
    description = f"{response.status} {HTTPStatus(response.status).phrase}"
    return {
        "statusCode": response.status,
        "statusDescription": description,
        "body": body,
        **headers,
    }


_PAYLOAD_1: Final = Source(_read_1, _write_1)
_PAYLOAD_2: Final = Source(_read_2, _write_2)
_ALB: Final = Source(_read_alb, _write_alb, _LARGEST_ALB)


def body_of(event: Event) -> bytes:
    """The body's bytes.

    Raises
    ------
    InputError
        When it is no string, or not the base64 that it says it is.
    """
    body = event.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise InputError(f"the event's body is a {type(body).__name__}, expected a string or null")
    try:
        if event.get("isBase64Encoded"):
            return base64.b64decode(body, validate=True)
        return body.encode()
    except (binascii.Error, ValueError) as error:
        raise InputError(f"the event's body cannot be read: {error}") from error


def _headers(event: Event) -> dict[str, str]:
    return joined(_several(event, "Headers", "headers"))


def _several(event: Event, many: str, one: str) -> list[tuple[str, str]]:
    """Pairs of the ``multiValue…`` map, and of the plain one what that has not."""
    listed = _mapping(event, f"multiValue{many}")
    pairs = [
        (clean(name), clean(value))
        for name, values in listed.items()
        for value in (values if isinstance(values, list) else [])
    ]
    known = {name.lower() for name in listed}
    single = _mapping(event, one)
    return pairs + [
        (clean(name), clean(value))
        for name, value in single.items()
        if value is not None and name.lower() not in known
    ]


def _by_name(response: Response) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in response.headers:
        values.setdefault(name, []).append(value)
    return values


def _mapping(event: Event, key: str) -> Mapping[str, Any]:
    """A part of an event that may be absent or null."""
    value = event.get(key)
    return value if isinstance(value, Mapping) else {}


def _stage(context: Mapping[str, Any]) -> str:
    """The stage, where the path begins with it: not below a domain name of one's own."""
    stage = clean(context.get("stage") or "")
    domain = clean(context.get("domainName") or "")
    custom = domain and ".execute-api." not in domain
    return "" if custom or stage == "$default" else stage
