"""Trained models for ``conversion.py``, each with its usual exporter as documented."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from conversion import Case
from sklearn.datasets import load_digits, load_sample_image
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

_MODELS: Final = Path(__file__).parent.parent / ".venv" / "models"
_TEST_ROWS: Final = 20_000


def _pixels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photograph's pixels from their neighbours: training rows, targets, 20,000 test rows."""
    image = load_sample_image("china.jpg").astype(np.float64) / 255.0
    gray = image @ (0.299, 0.587, 0.114)
    shifts = [(dy, dx) for dy in (0, 1, 2) for dx in (0, 1, 2) if (dy, dx) != (1, 1)]
    height, width = gray.shape
    rows = np.stack(
        [gray[dy : height - 2 + dy, dx : width - 2 + dx].ravel() for dy, dx in shifts], axis=1
    )
    target = gray[1:-1, 1:-1].ravel()
    order = np.random.default_rng(0).permutation(len(rows))
    train, test = order[:60_000], order[60_000 : 60_000 + _TEST_ROWS]
    return rows[train], target[train], rows[test].astype(np.float32)


def _mails() -> tuple[list[str], np.ndarray]:
    folder = _MODELS / "datasets-spam-assassin" / "package" / "data"
    texts, labels = [], []
    for part in sorted(folder.glob("*am-*")):
        for path in sorted(part.glob("*.txt")):
            texts.append(path.read_text(encoding="utf-8", errors="replace"))
            labels.append("spam" if part.name.startswith("spam") else "ham")
    return texts, np.asarray(labels)


def _skl2onnx(model: Any, rows: np.ndarray, **options: Any) -> bytes:
    from skl2onnx import to_onnx

    zipmap = {"zipmap": False} if hasattr(model, "classes_") else {}
    return to_onnx(model, rows[:1], options={id(model): {**zipmap, **options}}).SerializeToString()


def _onnxmltools(convert: Callable[..., Any], model: Any, width: int, **more: Any) -> bytes:
    from onnxmltools.convert.common.data_types import FloatTensorType

    return convert(model, initial_types=[("x", FloatTensorType([None, width]))], **more
                   ).SerializeToString()  # fmt: skip


def lightgbm() -> Case:
    """400 trees that guess a pixel from its neighbours."""
    from lightgbm import LGBMRegressor
    from onnxmltools import convert_lightgbm

    train, target, test = _pixels()
    model = LGBMRegressor(n_estimators=400, num_leaves=63, verbose=-1).fit(train, target)
    numbers = _quiet(model.predict, test.astype(np.float64))
    return Case("LightGBM, 400 trees, pixels", "onnxmltools",
                model, test, None, numbers,
                lambda: _onnxmltools(convert_lightgbm, model, test.shape[1]))  # fmt: skip


def xgboost() -> Case:
    """200 rounds on handwritten digits."""
    from onnxmltools import convert_xgboost
    from xgboost import XGBClassifier

    rows, labels = load_digits(return_X_y=True)
    train, test = np.arange(900), np.arange(900, len(rows))
    model = XGBClassifier(n_estimators=200, max_depth=6).fit(rows[train], labels[train])
    test_rows = rows[test].astype(np.float32)
    return Case("XGBoost, 2,000 trees, digits", "onnxmltools",
                model, test_rows, model.predict(test_rows),
                model.predict_proba(test_rows),
                lambda: _onnxmltools(convert_xgboost, model, rows.shape[1]))  # fmt: skip


def tfidf() -> Case:
    """Spam mails, word by word."""
    texts, labels = _mails()
    order = np.random.default_rng(0).permutation(len(texts))
    train, test = order[:4500], order[4500:]
    model = make_pipeline(TfidfVectorizer(min_df=2), LogisticRegression(max_iter=500))
    model.fit([texts[i] for i in train], labels[train])
    rows = np.asarray([texts[i] for i in test], dtype=object)

    def export() -> bytes:
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import StringTensorType

        locale = {TfidfVectorizer: {"locale": "C"}, id(model): {"zipmap": False}}
        types = [("text", StringTensorType([None, 1]))]
        return to_onnx(model, initial_types=types, options=locale).SerializeToString()

    return Case("TF-IDF and logistic regression, mails", "skl2onnx, locale C",
                model, rows.reshape(-1, 1), model.predict(rows),
                model.predict_proba(rows), export)  # fmt: skip


def boosting() -> Case:
    """scikit-learn's own histogram boosting on the same pixels."""
    train, target, test = _pixels()
    model = HistGradientBoostingRegressor(max_iter=200).fit(train, target)
    return Case("HistGradientBoosting, 200 trees, pixels", "skl2onnx",
                model, test, None, model.predict(test.astype(np.float64)),
                lambda: _skl2onnx(model, test))  # fmt: skip


def forest() -> Case:
    """500 trees on handwritten digits."""
    rows, labels = load_digits(return_X_y=True)
    train, test = np.arange(900), np.arange(900, len(rows))
    model = RandomForestClassifier(500, random_state=0).fit(rows[train] / 16.3, labels[train])
    test_rows = (rows[test] / 16.3).astype(np.float32)
    return Case("random forest, 500 trees, digits", "skl2onnx",
                model, test_rows, model.predict(test_rows),
                model.predict_proba(test_rows), lambda: _skl2onnx(model, test_rows))  # fmt: skip


def lstm() -> Case:
    """A digit read line by line."""
    import keras

    rows, labels = load_digits(return_X_y=True)
    rows = (rows / 16.0).reshape(-1, 8, 8).astype(np.float32)
    train, test = np.arange(900), np.arange(900, len(rows))
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8, 8)), keras.layers.LSTM(32), keras.layers.Dense(10, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(rows[train], labels[train], epochs=15, verbose=0)

    def export() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            model.export(f"{folder}/x.onnx", format="onnx", verbose=False)
            return Path(folder, "x.onnx").read_bytes()

    return Case("Keras LSTM, digits", "Keras",
                model, rows[test], None,
                model.predict(rows[test], verbose=0), export)  # fmt: skip


def transformer() -> Case:
    """A digit as eight tokens."""
    import torch

    rows, labels = load_digits(return_X_y=True)
    rows = (rows / 16.0).reshape(-1, 8, 8).astype(np.float32)
    train, test = np.arange(900), np.arange(900, len(rows))
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 32, dropout=0.1, batch_first=True)
    model = torch.nn.Sequential(
        torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        torch.nn.Flatten(), torch.nn.Linear(64, 10),
    )  # fmt: skip
    given, wanted = torch.from_numpy(rows[train]), torch.from_numpy(labels[train])
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(given), wanted).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        numbers = model(torch.from_numpy(rows[test])).numpy()

    def export() -> bytes:
        buffer = io.BytesIO()
        given = torch.from_numpy(rows[test[:2]])
        dynamic = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            model, (given,), buffer, dynamo=True, dynamic_shapes=dynamic, verbose=False
        )
        return buffer.getvalue()

    return Case("PyTorch transformer, digits", "torch.onnx",
                model, rows[test], None, numbers,
                export)  # fmt: skip


def _quiet(function: Callable[..., Any], *arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments)


CASES: Final[dict[str, Callable[[], Case]]] = {
    case.__name__: case for case in (lightgbm, xgboost, tfidf, boosting, forest, lstm, transformer)
}
