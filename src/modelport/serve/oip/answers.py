"""Inference answers of V2 over REST: JSON, and raw tensors behind it.

Source: ``kserve/open-inference-protocol`` and Triton's ``docs/protocol`` and
``src/http_server.cc``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from modelport.core.errors import InputError
from modelport.core.tensors import STRING, Array
from modelport.serve.base import Call, ModelIdentity, Response
from modelport.serve.json_codec import dumps, dumps_array
from modelport.serve.oip import codec as oip_codec
from modelport.serve.oip.classification import classify
from modelport.serve.oip.codec import DATATYPES, HEADER_LENGTH

#: By rank, how a shape is written.
_SIZES: Final = tuple(b",".join([b"%d"] * rank) for rank in range(65))

#: JSON holds none of its values: neither Triton nor KServe takes or gives them.
HALF: Final = "float16"


@dataclass(slots=True)  # not frozen: that would make it three times as slow to create
class Wanted:
    """How the client wants its answer.

    Parameters
    ----------
    id : str
        Comes back as it was; empty: it has none.
    binary : frozenset of str or None
        Outputs to be sent as raw bytes; None: all.
    classes : dict of str to int
        Outputs of which so many best classes are wanted instead.
    """

    id: str = ""
    binary: frozenset[str] | None = frozenset()
    classes: dict[str, int] = field(default_factory=dict)


def write(call: Call, outputs: Mapping[str, Array], model: ModelIdentity) -> Response:
    """Write an answer as the request wants it.

    Raises
    ------
    InputError
        When an output is wanted as JSON that JSON cannot hold.
    """
    wanted: Wanted = call.context
    parts: list[bytes] = []
    buffers: list[bytes] = []
    specs = model.signature.outputs_by_name
    for name in call.outputs or outputs:
        array, dtype = outputs[name], specs[name].dtype
        if wanted.classes and (count := wanted.classes.get(name)):
            batched = model.signature.batch_symbol is not None
            array, dtype = classify(array, specs[name], count, batched=batched), STRING
        shape = _SIZES[array.ndim] % array.shape
        head = _output_head(name, dtype)
        if wanted.binary is None or name in wanted.binary:
            buffer = oip_codec.encode(array)
            buffers.append(buffer)
            size = len(buffer)
            parts.append(b'%b%b],"parameters":{"binary_data_size":%d}}' % (head, shape, size))
        elif dtype == HALF:
            raise InputError(
                f"output {name} has datatype FP16, which JSON cannot hold: "
                "ask for binary data ('binary_data_output': true)"
            )
        else:
            data = dumps_array(array.reshape(-1))
            parts.append(b'%b%b],"data":%b}' % (head, shape, data))
    start = _answer_head(model.name, model.version)
    if wanted.id:
        start += b'"id":%b,' % dumps(wanted.id)
    body = b'%b"outputs":[%b]}' % (start, b",".join(parts))
    if not any(buffers):  # also where every one of them is empty
        return Response(200, body)
    headers = (("content-type", "application/octet-stream"), (HEADER_LENGTH, str(len(body))))
    return Response(200, b"".join((body, *buffers)), headers)


@lru_cache(maxsize=1024)
def _output_head(name: str, dtype: str) -> bytes:
    return b'{"name":%b,"datatype":%b,"shape":[' % (dumps(name), dumps(DATATYPES[dtype]))


@lru_cache(maxsize=1024)
def _answer_head(name: str, version: int) -> bytes:
    return b'{"model_name":%b,"model_version":"%d",' % (dumps(name), version)
