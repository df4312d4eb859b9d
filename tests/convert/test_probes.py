"""Rows made to hurt, and what they catch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from modelport.convert import graph
from modelport.convert.base import Probe
from modelport.convert.frameworks.sklearn import trees
from modelport.convert.probes import ask, judge, rows_made_to_hurt
from modelport.core.compare import TOLERANCES
from modelport.core.errors import EngineError, InputError, ParityError, SignatureError
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import TensorSpec

from .conftest import convert_model, fit, runner


def probe_named(artifact: Any, start: str) -> dict[str, Any]:
    return next(p for p in artifact.parity["probes"] if p["name"].startswith(start))


def test_nan_is_refused_as_the_source_refuses_it(wine: Any) -> None:
    x, y = wine
    artifact = convert_model(fit(LogisticRegression(max_iter=50), x, y), x)
    assert artifact.signature.inputs[0].refuses == ("nan", "infinity")
    bad = x[:1].astype(np.float32)
    bad[0, 3] = np.nan
    with pytest.raises(SignatureError, match="holds nan"):
        artifact.signature.check({"input": bad})
    for name in ("NaN", "infinity"):
        probe = probe_named(artifact, name)
        assert probe["passed"]
        assert probe["refused"] == probe["rows"]


def test_nan_goes_the_way_scikit_learn_sends_it(wine: Any) -> None:
    x, y = wine
    for model in (
        DecisionTreeClassifier(random_state=0),
        RandomForestClassifier(10, random_state=0),
        HistGradientBoostingClassifier(max_iter=5, random_state=0),
    ):
        artifact = convert_model(fit(model, x, y), x)
        (spec,) = artifact.signature.inputs
        assert "nan" not in spec.refuses
        assert probe_named(artifact, "NaN")["passed"]
        holes = x.copy()
        holes[np.arange(len(x)), np.arange(len(x)) % x.shape[1]] = np.nan
        answers = runner(artifact)({"input": holes.astype(spec.numpy_dtype)})
        np.testing.assert_array_equal(answers["label"], model.predict(holes))


def test_forests_take_nan_and_refuse_infinity(wine: Any) -> None:
    x, y = wine
    artifact = convert_model(fit(RandomForestClassifier(5, random_state=0), x, y), x)
    assert artifact.signature.inputs[0].refuses == ("infinity",)
    probe = probe_named(artifact, "infinity")
    assert probe["passed"]
    assert probe["refused"] == probe["rows"]
    bad = x[:1].astype(np.float32)
    bad[0, 0] = np.nan
    artifact.signature.check({"input": bad})
    bad[0, 1] = -np.inf
    with pytest.raises(SignatureError, match=r"holds -inf at \[0, 1\]"):
        artifact.signature.check({"input": bad})


@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeClassifier(random_state=0),
        RandomForestClassifier(10, random_state=0),
        GradientBoostingClassifier(n_estimators=5, random_state=0),
        HistGradientBoostingClassifier(max_iter=5, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_rows_next_to_thresholds_are_exact(model: Any, cancer: Any) -> None:
    x, y = cancer
    x = x.astype(np.float32).astype(np.float64)  # so that float32 is served
    fit(model, x, y)
    artifact = convert_model(model, x)
    assert artifact.signature.inputs[0].dtype == "float32"
    probe = probe_named(artifact, "next to tree thresholds")
    assert (probe["gate"], probe["passed"], probe["differing"]) == (True, True, 0)
    rows = trees.rows_next_to_thresholds(trees.trees_in(model), x)
    assert probe["rows"] >= 9
    assert len(rows) >= 9
    answers = runner(artifact)({"input": rows.astype(np.float32)})
    np.testing.assert_array_equal(answers["label"], model.predict(rows))


@pytest.mark.parametrize(
    "model",
    [DecisionTreeRegressor(random_state=0), ExtraTreesRegressor(5, random_state=0)],
    ids=lambda model: type(model).__name__,
)
def test_thresholds_rounded_to_nearest_are_caught(
    model: Any, diabetes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = diabetes
    fit(model, x, y)
    convert_model(model, x)
    real = trees._set_branches

    def to_nearest(node: Any, ensemble: Any) -> None:
        real(node, ensemble)
        nearest = ensemble.joined("threshold").astype(np.float32)
        graph.set_attribute(node, "nodes_values", nearest.tolist())

    monkeypatch.setattr(trees, "_set_branches", to_nearest)
    # No row of the sample lies so near: only the probe can see it.
    with pytest.raises(ParityError, match="next to tree thresholds: prediction: max error"):
        convert_model(model, x)


def test_rounding_down() -> None:
    values = np.asarray([0.1, 0.5, -0.1, 1e300, np.inf, 16777217.0, 0.0])
    rounded = trees.round_down(values)
    assert rounded.dtype == np.float32
    assert np.all(rounded.astype(np.float64) <= values)
    with np.errstate(over="ignore"):
        above = np.nextafter(rounded, np.float32(np.inf)).astype(np.float64)
    assert np.all((above > values) | np.isinf(values))
    assert rounded[1] == 0.5
    assert np.isinf(rounded[4])


def test_behind_a_scaler_thresholds_are_reported_only(cancer: Any) -> None:
    x, y = cancer
    model = fit(make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)), x, y)
    probe = probe_named(convert_model(model, x), "next to tree thresholds")
    assert not probe["gate"]
    assert probe["rows"] > 20


def test_float64_and_large_values_are_reported_only(wine: Any) -> None:
    x, y = wine
    artifact = convert_model(fit(LogisticRegression(max_iter=50), x, y), x)
    for name in ("float64 values between", "values 1000 times", "values 1e+06 times"):
        assert not probe_named(artifact, name)["gate"]
    for name in ("zeros", "constant rows", "rows as given"):
        probe = probe_named(artifact, name)
        assert probe["gate"]
        assert probe["passed"]


SIGNATURE = Signature(
    (TensorSpec("input", "float32", ("N", 2)),),
    (TensorSpec("label", "int64", ("N",)), TensorSpec("scores", "float32", ("N",))),
)


class Scores:
    """Source and served model at once: the sign of a sum, off by `bias` when served."""

    signature = SIGNATURE
    task = "classification"

    def __init__(self, bias: float = 0.0, refuse: bool = False) -> None:
        self._bias = bias
        self._refuse = refuse

    def predict(self, rows: Rows) -> dict[str, np.ndarray]:
        matrix = rows.columns["input"]
        if self._refuse and (matrix < 0).any():
            raise InputError("negative")
        return self.run({"input": matrix})

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        if not np.isfinite(inputs["input"]).all():
            raise EngineError("not finite")
        scores = inputs["input"].sum(axis=1) + self._bias
        return {"label": (scores > 0).astype(np.int64), "scores": scores.astype(np.float32)}


def test_a_tie_in_made_up_rows_is_no_flip() -> None:
    probe = Probe("zeros", Rows({"input": np.asarray([[0.0, 0.0], [1.0, 0.0]])}))
    entry = judge(ask(Scores(), probe), Scores(1e-9), SIGNATURE, TOLERANCES["float32"])  # type: ignore[arg-type]
    assert entry["passed"]
    assert entry["flips"] == 0
    assert "tie" in entry["note"]


def test_a_flip_away_from_a_tie_refuses() -> None:
    probe = Probe("small", Rows({"input": np.asarray([[-0.1, 0.0], [1.0, 0.0]])}))
    entry = judge(ask(Scores(), probe), Scores(0.2), SIGNATURE, TOLERANCES["float32"])  # type: ignore[arg-type]
    assert entry["refuses"]
    assert entry["flips"] == 1
    assert "label: 1 of 2 differ; at [0]: expected 0, got 1" in entry["note"]


def test_rows_are_asked_one_by_one_when_some_are_refused() -> None:
    probe = Probe("mixed", Rows({"input": np.asarray([[1.0, 1.0], [-1.0, 0.0], [2.0, 1.0]])}))
    answer = ask(Scores(refuse=True), probe)  # type: ignore[arg-type]
    assert answer.answered.tolist() == [0, 2]
    assert answer.refused.tolist() == [1]
    assert answer.outputs["label"].tolist() == [1, 1]
    entry = judge(answer, Scores(), SIGNATURE, TOLERANCES["float32"])  # type: ignore[arg-type]
    assert not entry["passed"]
    assert not entry["refuses"]
    assert "refuses 1 of these rows (negative)" in entry["note"]


def test_probes_fit_the_signature() -> None:
    signature = Signature(
        (
            TensorSpec("image", "float32", ("N", 4, 4)),
            TensorSpec("count", "int64", ("N", 1)),
            TensorSpec("name", "string", ("N", 1)),
        ),
        (TensorSpec("output", "float32", ("N",)),),
    )
    rows = Rows(
        {
            "image": np.ones((5, 4, 4)),
            "count": np.arange(5),
            "name": np.asarray(["a", "b", "c", "d", "e"], dtype=object),
        }
    )
    probes = rows_made_to_hurt(rows, signature)
    assert {p.name.split(" in ")[0] for p in probes} >= {"NaN", "infinity", "zeros"}
    for probe in probes:
        bound = probe.rows.bind(signature)
        assert bound["image"].shape[1:] == (4, 4)
    text = next(p for p in probes if p.name == "text never seen in name")
    assert "" in text.rows.columns["name"]
    numbers = next(p for p in probes if p.name == "integers never seen in count")
    assert numbers.rows.columns["count"].tolist() == [5, -1]


def test_without_a_batch_there_are_none() -> None:
    fixed = Signature(
        (TensorSpec("input", "float32", (1, 2)),), (TensorSpec("output", "float32", (1,)),)
    )
    assert rows_made_to_hurt(Rows({"input": np.ones((1, 2))}), fixed) == []
