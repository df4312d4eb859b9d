"""Keras models, trained on real data: the ONNX file answers as Keras does."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.adapters import find_adapter
from modelport.api import pack
from modelport.convert.stage import convert
from modelport.core.artifact import Artifact
from modelport.core.errors import InputError, ParityError, UnsafeError, UnsupportedError
from modelport.core.options import PackOptions
from modelport.core.rows import Rows
from modelport.core.source import Source
from modelport.scan.stage import audit

from . import keras_models as trained
from .conftest import runner

#: Keras 3 asks TensorFlow for arrays in a way that NumPy 2 has a word about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def keras() -> Any:
    """Imported late: it takes seconds, and every worker collects this module."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    return keras


@pytest.fixture(scope="module")
def dense(keras: Any) -> Any:
    return trained.dense_classifier()


def converted(thing: Any, rows: Any, *, native: bool = False, factory: str = "") -> Artifact:
    columns = rows if isinstance(rows, dict) or rows is None else {"": rows}
    audited = audit(Source.of(thing, factory=factory))
    return convert(audited, Rows(columns, "sample") if columns else None, native=native)


def saved(model: Any, folder: Path, name: str = "model.keras") -> Path:
    path = folder / name
    model.save(path)
    return path


def check(artifact: Artifact, model: Any, inputs: Any) -> dict[str, np.ndarray]:
    """Keras itself and ONNX Runtime itself, on all rows; the answers of ONNX Runtime."""
    import keras

    named = inputs if isinstance(inputs, dict) else {artifact.signature.inputs[0].name: inputs}
    names = list(artifact.signature.inputs_by_name)
    arguments = [named[name] for name in names]
    expected = model.predict(
        inputs if isinstance(inputs, dict) or len(names) == 1 else arguments, verbose=0
    )
    flat = keras.tree.flatten(expected)
    actual = runner(artifact)(named)
    outputs = [spec.name for spec in artifact.signature.outputs]
    assert list(actual) == outputs
    for name, array in zip(outputs, flat, strict=True):
        np.testing.assert_allclose(actual[name], array, rtol=1e-4, atol=2e-5)
        if array.ndim == 2 and array.shape[1] > 1:
            assert np.array_equal(actual[name].argmax(axis=1), array.argmax(axis=1))
    return actual


def symbols(artifact: Artifact) -> list[tuple[Any, ...]]:
    return [spec.shape for spec in (*artifact.signature.inputs, *artifact.signature.outputs)]


@pytest.mark.parametrize("kind", ["live", "model.keras", "model.h5"])
def test_every_source_of_a_model_gives_the_same_file(kind: str, dense: Any, tmp_path: Path) -> None:
    pixels, labels = trained.digits()
    source = dense if kind == "live" else saved(dense, tmp_path, kind)
    artifact = converted(source, pixels[:100])
    answers = check(artifact, dense, pixels)
    assert (answers["digit"].argmax(axis=1) == labels).mean() > 0.8
    assert symbols(artifact) == [("N", 64), ("N", 10)]
    assert artifact.signature.inputs[0].name == "pixels"
    assert artifact.task == "classification"
    assert artifact.row_independent
    assert artifact.parity["attempts"] == [
        {"name": "tf2onnx opset 18", "outcome": "kept", "reason": ""}
    ]
    assert converted(source, pixels[:100]).files == artifact.files


@pytest.mark.slow
def test_the_same_file_in_another_process(dense: Any, tmp_path: Path) -> None:
    path = saved(dense, tmp_path)
    np.save(tmp_path / "rows.npy", trained.digits()[0][:50])
    script = (
        "import sys\nfrom modelport.api import pack\n"
        "print(pack(sys.argv[1], 'digits', sample=sys.argv[2], out=sys.argv[3]).digest)"
    )
    digest = pack(path, "digits", sample=tmp_path / "rows.npy", out=tmp_path).digest
    made = subprocess.run(
        [sys.executable, "-c", script, path, tmp_path / "rows.npy", tmp_path / "other"],
        env={**os.environ, "PYTHONHASHSEED": "7", "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout.strip() == digest
    assert made.stderr == ""


def test_image_of_any_size(keras: Any, tmp_path: Path) -> None:
    model = trained.convolutional_classifier()
    images, labels = trained.mnist()
    artifact = converted(saved(model, tmp_path), images[:60])
    answers = check(artifact, model, images)
    assert (answers["digit"].argmax(axis=1) == labels).mean() > 0.5
    assert symbols(artifact) == [("N", "image_1", "image_2", 1), ("N", 10)]
    check(artifact, model, np.repeat(images[:20], 2, axis=2)[:, 3:, :-5])
    probes = {probe["name"]: probe for probe in artifact.parity["probes"]}
    assert probes["sizes that may vary: half as large"]["passed"]
    # TensorFlow's pooling passes over NaN; ONNX's does not.
    assert "nan" in artifact.signature.inputs[0].refuses
    assert "NaN in image" in probes


@pytest.mark.slow
def test_sequences_of_any_length(keras: Any, tmp_path: Path) -> None:
    model = trained.recurrent_classifier()
    pixels, _ = trained.digits()
    artifact = converted(saved(model, tmp_path), pixels[:60].reshape(-1, 8, 8))
    check(artifact, model, pixels.reshape(-1, 8, 8))
    check(artifact, model, pixels.reshape(-1, 8, 8)[:50, :5])
    assert symbols(artifact) == [("N", "rows_1", 8), ("N", 10)]


@pytest.mark.slow
def test_words_and_their_limits(keras: Any, tmp_path: Path) -> None:
    model = trained.text_classifier()
    words, labels = trained.mail_identifiers()
    artifact = converted(saved(model, tmp_path), words[:80])
    answers = check(artifact, model, words)
    assert ((answers["spam"][:, 0] > 0.5) == labels).mean() > 0.7
    assert artifact.signature.inputs[0].dtype == "int32"
    assert artifact.task == "classification"
    probes = {probe["name"]: probe for probe in artifact.parity["probes"]}
    limits = probes["identifiers at the limits of the vocabulary in words"]
    assert limits["refused"] == 2
    assert "is not in [0, 500)" in limits["note"]


def test_signals_of_any_length(keras: Any, tmp_path: Path) -> None:
    model = trained.signal_regressor()
    signal = trained.digits()[0][..., None] / 16
    artifact = converted(saved(model, tmp_path), signal[:60])
    check(artifact, model, signal)
    check(artifact, model, signal[:, :31])
    assert artifact.task == "regression"


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_several_inputs_and_outputs_go_by_name(keras: Any, tmp_path: Path, name: str) -> None:
    model = trained.many_to_many()
    inputs = trained.split_digits()
    few = {key: array[:60] for key, array in inputs.items()}
    artifact = converted(saved(model, tmp_path, name), dict(reversed(few.items())))
    answers = runner(artifact)(inputs)
    expected = model.predict(inputs, verbose=0)
    assert set(answers) == {"again", "digit"}
    for key, array in expected.items():
        np.testing.assert_allclose(answers[key], array, rtol=1e-4, atol=2e-5)
    assert np.array_equal(answers["digit"].argmax(1), expected["digit"].argmax(1))
    assert artifact.signature.inputs_by_name["image"].shape == ("N", 8, 8, 1)


def test_generator_of_images(keras: Any, tmp_path: Path) -> None:
    model = trained.generator()
    noise = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    artifact = converted(saved(model, tmp_path), noise[:50])
    answers = check(artifact, model, noise)
    assert answers["image"].shape == (300, 8, 8, 1)
    assert artifact.task == "unknown"


def test_preprocessing_adapted_on_data(keras: Any, tmp_path: Path) -> None:
    model = trained.preprocessing_classifier()
    sums, codes = trained.sums_and_codes()
    artifact = converted(saved(model, tmp_path), {"sums": sums[:80], "code": codes[:80]})
    actual = runner(artifact)({"sums": sums, "code": codes})["digit"]
    expected = model.predict([sums, codes], verbose=0)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-5)
    assert np.array_equal(actual.argmax(1), expected.argmax(1))


def test_without_rows(dense: Any) -> None:
    artifact = converted(dense, None)
    assert artifact.parity["rows_are"] == "made up"
    assert artifact.golden is not None


@pytest.mark.parametrize("name", ["w.weights.h5", "w.h5", "w.keras"])
def test_weights_with_a_factory(
    name: str, dense: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, _ = trained.digits()
    path = tmp_path / name
    if name == "w.h5":
        legacy_weights(dense, path)
    elif name == "w.keras":
        dense.save(path)
    else:
        dense.save_weights(path)
    (tmp_path / "nets.py").write_text(
        "import keras\nfrom keras import layers\n\n"
        "def make():\n"
        "    return keras.Sequential([keras.Input((64,), name='pixels'),\n"
        "        layers.Rescaling(1 / 16), layers.Dense(48, activation='gelu'),\n"
        "        layers.BatchNormalization(), layers.Dropout(0.3),\n"
        "        layers.Dense(10, activation='softmax', name='digit')])\n"
        "def small():\n"
        "    return keras.Sequential([keras.Input((64,)), layers.Dense(3)])\n"
        "class Nothing: pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    check(converted(path, pixels[:50], factory="nets:make"), dense, pixels)
    if name != "w.keras":
        with pytest.raises(UnsupportedError, match=r"weights only.*model") as caught:
            converted(path, pixels[:50])
        assert "--factory module:function" in caught.value.hint
    with pytest.raises(InputError, match="weights do not fit the model of nets:small"):
        converted(path, pixels[:50], factory="nets:small")
    with pytest.raises(InputError, match="makes a Nothing, not a Keras model"):
        converted(path, pixels[:50], factory="nets:Nothing")
    with pytest.raises(InputError, match="attribute of nets not found: gone; there is:"):
        converted(path, pixels[:50], factory="nets:gone")


def legacy_weights(model: Any, path: Path) -> None:
    """As Keras 2 wrote weights: the group ``model_weights`` of a whole model, by itself."""
    import h5py

    whole = path.with_name("whole.h5")
    model.save(whole)
    with h5py.File(whole) as old, h5py.File(path, "w") as new:
        group = old["model_weights"]
        for name in group:
            old.copy(group[name], new, name)
        new.attrs.update(group.attrs)


def test_hdf5_of_keras_2(keras: Any, tmp_path: Path) -> None:
    """Keras 2 wrote arguments that Keras 3 does not know."""
    import h5py

    model = trained.recurrent_classifier()
    path = saved(model, tmp_path, "old.h5")
    with h5py.File(path, "r+") as file:
        configuration = json.loads(file.attrs["model_config"])
        for layer in configuration["config"]["layers"]:
            inner = layer["config"].get("layer", layer)
            if inner["class_name"] in ("LSTM", "GRU"):
                inner["config"]["time_major"] = False
        file.attrs["model_config"] = json.dumps(configuration)
        file.attrs["keras_version"] = "2.15.0"
    rows = trained.digits()[0].reshape(-1, 8, 8)
    source = find_adapter("framework", "keras").load().load(audit(Source.of(path)))
    answers = source.predict(Rows({"rows": rows}))["digit"]
    np.testing.assert_allclose(answers, model.predict(rows, verbose=0), rtol=1e-4, atol=1e-5)


def test_half_precision_is_noted(keras: Any, tmp_path: Path) -> None:
    pixels, labels = trained.digits()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential(
            [
                keras.Input((64,)),
                keras.layers.Dense(16, activation="relu"),
                keras.layers.Dense(10, activation="softmax", dtype="float32"),
            ]
        )
    finally:
        keras.config.set_dtype_policy("float32")
    trained.fit(model, pixels / 16, labels, "sparse_categorical_crossentropy", epochs=2)
    artifact = converted(saved(model, tmp_path), pixels[:50] / 16)
    assert "layers compute in float16: the answers are that exact" in artifact.provenance["notes"]
    actual = runner(artifact)({artifact.signature.inputs[0].name: pixels / 16})
    np.testing.assert_allclose(
        next(iter(actual.values())), model.predict(pixels / 16, verbose=0), atol=5e-3
    )


def test_text_inside_the_model_is_refused(keras: Any, tmp_path: Path) -> None:
    texts = trained.mails(100)[0]
    joined = np.asarray([" ".join(text[:30]) for text in texts], dtype=object)
    vectorize = keras.layers.TextVectorization(max_tokens=200, output_sequence_length=12)
    vectorize.adapt(joined)
    model = keras.Sequential(
        [
            keras.Input((1,), dtype="string", name="text"),
            vectorize,
            keras.layers.Embedding(200, 4),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    with pytest.raises(UnsupportedError) as caught:
        converted(saved(model, tmp_path), joined[:20, None])
    assert "StringSplitV2" in caught.value.message
    assert "--engine native" in caught.value.hint


def test_code_that_is_not_in_the_file_is_refused(keras: Any, tmp_path: Path) -> None:
    class Doubled(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return 2 * inputs

    model = keras.Sequential([keras.Input((4,)), Doubled(), keras.layers.Dense(2)])
    with pytest.raises((UnsupportedError, UnsafeError), match="Doubled") as caught:
        converted(saved(model, tmp_path), np.ones((5, 4), np.float32))
    assert caught.value.hint
    # The same model in memory needs no file.
    check(converted(model, np.ones((5, 4), np.float32)), model, np.ones((9, 4), np.float32))


def test_subclassed_model_in_memory(keras: Any) -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = keras.layers.Dense(8, activation="relu")
            self.last = keras.layers.Dense(3, activation="softmax")

        def call(self, features: Any) -> dict[str, Any]:
            hidden = self.hidden(features)
            return {"scores": self.last(hidden), "hidden": hidden}

    model = Net()
    with pytest.raises(UnsupportedError, match="nobody knows what Net takes"):
        converted(model, np.ones((5, 4), np.float32))
    rows = trained.digits()[0][:, :4]
    model(rows[:2])
    artifact = converted(model, rows[:40])
    answers = runner(artifact)({"features": rows})
    expected = model(rows)
    for name in ("scores", "hidden"):
        np.testing.assert_allclose(answers[name], expected[name], rtol=1e-4, atol=1e-5)


def test_lambda_is_refused(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])
    with pytest.raises(UnsafeError, match=r"(?i)lambda"):
        converted(saved(model, tmp_path), np.ones((5, 4), np.float32))


def test_answers_that_change_are_refused(keras: Any) -> None:
    class Noisy(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs + keras.random.normal((1, 8))

    model = keras.Sequential([keras.Input((8,)), Noisy(), keras.layers.Dense(2)])
    with pytest.raises(ParityError, match="differ from call to call"):
        converted(model, trained.digits()[0][:20, :8])


def test_dropout_is_off_whatever_the_model_says(keras: Any) -> None:
    """As in Keras: a functional model that is called for inference overrides its layers."""
    inputs = keras.Input((8,))
    outputs = keras.layers.Dropout(0.5)(inputs, training=True)
    model = keras.Model(inputs, keras.layers.Dense(2)(outputs))
    rows = trained.digits()[0][:20, :8]
    check(converted(model, rows), model, rows)


@pytest.mark.parametrize("content", [b"PK\x03\x04 not a zip", b"\x89HDF\r\n\x1a\n broken"])
def test_damaged_files(content: bytes, keras: Any, tmp_path: Path) -> None:
    path = tmp_path / ("m.keras" if content.startswith(b"PK") else "m.h5")
    path.write_bytes(content)
    with pytest.raises(InputError):
        converted(path, np.ones((5, 4), np.float32))


def test_native_package_refuses_what_fused_operators_answer_otherwise(keras: Any) -> None:
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(3, activation="softmax"),
    ]
    images = np.random.default_rng(0).random((20, 8, 8, 1), np.float32)
    artifact = converted(keras.Sequential(layers), images, native=True)
    assert artifact.engine == "keras"
    (spec,) = artifact.signature.inputs
    assert spec.refuses, "the compiled graph answers NaN otherwise than Keras itself"
    for kind in spec.refuses:
        assert any(f"{kind}" in note and "refused" in note for note in artifact.parity["notes"])


def test_native_package(dense: Any, tmp_path: Path) -> None:
    pixels, _ = trained.digits()
    options = PackOptions(engine="native")
    package = pack(dense, "digits", sample=pixels[:50], out=tmp_path, options=options)
    assert package.manifest.engine == "keras"
    assert package.model_path.name == "model.keras"
    again = pack(dense, "digits", sample=pixels[:50], out=tmp_path / "again", options=options)
    assert again.digest == package.digest
    with zipfile.ZipFile(io.BytesIO(package.model_path.read_bytes())) as archive:
        assert "date_saved" not in json.loads(archive.read("metadata.json"))
    assert any("MB installed" in note for note in package.manifest.parity["notes"])
