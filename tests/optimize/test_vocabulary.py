"""Fewer terms, with weights refitted to the original's own scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from modelport.core.errors import UnsupportedError
from modelport.optimize.classic.ridge import closeness, refitted
from modelport.optimize.measure.process import save_rows
from modelport.optimize.passes.vocabulary import VocabularyPass
from tests.optimize.tables import Packed, agreement, attribute, node_of, packed, two_classes

_WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]


def texts_of(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Texts of words as frequent as Zipf says, some of which go with the label."""
    random = np.random.default_rng(seed)
    rank = 1.0 / np.arange(1, len(_WORDS) + 1)
    lean = np.where(np.arange(len(_WORDS)) % 7 == 3, 4.0, 1.0)
    labels = random.integers(0, 2, count)
    texts = np.empty(count, dtype=object)
    for row, label in enumerate(labels):
        weight = rank * (lean if label else 1 / lean)
        texts[row] = " ".join(random.choice(_WORDS, 40, p=weight / weight.sum()))
    return texts, labels


PIPELINES: dict[str, Callable[[], Any]] = {
    "logistic": lambda: make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression()),
    "svm": lambda: make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC(random_state=0)
    ),
    "characters": lambda: make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5)), SGDClassifier(random_state=0)
    ),
    "bayes": lambda: make_pipeline(CountVectorizer(ngram_range=(1, 2)), MultinomialNB()),
}


@pytest.fixture(scope="module", params=PIPELINES)
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    texts, labels = texts_of(1200)
    model = PIPELINES[request.param]().fit(texts[:500], labels[:500])
    return packed(model, texts[500:], tmp_path_factory.mktemp("texts"))


def test_every_pipeline_gets_smaller(pipeline: Packed) -> None:
    found = pipeline.variants(VocabularyPass())
    assert found
    sizes = [len(content) for content in found.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < 0.6 * len(pipeline.model)
    largest = next(iter(found.values()))
    assert agreement(pipeline.expected, pipeline.answers(largest)) > 0.93


def test_columns_beside_the_text_stay(tmp_path: Path) -> None:
    texts, labels = texts_of(1000)
    frame = pd.DataFrame({"text": texts, "size": np.arange(1000.0) % 7})
    columns = ColumnTransformer([
        ("terms", TfidfVectorizer(ngram_range=(1, 2)), "text"),
        ("numbers", StandardScaler(), ["size"]),
    ])  # fmt: skip
    model = make_pipeline(columns, LogisticRegression()).fit(frame[:500], labels[:500])
    pack = packed(model, frame[500:], tmp_path)
    found = pack.variants(VocabularyPass())
    content = next(iter(found.values()))
    weights = attribute(node_of(content, "LinearClassifier"), "coefficients")
    assert len(weights) == int(next(iter(found)).partition(" ")[0].replace(",", "")) + 1
    assert agreement(pack.expected, pack.answers(content)) > 0.93


def test_only_tokens_that_are_counted_stay(tmp_path: Path) -> None:
    texts, labels = texts_of(900)
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression())
    pack = packed(model.fit(texts[:500], labels[:500]), texts[500:], tmp_path)
    for name, content in pack.variants(VocabularyPass()).items():
        vectorizer, encoder = (node_of(content, k) for k in ("TfIdfVectorizer", "LabelEncoder"))
        pool = set(attribute(vectorizer, "pool_int64s"))
        assert pool == set(attribute(encoder, "values_int64s"))
        count = int(name.partition(" ")[0].replace(",", ""))
        assert sorted(attribute(vectorizer, "ngram_indexes")) == list(range(count))


def test_refitting_needs_no_labels_and_helps() -> None:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(600, 300)).astype(np.float32)
    matrix[:, 150:] = 0.7 * matrix[:, :150] + 0.3 * matrix[:, 150:]
    weights = random.normal(size=(1, 300))
    scores = matrix @ weights.T + 0.5
    left, kept = matrix[:, :150], weights[:, :150]
    found, intercepts = refitted(left[:400], scores[:400], kept, np.array([0.5]))
    before = np.mean((left[400:] @ kept.T + 0.5 - scores[400:]) ** 2)
    after = np.mean((left[400:] @ found.T + intercepts - scores[400:]) ** 2)
    assert after < 0.6 * before


def test_too_few_rows_leave_weights_as_they_are() -> None:
    weights, intercepts = np.ones((1, 3)), np.zeros(1)
    found = refitted(np.ones((10, 3)), np.zeros((10, 1)), weights, intercepts)
    assert found[0] is weights
    assert found[1] is intercepts


def test_close_rows_weigh_more() -> None:
    rates = closeness(np.array([[0.1], [-3.0], [9.0]]))
    assert rates[0] > rates[1] > rates[2]
    rates = closeness(np.array([[5.0, 4.9, 0.0], [5.0, 1.0, 0.0]]))
    assert rates[0] > rates[1]


def test_a_table_is_refused(tmp_path: Path) -> None:
    rows, labels = two_classes()
    pack = packed(LogisticRegression().fit(rows[:500], labels[:500]), rows[500:900], tmp_path)
    assert VocabularyPass().refuses(pack.subject) == "no vocabulary of terms"


def test_few_terms_are_left_alone(tmp_path: Path) -> None:
    texts, labels = texts_of(600)
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts[:300], labels[:300])
    pack = packed(model, texts[300:], tmp_path)
    with pytest.raises(UnsupportedError, match=r"^\d+ terms are few already"):
        list(VocabularyPass().variants(pack.subject, lambda _: None))


def test_rows_that_are_all_the_same_change_no_weight() -> None:
    weights = np.ones((1, 3))
    found, _ = refitted(np.ones((60, 3)), np.zeros((60, 1)), weights, np.zeros(1))
    assert found is weights


def test_one_long_text_does_not_make_all_rows_long(tmp_path: Path) -> None:
    texts = np.array([["short"]] * 999 + [["a\0" * 50_000]], dtype=object)
    save_rows(tmp_path / "rows", {"x": texts})
    size = sum(path.stat().st_size for path in (tmp_path / "rows").iterdir())
    assert size < 1_000_000
