"""SavedModel folders: operations, paths, assets, and what stands around the graph."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from real_models import real
from tensorflow.core.framework import attr_value_pb2, node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2, saved_object_graph_pb2
from tensorflow.python.framework import op_def_registry

from modelport.core.errors import InputError, ModelportError, UnsafeError, UnsupportedError
from modelport.core.source import Source
from modelport.scan.stage import audit, scan
from modelport.scan.tensorflow.graph import read_node
from modelport.scan.tensorflow.rules import operation_problem

# Keras 3 on TensorFlow 2.21 with NumPy 2: whenever a variable is saved.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SavedModel = saved_model_pb2.SavedModel
VECTOR = tf.TensorSpec([None], tf.float32)


def read(folder: Path) -> Any:
    model = SavedModel()
    model.ParseFromString((folder / "saved_model.pb").read_bytes())
    return model


def write(folder: Path, model: Any) -> None:
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())


def save(module: Any, folder: Path) -> Path:
    signature = module.run.get_concrete_function()
    tf.saved_model.save(module, str(folder), signatures=signature)
    return folder


# Honest models.


class Plain(tf.Module):
    def __init__(self):
        super().__init__()
        self.scale = tf.Variable([2.0])

    @tf.function(input_signature=[VECTOR])
    def run(self, given):
        tf.debugging.assert_all_finite(given, "numbers")
        total = tf.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, v * self.scale), (0, given))
        return tf.cond(tf.reduce_sum(given) > 0, lambda: total[1], lambda: tf.sort(given))


class Words(tf.Module):
    """A table out of a file, which TensorFlow copies into the folder."""

    def __init__(self, file: Path):
        super().__init__()
        index = tf.lookup.TextFileIndex
        source = tf.lookup.TextFileInitializer(
            str(file), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
        )
        self.table = tf.lookup.StaticVocabularyTable(source, 1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def run(self, given):
        return self.table.lookup(tf.strings.lower(given))


def exported(folder: Path) -> Path:
    layers = [keras.layers.Embedding(9, 4), keras.layers.LSTM(3), keras.layers.Dense(2)]
    keras.Sequential([keras.Input((5,)), *layers]).export(str(folder), verbose=False)
    return folder


def words(folder: Path) -> Path:
    file = folder.parent / "words.txt"
    file.write_text("a\nb\n")
    saved = save(Words(file), folder)
    file.unlink()
    return saved


def text(folder: Path) -> Path:
    layer = keras.layers.TextVectorization(output_sequence_length=3)
    layer.adapt(["a cat", "a dog"])
    model = keras.Sequential([keras.Input((), dtype="string"), layer, keras.layers.Embedding(9, 2)])
    model.export(str(folder), verbose=False)
    return folder


def of_tensorflow_1(folder: Path) -> Path:
    file = folder.parent / "words.txt"
    file.write_text("a\nb\n")
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        name = tf.constant(str(file))
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, name)
        index = tf.lookup.TextFileIndex
        source = tf.lookup.TextFileInitializer(
            name, tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
        )
        table = tf.lookup.StaticHashTable(source, -1)
        given = v1.placeholder(tf.string, [None])
        scale = v1.get_variable("scale", initializer=2.0, use_resource=True)
        found = tf.cast(table.lookup(given), tf.float32) * scale
        v1.train.Saver()  # the one of the training stays in the graph
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        builder = v1.saved_model.Builder(str(folder))
        signature = v1.saved_model.predict_signature_def({"x": given}, {"y": found})
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            main_op=v1.tables_initializer(),
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
        )
        builder.save()
    return folder


HONEST: dict[str, Callable[[Path], Path]] = {
    "functions": lambda folder: save(Plain(), folder),
    "words": words,
    "Keras": exported,
    "text in Keras": text,
    "TensorFlow 1": of_tensorflow_1,
    "a real one of Keras 2": lambda _: real(
        "basic-pitch", "basic_pitch", "saved_models", "icassp_2022", "nmp"
    ),
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_honest_models_pass(name, tmp_path):
    audited = audit(Source.of(HONEST[name](tmp_path / "model")))
    assert (audited.format, audited.trusted) == ("savedmodel", ())
    assert "saved_model.pb" in audited.source.files


def test_the_lists_are_tight():
    """What the lists allow is public, and nothing that names a file in its definition."""
    for name in dir(tf.raw_ops):
        definition = op_def_registry.get(name)
        if definition is None or operation_problem(name):
            continue
        inputs = {part.name for part in definition.input_arg}
        named = {word for word in inputs if {"filename", "prefix", "path"} & set(word.split("_"))}
        assert not named or name in {
            "InitializeTableFromTextFile",
            "InitializeTableFromTextFileV2",
            "MergeV2Checkpoints",
            "RestoreV2",
            "SaveV2",
        }, name
    for name in ("MatMul", "StatefulPartitionedCall", "While", "VarHandleOp", "HashTableV2"):
        assert operation_problem(name) == ""


# Hostile ones. Each is a function that a model runs on a vector; `{}` is the canary.


def write_file(canary: Path, given: Any) -> Any:
    tf.io.write_file(str(canary), "x")
    return given


def read_file(canary: Path, given: Any) -> Any:
    return tf.strings.length(tf.io.read_file(str(canary)))


def print_to_file(canary: Path, given: Any) -> Any:
    tf.print("x", output_stream=f"file://{canary}")
    return given


def save_variables(canary: Path, given: Any) -> Any:
    done = tf.raw_ops.SaveV2(
        prefix=str(canary), tensor_names=["x"], shape_and_slices=[""], tensors=[given]
    )
    with tf.control_dependencies([done]):
        return tf.identity(given)


def restore_variables(canary: Path, given: Any) -> Any:
    return tf.raw_ops.RestoreV2(
        prefix=str(canary), tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32]
    )[0]


def hidden_in_a_branch(canary: Path, given: Any) -> Any:
    def evil() -> Any:
        with tf.control_dependencies([tf.raw_ops.WriteFile(filename=str(canary), contents="x")]):
            return tf.identity(given)

    return tf.cond(tf.size(given) > 0, evil, lambda: given)


def hidden_in_a_loop(canary: Path, given: Any) -> Any:
    def body(number: Any) -> Any:
        tf.io.write_file(str(canary), "x")
        return (number + 1,)

    return given + tf.cast(tf.while_loop(lambda n: n < 1, body, (0,))[0], tf.float32)


def read_words(canary: Path, given: Any) -> Any:
    table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
    done = tf.raw_ops.InitializeTableFromTextFileV2(
        table_handle=table, filename=str(canary), key_index=-2, value_index=-1
    )
    with tf.control_dependencies([done]):
        return tf.raw_ops.LookupTableSizeV2(table_handle=table)


def python(canary: Path, given: Any) -> Any:
    return tf.numpy_function(lambda value: value, [given], tf.float32)


def text_dataset(canary: Path, given: Any) -> Any:
    lines = tf.data.TextLineDataset(str(canary))
    return lines.reduce(tf.constant(""), lambda all_, line: all_ + line)


def find_files(canary: Path, given: Any) -> Any:
    return tf.io.matching_files(str(canary.parent / "*"))


def sampled_from_a_file(canary: Path, given: Any) -> Any:
    return tf.raw_ops.FixedUnigramCandidateSampler(
        true_classes=tf.constant([[0]], tf.int64), num_true=1, num_sampled=1, unique=True,
        range_max=1, vocab_file=str(canary),
    )[0]  # fmt: skip


def decode_by_a_file(canary: Path, given: Any) -> Any:
    return tf.io.decode_proto(
        [b""], "m.M", ["x"], [tf.int32], descriptor_source=str(canary)
    ).values[0]


def debug(canary: Path, given: Any) -> Any:
    return tf.raw_ops.DebugIdentity(input=given, debug_urls=[f"file://{canary.parent}/debug"])


def events(canary: Path, given: Any) -> Any:
    writer = tf.raw_ops.SummaryWriter()
    tf.raw_ops.CreateSummaryFileWriter(
        writer=writer, logdir=str(canary.parent), max_queue=1, flush_millis=1, filename_suffix="x"
    )
    return given


def mapped_memory(canary: Path, given: Any) -> Any:
    return tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=[1], memory_region_name=str(canary))


def move_variables(canary: Path, given: Any) -> Any:
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(canary)], destination_prefix=str(canary) + "2"
    )
    return given


def read_records(canary: Path, given: Any) -> Any:
    reader = tf.raw_ops.ReaderReadV2(
        reader_handle=tf.raw_ops.WholeFileReaderV2(),
        queue_handle=tf.raw_ops.FIFOQueueV2(component_types=[tf.string]),
    )
    return reader.value


def abort(canary: Path, given: Any) -> Any:
    tf.raw_ops.Abort(error_msg="bye")
    return given


def send(canary: Path, given: Any) -> Any:
    return tf.raw_ops.CollectiveReduceV2(
        input=given, group_size=1, group_key=1, instance_key=1, ordering_token=[],
        merge_op="Add", final_op="Id",
    )  # fmt: skip


#: function → the operation that is refused
OPERATIONS: dict[Callable[[Path, Any], Any], str] = {
    write_file: "WriteFile",
    read_file: "ReadFile",
    print_to_file: "PrintV2.output_stream",
    save_variables: "SaveV2",
    restore_variables: "RestoreV2",
    move_variables: "MergeV2Checkpoints",
    hidden_in_a_branch: "WriteFile",
    hidden_in_a_loop: "WriteFile",
    read_words: "InitializeTableFromTextFileV2",
    python: "PyFunc",
    text_dataset: "TextLineDataset",
    find_files: "MatchingFiles",
    sampled_from_a_file: "FixedUnigramCandidateSampler.vocab_file",
    decode_by_a_file: "DecodeProtoV2.descriptor_source",
    debug: "DebugIdentity",
    events: "CreateSummaryFileWriter",
    mapped_memory: "ImmutableConst",
    read_records: "ReaderReadV2",
    abort: "Abort",
    send: "CollectiveReduceV2",
}
#: Those that leave a file when they are run.
LIVE = [write_file, print_to_file, save_variables, hidden_in_a_branch, hidden_in_a_loop]


def hostile(operation: Callable[[Path, Any], Any], canary: Path, folder: Path) -> Path:
    class Evil(tf.Module):
        @tf.function(input_signature=[VECTOR])
        def run(self, given):
            return operation(canary, given)

    return save(Evil(), folder)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_operations_that_do_more_than_compute_are_refused(operation, canary, tmp_path):
    folder = hostile(operation, canary, tmp_path / "model")
    with pytest.raises(UnsafeError) as caught:
        audit(Source.of(folder))
    assert OPERATIONS[operation] in caught.value.message
    assert not list(tmp_path.glob("canary*"))
    names = {finding.what for finding in scan(Source.of(folder)).findings}
    assert set(audit(Source.of(folder), allow=names).trusted) == names


_RUN = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
for folder in sys.argv[1:]:
    tf.saved_model.load(folder).signatures["serving_default"](tf.constant([1.0]))
"""


@pytest.mark.slow
def test_the_hostile_models_are_live(tmp_path):
    """They do what is said of them when TensorFlow runs them."""
    folders = []
    for number, operation in enumerate(LIVE):
        canary = tmp_path / f"canary{number}-"
        folders.append(hostile(operation, canary, tmp_path / f"model{number}"))
    assert not list(tmp_path.glob("canary*"))
    subprocess.run([sys.executable, "-c", _RUN, *map(str, folders)], check=True)
    for number in range(len(LIVE)):
        assert list(tmp_path.glob(f"canary{number}-*")), LIVE[number].__name__


def test_custom_operations_are_named_and_can_be_allowed(tmp_path):
    folder = save(Plain(), tmp_path / "model")
    model = read(folder)
    function = model.meta_graphs[0].graph_def.library.function[0]
    function.node_def.add(name="evil", op="Company>Magic")
    write(folder, model)
    with pytest.raises(UnsafeError, match="a library would bring it") as caught:
        audit(Source.of(folder))
    assert "--allow Company>Magic lets exactly that pass" in caught.value.hint
    assert audit(Source.of(folder), allow=["Company>Magic"]).trusted == ("Company>Magic",)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> tuple[Path, bytes]:
    folder = words(tmp_path_factory.mktemp("words") / "model")
    return folder, (folder / "saved_model.pb").read_bytes()


@pytest.fixture
def edited(vocabulary) -> Callable[..., Path]:
    """Change the model with a file of words."""
    folder, original = vocabulary

    def edit(change: Callable[[Any], None]) -> Path:
        model = SavedModel()
        model.ParseFromString(original)
        change(model.meta_graphs[0])
        write(folder, model)
        return folder

    yield edit
    (folder / "saved_model.pb").write_bytes(original)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/../../x", "", ".."])
def test_assets_stay_in_the_folder(name, edited):
    def change(graph: Any) -> None:
        graph.asset_file_def[0].filename = name

    with pytest.raises(UnsafeError, match="leaves the model's folder"):
        audit(Source.of(edited(change)))


def test_assets_would_be_read_elsewhere(edited, tmp_path):
    """TensorFlow joins the names as they are."""
    secret = tmp_path / "secret"
    secret.write_text("one\ntwo\nthree\n")

    def change(graph: Any) -> None:
        graph.asset_file_def[0].filename = f"../../../../../../../../..{secret}"

    folder = edited(change)
    table = tf.saved_model.load(str(folder)).signatures["serving_default"]
    assert next(iter(table(tf.constant(["three"])).values())).numpy() == [2]
    assert scan(Source.of(folder)).findings


def test_missing_assets_are_damage(edited):
    def change(graph: Any) -> None:
        graph.asset_file_def[0].filename = "other.txt"

    with pytest.raises(InputError, match=r"lacks its asset other\.txt"):
        audit(Source.of(edited(change)), trust=True)


def test_a_constant_in_the_place_of_an_asset(edited):
    """The function is the honest one; what is bound to it is not."""

    def change(graph: Any) -> None:
        path = graph.graph_def.node.add(name="path", op="Const")
        path.attr["value"].tensor.dtype = tf.string.as_datatype_enum
        path.attr["value"].tensor.string_val.append(b"/etc/passwd")
        path.attr["dtype"].type = tf.string.as_datatype_enum
        for thing in graph.object_graph_def.nodes:
            if thing.WhichOneof("kind") == "asset":
                thing.constant.operation = "path"

    with pytest.raises(UnsafeError, match=r"InitializeTableFromTextFileV2 .*its path is in the"):
        audit(Source.of(edited(change)))


def test_a_path_that_the_graph_passes(edited):
    def change(graph: Any) -> None:
        for node in graph.graph_def.node:
            if node.op == "AssignVariableOp":
                node.input[1] = "other"
        path = graph.graph_def.node.add(name="other", op="Const")
        path.attr["value"].tensor.dtype = tf.string.as_datatype_enum
        path.attr["value"].tensor.string_val.append(b"/etc/passwd")

    with pytest.raises(UnsafeError, match="InitializeTableFromTextFileV2"):
        audit(Source.of(edited(change)))


@pytest.mark.parametrize("op", ["SaveV2", "RestoreV2", "MergeV2Checkpoints"])
def test_the_savers_own_path_may_not_be_replaced(op, tmp_path):
    folder = save(Plain(), tmp_path / "model")
    model = read(folder)
    for function in model.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            if node.op == op:
                node.input[0] = "evil:output:0"
                path = function.node_def.add(name="evil", op="Const")
                path.attr["value"].tensor.dtype = tf.string.as_datatype_enum
                path.attr["value"].tensor.string_val.append(b"/tmp/evil")
                break
    write(folder, model)
    with pytest.raises(UnsafeError, match=f"{op} .*its path is in the file: b'/tmp/evil'"):
        audit(Source.of(folder))


@pytest.mark.parametrize("saver", ["save", "save_1"])
def test_the_default_path_of_tensorflow_1(saver, tmp_path):
    folder = of_tensorflow_1(tmp_path / "model")
    model = read(folder)
    nodes = {node.name: node for node in model.meta_graphs[0].graph_def.node}
    (path,) = nodes[f"{saver}/filename/input"].attr["value"].tensor.string_val
    assert path == b"model"
    nodes[f"{saver}/filename/input"].attr["value"].tensor.string_val[0] = b"/tmp/evil"
    write(folder, model)
    with pytest.raises(UnsafeError, match="the saver's default path is in the file"):
        audit(Source.of(folder))


LAMBDA = json.dumps(
    {"class_name": "Lambda", "config": {"function": ["4wEAAA=="], "function_type": "lambda"}}
)


def test_lambdas_of_keras_2_are_refused(edited):
    def change(graph: Any) -> None:
        graph.object_graph_def.nodes[0].user_object.metadata = LAMBDA

    with pytest.raises(UnsafeError, match=r"keras\.layers\.Lambda .*keras_metadata\.pb"):
        audit(Source.of(edited(change)))


def test_lambdas_in_a_file_beside_it_are_refused(vocabulary):
    folder, _ = vocabulary
    # SavedMetadata has the numbers of these messages' fields.
    object_ = saved_object_graph_pb2.SavedUserObject(metadata=LAMBDA).SerializeToString()
    metadata = b"\x22" + object_[1:]  # field 4 in the place of field 3
    node = b"\x0a" + _varint(len(metadata)) + metadata
    (folder / "keras_metadata.pb").write_bytes(node)
    try:
        with pytest.raises(UnsafeError, match=r"keras\.layers\.Lambda"):
            audit(Source.of(folder))
    finally:
        (folder / "keras_metadata.pb").unlink()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


# Other forms, and damage.


@pytest.mark.parametrize("name", ["saved_model.pbtxt", "saved_model.cpb"])
def test_other_forms_are_named(name, tmp_path):
    folder = save(Plain(), tmp_path / "model")
    (folder / name).write_text(text_format.MessageToString(read(folder)))
    with pytest.raises(UnsupportedError, match=f"in the form of {name}") as caught:
        audit(Source.of(folder), trust=True)
    assert "save it again" in caught.value.hint


def test_truncated_models_are_damaged_even_if_trusted(vocabulary):
    folder, content = vocabulary
    source = Source.of(folder)
    for end in range(0, len(content) - 1, len(content) // 60):
        files = {**source.files, "saved_model.pb": content[:end]}
        with pytest.raises(InputError):
            audit(Source(name="m", path=folder, files=files), trust=True)


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("variables/variables.index", lambda data: None),
        ("variables/variables.index", lambda data: data[:-1]),
        ("variables/variables.data-00000-of-00001", lambda data: None),
    ],
)
def test_half_of_the_variables(name, edit, vocabulary):
    source = Source.of(vocabulary[0])
    files = dict(source.files)
    changed = edit(files.pop(name))
    if changed is not None:
        files[name] = changed
    with pytest.raises(InputError, match="variables"):
        audit(Source(name="m", path=source.path, files=files), trust=True)


def test_two_operations_of_one_name(edited):
    """Readers could take either."""

    def change(graph: Any) -> None:
        graph.graph_def.node.add().CopyFrom(graph.graph_def.node[0])

    with pytest.raises(InputError, match="two operations are called"):
        audit(Source.of(edited(change)), trust=True)


def test_entries_with_two_values():
    """Protocol buffers merge them, which no writer makes use of."""
    good, evil = (tf.make_tensor_proto([text]) for text in (b".part", b"/tmp/evil"))
    node = node_def_pb2.NodeDef(name="n", op="Const")
    node.attr["value"].tensor.CopyFrom(good)
    content = node.SerializeToString()
    value = attr_value_pb2.AttrValue(tensor=evil).SerializeToString()
    entry = b"\x0a\x05value" + b"".join(
        b"\x12" + _varint(len(part)) + part
        for part in (value, attr_value_pb2.AttrValue(tensor=good).SerializeToString())
    )
    double = node_def_pb2.NodeDef(name="n", op="Const").SerializeToString()
    double += b"\x2a" + _varint(len(entry)) + entry
    assert read_node(content, "x").value == (b".part",)
    assert len(node_def_pb2.NodeDef.FromString(double).attr["value"].tensor.string_val) == 2
    with pytest.raises(InputError, match="an entry has two values"):
        read_node(double, "x")


def test_the_reading_agrees_with_the_schema():
    """An operation written by TensorFlow's own classes is read field for field."""
    node = node_def_pb2.NodeDef(name="n", op="While", input=["a:1", "^b", "c"])
    node.attr["body"].func.name = "f"
    node.attr["branches"].list.func.add(name="g")
    node.attr["text"].s = b"hello"
    found = read_node(node.SerializeToString(), "x")
    assert (found.name, found.op, found.inputs) == ("n", "While", ("a", "c"))
    assert (set(found.calls), found.texts) == ({"f", "g"}, {"text": "hello"})


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_mutated_models_never_crash(data, vocabulary):
    folder, original = vocabulary
    content = bytearray(original)
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    files = {"saved_model.pb": bytes(content), "assets/words.txt": b""}
    with contextlib.suppress(ModelportError):
        scan(Source(name="m", path=folder, files=files))


def test_tensorflow_is_not_imported(vocabulary):
    program = (
        "import sys\n"
        "from modelport.core.source import Source\n"
        "from modelport.scan.scanners.savedmodel import SavedModelScanner\n"
        "assert not SavedModelScanner().scan(Source.of(sys.argv[1])).findings\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(vocabulary[0])], check=True)
