"""ONNX files, as they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import skl2onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression

from modelport.api import pack
from modelport.convert.frameworks.onnx import OnnxFramework
from modelport.convert.frameworks.onnx.loading import tensors_of
from modelport.convert.stage import convert
from modelport.core.errors import (
    InputError,
    LimitError,
    NotFoundError,
    SignatureError,
    UnsupportedError,
)
from modelport.core.golden import GoldenRecords
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


def test_made_up_text() -> None:
    artifact = convert(as_source(words()), None)
    assert artifact.parity["rows_are"] == "made up"
    assert artifact.golden is not None
    assert "żółw 東京" in artifact.golden.inputs["words"]
    assert artifact.row_independent


def words() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["words"], ["same"])],
        "text",
        [helper.make_tensor_value_info("words", TensorProto.STRING, ["n", 1])],
        [helper.make_tensor_value_info("same", TensorProto.STRING, ["n", 1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_without_rows_nothing_is_claimed() -> None:
    # Only rows of 37 numbers fit, and the file does not say so.
    weights = numpy_helper.from_array(np.ones((37, 3), np.float32), "w")
    model = one_node("MatMul", shape=("n", "m"), weights=[weights])
    artifact = convert(as_source(model), None)
    assert artifact.parity["rows_are"] == "none"
    assert artifact.golden is None
    assert not artifact.row_independent
    sampled = convert(as_source(model), Rows({"x": np.arange(74.0).reshape(2, 37)}))
    assert sampled.golden is not None
    assert sampled.golden.outputs["y"].shape == (2, 3)


def test_tensors_without_a_common_batch() -> None:
    model = one_node("Reshape", shape=("n", 6), out=("a", "b"))
    model.graph.node[0].input.append("shape")
    model.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [2]))
    rows = {"x": np.arange(12.0).reshape(2, 6), "shape": np.asarray([3, 4])}
    artifact = convert(as_source(model), Rows(rows))
    assert artifact.golden is not None
    assert artifact.golden.outputs["y"].tolist() == np.arange(12.0).reshape(3, 4).tolist()
    assert artifact.signature.batch_symbol is None


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02not protobuf", b"plain text"])
def test_not_onnx(content: bytes) -> None:
    with pytest.raises(InputError, match="not ONNX"):
        convert(as_source(content), None)


def test_the_checker_speaks() -> None:
    model = affine()
    model.graph.node[1].input[0] = "nowhere"
    with pytest.raises(InputError, match=r"checker refuses the model: .*nowhere"):
        convert(as_source(model), None)


def in_another_file(
    model: onnx.ModelProto, padding: int = 0, **replaced: str
) -> tuple[onnx.ModelProto, bytes]:
    """Move all weights out of the model; the second value is the other file."""
    content = b"\0" * padding
    for tensor in tensors_of(model):
        entries = {
            "location": "weights/part 1.bin",
            "offset": str(len(content)),
            "length": str(len(tensor.raw_data)),
            **replaced,
        }
        content += tensor.raw_data
        for key, value in entries.items():
            if value:
                tensor.external_data.add(key=key, value=value)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
    return model, content


def beside(model: onnx.ModelProto, files: dict[str, bytes]) -> AuditedSource:
    source = Source(
        "model.onnx", Path("model.onnx"), content=model.SerializeToString(), files=files
    )
    return AuditedSource(source, "onnx")


def conditional() -> onnx.ModelProto:
    """Weights in the branches of an If, and in Constant nodes in them."""
    branches = []
    for seed in range(2):
        weights = np.random.default_rng(seed).normal(size=(3, 2)).astype(np.float32)
        bias = numpy_helper.from_array(np.full(2, seed, np.float32), f"value{seed}")
        nodes = [
            helper.make_node("Constant", [], [f"bias{seed}"], value=bias),
            helper.make_node("MatMul", ["x", f"weights{seed}"], [f"product{seed}"]),
            helper.make_node("Add", [f"product{seed}", f"bias{seed}"], [f"answer{seed}"]),
        ]
        output = helper.make_tensor_value_info(f"answer{seed}", TensorProto.FLOAT, None)
        initializer = numpy_helper.from_array(weights, f"weights{seed}")
        branches.append(helper.make_graph(nodes, f"branch{seed}", [], [output], [initializer]))
    graph = helper.make_graph(
        [helper.make_node("If", ["flag"], ["y"], then_branch=branches[0], else_branch=branches[1])],
        "conditional",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("make", [affine, conditional])
@pytest.mark.parametrize("offset", [0, 4096])
def test_weights_in_another_file_come_inside(make: Any, offset: int) -> None:
    whole = make()
    x = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    rows = {"x": x} if make is affine else {"x": x, "flag": np.asarray(False)}
    expected = onnxruntime.InferenceSession(whole.SerializeToString()).run(None, rows)[0]
    model, content = in_another_file(make(), offset)
    artifact = convert(beside(model, {"weights/part 1.bin": content}), Rows(rows))
    file = artifact.files[MODEL_FILE]
    np.testing.assert_array_equal(onnxruntime.InferenceSession(file).run(None, rows)[0], expected)
    assert artifact.provenance["attempt"] == "as one file"
    assert b"part 1.bin" not in file


def test_weights_in_another_file_that_do_not_fit() -> None:
    model, content = in_another_file(affine())
    with pytest.raises(NotFoundError, match=r"not found: weights/part 1\.bin"):
        convert(beside(model, {}), None)
    with pytest.raises(InputError, match=r"24 bytes from byte 0 .*, which has 20") as caught:
        convert(beside(model, {"weights/part 1.bin": content[:20]}), None)
    assert "truncated" in caught.value.hint
    for wrong in ({"offset": "4"}, {"length": "12"}):
        model, content = in_another_file(affine(), **wrong)
        with pytest.raises(InputError, match=r"tensor w is 24 bytes"):
            convert(beside(model, {"weights/part 1.bin": content}), None)


def test_weights_beyond_what_a_file_holds() -> None:
    model, _ = in_another_file(affine())
    model.graph.initializer[0].dims[:] = [30_000, 30_000]
    with pytest.raises(LimitError, match=r"3\.4 GiB; one ONNX file holds at most 2"):
        convert(beside(model, {"weights/part 1.bin": b""}), None)


def test_the_whole_way_from_two_files(tmp_path: Path) -> None:
    model, content = in_another_file(affine())
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "part 1.bin").write_bytes(content)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    package = pack(tmp_path / "model.onnx", "two", out=tmp_path / "out")
    (tmp_path / "weights" / "part 1.bin").unlink()
    x = np.ones((1, 3), np.float32)
    answer = onnxruntime.InferenceSession(package.model_path).run(None, {"x": x})[0]
    expected = onnxruntime.InferenceSession(affine().SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_array_equal(answer, expected)
    with pytest.raises(NotFoundError, match=r"part 1\.bin"):
        pack(tmp_path / "model.onnx", "two", out=tmp_path / "again")


@pytest.mark.parametrize("texts", [False, True])
def test_zipmap_becomes_a_matrix(texts: bool) -> None:
    x, y = load_data("iris")
    names = np.asarray(["setosa", "versicolor", "virginica"])
    classifier = LogisticRegression(max_iter=500).fit(x, names[y] if texts else y)
    model = skl2onnx.to_onnx(classifier, x[:1].astype(np.float32))
    artifact = convert(as_source(model), Rows({"": x}))
    assert artifact.provenance["attempt"] == "without ZipMap"
    (label, probabilities) = artifact.signature.outputs
    assert label.dtype == ("string" if texts else "int64")
    assert probabilities.shape == (artifact.signature.batch_symbol, 3)
    assert probabilities.columns == (tuple(names) if texts else ("0", "1", "2"))
    session = onnxruntime.InferenceSession(artifact.files[MODEL_FILE])
    answers = session.run(None, {"X": x.astype(np.float32)})
    np.testing.assert_allclose(answers[1], classifier.predict_proba(x), atol=1e-5)
    np.testing.assert_array_equal(answers[0], classifier.predict(x))
    original = onnxruntime.InferenceSession(model.SerializeToString())
    dictionaries = original.run(None, {"X": x[:3].astype(np.float32)})[1]
    for row, dictionary in zip(answers[1], dictionaries, strict=False):
        assert dict(zip(classifier.classes_.tolist(), row.tolist(), strict=True)) == dictionary


def one_node(
    operator: str,
    opset: int = 18,
    ir_version: int = 9,
    *,
    dtype: int = TensorProto.FLOAT,
    shape: Any = ("n", 3),
    out: Any = ("n", 3),
    weights: Any = (),
    **attributes: Any,
) -> onnx.ModelProto:
    names = [weight.name for weight in weights]
    inputs = [helper.make_tensor_value_info("x", dtype, shape)]
    if ir_version < 4:
        inputs += [helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights]
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", *names], ["y"], **attributes)],
        "one node",
        inputs,
        [helper.make_tensor_value_info("y", dtype, out)],
        list(weights),
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )


WEIGHTS = numpy_helper.from_array(np.asarray([1, 2, 3], np.float32), "w")


def test_weights_among_the_inputs_are_not_asked_for() -> None:
    model = one_node("Add", opset=7, ir_version=3, weights=[WEIGHTS])
    assert len(model.graph.input) == 2
    artifact = convert(as_source(model), None)
    assert [spec.name for spec in artifact.signature.inputs] == ["x"]
    assert artifact.files[MODEL_FILE] == model.SerializeToString()


def test_an_operator_set_that_onnx_runtime_does_not_run() -> None:
    model = one_node("Add", 6, 3, weights=[WEIGHTS], broadcast=1, axis=1)
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        onnxruntime.InferenceSession(model.SerializeToString())
    x = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    artifact = convert(as_source(model), Rows({"x": x}))
    first, second = artifact.parity["attempts"]
    assert (first["name"], first["outcome"]) == ("as it is", "not loaded")
    assert (second["name"], second["outcome"]) == ("upgraded to opset 18", "kept")
    assert artifact.provenance["opset"][""] == 18
    session = onnxruntime.InferenceSession(artifact.files[MODEL_FILE])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], x + np.float32([1, 2, 3]))
    assert artifact.signature.inputs[0].shape == ("n", 3)


def test_an_ir_version_of_the_future() -> None:
    model = one_node("Relu", ir_version=99)
    artifact = convert(as_source(model), None)
    assert artifact.provenance["attempt"] == "as it is, with IR version 9"


@pytest.mark.parametrize(
    ("shape", "given", "signature"),
    [
        (None, (4, 3), ("N", "x_1")),
        (None, (4, 3, 2), ("N", "x_1", "x_2")),
        ((), (), ()),
        (("n", "?", "?"), (4, 3, 5), ("n", "x_1", "x_2")),
        (("d", "d", "d"), (4, 3, 5), ("d", "x_1", "x_2")),
        (("batch", "batch"), (4, 4), ("batch", "batch")),
    ],
)
def test_shapes_that_the_file_does_not_tell(shape: Any, given: Any, signature: Any) -> None:
    model = one_node("Relu", shape=shape, out=None if shape is None else shape)
    rows = np.random.default_rng(0).normal(size=given).astype(np.float32)
    artifact = convert(as_source(model), Rows({"x": rows}))
    assert artifact.signature.inputs[0].shape == signature
    assert len(artifact.signature.outputs[0].shape) == len(given)
    if shape is None:
        with pytest.raises(UnsupportedError, match="no declared shape") as caught:
            OnnxFramework().load(as_source(model)).attempts(None)[0].export()
        assert "--sample" in caught.value.hint


def test_an_output_shape_that_is_not_true() -> None:
    model = one_node("Relu", out=(1, 3))
    artifact = convert(as_source(model), Rows({"x": np.ones((8, 3))}))
    assert artifact.signature.outputs[0].shape == ("n", 3)


def test_rows_that_belong_together_are_not_batched() -> None:
    model = one_node("CumSum", weights=[numpy_helper.from_array(np.asarray(0), "axis")])
    x = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    artifact = convert(as_source(model), Rows({"x": x}))
    assert artifact.signature.batch_symbol is None
    assert not artifact.row_independent
    assert any("belong together" in note for note in artifact.parity["notes"])


def test_a_number_of_rows_that_is_fixed_inside() -> None:
    shape = numpy_helper.from_array(np.asarray([2, 3]), "shape")
    artifact = convert(
        as_source(one_node("Reshape", weights=[shape])), Rows({"x": np.ones((2, 3))})
    )
    assert artifact.signature.inputs[0].shape == (2, 3)
    assert any("only 2 at once" in note for note in artifact.parity["notes"])


@pytest.mark.parametrize("name", ["a:0", "module/layer/x", "with spaces", "żółw", "x" * 300, "N"])
def test_odd_names(name: str) -> None:
    model = one_node("Relu")
    model.graph.input[0].name = model.graph.node[0].input[0] = name
    artifact = convert(as_source(model), None)
    assert artifact.signature.inputs[0].name == name
    assert artifact.golden is not None
    assert name in GoldenRecords.from_bytes(artifact.golden.to_bytes()).inputs


@pytest.mark.parametrize(
    "kind",
    ["BOOL", "INT8", "UINT8", "INT32", "INT64", "UINT64", "FLOAT16", "DOUBLE", "STRING"],
)
def test_made_up_rows_of_every_element_type(kind: str) -> None:
    model = one_node("Identity", dtype=getattr(TensorProto, kind), shape=("n", "size"), out=None)
    artifact = convert(as_source(model), None)
    assert artifact.parity["rows_are"] == "made up"
    assert artifact.signature.batch_symbol == "n"
    session = onnxruntime.InferenceSession(artifact.files[MODEL_FILE])
    inputs = artifact.golden.inputs  # type: ignore[union-attr]
    np.testing.assert_array_equal(session.run(None, inputs)[0], inputs["x"])


def test_made_up_codes_are_in_range() -> None:
    table = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(6, 2), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        "embedding",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", 2])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    artifact = convert(as_source(model), None)
    assert artifact.parity["rows_are"] == "made up"
    assert artifact.signature.inputs[0].shape == ("batch", "length")
    assert artifact.golden is not None
    assert artifact.golden.inputs["ids"].max() < 6


@pytest.mark.parametrize("kind", ["BFLOAT16", "FLOAT8E4M3FN", "INT4", "UINT4", "COMPLEX64"])
def test_element_types_that_nobody_can_send(kind: str) -> None:
    model = one_node("Identity", opset=21, ir_version=10, dtype=getattr(TensorProto, kind))
    with pytest.raises(UnsupportedError, match=f"input x has element type {kind.lower()}"):
        convert(as_source(model), None)


def test_small_element_types_inside() -> None:
    codes = helper.make_tensor("codes", TensorProto.INT4, [3], b"\x78\x01", raw=True)
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"]),
            helper.make_node("Mul", ["x", "w"], ["product"]),
            helper.make_node("Cast", ["product"], ["rounded"], to=TensorProto.BFLOAT16),
            helper.make_node("Cast", ["rounded"], ["y"], to=TensorProto.FLOAT),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [codes, numpy_helper.from_array(np.asarray(0.1, np.float32), "scale")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    artifact = convert(as_source(model), None)
    assert artifact.parity["outputs"][0]["differing"] == 0
    split, content = in_another_file(model)  # three codes of four bits are two bytes
    again = convert(beside(split, {"weights/part 1.bin": content}), None)
    assert artifact.golden is not None
    assert again.golden is not None
    np.testing.assert_array_equal(again.golden.outputs["y"], artifact.golden.outputs["y"])


def test_operators_of_onnx_runtime_and_functions_of_the_file() -> None:
    function = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft"),
            helper.make_node("Twice", ["g"], ["y"], domain="local"),
        ],
        "custom",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    opsets = [("", 18), ("com.microsoft", 1), ("local", 1)]
    model = helper.make_model(
        graph,
        functions=[function],
        opset_imports=[helper.make_opsetid(*opset) for opset in opsets],
        ir_version=9,
    )
    artifact = convert(as_source(model), None)
    assert artifact.files[MODEL_FILE] == model.SerializeToString()
    assert artifact.row_independent


def test_sequences_are_refused() -> None:
    model = one_node("Relu")
    model.graph.node[0].op_type = "SequenceConstruct"
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 3])
    model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(inner))
    with pytest.raises(UnsupportedError, match="output y is a sequence, not a tensor"):
        convert(as_source(model), None)


def test_a_graph_without_inputs() -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "constant",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
        [WEIGHTS],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(UnsupportedError, match="takes no inputs"):
        convert(as_source(model), None)


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
