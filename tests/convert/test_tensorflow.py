"""SavedModel folders: a real one, Keras' own exports, and modules with several signatures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from real_models import real

from modelport.api import pack
from modelport.convert.stage import convert
from modelport.core.artifact import Artifact
from modelport.core.errors import InputError, NotFoundError, UnsafeError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource, Source
from modelport.scan.stage import audit

from . import keras_models as trained
from .conftest import runner

#: Keras 3 asks TensorFlow for arrays in a way that NumPy 2 has a word about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NMP = ("basic_pitch", "saved_models", "icassp_2022")


@pytest.fixture(scope="module")
def tf() -> Any:
    """Imported late: it takes seconds, and every worker collects this module."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    return tensorflow


def chords(count: int = 3) -> np.ndarray:
    """Synthesized: decaying harmonics of a few notes, two seconds at 22050 Hz."""
    time = np.arange(43844) / 22050
    notes = ((220.0, 277.2, 329.6), (440.0,), (261.6, 392.0))[:count]
    waves = [
        sum(np.sin(2 * np.pi * note * k * time) / k for note in chord for k in range(1, 6))
        for chord in notes
    ]
    return (0.1 * np.exp(-time) * np.stack(waves)).astype(np.float32)[..., None]


def converted(thing: Any, rows: Any) -> Artifact:
    columns = rows if isinstance(rows, dict) else {"": rows}
    return convert(audit(Source.of(thing)), Rows(columns, "sample"))


@pytest.mark.slow
def test_basic_pitch_by_name(tf: Any, tmp_path: Path) -> None:
    """Three outputs, two of one shape; the authors' own ONNX file calls them by numbers."""
    rows = chords()
    package = pack(real("basic-pitch", *NMP, "nmp"), "pitch", sample=rows, out=tmp_path)
    shapes = {spec.name: spec.shape for spec in package.manifest.signature.outputs}
    assert shapes == {
        "contour": ("N", 172, 264), "note": ("N", 172, 88), "onset": ("N", 172, 88)
    }  # fmt: skip
    session = onnxruntime.InferenceSession(str(package.model_path))
    names = [output.name for output in session.get_outputs()]
    actual = dict(zip(names, session.run(names, {"input_2": rows}), strict=True))
    authors = onnxruntime.InferenceSession(str(real("basic-pitch", *NMP, "nmp.onnx")))
    numbered = {"onset": 2, "note": 1, "contour": 0}
    for name, number in numbered.items():
        (expected,) = authors.run(
            [f"StatefulPartitionedCall:{number}"], {"serving_default_input_2:0": rows}
        )
        np.testing.assert_allclose(actual[name], expected, atol=1e-5)
    assert package.manifest.provenance["framework"].startswith("TensorFlow 2.")
    # The source's maximum passes over NaN: the served model refuses it instead of answering NaN.
    assert package.manifest.signature.inputs[0].refuses == ("nan", "infinity")
    assert any("refused: the source" in note for note in package.manifest.parity["notes"])


def test_export_of_keras_3(tf: Any, tmp_path: Path) -> None:
    model = trained.many_to_many()
    model.export(tmp_path / "saved", verbose=False)
    inputs = trained.split_digits()
    artifact = converted(tmp_path / "saved", {k: a[:50] for k, a in inputs.items()})
    assert list(artifact.signature.inputs_by_name) == ["image", "margins"]
    expected = model.predict(inputs, verbose=0)
    actual = runner(artifact)(inputs)
    for name, array in expected.items():
        np.testing.assert_allclose(actual[name], array, rtol=1e-4, atol=2e-5)
    again = converted(tmp_path / "saved", {k: a[:50] for k, a in inputs.items()})
    assert again.files == artifact.files


def module_with(tf: Any, folder: Path, *names: str) -> Path:
    """A trained weight, and one signature for each name."""
    pixels, labels = trained.digits()
    solution = np.linalg.lstsq(pixels, np.eye(10)[labels], rcond=None)[0].astype(np.float32)

    class Linear(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable(solution)

        @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, name="pixels")])
        def scores(self, pixels: Any) -> dict[str, Any]:
            scores = tf.matmul(pixels, self.weights)
            return {"scores": scores, "best": tf.argmax(scores, axis=1)}

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="pixels")])
        def sums(self, pixels: Any) -> dict[str, Any]:
            return {"sum": tf.reduce_sum(pixels, axis=1), "sorted": tf.sort(pixels, axis=1)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def texts(self, examples: Any) -> dict[str, Any]:
            parts = tf.strings.split(tf.strings.lower(examples)).to_tensor()
            return {"first": tf.strings.to_hash_bucket_fast(parts[:, 0], 10)}

    module = Linear()
    available = {
        "serving_default": module.scores,
        "scores": module.scores,
        "sums": module.sums,
        "texts": module.texts,
    }
    path = folder / "module"
    tf.saved_model.save(module, str(path), signatures={name: available[name] for name in names})
    return path


def test_the_default_of_several_signatures(tf: Any, tmp_path: Path) -> None:
    pixels = trained.digits()[0]
    path = module_with(tf, tmp_path, "serving_default", "sums")
    artifact = converted(path, pixels[:50])
    expected = tf.saved_model.load(str(path)).signatures["serving_default"](pixels=pixels)
    actual = runner(artifact)({"pixels": pixels})
    assert np.array_equal(actual["best"], expected["best"])
    np.testing.assert_allclose(actual["scores"], expected["scores"], rtol=1e-4, atol=1e-5)
    assert artifact.provenance["notes"] == ["signature serving_default; left out: sums"]


def test_the_only_signature(tf: Any, tmp_path: Path) -> None:
    pixels = trained.digits()[0]
    artifact = converted(module_with(tf, tmp_path, "sums"), pixels[:50])
    actual = runner(artifact)({"pixels": pixels[:, :20]})
    np.testing.assert_allclose(actual["sum"], pixels[:, :20].sum(axis=1), rtol=1e-5)
    assert np.array_equal(actual["sorted"], np.sort(pixels[:, :20], axis=1))


def test_no_default_among_several_is_refused(tf: Any, tmp_path: Path) -> None:
    path = module_with(tf, tmp_path, "scores", "sums")
    with pytest.raises(UnsupportedError, match=r"2 signatures .*: scores, sums") as caught:
        converted(path, trained.digits()[0][:20])
    assert caught.value.hint == "choose one: --signature scores"


def test_one_of_several_by_name(tf: Any, tmp_path: Path) -> None:
    path = module_with(tf, tmp_path, "scores", "sums")
    pixels = trained.digits()[0][:20]
    source = audit(Source.of(path, signature="sums"))
    artifact = convert(source, Rows({"": pixels}))
    assert set(artifact.signature.outputs_by_name) == {"sum", "sorted"}
    with pytest.raises(NotFoundError, match="signature not found: sum; there is: sums, scores"):
        convert(audit(Source.of(path, signature="sum")), Rows({"": pixels}))


def test_no_signature_is_refused(tf: Any, tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(UnsupportedError, match="no signature"):
        converted(tmp_path / "empty", np.ones((3, 2), np.float32))


def test_operators_on_text_are_refused_by_name(tf: Any, tmp_path: Path) -> None:
    path = module_with(tf, tmp_path, "texts")
    texts = np.asarray(["a b", "C d"] * 4, dtype=object)
    with pytest.raises(UnsupportedError, match="StringSplitV2") as caught:
        converted(path, texts)
    assert "StringToHashBucketFast" in caught.value.message


def test_random_numbers_are_refused(tf: Any, tmp_path: Path) -> None:
    class Noisy(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
        def __call__(self, rows: Any) -> Any:
            return {"noisy": rows + tf.random.normal(tf.shape(rows))}

    tf.saved_model.save(Noisy(), str(tmp_path / "noisy"))
    from modelport.core.errors import ParityError

    with pytest.raises((ParityError, UnsafeError, UnsupportedError)) as caught:
        converted(tmp_path / "noisy", np.ones((8, 4), np.float32))
    assert "differ" in caught.value.message


@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff not a protobuf"])
def test_damaged_graph(content: bytes, tf: Any, tmp_path: Path) -> None:
    path = module_with(tf, tmp_path, "serving_default")
    (path / "saved_model.pb").write_bytes(content)
    # Past the scan, too.
    with pytest.raises(InputError):
        convert(AuditedSource(Source.of(path), "savedmodel"), None)
    (path / "saved_model.pb").unlink()
    with pytest.raises(InputError):
        convert(AuditedSource(Source.of(path), "savedmodel"), None)
