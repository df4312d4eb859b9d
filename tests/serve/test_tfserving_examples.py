"""Classify and regress over REST, and the examples that both transports read."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.core.errors import InputError, SignatureError
from modelport.core.signature import Signature
from modelport.core.tensors import TensorSpec
from modelport.serve.json_codec import parse_object
from modelport.serve.protos import message
from modelport.serve.tfserving.classes import ClassOutputs, class_outputs, classes_of, value_output
from modelport.serve.tfserving.examples import read_json, read_proto, to_tensors

from . import onnx_models
from .packages import build_package, reference
from .running import RunningServer

SIZES = pytest.mark.parametrize("padding", [b"", b" " * 2000], ids=["small", "large"])
X = TensorSpec("x", "float32", ("N", 2))
SCORES = TensorSpec("scores", "float32", ("N", 3))


@pytest.fixture(scope="module")
def server(module_path: Path) -> Iterator[RunningServer]:
    def package(name: str, model: bytes, **golden: Any) -> Path:
        inputs = {key: np.asarray(value) for key, value in golden.items()}
        return build_package(module_path / name, name, model, inputs).path

    rows = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
    models = [
        package("classifier", onnx_models.classifier(), x=rows[:, :3]),
        package("dense", onnx_models.dense(0), x=rows),
        package("two", onnx_models.sum_of_two(), a=rows[:2, :3], b=np.array([[1, 2], [3, 4]])),
        package("same", onnx_models.identity("float32"), x=rows[:, :2]),
        package("vector", onnx_models.identity("float32", ("N",)), x=rows[0]),
        package("text", onnx_models.identity("string", ("N",)), x=np.array(["a"], object)),
    ]
    with RunningServer(module_path / "server", models) as running:
        yield running


def post(server: RunningServer, path: str, document: Any, padding: bytes = b"") -> Any:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    answer = server.post(f"/v1/models/{path}", padding + body)
    assert answer.headers["content-type"] == "application/json"
    return answer.status, answer.json()


@SIZES
def test_classify(server: RunningServer, padding: bytes) -> None:
    rows = [[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]]
    document = {"examples": [{"x": row, "ignored": "y"} for row in rows]}
    status, answer = post(server, "classifier:classify", document, padding)
    assert (status, list(answer)) == (200, ["results"])
    expected = reference(onnx_models.classifier(), {"x": np.array(rows, np.float32)})["scores"]
    assert [[label for label, _ in row] for row in answer["results"]] == [["0", "1", "2"]] * 2
    scores = [[score for _, score in row] for row in answer["results"]]
    np.testing.assert_array_equal(np.array(scores, np.float32), expected)
    # In the other spelling, and by version.
    for path in ("classifier/versions/1:CLASSIFY", "classifier/versions/0:classify"):
        assert post(server, path, document, padding) == (200, answer)


@SIZES
def test_not_a_number_is_a_bare_token(server: RunningServer, padding: bytes) -> None:
    body = padding + b'{"examples": [{"x": [NaN, 0.5]}]}'
    answer = server.post("/v1/models/same:classify", body)
    assert answer.body == b'{"results":[[["0",NaN],["1",0.5]]]}'
    answer = server.post("/v1/models/vector:regress", b'{"examples": [{"x": -Infinity}, {"x": 2}]}')
    assert answer.body == b'{"results":[-Infinity,2.0]}'


def test_regress(server: RunningServer) -> None:
    document = {"examples": [{"a": [1.5, 2.0, 3.0], "b": [4, 5]}, {"a": [0, 0, 0], "b": [1, -1]}]}
    assert post(server, "two:regress", document) == (200, {"results": [15.5, 0.0]})
    document = {
        "context": {"b": [1, 1]},
        "examples": [{"a": [1, 1, 1]}, {"a": [0] * 3, "b": [2, 2]}],
    }
    assert post(server, "two:regress", document) == (200, {"results": [5.0, 4.0]})
    document = {"signature_name": "serving_default", "examples": [{"x": [0] * 8}]}
    status, answer = post(server, "dense:regress", document)
    assert (status, np.shape(answer["results"])) == (200, (1,))


@SIZES
@pytest.mark.parametrize(
    ("path", "document", "text"),
    [
        (
            "dense:classify",
            {"examples": [{"x": [1.0] * 8}]},
            "classification signature",
        ),
        ("text:classify", {"examples": [{"x": "a"}]}, "classification signature"),
        ("classifier:regress", {"examples": [{"x": [1] * 3}]}, "regression signature"),
        ("same:regress", {"examples": [{"x": [1] * 2}]}, "regression signature"),
        ("text:regress", {"examples": [{"x": "a"}]}, "regression signature"),
        ("classifier:classify", {}, "'examples' is expected and was not found"),
        ("classifier:classify", {"instances": [[1, 2, 3]]}, "'examples' is expected"),
        ("classifier:classify", {"examples": {"x": [1]}}, "an list/array"),
        ("classifier:classify", {"examples": None}, "an list/array"),
        ("classifier:classify", {"examples": []}, "is an empty array"),
        ("classifier:classify", {"examples": [[1, 2, 3]]}, "Example must be JSON object"),
        ("classifier:classify", {"examples": [1]}, "at examples[0]"),
        ("classifier:classify", {"context": [], "examples": [{}]}, "at context"),
        ("classifier:classify", {"context": None, "examples": [{}]}, "at context"),
        ("classifier:classify", {"examples": [{}]}, "Feature: x"),
        ("classifier:classify", {"examples": [{"x": [1] * 3}, {"y": 1}]}, "at examples[1]"),
        ("classifier:classify", {"examples": [{"x": [1, 2]}]}, "has 2 values, expected 3"),
        ("classifier:classify", {"examples": [{"x": []}]}, "has 0 values, expected 3"),
        ("classifier:classify", {"examples": [{"x": [1, 2.5, 3]}]}, "Unexpected element type"),
        ("classifier:classify", {"examples": [{"x": [1, "a", 3]}]}, "Unexpected element type"),
        ("classifier:classify", {"examples": [{"x": [[1, 2, 3]]}]}, "JSON type: Array"),
        ("classifier:classify", {"examples": [{"x": [None] * 3}]}, "JSON type: Null"),
        ("classifier:classify", {"examples": [{"x": [{}] * 3}]}, "JSON type: Object"),
        ("classifier:classify", {"examples": [{"x": ["a"] * 3}]}, "Data types don't match"),
        ("classifier:classify", {"examples": [{"x": {"b64": "!"}}]}, "Unable to base64 decode"),
        ("classifier:classify", {"examples": [{"x": [2**63] * 3}]}, "Only int64 is supported"),
        (
            "two:regress",
            {"examples": [{"a": [1, 2, 3], "b": [1.0, 2.0]}]},
            "Data types don't match",
        ),
        ("classifier:classify", {"signature_name": "o", "examples": [{}]}, "signature name"),
        ("classifier:classify", b"[]", "not a JSON object"),
        ("classifier:classify", b"", "JSON Parse error"),
        ("classifier:classify", b'{"examples": [' + b"[" * 9000, "JSON"),
    ],
)
def test_what_is_refused(
    server: RunningServer, path: str, document: Any, text: str, padding: bytes
) -> None:
    status, answer = post(server, path, document, padding)
    assert (status, list(answer)) == (400, ["error"])
    assert text in answer["error"]


def features(document: Any) -> Any:
    return read_json(parse_object(json.dumps(document).encode()))


def test_columns_are_features() -> None:
    spec = TensorSpec("x", "float32", ("N", 3), columns=("age", "height", "weight"))
    signature = Signature((spec,), (SCORES,))
    rows = [{"weight": 3.5, "age": 1, "height": [2.0]}, {"age": 4, "height": 5, "weight": 6}]
    tensors = to_tensors(features({"examples": rows}), signature)
    np.testing.assert_array_equal(tensors["x"], [[1, 2, 3.5], [4, 5, 6]])
    assert tensors["x"].dtype == np.float32
    # Or the whole input by its own name.
    tensors = to_tensors(features({"examples": [{"x": [1, 2, 3]}]}), signature)
    np.testing.assert_array_equal(tensors["x"], [[1, 2, 3]])
    for row, text in (
        ({"age": 1, "height": 2}, "Feature: weight"),
        ({"age": [1, 2], "height": 2, "weight": 3}, "feature age has 2 values"),
        ({"age": "old", "height": 2, "weight": 3}, "Feature: age"),
    ):
        with pytest.raises(SignatureError, match=text):
            to_tensors(features({"examples": [row]}), signature)


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("int8", [-128, 127], [-128, 127]),
        ("uint64", [0, 2**63 - 1], [0, 2**63 - 1]),
        ("bool", [True, 0], [True, False]),
        ("int64", [True, 2], [1, 2]),
        ("float16", [1.5, -2.0], [1.5, -2.0]),
        ("float64", [0.1, 1e300], [0.1, 1e300]),
        ("float32", [1e39, 0.5], [np.inf, 0.5]),
        ("string", ["ü", "b"], ["ü", "b"]),
        ("string", [{"b64": base64.b64encode("ü".encode()).decode()}, "b"], ["ü", "b"]),
        ("bytes", ["ü", {"b64": "/w"}], ["ü".encode(), b"\xff"]),
    ],
)
def test_element_types(dtype: str, value: list[Any], expected: list[Any]) -> None:
    signature = Signature((TensorSpec("x", dtype, ("N", 2)),), (SCORES,))
    array = to_tensors(features({"examples": [{"x": value}]}), signature)["x"]
    assert array.shape == (1, 2)
    assert array[0].tolist() == expected


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int8", 128), ("uint8", -1), ("bool", 2), ("bool", "true"), ("string", {"b64": "/w"})],
)
def test_values_that_do_not_fit(dtype: str, value: Any) -> None:
    signature = Signature((TensorSpec("x", dtype, ("N",)),), (SCORES,))
    with pytest.raises(SignatureError, match="x"):
        to_tensors(features({"examples": [{"x": value}]}), signature)


def test_rows_of_any_length() -> None:
    open_row = Signature((TensorSpec("x", "float32", ("N", "L", 2)),), (SCORES,))
    tensors = to_tensors(features({"examples": [{"x": [1, 2, 3, 4]}, {"x": [5] * 4}]}), open_row)
    assert tensors["x"].shape == (2, 2, 2)
    for rows in ([[1, 2, 3]], [[1, 2], [1, 2, 3, 4]]):
        with pytest.raises(SignatureError, match="feature x has"):
            to_tensors(features({"examples": [{"x": row} for row in rows]}), open_row)
    for shape in ((), ("N", "L", "M")):
        signature = Signature((TensorSpec("x", "float32", shape),), (SCORES,))
        with pytest.raises(SignatureError, match="cannot be read from examples"):
            to_tensors(features({"examples": [{"x": 1}]}), signature)


def outputs(*specs: tuple[str, str, tuple[int | str, ...]]) -> Signature:
    return Signature((X,), tuple(TensorSpec(*spec) for spec in specs))


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (outputs(("y", "float32", ("N", 3))), ClassOutputs("y")),
        (outputs(("y", "float64", ("N", "C"))), ClassOutputs("y")),
        (
            outputs(("label", "int64", ("N",)), ("probabilities", "float32", ("N", 2))),
            ClassOutputs("probabilities"),
        ),
        (
            outputs(("logits", "float32", ("N", 2)), ("scores", "float32", ("N", 2))),
            ClassOutputs("scores"),
        ),
        # A labels step: texts come with their own scores.
        (
            outputs(
                ("scores", "float32", ("N", 3)),
                ("label", "string", ("N",)),
                ("probability", "float32", ("N",)),
            ),
            ClassOutputs("probability", "label"),
        ),
        (
            outputs(
                ("scores", "float32", ("N", 9)),
                ("labels", "string", ("N", 3)),
                ("probabilities", "float32", ("N", 3)),
            ),
            ClassOutputs("probabilities", "labels"),
        ),
        (outputs(("y", "float32", ("N",))), None),
        (outputs(("y", "float32", ("N", 1))), None),
        (outputs(("y", "int64", ("N", 3))), None),
        (outputs(("y", "float32", ("N", 3, 3))), None),
        (outputs(("label", "int64", ("N",)), ("distances", "float32", ("N", 3))), None),
        (outputs(("a", "float32", ("N", 3)), ("b", "float32", ("N", 3))), None),
        (outputs(("label", "string", ("N",))), None),
    ],
)
def test_who_is_a_classifier(signature: Signature, expected: ClassOutputs | None) -> None:
    if expected is not None:
        assert class_outputs(signature) == expected
    else:
        with pytest.raises(InputError, match="method_name"):
            class_outputs(signature)


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (outputs(("y", "float32", ("N",))), "y"),
        (outputs(("y", "float16", ("N", 1))), "y"),
        (outputs(("label", "int64", ("N",)), ("scores", "float32", ("N",))), "scores"),
        (outputs(("y", "float32", ("N", 2))), None),
        (outputs(("y", "float32", ("N", "C"))), None),
        (outputs(("y", "float32", ())), None),
        (outputs(("y", "int64", ("N",))), None),
        (outputs(("a", "float32", ("N",)), ("b", "float32", ("N",))), None),
        (outputs(("label", "string", ("N",)), ("probability", "float32", ("N",))), None),
    ],
)
def test_who_is_a_regressor(signature: Signature, expected: str | None) -> None:
    if expected is not None:
        assert value_output(signature) == expected
    else:
        with pytest.raises(InputError, match="method_name"):
            value_output(signature)


def test_labels() -> None:
    named = TensorSpec("scores", "float32", ("N", 2), columns=("cat", "dog"))
    scores = np.array([[0.25, 0.75]], np.float32)
    signature = Signature((X,), (named,))
    labels, _ = classes_of({"scores": scores}, class_outputs(signature), signature)
    assert labels == [["cat", "dog"]]
    texts = np.array([["dog", "cat"]], object)
    chosen = ClassOutputs("scores", "labels")
    labels, found = classes_of({"scores": scores, "labels": texts}, chosen, signature)
    assert (labels, found.tolist()) == ([["dog", "cat"]], [[0.25, 0.75]])
    one = np.array(["cat"], object)
    labels, found = classes_of({"scores": scores[0, :1], "labels": one}, chosen, signature)
    assert (labels, found.tolist()) == ([["cat"]], [[0.25]])


KINDS = {
    "float_list": st.floats(width=32),
    "int64_list": st.integers(-(2**63), 2**63 - 1),
    "bytes_list": st.binary(),
}


@given(st.data())
def test_both_transports_read_the_same(data: Any) -> None:
    """One example, as JSON and as a message."""
    example = message("tensorflow.Example")()
    row = {}
    for name in data.draw(st.sets(st.text(max_size=3), max_size=3)):
        kind = data.draw(st.sampled_from(sorted(KINDS)))
        values = data.draw(st.lists(KINDS[kind], min_size=1, max_size=3))
        getattr(example.features.feature[name], kind).value.extend(values)
        row[name] = [
            {"b64": base64.b64encode(v).decode()} if isinstance(v, bytes) else v for v in values
        ]
    (left,) = features({"examples": [row]})
    (right,) = read_proto([type(example).FromString(example.SerializeToString())])
    assert repr(dict(sorted(left.items()))) == repr(dict(sorted(right.items())))
