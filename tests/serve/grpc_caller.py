"""Raw gRPC calls with the messages of the server's own pool."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

import grpc
import numpy as np

from modelport.core.tensors import Array
from modelport.serve.protos import message, service

from .running import LIMIT

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"


class Caller:
    """A channel, from which every method of every service can be called."""

    def __init__(self, port: int, key: str = "", credentials: Any = None) -> None:
        address = f"127.0.0.1:{port}"
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options)
        else:
            override = ("grpc.ssl_target_name_override", "localhost")
            self.channel = grpc.secure_channel(address, credentials, [*options, override])
        self._metadata = [("authorization", f"Bearer {key}")] if key else []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def unary(self, name: str, asked: Any = None, timeout: float = LIMIT, **fields: Any) -> Any:
        """The answer of ``package.Service/Method`` to a message, or to its fields."""
        method = _method(name)
        if asked is None:
            asked = message(method.input_type.full_name)(**fields)
        body = asked if isinstance(asked, bytes) else asked.SerializeToString()
        answer = self.channel.unary_unary(f"/{name}")(body, timeout, self._metadata)
        return message(method.output_type.full_name).FromString(answer)

    def stream(self, name: str, asked: Iterable[Any], *metadata: tuple[str, str]) -> Iterator[Any]:
        """The answers of a method that takes and gives streams."""
        kind = message(_method(name).output_type.full_name)
        bodies = (m if isinstance(m, bytes) else m.SerializeToString() for m in asked)
        every = [*self._metadata, *metadata]
        for answer in self.channel.stream_stream(f"/{name}")(bodies, LIMIT, every):
            yield kind.FromString(answer)


def _method(name: str) -> Any:
    owner, _, method = name.partition("/")
    return service(owner).methods_by_name[method]


def infer_request(model: str, name: str, datatype: str, shape: Iterable[int], **more: Any) -> Any:
    """A ``ModelInferRequest`` with one input, which has no data yet."""
    request = message("inference.ModelInferRequest")(model_name=model, **more)
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    return request


def raw_request(model: str, name: str, datatype: str, values: Array, **more: Any) -> Any:
    request = infer_request(model, name, datatype, values.shape, **more)
    request.raw_input_contents.append(values.tobytes())
    return request


def typed_request(model: str, field: str, datatype: str, values: list[Any]) -> Any:
    """One row of typed contents for the input ``x`` [1, N]."""
    request = infer_request(model, "x", datatype, [1, len(values)])
    getattr(request.inputs[0].contents, field).extend(values)
    return request


def tensor(answer: Any, dtype: str, position: int = 0) -> Array:
    shape = list(answer.outputs[position].shape)
    return np.frombuffer(answer.raw_output_contents[position], dtype).reshape(shape)
