"""The ONNX scanner: no `onnx`, no trust in lengths, and no files outside the model's folder."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier

from modelport.core.errors import InputError, LimitError, ModelportError, NotFoundError, UnsafeError
from modelport.core.source import Source
from modelport.scan.encodings import protobuf
from modelport.scan.scanners import onnx as scanner
from modelport.scan.stage import audit, scan


def in_memory(content: bytes) -> Source:
    return Source(name="model.onnx", path=Path("model.onnx"), content=content)


def tensor(location: str | None = None, **more: str) -> onnx.TensorProto:
    made = numpy_helper.from_array(np.arange(6, dtype=np.float32), "w")
    if location is not None:
        made.ClearField("raw_data")
        made.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **more}.items():
            made.external_data.add(key=key, value=value)
    return made


def value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 6])


def model_of(*nodes: onnx.NodeProto, weights: onnx.TensorProto | None = None) -> onnx.ModelProto:
    nodes = nodes or (helper.make_node("Add", ["x", "w"], ["y"]),)
    graph = helper.make_graph(
        list(nodes), "graph", [value("x")], [value("y")], [weights or tensor()]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def deep(levels: int, location: str | None = None) -> onnx.ModelProto:
    """Constants inside the branches of nested conditions."""
    inner = helper.make_node("Constant", [], ["y"], value=tensor(location))
    for _ in range(levels):
        branch = helper.make_graph([inner], "branch", [], [value("y")])
        inner = helper.make_node("If", ["x"], ["y"], then_branch=branch)
    return model_of(inner)


PLAIN = model_of().SerializeToString()


def test_facts_are_reported():
    report = scan(in_memory(PLAIN))
    assert report.findings == ()
    assert report.external_files == ()
    assert report.details == {"ir_version": 10, "opset": 21}
    assert audit(in_memory(PLAIN)).format == "onnx"


def test_real_models_pass():
    model = RandomForestClassifier(5).fit(np.eye(8), np.arange(8) % 3)
    content = to_onnx(model, np.eye(8, dtype=np.float32)).SerializeToString()
    report = scan(in_memory(content))
    assert report.details["opset:ai.onnx.ml"] >= 1
    assert report.findings == ()


@pytest.mark.parametrize("location", ["weights.bin", "data/weights.bin", "a b-c_d.data", "w..x"])
def test_files_beside_the_model_are_reported_and_read(location, source, tmp_path):
    content = model_of(weights=tensor(location, offset="0", length="24")).SerializeToString()
    model = source(content, "model.onnx")
    assert scan(model).external_files == (location,)
    with pytest.raises(NotFoundError, match="file that the model refers to"):
        audit(model)
    (tmp_path / location).parent.mkdir(exist_ok=True)
    (tmp_path / location).write_bytes(b"\0" * 24)
    audited = audit(model)
    assert audited.trusted == ()
    assert audited.source.files == {location: b"\0" * 24}


ESCAPES = [
    "/etc/passwd",
    "../secret.bin",
    "a/../../secret.bin",
    "..",
    "C:\\secret.bin",
    "C:secret.bin",
    "a\\..\\secret.bin",
    "\\\\host\\share",
    "file:///etc/passwd",
    "http://host/weights",
    "*/_ORT_MEM_ADDR_/*",
    "weights\0.bin",
    "~/weights\n",
    "",
]


@pytest.mark.parametrize("location", ESCAPES)
def test_files_elsewhere_are_refused(location):
    content = model_of(weights=tensor(location)).SerializeToString()
    with pytest.raises(UnsafeError, match="external data"):
        audit(in_memory(content))
    assert scan(in_memory(content)).external_files == ()


def test_external_data_is_found_wherever_a_tensor_can_be():
    evil = tensor("../evil")
    sparse = onnx.SparseTensorProto(values=evil, indices=evil, dims=[6])
    constant = helper.make_node("Constant", [], ["y"], value=evil)
    graph = helper.make_graph([constant], "g", [], [])
    in_attributes = helper.make_node("Custom", ["x"], ["y"], domain="d")
    in_attributes.attribute.add(name="ts", type=onnx.AttributeProto.TENSORS, tensors=[evil])
    in_graphs = helper.make_node("Custom", ["x"], ["y"], domain="d")
    in_graphs.attribute.add(name="gs", type=onnx.AttributeProto.GRAPHS, graphs=[graph])
    in_sparse = helper.make_node("Constant", [], ["y"], sparse_value=sparse)
    in_sparses = helper.make_node("Custom", ["x"], ["y"], domain="d")
    in_sparses.attribute.add(
        name="ss", type=onnx.AttributeProto.SPARSE_TENSORS, sparse_tensors=[sparse]
    )
    with_sparse_weights = model_of()
    with_sparse_weights.graph.sparse_initializer.append(sparse)
    with_training = model_of()
    with_training.training_info.add(algorithm=graph)
    with_first = model_of()
    with_first.training_info.add(initialization=graph)
    with_function = model_of()
    with_function.functions.append(
        helper.make_function("d", "f", [], ["y"], [constant], [helper.make_opsetid("", 21)])
    )
    with_default = model_of()
    with_default.functions.append(
        helper.make_function("d", "f", [], [], [], [helper.make_opsetid("", 21)])
    )
    with_default.functions[0].attribute_proto.append(helper.make_attribute("t", evil))
    models = [
        *(model_of(node) for node in (constant, in_attributes, in_graphs, in_sparse, in_sparses)),
        with_sparse_weights,
        with_training,
        with_first,
        with_function,
        with_default,
        deep(20, "../evil"),
    ]
    for model in models:
        with pytest.raises(UnsafeError, match="evil"):
            audit(in_memory(model.SerializeToString()))


def test_location_counts_even_if_the_tensor_says_it_is_not_external():
    hidden = tensor("../evil")
    hidden.data_location = TensorProto.DEFAULT
    with pytest.raises(UnsafeError):
        audit(in_memory(model_of(weights=hidden).SerializeToString()))


@pytest.mark.parametrize("number", ["-1", "0x10", "1e9", "", "\u0661"])
def test_offsets_that_are_no_numbers_are_refused(number):
    content = model_of(weights=tensor("w.bin", offset=number)).SerializeToString()
    with pytest.raises(UnsafeError, match="not a number"):
        audit(in_memory(content))


def test_two_locations_are_both_seen():
    weights = tensor("good.bin")
    weights.external_data.add(key="location", value="/bad.bin")
    report = scan(in_memory(model_of(weights=weights).SerializeToString()))
    assert report.external_files == ("good.bin",)
    assert [finding.what for finding in report.findings] == ["'/bad.bin'"]


@pytest.mark.parametrize("trust", [False, True])
def test_a_file_cut_anywhere_is_damaged(trust):
    for end in range(1, len(PLAIN)):
        with pytest.raises(InputError) as caught:
            audit(in_memory(PLAIN[:end]), trust=trust)
        assert caught.value.exit_code == 2
        assert "truncated" in caught.value.message


def test_cut_names_the_byte():
    with pytest.raises(InputError, match=r"truncated, at byte \d+: \d+ bytes are missing"):
        scan(in_memory(PLAIN[: len(PLAIN) // 2]))


def test_model_without_a_graph():
    content = onnx.ModelProto(ir_version=10, opset_import=[helper.make_opsetid("", 21)])
    with pytest.raises(InputError, match="it has no graph"):
        scan(in_memory(content.SerializeToString()))


def test_nesting_is_bounded():
    assert audit(in_memory(deep(20).SerializeToString())).format == "onnx"
    # What protobuf itself cannot write: the lengths are made by hand, from the inside out.
    inner = b"\x22\x01y"
    for _ in range(3000):
        node = b"\x2a" + varint(len(inner) + 0) + inner  # an attribute
        graph = b"\x0a" + varint(len(node)) + node  # in a node
        inner = b"\x32" + varint(len(graph)) + graph  # in a graph of an attribute
    node = b"\x2a" + varint(len(inner)) + inner
    graph = b"\x0a" + varint(len(node)) + node
    content = b"\x08\x0a\x3a" + varint(len(graph)) + graph
    with pytest.raises(InputError, match="nested more than"):
        scan(in_memory(content))


def varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def test_fields_are_bounded(monkeypatch):
    monkeypatch.setattr(protobuf, "MOST_FIELDS", 1000)
    with pytest.raises(LimitError):
        scan(in_memory(b"\x08\x0a" * 2000))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x08\x0a\x0b\x00", "wire type 3 does not exist"),
        (b"\x08\x0a\x07\x00", "wire type 7 does not exist"),
        (b"\x08\x0a\x02\x00", "field number 0 does not exist"),
        (b"\x08\x0a\x38\x01", "field 7 of a Model is not a message"),
        (b"\x08" + b"\xff" * 11, "a number does not end"),
        (b"\x08\x0a\x42\x06\x0a\x02\xff\xfe\x10\x15", "a name is not text"),
    ],
)
def test_what_is_not_protobuf_says_why(content, says):
    with pytest.raises(InputError, match=says):
        audit(in_memory(content), trust=True)


@pytest.mark.parametrize("name", ["model.onnx", "model.bin", "model"])
def test_recognised_by_content(name, source):
    assert audit(source(PLAIN, name)).format == "onnx"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(PLAIN)))
def test_random_bytes_never_crash(content, at):
    for changed in (content, b"\x08\x0a" + content, PLAIN[:at] + content + PLAIN[at:]):
        try:
            scanner.OnnxScanner().scan(in_memory(changed))
        except ModelportError:
            continue
