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
    from modelport.serve.models import ModelTable

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
    body : bytes
    """

    method: str
    path: str
    headers: HeaderLookup
    body: bytes


@dataclass(slots=True)
class Response:
    """One answer."""

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


Answer = Callable[["ModelTable", Place], Response]


@dataclass(frozen=True)
class Route:
    """A path that a protocol answers.

    Parameters
    ----------
    method : str
    pattern : re.Pattern
        Must match the whole path; its groups go to `WireProtocol.place`.
    example : str
        A path that matches, for tests and documentation.
    answer : callable or None
        None: inference, through `WireProtocol.decode` and `encode`. Otherwise it answers by
        itself from the table of models.
    """

    method: str
    pattern: re.Pattern[str]
    example: str
    answer: Answer | None = None


class WireProtocol(Protocol):
    """What a protocol adapter does. It knows bytes and tensors, no transport."""

    name: str
    #: Paths below it are this protocol's, also those that match no route.
    prefix: str

    def routes(self) -> Sequence[Route]:
        """Every path it answers."""
        ...

    def place(self, groups: Mapping[str, str | None]) -> Place:
        """Which model the groups of a matched path name."""
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
        """Answer a path below `prefix` that matches nothing, or only with other `methods`."""
        ...


class Transport(Protocol):
    """What a transport adapter does: bring bytes to `App.handle` and back."""

    def run(self, app: App, options: ServeOptions, on_listening: Callable[[], None]) -> None:
        """Listen and serve until SIGTERM or SIGINT, then drain and return.

        Parameters
        ----------
        on_listening : callable
            Called once, in the transport's event loop, as soon as connections are accepted.
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
