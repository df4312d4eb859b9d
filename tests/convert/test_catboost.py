"""CatBoost models, trained on real data, answer alike as ONNX."""

import pickle
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from catboost import CatBoost, CatBoostClassifier, CatBoostRanker, CatBoostRegressor

from modelport.api import pack
from modelport.convert.stage import convert
from modelport.core.errors import InputError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.source import Source
from modelport.scan.stage import audit

from .conftest import convert_model, load_data, runner
from .photographs import photograph

QUICK = {"iterations": 20, "depth": 4, "verbose": 0, "allow_writing_files": False}


def with_missing(rows: np.ndarray) -> np.ndarray:
    return np.where(np.random.default_rng(0).random(rows.shape) < 0.1, np.nan, rows)


def agrees(model, artifact, rows, batch=0):
    """Every row: the model's own label and probabilities, or values."""
    served = runner(artifact)({"input": rows.astype(np.float32)}, batch)
    if "label" not in served:
        np.testing.assert_allclose(served["prediction"], model.predict(rows), rtol=1e-4, atol=1e-5)
        return
    expected = np.asarray(model.predict(rows)).reshape(served["label"].shape)
    assert np.array_equal(served["label"], expected)
    np.testing.assert_allclose(served["probabilities"], model.predict_proba(rows), atol=1e-6)


CLASSIFIERS = {
    "two classes": ("breast_cancer", {}),
    "ten classes": ("digits", {}),
    "one against all": ("digits", {"loss_function": "MultiClassOneVsAll"}),
    "asymmetric trees": ("digits", {"grow_policy": "Lossguide"}),
    "trees by level": ("breast_cancer", {"grow_policy": "Depthwise"}),
    "cross entropy": ("breast_cancer", {"loss_function": "CrossEntropy"}),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name):
    data, options = CLASSIFIERS[name]
    rows, y = load_data(data)
    model = CatBoostClassifier(**QUICK, **options).fit(rows, y)
    artifact = convert_model(model, rows)
    assert artifact.task == "classification"
    agrees(model, artifact, rows)
    agrees(model, artifact, rows[:21], batch=1)


@pytest.mark.parametrize("loss", ["RMSE", "Quantile:alpha=0.3", "Huber:delta=1.0", "MAPE"])
def test_regressors(loss):
    rows, y = load_data("diabetes")
    model = CatBoostRegressor(**QUICK, loss_function=loss).fit(rows, y)
    artifact = convert_model(model, rows)
    assert artifact.task == "regression"
    agrees(model, artifact, rows, batch=7)


@pytest.mark.parametrize("loss", ["Poisson", "Tweedie:variance_power=1.5"])
def test_counts_are_exponents(loss):
    rows, y = load_data("diabetes")
    model = CatBoostRegressor(**QUICK, loss_function=loss).fit(rows, y)
    served = runner(convert_model(model, rows))({"input": rows.astype(np.float32)})
    expected = model.predict(rows, prediction_type="Exponent")
    np.testing.assert_allclose(served["prediction"], expected, rtol=1e-4)


def test_several_targets_and_several_labels():
    rows, y = load_data("diabetes")
    model = CatBoostRegressor(**QUICK, loss_function="MultiRMSE").fit(rows, np.stack([y, -y], 1))
    agrees(model, convert_model(model, rows), rows)
    rows, y = load_data("breast_cancer")
    labels = np.stack([y, rows[:, 0] > 14], 1).astype(int)
    model = CatBoostClassifier(**QUICK, loss_function="MultiLogloss").fit(rows, labels)
    agrees(model, convert_model(model, rows), rows)


@pytest.mark.parametrize("mode", ["Min", "Max"])
def test_missing_values_go_where_catboost_sends_them(mode):
    rows, y = load_data("breast_cancer")
    rows = with_missing(rows)
    model = CatBoostClassifier(**QUICK, nan_mode=mode).fit(rows, y)
    agrees(model, convert_model(model, rows), rows)


@pytest.mark.parametrize("names", [("malignant", "benign"), (7, -3), (False, True)])
def test_names_of_classes(names):
    rows, y = load_data("breast_cancer")
    model = CatBoostClassifier(**QUICK).fit(rows, np.asarray(names)[y])
    served = runner(convert_model(model, rows))({"input": rows.astype(np.float32)})
    positive = model.predict_proba(rows)[:, 1] > 0.5
    expected = np.asarray(sorted(names))[positive.astype(int)]
    assert served["label"].tolist() == expected.tolist()


def test_rankers_and_models_without_a_wrapper():
    rows, y = load_data("breast_cancer")
    ranker = CatBoostRanker(**QUICK).fit(rows, y, group_id=np.arange(len(rows)) // 30)
    agrees(ranker, convert_model(ranker, rows), rows)
    bare = CatBoost({**QUICK, "loss_function": "Logloss"}).fit(rows, y)
    served = runner(convert_model(bare, rows))({"input": rows.astype(np.float32)})
    expected = bare.predict(rows, prediction_type="Probability")
    np.testing.assert_allclose(served["probabilities"], expected, atol=1e-6)


def test_early_stopping_keeps_the_best_trees():
    rows, y = load_data("breast_cancer")
    model = CatBoostClassifier(
        **{**QUICK, "iterations": 200}, learning_rate=0.5, early_stopping_rounds=5
    ).fit(rows[:400], y[:400], eval_set=(rows[400:], y[400:]))
    assert model.tree_count_ < 200
    agrees(model, convert_model(model, rows), rows)


@pytest.mark.parametrize("ending", ["cbm", "json", "pkl", "joblib"])
def test_files(tmp_path, ending):
    rows, y = load_data("breast_cancer")
    model = CatBoostClassifier(**QUICK).fit(rows, y)
    path = tmp_path / f"model.{ending}"
    if ending in ("cbm", "json"):
        model.save_model(str(path), format=ending)
    elif ending == "pkl":
        path.write_bytes(pickle.dumps(model))
    else:
        joblib.dump(model, path, compress=3)
    agrees(model, convert(audit(Source.of(path)), Rows({"": rows}, "sample")), rows)


def test_columns_keep_their_names(tmp_path):
    rows, y = load_data("diabetes")
    frame = pd.DataFrame(rows, columns=[f"blood {i}" for i in range(rows.shape[1])])
    model = CatBoostRegressor(**QUICK).fit(frame, y)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    packed = pack(model, "blood", sample=tmp_path / "rows.csv", out=tmp_path)
    assert packed.manifest.signature.inputs[0].columns == tuple(frame.columns)


def test_twenty_thousand_rows_of_a_photograph():
    rows, y = photograph()
    model = CatBoostRegressor(**{**QUICK, "iterations": 100, "depth": 6}).fit(rows, y)
    served = runner(convert_model(model, rows[:500]))({"input": rows.astype(np.float32)})
    assert np.abs(served["prediction"] - model.predict(rows)).max() < 1e-6


def test_features_that_are_not_numbers_are_refused_by_name():
    rows, y = load_data("breast_cancer")
    frame = pd.DataFrame({"size": rows[:, 0], "colour": np.where(rows[:, 1] > 18, "dark", "pale")})
    model = CatBoostClassifier(**QUICK, cat_features=["colour"]).fit(frame, y)
    with pytest.raises(UnsupportedError, match=r"categorical features \(colour\)"):
        convert_model(model, rows)


def test_uncertainty_and_unfitted_models_are_refused():
    rows, y = load_data("diabetes")
    model = CatBoostRegressor(**QUICK, loss_function="RMSEWithUncertainty").fit(rows, y)
    with pytest.raises(UnsupportedError, match="RMSEWithUncertainty"):
        convert_model(model, rows)
    with pytest.raises(InputError, match="not fitted"):
        convert_model(CatBoostClassifier(), rows)


@pytest.mark.parametrize("ending", ["cbm", "json"])
def test_truncated_files_are_refused(tmp_path, ending):
    rows, y = load_data("diabetes")
    path = tmp_path / f"model.{ending}"
    CatBoostRegressor(**QUICK).fit(rows, y).save_model(str(path), format=ending)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match="truncated"):
        audit(Source.of(path))


def test_a_file_at_which_catboost_crashes_ends_only_that():
    """Three bytes of an honest model were changed; CatBoost 1.2 reads outside its memory."""
    source = Source.of(Path(__file__).with_name("crashing.cbm"))
    with pytest.raises(InputError, match=r"CatBoost crashes|CatBoost cannot read"):
        convert(audit(source), None)
