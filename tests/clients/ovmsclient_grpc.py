"""OpenVINO's client over gRPC, and messages made by hand with its classes.

``ovmsclient_grpc.py PORT``, with the models of its test.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import grpc
import numpy as np
from ovmsclient import make_grpc_client, make_tensor_proto
from ovmsclient.tfs_compat.base.errors import InvalidInputError, ModelNotFoundError
from ovmsclient.tfs_compat.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from ovmsclient.tfs_compat.protos.tensorflow.core.framework.types_pb2 import DataType
from ovmsclient.tfs_compat.protos.tensorflow_serving.apis import (
    predict_pb2,
    prediction_service_pb2_grpc,
)

address = f"127.0.0.1:{sys.argv[1]}"
client = make_grpc_client(address)
FLOATS = np.array([[1.5, -2.0], [3.25, 4.0]], np.float32)

status = client.get_model_status("dense")
assert set(status) == {1, 2}, status
assert status[1] == {"state": "AVAILABLE", "error_code": 0, "error_message": ""}, status
assert set(client.get_model_status("dense", 1)) == {1}
print("status")

metadata = client.get_model_metadata("dense")
assert metadata == {
    "model_version": 2,
    "inputs": {"x": {"shape": [-1, 8], "dtype": "DT_FLOAT"}},
    "outputs": {"y": {"shape": [-1, 1], "dtype": "DT_FLOAT"}},
}, metadata
print("metadata")

for dtype in (
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("bool", "float16", "float32", "float64"),
):
    values = np.array([[1, 0], [0, 1]]).astype(dtype)
    if dtype.startswith(("int", "float")):
        values[1] *= -1
    if "int" in dtype:
        values[0] = [np.iinfo(dtype).min, np.iinfo(dtype).max]
    answer = client.predict({"x": values}, f"same-{dtype}")
    assert answer.dtype == values.dtype, (dtype, answer.dtype)
    np.testing.assert_array_equal(answer, values)
print("predict, every element type, as tensor_content")

np.testing.assert_array_equal(client.predict({"x": ["a", "bc"]}, "text"), [b"a", b"bc"])
np.testing.assert_array_equal(client.predict({"x": b"\xc3\xbc"}, "text"), ["\u00fc".encode()])
np.testing.assert_array_equal(client.predict({"x": 2.5}, "vector"), [2.5])
answer = client.predict({"x": np.eye(3, dtype=np.float32)}, "classifier")
np.testing.assert_array_equal(answer["label"], [0, 1, 2])
print("predict, text, scalars and several outputs")

stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(address))


def ask(model: str, proto: TensorProto, *outputs: str) -> predict_pb2.PredictResponse:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.inputs["x"].CopyFrom(proto)
    request.output_filter.extend(outputs)
    return stub.Predict(request, 30)


def by_hand(dtype: str, shape: list[int], **fields: object) -> TensorProto:
    proto = TensorProto(dtype=getattr(DataType, dtype), **fields)
    proto.tensor_shape.SetInParent()
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


one = by_hand("DT_FLOAT", [3, 2], float_val=[2.5])
assert list(ask("same-float32", one).outputs["y"].float_val) == [2.5] * 6
last = by_hand("DT_INT64", [2, 2], int64_val=[1, -7])
assert list(ask("same-int64", last).outputs["y"].int64_val) == [1, -7, -7, -7]
none = by_hand("DT_BOOL", [1, 2])
assert list(ask("same-bool", none).outputs["y"].bool_val) == [False, False]
print("the last value repeats")

bits = np.array([[1.5, -0.25]], np.float16).view(np.uint16).ravel().tolist()
half = by_hand("DT_HALF", [1, 2], half_val=bits)
assert list(ask("same-float16", half).outputs["y"].half_val) == bits
print("half_val is bit patterns")

answer = ask("classifier", make_tensor_proto(np.eye(3, dtype=np.float32)), "scores")
assert list(answer.outputs) == ["scores"]
assert answer.model_spec.name == "classifier"
assert answer.model_spec.version.value == 1
assert answer.model_spec.signature_name == "serving_default"
print("output_filter, and the resolved model_spec")


def error_of(kind: type[Exception], ask: Callable[[], object]) -> str:
    """The message of the error that a call must end with."""
    try:
        ask()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


for name, version in (("nothing", 0), ("dense", 7)):
    error_of(ModelNotFoundError, partial(client.get_model_status, name, version))
    error_of(ModelNotFoundError, partial(client.get_model_metadata, name, version))
    error_of(ModelNotFoundError, partial(client.predict, {"x": FLOATS}, name, version))
message = error_of(InvalidInputError, partial(client.predict, {"x": FLOATS}, "dense"))
assert "expected [N, 8]" in message, message
print("errors")
