"""gRPC health checking: of the server, of its gRPC services, and of its models.

Source: ``grpc/grpc``, ``doc/health-checking.md``; ``grpc/grpc-proto``,
``grpc/health/v1/health.proto``. The service is the empty name (the whole server), a gRPC
service's name, or a model's name: the document leaves the names to the server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, Final

from google.protobuf.message import DecodeError

from modelport.adapters import adapters_of
from modelport.core.errors import InputError, ModelportError, NotFoundError
from modelport.core.options import ServeOptions
from modelport.core.tensors import Array
from modelport.serve.base import Answer, Call, ModelIdentity, Place, Request, Response, Route
from modelport.serve.protos import message
from modelport.serve.statuses import status_of
from modelport.serve.table import ModelTable

_SERVICE: Final = "grpc.health.v1.Health"

_SERVING: Final = "SERVING"
_NOT_SERVING: Final = "NOT_SERVING"
_UNKNOWN: Final = "SERVICE_UNKNOWN"


class GrpcHealth:
    """See the module."""

    name = "grpc-health"
    carrier = "grpc"
    prefix = f"/{_SERVICE.lower()}/"

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        answers: dict[str, Answer] = {
            "Check": partial(_check, options),
            "Watch": partial(_watch, options),
            "List": partial(_list, options),
        }
        return [
            Route(
                "POST",
                re.compile(re.escape(f"/{_SERVICE}/{name}")),
                f"/{_SERVICE}/{name}",
                answer,
                by_path=False,
                health=True,
                watch=name == "Watch",
            )
            for name, answer in answers.items()
        ]

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        # A list's request is empty: every message can be read as one.
        kind = message("grpc.health.v1.HealthCheckRequest")
        try:
            request.message = kind.FromString(request.body)
        except DecodeError as error:
            raise InputError("the message cannot be read: it is damaged, or another") from error
        return Place(request.message.service)

    def decode(self, request: Request, model: ModelIdentity) -> Call:
        """See `modelport.serve.base.WireProtocol.decode`; there is no inference here."""
        raise NotImplementedError

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """See `modelport.serve.base.WireProtocol.encode`; there is no inference here."""
        raise NotImplementedError

    def error(self, error: ModelportError) -> Response:
        """See `modelport.serve.base.WireProtocol.error`."""
        return Response(status_of(error), error.line.encode(), ())

    def no_route(self, request: Request, methods: Sequence[str]) -> Response:
        """See `modelport.serve.base.WireProtocol.no_route`."""
        return Response(501, f"no such method: {request.path[:200]}".encode(), ())

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """See `modelport.serve.base.WireProtocol.operation`."""
        return {}


def _check(options: ServeOptions, table: ModelTable, place: Place, request: Request) -> Response:
    name = request.message.service
    status = _status(table, options, name)
    if status == _UNKNOWN:
        raise NotFoundError("service", name, [*_services(options), *table.names])
    return _response(status)


def _watch(options: ServeOptions, table: ModelTable, place: Place, request: Request) -> Response:
    """What `Check` says; a name that nobody knows may come to be one."""
    return _response(_status(table, options, request.message.service))


def _list(options: ServeOptions, table: ModelTable, place: Place, request: Request) -> Response:
    answer = message("grpc.health.v1.HealthListResponse")()
    for name in ("", *_services(options), *table.names):
        answer.statuses[name].status = _number(_status(table, options, name))
    return Response(200, answer.SerializeToString(), ())


def _response(status: str) -> Response:
    answer = message("grpc.health.v1.HealthCheckResponse")(status=_number(status))
    return Response(200, answer.SerializeToString(), ())


def _number(status: str) -> int:
    number: int = message("grpc.health.v1.HealthCheckResponse").ServingStatus.Value(status)
    return number


def _status(table: ModelTable, options: ServeOptions, name: str) -> str:
    if not name or name in _services(options):
        serving = table.ready()
    elif name in table.names:
        serving = any(table.model_ready(model) for model in table.versions(name))
    else:
        return _UNKNOWN
    return _SERVING if serving else _NOT_SERVING


@cache
def _services(options: ServeOptions) -> list[str]:
    """The gRPC services of all protocols, by the paths of their methods."""
    paths = [
        route.example for adapter in adapters_of("rpc") for route in adapter.load().routes(options)
    ]
    return list(dict.fromkeys(path.split("/")[1] for path in paths))
