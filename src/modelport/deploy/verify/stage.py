"""Replay a package's golden records at an endpoint, and compare the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import urlsplit

import numpy as np

from modelport.adapters import adapters_for_suffix, find_adapter
from modelport.core.compare import compare
from modelport.core.errors import ParityError, SignatureError, UnavailableError
from modelport.core.golden import GoldenRecords
from modelport.core.options import ClientOptions
from modelport.core.package import Package
from modelport.core.settings import resolve
from modelport.core.tensors import BYTES, Array, Tensors
from modelport.deploy.verify.base import (
    Access,
    Carrier,
    EndpointModel,
    EndpointProtocol,
    Verification,
)
from modelport.deploy.verify.protocols import (
    AUTO,
    find_protocol,
    protocol_of_address,
    protocol_that_answers,
)
from modelport.deploy.verify.web import WebCarrier, check_status, send

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
    parts = urlsplit(url)
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
        records, left_out = _records(package, strict=spoken.strict_numbers)
        if records is None:
            report("there are no golden records to compare; asking one made-up row")
            rows = made_up_row(package)
            if rows is not None:
                first = _request(carrier, spoken, model, rows, patience, report)
                return _nothing_compared(url, wire, package, first.seconds)
            return _nothing_compared(url, wire, package, ())
        asked = _replay(carrier, spoken, model, records, package, patience, report)
        return _compared(url, wire, package, records, left_out, asked, spoken.strict_numbers)
    finally:
        carrier.close()


def to_json(verification: Verification) -> dict[str, object]:
    """A verification as plain data."""
    return {
        "url": verification.url,
        "protocol": verification.protocol,
        "agrees": verification.agrees,
        "records": verification.records,
        "left_out": verification.left_out,
        "differing_records": list(verification.differing_records),
        "tolerance": verification.tolerance.to_json(),
        "outputs": [
            {
                "name": c.name,
                "elements": c.elements,
                "differing": c.differing,
                "max_absolute": c.max_absolute,
                "max_relative": c.max_relative,
                "flips": c.differing if c.exact else c.argmax_flips,
                "problem": c.problem,
                "agrees": c.agrees,
            }
            for c in verification.comparisons
        ],
        "seconds": {
            "median": float(np.median(verification.seconds)) if verification.seconds else None,
            "largest": max(verification.seconds, default=None),
        },
    }


def one_row(package: Package) -> dict[str, Array] | None:
    """A golden record, or a made-up row; all records where they depend on each other."""
    records, _ = _records(package, strict=False)
    if records is None:
        return made_up_row(package)
    if package.manifest.signature.batch_symbol and package.manifest.row_independent:
        return {name: array[:1] for name, array in records.inputs.items()}
    return records.inputs


def made_up_row(package: Package) -> dict[str, Array] | None:
    """One row of zeros, empty texts for texts; None where encoded files would be needed."""
    row: dict[str, Array] = {}
    for spec in package.manifest.signature.inputs:
        if spec.dtype == BYTES:
            return None
        shape = tuple(size if isinstance(size, int) else 1 for size in spec.shape)
        fill = "" if spec.numpy_dtype.kind == "O" else 0
        row[spec.name] = np.full(shape, fill, dtype=spec.numpy_dtype)
    return row


def _open(
    url: str, protocol: EndpointProtocol | None, headers: Mapping[str, str] | None
) -> Carrier:
    """The carrier: an SDK's where the address or a missing key asks for it, else HTTP."""
    key = resolve(ClientOptions).api_key
    schemes = adapters_for_suffix("access", urlsplit(url).scheme)
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
    host = urlsplit(url).hostname or ""
    return urlsplit(url).scheme == "https" and host.endswith(
        (".googleapis.com", ".vertexai.goog", ".run.app", ".inference.ml.azure.com")
    )


def _records(package: Package, *, strict: bool) -> tuple[GoldenRecords | None, int]:
    """The records that can be sent, and how many cannot."""
    golden = package.golden()
    if golden is None:
        return None, 0
    signature = package.manifest.signature
    try:
        inputs = signature.check(golden.inputs)
    except SignatureError:  # the inner tensors of a model with processing
        return None, 0
    golden = GoldenRecords(inputs, golden.outputs)
    if not strict or signature.batch_symbol is None:
        return golden, 0
    keep = np.ones(golden.rows, dtype=bool)
    for array in inputs.values():
        if array.dtype.kind == "f":
            keep &= np.isfinite(array).reshape(golden.rows, -1).all(axis=1)
    if not keep.any():
        return None, golden.rows
    chosen = [{n: a[keep] for n, a in side.items()} for side in (inputs, golden.outputs)]
    return GoldenRecords(*chosen), int((~keep).sum())


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
    if not (package.manifest.row_independent and model.signature.batch_symbol):
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


def _compared(
    url: str,
    name: str,
    package: Package,
    records: GoldenRecords,
    left_out: int,
    asked: _Asked,
    strict: bool,
) -> Verification:
    expected = {n: _sendable(a) if strict else a for n, a in records.outputs.items()}
    tolerance = package.manifest.tolerance
    comparisons = tuple(compare(expected, asked.outputs, tolerance))
    return Verification(
        url, name, records.rows, left_out, comparisons, tolerance, asked.seconds,
        _differing(expected, asked.outputs, package) if len(asked.seconds) > 1 else (),
    )  # fmt: skip


def _differing(expected: Tensors, actual: Tensors, package: Package) -> tuple[int, ...]:
    """The records that lie outside the tolerance, held as all of them are: together.

    Every other record is taken as right, so that the scale stays that of all records.
    """
    found: set[int] = set()
    for name, array in expected.items():
        other = actual.get(name)
        if other is None or other.shape != array.shape:
            return tuple(range(len(array)))
        for row in range(len(array)):
            mixed = array.copy()
            mixed[row] = other[row]
            (comparison,) = compare({name: array}, {name: mixed}, package.manifest.tolerance)
            if not comparison.agrees:
                found.add(row)
    return tuple(sorted(found))


def _sendable(array: Array) -> Array:
    """With NaN for what travels as null."""
    if array.dtype.kind != "f":
        return array
    return np.where(np.isfinite(array), array, np.array(np.nan, array.dtype))


def _nothing_compared(
    url: str, name: str, package: Package, seconds: tuple[float, ...]
) -> Verification:
    return Verification(url, name, 0, 0, (), package.manifest.tolerance, seconds)
