"""TensorFlow Serving's REST API v1, over HTTP, against its contract."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.registry.stage import Registry
from modelport.stores.local import LocalStore

from . import onnx_models
from .packages import build_package, reference
from .running import RunningServer

ROWS = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
TEXT = np.array(["plain", "grüße", "日本語", ""], object)

#: Whitespace is JSON's to ignore, and makes the server take its parser for large bodies.
SIZES = pytest.mark.parametrize("padding", [b"", b" " * 2000], ids=["small", "large"])


@pytest.fixture(scope="module")
def server(module_path: Path) -> Iterator[RunningServer]:
    def package(name: str, model: bytes, folder: str = "", **golden: Any) -> Path:
        inputs = {key: np.asarray(value) for key, value in golden.items()}
        return build_package(module_path / (folder or name), name, model, inputs).path

    floats = np.array([[1, 2], [3, 4]], np.float32)
    models: list[Path | str] = [
        package("dense", onnx_models.dense(0), x=ROWS),
        package("dense", onnx_models.dense(1), "dense-newer", x=ROWS),
        package("two", onnx_models.sum_of_two(), a=ROWS[:2, :3], b=np.array([[1, 2], [3, 4]])),
        package("classifier", onnx_models.classifier(), x=ROWS[:, :3]),
        package("summary", onnx_models.summary(), x=floats),
        package("text", onnx_models.identity("string", ("N",)), x=TEXT),
        package("grid", onnx_models.identity("string", ("N", 2)), x=TEXT.reshape(2, 2)),
        package("blob", onnx_models.identity("string", ("N",), "y_bytes"), x=TEXT),
        package("word", onnx_models.identity("string", ()), x=np.array("one", object)),
        package("scalar", onnx_models.identity("float32", ()), x=np.float32(1)),
        package("vector", onnx_models.identity("float32", ("N",)), x=floats[0]),
        *(
            package(f"same-{dtype}", onnx_models.identity(dtype), x=floats.astype(dtype))
            for dtype in onnx_models.NUMERIC_TYPES
        ),
    ]
    registry = Registry(LocalStore(module_path / "server" / "registry"))
    for seed in range(2):
        folder = module_path / f"labelled-{seed}"
        registry.push(
            build_package(folder, "labelled", onnx_models.dense(seed), {"x": ROWS}),
        )
    registry.promote("labelled", 1, "stable")
    registry.promote("labelled", 2, "canary")
    models += ["labelled@stable", "labelled@canary"]
    with RunningServer(module_path / "server", models) as running:
        yield running


def predict(server: RunningServer, model: str, document: Any, padding: bytes = b"") -> Any:
    """The answer to a request that must succeed."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    answer = server.post(f"/v1/models/{model}:predict", padding + body)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def refuse(server: RunningServer, model: str, document: Any, padding: bytes = b"") -> str:
    """The error of a request that must be answered with 400."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    answer = server.post(f"/v1/models/{model}:predict", padding + body)
    assert answer.status == 400, answer.body
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert list(document) == ["error"]
    return str(document["error"])


@SIZES
def test_rows(server: RunningServer, padding: bytes) -> None:
    expected = reference(onnx_models.dense(1), {"x": ROWS})["y"]
    answer = predict(server, "dense", {"instances": ROWS.tolist()}, padding)
    assert list(answer) == ["predictions"]
    np.testing.assert_allclose(answer["predictions"], expected, rtol=1e-5)


@SIZES
def test_columns(server: RunningServer, padding: bytes) -> None:
    expected = reference(onnx_models.dense(1), {"x": ROWS})["y"]
    for inputs in (ROWS.tolist(), {"x": ROWS.tolist()}):
        answer = predict(server, "dense", {"inputs": inputs}, padding)
        assert list(answer) == ["outputs"]
        np.testing.assert_allclose(answer["outputs"], expected, rtol=1e-5)


@SIZES
def test_named_rows_of_a_single_input(server: RunningServer, padding: bytes) -> None:
    rows = [{"x": row} for row in [[1.5, 2.0], [3.0, 4.0]]]
    assert predict(server, "same-float32", {"instances": rows}, padding) == {
        "predictions": [[1.5, 2.0], [3.0, 4.0]]
    }


@SIZES
def test_several_inputs(server: RunningServer, padding: bytes) -> None:
    rows = [{"a": [1, 2, 3], "b": [4, 5]}, {"b": [0, 0], "a": [0.5, 0, 0]}]
    assert predict(server, "two", {"instances": rows}, padding) == {"predictions": [15.0, 0.5]}
    columns = {"a": [[1, 2, 3], [0.5, 0, 0]], "b": [[4, 5], [0, 0]]}
    assert predict(server, "two", {"inputs": columns}, padding) == {"outputs": [15.0, 0.5]}


@SIZES
def test_columns_that_the_model_does_not_know_are_ignored(
    server: RunningServer, padding: bytes
) -> None:
    columns = {"a": [[1, 2, 3]], "b": [[4, 5]], "c": [[[]], 1]}
    assert predict(server, "two", {"inputs": columns}, padding) == {"outputs": [15.0]}


@SIZES
@pytest.mark.parametrize(
    "rows",
    [
        [{"a": [1, 2, 3]}],
        [{"a": [1, 2, 3], "b": [1, 2], "c": [1]}],
        [{"a": [1, 2, 3], "b": [4, 5]}, {"a": [1, 2, 3]}],
        [{"a": [1, 2, 3], "b": [4, 5]}, [1, 2, 3]],
        [{"a": [1, 2, 3], "b": [4, 5]}, 7],
        [{}],
    ],
)
def test_every_row_has_exactly_the_inputs(
    server: RunningServer, rows: list[Any], padding: bytes
) -> None:
    error = refuse(server, "two", {"instances": rows}, padding)
    assert "the model takes a, b" in error
    assert f"instances[{len(rows) - 1}]" in error


def test_plain_rows_need_a_single_input(server: RunningServer) -> None:
    error = refuse(server, "two", {"instances": [[1, 2, 3]]})
    assert error.startswith("instances is a plain list, but expecting list of objects")
    assert "a, b" in refuse(server, "two", {"inputs": [[1, 2, 3]]})


def test_missing_columns_are_named(server: RunningServer) -> None:
    error = refuse(server, "two", {"inputs": {"a": [[1, 2, 3]]}})
    assert error == "Missing named input: b in 'inputs' object."


def test_several_outputs_by_row(server: RunningServer) -> None:
    rows = [[1, 0, 0], [0, 0, 1]]
    expected = reference(onnx_models.classifier(), {"x": np.array(rows, np.float32)})
    answer = predict(server, "classifier", {"instances": rows})["predictions"]
    assert [row["label"] for row in answer] == [0, 2]
    np.testing.assert_allclose([row["scores"] for row in answer], expected["scores"], rtol=1e-6)
    assert all(row.keys() == {"label", "scores"} for row in answer)


def test_several_outputs_by_column(server: RunningServer) -> None:
    answer = predict(server, "classifier", {"inputs": [[1, 0, 0], [0, 0, 1]]})["outputs"]
    assert answer.keys() == {"label", "scores"}
    assert answer["label"] == [0, 2]
    assert np.shape(answer["scores"]) == (2, 3)


def test_rows_need_outputs_with_one_batch_size(server: RunningServer) -> None:
    assert "batch size" in refuse(server, "summary", {"instances": [[1, 2], [3, 6]]})
    assert predict(server, "summary", {"inputs": [[1, 2], [3, 6]]}) == {
        "outputs": {"rows": [[1.0, 2.0], [3.0, 6.0]], "mean": 3.0}
    }


def test_neither_both_or_empty(server: RunningServer) -> None:
    assert "Missing 'inputs' or 'instances' key" in refuse(server, "dense", {})
    assert "not both" in refuse(server, "dense", {"inputs": [1], "instances": [1]})
    assert "instances" in refuse(server, "dense", {"instances": []})


def test_unknown_top_level_keys_are_ignored(server: RunningServer) -> None:
    document = {"extra": {"deep": [1, [2]]}, "inputs": [[1, 2]], "context": None}
    assert predict(server, "same-int32", document) == {"outputs": [[1, 2]]}


@SIZES
@pytest.mark.parametrize("form", ["instances", "inputs"])
@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("bool", [[True, False]]),
        ("int8", [[-128, 127]]),
        ("int16", [[-32768, 32767]]),
        ("int32", [[-(2**31), 2**31 - 1]]),
        ("int64", [[-(2**63), 2**63 - 1], [2**53 + 1, -1]]),
        ("uint8", [[0, 255]]),
        ("uint32", [[0, 2**32 - 1]]),
        ("uint64", [[0, 2**64 - 1], [2**53 + 1, 2**63 + 1]]),
        ("float32", [[1, -0.0], [3.5, 16777216]]),
        ("float64", [[0.1, 1e-300], [-1e300, 5e-324]]),
    ],
)
def test_values_survive(
    server: RunningServer, dtype: str, values: list[Any], form: str, padding: bytes
) -> None:
    answer = predict(server, f"same-{dtype}", {form: values}, padding)
    got = answer["predictions" if form == "instances" else "outputs"]
    assert got == values
    assert str(got) == str(np.array(values, dtype).tolist())  # also the kind, and the sign of 0


@SIZES
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *(
            (dtype, value)
            for dtype in ("float32", "float64", "int32", "int64", "uint8", "bool")
            for value in ('"1"', "null", '{"b64": "AAAA"}', "{}")
        ),
        *((dtype, value) for dtype in ("float32", "int64", "uint64") for value in ("true",)),
        *((dtype, value) for dtype in ("int8", "int64", "uint64") for value in ("1.0", "NaN")),
        *(("bool", value) for value in ("0", "1", "1.0")),
        *(("int8", value) for value in ("128", "-129")),
        *(("uint8", value) for value in ("-1", "256")),
        *(("int32", value) for value in ("2147483648", "-2147483649")),
        *(("int64", value) for value in ("9223372036854775808", "-9223372036854775809")),
        *(("uint64", value) for value in ("-1", "18446744073709551616")),
    ],
)
def test_no_value_is_coerced(server: RunningServer, dtype: str, value: str, padding: bytes) -> None:
    good = {"bool": "true"}.get(dtype, "1")
    for values in (f"[[{good}, {value}]]", f"[[{value}, {good}]]"):
        for key in ("instances", "inputs"):
            error = refuse(server, f"same-{dtype}", f'{{"{key}": {values}}}'.encode(), padding)
            assert "input x" in error


@SIZES
@pytest.mark.parametrize("dtype", ["float16", "uint16"])
def test_types_that_rest_does_not_read(server: RunningServer, dtype: str, padding: bytes) -> None:
    for key in ("instances", "inputs"):
        body = padding + json.dumps({key: [[1, 2]]}).encode()
        answer = server.post(f"/v1/models/same-{dtype}:predict", body)
        assert answer.status == 501
        assert "Conversion of JSON values to type" in answer.json()["error"]


@SIZES
@pytest.mark.parametrize(
    "rest", [b"}", b" {}", b"x", b"\x00", b"\xff\xfe", b'"', b" [NaN, Inf", b"\n" * 3000 + b"\\u"]
)
def test_what_follows_the_body_is_not_looked_at(
    server: RunningServer, rest: bytes, padding: bytes
) -> None:
    body = b'{"inputs": [[1.5, NaN]]}' + rest
    answer = server.post("/v1/models/same-float32:predict", padding + body)
    assert (answer.status, answer.body) == (200, b'{"outputs":[[1.5,NaN]]}')


@SIZES
def test_short_infinities(server: RunningServer, padding: bytes) -> None:
    body = b'{"a \\" Inf": "Inf", "inputs": [[Inf, -Inf], [Infinity, 1]]}'
    answer = server.post("/v1/models/same-float32:predict", padding + body)
    assert answer.body == b'{"outputs":[[Infinity,-Infinity],[Infinity,1.0]]}'
    error = refuse(server, "same-float32", b'{"inputs": [[Inf, Infx]]}', padding)
    assert error.startswith("JSON Parse error: ")


@SIZES
def test_too_large_for_float32_is_infinity(server: RunningServer, padding: bytes) -> None:
    answer = predict(server, "same-float32", b'{"inputs": [[1e39, -1e300]]}', padding)
    assert answer == {"outputs": [[np.inf, -np.inf]]}


@SIZES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_and_infinity_are_bare_tokens_both_ways(
    server: RunningServer, dtype: str, padding: bytes
) -> None:
    body = padding + b'{"instances": [[NaN, 1.5], [Infinity, -Infinity]]}'
    answer = server.post(f"/v1/models/same-{dtype}:predict", body)
    assert answer.status == 200
    assert b"".join(answer.body.split()) == b'{"predictions":[[NaN,1.5],[Infinity,-Infinity]]}'


def test_scalars(server: RunningServer) -> None:
    assert predict(server, "scalar", {"inputs": 2.5}) == {"outputs": 2.5}
    assert predict(server, "scalar", {"inputs": {"x": 3}}) == {"outputs": 3.0}
    assert predict(server, "vector", {"instances": [1, 2.5]}) == {"predictions": [1.0, 2.5]}
    assert predict(server, "vector", {"inputs": [1, 2.5]}) == {"outputs": [1.0, 2.5]}
    assert predict(server, "word", {"inputs": "two"}) == {"outputs": "two"}


def test_a_scalar_output_may_be_nan(server: RunningServer) -> None:
    answer = server.post("/v1/models/scalar:predict", b'{"inputs": NaN}')
    assert answer.body == b'{"outputs":NaN}'


@SIZES
def test_strings(server: RunningServer, padding: bytes) -> None:
    values = [*TEXT.tolist(), 'quo"te\\', "\x00\n\x7f", "\U0001f600"]
    assert predict(server, "text", {"instances": values}, padding) == {"predictions": values}
    assert predict(server, "text", {"inputs": values}, padding) == {"outputs": values}
    assert predict(server, "grid", {"instances": [["a", "b"]]}, padding) == {
        "predictions": [["a", "b"]]
    }


@SIZES
@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_base64(server: RunningServer, form: str, padding: bytes) -> None:
    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    values = [{"b64": encoded("grüße")}, "plain", {"b64": encoded("a").rstrip("=")}, {"b64": ""}]
    key = "predictions" if form == "instances" else "outputs"
    assert predict(server, "text", {form: values}, padding) == {key: ["grüße", "plain", "a", ""]}
    rows = [[{"b64": encoded("a")}, "b"], ["c", {"b64": encoded("d")}]]
    assert predict(server, "grid", {form: rows}, padding) == {key: [["a", "b"], ["c", "d"]]}


def test_base64_of_a_scalar_and_in_named_rows(server: RunningServer) -> None:
    one = {"b64": base64.b64encode(b"one").decode()}
    assert predict(server, "word", {"inputs": one}) == {"outputs": "one"}
    assert predict(server, "word", {"inputs": {"x": one}}) == {"outputs": "one"}
    assert predict(server, "text", {"instances": [{"x": one}]}) == {"predictions": ["one"]}


def test_outputs_named_bytes_are_base64(server: RunningServer) -> None:
    expected = [{"b64": base64.b64encode(text.encode()).decode()} for text in TEXT]
    assert predict(server, "blob", {"instances": TEXT.tolist()}) == {"predictions": expected}


@SIZES
@pytest.mark.parametrize("text", ["%%%%", "A", "ÿ", "/w=="], ids=ascii)
def test_bad_base64(server: RunningServer, text: str, padding: bytes) -> None:
    document = {"instances": [{"b64": text}]}
    assert refuse(server, "text", document, padding) == "Unable to base64 decode"


@SIZES
@pytest.mark.parametrize("value", [1, 1.5, True, None, {}, {"b64": 1}, {"b64": "", "c": 1}])
def test_strings_are_not_made_of_other_values(
    server: RunningServer, value: Any, padding: bytes
) -> None:
    assert "input x needs string" in refuse(server, "text", {"inputs": ["a", value]}, padding)


@pytest.mark.parametrize("name", ["", "serving_default"])
def test_the_signature_name(server: RunningServer, name: str) -> None:
    document = {"signature_name": name, "inputs": [[1, 2]]}
    assert predict(server, "same-int32", document) == {"outputs": [[1, 2]]}


def test_wrong_signature_names(server: RunningServer) -> None:
    error = refuse(server, "same-int32", {"signature_name": "other", "inputs": [[1, 2]]})
    assert error.startswith("Serving signature name: ")
    assert "other" in error
    assert "not found in signature def" in error
    error = refuse(server, "same-int32", {"signature_name": 1, "inputs": [[1, 2]]})
    assert "'signature_name'" in error


@pytest.mark.parametrize(
    ("place", "seed"),
    [
        ("dense", 1),
        ("dense/versions/1", 0),
        ("dense/versions/2", 1),
        ("dense/versions/0002", 1),
        # What OpenVINO's client says for whichever is served.
        ("dense/versions/0", 1),
        ("labelled", 1),
        ("labelled/versions/1", 0),
        ("labelled/labels/stable", 0),
        ("labelled/labels/canary", 1),
        ("labelled/labels/%63anary", 1),
    ],
)
def test_versions_and_labels(server: RunningServer, place: str, seed: int) -> None:
    expected = reference(onnx_models.dense(seed), {"x": ROWS})["y"]
    answer = predict(server, place, {"instances": ROWS.tolist()})
    np.testing.assert_allclose(answer["predictions"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("place", "status", "message"),
    [
        ("nothing", 404, "Servable not found for request: Latest(nothing); there is: "),
        ("DENSE", 404, "Latest(DENSE)"),
        ("dense/versions/3", 404, "Servable not found for request: Specific(dense, 3)"),
        ("dense/versions/9223372036854775807", 404, "9223372036854775807"),
        ("dense/versions/9223372036854775808", 400, "Failed to convert version"),
        (f"dense/versions/{'9' * 5000}", 400, "Failed to convert version"),
        ("dense/labels/stable", 400, "Unrecognized servable version label: stable"),
        ("labelled/labels/champion", 400, "champion"),
    ],
)
def test_unknown_models_versions_and_labels(
    server: RunningServer, place: str, status: int, message: str
) -> None:
    posted = server.post(f"/v1/models/{place}:predict", {"instances": ROWS.tolist()})
    assert posted.status == status
    assert message in posted.json()["error"]
    got = server.get(f"/v1/models/{place}/metadata")
    assert got.status == status
    assert message in got.json()["error"]
    assert posted.headers["content-type"] == got.headers["content-type"] == "application/json"


def state(version: int) -> dict[str, Any]:
    return {
        "version": str(version),
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }


@pytest.mark.parametrize(
    ("place", "versions"),
    [
        ("dense/versions/1", [1]),
        ("dense/versions/0", [1, 2]),
        # A label is not resolved here: all versions are listed.
        ("labelled/labels/stable", [1, 2]),
    ],
)
def test_status(server: RunningServer, place: str, versions: list[int]) -> None:
    answer = server.get(f"/v1/models/{place}")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"model_version_status": [state(version) for version in versions]}


@pytest.mark.parametrize(("name", "versions"), [("two", [1]), ("dense", [1, 2])])
def test_status_of_a_model_is_that_of_kserve_too(
    server: RunningServer, name: str, versions: list[int]
) -> None:
    answer = server.get(f"/v1/models/{name}")
    assert answer.status == 200
    states = [state(version) for version in versions]
    assert answer.json() == {"name": name, "ready": True, "model_version_status": states}


def test_status_of_what_is_unknown(server: RunningServer) -> None:
    answer = server.get("/v1/models/nothing")
    assert answer.status == 404
    assert answer.json()["error"].startswith("Could not find any versions of model nothing; there")
    answer = server.get("/v1/models/dense/versions/7")
    assert answer.status == 404
    assert answer.json() == {"error": "Could not find version 7 of model dense; there is: 1, 2"}


def tensor_info(name: str, dtype: str, *sizes: str) -> dict[str, Any]:
    dimensions = [{"size": size, "name": ""} for size in sizes]
    return {
        "dtype": dtype,
        "tensor_shape": {"dim": dimensions, "unknown_rank": False},
        "name": name,
    }


def test_metadata(server: RunningServer) -> None:
    answer = server.get("/v1/models/two/metadata")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    definition = {
        "inputs": {
            "a": tensor_info("a", "DT_FLOAT", "-1", "3"),
            "b": tensor_info("b", "DT_INT64", "-1", "2"),
        },
        "outputs": {"total": tensor_info("total", "DT_FLOAT", "-1")},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    assert answer.json() == {
        "model_spec": {"name": "two", "signature_name": "", "version": "1"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": definition}}},
    }


def test_metadata_of_one_version_and_of_a_scalar(server: RunningServer) -> None:
    def spec(place: str) -> Any:
        return server.get(f"/v1/models/{place}/metadata").json()["model_spec"]["version"]

    assert spec("dense") == "2"
    assert spec("dense/versions/1") == "1"
    assert spec("labelled/labels/stable") == "1"
    scalar = server.get("/v1/models/scalar/metadata").json()
    signature = scalar["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["tensor_shape"] == {"dim": [], "unknown_rank": False}


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("string", "DT_STRING"), ("float64", "DT_DOUBLE"), ("bool", "DT_BOOL"), ("uint8", "DT_UINT8")],
)
def test_element_types_in_metadata(server: RunningServer, dtype: str, name: str) -> None:
    model = "text" if dtype == "string" else f"same-{dtype}"
    document = server.get(f"/v1/models/{model}/metadata").json()
    signature = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == name


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/dense"),
        ("POST", "/v1/models/dense:Predict:predict"),
        ("POST", "/v1/models/dense:predict/"),
        ("GET", "/v1/models/dense:explain"),
        ("POST", "/v1/models/dense/metadata"),
        ("POST", "/v1/models/dense/versions/one:predict"),
        ("POST", "/v1/models/dense/versions/-1:predict"),
        ("POST", "/v1/models/dense/versions/1.0:predict"),
        ("POST", "/v1/models/dense/versions/:predict"),
        ("POST", "/v1/models/dense/version/1:predict"),
        ("POST", "/v1/models/dense/versions/1/labels/stable:predict"),
        ("POST", "/v1/models/:predict"),
        ("POST", "/v1/models//versions/1:predict"),
        ("POST", "/v1/models/dense:predict:predict"),
        ("POST", "/v1/models"),
        ("GET", "/v1/models/dense:predict"),
        ("GET", "/v1/models/dense/versions/one"),
        ("GET", "/v1/models/dense/metadata/"),
        ("GET", "/v1/models/dense/versions/1/labels/stable"),
        ("GET", "/v1/"),
        ("GET", "/v1/other"),
        ("PUT", "/v1/models/dense:predict"),
        ("DELETE", "/v1/models/dense"),
    ],
)
def test_malformed_requests(server: RunningServer, method: str, path: str) -> None:
    answer = server.request(method, path, b"{}" if method in ("POST", "PUT") else None)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"error": f"Malformed request: {method} {path}"}


@pytest.mark.parametrize("path", ["/v1", "/v1x", "/v1x/models/dense", "/v10/models/dense"])
def test_paths_of_others_are_unknown(server: RunningServer, path: str) -> None:
    for method in ("GET", "POST"):
        assert server.request(method, path, b"{}" if method == "POST" else None).status == 404


def test_paths_ignore_case_and_names_do_not(server: RunningServer) -> None:
    assert server.get("/V1/Models/dense/Versions/1").status == 200
    assert server.get("/v1/MODELS/dense/METADATA").status == 200
    assert server.post("/V1/MODELS/same-int32:PREDICT", {"inputs": [[1, 2]]}).status == 200
    assert server.post("/v1/models/Same-int32:predict", {"inputs": [[1, 2]]}).status == 404


def test_names_are_percent_decoded(server: RunningServer) -> None:
    assert server.get("/v1/models/%64ense").json() == server.get("/v1/models/dense").json()
    answer = server.post("/v1/models/same%2Dint32:predict", {"inputs": [[1, 2]]})
    assert answer.json() == {"outputs": [[1, 2]]}
    for path in ("/v1/models/%E2%82%AC", "/v1/models/%ff", "/v1/models/%00", "/v1/models/%zz"):
        assert server.get(path).status == 404


def test_the_query_is_not_part_of_the_path(server: RunningServer) -> None:
    assert server.get("/v1/models/dense?versions=7").status == 200
    answer = server.post("/v1/models/same-int32:predict?x=/y:z", {"inputs": [[1, 2]]})
    assert answer.json() == {"outputs": [[1, 2]]}


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/x-www-form-urlencoded", "text/plain", ""]
)
def test_the_content_type_is_not_looked_at(server: RunningServer, content_type: str) -> None:
    answer = server.post(
        "/v1/models/same-int32:predict", {"inputs": [[1, 2]]}, {"Content-Type": content_type}
    )
    assert answer.json() == {"outputs": [[1, 2]]}
