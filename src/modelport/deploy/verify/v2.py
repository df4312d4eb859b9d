"""The Open Inference Protocol V2 over REST, also behind API Gateway and Azure Functions.

JSON, except where JSON cannot hold a model's values (float16, encoded files): then raw tensors
behind it (``binary_tensor_data``). Source: KServe's ``open-inference-protocol`` and Triton's
``extension_binary_data.md``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import numpy as np

from modelport.core.errors import EngineError
from modelport.core.tensors import BYTES, STRING, Array, Tensors, TensorSpec, dtype_name
from modelport.deploy.verify import arrays
from modelport.deploy.verify.base import Answer, Ask, EndpointModel
from modelport.deploy.verify.web import read_json, shown

_LENGTH: Final = "inference-header-content-length"

DATATYPES: Final = {
    "bool": "BOOL",
    **{f"{u}int{n}": f"{u.upper()}INT{n}" for u in ("", "u") for n in (8, 16, 32, 64)},
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    STRING: "BYTES",
    BYTES: "BYTES",
}


@dataclass(frozen=True)
class OpenInference:
    """The protocol, below a base path.

    Parameters
    ----------
    prefix : str
        Before ``/v2``, unless the address has it.
    access, key_header
        See `modelport.deploy.verify.base.EndpointProtocol`.
    """

    prefix: str = ""
    access: str = ""
    key_header: str = "x-api-key"
    strict_numbers: bool = False

    def encode(self, tensors: Tensors, model: EndpointModel) -> Ask:
        """See `modelport.deploy.verify.base.EndpointProtocol.encode`."""
        path = infer_path(model, self.prefix)
        path = f"{path}?{model.query}" if model.query else path
        binary = any(
            spec.dtype in ("float16", BYTES)
            for spec in (*model.signature.inputs, *model.signature.outputs)
        )
        described: list[dict[str, Any]] = [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": "BYTES" if array.dtype == object else DATATYPES[dtype_name(array)],
            }
            for name, array in tensors.items()
        ]
        document: dict[str, Any] = {"inputs": described}
        if not binary:
            for item, array in zip(described, tensors.values(), strict=True):
                item["data"] = array.ravel().tolist()
            return Ask(
                "POST", path, json.dumps(document).encode(), {"content-type": "application/json"}
            )
        buffers = [_raw(array) for array in tensors.values()]
        for item, buffer in zip(described, buffers, strict=True):
            item["parameters"] = {"binary_data_size": len(buffer)}
        document["parameters"] = {"binary_data_output": True}
        head = json.dumps(document).encode()
        headers = {"content-type": "application/octet-stream", _LENGTH: str(len(head))}
        return Ask("POST", path, b"".join((head, *buffers)), headers)

    def decode(self, answer: Answer, model: EndpointModel) -> dict[str, Array]:
        """See `modelport.deploy.verify.base.EndpointProtocol.decode`."""
        try:
            length = int(answer.headers.get(_LENGTH) or len(answer.body))
            head = Answer(answer.status, answer.headers, answer.body[:length], answer.seconds)
            document = read_json(head, model.url)
            items = {item["name"]: item for item in document["outputs"]}
            raw = _buffers(document["outputs"], answer.body[length:])
            return {
                spec.name: _output(items[spec.name], raw.get(spec.name), spec, model.url)
                for spec in model.signature.outputs
                if spec.name in items
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(
                f"{model.url} answered 200 and no inference of Open Inference V2: "
                f"{shown(repr(error))}"
            ) from error


def infer_path(model: EndpointModel, prefix: str = "") -> str:
    """The path of inference; the address may name the model, or a version, or all of it."""
    path = model.path
    if path.endswith("/infer"):
        return path
    if "/v2/models/" in path:
        return f"{path}/infer"
    if path == f"/{model.name}":  # as `modelport predict` takes it
        path = ""
    base = path if prefix and path.endswith(prefix) else path + prefix
    base = base.removesuffix("/v2")
    return f"{base}/v2/models/{quote(model.name, safe='')}/infer"


def _raw(array: Array) -> bytes:
    if array.dtype != object:
        return array.astype(array.dtype.newbyteorder("<")).tobytes()
    items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


def _buffers(outputs: list[dict[str, Any]], raw: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    position = 0
    for item in outputs:
        size = item.get("parameters", {}).get("binary_data_size")
        if size is not None:
            found[item["name"]] = raw[position : position + size]
            position += size
    return found


def _output(item: dict[str, Any], raw: bytes | None, spec: TensorSpec, url: str) -> Array:
    if item["datatype"] != DATATYPES[spec.dtype]:
        raise EngineError(
            f"{url} answered {shown(item['datatype'])} for output {spec.name}, which is "
            f"{DATATYPES[spec.dtype]} in the package: another model answers"
        )
    if raw is None:
        return np.ravel(arrays.read(item["data"], spec, url)).reshape(item["shape"])
    if spec.numpy_dtype.kind != "O":
        little = spec.numpy_dtype.newbyteorder("<")
        return np.frombuffer(raw, dtype=little).astype(spec.numpy_dtype).reshape(item["shape"])
    texts, position = [], 0
    while position < len(raw):
        size = int.from_bytes(raw[position : position + 4], "little")
        texts.append(raw[position + 4 : position + 4 + size].decode())
        position += 4 + size
    return np.array(texts, dtype=object).reshape(item["shape"])


V2: Final = OpenInference()
CLOUDRUN: Final = OpenInference(access="google")
AZURE_FUNCTIONS: Final = OpenInference(prefix="/api", key_header="x-functions-key")
