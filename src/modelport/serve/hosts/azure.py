"""The host of Azure Functions: its route prefix, and the JSON that it wraps invocations in.

A custom handler is a program that the host starts and asks over HTTP. ``modelport serve`` is one:
it listens on ``FUNCTIONS_CUSTOMHANDLER_PORT`` and answers through `CustomHandler`, whether the
host passes requests on (``enableProxyingHttpRequest``) or wraps them up.

Sources: Azure Functions documentation ("Azure Functions custom handlers"), and the host's own
``WebJobs.Script/Workers/Http`` for what it sends and insists on.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from modelport.core.errors import InputError, ModelportError, NotAcceptableError
from modelport.serve.app import App
from modelport.serve.base import Request, Response
from modelport.serve.hosts.envelopes import bare_request, clean, joined, text_of
from modelport.serve.hosts.gateway_paths import without_front

#: How the host's settings come to a handler: ``extensions.http.routePrefix`` of ``host.json`` as
#: an application setting. The host's own default is ``api``.
PREFIX_VARIABLE: Final = "AzureFunctionsJobHost__extensions__http__routePrefix"
_PREFIX: Final = "api"

#: Bodies of these types are base64 inside the host's JSON, all others are strings.
_BYTES: Final = ("application/octet-stream", "multipart/")


class PrefixedApp(App):
    """The request path below the host's route prefix, ``/api`` unless it is set otherwise."""

    def handle(self, request: Request) -> Awaitable[Response]:
        """See `App.handle`."""
        return super().handle(_inside(request))

    def answer(self, request: Request) -> Response:
        """See `App.answer`."""
        return super().answer(_inside(request))

    def refuse(self, request: Request, error: ModelportError) -> Response:
        """See `App.refuse`."""
        return super().refuse(_inside(request), error)


class CustomHandler(PrefixedApp):
    """The request path of a custom handler.

    With ``enableProxyingHttpRequest`` the host passes requests on as they came. Otherwise, and
    for triggers that are not HTTP, it sends ``POST /FUNCTION`` with ``{"Data", "Metadata"}`` and
    expects ``{"Outputs", "Logs", "ReturnValue"}``; the HTTP output must be called ``res``.
    """

    def handle(self, request: Request) -> Awaitable[Response]:
        """See `App.handle`."""
        data = _data_of(request)
        return super().handle(request) if data is None else self._invoked(data)

    def before_body(self, request: Request, size: int | None) -> Response | None:
        """See `App.before_body`."""
        if request.method == "POST" and request.path.count("/") == 1 and size is not None:
            # It may be the host's, with the client's key inside.
            return self.too_large(request, size) if size > self.max_body else None
        return super().before_body(request, size)

    async def _invoked(self, data: Mapping[str, Any]) -> Response:
        trigger = next((_Trigger(i) for i in data.values() if _is_request(i)), None)
        if trigger is None:
            return await self._bare(data)
        request = Request("POST", "/", {}, b"")
        try:
            request = trigger.request()
            body = trigger.body(request)
        except ModelportError as error:
            return _wrapped(self.refuse(request, error))
        refused = self.too_large(request, len(body)) if len(body) > self.max_body else None
        request.body = body
        response = refused or await super().handle(request)
        if text_of(response) is None:
            refusal = NotAcceptableError(
                "binary answers cannot pass through the host's JSON; switch "
                "enableProxyingHttpRequest on in host.json"
            )
            response = self.refuse(request, refusal)
        return _wrapped(response)

    async def _bare(self, data: Mapping[str, Any]) -> Response:
        """A trigger that is not HTTP: a message is the document, the answer the return value.

        An error's status is the invocation's own, so that the host retries, or gives up.
        """
        try:
            request = bare_request(_message_of(data), self.table.names)
        except ModelportError as error:
            return self.refuse(Request("POST", "/", {}, b""), error)
        response = await super().handle(request)
        text = text_of(response)
        if response.status >= 400 or text is None:
            return response
        return _document({"Outputs": {}, "Logs": None, "ReturnValue": json.loads(text)})


@dataclass(frozen=True)
class _Trigger:
    """An HTTP request as the host writes it into JSON."""

    fields: Mapping[str, Any]

    def request(self) -> Request:
        """The request without its body.

        Raises
        ------
        InputError
        """
        try:
            url = urlsplit(clean(self.fields["Url"]))
        except ValueError as error:
            raise InputError(f"Url cannot be read: {error}", where="Data") from error
        headers = self.fields.get("Headers")
        pairs = [
            (clean(name), clean(value))
            for name, values in (headers.items() if isinstance(headers, Mapping) else ())
            for value in (values if isinstance(values, list) else [values])
        ]
        method = clean(self.fields["Method"]).upper()
        return Request(method, unquote(url.path) or "/", joined(pairs), b"", url.query)

    def body(self, request: Request) -> bytes:
        """The body's bytes.

        Raises
        ------
        InputError
        """
        body = self.fields.get("Body")
        if body is None:
            return b""
        if not isinstance(body, str):
            return json.dumps(body).encode()
        try:
            if request.headers.get("content-type", "").strip().lower().startswith(_BYTES):
                return base64.b64decode(body, validate=True)
            return body.encode()
        except (binascii.Error, ValueError) as error:
            raise InputError(f"the body cannot be read: {error}", where="Data") from error


def _inside(request: Request) -> Request:
    prefix = os.environ.get(PREFIX_VARIABLE, _PREFIX)
    path = without_front(request.path, prefix)
    return request if path == request.path else replace(request, path=path)


def _data_of(request: Request) -> Mapping[str, Any] | None:
    """What the host wrapped up; None when this is no envelope of its."""
    if (
        request.method != "POST"
        or request.path.count("/") != 1
        or b'"Metadata"' not in request.body
    ):
        return None
    try:
        document = json.loads(request.body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not {"Data", "Metadata"} <= document.keys():
        return None
    data = document["Data"]
    return data if isinstance(data, dict) else None


def _is_request(item: Any) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("Url"), str) and "Method" in item


def _message_of(data: Mapping[str, Any]) -> Any:
    """The message of a queue or the like: the host writes it as JSON, perhaps twice."""
    if len(data) != 1:
        raise InputError(f"the invocation brings {len(data)} inputs, expected one", where="Data")
    ((name, message),) = data.items()
    for _ in range(2):
        if isinstance(message, str):
            try:
                message = json.loads(message)
            except (ValueError, RecursionError) as error:
                raise InputError(f"not JSON: {error}", where=f"Data.{clean(name)}") from error
    return message


def _wrapped(response: Response) -> Response:
    # The host insists on all four keys.
    status = str(response.status)
    answer = {
        "statusCode": status,
        "status": f"{status} {HTTPStatus(response.status).phrase}",
        "headers": joined(response.headers),
        "body": text_of(response) or "",
    }
    return _document({"Outputs": {"res": answer}, "Logs": None, "ReturnValue": None})


def _document(value: Any) -> Response:
    return Response(200, json.dumps(value).encode())
