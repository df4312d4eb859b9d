"""What a client sends and what it understands: the bodies of the three protocols."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc_load
import numpy as np
from models import INPUT, Model
from numpy.typing import NDArray

PROTOCOLS: Final = ("v2-json", "v2-binary", "tfs", "v2-grpc")
_HEADER_LENGTH: Final = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Payload:
    """One request, the same for all requests of a measurement."""

    headers: Mapping[str, str]
    body: bytes


def encode(protocol: str, model: Model) -> Payload:
    """The request that asks `model` for its row.

    Parameters
    ----------
    protocol : str
        ``v2-json``: Open Inference Protocol V2 with the numbers in JSON. ``v2-binary``: the same
        with its binary tensor data extension in both directions. ``tfs``: TensorFlow Serving's
        row format. ``v2-grpc``: V2 over gRPC with raw tensors.
    """
    row = model.row
    if protocol == "v2-grpc":
        return Payload({}, grpc_load.encode(model.name, INPUT, row))
    tensor: dict[str, Any] = {"name": INPUT, "shape": list(row.shape), "datatype": "FP32"}
    if protocol == "v2-json":
        tensor["data"] = _numbers(row.ravel())
        return _json({"inputs": [tensor]})
    if protocol == "v2-binary":
        raw = row.astype("<f4").tobytes()
        tensor["parameters"] = {"binary_data_size": len(raw)}
        header = json.dumps(
            {"inputs": [tensor], "parameters": {"binary_data_output": True}},
            separators=(",", ":"),
        ).encode()
        return Payload(
            {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(header))},
            header + raw,
        )
    if protocol == "tfs":
        return _json({"instances": _numbers(row)})
    raise ValueError(f"unknown protocol: {protocol}")


def decode(protocol: str, headers: Mapping[str, str], body: bytes) -> NDArray[np.float32]:
    """The numbers in an answer, in the shape it tells.

    A server may answer a binary request in JSON; clients cope, and so does this one.

    Parameters
    ----------
    headers : mapping of str to str
        With names in lower case.
    """
    if protocol == "v2-grpc":
        answer: NDArray[np.float32] = grpc_load.decode(body)
        return answer
    if protocol == "tfs":
        return np.array(json.loads(body)["predictions"], dtype=np.float32)
    length = headers.get(_HEADER_LENGTH.lower())
    document = json.loads(body if length is None else body[: int(length)])
    (output,) = document["outputs"]
    if length is None:
        values = np.array(output["data"], dtype=np.float32)
    else:
        values = np.frombuffer(body[int(length) :], dtype="<f4")
    return values.reshape(output["shape"])


def check(protocol: str, model: Model, headers: Mapping[str, str], body: bytes) -> None:
    """Compare an answer with that of raw `onnxruntime`.

    Raises
    ------
    ValueError
        When shape or numbers differ.
    """
    answer = decode(protocol, headers, body)
    if answer.shape != model.expected.shape:
        raise ValueError(f"wrong shape: {answer.shape}, expected {model.expected.shape}")
    if not np.allclose(answer, model.expected, rtol=1e-4, atol=1e-5):
        worst = np.abs(answer - model.expected).max()
        raise ValueError(f"wrong answer: differs from raw onnxruntime by up to {worst}")


def _numbers(values: NDArray[np.float32]) -> Any:
    # Through float64 and rounded, because str(float32) as float64 has 17 digits.
    return values.astype(np.float64).round(6).tolist()


def _json(document: dict[str, Any]) -> Payload:
    body = json.dumps(document, separators=(",", ":")).encode()
    return Payload({"Content-Type": "application/json"}, body)
