"""What the tests of scoring share: models, bodies, and how they are read."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from modelport.core.errors import ModelportError
from modelport.core.signature import Signature
from modelport.core.tensors import Array, TensorSpec
from modelport.serve import scoring
from modelport.serve.base import ModelIdentity, Request, Response

JSON = "application/json"
LINES = "application/jsonlines"
CSV = "text/csv"
NPY = "application/x-npy"
PARQUET = "application/vnd.apache.parquet"
OCTETS = "application/octet-stream"
V2 = "application/vnd.sagemaker-triton.binary+json"


def identity(*inputs: TensorSpec) -> ModelIdentity:
    """A model with these inputs."""
    outputs = (TensorSpec("y", "float32", ("N", 3)),)
    return ModelIdentity("m", 1, Signature(inputs, outputs), "onnxruntime_onnx")


def request(body: bytes, content_type: str | None, accept: str | None = None) -> Request:
    headers = {"content-type": content_type, "accept": accept}
    return Request("POST", "/invocations", {k: v for k, v in headers.items() if v}, body)


def read(
    model: ModelIdentity, body: bytes, content_type: str | None, accept: str | None = None
) -> tuple[dict[str, Array], scoring.Context]:
    """Read a body, and check it against the signature as the server does."""
    with np.errstate(over="ignore", invalid="ignore"):  # as a worker runs
        tensors, context = scoring.read(request(body, content_type, accept), model)
    return model.signature.check(tensors), context


def refused(model: ModelIdentity, body: bytes, content_type: str) -> ModelportError:
    """The error that a body is answered with."""
    with pytest.raises(ModelportError) as caught:
        read(model, body, content_type)
    return caught.value


def write(model: ModelIdentity, outputs: Mapping[str, Array], accept: str | None) -> Response:
    """The answer to rows, in the format that a client accepts."""
    body = b'{"instances":[[1,2,3]]}'
    if model.signature.inputs[0].dtype == "string":
        body = b'{"instances":["a"]}'
    _, context = scoring.read(request(body, JSON, accept), model)
    return scoring.write(outputs, context, model)


def npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def parquet(**columns: Any) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def same(got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Bit for bit the same, strings by value."""
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        assert got[name].shape == array.shape, name
        if array.dtype == object:
            assert got[name].tolist() == array.tolist(), name
        else:
            np.testing.assert_array_equal(got[name], array)
