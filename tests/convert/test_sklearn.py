"""Trained models on real data: the served file against scikit-learn, row by row."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import DBSCAN, KMeans, MiniBatchKMeans
from sklearn.decomposition import NMF, PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from modelport.convert.stage import convert
from modelport.core.digest import canonical_json
from modelport.core.errors import InputError, ParityError, UnsafeError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource, Source

from .conftest import audit, convert_model, fit, load_data, runner

CLASSIFIERS = {
    "logistic": lambda: LogisticRegression(max_iter=60),
    "svc": lambda: SVC(),
    "svc with probability": lambda: SVC(probability=True, random_state=0),
    "tree": lambda: DecisionTreeClassifier(random_state=0),
    "forest": lambda: RandomForestClassifier(20, random_state=0),
    "extra trees": lambda: ExtraTreesClassifier(20, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=8, random_state=0),
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=10, random_state=0),
    "neighbours": lambda: KNeighborsClassifier(),
    "naive bayes": lambda: GaussianNB(),
    "perceptron": lambda: make_pipeline(
        StandardScaler(), MLPClassifier((24,), random_state=0, max_iter=60)
    ),
    "linear svc": lambda: make_pipeline(StandardScaler(), LinearSVC(random_state=0)),
    "sgd": lambda: SGDClassifier(random_state=0),
    "ridge": lambda: RidgeClassifier(),
    "scaled, reduced": lambda: make_pipeline(
        StandardScaler(), PCA(3, random_state=0), LogisticRegression()
    ),
}
REGRESSORS = {
    "linear": LinearRegression(),
    "ridge": Ridge(),
    "lasso": Lasso(alpha=0.1),
    "svr": SVR(C=10),
    "tree": DecisionTreeRegressor(random_state=0),
    "forest": RandomForestRegressor(20, random_state=0),
    "boosting": GradientBoostingRegressor(n_estimators=30, random_state=0),
    "histogram boosting": HistGradientBoostingRegressor(max_iter=20, random_state=0),
    "neighbours": KNeighborsRegressor(),
    "weighted neighbours": KNeighborsRegressor(weights="distance"),
    "perceptron": MLPRegressor(hidden_layer_sizes=(16,), random_state=0, max_iter=100),
}
BATCHES = (1, 2, 7, 0)


@pytest.mark.parametrize("data", ["digits", "iris", "wine", "breast_cancer"])
@pytest.mark.parametrize("family", CLASSIFIERS)
def test_no_label_flips_on_any_row_in_any_batch(family: str, data: str) -> None:
    x, y = load_data(data)
    model = fit(CLASSIFIERS[family](), x, y)
    artifact = convert_model(model, x)
    run = runner(artifact)
    (spec,) = artifact.signature.inputs
    inputs = {"input": x.astype(spec.numpy_dtype)}
    expected = model.predict(x)
    for batch in BATCHES:
        if family == "neighbours" and data == "digits" and batch:
            continue  # slow, and the stage has just done it
        np.testing.assert_array_equal(run(inputs, batch)["label"], expected)
    assert artifact.task == "classification"
    assert artifact.row_independent
    assert artifact.parity["label_flips"] == 0
    assert artifact.parity["rows"] == len(x)
    assert artifact.parity["batches"] == [1, 2, 7, len(x)]
    assert artifact.signature.batch_symbol == "N"


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_probabilities_or_scores_agree(family: str) -> None:
    x, y = load_data("breast_cancer")
    model = fit(CLASSIFIERS[family](), x, y)
    artifact = convert_model(model, x)
    (spec,) = artifact.signature.inputs
    answers = runner(artifact)({"input": x.astype(spec.numpy_dtype)})
    if hasattr(model, "predict_proba"):
        assert answers["probabilities"].dtype == np.float32
        np.testing.assert_allclose(answers["probabilities"], model.predict_proba(x), atol=5e-5)
    else:
        scores = model.decision_function(x)
        assert artifact.signature.outputs_by_name["scores"].shape == ("N",)
        np.testing.assert_allclose(
            answers["scores"], scores, rtol=1e-4, atol=1e-5 * abs(scores).max()
        )


@pytest.mark.parametrize("family", REGRESSORS)
def test_regressors_agree_on_every_row_in_any_batch(family: str, diabetes: Any) -> None:
    x, y = diabetes
    model = fit(REGRESSORS[family], x, y)
    artifact = convert_model(model, x)
    run = runner(artifact)
    (spec,) = artifact.signature.inputs
    for batch in BATCHES:
        answers = run({"input": x.astype(spec.numpy_dtype)}, batch)["prediction"]
        np.testing.assert_allclose(answers, model.predict(x), rtol=1e-4)
    assert artifact.task == "regression"
    assert artifact.signature.outputs[0].shape == ("N",)
    assert artifact.row_independent


def test_targets_of_different_size_are_each_exact(diabetes: Any) -> None:
    x, y = diabetes
    targets = np.column_stack([y * 1e6, y * 1e-2])
    model = fit(RandomForestRegressor(10, random_state=0), x, targets)
    artifact = convert_model(model, x)
    assert artifact.signature.outputs[0].shape == ("N", 2)
    answers = runner(artifact)({"input": x.astype(np.float32)})["prediction"]
    np.testing.assert_allclose(answers, model.predict(x), rtol=1e-4)


def test_small_answers_get_a_small_tolerance(diabetes: Any) -> None:
    x, y = diabetes
    model = fit(Ridge(), x, y * 1e-9)
    artifact = convert_model(model, x)
    assert artifact.tolerance.absolute < 1e-11
    answers = runner(artifact)({"input": x.astype(np.float32)})["prediction"]
    np.testing.assert_allclose(answers, model.predict(x), rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        (KMeans(4, n_init=1, random_state=0), {"label": ("N",), "distances": ("N", 4)}),
        (MiniBatchKMeans(4, n_init=1, random_state=0), {"label": ("N",), "distances": ("N", 4)}),
        (PCA(3, random_state=0), {"output": ("N", 3)}),
        (StandardScaler(), {"output": ("N", 13)}),
        (MinMaxScaler(), {"output": ("N", 13)}),
        (IsolationForest(n_estimators=15, random_state=0), {"label": ("N",), "scores": ("N",)}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_models_without_targets(model: Any, outputs: Any, wine: Any) -> None:
    x, _ = wine
    artifact = convert_model(fit(model, x), x)
    assert {spec.name: spec.shape for spec in artifact.signature.outputs} == outputs
    (spec,) = artifact.signature.inputs
    answers = runner(artifact)({"input": x.astype(spec.numpy_dtype)})
    if "label" in outputs:
        np.testing.assert_array_equal(answers["label"], model.predict(x))
    if "distances" in outputs:
        np.testing.assert_allclose(answers["distances"], model.transform(x), rtol=1e-3)
    if "output" in outputs:
        np.testing.assert_allclose(answers["output"], model.transform(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "model",
    [
        GridSearchCV(make_pipeline(StandardScaler(), SVC()), {"svc__C": [1.0, 10.0]}, cv=2),
        VotingClassifier(
            [("a", GaussianNB()), ("b", RandomForestClassifier(5, random_state=0))], voting="soft"
        ),
        StackingClassifier(
            [("a", GaussianNB()), ("b", RandomForestClassifier(5, random_state=0))], cv=2
        ),
        make_pipeline(StandardScaler(), CalibratedClassifierCV(LinearSVC(), cv=2)),
        LinearDiscriminantAnalysis(),
        KNeighborsClassifier(3, weights="distance"),
    ],
    ids=["search", "voting", "stacking", "calibrated", "discriminant", "weighted neighbours"],
)
def test_models_of_models(model: Any, cancer: Any) -> None:
    x, y = cancer
    fit(model, x, y)
    artifact = convert_model(model, x)
    (spec,) = artifact.signature.inputs
    answers = runner(artifact)({"input": x.astype(spec.numpy_dtype)})
    np.testing.assert_array_equal(answers["label"], model.predict(x))
    if hasattr(model, "predict_proba"):
        np.testing.assert_allclose(answers["probabilities"], model.predict_proba(x), atol=5e-5)


def test_text_labels(wine: Any) -> None:
    x, y = wine
    names = np.asarray(["Barolo", "Grignolino", "Barbera d’Asti"])[y]
    model = fit(make_pipeline(StandardScaler(), LogisticRegression()), x, names)
    artifact = convert_model(model, x)
    assert artifact.signature.outputs[0].dtype == "string"
    answers = runner(artifact)({"input": x.astype(np.float32)})["label"]
    np.testing.assert_array_equal(answers, names_of(model, x))
    assert artifact.golden is not None
    assert set(artifact.golden.outputs["label"]) <= set(names)


def names_of(model: Any, x: np.ndarray) -> np.ndarray:
    return model.predict(x).astype(object)


def test_float64_is_served_where_float32_flips_labels(cancer: Any) -> None:
    x, y = cancer
    model = fit(HistGradientBoostingClassifier(max_iter=15, random_state=0), x, y)
    artifact = convert_model(model, x)
    assert artifact.signature.inputs[0].dtype == "float64"
    (attempt,) = artifact.parity["attempts"]
    assert (attempt["name"], attempt["outcome"]) == ("skl2onnx float64", "kept")
    np.testing.assert_array_equal(runner(artifact)({"input": x})["label"], model.predict(x))


def test_scores_that_cannot_agree_are_left_out_and_reported(cancer: Any) -> None:
    x, y = cancer
    model = fit(NuSVC(nu=0.1), x, y)
    artifact = convert_model(model, x)
    assert [spec.name for spec in artifact.signature.outputs] == ["label"]
    assert any("scores is left out" in note for note in artifact.parity["notes"])
    np.testing.assert_array_equal(
        runner(artifact)({"input": x.astype(np.float32)})["label"], model.predict(x)
    )


def test_forests_trained_with_missing_values(diabetes: Any) -> None:
    x, y = diabetes
    holes = x.copy()
    holes[np.random.default_rng(0).random(x.shape) < 0.1] = np.nan
    for model in (
        RandomForestRegressor(10, random_state=0),
        HistGradientBoostingRegressor(max_iter=10, random_state=0),
    ):
        artifact = convert_model(fit(model, holes, y), holes)
        (spec,) = artifact.signature.inputs
        assert "nan" not in spec.refuses
        answers = runner(artifact)({"input": holes.astype(spec.numpy_dtype)})["prediction"]
        np.testing.assert_allclose(answers, model.predict(holes), rtol=1e-4)


def test_same_source_same_bytes() -> None:
    x, y = load_data("iris")
    for model in (
        KNeighborsClassifier(),
        IsolationForest(n_estimators=5, random_state=0),
        make_pipeline(StandardScaler(), SVC()),
    ):
        fit(model, x, y)
        first, second = convert_model(model, x), convert_model(model, x)
        assert first.files == second.files
        assert _documents(first) == _documents(second)


def _documents(artifact: Any) -> bytes:
    plain = [artifact.parity, artifact.baseline, artifact.provenance, artifact.signature.to_json()]
    return canonical_json(plain) + artifact.golden.to_bytes()


_CONVERT_AND_HASH = """
import numpy, sys
from sklearn.neighbors import KNeighborsClassifier
from sklearn.datasets import load_iris
from modelport.convert.stage import convert
from modelport.core.digest import canonical_json, sha256_bytes
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource, Source
x, y = load_iris(return_X_y=True)
source = AuditedSource(Source.of(KNeighborsClassifier(3).fit(x, y)), "object")
artifact = convert(source, Rows({"": x}))
print(sha256_bytes(artifact.files["model/model.onnx"] + canonical_json(artifact.parity)))
"""


def test_same_bytes_in_another_process() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", _CONVERT_AND_HASH],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_made_up_rows_say_so(wine: Any) -> None:
    x, y = wine
    for model in (
        make_pipeline(StandardScaler(), LogisticRegression()),
        RandomForestClassifier(5, random_state=0),
        SVC(),
    ):
        artifact = convert_model(fit(model, x, y), None)
        assert artifact.parity["rows_are"] == "made up"
        assert artifact.parity["rows"] == 256
        assert artifact.baseline == {}
        assert artifact.golden is not None
        assert artifact.golden.rows == 32


def test_golden_records_and_baseline_are_of_the_sample(wine: Any) -> None:
    x, y = wine
    model = fit(make_pipeline(StandardScaler(), LogisticRegression()), x, y)
    artifact = convert_model(model, x)
    golden = artifact.golden
    assert golden is not None
    assert all(row in x.astype(np.float32).tolist() for row in golden.inputs["input"].tolist())
    exact = golden.inputs["input"].astype(np.float64)
    np.testing.assert_array_equal(
        golden.outputs["probabilities"], model.predict_proba(exact).astype(np.float32)
    )
    column = artifact.baseline["inputs"]["input"][0]
    assert artifact.baseline["rows"] == len(x)
    assert column["mean"] == pytest.approx(x[:, 0].mean(), rel=1e-6)
    assert column["quantiles"]["0.5"] == pytest.approx(np.median(x[:, 0]), rel=1e-6)


def test_provenance(wine: Any, tmp_path: Path) -> None:
    x, y = wine
    path = tmp_path / "wine.joblib"
    joblib.dump(fit(LogisticRegression(), x, y), path)
    source = Source.of(path)
    artifact = convert(AuditedSource(source, "joblib", ("a.b",)), Rows({"": x}))
    assert artifact.provenance["source"] == "wine.joblib"
    assert artifact.provenance["source_sha256"] == source.digest
    assert artifact.provenance["trusted"] == ["a.b"]
    assert artifact.provenance["framework"].startswith("scikit-learn ")
    assert artifact.provenance["exporter"].startswith("skl2onnx ")
    assert artifact.provenance["opset"][""] == 18
    canonical_json(artifact.provenance)


# Files.


@pytest.fixture(scope="module")
def forest() -> tuple[Any, np.ndarray]:
    x, y = load_data("iris")
    return RandomForestClassifier(5, random_state=0).fit(x, np.asarray(["a", "b", "c"])[y]), x


def _as_file(content: bytes, kind: str, **more: Any) -> AuditedSource:
    return AuditedSource(Source("model", Path(f"model.{kind}"), content=content), kind, **more)


def _joblib_bytes(model: Any, compress: Any = 0) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(model, buffer, compress=compress)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "compress", [0, *((kind, 3) for kind in ("zlib", "gzip", "bz2", "xz", "lzma"))]
)
def test_joblib(forest: Any, compress: Any) -> None:
    model, x = forest
    artifact = convert(_as_file(_joblib_bytes(model, compress), "joblib"), Rows({"": x}))
    answers = runner(artifact)({"input": x.astype(np.float32)})["label"]
    np.testing.assert_array_equal(answers, model.predict(x).astype(object))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle(forest: Any, protocol: int) -> None:
    model, x = forest
    content = pickle.dumps(model, protocol=protocol)
    artifact = convert(_as_file(content, "pickle"), Rows({"": x}))
    assert artifact.parity["label_flips"] == 0


def test_skops(forest: Any) -> None:
    model, x = forest
    artifact = convert(_as_file(skops.io.dumps(model), "skops"), Rows({"": x}))
    assert artifact.parity["label_flips"] == 0


class Attack:
    def __reduce__(self) -> Any:
        return os.system, ("touch attacked",)


def test_unpicklers_refuse_what_the_scan_might_have_missed(
    forest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hidden = np.asarray([Attack(), Attack()], dtype=object)  # a pickle inside the joblib file
    contents = [
        ("pickle", pickle.dumps(Attack())),
        ("joblib", _joblib_bytes(Attack())),
        ("joblib", _joblib_bytes(hidden)),
        ("joblib", gzip.compress(_joblib_bytes(hidden))),
    ]
    for kind, content in contents:
        with pytest.raises(UnsafeError, match=r"posix\.system|nt\.system"):
            convert(_as_file(content, kind), None)
    assert not (tmp_path / "attacked").exists()


class OddScaler(StandardScaler):  # type: ignore[misc]
    pass


def test_trusted_names_are_loaded(wine: Any) -> None:
    x, _ = wine
    content = pickle.dumps(OddScaler().fit(x))
    with pytest.raises(UnsafeError, match="OddScaler"):
        convert(_as_file(content, "pickle"), None)
    name = f"{OddScaler.__module__}.{OddScaler.__qualname__}"
    with pytest.raises(UnsupportedError, match="no converter"):  # loaded, and not exportable
        convert(_as_file(content, "pickle", trusted=(name,)), Rows({"": x}))


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        ({"model": 1, "columns": []}, r"a dict with the keys 'model', 'columns'"),
        ([1, "two"], r"a list of 2 \(int, str\)"),
        (np.zeros(3), "a ndarray, not an estimator"),
        (LogisticRegression, "the class LogisticRegression"),
        (LogisticRegression(), "the LogisticRegression is not fitted"),
        (make_pipeline(StandardScaler(), SVC()), "the Pipeline is not fitted"),
    ],
)
def test_what_is_no_fitted_estimator(thing: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(_as_file(pickle.dumps(thing), "pickle"), None)


@pytest.mark.parametrize("kind", ["pickle", "joblib", "skops"])
def test_damaged_files(forest: Any, kind: str) -> None:
    model, _ = forest
    whole = {"pickle": pickle.dumps, "joblib": _joblib_bytes, "skops": skops.io.dumps}[kind](model)
    for content in (b"", b"not a model", whole[: len(whole) // 2]):
        with pytest.raises(InputError, match="cannot be loaded"):
            convert(_as_file(content, kind), None)


def test_version_skew_is_noted_and_explained(forest: Any) -> None:
    import sklearn

    model, x = forest
    this = sklearn.__version__.encode()
    old = b"0.9.9"[: len(this)].ljust(len(this), b"0")
    content = pickle.dumps(model).replace(this, old)
    artifact = convert(_as_file(content, "pickle"), Rows({"": x}))
    (note,) = artifact.provenance["notes"]
    assert f"saved by scikit-learn {old.decode()} and loaded by {this.decode()}" in note
    gone = content.replace(b"sklearn.ensemble._forest", b"sklearn.ensemble._gorest")
    with pytest.raises(
        InputError, match=rf"written by scikit-learn {old.decode()}.*{this.decode()}"
    ):
        convert(_as_file(gone, "pickle"), None)


def test_what_cannot_be_exported_says_why(wine: Any) -> None:
    x, y = wine
    with pytest.raises(UnsupportedError, match="DBSCAN can neither predict nor transform"):
        convert_model(fit(DBSCAN(), x), x)
    model = fit(make_pipeline(NMF(3, max_iter=20), LogisticRegression()), x, y)
    with pytest.raises(
        UnsupportedError, match="the NMF inside the Pipeline cannot become ONNX: it solves"
    ) as caught:
        convert_model(model, x)
    assert "PCA" in caught.value.hint
    model = fit(make_pipeline(FunctionTransformer(twice), Ridge()), x, y)
    with pytest.raises(UnsupportedError, match=r"FunctionTransformer calls .*test_sklearn\.twice"):
        convert_model(model, x)
    with pytest.raises(ParityError, match="differ from call to call"):
        convert_model(fit(DummyClassifier(strategy="uniform"), x, y), x)


def twice(x: np.ndarray) -> np.ndarray:
    return 2 * x


def test_a_live_object_nobody_knows() -> None:
    with pytest.raises(UnsupportedError, match="no framework adapter"):
        convert(audit(object()), None)


@pytest.mark.parametrize("kind", [RandomForestClassifier, ExtraTreesClassifier])
@pytest.mark.parametrize("words", [False, True])
def test_ties_of_forests_stay_ties(kind: Any, words: bool) -> None:
    x, y = load_data("breast_cancer")
    x = x.astype(np.float32)
    model = fit(
        kind(20, random_state=4), x[::2], np.asarray(["a", "b"])[y[::2]] if words else y[::2]
    )
    share = model.predict_proba(x[1::2])[:, 0]
    assert (share == 0.5).any()
    answers = runner(convert_model(model, x[:200:2]))({"input": x[1::2]})
    np.testing.assert_array_equal(answers["label"], model.predict(x[1::2]))
    np.testing.assert_array_equal(answers["probabilities"][:, 0], share.astype(np.float32))


@pytest.mark.parametrize(
    "model",
    [
        HistGradientBoostingClassifier(max_iter=30, min_samples_leaf=5),
        make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)),
        make_pipeline(SimpleImputer(), StandardScaler(), DecisionTreeClassifier(random_state=0)),
        make_pipeline(KBinsDiscretizer(4), DecisionTreeClassifier(random_state=0)),
    ],
    ids=["histograms", "scaled", "imputed", "sparse"],
)
def test_decimals_that_equal_a_threshold(model: Any) -> None:
    x, y = load_data("wine")
    fit(model, x[::2], y[::2])
    generator = np.random.default_rng(1)
    held = np.round(x.min(0) + (x.max(0) - x.min(0)) * generator.random((20000, x.shape[1])), 2)
    answers = runner(convert_model(model, x[:60:2]))({"input": held})
    np.testing.assert_array_equal(answers["label"], model.predict(held))


def test_seconds_since_1970() -> None:
    """Float32 moves them by a minute, and a small sample may not show it in a label."""
    generator = np.random.default_rng(0)
    x = np.stack([1.6e9 + generator.integers(0, 100_000, 2000), generator.random(2000)], axis=1)
    model = fit(KNeighborsClassifier(3), x[:1000], (x[:1000, 0] % 1000 > 500).astype(int))
    artifact = convert_model(model, x[:40])
    assert artifact.signature.inputs[0].dtype == "float64"
    held = x[1000:]
    np.testing.assert_array_equal(runner(artifact)({"input": held})["label"], model.predict(held))
