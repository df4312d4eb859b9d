"""A small client of the V2 protocol, for ``modelport predict`` and for verifying endpoints."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import numpy as np

from modelport.core.errors import (
    EngineError,
    InputError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import BYTES, STRING, Array, TensorSpec
from modelport.serve.oip.codec import CONTENT, DATATYPES, HEADER_LENGTH, decode, encode

Decoded = TypeVar("Decoded")

_DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}
_TIMEOUT_SECONDS = 60.0
_NOT_V2 = "is it a server of the Open Inference Protocol V2?"


def predict_remotely(url: str, rows: Rows, api_key: str = "") -> dict[str, Array]:
    """Ask a running server.

    Parameters
    ----------
    url : str
        ``http://host:port/name``; ``/name/versions/3`` for one version.
    rows : Rows
        Arranged by the signature that the server tells.
    api_key : str
        Sent as a bearer token; empty: none.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    InputError
        When the URL names no model, or the server refuses the request.
    UnauthenticatedError
        When the server wants another key.
    EngineError
        When the model fails, or the server speaks another protocol.
    UnavailableError
        When no server answers.
    """
    parts = urlsplit(url)
    place = parts.path.strip("/")
    try:
        port = parts.port
    except ValueError as error:
        raise InputError(f"the address has a wrong port: {url}") from error
    if not place or parts.hostname is None:
        raise InputError(f"the address names no model: {url}", hint="http://host:port/name")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, port, timeout=_TIMEOUT_SECONDS)
    try:
        path = f"/v2/models/{quote(place)}"
        key = {"authorization": f"Bearer {api_key}"} if api_key else {}
        metadata, _ = _ask(connection, "GET", path, b"", key, url)
        signature = _read(url, _signature, metadata)
        body, headers = _request(rows.bind(signature))
        answer, raw = _ask(connection, "POST", f"{path}/infer", body, headers | key, url)
        return _read(url, _outputs, answer, raw)
    except (OSError, http.client.HTTPException) as error:
        raise UnavailableError(f"no answer from {url}: {error}") from error
    finally:
        connection.close()


def _request(tensors: dict[str, Array]) -> tuple[bytes, dict[str, str]]:
    buffers = [encode(array) for array in tensors.values()]
    document = {
        "parameters": {"binary_data_output": True},
        "inputs": [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": "BYTES" if array.dtype == object else DATATYPES[array.dtype.name],
                "parameters": {"binary_data_size": len(buffer)},
            }
            for (name, array), buffer in zip(tensors.items(), buffers, strict=True)
        ],
    }
    head = json.dumps(document).encode()
    return b"".join((head, *buffers)), {HEADER_LENGTH: str(len(head))}


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
    url: str,
) -> tuple[dict[str, Any], memoryview]:
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    content = response.read()
    try:
        length = int(response.getheader(HEADER_LENGTH) or len(content))
        document = json.loads(content[:length])
        if not isinstance(document, dict):
            raise ValueError(document)
    except ValueError as error:
        raise EngineError(
            f"the server at {url} answered {response.status} and no JSON object", hint=_NOT_V2
        ) from error
    if response.status != 200:
        message = f"the server answered {response.status}: {document.get('error', document)}"
        if response.status == 404:
            raise NotFoundError("model", url, hint=message)
        if response.status == 401:
            hint = "set MODELPORT_API_KEY to a key that this server knows"
            raise UnauthenticatedError(message, where=url, hint=hint)
        kind = InputError if response.status < 500 else EngineError
        raise kind(message, where=url)
    return document, memoryview(content)[length:]


def _read(url: str, decoder: Callable[..., Decoded], *parts: Any) -> Decoded:
    try:
        return decoder(*parts)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EngineError(
            f"the server at {url} answered what the protocol does not: {error!r}", hint=_NOT_V2
        ) from error


def _signature(metadata: dict[str, Any]) -> Signature:
    return Signature(
        tuple(_spec(item) for item in metadata["inputs"]),
        tuple(_spec(item) for item in metadata["outputs"]),
    )


def _spec(item: dict[str, Any]) -> TensorSpec:
    parameters = item.get("parameters", {})
    columns = parameters.get("columns", "")
    # Only the leading dimension is surely the batch; other open ones are unrelated.
    shape = tuple(
        size if size >= 0 else ("N" if axis == 0 else f"{item['name']}_{axis}")
        for axis, size in enumerate(item["shape"])
    )
    dtype = _DTYPES.get(item["datatype"], item["datatype"])
    if dtype == STRING and parameters.get(CONTENT) == BYTES:
        dtype = BYTES
    return TensorSpec(item["name"], dtype, shape, tuple(columns.split(",")) if columns else ())


def _outputs(answer: dict[str, Any], raw: memoryview) -> dict[str, Array]:
    outputs: dict[str, Array] = {}
    position = 0
    for item in answer["outputs"]:
        spec = TensorSpec(item["name"], _DTYPES[item["datatype"]], tuple(item["shape"]))
        size = item.get("parameters", {}).get("binary_data_size")
        if size is None:
            flat = np.asarray(item["data"], dtype=spec.numpy_dtype)
        else:
            count = int(np.prod(item["shape"], dtype=np.int64))
            flat = decode(raw[position : position + size], spec, count)
            position += size
        outputs[spec.name] = flat.reshape(item["shape"])
    return outputs
