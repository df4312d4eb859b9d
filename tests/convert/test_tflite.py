"""TFLite files: real ones, and quantized ones made of a trained model."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from real_models import real
from sklearn.datasets import load_sample_images

from modelport.api import pack
from modelport.convert.stage import convert
from modelport.core.artifact import Artifact
from modelport.core.errors import InputError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource, Source
from modelport.scan.stage import audit

from . import keras_models as trained
from .conftest import runner
from .test_tensorflow import NMP, chords

#: Keras 3 asks TensorFlow for arrays in a way that NumPy 2 has a word about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def tf() -> Any:
    """Imported late: it takes seconds, and every worker collects this module."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    return tensorflow


@pytest.fixture(scope="module")
def convolutional(tf: Any) -> Any:
    """Trained on MNIST; TFLite wants to know the size of the images."""
    import keras

    model = trained.convolutional_classifier()
    image = keras.Input((28, 28, 1), name="image")
    return keras.Model(image, model(image))


def converted(thing: Any, rows: Any) -> Artifact:
    return convert(audit(Source.of(thing)), Rows({"": rows}, "sample"))


def interpret(tf: Any, content: bytes, rows: np.ndarray) -> list[np.ndarray]:
    """TFLite itself, row by row; its outputs in the file's order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    details = interpreter.get_output_details()
    answers: list[list[np.ndarray]] = [[] for _ in details]
    for row in rows:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row[None])
        interpreter.invoke()
        for kept, detail in zip(answers, details, strict=True):
            kept.append(interpreter.get_tensor(detail["index"])[0])
    return [np.stack(kept) for kept in answers]


def lite(tf: Any, model: Any, **options: Any) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    for name, value in options.items():
        setattr(converter, name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it talks to people who train
        return bytes(converter.convert())


@pytest.mark.slow
def test_basic_pitch_by_name(tf: Any, tmp_path: Path) -> None:
    rows = chords()
    package = pack(real("basic-pitch", *NMP, "nmp.tflite"), "pitch", sample=rows, out=tmp_path)
    session = onnxruntime.InferenceSession(str(package.model_path))
    names = [output.name for output in session.get_outputs()]
    assert names == ["contour", "note", "onset"]
    actual = dict(zip(names, session.run(names, {"input_2": rows}), strict=True))
    authors = onnxruntime.InferenceSession(str(real("basic-pitch", *NMP, "nmp.onnx")))
    for number, name in enumerate(names):
        (expected,) = authors.run(
            [f"StatefulPartitionedCall:{number}"], {"serving_default_input_2:0": rows}
        )
        np.testing.assert_allclose(actual[name], expected, atol=1e-5)


@pytest.mark.slow
def test_mediapipe_segmentation_of_photographs(tf: Any) -> None:
    """Float16 weights and a custom operator; a file for one image that takes any number."""
    path = real("selfie_segmentation", "package", "selfie_segmentation.tflite")
    photographs = [image[80:336, 100:356] for image in load_sample_images().images]
    photographs += [image[::-1, ::-1] for image in photographs]
    rows = np.stack(photographs).astype(np.float32) / 255
    artifact = converted(path, rows)
    (expected,) = interpret(tf, path.read_bytes(), rows)
    actual = runner(artifact)({"input_1": rows})["activation_10"]
    assert actual.shape == (4, 256, 256, 1)
    np.testing.assert_allclose(actual, expected, atol=1e-3)
    assert artifact.signature.inputs[0].shape == ("N", 256, 256, 3)
    assert artifact.row_independent


def test_trained_model(tf: Any, convolutional: Any, tmp_path: Path) -> None:
    path = tmp_path / "digits.tflite"
    path.write_bytes(lite(tf, convolutional))
    images, _ = trained.mnist()
    artifact = converted(path, images[:40])
    actual = next(iter(runner(artifact)({artifact.signature.inputs[0].name: images}).values()))
    expected = convolutional.predict(images, verbose=0)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-5)
    assert np.array_equal(actual.argmax(1), expected.argmax(1))
    assert converted(path, images[:40]).files == artifact.files


def quantized(tf: Any, model: Any, how: str, images: np.ndarray) -> bytes:
    options: dict[str, Any] = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    if how in ("int8", "uint8 in and out"):
        options["representative_dataset"] = lambda: ([image[None]] for image in images[:50])
    if how == "uint8 in and out":
        options["inference_input_type"] = options["inference_output_type"] = tf.uint8
    if how == "float16":
        options["target_spec"] = tf.lite.TargetSpec(supported_types=[tf.float16])
    return lite(tf, model, **options)


@pytest.mark.parametrize("how", ["int8", "uint8 in and out", "dynamic", "float16"])
def test_quantized_models(tf: Any, convolutional: Any, tmp_path: Path, how: str) -> None:
    images, _ = trained.mnist()
    path = tmp_path / "quantized.tflite"
    path.write_bytes(quantized(tf, convolutional, how, images))
    rows = (images * 255).astype(np.uint8) if how == "uint8 in and out" else images
    artifact = converted(path, rows[:40])
    (expected,) = interpret(tf, path.read_bytes(), rows[:400])
    name = artifact.signature.inputs[0].name
    actual = next(iter(runner(artifact)({name: rows[:400]}).values()))
    assert actual.dtype == expected.dtype
    # A step of the quantized answer is 1/256.
    np.testing.assert_allclose(
        actual.astype(np.float32), expected, atol=1.01 / 256 if actual.dtype.kind == "f" else 1
    )
    assert (actual.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.99


def test_operator_that_tflite_lacks(tf: Any, convolutional: Any, tmp_path: Path) -> None:
    path = tmp_path / "custom.tflite"
    content = lite(tf, convolutional)
    custom = real("selfie_segmentation", "package", "selfie_segmentation.tflite").read_bytes()
    assert b"Convolution2DTransposeBias" in custom
    path.write_bytes(custom.replace(b"Convolution2DTransposeBias", b"ConvolutionOfOurVeryOwnOps"))
    with pytest.raises(UnsupportedError, match="custom operator ConvolutionOfOurVeryOwnOps"):
        convert(AuditedSource(Source.of(path), "tflite"), None)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError):
        convert(AuditedSource(Source.of(path), "tflite"), None)
