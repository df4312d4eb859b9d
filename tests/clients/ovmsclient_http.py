"""OpenVINO's client over REST: ``ovmsclient_http.py PORT``, with the models of its test."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from ovmsclient import make_http_client
from ovmsclient.tfs_compat.base.errors import InvalidInputError, ModelNotFoundError

client = make_http_client(f"127.0.0.1:{sys.argv[1]}")
FLOATS = np.array([[1.5, -2.0], [3.25, 4.0]], np.float32)

# The client always names a version, and says 0 for whichever is served.
status = client.get_model_status("dense")
assert set(status) == {1, 2}, status
assert status[1] == {"state": "AVAILABLE", "error_code": 0, "error_message": ""}, status
assert set(client.get_model_status("dense", 2)) == {2}
print("status")

metadata = client.get_model_metadata("dense")
signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
assert [dim["size"] for dim in signature["inputs"]["x"]["tensor_shape"]["dim"]] == ["-1", "8"]
assert metadata["model_spec"]["version"] == "2"
assert client.get_model_metadata("dense", 1)["model_spec"]["version"] == "1"
print("metadata")

np.testing.assert_array_equal(client.predict({"x": FLOATS}, "same-float32"), FLOATS)
np.testing.assert_array_equal(client.predict({"x": FLOATS.tolist()}, "same-float64", 1), FLOATS)
for dtype in ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool"):
    values = np.array([[1, 0], [1, 1]], dtype)
    np.testing.assert_array_equal(client.predict({"x": values}, f"same-{dtype}"), values)
print("predict")

two = client.predict({"a": np.ones((2, 3), np.float32), "b": np.array([[4, 5], [6, 7]])}, "two")
np.testing.assert_array_equal(two, [12.0, 16.0])
answer = client.predict({"x": np.eye(3, dtype=np.float32)}, "classifier")
assert set(answer) == {"label", "scores"}
np.testing.assert_array_equal(answer["label"], [0, 1, 2])
print("several inputs and outputs")

# Bytes go as Base64.
np.testing.assert_array_equal(client.predict({"x": b"one"}, "text"), ["one"])
np.testing.assert_array_equal(client.predict({"x": ["one", "two"]}, "text"), ["one", "two"])
print("text")


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
message = error_of(InvalidInputError, partial(client.predict, {"x": [[1.0]]}, "dense"))
assert "expected [N, 8]" in message, message
print("errors")
