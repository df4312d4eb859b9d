"""XGBoost models, trained on real data, answer alike as ONNX."""

import json
import pickle
import warnings

import joblib
import numpy as np
import onnx
import pandas as pd
import pytest
import xgboost
from sklearn.ensemble import (
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from xgboost import (
    DMatrix,
    XGBClassifier,
    XGBRanker,
    XGBRegressor,
    XGBRFClassifier,
    XGBRFRegressor,
)

from modelport.convert.stage import convert
from modelport.core.errors import InputError, UnsafeError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.source import Source
from modelport.scan.stage import audit

from .conftest import MODEL_FILE, convert_model, fit, load_data, rows_of, runner
from .photographs import photograph

QUICK = {"n_estimators": 20, "max_depth": 4, "n_jobs": 1}


def with_missing(rows, value=np.nan):
    return np.where(np.random.default_rng(0).random(rows.shape) < 0.1, value, rows)


def answers(artifact, rows, batch=0):
    dtype = artifact.signature.inputs[0].dtype
    return runner(artifact)({"input": rows.astype(dtype)}, batch)


def agrees(model, artifact, rows, batch=0):
    """Every row, as the wrapper answers it."""
    served = answers(artifact, rows, batch)
    if "label" not in served:
        np.testing.assert_allclose(served["prediction"], model.predict(rows), rtol=1e-4, atol=1e-5)
        return
    assert np.array_equal(served["label"], model.predict(rows))
    np.testing.assert_allclose(served["probabilities"], model.predict_proba(rows), atol=1e-5)


CLASSIFIERS = {
    "two classes": ("breast_cancer", XGBClassifier, {}),
    "ten classes": ("digits", XGBClassifier, {}),
    "softmax": ("digits", XGBClassifier, {"objective": "multi:softmax"}),
    "hinge": ("breast_cancer", XGBClassifier, {"objective": "binary:hinge"}),
    "dart": ("digits", XGBClassifier, {"booster": "dart", "rate_drop": 0.3}),
    "linear": ("breast_cancer", XGBClassifier, {"booster": "gblinear"}),
    "linear for ten": ("digits", XGBClassifier, {"booster": "gblinear"}),
    "forest": ("digits", XGBRFClassifier, {}),
    "pruned": ("digits", XGBClassifier, {"tree_method": "exact", "gamma": 2}),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name):
    data, kind, options = CLASSIFIERS[name]
    rows, y = load_data(data)
    options = {**QUICK, **options}
    if options.get("booster") == "gblinear":
        del options["max_depth"]
    model = kind(**options).fit(rows, y)
    artifact = convert_model(model, rows)
    assert artifact.task == "classification"
    agrees(model, artifact, rows)
    agrees(model, artifact, rows[:21], batch=1)


OBJECTIVES = (
    "reg:squarederror", "reg:squaredlogerror", "reg:absoluteerror", "reg:pseudohubererror",
    "count:poisson", "reg:gamma", "reg:tweedie", "survival:cox",
)  # fmt: skip


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_regressors(objective):
    rows, y = load_data("diabetes")
    model = XGBRegressor(**QUICK, objective=objective).fit(rows, y)
    agrees(model, convert_model(model, rows), rows, batch=7)


def test_other_regressors():
    rows, y = load_data("diabetes")
    for model in (
        XGBRegressor(**QUICK, objective="reg:quantileerror", quantile_alpha=[0.1, 0.5, 0.9]),
        XGBRegressor(n_estimators=20, booster="gblinear"),
        XGBRFRegressor(**QUICK),
        XGBRegressor(**QUICK, base_score=100.0),
    ):
        model.fit(rows, y)
        agrees(model, convert_model(model, rows), rows)
    rows, y = load_data("breast_cancer")
    model = XGBRegressor(**QUICK, objective="reg:logistic").fit(rows, y)
    agrees(model, convert_model(model, rows), rows)


@pytest.mark.parametrize("strategy", ["one_output_per_tree", "multi_output_tree"])
def test_several_targets(strategy):
    rows, y = load_data("diabetes")
    model = XGBRegressor(**QUICK, multi_strategy=strategy).fit(rows, np.stack([y, -y, y**0.5], 1))
    agrees(model, convert_model(model, rows), rows)


def test_several_labels():
    rows, y = load_data("breast_cancer")
    model = XGBClassifier(**QUICK).fit(rows, np.stack([y, rows[:, 0] > 14], 1).astype(int))
    agrees(model, convert_model(model, rows), rows)


def test_not_one_of_20000_rows_is_off():
    rows, y = photograph()
    model = XGBRegressor(n_estimators=100, max_depth=6, n_jobs=1).fit(rows, y)
    served = answers(convert_model(model, rows[:2000]), rows)["prediction"]
    assert np.count_nonzero(np.abs(served - model.predict(rows)) > 1e-5) == 0


@pytest.mark.parametrize("missing", [np.nan, -999.0, 0.0])
def test_missing_values(missing):
    rows, y = load_data("breast_cancer")
    rows = with_missing(rows, missing)
    model = XGBClassifier(**QUICK, missing=missing).fit(rows, y)
    artifact = convert_model(model, rows)
    agrees(model, artifact, rows)
    agrees(model, artifact, with_missing(rows))


def test_rankers_and_boosters():
    rows, y = load_data("breast_cancer")
    ranker = XGBRanker(**QUICK).fit(rows, y, qid=np.arange(len(rows)) // 30)
    agrees(ranker, convert_model(ranker, rows), rows)
    booster = XGBClassifier(**QUICK).fit(rows, y).get_booster()
    served = answers(convert_model(booster, rows), rows)
    np.testing.assert_allclose(served["probabilities"][:, 1], booster.predict(DMatrix(rows)), 1e-5)
    raw = xgboost.train({"objective": "binary:logitraw", "nthread": 1}, DMatrix(rows, y), 10)
    served = answers(convert_model(raw, rows), rows)
    np.testing.assert_allclose(served["prediction"], raw.predict(DMatrix(rows)), 1e-4, 1e-5)


@pytest.mark.parametrize("objective", ["multi:softmax", "multi:softprob"])
def test_boosters_of_several_classes(objective):
    rows, y = load_data("digits")
    booster = xgboost.train(
        {"objective": objective, "num_class": 10, "nthread": 1}, DMatrix(rows, y), 10
    )
    served = answers(convert_model(booster, rows), rows)
    expected = booster.predict(DMatrix(rows))
    if objective == "multi:softmax":
        assert np.array_equal(served["label"], expected)
        expected = booster.predict(DMatrix(rows), output_margin=True)
        np.testing.assert_allclose(served["scores"], expected, atol=1e-5)
    else:
        np.testing.assert_allclose(served["probabilities"], expected, atol=1e-6)


def test_early_stopping():
    rows, y = load_data("breast_cancer")
    model = XGBClassifier(n_estimators=200, learning_rate=0.5, early_stopping_rounds=5, n_jobs=1)
    model.fit(rows[:400], y[:400], eval_set=[(rows[400:], y[400:])], verbose=False)
    booster = model.get_booster()
    assert model.best_iteration + 1 < booster.num_boosted_rounds()
    artifact = convert_model(model, rows)
    agrees(model, artifact, rows)
    assert "early stopping" in artifact.provenance["notes"][0]
    bare = convert_model(booster, rows)
    expected = booster.predict(DMatrix(rows))
    np.testing.assert_allclose(answers(bare, rows)["probabilities"][:, 1], expected, 1e-5)
    assert "uses all" in bare.provenance["notes"][0]


def frame_of_categories():
    rows, y = load_data("diabetes")
    ages = pd.Series(np.round(rows[:, 0] * 200).astype(int))
    frame = pd.DataFrame(
        {
            "body mass": rows[:, 2].astype(np.float32),
            "age": pd.Categorical("age " + ages.astype(str)),
            "sex": pd.Categorical((rows[:, 1] > 0).astype(int) + 5),
        }
    )
    return frame, y


def test_categories_of_a_frame_are_served_as_they_are_written():
    frame, y = frame_of_categories()
    model = XGBRegressor(**QUICK, enable_categorical=True, max_cat_to_onehot=2).fit(frame, y)
    plain = frame.astype({"age": object, "sex": int})
    artifact = convert_model(model, rows_of(plain))
    assert [s.dtype for s in artifact.signature.inputs] == ["float32", "string", "float32"]
    rows = {
        s.name: plain[s.name].to_numpy().astype(s.numpy_dtype).reshape(-1, 1)
        for s in artifact.signature.inputs
    }
    served = runner(artifact)(rows)["prediction"]
    np.testing.assert_allclose(served, model.predict(frame), rtol=1e-5)
    rows["age"][:] = "never seen"
    with pytest.raises(Exception, match="indices element out of data bounds"):
        runner(artifact)(rows)  # as XGBoost refuses it
    with pytest.raises(ValueError, match="category not in the training set"):
        model.predict(frame.assign(age=pd.Categorical(["never seen"] * len(frame))))


def test_reports_hold_no_times_of_day():
    rows, y = load_data("wine")
    booster = xgboost.train({}, DMatrix(rows, y), 2)
    probes = convert_model(booster, rows).parity["probes"]
    (said,) = (probe["note"] for probe in probes if probe["name"] == "infinity in input")
    assert "(Input data contains" in said


def test_names_of_categories_that_xgboost_cuts_are_refused():
    frame = pd.DataFrame({"city": pd.Categorical(["Łódź", "Rome", "é"] * 30), "x": np.arange(90.0)})
    model = XGBClassifier(n_estimators=2, enable_categorical=True).fit(frame, np.arange(90) % 2)
    with pytest.raises(UnsupportedError, match="beyond ASCII"):
        convert_model(model, rows_of(frame))


def test_codes_of_categories_may_be_anything():
    frame, y = frame_of_categories()
    codes = np.stack([frame["body mass"], frame["age"].cat.codes, frame["sex"].cat.codes], 1)
    model = XGBRegressor(**QUICK, enable_categorical=True, feature_types=["q", "c", "c"])
    model.fit(codes, y)
    artifact = convert_model(model, codes)
    for odd in (np.nan, 0.5, 1.75, 31.0, 32.0, 64.0, 1e6):
        codes[:, 1] = odd
        agrees(model, artifact, codes.astype(np.float32))


@pytest.mark.parametrize("ending", ["json", "ubj", "bin", "pkl", "joblib", "booster.pkl"])
def test_files(tmp_path, ending):
    rows, y = load_data("digits")
    model = XGBClassifier(**QUICK).fit(rows, y)
    path = tmp_path / f"model.{ending}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the ending .bin is old
        if ending in ("json", "ubj", "bin"):
            model.save_model(path)
        elif ending == "joblib":
            joblib.dump(model, path, compress=3)
        else:
            path.write_bytes(pickle.dumps(model if ending == "pkl" else model.get_booster()))
    artifact = convert(audit(Source.of(path)), Rows({"": rows}, "sample"))
    agrees(model, artifact, rows)


def test_the_old_binary_format_is_refused_by_name(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"binf" + bytes(200))
    with pytest.raises(UnsupportedError, match="old binary format"):
        audit(Source.of(path))


def damaged(document, path, value):
    """The JSON model with one value changed."""
    plain = json.loads(document)
    inner = plain
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(plain).encode()


_MODEL = ("learner", "gradient_booster", "model")
_TREE = (*_MODEL, "trees", 1)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*_TREE, "left_children", 0), 9999),
        ((*_TREE, "left_children", 0), 0),
        ((*_TREE, "split_indices", 0), 10_000),
        ((*_TREE, "split_conditions"), [1.0]),
        ((*_TREE, "parents", 1), -1),
        ((*_TREE, "id"), 0),
        ((*_TREE, "tree_param", "num_nodes"), "1000000"),
        ((*_MODEL, "tree_info", 1), 7),
        ((*_MODEL, "iteration_indptr", 1), 99),
        (("learner", "learner_model_param", "num_target"), "-1"),
        (("learner", "feature_names"), ["one"]),
    ],
)
def test_damaged_files_are_refused_before_xgboost_sees_them(tmp_path, path, value):
    rows, y = load_data("breast_cancer")
    document = bytes(XGBClassifier(**QUICK).fit(rows, y).get_booster().save_raw("json"))
    file = tmp_path / "model.json"
    file.write_bytes(damaged(document, path, value))
    with pytest.raises(InputError, match="not an XGBoost model"):
        audit(Source.of(file))


@pytest.mark.parametrize("ending", ["json", "ubj"])
def test_truncated_and_deep_files_are_refused(tmp_path, ending):
    rows, y = load_data("breast_cancer")
    path = tmp_path / f"model.{ending}"
    XGBClassifier(**QUICK).fit(rows, y).save_model(path)
    content = path.read_bytes()
    opening = b'{"learner":' if ending == "json" else content[:17]
    for bad in (content[: len(content) // 2], content + content, opening + b"[" * 100_000):
        path.write_bytes(bad)
        with pytest.raises(InputError, match="not an XGBoost model"):
            audit(Source.of(path))


def test_a_damaged_booster_inside_a_pickle_is_refused(tmp_path):
    rows, y = load_data("breast_cancer")
    model = XGBClassifier(**QUICK).fit(rows, y)
    for protocol in (4, 5):
        content = pickle.dumps(model, protocol=protocol)
        at = content.index(b"left_children") + 40
        path = tmp_path / "model.pkl"
        path.write_bytes(content[:at] + b"\x7f" + content[at + 1 :])
        with pytest.raises(UnsafeError, match=r"xgboost\.core\.Booster"):
            audit(Source.of(path))


def test_a_pickle_that_wears_the_ending_goes_to_the_pickle_scanner(tmp_path):
    path = tmp_path / "model.json"
    path.write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    with pytest.raises(UnsafeError, match="system"):
        audit(Source.of(path))


def test_the_same_model_always_gives_the_same_file_and_one_tree_operator():
    rows, y = load_data("digits")
    model = XGBClassifier(**QUICK).fit(rows, y)
    first, second = (convert_model(model, rows).files[MODEL_FILE] for _ in range(2))
    assert first == second
    operators = [node.op_type for node in onnx.load_from_string(first).graph.node]
    assert operators.count("TreeEnsemble") == 1


def test_unfitted_models_are_refused():
    with pytest.raises(InputError, match="not fitted"):
        convert_model(XGBClassifier(), None)


def test_steps_of_scikit_learn_models():
    rows, y = load_data("digits")
    scaled = fit(make_pipeline(MinMaxScaler(), XGBClassifier(**QUICK)), rows, y)
    agrees(scaled, convert_model(scaled, rows), rows)
    rows, y = load_data("breast_cancer")
    members = [
        ("trees", XGBClassifier(**QUICK)),
        ("forest", RandomForestClassifier(5, max_depth=4, random_state=0)),
    ]
    for model in (
        VotingClassifier(members, voting="soft"),
        StackingClassifier(members, final_estimator=LogisticRegression(), cv=2),
    ):
        fit(model, rows, y)
        agrees(model, convert_model(model, rows), rows.astype(np.float32).astype(np.float64))


def test_categories_inside_another_model_become_chains_of_comparisons():
    frame, y = frame_of_categories()
    codes = np.stack([frame["body mass"], frame["age"].cat.codes, frame["sex"].cat.codes], 1)
    trees = XGBRegressor(
        **QUICK, enable_categorical=True, feature_types=["q", "c", "c"], max_cat_to_onehot=2
    )
    model = VotingRegressor([("trees", trees), ("line", LinearRegression())])
    artifact = convert_model(fit(model, codes, y), codes)
    agrees(model, artifact, codes)
