"""Whole pipelines: data frames with text, numbers and holes, and documents."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import numpy as np
import pandas as pd
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.datasets import load_wine
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfVectorizer,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from modelport.convert import stage
from modelport.convert.frameworks.sklearn.model import SklearnModel
from modelport.core.errors import ParityError, SignatureError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource, Source

from .conftest import convert_model, fit, rows_of, runner

NUMBERS = ["alcohol", "colour intensity"]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Wine as people keep it: numbers, words, ranks and counts."""
    x, y = load_wine(return_X_y=True)
    words = np.asarray(["Piemonte", "Toscana", "Friuli–Venezia Giulia", "Żywiec"], dtype=object)
    return pd.DataFrame(
        {
            "alcohol": x[:, 0],
            "colour intensity": x[:, 9],
            "region": words[(x[:, 12] * 7).astype(int) % 4],
            "body": np.asarray(["light", "medium", "full"], dtype=object)[
                np.digitize(x[:, 6], [1.2, 2.1])
            ],
            "magnesium": x[:, 4].astype(np.int64),
            "bottles": (x[:, 12] // 100).astype(np.int64) % 3,
            "cultivar": y,
        }
    )


def pipeline(model: Any, unknown: str = "ignore", ordinal: Any = None) -> Any:
    ordinal = ordinal or OrdinalEncoder(
        categories=[["light", "medium", "full"]],
        handle_unknown="use_encoded_value",
        unknown_value=-1,
    )
    return make_pipeline(
        ColumnTransformer(
            [
                ("numbers", StandardScaler(), [*NUMBERS, "magnesium"]),
                ("words", OneHotEncoder(handle_unknown=unknown), ["region", "bottles"]),
                ("ranks", ordinal, ["body"]),
            ]
        ),
        model,
    )


def served(artifact: Any, frame: pd.DataFrame, batch: int = 0) -> dict[str, np.ndarray]:
    return runner(artifact)(rows_of(frame).bind(artifact.signature), batch)


def test_a_data_frame_of_mixed_columns(frame: pd.DataFrame) -> None:
    model = fit(pipeline(LogisticRegression()), frame, frame["cultivar"])
    artifact = convert_model(model, rows_of(frame))
    kinds = {spec.name: (spec.dtype, spec.shape) for spec in artifact.signature.inputs}
    assert kinds == {
        "alcohol": ("float32", ("N", 1)),
        "colour intensity": ("float32", ("N", 1)),
        "region": ("string", ("N", 1)),
        "body": ("string", ("N", 1)),
        "magnesium": ("int64", ("N", 1)),
        "bottles": ("int64", ("N", 1)),
    }
    for batch in (1, 2, 7, 0):
        answers = served(artifact, frame, batch)
        np.testing.assert_array_equal(answers["label"], model.predict(frame))
        np.testing.assert_allclose(answers["probabilities"], model.predict_proba(frame), atol=1e-5)
    assert artifact.baseline["inputs"]["region"][0]["top"][0][1] > 1
    assert artifact.row_independent
    unseen = frame.head(3).assign(region=["Nowhere", "", "東京"], bottles=[9, -1, 0])
    np.testing.assert_array_equal(served(artifact, unseen)["label"], model.predict(unseen))


def test_trees_on_mixed_columns_and_text_labels(frame: pd.DataFrame) -> None:
    names = np.asarray(["Barolo", "Grignolino", "Barbera"])[frame["cultivar"]]
    model = fit(pipeline(GradientBoostingClassifier(n_estimators=5)), frame, names)
    artifact = convert_model(model, rows_of(frame))
    np.testing.assert_array_equal(served(artifact, frame)["label"], model.predict(frame))
    model = fit(pipeline(RandomForestRegressor(5, random_state=0)), frame, frame["alcohol"] * 2)
    artifact = convert_model(model, rows_of(frame))
    np.testing.assert_allclose(
        served(artifact, frame)["prediction"], model.predict(frame), rtol=1e-5
    )


def test_unknown_categories_fail_where_the_source_refuses_them(frame: pd.DataFrame) -> None:
    model = fit(pipeline(LogisticRegression(), "error", OrdinalEncoder()), frame, frame["cultivar"])
    artifact = convert_model(model, rows_of(frame))
    for column, value in (("region", "Nowhere"), ("body", "thick"), ("bottles", 99)):
        bad = frame.head(2).assign(**{column: value})
        with pytest.raises(ValueError, match="unknown categories"):
            model.predict(bad)
        with pytest.raises(
            (Fail, InvalidArgument), match=r"(?i)unknown category|out of data bounds"
        ):
            served(artifact, bad)
    for probe in artifact.parity["probes"]:
        if probe["name"].startswith("text never seen"):
            assert probe["passed"]
            assert "by the source model" in probe["note"]
    np.testing.assert_array_equal(served(artifact, frame)["label"], model.predict(frame))


@pytest.fixture(scope="module")
def holes(frame: pd.DataFrame) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    copy = frame.copy()
    for name in ("alcohol", "region", "body"):
        copy.loc[generator.random(len(copy)) < 0.15, name] = np.nan
    return copy


@pytest.mark.parametrize("strategy", ["most_frequent", "constant"])
def test_imputed_holes(holes: pd.DataFrame, strategy: str) -> None:
    fill = {"fill_value": "none"} if strategy == "constant" else {}
    model = make_pipeline(
        ColumnTransformer(
            [
                ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
                ("count", SimpleImputer(strategy="median"), ["magnesium"]),
                (
                    "words",
                    make_pipeline(
                        SimpleImputer(strategy=strategy, **fill),
                        OneHotEncoder(handle_unknown="ignore"),
                    ),
                    ["region", "body"],
                ),
            ]
        ),
        HistGradientBoostingClassifier(max_iter=5, random_state=0),
    )
    fit(model, holes, holes["cultivar"])
    artifact = convert_model(model, rows_of(holes))
    specs = artifact.signature.inputs_by_name
    assert "nan" not in specs["alcohol"].refuses
    # A count that may be missing is no integer any more.
    assert specs["magnesium"].numpy_dtype.kind == "f"
    np.testing.assert_array_equal(served(artifact, holes)["label"], model.predict(holes))


def test_holes_as_a_category(holes: pd.DataFrame) -> None:
    model = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), ["region"]),
            (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        ),
        LogisticRegression(),
    )
    fit(model, holes, holes["cultivar"])
    artifact = convert_model(model, rows_of(holes))
    answers = served(artifact, holes)  # None and NaN become "" on the way
    np.testing.assert_allclose(answers["probabilities"], model.predict_proba(holes), atol=1e-5)


def test_selected_columns_and_names_of_outputs(frame: pd.DataFrame) -> None:
    renamed = frame[["alcohol", "region"]].rename(columns={"alcohol": "label"})
    model = make_pipeline(
        make_column_transformer(
            (StandardScaler(), make_column_selector(dtype_include="number")),
            (OneHotEncoder(), make_column_selector(dtype_exclude="number")),
        ),
        LogisticRegression(),
    )
    fit(model, renamed, frame["cultivar"])
    artifact = convert_model(model, rows_of(renamed))
    assert [spec.name for spec in artifact.signature.outputs] == ["label_output", "probabilities"]
    np.testing.assert_array_equal(served(artifact, renamed)["label_output"], model.predict(renamed))


def test_columns_that_are_dropped_need_not_be_sent(frame: pd.DataFrame) -> None:
    model = make_pipeline(
        ColumnTransformer([("numbers", StandardScaler(), NUMBERS)], remainder="drop"), Ridge()
    )
    fit(model, frame, frame["magnesium"])
    artifact = convert_model(model, rows_of(frame))
    assert [spec.name for spec in artifact.signature.inputs] == NUMBERS


def test_a_data_frame_of_numbers_is_one_matrix(frame: pd.DataFrame) -> None:
    numbers = frame[[*NUMBERS, "magnesium"]]
    model = fit(make_pipeline(StandardScaler(), LogisticRegression()), numbers, frame["cultivar"])
    artifact = convert_model(model, rows_of(frame))  # the columns are found by name
    (spec,) = artifact.signature.inputs
    assert (spec.name, spec.columns) == ("input", (*NUMBERS, "magnesium"))
    np.testing.assert_array_equal(served(artifact, frame)["label"], model.predict(numbers))
    assert artifact.baseline["inputs"]["input"][2]["name"] == "magnesium"


def test_missing_columns_are_named(frame: pd.DataFrame) -> None:
    model = fit(pipeline(LogisticRegression()), frame, frame["cultivar"])
    with pytest.raises(SignatureError, match="columns are missing: region"):
        convert_model(model, rows_of(frame.drop(columns=["region"])))


def test_made_up_columns(frame: pd.DataFrame) -> None:
    model = fit(pipeline(LogisticRegression()), frame, frame["cultivar"])
    artifact = convert_model(model, None)
    assert artifact.parity["rows_are"] == "made up"
    np.testing.assert_array_equal(served(artifact, frame)["label"], model.predict(frame))


def test_text_in_a_matrix(frame: pd.DataFrame) -> None:
    matrix = frame[["region", "body"]].to_numpy(dtype=object)
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    fit(model, matrix, frame["cultivar"])
    artifact = convert_model(model, matrix)
    assert artifact.signature.inputs[0].shape == ("N", 2)
    assert artifact.signature.inputs[0].dtype == "string"
    answers = runner(artifact)({"input": matrix})["label"]
    np.testing.assert_array_equal(answers, model.predict(matrix))


@pytest.fixture(scope="module")
def documents() -> tuple[np.ndarray, np.ndarray]:
    """Real prose: what NumPy's and pandas' functions say about themselves."""
    texts, labels = [], []
    for name in ("numpy", "pandas", "sklearn.metrics"):
        module = importlib.import_module(name)
        for attribute in sorted(vars(module)):
            text = inspect.getdoc(getattr(module, attribute)) or ""
            if not attribute.startswith("_") and len(text) > 80:
                texts.append(text[:600])
                labels.append(name)
    texts.append("Żółć, ZAŻÓŁĆ gęślą jaźń — ÉCOLE Straße 2²")
    labels.append("numpy")
    return np.asarray(texts, dtype=object)[::2], np.asarray(labels)[::2]


@pytest.mark.parametrize(
    "vectorizer",
    [
        TfidfVectorizer(max_features=400),
        TfidfVectorizer(ngram_range=(1, 2), min_df=4),
        CountVectorizer(binary=True, lowercase=False, max_features=300),
        TfidfVectorizer(max_features=300, sublinear_tf=True, norm="l1"),
        CountVectorizer(stop_words="english", ngram_range=(1, 3), min_df=4),
        TfidfVectorizer(analyzer="char", ngram_range=(1, 4), max_features=500),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), max_features=500),
        CountVectorizer(token_pattern=r"(?u)\b\w+\b", max_features=200),
        CountVectorizer(token_pattern=r"[A-Za-z]{4,}|\S\S", max_features=200),
    ],
    ids=[
        "words",
        "pairs of words",
        "counts",
        "sublinear",
        "stop words in triples",
        "characters",
        "characters of words",
        "single letters",
        "another pattern",
    ],
)
def test_documents(documents: Any, vectorizer: Any) -> None:
    texts, labels = documents
    model = fit(make_pipeline(vectorizer, LogisticRegression(max_iter=200)), texts, labels)
    artifact = convert_model(model, texts)
    (spec,) = artifact.signature.inputs
    assert (spec.name, spec.dtype, spec.shape) == ("input", "string", ("N", 1))
    answers = runner(artifact)({"input": texts.reshape(-1, 1)})
    np.testing.assert_array_equal(answers["label"], model.predict(texts).astype(object))
    np.testing.assert_allclose(answers["probabilities"], model.predict_proba(texts), atol=1e-5)
    # Free text stays out of the package.
    assert artifact.baseline["inputs"]["input"][0]["top"] == []


@pytest.mark.parametrize(
    ("vectorizer", "message"),
    [
        (TfidfVectorizer(tokenizer=str.split, token_pattern=None), r"calls tokenizer=str\.split"),
        (CountVectorizer(strip_accents="unicode"), "strip_accents='unicode'"),
        (CountVectorizer(analyzer=str.split), "Python function as its analyzer"),
        (CountVectorizer(token_pattern=r"(?<=a)\w+"), "cannot be said"),
        (HashingVectorizer(), "HashingVectorizer inside the Pipeline cannot become ONNX"),
    ],
)
def test_documents_read_in_ways_that_onnx_has_not(
    documents: Any, vectorizer: Any, message: str
) -> None:
    texts, labels = documents[0][::10], documents[1][::10]
    model = fit(make_pipeline(vectorizer, LogisticRegression(max_iter=50)), texts, labels)
    with pytest.raises(UnsupportedError, match=message):
        convert_model(model, texts)


def test_histogram_boosting_on_a_data_frame_with_categories(frame: pd.DataFrame) -> None:
    trained = frame.drop(columns=["cultivar"]).astype({"region": "category", "body": "category"})
    model = fit(
        HistGradientBoostingClassifier(max_iter=5, random_state=0), trained, frame["cultivar"]
    )
    columns = frame.drop(columns=["cultivar"])
    artifact = convert_model(model, rows_of(columns))
    kinds = {spec.name: spec.dtype for spec in artifact.signature.inputs}
    assert (kinds["region"], kinds["alcohol"]) == ("string", "float64")
    answers = served(artifact, columns)
    np.testing.assert_array_equal(answers["label"], model.predict(trained))
    np.testing.assert_allclose(answers["probabilities"], model.predict_proba(trained), atol=1e-5)


def test_white_space_and_short_words() -> None:
    """What the padding of characters must get right: runs, ends, and words of one letter."""
    texts = np.asarray(
        ["a  b\tc", " \n lead", "trail \u2003 ", "x", "", "one two", "a a  a", "żółw\x0bŻ"],
        dtype=object,
    )
    for analyzer in ("char", "char_wb"):
        for lengths in ((1, 1), (1, 3), (4, 6)):
            vectorizer = CountVectorizer(analyzer=analyzer, ngram_range=lengths).fit(texts)
            artifact = convert_model(vectorizer, texts)
            answers = runner(artifact)({"input": texts.reshape(-1, 1)})["output"]
            np.testing.assert_array_equal(answers, vectorizer.transform(texts).toarray())


def test_documents_beside_numbers(documents: Any) -> None:
    texts, labels = documents
    frame = pd.DataFrame({"text": texts, "length": [float(len(text)) for text in texts]})
    model = make_pipeline(
        ColumnTransformer(
            [
                ("text", TfidfVectorizer(max_features=200), "text"),
                ("length", StandardScaler(), ["length"]),
            ]
        ),
        LogisticRegression(max_iter=200),
    )
    fit(model, frame, labels)
    artifact = convert_model(model, rows_of(frame))
    np.testing.assert_array_equal(
        served(artifact, frame)["label"], model.predict(frame).astype(object)
    )


def test_numbers_where_the_model_knows_words(frame: pd.DataFrame) -> None:
    texts = frame.assign(zip=(frame["magnesium"] % 3 + 94110).astype(str))
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["zip"])),
        LogisticRegression(),
    )
    fit(model, texts[["zip"]], frame["cultivar"])
    # A CSV file gives the codes back as numbers.
    numbers = Rows({"zip": texts["zip"].to_numpy(dtype=object).astype(np.int64)})
    artifact = convert_model(model, numbers)
    assert artifact.signature.inputs[0].dtype == "string"
    np.testing.assert_array_equal(
        runner(artifact)(numbers.bind(artifact.signature))["label"], model.predict(texts[["zip"]])
    )


class Shouting:
    """A pipeline of texts that has a label of its own for capitals, which its export has not."""

    def __init__(self, trained: Any) -> None:
        self._model = SklearnModel(trained)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, rows: Rows) -> dict[str, np.ndarray]:
        answers = self._model.predict(rows)
        loud = np.asarray(
            [str(text).isupper() for text in next(iter(rows.columns.values())).ravel()]
        )
        return {**answers, "label": np.where(loud, "other", answers["label"]).astype(object)}


def test_the_text_that_differs_is_shown_to_who_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["cheap pills now", "minutes of the meeting", "cheap loans", "lunch on friday"] * 3
    trained = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, ["spam", "ham"] * 6)
    monkeypatch.setattr(stage, "_load", lambda *_: Shouting(trained))
    rows = Rows({"": np.asarray([*texts, "CHEAP " * 40], dtype=object)})
    with pytest.raises(ParityError, match="label: 1 of 13 differ") as caught:
        stage.convert(AuditedSource(Source.of(trained), "object"), rows)
    assert "the row that differs most reads: 'CHEAP CHEAP" in caught.value.message
    assert caught.value.message.endswith("'…")
    assert "CHEAP" not in str(caught.value.report)
