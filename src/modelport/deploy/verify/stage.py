"""Replay a package's golden records at an endpoint, and compare the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from modelport.adapters import adapters_for_suffix, find_adapter
from modelport.core.errors import ParityError, UnavailableError
from modelport.core.golden import GoldenRecords
from modelport.core.package import Package
from modelport.core.tensors import Array, Tensors
from modelport.deploy.verify.address import read_address
from modelport.deploy.verify.base import (
    Access,
    Carrier,
    EndpointModel,
    EndpointProtocol,
    Verification,
)
from modelport.deploy.verify.comparison import compared, nothing_compared, to_json
from modelport.deploy.verify.protocols import (
    AUTO,
    find_protocol,
    protocol_of_address,
    protocol_that_answers,
)
from modelport.deploy.verify.records import (
    is_asked_row_by_row,
    made_up_row,
    replayable_records,
)
from modelport.deploy.verify.web import WebCarrier, check_status, own_key, send

Report = Callable[[str], None]
_Result = TypeVar("_Result")

#: Seconds for which an endpoint that was just made may be unreachable: names and routes spread.
PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 2.0


@dataclass(frozen=True)
class _Asked:
    """What came back for all records: outputs by name, and the seconds of each request."""

    outputs: dict[str, Array]
    seconds: tuple[float, ...]


def verify_endpoint(
    package: Package,
    url: str,
    protocol: str,
    report: Report,
    *,
    name: str = "",
    headers: Mapping[str, str] | None = None,
    patience: float = PATIENCE_SECONDS,
) -> Verification:
    """Prove that an endpoint gives a package's answers.

    Every golden record is a request of its own, as clients send them; records of models whose
    rows depend on each other go together.

    Parameters
    ----------
    package : Package
    url : str
        The server's address, or the model's route on it; ``sagemaker://REGION/ENDPOINT``.
    protocol : str
        A key of `PROTOCOLS`, or ``auto``.
    report : callable
    name : str
        What the endpoint calls the model, where that is not the package's name: KServe calls it
        as its InferenceService.
    headers : mapping of str to str, optional
        Sent with every request, instead of an API key: what a platform's SDK has obtained.
    patience : float
        Seconds for which a first answer is waited for.

    Returns
    -------
    Verification
        Without records when the package has none that can be replayed: then one made-up row was
        answered.

    Raises
    ------
    ParityError
        When an answer differs, with the verification as its `report`.
    UnavailableError
        When nobody answers.
    ModelportError
        When the endpoint refuses, or answers what the protocol does not.
    """
    verification = ask_endpoint(
        package, url, protocol, report, name=name, headers=headers, patience=patience
    )
    if not verification.agrees:
        differing = [c.describe() for c in verification.comparisons if not c.agrees]
        raise ParityError(
            f"{url} gives other answers than the package: {'; '.join(differing)}",
            hint="another model or version answers there, or something on the way changes numbers",
            report=to_json(verification),
        )
    return verification


def ask_endpoint(
    package: Package,
    url: str,
    protocol: str,
    report: Report,
    *,
    name: str = "",
    headers: Mapping[str, str] | None = None,
    patience: float = 0.0,
) -> Verification:
    """As `verify_endpoint`; an answer that differs is no error."""
    manifest = package.manifest
    parts = read_address(url)
    plain = parts.scheme in ("http", "https")  # an SDK's address has no path of the server's
    path, query = (parts.path.rstrip("/"), parts.query) if plain else ("", "")
    model = EndpointModel(url, path, query, name or manifest.name, manifest.signature)
    wire = protocol if protocol != AUTO else protocol_of_address(url)
    carrier = _open(url, find_protocol(wire) if wire else None, headers)
    try:
        if not wire:
            wire = _patiently(
                lambda: protocol_that_answers(carrier, url, model.name), patience, report
            )
            report(f"{url} speaks {wire}")
        spoken = find_protocol(wire)
        records, left_out = replayable_records(package, strict=spoken.strict_numbers)
        if records is None:
            report("there are no golden records to compare; asking one made-up row")
            rows = made_up_row(package)
            if rows is not None:
                first = _request(carrier, spoken, model, rows, patience, report)
                return nothing_compared(url, wire, package, left_out, first.seconds)
            return nothing_compared(url, wire, package, left_out, ())
        asked = _replay(carrier, spoken, model, records, package, patience, report)
        return compared(
            url, wire, package, records, left_out, asked.outputs, asked.seconds,
            strict=spoken.strict_numbers,
        )  # fmt: skip
    finally:
        carrier.close()


def _open(
    url: str, protocol: EndpointProtocol | None, headers: Mapping[str, str] | None
) -> Carrier:
    """The carrier: an SDK's where the address or a missing key asks for it, else HTTP."""
    key = own_key()
    schemes = adapters_for_suffix("access", read_address(url).scheme)
    if schemes:
        access: Access = schemes[0].load()
        return access.open(url)
    if headers:
        return WebCarrier(url, headers)
    if protocol is not None and protocol.access and not key and _is_platform(url):
        access = find_adapter("access", protocol.access).load()
        return access.open(url)
    names = {"authorization", protocol.key_header if protocol else "x-api-key"}
    values = {n: f"Bearer {key}" if n == "authorization" else key for n in names}
    return WebCarrier(url, values if key else {})


def _is_platform(url: str) -> bool:
    """Whether a platform's own host is meant: nobody else gets its tokens."""
    host = read_address(url).hostname or ""
    return read_address(url).scheme == "https" and host.endswith(
        (".googleapis.com", ".vertexai.goog", ".run.app", ".inference.ml.azure.com")
    )


def _replay(
    carrier: Carrier,
    protocol: EndpointProtocol,
    model: EndpointModel,
    records: GoldenRecords,
    package: Package,
    patience: float,
    report: Report,
) -> _Asked:
    """Ask for every record; the first may have to wait for the endpoint."""
    if not is_asked_row_by_row(package):
        return _request(carrier, protocol, model, records.inputs, patience, report)
    parts: list[_Asked] = []
    for row in range(records.rows):
        tensors = {name: array[row : row + 1] for name, array in records.inputs.items()}
        parts.append(
            _request(carrier, protocol, model, tensors, 0.0 if parts else patience, report)
        )
    names = set.intersection(*(set(part.outputs) for part in parts))
    joined = {name: _joined([part.outputs[name] for part in parts]) for name in names}
    return _Asked(joined, tuple(part.seconds[0] for part in parts))


def _joined(rows: list[Array]) -> Array:
    """The rows' answers one behind the other; as a row of rows where their shapes differ."""
    if len({row.shape[1:] for row in rows}) == 1 and rows[0].ndim:
        return np.concatenate(rows)
    return np.empty((len(rows), 0))  # no shape of an output: the comparison says so


def _request(
    carrier: Carrier,
    protocol: EndpointProtocol,
    model: EndpointModel,
    tensors: Tensors,
    patience: float,
    report: Report,
) -> _Asked:
    ask = protocol.encode(tensors, model)

    def once() -> _Asked:
        answer = send(carrier, ask, model.url)
        check_status(answer, model.url)
        return _Asked(protocol.decode(answer, model), (answer.seconds,))

    return _patiently(once, patience, report)


def _patiently(action: Callable[[], _Result], patience: float, report: Report) -> _Result:
    """Repeat what fails because nobody answers yet."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return action()
        except UnavailableError as error:
            if time.monotonic() + _PAUSE_SECONDS > deadline:
                raise
            report(f"not yet: {error.message}")
            time.sleep(_PAUSE_SECONDS)
