"""Open Inference Protocol V2 over HTTP, with the binary tensor extension."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from modelport import __version__
from modelport.core.tensors import NUMPY_DTYPES, Array

from . import onnx_models
from .conftest import Serve
from .packages import build_package, reference
from .running import Answer, RunningServer

DATATYPES = {
    "bool": "BOOL",
    **{f"{u}int{n}": f"{u}INT{n}".upper() for u in ("", "u") for n in (8, 16, 32, 64)},
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
}
ROWS = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
HEADER = "Inference-Header-Content-Length"

#: Whitespace is JSON's to ignore, and makes the server take its parser for large bodies.
SIZES = pytest.mark.parametrize("padding", [b"", b" " * 2000], ids=["small", "large"])

#: Values at the ends of every element type.
VALUES: dict[str, Array] = {
    "bool": np.array([[True, False], [False, True]]),
    **{
        dtype: np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max], [0, 1]], dtype=dtype)
        for dtype in onnx_models.NUMERIC_TYPES
        if "int" in dtype
    },
    **{
        dtype: np.array([[np.finfo(dtype).max, np.finfo(dtype).tiny], [-0.0, 0.1]], dtype=dtype)
        for dtype in ("float16", "float32", "float64")
    },
    "string": np.array([["", "grüße"], ["日本語\x00", 'quo"te\\']], object),
}

#: JSON holds no FP16: neither Triton nor KServe takes or gives it.
IN_JSON = tuple(dtype for dtype in VALUES if dtype != "float16")


@pytest.fixture(scope="module")
def server(module_path: Path) -> Iterator[RunningServer]:
    def package(name: str, model: bytes, folder: str = "", **golden: Any) -> Path:
        inputs = {key: np.asarray(value) for key, value in golden.items()}
        return build_package(module_path / (folder or name), name, model, inputs).path

    floats = np.array([[1, 2], [3, 4]], np.float32)
    models = [
        package("dense", onnx_models.dense(0), x=ROWS),
        package("dense", onnx_models.dense(1), "dense-newer", x=ROWS),
        package("two", onnx_models.sum_of_two(), a=ROWS[:2, :3], b=np.array([[1, 2], [3, 4]])),
        package("classifier", onnx_models.classifier(), x=ROWS[:, :3]),
        package("scalar", onnx_models.identity("float32", ()), x=np.float32(1)),
        package("vector", onnx_models.identity("float32", ("N",)), x=floats[0]),
        package("cube", onnx_models.identity("float32", ("N", "M", 2)), x=floats[None]),
        package(
            "types",
            onnx_models.identities(tuple(VALUES)),
            **{f"in_{dtype}": values for dtype, values in VALUES.items()},
        ),
        *(
            package(f"same-{dtype}", onnx_models.identity(dtype), x=values)
            for dtype, values in VALUES.items()
        ),
    ]
    with RunningServer(module_path / "server", models) as running:
        yield running


def item(name: str, values: Array, **changes: Any) -> dict[str, Any]:
    """One input as JSON, flat."""
    dtype = "string" if values.dtype == object else values.dtype.name
    described = {"name": name, "shape": list(values.shape), "datatype": DATATYPES[dtype]}
    return {**described, "data": values.ravel().tolist(), **changes}


def raw(values: Array) -> bytes:
    """The bytes of a tensor as the binary extension lays them out."""
    if values.dtype != object:
        return values.astype(values.dtype.newbyteorder("<")).tobytes()
    texts = [text.encode() for text in values.ravel()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def binary_item(name: str, values: Array) -> dict[str, Any]:
    """One input whose bytes follow the JSON."""
    described = item(name, values, parameters={"binary_data_size": len(raw(values))})
    del described["data"]
    return described


def infer(
    server: RunningServer, model: str, document: Any, padding: bytes = b"", buffers: bytes = b""
) -> Answer:
    """The answer to a request that must succeed."""
    head = padding + (document if isinstance(document, bytes) else json.dumps(document).encode())
    headers = {HEADER: str(len(head))} if buffers else {}
    answer = server.post(f"/v2/models/{model}/infer", head + buffers, headers)
    assert answer.status == 200, answer.body
    return answer


def refuse(
    server: RunningServer, model: str, document: Any, padding: bytes = b"", buffers: bytes = b""
) -> str:
    """The error of a request that must be answered with 400."""
    head = padding + (document if isinstance(document, bytes) else json.dumps(document).encode())
    headers = {HEADER: str(len(head))} if buffers else {}
    answer = server.post(f"/v2/models/{model}/infer", head + buffers, headers)
    assert answer.status == 400, answer.body
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert list(document) == ["error"]
    return str(document["error"])


def outputs_of(answer: Answer) -> dict[str, Array]:
    """The outputs, whether JSON or binary; what was said about them is checked."""
    length = answer.headers[HEADER]
    head = answer.body if length is None else answer.body[: int(length)]
    rest = b"" if length is None else answer.body[int(length) :]
    size = 0
    outputs = {}
    for output in json.loads(head)["outputs"]:
        dtype = next(name for name, datatype in DATATYPES.items() if datatype == output["datatype"])
        if "data" in output:
            assert "parameters" not in output
            flat = np.array(output["data"], dtype=NUMPY_DTYPES[dtype])
            assert flat.ndim == 1
        else:
            used = output["parameters"]["binary_data_size"]
            size += used
            flat, rest = unpack(rest[:used], dtype), rest[used:]
        outputs[output["name"]] = flat.reshape(output["shape"])
    assert not rest
    # Where all raw outputs are empty, the answer is JSON and nothing behind it.
    assert (size > 0) == (length is not None)
    kind = "application/octet-stream" if size else "application/json"
    assert answer.headers["content-type"] == kind
    return outputs


def unpack(data: bytes, dtype: str) -> Array:
    if dtype != "string":
        return np.frombuffer(data, NUMPY_DTYPES[dtype].newbyteorder("<"))
    texts = []
    while data:
        (length,) = struct.unpack("<I", data[:4])
        texts.append(data[4 : 4 + length].decode())
        data = data[4 + length :]
    return np.array(texts, object)


def assert_same(got: Array, expected: Array) -> None:
    """Equal to the last bit, NaN and the sign of zero included."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    same = got.tolist() == expected.tolist() if got.dtype == object else raw(got) == raw(expected)
    assert same, (got, expected)


def test_health(server: RunningServer) -> None:
    for path, body in (("live", {"live": True}), ("ready", {"ready": True})):
        answer = server.get(f"/v2/health/{path}")
        assert (answer.status, answer.json()) == (200, body)
        assert answer.headers["content-type"] == "application/json"


def test_model_readiness(server: RunningServer) -> None:
    for place in ("dense", "dense/versions/1"):
        answer = server.get(f"/v2/models/{place}/ready")
        assert (answer.status, answer.json()) == (200, {"name": "dense", "ready": True})
    assert server.get("/v2/models/nothing/ready").status == 404


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_server_metadata(server: RunningServer, path: str) -> None:
    assert server.get(path).json() == {
        "name": "modelport",
        "version": __version__,
        "extensions": [
            "binary_tensor_data",
            "classification",
            "model_configuration",
            "statistics",
        ],
    }


def test_the_list_of_models(server: RunningServer) -> None:
    names = server.get("/v2/models").json()["models"]
    assert names[:3] == ["dense", "two", "classifier"]
    assert len(names) == len(set(names))


def test_model_metadata(server: RunningServer) -> None:
    document = server.get("/v2/models/two").json()
    assert document.pop("properties")["digest"].startswith("sha256:")
    assert document == {
        "name": "two",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "b", "datatype": "INT64", "shape": [-1, 2]},
        ],
        "outputs": [{"name": "total", "datatype": "FP32", "shape": [-1]}],
    }
    assert server.get("/v2/models/dense").json()["versions"] == ["1", "2"]
    assert server.get("/v2/models/dense/versions/1").json()["name"] == "dense"
    types = server.get("/v2/models/types").json()
    assert [spec["datatype"] for spec in types["inputs"]] == [DATATYPES[d] for d in VALUES]


@SIZES
@pytest.mark.parametrize("nested", [False, True])
def test_infer(server: RunningServer, nested: bool, padding: bytes) -> None:
    changes = {"data": ROWS.tolist()} if nested else {}
    answer = infer(server, "dense", {"inputs": [item("x", ROWS, **changes)]}, padding)
    document = answer.json()
    assert document["model_name"] == "dense"
    assert document["model_version"] == "2"
    assert document.keys() == {"model_name", "model_version", "outputs"}
    expected = reference(onnx_models.dense(1), {"x": ROWS})["y"]
    np.testing.assert_allclose(outputs_of(answer)["y"], expected, rtol=1e-5)


def test_versions(server: RunningServer) -> None:
    document = {"inputs": [item("x", ROWS)]}
    for version in (1, 2):
        answer = infer(server, f"dense/versions/{version}", document)
        assert answer.json()["model_version"] == str(version)
        expected = reference(onnx_models.dense(version - 1), {"x": ROWS})["y"]
        np.testing.assert_allclose(outputs_of(answer)["y"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "place", ["nothing", "dense/versions/3", "dense/versions/v1", f"dense/versions/{'9' * 3000}"]
)
def test_unknown_models_and_versions(server: RunningServer, place: str) -> None:
    for answer in (
        server.post(f"/v2/models/{place}/infer", {"inputs": [item("x", ROWS)]}),
        server.get(f"/v2/models/{place}"),
        server.get(f"/v2/models/{place}/ready"),
    ):
        assert answer.status == 404
        assert list(answer.json()) == ["error"]
        assert answer.headers["content-type"] == "application/json"


@SIZES
def test_the_id_comes_back(server: RunningServer, padding: bytes) -> None:
    for request_id in ("42", 'quo"te\\ 日本語', "x" * 3000):
        document = {"id": request_id, "inputs": [item("x", VALUES["int8"])]}
        assert infer(server, "same-int8", document, padding).json()["id"] == request_id
    for document in ({}, {"id": ""}, {"id": None}):
        document = {**document, "inputs": [item("x", VALUES["int8"])]}
        assert "id" not in infer(server, "same-int8", document, padding).json()
    error = refuse(server, "same-int8", {"id": 1, "inputs": [item("x", VALUES["int8"])]}, padding)
    assert "'id'" in error


@SIZES
def test_a_subset_of_the_outputs(server: RunningServer, padding: bytes) -> None:
    rows = item("x", ROWS[:, :3])
    for names in (["scores"], ["label"], ["scores", "label"], ["label", "scores"], []):
        document = {"inputs": [rows], "outputs": [{"name": name} for name in names]}
        got = outputs_of(infer(server, "classifier", document, padding))
        assert list(got) == (names or ["label", "scores"])


@SIZES
@pytest.mark.parametrize(
    "outputs",
    [
        [{"name": "other"}],
        [{"name": "label"}, {"name": "label"}],
        [{}],
        ["label"],
        [None],
        [[]],
        [{"name": 1}],
        [{"name": ["label"]}],
        {"name": "label"},
        "label",
        1,
    ],
    ids=str,
)
def test_outputs_that_do_not_exist(server: RunningServer, outputs: Any, padding: bytes) -> None:
    document = {"inputs": [item("x", ROWS[:, :3])], "outputs": outputs}
    assert "output" in refuse(server, "classifier", document, padding)


@SIZES
def test_parameters_are_accepted(server: RunningServer, padding: bytes) -> None:
    parameters = {"priority": 1, "sequence_id": "a", "debug": True, "list": [[1]], "empty": {}}
    document = {
        "parameters": parameters,
        "inputs": [item("x", VALUES["int8"], parameters={"content_type": "np"})],
        "outputs": [{"name": "y", "parameters": parameters}],
    }
    assert_same(outputs_of(infer(server, "same-int8", document, padding))["y"], VALUES["int8"])


@SIZES
def test_several_inputs_in_any_order(server: RunningServer, padding: bytes) -> None:
    a, b = np.array([[1, 2, 3], [0.5, 0, 0]], np.float32), np.array([[4, 5], [0, 0]])
    for inputs in ([item("a", a), item("b", b)], [item("b", b), item("a", a)]):
        got = outputs_of(infer(server, "two", {"inputs": inputs}, padding))
        assert got["total"].tolist() == [15, 0.5]


@SIZES
@pytest.mark.parametrize("dtype", IN_JSON)
def test_every_element_type_as_json(server: RunningServer, dtype: str, padding: bytes) -> None:
    values = VALUES[dtype]
    for data in (values.ravel().tolist(), values.tolist()):
        document = {"inputs": [item("x", values, data=data)]}
        assert_same(outputs_of(infer(server, f"same-{dtype}", document, padding))["y"], values)


@SIZES
@pytest.mark.parametrize("answer", ["json", "flag", "request-wide"])
@pytest.mark.parametrize("dtype", VALUES)
def test_every_element_type_as_binary(
    server: RunningServer, dtype: str, answer: str, padding: bytes
) -> None:
    values = VALUES[dtype]
    document: dict[str, Any] = {"inputs": [binary_item("x", values)]}
    if answer == "json" and dtype not in IN_JSON:
        assert "FP16" in refuse(server, f"same-{dtype}", document, padding, raw(values))
        return
    if answer == "flag":
        document["outputs"] = [{"name": "y", "parameters": {"binary_data": True}}]
    elif answer == "request-wide":
        document["parameters"] = {"binary_data_output": True}
    got = infer(server, f"same-{dtype}", document, padding, raw(values))
    assert (HEADER in got.headers) == (answer != "json")
    assert_same(outputs_of(got)["y"], values)


def test_all_element_types_in_one_request(server: RunningServer) -> None:
    """JSON and binary inputs mixed, and so are the outputs."""
    as_binary = {dtype for index, dtype in enumerate(VALUES) if index % 2 == 0} | {"float16"}
    inputs = [
        (binary_item if dtype in as_binary else item)(f"in_{dtype}", values)
        for dtype, values in VALUES.items()
    ]
    buffers = b"".join(raw(values) for dtype, values in VALUES.items() if dtype in as_binary)
    outputs = [
        {
            "name": f"out_{dtype}",
            "parameters": {"binary_data": index % 3 == 0 or dtype not in IN_JSON},
        }
        for index, dtype in enumerate(VALUES)
    ]
    for padding in (b"", b" " * 2000):
        answer = infer(server, "types", {"inputs": inputs, "outputs": outputs}, padding, buffers)
        got = outputs_of(answer)
        assert list(got) == [f"out_{dtype}" for dtype in VALUES]
        for dtype, values in VALUES.items():
            assert_same(got[f"out_{dtype}"], values)


@pytest.mark.parametrize("dtype", ["int16", "int64", "float64"])
def test_buffers_need_no_alignment(server: RunningServer, dtype: str) -> None:
    values = VALUES[dtype]
    for spaces in range(9):
        document = {"inputs": [binary_item("x", values)]}
        answer = infer(server, f"same-{dtype}", document, b" " * spaces, raw(values))
        assert_same(outputs_of(answer)["y"], values)


@SIZES
def test_nan_and_infinity(server: RunningServer, padding: bytes) -> None:
    body = (
        b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", '
        b'"data": [NaN, -Infinity]}]}'
    )
    answer = infer(server, "same-float32", body, padding)
    assert b'"data":[NaN,-Infinity]' in answer.body
    payload = struct.pack("<II", 0x7FC12345, 0xFF800000)
    document = {
        "parameters": {"binary_data_output": True},
        "inputs": [binary_item("x", np.frombuffer(payload, np.float32).reshape(1, 2))],
    }
    assert infer(server, "same-float32", document, padding, payload).body.endswith(payload)


def test_the_flag_of_an_output_is_stronger(server: RunningServer) -> None:
    rows = [item("x", ROWS[:, :3])]
    outputs: Sequence[Mapping[str, Any]] = [
        {"name": "label"},
        {"name": "scores", "parameters": {"binary_data": False}},
    ]
    document = {
        "parameters": {"binary_data_output": True}, "inputs": rows, "outputs": outputs
    }  # fmt: skip
    answer = infer(server, "classifier", document)
    head = json.loads(answer.body[: int(answer.headers[HEADER])])
    assert ["data" in output for output in head["outputs"]] == [False, True]
    assert outputs_of(answer)["label"].dtype == np.int64


@pytest.mark.parametrize("dtype", [dtype for dtype in VALUES if dtype != "string"])
def test_raw_requests(server: RunningServer, dtype: str) -> None:
    """Header 0: the body is the one input, and the answer is binary."""
    values = VALUES[dtype]
    answer = server.post(f"/v2/models/same-{dtype}/infer", raw(values), {HEADER: "0"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert_same(outputs_of(answer)["y"], values)


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        ("two", b"\0" * 28, "one input"),
        ("same-float32", b"\0" * 9, "9 bytes"),
        ("same-float32", b"\0" * 12, "x"),
        ("same-string", b"\1\0\0\0a", "shape"),
        ("same-bool", b"\2\0", "BOOL"),
    ],
)
def test_raw_requests_that_do_not_fit(
    server: RunningServer, model: str, body: bytes, message: str
) -> None:
    answer = server.post(f"/v2/models/{model}/infer", body, {HEADER: "0"})
    assert answer.status == 400
    assert message in answer.json()["error"]


def test_scalars_and_vectors(server: RunningServer) -> None:
    for data in ([2.5], 2.5):
        document = {"inputs": [item("x", np.float32(2.5).reshape(()), data=data)]}
        assert_same(outputs_of(infer(server, "scalar", document))["y"], np.array(2.5, np.float32))
    one = np.array(2.5, np.float32)
    answer = infer(server, "scalar", {"inputs": [binary_item("x", one)]}, b"", raw(one))
    assert_same(outputs_of(answer)["y"], one)
    vector = np.array([1, 2.5], np.float32)
    assert_same(outputs_of(infer(server, "vector", {"inputs": [item("x", vector)]}))["y"], vector)


@SIZES
@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2), (0, 0, 2)])
def test_dimensions_of_size_zero(
    server: RunningServer, shape: tuple[int, ...], padding: bytes
) -> None:
    empty = np.zeros(shape, np.float32)
    answer = infer(server, "cube", {"inputs": [item("x", empty)]}, padding)
    assert_same(outputs_of(answer)["y"], empty)
    document = {
        "parameters": {"binary_data_output": True},
        "inputs": [binary_item("x", empty)],
    }
    head = padding + json.dumps(document).encode()
    answer = server.post("/v2/models/cube/infer", head, {HEADER: str(len(head))})
    assert answer.status == 200
    assert_same(outputs_of(answer)["y"], empty)


def test_requests_need_no_content_type(server: RunningServer) -> None:
    document = {"inputs": [item("x", VALUES["int8"])]}
    for content_type in ("", "application/x-www-form-urlencoded", "application/octet-stream"):
        answer = server.post("/v2/models/same-int8/infer", document, {"Content-Type": content_type})
        assert answer.status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/dense/infer"),
        ("GET", "/v2/models/dense/versions/1/infer"),
        ("POST", "/v2/models/dense"),
        ("POST", "/v2/models/dense/ready"),
        ("POST", "/v2/health/live"),
        ("PUT", "/v2/health/ready"),
        ("DELETE", "/v2/models/dense"),
        ("POST", "/v2"),
        ("PATCH", "/v2/models"),
    ],
)
def test_wrong_methods(server: RunningServer, method: str, path: str) -> None:
    answer = server.request(method, path, b"" if method != "GET" else None)
    assert answer.status == 405
    assert answer.json() == {"error": "Method Not Allowed"}
    assert answer.headers["allow"] == ("POST" if method == "GET" else "GET")


@pytest.mark.parametrize(
    "path",
    [
        "/v2/nothing",
        "/v2/models/dense/other",
        "/v2/models/dense/versions",
        "/v2/models/dense/infer/",
        "/v2/health",
        "/v2/models//infer",
        "/favicon.ico",
        "/v3",
    ],
)
def test_unknown_paths(server: RunningServer, path: str) -> None:
    for method in ("GET", "POST"):
        answer = server.request(method, path, b"{}" if method == "POST" else None)
        assert answer.status == 404
        assert answer.json() == {"error": "Not Found"}
        assert answer.headers["content-type"] == "application/json"


def test_names_are_percent_decoded(server: RunningServer) -> None:
    document = {"inputs": [item("x", VALUES["int8"])]}
    answer = server.post("/v2/models/same%2Dint8/infer", document)
    assert answer.json()["model_name"] == "same-int8"


def recurrent() -> bytes:
    """``x`` float32 [N, 3, 2] through an LSTM → ``y`` [1, N, 4]."""
    random = np.random.default_rng(0)
    weights = {"w": (1, 16, 2), "r": (1, 16, 4)}
    return onnx_models.model(
        [
            helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
            helper.make_node("LSTM", ["steps", "w", "r"], ["", "y", ""], hidden_size=4),
        ],
        [onnx_models.tensor("x", "float32", ("N", 3, 2))],
        [onnx_models.tensor("y", "float32", (1, "N", 4))],
        [
            onnx_models.constant(name, random.normal(size=shape).astype(np.float32))
            for name, shape in weights.items()
        ],
    )


@pytest.mark.parametrize("binary", [False, True])
def test_no_rows_for_a_recurrent_model(serve: Serve, tmp_path: Path, binary: bool) -> None:
    """ONNX Runtime would end the whole process."""
    ones, empty = np.ones((1, 3, 2), np.float32), np.zeros((0, 3, 2), np.float32)
    path = build_package(tmp_path / "recurrent", "recurrent", recurrent(), {"x": ones}).path
    server = serve([path])
    described = binary_item("x", empty) if binary else item("x", empty)
    answer = server.post("/v2/models/recurrent/infer", {"inputs": [described]})
    assert answer.status in (400, 500)
    assert "empty" in answer.json()["error"]
    assert server.process.poll() is None
    got = outputs_of(infer(server, "recurrent", {"inputs": [item("x", ones)]}))["y"]
    assert got.shape == (1, 1, 4)


def test_statistics_are_summed_over_workers(serve: Serve, tmp_path: Path) -> None:
    path = build_package(tmp_path / "dense", "dense", onnx_models.dense(), {"x": ROWS}).path
    server = serve([path], ["--workers", "2"])
    for _ in range(30):  # each on a connection of its own: both workers answer some
        infer(server, "dense", {"inputs": [item("x", ROWS)]})
    refuse(server, "dense", {"inputs": []})
    told = [server.get("/v2/models/dense/stats").json()["model_stats"][0] for _ in range(12)]
    for stats in told:
        assert stats["inference_count"] == 30 * len(ROWS)
        assert stats["inference_stats"]["success"]["count"] == 30
        assert stats["inference_stats"]["fail"]["count"] == 1
    # Batches are those of the worker that answers; of two workers each has its part.
    parts = {stats["batch_stats"][0]["compute_infer"]["count"] for stats in told}
    assert len(parts) == 1 or sum(parts) == 30
