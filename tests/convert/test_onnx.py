"""ONNX files, as they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import skl2onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression

from modelport.convert.stage import convert
from modelport.core.errors import InputError, SignatureError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource, Source

from .conftest import load_data

MODEL_FILE = "model/model.onnx"


def as_source(content: bytes | onnx.ModelProto) -> AuditedSource:
    data = content if isinstance(content, bytes) else content.SerializeToString()
    return AuditedSource(Source("model.onnx", Path("model.onnx"), content=data), "onnx")


def affine(
    lead_in: Any = "batch", lead_out: Any = "batch", opset: int = 18, dtype: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    weights = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["raw"]),
            helper.make_node("Softmax", ["raw"], ["y"]),
        ],
        "affine",
        [helper.make_tensor_value_info("x", dtype, [lead_in, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [lead_out, 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def test_the_same_bytes_come_out() -> None:
    source = as_source(affine())
    rows = Rows({"x": np.random.default_rng(1).normal(size=(40, 3))})
    artifact = convert(source, rows)
    assert artifact.files == {MODEL_FILE: source.source.content}
    assert artifact.signature.batch_symbol == "batch"
    assert artifact.row_independent
    assert artifact.parity["rows_are"] == "sample"
    assert artifact.parity["outputs"][0]["differing"] == 0
    assert artifact.provenance["opset"] == {"": 18}
    assert artifact.task == "unknown"
    assert artifact.golden is not None
    assert artifact.golden.rows == 32
    assert artifact.golden.inputs["x"].dtype == np.float32


@pytest.mark.parametrize(("lead_in", "lead_out"), [(None, None), ("n", None), ("n", "m")])
def test_a_batch_dimension_is_recognised_by_running(lead_in: Any, lead_out: Any) -> None:
    artifact = convert(as_source(affine(lead_in, lead_out)), None)
    assert artifact.signature.batch_symbol == (lead_in or "N")
    assert artifact.row_independent
    assert artifact.parity["rows_are"] == "made up"


def test_a_fixed_batch_is_served_as_it_is() -> None:
    artifact = convert(as_source(affine(1, 1)), None)
    assert artifact.signature.batch_symbol is None
    assert not artifact.row_independent
    assert artifact.golden is not None
    assert artifact.golden.rows == 1
    assert "no batch dimension" in artifact.parity["notes"][0]


def test_rows_that_do_not_fit_are_explained() -> None:
    with pytest.raises(SignatureError, match=r"shape \[2, 4\], expected \[batch, 3\]"):
        convert(as_source(affine()), Rows({"": np.ones((2, 4))}))


def test_without_rows_nothing_is_claimed() -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["words"], ["same"])],
        "text",
        [helper.make_tensor_value_info("words", TensorProto.STRING, ["n", 1])],
        [helper.make_tensor_value_info("same", TensorProto.STRING, ["n", 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    artifact = convert(as_source(model), None)
    assert artifact.parity["rows_are"] == "none"
    assert artifact.golden is None
    assert not artifact.row_independent
    words = np.asarray([["żółw"], ["a"]], dtype=object)
    sampled = convert(as_source(model), Rows({"words": words}))
    assert sampled.golden is not None
    assert sampled.golden.outputs["same"].tolist() == words.tolist()


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02not protobuf", b"plain text"])
def test_not_onnx(content: bytes) -> None:
    with pytest.raises(InputError, match="not ONNX"):
        convert(as_source(content), None)


def test_the_checker_speaks() -> None:
    model = affine()
    model.graph.node[1].input[0] = "nowhere"
    with pytest.raises(InputError, match=r"checker refuses the model: .*nowhere"):
        convert(as_source(model), None)


def test_weights_in_another_file_are_refused() -> None:
    model = affine()
    weights = model.graph.initializer[0]
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="weights.bin")
    weights.ClearField("raw_data")
    with pytest.raises(UnsupportedError, match="weights in another file") as caught:
        convert(as_source(model), None)
    assert "one file" in caught.value.hint


def test_zipmap_is_named() -> None:
    x, y = load_data("iris")
    model = skl2onnx.to_onnx(LogisticRegression(max_iter=500).fit(x, y), x[:1].astype(np.float32))
    with pytest.raises(UnsupportedError, match="output_probability is a sequence") as caught:
        convert(as_source(model), None)
    assert "zipmap" in caught.value.hint


def test_an_opset_of_the_future() -> None:
    model = affine()
    model.opset_import[0].version = 999
    with pytest.raises(UnsupportedError, match="opset 999"):
        convert(as_source(model), None)


def test_an_operator_that_nobody_has() -> None:
    model = affine()
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(InputError, match=r"com\.example"):
        convert(as_source(model), None)
