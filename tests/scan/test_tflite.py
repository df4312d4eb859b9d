"""TensorFlow Lite files: real ones pass, damaged ones never reach the interpreter."""

import contextlib
import struct
import subprocess
import sys
from pathlib import Path

import flatbuffers
import keras
import numpy as np
import pytest
import tensorflow as tf
from flatbuffers import flexbuffers
from hypothesis import given, settings
from hypothesis import strategies as st
from real_models import real
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from modelport.core.errors import InputError, ModelportError, UnsafeError
from modelport.core.source import Source
from modelport.scan.encodings.flatbuffer import flexbuffer_texts
from modelport.scan.scanners.tflite import _SCHEMA, TfliteScanner
from modelport.scan.stage import audit, scan

REAL = {
    "basic-pitch": ("basic_pitch", "saved_models", "icassp_2022", "nmp.tflite"),
    "selfie_segmentation": ("package", "selfie_segmentation.tflite"),
}
VECTOR = tf.TensorSpec([2], tf.float32)


def in_memory(content: bytes) -> Source:
    return Source(name="model.tflite", path=Path("model.tflite"), content=content)


def converted(function, *, flex: bool = False) -> bytes:
    concrete = tf.function(function, input_signature=[VECTOR]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if flex:
        ops = tf.lite.OpsSet
        converter.target_spec.supported_ops = [ops.TFLITE_BUILTINS, ops.SELECT_TF_OPS]
    return converter.convert()


@pytest.fixture(scope="module")
def small() -> bytes:
    layers = [keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 1), batch_size=1), *layers])
    return tf.lite.TFLiteConverter.from_keras_model(model).convert()


@pytest.mark.parametrize("name", REAL)
def test_real_models_pass(name):
    source = Source.of(real(name, *REAL[name]))
    audited = audit(source)
    assert (audited.format, audited.trusted) == ("tflite", ())
    model = flatbuffer_utils.convert_bytearray_to_object(source.content)
    found = scan(source).details
    assert found["operators"] == sum(len(graph.operators) for graph in model.subgraphs)


def test_custom_operations_are_told():
    details = scan(Source.of(real("selfie_segmentation", *REAL["selfie_segmentation"]))).details
    assert details["custom:Convolution2DTransposeBias"] == 1


def test_what_converters_write_passes(small):
    def branches(x):
        value = tf.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, v * 2), (0, x))[1]
        return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.reshape(value, [1, 2]), lambda: x[None])

    for content in (small, converted(branches), changed(small, lambda model: None)):
        assert audit(in_memory(content)).trusted == ()


def test_the_schema_knows_every_offset():
    """Fields that are offsets in the classes that TensorFlow's compiler made are in ours."""
    tables = {
        "Model": "ModelT", "OperatorCode": "OperatorCodeT", "SubGraph": "SubGraphT",
        "Tensor": "TensorT", "Operator": "OperatorT", "Buffer": "BufferT",
        "Signature": "SignatureDefT", "TensorMap": "TensorMapT",
        "Quantization": "QuantizationParametersT", "Sparsity": "SparsityParametersT",
        "Dimension": "DimensionMetadataT",
    }  # fmt: skip
    for ours, theirs in tables.items():
        made = getattr(schema, theirs)()
        offsets = sum(value is None for value in vars(made).values())
        assert len(_SCHEMA[ours]) == offsets, ours


# Flex: operations of TensorFlow.


def write_a_file(x):
    tf.io.write_file("/tmp/evil", tf.strings.as_string(x[0]))
    return x + 1


def test_flex_operations_are_held_to_the_rules():
    content = converted(lambda x: tf.strings.length(tf.strings.as_string(x)), flex=True)
    assert {"custom:FlexAsString"} <= set(scan(in_memory(content)).details)
    assert audit(in_memory(content)).trusted == ()
    evil = converted(write_a_file, flex=True)
    with pytest.raises(UnsafeError, match=r"WriteFile .*it writes files") as caught:
        audit(in_memory(evil))
    assert "--allow WriteFile" in caught.value.hint
    assert audit(in_memory(evil), allow=["WriteFile"]).trusted == ("WriteFile",)


@pytest.mark.parametrize("op", ["SaveV2", "RestoreV2", "ReadFile", "PyFunc", "Magic"])
def test_what_flex_names_inside_counts(op):
    """The operation in the options runs, not the one by which the operator is called."""
    with pytest.raises(UnsafeError, match=op):
        audit(in_memory(flex_calling(op)))


def flex_calling(op: str) -> bytes:
    model = flatbuffer_utils.convert_bytearray_to_object(
        converted(lambda x: tf.strings.length(tf.strings.as_string(x)), flex=True)
    )
    for operator in model.subgraphs[0].operators:
        if operator.customOptions is not None and len(operator.customOptions):
            node = tf.compat.v1.NodeDef(name="n", op=op).SerializeToString()
            options = flexbuffers.Builder()
            with options.Vector():
                options.String("AsString")
                options.String(node.decode())
            operator.customOptions = np.frombuffer(options.Finish(), np.uint8)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def test_flex_that_cannot_be_read_is_refused():
    model = flatbuffer_utils.convert_bytearray_to_object(converted(write_a_file, flex=True))
    for operator in model.subgraphs[0].operators:
        operator.customOptions = np.zeros(7, np.uint8)
    content = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    with pytest.raises(UnsafeError, match=r"FlexWriteFile .*cannot be read"):
        audit(in_memory(content))


def test_flexbuffers():
    options = flexbuffers.Builder()
    with options.Vector():
        options.String("one")
        options.String("x" * 70_000)
    content = bytes(options.Finish())
    assert flexbuffer_texts(content) == [b"one", b"x" * 70_000]
    for end in range(0, len(content), 999):
        assert flexbuffer_texts(content[:end]) == []


# Damage.


def test_truncated_files_are_damaged_even_if_trusted(small):
    for end in range(8, len(small) - 1, len(small) // 100):
        with pytest.raises(InputError):
            audit(in_memory(small[:end]), trust=True)


def changed(content: bytes, change) -> bytes:
    model = flatbuffer_utils.convert_bytearray_to_object(content)
    change(model)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def put(part, field: str, value: int) -> None:
    """Replace the first of a list of numbers."""
    numbers = np.array(getattr(part, field))
    numbers[0] = value
    setattr(part, field, numbers)


INDICES = {
    "tensor of an operator": lambda m: put(m.subgraphs[0].operators[0], "inputs", 9999),
    "negative tensor": lambda m: put(m.subgraphs[0].operators[0], "outputs", -2),
    "operation": lambda m: setattr(m.subgraphs[0].operators[0], "opcodeIndex", 99),
    "buffer": lambda m: setattr(m.subgraphs[0].tensors[0], "buffer", 9999),
    "input of the graph": lambda m: put(m.subgraphs[0], "inputs", 9999),
    "output of the graph": lambda m: put(m.subgraphs[0], "outputs", -1),
    "size": lambda m: put(m.subgraphs[0].tensors[0], "shape", -5),
    "signature's graph": lambda m: setattr(m.signatureDefs[0], "subgraphIndex", 7),
    "signature's tensor": lambda m: setattr(m.signatureDefs[0].inputs[0], "tensorIndex", 9999),
    "metadata's buffer": lambda m: setattr(m.metadata[0], "buffer", 9999),
    "data behind the end": lambda m: (
        setattr(m.buffers[1], "offset", 1 << 40), setattr(m.buffers[1], "size", 8)
    ),
    "no graph": lambda m: setattr(m, "subgraphs", []),
}  # fmt: skip


@pytest.mark.parametrize("name", INDICES)
def test_indices_out_of_range_are_damage(name, small):
    with pytest.raises(InputError, match="not a TensorFlow Lite model"):
        audit(in_memory(changed(small, INDICES[name])), trust=True)


def test_numbers_in_other_files_are_refused(small):
    def outside(model) -> None:
        group = schema.ExternalBufferGroupT()
        group.name = "/etc/passwd"
        model.externalBufferGroups = [group]

    with pytest.raises(UnsafeError, match=r"'/etc/passwd' .*in another file"):
        audit(in_memory(changed(small, outside)))


def test_shared_tables_are_visited_once():
    """A list of a million times the same table is read once."""
    builder = flatbuffers.Builder()
    schema.TensorStart(builder)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, 1_000)
    for _ in range(1_000):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), file_identifier=b"TFL3")
    with pytest.raises(InputError, match="there is no buffer number 0"):
        audit(in_memory(bytes(builder.Output())))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_files_never_crash(data, small):
    content = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 4))
        content[at : at + 4] = struct.pack("<I", data.draw(st.integers(0, 2**32 - 1)))
    with contextlib.suppress(ModelportError):
        TfliteScanner().scan(in_memory(bytes(content)))


_INTERPRET = """
import sys
from pathlib import Path
import numpy as np
import tensorflow as tf
for path in sorted(Path(sys.argv[1]).glob("*.tflite")):
    try:
        interpreter = tf.lite.Interpreter(model_path=str(path))
    except (RuntimeError, ValueError) as error:
        pass
"""


@pytest.mark.slow
def test_the_interpreter_survives_what_passes(small, tmp_path):
    """Mutants that the scan lets through do not crash the interpreter while it loads them."""
    random = np.random.default_rng(0)
    passed = 0
    for number in range(400):
        content = bytearray(small)
        for _ in range(random.integers(1, 4)):
            content[random.integers(0, len(content))] = random.integers(0, 256)
        try:
            scan(in_memory(bytes(content)))
        except ModelportError:
            continue
        passed += 1
        (tmp_path / f"{number}.tflite").write_bytes(content)
    assert passed > 100
    subprocess.run([sys.executable, "-c", _INTERPRET, str(tmp_path)], check=True)
