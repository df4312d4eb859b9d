"""How an endpoint is asked, and what came of it, as data.

::

    records ──EndpointProtocol──▶ Ask ──Carrier──▶ endpoint ──▶ Answer ──EndpointProtocol──▶ outputs
             (a wire format)          (HTTP, an SDK)

A protocol knows no network, and a carrier no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from modelport.core.compare import OutputComparison, Tolerance
from modelport.core.signature import Signature
from modelport.core.tensors import Array, Tensors

#: Seconds that one request may take. Every platform cuts online requests off by then or later;
#: Lambda's gateways do after 29.
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Ask:
    """One request.

    Parameters
    ----------
    method : str
    path : str
        With its query; whole, as the server gets it.
    body : bytes
    headers : mapping of str to str
        By lower-case name.
    """

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """One answer, read to its end; `headers` by lower-case name, `seconds` from the first byte."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


class Carrier(Protocol):
    """Brings requests to one endpoint and answers back."""

    def send(self, ask: Ask) -> Answer:
        """Ask, and wait for the answer, whatever its status.

        Raises
        ------
        UnavailableError
            When there is none.
        """
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...


class Access(Protocol):
    """An adapter of kind ``access``: reaches endpoints through a platform's SDK."""

    def open(self, url: str, timeout: float = TIMEOUT_SECONDS) -> Carrier:
        """Log in, with the credentials that the SDK finds by itself.

        Raises
        ------
        UnauthenticatedError
            When there are none.
        """
        ...


@dataclass(frozen=True)
class EndpointModel:
    """What is asked for: the model behind one address.

    Parameters
    ----------
    url : str
        As the user gave it.
    path : str
        Of `url`, without query and slash at its end.
    query : str
        Of `url`.
    name : str
        The model's name in its package; the address may name another one.
    signature : Signature
    """

    url: str
    path: str
    query: str
    name: str
    signature: Signature


class EndpointProtocol(Protocol):
    """A wire format: tensors to a request, an answer to tensors."""

    @property
    def strict_numbers(self) -> bool:
        """Whether NaN and infinities travel as ``null``, or not at all."""
        ...

    @property
    def access(self) -> str:
        """The adapter of kind ``access`` that logs in where no API key is set; empty: none."""
        ...

    @property
    def key_header(self) -> str:
        """The header that carries the API key, beside ``authorization``."""
        ...

    def encode(self, tensors: Tensors, model: EndpointModel) -> Ask:
        """Write a request.

        Raises
        ------
        UnsupportedError
            When this format cannot carry an input.
        """
        ...

    def decode(self, answer: Answer, model: EndpointModel) -> dict[str, Array]:
        """Read an answer with status 200.

        Raises
        ------
        EngineError
            When it is no answer of this protocol.
        """
        ...


@dataclass(frozen=True)
class Verification:
    """What came of a replay.

    Parameters
    ----------
    url, protocol : str
    records : int
        Golden records that were replayed; 0: the package has none that can be.
    left_out : int
        Records with NaN or infinities, which this protocol cannot carry.
    comparisons : tuple of OutputComparison
        One for each output.
    tolerance : Tolerance
        The package's.
    seconds : tuple of float
        How long each request took.
    differing_records : tuple of int
        Indices of records with an answer outside the tolerance.
    """

    url: str
    protocol: str
    records: int
    left_out: int
    comparisons: tuple[OutputComparison, ...]
    tolerance: Tolerance
    seconds: tuple[float, ...]
    differing_records: tuple[int, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether every answer is within the tolerance."""
        return all(comparison.agrees for comparison in self.comparisons)
