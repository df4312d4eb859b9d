"""Rows made to hurt, and what they catch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
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

from modelport.convert.base import Probe
from modelport.convert.frameworks.sklearn import trees
from modelport.convert.graphs import edits as graph
from modelport.convert.proof.lengths import rows_of_other_lengths
from modelport.convert.proof.probes import ask, judge, rows_made_to_hurt
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


def test_lengths_that_were_never_traced() -> None:
    signature = Signature(
        (
            TensorSpec("ids", "int64", ("N", "words")),
            TensorSpec("mask", "int64", ("N", "mask_words")),
            TensorSpec("sound", "float32", ("N", 1, "samples")),
            TensorSpec("fixed", "float32", ("N", 6)),
        ),
        (TensorSpec("output", "float32", ("N",)),),
    )
    rows = Rows(
        {
            "ids": np.arange(60).reshape(10, 6),
            "mask": np.ones((10, 6), np.int64),
            "sound": np.ones((10, 1, 50)),
            "fixed": np.ones((10, 6)),
        }
    )
    probes = rows_of_other_lengths(rows, signature)
    sizes = [{n: a.shape for n, a in p.rows.columns.items()} for p in probes]
    assert [(s["ids"][1], s["sound"][2]) for s in sizes] == [
        (1, 50), (3, 50), (12, 50), (6, 1), (6, 25), (6, 100),
    ]  # fmt: skip
    assert all(s["ids"] == s["mask"] and s["fixed"] == (3, 6) for s in sizes)
    assert all(probe.gate for probe in probes)
    assert probes[2].rows.columns["ids"][0].tolist() == [*range(6), *range(6)]
    for probe in probes:
        probe.rows.bind(signature)


class Lengths:
    """A model of any length, and an export that keeps the length that it was traced with."""

    signature = Signature(
        (TensorSpec("input", "float32", ("N", "T")),), (TensorSpec("output", "float32", ("N",)),)
    )

    def __init__(self, divisor: float | None = None) -> None:
        self._divisor = divisor

    def predict(self, rows: Rows) -> dict[str, np.ndarray]:
        return self.run(rows.columns)

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        array = inputs["input"]
        return {"output": array.sum(axis=1) / (self._divisor or array.shape[1])}


def test_a_length_that_became_a_constant_refuses() -> None:
    rows = Rows({"input": np.ones((4, 8), np.float32)})
    probes = rows_of_other_lengths(rows, Lengths.signature)
    for export, refuses in ((Lengths(), False), (Lengths(8.0), True)):
        for probe in probes:
            answer = ask(Lengths(), probe)  # type: ignore[arg-type]
            entry = judge(answer, export, Lengths.signature, TOLERANCES["float32"])
            assert entry["refuses"] is refuses


def test_text_that_people_send() -> None:
    signature = Signature(
        (TensorSpec("text", "string", ("N", 1)),), (TensorSpec("output", "float32", ("N",)),)
    )
    rows = Rows({"text": np.asarray(["a known text", "another"], dtype=object)})
    probes = {p.name: p for p in rows_made_to_hurt(rows, signature)}
    gates = {name.removesuffix(" in text"): probe.gate for name, probe in probes.items()}
    assert gates == {
        "text never seen": True,
        "blanks and line ends": True,
        "runs of blanks": True,
        "long text": True,
        "letters with rules of their own": False,
        "text with a NUL character": False,
    }
    for probe in probes.values():
        bound = probe.rows.bind(signature)["text"]
        assert all(isinstance(text, str) for text in bound.ravel())
    assert len(probes["long text in text"].rows.columns["text"][0]) >= 10_000
    assert any("\0" in t for t in probes["text with a NUL character in text"].rows.columns["text"])


def test_integers_at_the_ends_and_booleans() -> None:
    signature = Signature(
        (TensorSpec("count", "int32", ("N", 1)), TensorSpec("flag", "bool", ("N", 1))),
        (TensorSpec("output", "float32", ("N",)),),
    )
    rows = Rows({"count": np.arange(5, dtype=np.int32), "flag": np.ones(5, bool)})
    probes = {p.name: p for p in rows_made_to_hurt(rows, signature)}
    ends = probes["largest integers in count"]
    assert ends.rows.columns["count"].tolist() == [2**31 - 1, -(2**31)]
    assert not ends.gate
    flags = probes["true and false everywhere in flag"]
    assert flags.rows.columns["flag"].tolist() == [True, False]


def test_whatever_a_framework_raises_is_a_refusal() -> None:
    class Table(Scores):
        def predict(self, rows: Rows) -> dict[str, np.ndarray]:
            if (rows.columns["input"] > 5).any():
                raise IndexError("index 9 is out of bounds")
            return super().predict(rows)

    probe = Probe("large", Rows({"input": np.asarray([[1.0, 1.0], [9.0, 0.0]])}))
    answer = ask(Table(), probe)  # type: ignore[arg-type]
    assert answer.refused.tolist() == [1]
    assert answer.refusal == "IndexError: index 9 is out of bounds"


def test_no_rows_at_all_are_reported_only(wine: Any) -> None:
    x, y = wine
    artifact = convert_model(fit(LogisticRegression(max_iter=50), x, y), x)
    probe = probe_named(artifact, "no rows")
    assert not probe["gate"]
    session = onnxruntime.InferenceSession(
        artifact.files["model/model.onnx"], providers=["CPUExecutionProvider"]
    )
    try:
        answers = session.run(None, {"input": x[:0].astype(np.float32)})
    except Exception:
        assert not probe["passed"]
    else:
        assert probe["passed"] is all(len(answer) == 0 for answer in answers)


def test_a_class_that_becomes_the_best_is_a_flip() -> None:
    class Two:
        signature = Signature(
            (TensorSpec("input", "float32", ("N", 2)),),
            (TensorSpec("scores", "float32", ("N", 2)),),
        )

        def predict(self, rows: Rows) -> dict[str, np.ndarray]:
            return {"scores": rows.columns["input"]}

        def run(self, inputs: Any) -> dict[str, np.ndarray]:
            return {"scores": inputs["input"] + np.asarray([0.5, 0.0], np.float32)}

    probe = Probe("near", Rows({"input": np.asarray([[1.0, 1.2], [3.0, 1.0]], np.float32)}))
    entry = judge(ask(Two(), probe), Two(), Two.signature, TOLERANCES["float32"])  # type: ignore[arg-type]
    assert entry["flips"] == 1
