"""Trees answered by XGBoost: exactly as ONNX Runtime answers them, or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from onnx import helper, numpy_helper
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier, XGBRegressor

from modelport import api
from modelport.adapters import find_adapter
from modelport.core.errors import EngineError, UnsupportedError
from modelport.core.tensors import Array
from modelport.engines.base import EngineOptions
from tests.engines.forests import (
    DOUBLE,
    FLOAT,
    INF,
    INT64,
    both,
    classifier,
    engine,
    ensemble_5,
    graph,
    hard_rows,
    regressor,
    stump,
    with_rows,
)

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT")


def same(model: onnx.ModelProto, rows: Array | None = None) -> None:
    expected, found = both(model, hard_rows(2) if rows is None else rows)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("missing", [0, 1])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [1.0, 0.0, -0.0, INF, -INF, 3.4028235e38, 1e-45, 0.1])
def test_every_comparison_is_the_same(mode: str, value: float, missing: int) -> None:
    same(graph([regressor(**stump(mode, value, missing))], {"y": FLOAT}))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [0.1, 0.3, 1e300, -1e300, 1.0, 1e-60, -1e-60])
def test_thresholds_of_float64_are_rounded_to_the_side_that_keeps_them(
    mode: str, value: float
) -> None:
    values = numpy_helper.from_array(np.array([value, 0.0, 0.0]))
    weights = numpy_helper.from_array(np.array([10.0, 20.0]))
    node = regressor("wide", **stump(mode))
    for name, tensor in (("nodes_values", values), ("target_weights", weights)):
        (old,) = [item for item in node.attribute if item.name == name]
        node.attribute.remove(old)
        node.attribute.append(helper.make_attribute(f"{name}_as_tensor", tensor))
    cast = helper.make_node("Cast", ["x"], ["wide"], to=DOUBLE)
    near = np.float32(np.clip(value, -3e38, 3e38))
    around = [near, np.nextafter(near, np.float32(INF)), np.nextafter(near, np.float32(-INF))]
    rows = np.array([[x, 0.0] for x in [*around, INF, -INF, np.nan, 0]], dtype=np.float32)
    same(graph([cast, node], {"y": FLOAT}), rows)


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_version_5_with_several_targets_and_a_shared_leaf(kind: str) -> None:
    if kind == "float32":
        same(graph([ensemble_5(np.float32)], {"y": FLOAT}, ml=5))
        return
    cast = helper.make_node("Cast", ["x"], ["wide"], to=DOUBLE)
    same(graph([cast, ensemble_5(np.float64, "wide")], {"y": DOUBLE}, ml=5))


def test_base_values_and_averages() -> None:
    votes = {
        **stump(trees=4), "target_treeids": [0, 1, 2, 3], "target_nodeids": [1, 2, 1, 2],
        "target_ids": [0, 1, 1, 0], "target_weights": [1.0, 2.0, 4.0, 8.0], "n_targets": 2,
        "base_values": [0.5, -0.25], "aggregate_function": "AVERAGE",
    }  # fmt: skip
    same(graph([regressor(**votes)], {"y": FLOAT}))


def test_leaves_that_vote_for_several_targets_and_none() -> None:
    votes = {
        "n_targets": 3, "target_treeids": [0, 0, 0], "target_nodeids": [1, 1, 1],
        "target_ids": [0, 2, 2], "target_weights": [1.0, 2.0, 3.0],
    }  # fmt: skip
    same(graph([regressor(**votes)], {"y": FLOAT}))


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC"])
@pytest.mark.parametrize("weights", [[0.75], [2.0], [-2.0]])
@pytest.mark.parametrize("base", [None, [0.3], [-3.0]])
def test_two_classes_of_one_score(weights: list[float], base: Any, transform: str) -> None:
    more = {} if base is None else {"base_values": base}
    node = classifier(weights, post_transform=transform, **more)
    expected, found = both(graph([node], {"label": INT64, "scores": FLOAT}), hard_rows(2))
    np.testing.assert_array_equal(found["label"], expected["label"])
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-7)


def test_two_classes_whose_votes_are_all_positive() -> None:
    node = classifier([0.75], class_weights=[0.75, 0.25], classlabels_int64s=[3, 4])
    same(graph([node], {"label": INT64, "scores": FLOAT}))


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
def test_many_classes(transform: str) -> None:
    node = classifier([1.0, -2.0, 1.0], post_transform=transform, base_values=[0.0, 1.5, 0.25])
    expected, found = both(graph([node], {"label": INT64, "scores": FLOAT}), hard_rows(2))
    np.testing.assert_array_equal(found["label"], expected["label"])
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-7)


def test_labels_that_are_text_and_scores_that_nobody_uses() -> None:
    node = classifier([1.0, -2.0, 1.0])
    (old,) = [item for item in node.attribute if item.name == "classlabels_int64s"]
    node.attribute.remove(old)
    node.attribute.append(helper.make_attribute("classlabels_strings", ["a", "b", "c"]))
    same(graph([node], {"label": onnx.TensorProto.STRING}))


def test_what_stands_around_the_trees_is_kept() -> None:
    """A scaler before them, their input and a branch of it behind, constants in nodes."""
    two = numpy_helper.from_array(np.array([2.0, 4.0], dtype=np.float32), "two")
    nodes = [
        helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.float32([1]))),
        helper.make_node("Mul", ["x", "two"], ["scaled"]),
        regressor("scaled", "sum"),
        helper.make_node("ReduceSum", ["scaled"], ["all"], keepdims=1),
        helper.make_node("Add", ["sum", "one"], ["more"]),
        helper.make_node("Concat", ["more", "x"], ["y"], axis=1),
    ]
    rows = np.nan_to_num(hard_rows(2), posinf=9, neginf=-9)
    same(graph(nodes, {"y": FLOAT}, constants=(two,)), rows)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (graph([regressor(**stump("BRANCH_EQ"))], {"y": FLOAT}), "BRANCH_EQ"),
        (graph([regressor(), regressor("x", "z")], {"y": FLOAT, "z": FLOAT}), "and it has 2"),
        (graph([helper.make_node("Neg", ["x"], ["y"])], {"y": FLOAT}), "and it has 0"),
        (graph([regressor(aggregate_function="MAX")], {"y": FLOAT}), "MAX"),
        (graph([regressor(post_transform="PROBIT")], {"y": FLOAT}), "PROBIT"),
        (graph([ensemble_5(np.float64)], {"y": DOUBLE}, ml=5, kind=DOUBLE), "compare float64"),
        (graph([regressor()], {"y": FLOAT}, batch=4), "number of rows is fixed"),
        (graph([regressor(nodes_featureids=[2**30, 0, 0])], {"y": FLOAT}), "compare columns"),
        (
            graph([classifier([1.0, 2.0])], {"label": INT64, "scores": FLOAT}),
            "both of two classes",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_xgboost_cannot_have_is_refused(model: onnx.ModelProto, why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        engine("forest", with_rows(model))


@pytest.mark.parametrize("rows", [None, "", "0", "-1", "1.5", "²", "many"])
def test_the_file_has_to_say_from_how_many_rows_on(rows: Any) -> None:
    with pytest.raises(EngineError, match="not a number of rows"):
        engine("forest", with_rows(graph([regressor()], {"y": FLOAT}), rows))


def test_a_damaged_file_is_the_engines_own_error() -> None:
    with pytest.raises(EngineError, match="ONNX Runtime cannot load"):
        engine("forest", b"no model")


def test_rows_with_too_few_columns_are_an_error_of_the_engine() -> None:
    content = with_rows(graph([regressor(nodes_featureids=[3, 0, 0])], {"y": FLOAT}, width="W"))
    with pytest.raises(EngineError, match=r"need 4 columns, not \[5, 2\]"):
        engine("forest", content).run({"x": np.zeros((5, 2), dtype=np.float32)})


def test_few_rows_never_reach_xgboost(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelport.engines.forest import booster

    loaded = engine("forest", with_rows(graph([regressor()], {"y": FLOAT}), 8))
    asked = []
    true = booster.Sums.of

    def of(self: Any, rows: Array) -> Array:
        asked.append(len(rows))
        return true(self, rows)

    monkeypatch.setattr(booster.Sums, "of", of)
    for count in (0, 1, 7, 8, 20):
        assert len(loaded.run({"x": np.zeros((count, 2), dtype=np.float32)})["y"]) == count
    assert asked == [8, 20]


def test_the_reference_runs_the_file_as_written() -> None:
    content = with_rows(graph([regressor()], {"y": FLOAT}))
    options = EngineOptions(optimize=False)
    loaded = find_adapter("engine", "forest").load().load(content, options)
    assert type(loaded).__name__ == "OnnxRuntimeModel"


def test_an_xgboost_that_reads_them_otherwise_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from modelport.engines.forest import booster

    true = booster.Sums.of
    monkeypatch.setattr(booster.Sums, "of", lambda self, rows: true(self, rows) + 1)
    with pytest.raises(EngineError, match="disagree about the trees by up to 1"):
        engine("forest", with_rows(graph([regressor()], {"y": FLOAT})))


def classes(count: int) -> tuple[Array, Array]:
    rows, labels = make_classification(900, 10, n_informative=7, n_classes=count, random_state=0)
    return rows.astype(np.float32), labels


MODELS = {
    "xgboost": (XGBClassifier(n_estimators=60, max_depth=5, n_jobs=1), 2),
    "xgboost, 4 classes": (XGBClassifier(n_estimators=15, n_jobs=1), 4),
    "xgboost, numbers": (XGBRegressor(n_estimators=60, n_jobs=1), 0),
    "lightgbm": (LGBMClassifier(n_estimators=60, verbose=-1, n_jobs=1), 2),
    "lightgbm, 4 classes": (LGBMClassifier(n_estimators=15, verbose=-1, n_jobs=1), 4),
    "lightgbm, numbers": (LGBMRegressor(n_estimators=60, verbose=-1, n_jobs=1), 0),
    "random forest": (RandomForestClassifier(15, max_depth=8, random_state=0), 2),
    "random forest, 4 classes": (RandomForestClassifier(10, random_state=0), 4),
    "random forest, numbers": (RandomForestRegressor(20, max_depth=7, random_state=0), 0),
    "extra trees": (ExtraTreesClassifier(20, random_state=0), 2),
    "gradient boosting": (GradientBoostingClassifier(n_estimators=40, random_state=0), 2),
    "gradient boosting, 4 classes": (GradientBoostingClassifier(n_estimators=8), 4),
    "gradient boosting, numbers": (GradientBoostingRegressor(n_estimators=40), 0),
    "histograms": (HistGradientBoostingClassifier(max_iter=30), 2),
    "behind a scaler": (
        make_pipeline(StandardScaler(), GradientBoostingClassifier(n_estimators=20)), 2
    ),
}  # fmt: skip
TAKE_NAN = ("xgboost", "lightgbm", "histograms")


@pytest.mark.parametrize("name", MODELS)
def test_trained_models_answer_the_same(name: str, tmp_path: Path) -> None:
    model, count = MODELS[name]
    rows, labels = classes(count or 2)
    target = labels if count else rows[:, 0] * 3 + rows[:, 1] ** 2
    if name.partition(",")[0] in TAKE_NAN:
        rows[::7, 2] = np.nan
    model.fit(rows[:400], target[:400])
    package = api.pack(model, "model", sample=rows[:100], out=tmp_path / "out")
    expected, found = both(package.model_path.read_bytes(), rows)
    for key, array in expected.items():
        if array.dtype.kind == "f":
            scale = max(1.0, float(np.abs(array).max()))
            assert np.abs(found[key] - array).max() <= 1e-5 * scale
        else:
            np.testing.assert_array_equal(found[key], array)


def test_many_threads_get_their_own_answers() -> None:
    votes = {"target_weights": [10.0, 20.0]}
    content = with_rows(graph([regressor(**votes)], {"y": FLOAT}))
    loaded = engine("forest", content, threads=2)
    parts = [hard_rows(2, count) for count in range(50, 450)]
    one = engine("onnxruntime", content)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda rows: loaded.run({"x": rows})["y"], parts))
    for rows, answer in zip(parts, found, strict=True):
        np.testing.assert_array_equal(answer, one.run({"x": rows})["y"])
