"""The values that pass along the request path, and what a protocol and a transport do.

::

    transport (bytes) → App.handle → protocol.decode → signature check → batcher → engine
                                   ← protocol.encode ←
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from modelport.core.errors import ModelportError
from modelport.core.options import ServeOptions
from modelport.core.signature import Signature
from modelport.core.tensors import Array

if TYPE_CHECKING:
    from modelport.serve.app import App
    from modelport.serve.table import ModelTable

Headers = Sequence[tuple[str, str]]

JSON_HEADERS: Headers = (("content-type", "application/json"),)


class HeaderLookup(Protocol):
    """Request headers by lower-case name; every transport brings its own."""

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default`."""
        ...


@dataclass(slots=True)
class Request:
    """One request, whatever transport brought it.

    Parameters
    ----------
    method : str
        Upper case.
    path : str
        Percent-decoded once, by the transport; without the query.
    headers : HeaderLookup
        For gRPC: the metadata.
    body : bytes
        For gRPC: one serialized message.
    query : str
        As it came, without the question mark.
    message : object
        What `WireProtocol.place` has parsed already, for `WireProtocol.decode`.
    """

    method: str
    path: str
    headers: HeaderLookup
    body: bytes
    query: str = ""
    message: Any = None


@dataclass(slots=True)
class Response:
    """One answer.

    Parameters
    ----------
    status : int
        An HTTP status, also where the transport has others.
    body : bytes
        For gRPC: one serialized message, or the text of an error.
    headers : sequence of pairs
        Names in lower case.
    """

    status: int
    body: bytes
    headers: Headers = JSON_HEADERS


@dataclass(slots=True)
class Call:
    """A decoded inference request.

    Parameters
    ----------
    inputs : dict of str to ndarray
        Not yet checked against the signature.
    outputs : sequence of str or None
        Names asked for, in order; None: all.
    context : object
        Whatever the protocol wants back when it encodes the answer.
    """

    inputs: dict[str, Array]
    outputs: Sequence[str] | None = None
    context: Any = None


@dataclass(frozen=True)
class ModelIdentity:
    """What a protocol may say about the model it answers for.

    Parameters
    ----------
    name : str
    version : int
    signature : Signature
    platform : str
        What runs it and the format it is in: ``onnxruntime_onnx``, ``torch_pt2``.
    """

    name: str
    version: int
    signature: Signature
    platform: str


@dataclass(frozen=True, slots=True)
class Place:
    """Which model a path names.

    Parameters
    ----------
    model : str
        Empty where the path names none.
    version, label : str or None
    """

    model: str = ""
    version: str | None = None
    label: str | None = None


Answer = Callable[["ModelTable", Place, Request], Response]


@dataclass(frozen=True)
class Route:
    """A path that a protocol answers.

    Parameters
    ----------
    method : str
        HTTP's; ``POST`` for every method of gRPC.
    pattern : re.Pattern
        Must match the whole path; its groups go to `WireProtocol.place`.
    example : str
        A path that matches, with ``{model}`` for the model's name: for tests and OpenAPI.
    answer : callable or None
        None: inference, through `WireProtocol.decode` and `encode`. Otherwise it answers by
        itself from the table of models.
    by_path : bool
        The path alone says which model is meant, so that it can be remembered.
    health : bool
        A probe's route: probes bring no key.
    control : bool
        It loads or unloads models: allowed only when the server says so, and run on a thread.
    stream : bool
        gRPC: both sides send any number of messages; each is answered by itself.
    stream_error : callable or None
        gRPC streams: makes an error that answers one message a message of its own (status 200),
        after which the stream goes on. None, or another status: the error ends the stream.
    watch : bool
        gRPC: the client sends one message, which is answered again whenever the answer changes.
    """

    method: str
    pattern: re.Pattern[str]
    example: str
    answer: Answer | None = None
    by_path: bool = True
    health: bool = False
    control: bool = False
    stream: bool = False
    stream_error: Callable[[Request, Response], Response] | None = None
    watch: bool = False


class WireProtocol(Protocol):
    """What a protocol adapter does. It knows bytes and tensors, no transport."""

    name: str
    #: ``http`` or ``grpc``: what carries it.
    carrier: str
    #: Paths below it are this protocol's, also those that match no route; empty for none.
    prefix: str

    def routes(self, options: ServeOptions) -> Sequence[Route]:
        """Every path it answers."""
        ...

    def place(self, groups: Mapping[str, str | None], request: Request) -> Place:
        """Which model the groups of a matched path, or the request's body, name.

        Raises
        ------
        ModelportError
        """
        ...

    def decode(self, request: Request, model: ModelIdentity) -> Call:
        """Turn a request body into tensors.

        Raises
        ------
        ModelportError
            For every kind of malformed body; nothing else may escape.
        """
        ...

    def encode(self, call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
        """Turn the model's answers into a response."""
        ...

    def error(self, error: ModelportError) -> Response:
        """The protocol's own shape of an error."""
        ...

    def no_route(self, request: Request, methods: Sequence[str]) -> Response:
        """Answer a path that matches nothing below `prefix`, or only with other `methods`."""
        ...

    def operation(self, route: Route, model: ModelIdentity) -> dict[str, Any]:
        """The OpenAPI 3.1 operation of a route: summary, request body and every answer.

        See `modelport.serve.openapi` for the parts; gRPC protocols answer an empty object.
        """
        ...


class Transport(Protocol):
    """What a transport adapter does: bring bytes to `App.handle` and back."""

    def run(
        self,
        app: App,
        options: ServeOptions,
        on_listening: Callable[[], None],
        on_stopping: Callable[[], Callable[[], None]],
    ) -> None:
        """Listen and serve until SIGTERM or SIGINT, then drain and return.

        Parameters
        ----------
        on_listening : callable
            Called once, in the transport's event loop, as soon as connections are accepted.
        on_stopping : callable
            Called once, in the event loop, when it is asked to stop and before it drains. What it
            returns waits, on a thread, for what else runs in this loop; call it before the end.
        """
        ...


class SideTransport(Protocol):
    """A transport that runs beside the first, on threads of its own, through `App.answer`."""

    def start(self, app: App, options: ServeOptions) -> Callable[[float], Callable[[], None]]:
        """Listen and serve.

        Returns
        -------
        callable
            Given the seconds that running requests may take, it stops accepting at once, and
            returns a function that waits until they are done.

        Raises
        ------
        ConflictError
            When the port is taken.
        """
        ...


@dataclass(frozen=True)
class ModelSpec:
    """One model to be served.

    Parameters
    ----------
    name : str
    version : int
    labels : tuple of str
        Aliases under which a client may ask for this version.
    path : str
        A package folder or an ``.onnx`` file.
    digest : str
        The package digest; empty for a bare file.
    """

    name: str
    version: int
    path: str
    labels: tuple[str, ...] = field(default=())
    digest: str = ""
