"""gRPC server reflection, v1 and v1alpha: which services and messages there are.

Source: ``grpc/grpc``, ``doc/server-reflection.md``; ``grpc/grpc-proto``,
``grpc/reflection/v1/reflection.proto``. Both versions have the same messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, Final

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

from modelport.adapters import adapters_of
from modelport.core.errors import InputError, ModelportError
from modelport.core.options import ServeOptions
from modelport.core.tensors import Array
from modelport.serve.base import Call, ModelIdentity, Place, Request, Response, Route
from modelport.serve.protos import message, pool
from modelport.serve.statuses import status_of
from modelport.serve.table import ModelTable

_VERSIONS: Final = ("v1", "v1alpha")

#: ``grpc.StatusCode.NOT_FOUND`` and ``INVALID_ARGUMENT``, which reflection answers by number.
_NOT_FOUND: Final = 5
_INVALID: Final = 3


class GrpcReflection:
    """See the module."""

    name = "grpc-reflection"
    carrier = "grpc"
    prefix = "/grpc.reflection."

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """See `modelport.serve.base.WireProtocol.routes`."""
        paths = [
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            for version in _VERSIONS
        ]
        return [
            Route(
                "POST",
                re.compile(re.escape(path)),
                path,
                partial(_answer, options),
                by_path=False,
                stream=True,
            )
            for path in paths
        ]

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """See `modelport.serve.base.WireProtocol.place`."""
        kind = message(f"{_package(request)}.ServerReflectionRequest")
        try:
            request.message = kind.FromString(request.body)
        except DecodeError as error:
            raise InputError("the message cannot be read: it is damaged, or another") from error
        return Place()

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


def _package(request: Request) -> str:
    return request.path.split("/")[1].rpartition(".")[0]


def _answer(options: ServeOptions, table: ModelTable, place: Place, request: Request) -> Response:
    asked = request.message
    answer = message(f"{_package(request)}.ServerReflectionResponse")(valid_host=asked.host)
    answer.original_request.CopyFrom(asked)
    try:
        _fill(answer, asked, options)
    except KeyError as error:
        answer.error_response.error_code = _NOT_FOUND
        answer.error_response.error_message = f"not found: {error.args[0]}"
    return Response(200, answer.SerializeToString(), ())


def _fill(answer: Any, asked: Any, options: ServeOptions) -> None:
    """Answer what is asked; `KeyError` for what there is not."""
    kind = asked.WhichOneof("message_request")
    if kind == "list_services":
        for name in _services(options):
            answer.list_services_response.service.add(name=name)
    elif kind == "file_by_filename":
        _add_files(answer, pool().FindFileByName(asked.file_by_filename))
    elif kind == "file_containing_symbol":
        _add_files(answer, pool().FindFileContainingSymbol(asked.file_containing_symbol))
    elif kind == "file_containing_extension":
        extension = asked.file_containing_extension
        raise KeyError(f"extension {extension.extension_number} of {extension.containing_type}")
    elif kind == "all_extension_numbers_of_type":
        name = asked.all_extension_numbers_of_type
        pool().FindMessageTypeByName(name)
        answer.all_extension_numbers_response.base_type_name = name  # it has none
    else:
        answer.error_response.error_code = _INVALID
        answer.error_response.error_message = "nothing is asked"


def _add_files(answer: Any, file: Any) -> None:
    for one in _with_imports(file, set()):
        copy = descriptor_pb2.FileDescriptorProto()
        one.CopyToProto(copy)
        answer.file_descriptor_response.file_descriptor_proto.append(copy.SerializeToString())


def _with_imports(file: Any, seen: set[str]) -> Iterator[Any]:
    """A file and all that it needs, each once, the file itself first."""
    seen.add(file.name)
    yield file
    for other in file.dependencies:
        if other.name not in seen:
            yield from _with_imports(other, seen)


@cache
def _services(options: ServeOptions) -> list[str]:
    """The gRPC services of all protocols, by the paths of their methods."""
    paths = [
        route.example for adapter in adapters_of("rpc") for route in adapter.load().routes(options)
    ]
    return list(dict.fromkeys(path.split("/")[1] for path in paths))
