"""``.keras`` and HDF5 files: Keras' own parts pass, whatever would do more is refused by name."""

import base64
import contextlib
import importlib
import inspect
import io
import json
import marshal
import os
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl
from keras.src.ops.operation import Operation

from modelport.core.errors import InputError, LimitError, ModelportError, UnsafeError
from modelport.core.source import Source
from modelport.scan.keras import hdf5
from modelport.scan.keras import names as keras_names
from modelport.scan.keras.config import ConfigWalk
from modelport.scan.stage import audit, scan

# Keras 3 on TensorFlow 2.21 with NumPy 2: whenever a variable is saved.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def in_memory(content: bytes, name: str = "model.keras") -> Source:
    return Source(name=name, path=Path(name), content=content)


def saved(model: Any, folder: Path, suffix: str = ".keras") -> bytes:
    path = folder / f"saved{suffix}"
    model.save(path)
    return path.read_bytes()


# Honest models.

IMAGE, SEQUENCE, ROW = (8, 8, 3), (6, 4), (5,)


def chain(shape: tuple[int, ...], *parts: Any, dtype: str = "float32") -> Any:
    return keras.Sequential([keras.Input(shape, dtype=dtype), *parts])


def multi() -> Any:
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    shared = kl.Dense(4, activation="gelu", kernel_initializer="he_normal")
    merged = kl.Concatenate()([shared(left), shared(right), kl.Add()([left, right])])
    first = kl.Dense(1, activation="sigmoid", name="first")(merged)
    model = keras.Model([left, right], [first, kl.Dense(3, name="second")(merged)])
    model.compile(
        optimizer=keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.1, 10)),
        loss={"first": keras.losses.BinaryCrossentropy(), "second": keras.losses.huber},
        metrics={"first": ["accuracy", keras.metrics.AUC()], "second": ["mae"]},
    )
    return model


def operations() -> Any:
    given = keras.Input((4,))
    value = keras.ops.softmax(keras.ops.exp(given * 2 - 1) / (given + 3), axis=-1)
    value = keras.ops.concatenate([value, keras.ops.abs(given)[:, :2]], axis=1)
    return keras.Model(given, keras.ops.where(value > 0.5, value, keras.ops.mean(value)))


def attention() -> Any:
    given = keras.Input(SEQUENCE)
    value = kl.MultiHeadAttention(2, 3)(given, given)
    value = kl.LayerNormalization()(value + given)
    return keras.Model(given, kl.GroupQueryAttention(2, 2, 1)(value, value))


def text() -> Any:
    layer = kl.TextVectorization(output_mode="int", output_sequence_length=4)
    layer.adapt(["a cat sat", "a dog ran"])
    return chain((1,), layer, kl.Embedding(10, 3), kl.LSTM(4), kl.Dense(1), dtype="string")


def lookups() -> Any:
    word, number = keras.Input((1,), dtype="string"), keras.Input((1,), dtype="int64")
    words = kl.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")(word)
    numbers = kl.IntegerLookup(vocabulary=[1, 2], output_mode="multi_hot")(number)
    return keras.Model([word, number], kl.Concatenate()([words, numbers]))


def prepared() -> Any:
    normal = kl.Normalization()
    normal.adapt(np.arange(10.0).reshape(5, 2))
    return chain((2,), normal, kl.Discretization([0.0, 1.0], output_mode="int"))


HONEST: dict[str, Callable[[], Any]] = {
    "dense": lambda: chain(
        ROW,
        kl.Dense(4, activation="relu", kernel_regularizer="l2", bias_constraint="non_neg"),
        kl.BatchNormalization(),
        kl.Dropout(0.1),
        kl.Dense(2, activation=keras.activations.hard_silu, kernel_initializer="orthogonal"),
        kl.PReLU(),
        kl.Softmax(),
    ),
    "images": lambda: chain(
        IMAGE,
        kl.Rescaling(1 / 255),
        kl.RandomFlip(),
        kl.RandomRotation(0.1),
        kl.Resizing(6, 6),
        kl.Conv2D(4, 3, padding="same", activation="swish"),
        kl.DepthwiseConv2D(3),
        kl.SeparableConv2D(4, 2),
        kl.GroupNormalization(2),
        kl.MaxPooling2D(),
        kl.UpSampling2D(),
        kl.Conv2DTranspose(2, 2),
        kl.ZeroPadding2D(),
        kl.Cropping2D(),
        kl.GlobalAveragePooling2D(),
        kl.Flatten(),
    ),
    "masked": lambda: chain(SEQUENCE, kl.Masking(), kl.GRU(2)),
    "recurrent": lambda: chain(
        SEQUENCE,
        kl.Bidirectional(kl.GRU(3, return_sequences=True)),
        kl.TimeDistributed(kl.Dense(3)),
        kl.RNN([kl.LSTMCell(3), kl.SimpleRNNCell(2)], return_sequences=True),
        kl.Conv1D(2, 2, padding="causal"),
        kl.LSTM(2),
    ),
    "several inputs and outputs": multi,
    "operations": operations,
    "attention": attention,
    "text": text,
    "look-ups": lookups,
    "adapted": prepared,
    "nested": lambda: chain(ROW, chain(ROW, kl.Dense(5)), kl.Dense(1)),
    "mixed precision": lambda: chain(ROW, kl.Dense(2, dtype="mixed_float16")),
}
# The old format has no place for the words of text layers, and no notation for operations.
ONLY_NEW = {"operations", "attention", "text"}


def test_parts_of_ready_made_models_pass():
    folder = Path(keras.__file__).parent / "src" / "applications"
    for path in folder.glob("[a-z]*.py"):
        if path.stem.endswith("_test"):
            continue
        module = importlib.import_module(f"keras.src.applications.{path.stem}")
        for name, value in vars(module).items():
            if inspect.isclass(value) and value.__module__ == module.__name__:
                assert keras_names.refusal(module.__name__, name) == "", name


def test_feature_spaces_pass(tmp_path):
    space = keras.utils.FeatureSpace(
        {"age": "float_discretized", "kind": "string_categorical"},
        crosses=[("age", "kind")],
        crossing_dim=4,
    )
    rows = {"age": [1.0, 2.0, 3.0], "kind": ["a", "b", "a"]}
    space.adapt(tf.data.Dataset.from_tensor_slices(rows))
    assert audit(in_memory(saved(space, tmp_path))).trusted == ()


@pytest.mark.parametrize("name", HONEST)
def test_honest_models_pass(name, tmp_path):
    model = HONEST[name]()
    content = saved(model, tmp_path)
    audited = audit(in_memory(content))
    assert (audited.format, audited.trusted) == ("keras", ())
    assert any(full.endswith((".Functional", ".Sequential")) for full in audited.globals)
    if name not in ONLY_NEW:
        old = saved(model, tmp_path, ".h5")
        audited = audit(in_memory(old, "model.h5"))
        assert (audited.format, audited.trusted) == ("hdf5", ())
        assert {"Functional", "Sequential"} & set(audited.globals)


def test_weights_alone_pass(tmp_path):
    model = HONEST["images"]()
    model.save_weights(tmp_path / "model.weights.h5")
    report = scan(Source.of(tmp_path / "model.weights.h5"))
    assert (report.format, report.findings, report.globals) == ("hdf5", (), ())
    assert report.details["datasets"] == len(model.weights)


@keras.saving.register_keras_serializable("shop")
class Doubled(kl.Layer):
    def call(self, given):
        return given * 2


def test_a_class_of_ones_own_is_named_and_can_be_allowed(tmp_path):
    for suffix, name in ((".keras", f"{__name__}.Doubled"), (".h5", "shop>Doubled")):
        content = saved(chain(ROW, Doubled()), tmp_path, suffix)
        with pytest.raises(UnsafeError) as caught:
            audit(in_memory(content, f"model{suffix}"))
        assert name in caught.value.message
        assert f"--allow {name} lets exactly that pass" in caught.value.hint
        audited = audit(in_memory(content, f"model{suffix}"), allow=[name])
        assert audited.trusted == (name,)


# The lists against the installed Keras.

_FAMILIES = [
    "activations", "constraints", "dtype_policies", "initializers", "layers", "losses", "metrics",
    "models", "optimizers", "optimizers.schedules", "quantizers", "random", "regularizers",
]  # fmt: skip
_SERIALIZERS = {"deserialize", "get", "serialize"}
# They load, sample or build other things, and no configuration refers to them.
_NOT_PARTS = {
    "Input", "add", "average", "beta", "binomial", "categorical", "clone_model", "concatenate",
    "abs_max_quantize", "abs_max_quantize_grouped_with_zero_point", "compute_float8_amax_history",
    "compute_float8_scale", "dot", "dropout", "fake_quant_with_min_max_vars", "gamma",
    "load_model", "maximum", "minimum", "model_from_json", "multiply", "normal", "pack_int4",
    "quantize_and_dequantize", "randint", "save_model", "shuffle", "subtract", "truncated_normal",
    "uniform", "unpack_int4",
}  # fmt: skip


@pytest.mark.parametrize("family", _FAMILIES)
def test_the_lists_are_complete(family):
    module = importlib.import_module(f"keras.{family}")
    for name, value in vars(module).items():
        alias = getattr(value, "__name__", name) != name  # `l2`, `mse`: other names of the same
        if name.startswith("_") or alias or name in _SERIALIZERS | _NOT_PARTS:
            continue
        if inspect.isclass(value):
            refused = keras_names.refusal(f"keras.{family}", name)
            assert bool(refused) == (name in keras_names.DENIED), name
        elif inspect.isfunction(value):
            assert keras_names.refusal(f"keras.{family}", name) == "", name


def test_all_operations_are_listed():
    folder = Path(keras.__file__).parent / "src" / "ops"
    for path in folder.glob("[a-z]*.py"):
        if path.stem.endswith("_test"):
            continue
        module = importlib.import_module(f"keras.src.ops.{path.stem}")
        for name, value in vars(module).items():
            own = inspect.isclass(value) and value.__module__ == module.__name__
            if own and issubclass(value, Operation) and name != "Function":
                assert keras_names.refusal(module.__name__, name) == "", name


def test_files_of_keras_2():
    config = {
        "class_name": "Functional",
        "config": {"name": "model", "layers": [{"class_name": "CuDNNLSTM", "config": {}}]},
    }
    training = {"optimizer_config": {"class_name": "Custom>Adam", "config": {}}, "loss": "mse"}
    content = old_file(config, lambda file: file.attrs.update(training_config=json.dumps(training)))
    assert scan(in_memory(content, "model.h5")).findings == ()
    for name in ("Custom>Thing", "Custom>Dense", "Other>Adam"):
        assert keras_names.refusal(None, name)


def test_the_lists_hold_nothing_that_loads():
    for name in _NOT_PARTS | {"get_file", "enable_unsafe_deserialization", "Lambda"}:
        for module in ("keras", "keras.layers", "keras.models", "keras.utils", None, "builtins"):
            assert keras_names.refusal(module, name), (module, name)


# Hostile ones.


def part(module: str | None, name: str, /, **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def function(module: str, name: str) -> dict[str, Any]:
    made = {"class_name": "function", "config": name, "registered_name": "function"}
    return {"module": module, **made}


def bytecode(canary: Path) -> str:
    source = f"lambda *given, **more: (open({str(canary)!r}, 'w').close(), given[0])[1]"
    code = compile(source, "model", "eval").co_consts[0]
    return base64.b64encode(marshal.dumps(code)).decode()


def python_lambda(canary: Path) -> dict[str, Any]:
    value = [bytecode(canary), None, None]
    made = {"code": value[0], "defaults": None, "closure": None}
    return {"class_name": "__lambda__", "config": {**made, "value": value}}


def dense(**config: Any) -> dict[str, Any]:
    return part("keras.layers", "Dense", units=2, **config)


def sequential(*parts: dict[str, Any]) -> dict[str, Any]:
    first = part("keras.layers", "InputLayer", batch_shape=[None, 4], dtype="float32", name="in")
    built = {"build_config": {"input_shape": [None, 4]}}
    return {**part("keras", "Sequential", name="model", layers=[first, *parts]), **built}


def archive(config: Any, **more: bytes) -> bytes:
    file, weights = io.BytesIO(), io.BytesIO()
    with h5py.File(weights, "w") as written:
        written.create_group("layers")
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    members = {"metadata.json": b"{}", "config.json": text, "model.weights.h5": weights.getvalue()}
    with zipfile.ZipFile(file, "w") as made:
        for name, content in {**members, **more}.items():
            made.writestr(name, content)
    return file.getvalue()


#: name → (what the finding names, a layer's configuration)
LAYERS: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "lambda layer, CVE-2024-3660": (
        "keras.layers.Lambda",
        lambda c: part("keras.layers", "Lambda", function=python_lambda(c)),
    ),
    "bytecode as an activation": (
        "keras.layers.Lambda",
        lambda c: part("keras.layers", "Activation", activation=python_lambda(c)),
    ),
    "bytecode as an initializer": (
        "keras.layers.Lambda",
        lambda c: dense(kernel_initializer=python_lambda(c)),
    ),
    "any module, CVE-2025-1550": (
        "os.system",
        lambda c: part(
            "keras.layers", "Lambda", function=function("os", "system"), arguments={}
        ),
    ),
    "a function of a module": ("os.system", lambda c: dense(activation=function("os", "system"))),
    "get_file, CVE-2025-8747": (
        "keras.utils.get_file",
        lambda c: dense(activation=function("keras.utils", "get_file")),
    ),
    "unsafe deserialization, CVE-2025-9906": (
        "keras.config.enable_unsafe_deserialization",
        lambda c: dense(activation=function("keras.config", "enable_unsafe_deserialization")),
    ),
    "load_model": (
        "keras.models.load_model",
        lambda c: dense(activation=function("keras.models", "load_model")),
    ),
    "a SavedModel from a path, CVE-2026-1462": (
        "keras.layers.TFSMLayer",
        lambda c: part("keras.layers", "TFSMLayer", filepath=str(c.parent / "saved")),
    ),
    "a pickled PyTorch module": (
        "keras.layers.TorchModuleWrapper",
        lambda c: part("keras.layers", "TorchModuleWrapper", module="gASVAAAA"),
    ),
    "a jax function": ("keras.layers.JaxLayer", lambda c: part("keras.layers", "JaxLayer")),
    "a flax module": ("keras.layers.FlaxLayer", lambda c: part("keras.layers", "FlaxLayer")),
    "a vocabulary, CVE-2025-12058": (
        "'/etc/passwd'",
        lambda c: part("keras.layers", "StringLookup", vocabulary="/etc/passwd"),
    ),
    "a vocabulary in a text layer": (
        "'https://host/words'",
        lambda c: part("keras.layers", "TextVectorization", vocabulary="https://host/words"),
    ),
    "another package": ("evil.Dense", lambda c: part("evil", "Dense", units=1)),
    "a name that only begins like Keras'": (
        "keras_evil.layers.Dense",
        lambda c: part("keras_evil.layers", "Dense", units=1),
    ),
    "a private module of Keras": (
        "keras.src.saving.saving_lib.load_model",
        lambda c: dense(activation=function("keras.src.saving.saving_lib", "load_model")),
    ),
    "a test module of Keras": (
        "keras.src.layers.layer_test.Layer",
        lambda c: part("keras.src.layers.layer_test", "Layer"),
    ),
    "a registered name": (
        "evil>Thing",
        lambda c: {**dense(), "registered_name": "evil>Thing"},
    ),
    "a type": (
        "evil.Spec",
        lambda c: dense(
            name={"class_name": "__typespec__", "spec_name": "Spec", "module": "evil",
                  "registered_name": None, "config": []}
        ),
    ),
    "a function deep inside": (
        "subprocess.run",
        lambda c: dense(kernel_regularizer=[{"a": [function("subprocess", "run")]}]),
    ),
    "a name that is a list": ("a name that is not text", lambda c: dense(name={"class_name": []})),
}  # fmt: skip
LIVE = {"lambda layer, CVE-2024-3660", "bytecode as an activation"}


@pytest.mark.parametrize("name", LAYERS)
def test_hostile_layers_are_refused_by_name(name, canary):
    expected, make = LAYERS[name]
    with pytest.raises(UnsafeError) as caught:
        audit(in_memory(archive(sequential(make(canary)))))
    assert expected in caught.value.message
    assert "config.json.config.layers.1" in caught.value.message
    assert not canary.exists()


def test_the_same_in_an_old_file(canary):
    layers = [make(canary) for _, make in LAYERS.values()]
    report = scan(in_memory(old_file(sequential(*layers)), "model.h5"))
    assert {expected for expected, _ in LAYERS.values()} <= {f.what for f in report.findings}
    assert not canary.exists()


def old_file(config: Any, edit: Callable[[Any], None] = lambda file: None) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = np.array([b"dense"])
        weights.create_dataset("dense/kernel", data=np.ones((2, 2)))
        edit(file)
    return content.getvalue()


def legacy_lambda(canary: Path) -> dict[str, Any]:
    """As Keras 2 wrote it."""
    config = {
        "name": "lambda", "function": [bytecode(canary), None, None], "function_type": "lambda",
        "module": "__main__", "output_shape": None, "output_shape_type": "raw", "arguments": {},
    }  # fmt: skip
    first = {"class_name": "InputLayer", "config": {"batch_shape": [None, 4], "name": "in"}}
    layers = [first, {"class_name": "Lambda", "config": config}]
    return {"class_name": "Sequential", "config": {"name": "model", "layers": layers}}


def test_lambdas_of_old_files_are_refused(canary):
    """CVE-2025-9905: Keras ignored its safe mode for these."""
    with pytest.raises(UnsafeError, match=r"keras\.layers\.Lambda") as caught:
        audit(in_memory(old_file(legacy_lambda(canary)), "model.h5"))
    assert "--allow keras.layers.Lambda" in caught.value.hint


_LOAD = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np
for path in sys.argv[1:]:
    try:
        model = keras.models.load_model(path, compile=True, safe_mode=False)
        model.predict(np.ones((1, 4), "f4"), verbose=0)
    except Exception as error:
        print(path, repr(error)[:300], file=sys.stderr)
"""


@pytest.mark.slow
def test_the_hostile_files_are_live(tmp_path):
    """They do run code when Keras loads them without its safe mode."""
    paths, canaries = [], {}
    for number, name in enumerate(sorted(LIVE)):
        canaries[name] = tmp_path / f"canary{number}"
        paths.append(tmp_path / f"{number}.keras")
        paths[-1].write_bytes(archive(sequential(LAYERS[name][1](canaries[name]))))
    canaries["old"] = tmp_path / "canary-old"
    paths.append(tmp_path / "old.h5")
    paths[-1].write_bytes(old_file(legacy_lambda(canaries["old"])))
    subprocess.run([sys.executable, "-c", _LOAD, *map(str, paths)], check=True)
    assert {name: path.exists() for name, path in canaries.items()} == dict.fromkeys(canaries, True)


# HDF5: what stands in other files.


def external_link(file: Any) -> None:
    file["model_weights/evil"] = h5py.ExternalLink("/secret.h5", "/numbers")


def soft_link(file: Any) -> None:
    file["model_weights/evil"] = h5py.SoftLink("/model_weights/dense")


def external_storage(file: Any) -> None:
    file.create_dataset("evil", (4,), "f8", external=[("/etc/passwd", 0, 32)])


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource("/secret.h5", "numbers", (4,))
    file.create_virtual_dataset("evil", layout)


OUTSIDE = {
    "a link into another file": (external_link, "'/secret.h5:/numbers'"),
    "a soft link": (soft_link, "'/model_weights/dense'"),
    "its numbers are in another file": (external_storage, "'/etc/passwd'"),
    "its numbers are in other datasets": (virtual, "'/secret.h5'"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_files_outside_are_refused(name):
    edit, expected = OUTSIDE[name]
    content = old_file(None, edit)
    for source in (
        in_memory(content, "model.h5"),
        in_memory(archive(sequential(dense()), **{"model.weights.h5": content})),
    ):
        with pytest.raises(UnsafeError, match=name) as caught:
            audit(source)
        assert expected in caught.value.message


def test_what_is_outside_would_be_read(tmp_path):
    """HDF5 follows all of these, so they are worth a refusal."""
    secret = np.arange(4.0)
    (tmp_path / "raw").write_bytes(secret.tobytes())
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["numbers"] = secret
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file["link"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/numbers")
        file.create_dataset("raw", (4,), "f8", external=[(str(tmp_path / "raw"), 0, 32)])
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "numbers", (4,))
        file.create_virtual_dataset("virtual", layout)
    with h5py.File(tmp_path / "model.h5") as file:
        for name in ("link", "raw", "virtual"):
            assert np.array_equal(file[name][:], secret)
    assert len(scan(Source.of(tmp_path / "model.h5")).findings) == 3


def test_the_scan_opens_nothing_outside(tmp_path):
    """A reader of a named pipe waits for ever."""
    os.mkfifo(tmp_path / "pipe")
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        name = str(tmp_path / "pipe")
        file["link"] = h5py.ExternalLink(name, "/x")
        file.create_dataset("raw", (4,), "f8", external=[(name, 0, 32)])
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource(name, "x", (4,))
        file.create_virtual_dataset("virtual", layout)
    assert len(scan(in_memory(content.getvalue(), "model.h5")).findings) == 3


def test_filters_that_load_libraries_are_refused():
    def packed(file: Any) -> None:
        file.create_dataset("packed", data=np.arange(100.0), chunks=(10,), compression="lzf")

    content = old_file(None, packed)
    assert scan(in_memory(content, "model.h5")).findings == ()
    lzf, zstandard = struct.pack("<H", 32000), struct.pack("<H", 32015)
    at = content.index(lzf + b"\x08\0\x01\0\x03\0lzf")
    changed = content[:at] + zstandard + content[at + 2 :]
    with pytest.raises(UnsafeError, match=r"filter 32015 .*load a library"):
        audit(in_memory(changed, "model.h5"))


def test_circles_of_groups_end():
    def circle(file: Any) -> None:
        file["model_weights/again"] = file["/"]

    assert scan(in_memory(old_file(None, circle), "model.h5")).findings == ()


def test_shapes_without_numbers_are_bounded():
    """CVE-2026-0897: a few bytes that announce terabytes."""

    def bomb(file: Any) -> None:
        file.create_dataset("evil", (1 << 40,), "f8", chunks=(1 << 20,), compression="gzip")

    with pytest.raises(LimitError, match="its arrays are larger"):
        audit(in_memory(old_file(None, bomb), "model.h5"), trust=True)


# The archive.


def doubled(canary: Path) -> bytes:
    file = io.BytesIO(archive(sequential(dense())))
    evil = json.dumps(sequential(LAYERS["lambda layer, CVE-2024-3660"][1](canary)))
    with zipfile.ZipFile(file, "a") as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.writestr("config.json", evil)
    return file.getvalue()


def linked(canary: Path) -> bytes:
    file = io.BytesIO(archive(sequential(dense())))
    link = zipfile.ZipInfo("assets/words.txt")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(file, "a") as made:
        made.writestr(link, "/etc/passwd")
    return file.getvalue()


ARCHIVES: dict[str, Callable[[Path], bytes]] = {
    "leaves the folder": lambda c: archive(sequential(dense()), **{"assets/../../x": b"x"}),
    "an absolute name": lambda c: archive(sequential(dense()), **{"/tmp/x": b"x"}),
    "another member": lambda c: archive(sequential(dense()), **{"evil.py": b"x"}),
    "pickled weights": lambda c: archive(sequential(dense()), **{"model.weights.npz": b"x"}),
    "a link": linked,
    "two configurations": doubled,
    "something behind": lambda c: archive(sequential(dense())) + b"MZ",
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_keras_does_not_write_are_refused(name, canary):
    with pytest.raises(UnsafeError, match="archive"):
        audit(in_memory(ARCHIVES[name](canary)))


# Damage.


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> tuple[bytes, bytes]:
    folder = tmp_path_factory.mktemp("honest")
    model = HONEST["dense"]()
    return saved(model, folder), saved(model, folder, ".h5")


def test_truncated_files_are_damaged_even_if_trusted(honest):
    for content, name, steps in zip(honest, ("model.keras", "model.h5"), (40, 8), strict=True):
        for end in range(9, len(content), len(content) // steps):
            with pytest.raises(InputError):
                audit(in_memory(content[:end], name), trust=True)


def test_hdf5_may_crash_or_hang(honest, monkeypatch):
    """Its library is asked in a process of its own; damage to a heap would keep it for ever."""
    content = bytearray(honest[1])
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 32] = bytes(16)
    with pytest.raises(InputError, match="does not end"):
        scan(in_memory(bytes(content), "model.h5"))
    monkeypatch.setattr(hdf5, "_structure_problem", lambda content: "")
    monkeypatch.setattr(hdf5, "_LEAST_SECONDS", 3.0)
    with pytest.raises(InputError, match="HDF5 does not come to an end"):
        scan(in_memory(bytes(content), "model.h5"))


BROKEN = {
    "empty weights": {"model.weights.h5": b""},
    "weights that are not HDF5": {"model.weights.h5": b"x" * 100},
    "a configuration that is not JSON": {"config.json": b"{'a': 1}"},
    "a configuration of bytes": {"config.json": b"\xff\xfe\xfd"},
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_members_are_input_errors(name):
    with pytest.raises(InputError):
        audit(in_memory(archive(sequential(dense()), **BROKEN[name])), trust=True)


def test_deep_configurations_are_bounded():
    deep = b"[" * 200_000 + b"]" * 200_000
    with pytest.raises(LimitError, match=r"config\.json is nested too deep"):
        audit(in_memory(archive(deep)), trust=True)
    walk = ConfigWalk()
    nested: Any = function("os", "system")
    for _ in range(100_000):
        nested = [nested]
    walk.walk(nested, "config")
    assert walk.findings[0].what == "os.system"


def test_configuration_that_is_not_text():
    def numbers(file: Any) -> None:
        file.attrs["model_config"] = np.arange(3)

    with pytest.raises(InputError, match="model_config is not text"):
        audit(in_memory(old_file(None, numbers), "model.h5"), trust=True)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_mutated_archives_never_crash(data, honest):
    scan_a_mutant(data, honest[0], "model.keras")


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_mutated_hdf5_never_crashes(data, honest):
    scan_a_mutant(data, honest[1], "model.h5")


def scan_a_mutant(data: Any, original: bytes, name: str) -> None:
    content = bytearray(original)
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(8, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ModelportError):
        scan(in_memory(bytes(content), name))
