"""The Keras engine: a model as it is, from a file or bytes, called from many threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from modelport.adapters import find_adapter
from modelport.api import pack, predict
from modelport.core.errors import EngineError
from modelport.core.options import PackOptions
from modelport.engines.base import EngineOptions

#: Keras 3 asks TensorFlow for arrays in a way that NumPy 2 has a word about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def keras() -> Any:
    """Imported late: it takes seconds, and every worker collects this module."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    return keras


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return load_digits().images.astype(np.float32)


@pytest.fixture(scope="module")
def model(keras: Any, rows: np.ndarray) -> Any:
    layers = keras.layers
    image = keras.Input((None, 8), name="image")
    summed = layers.LSTM(16)(layers.Rescaling(1 / 16)(layers.Dropout(0.5)(image)))
    digit = layers.Dense(10, activation="softmax", name="digit")(summed)
    model = keras.Model(image, {"digit": digit, "state": summed})
    keras.utils.set_random_seed(0)
    model.compile("adam", {"digit": "sparse_categorical_crossentropy"}, jit_compile=False)
    model.fit(rows, {"digit": load_digits().target}, epochs=3, verbose=0)
    return model


@pytest.fixture(scope="module")
def path(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    model.save(path)
    return path


def load(source: Path | bytes, **options: Any) -> Any:
    return find_adapter("engine", "keras").load().load(source, EngineOptions(**options))


def test_answers_are_those_of_keras(path: Path, model: Any, rows: np.ndarray) -> None:
    expected = model.predict(rows, verbose=0)
    for loaded in (load(path), load(path.read_bytes(), optimize=False, threads=2)):
        assert [s.name for s in loaded.signature.inputs] == ["image"]
        assert {s.name: s.shape for s in loaded.signature.outputs} == {
            "digit": ("N", 10),
            "state": ("N", 16),
        }
        answers = loaded.run({"image": rows})
        for name, array in expected.items():
            np.testing.assert_allclose(answers[name], array, atol=1e-6)
        assert np.array_equal(answers["digit"].argmax(1), expected["digit"].argmax(1))
        assert loaded.run({"image": rows[:3, :5]})["state"].shape == (3, 16)


def test_threads_get_their_own_answers(path: Path, rows: np.ndarray) -> None:
    loaded = load(path)
    batches = [rows[start : start + 1 + start % 5] for start in range(0, 400, 4)]
    alone = [loaded.run({"image": batch})["digit"] for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda batch: loaded.run({"image": batch})["digit"], batches))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_what_the_model_refuses(path: Path) -> None:
    with pytest.raises(EngineError, match="Keras failed"):
        load(path).run({"image": np.ones((2, 4, 3), np.float32)})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nothing of the kind"])
def test_damaged_files(content: bytes, keras: Any) -> None:
    with pytest.raises(EngineError, match="cannot load"):
        load(content)


def test_lambda_is_not_loaded(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])
    model.save(tmp_path / "model.keras")
    with pytest.raises(EngineError, match=r"(?i)lambda"):
        load(tmp_path / "model.keras")


def test_texts(keras: Any, tmp_path: Path) -> None:
    """What has no ONNX export is served as it is."""
    texts = np.asarray([["spam and eggs"], ["ham"], ["eggs and ham and spam"]] * 4, dtype=object)
    vectorize = keras.layers.TextVectorization(max_tokens=20, output_mode="tf_idf")
    vectorize.adapt(texts[:, 0])
    model = keras.Sequential(
        [keras.Input((1,), dtype="string", name="text"), vectorize, keras.layers.Dense(2)]
    )
    model.save(tmp_path / "model.keras")
    options = PackOptions(engine="native")
    package = pack(
        tmp_path / "model.keras", "texts", sample={"text": texts}, out=tmp_path, options=options
    )
    assert package.manifest.signature.inputs[0].dtype == "string"
    answers = next(iter(predict(tmp_path / "texts", {"text": texts}).values()))
    expected = model(keras.ops.convert_to_tensor(texts.astype(str)))
    np.testing.assert_allclose(answers, expected, atol=1e-5)
