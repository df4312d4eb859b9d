"""Exports that answer something else are refused, with the place and both values."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelport.convert.base import Attempt
from modelport.convert.frameworks.sklearn.model import SklearnModel
from modelport.convert.proof.parity import (
    RowsVerdict,
    compare_rows,
    refuse_unsteady,
    serve_rows,
    tolerance_for,
)
from modelport.convert.stage import convert
from modelport.core.compare import TOLERANCES, Tolerance, compare
from modelport.core.digest import canonical_json
from modelport.core.errors import InputError, ParityError, UnsupportedError
from modelport.core.parity_report import describe_parity
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import TensorSpec

from .conftest import audit, convert_model, fit, load_data


@pytest.fixture(scope="module")
def line() -> tuple[Any, np.ndarray]:
    x, y = load_data("diabetes")
    return LinearRegression().fit(x, y), x


def _serve_instead(monkeypatch: pytest.MonkeyPatch, *models: Any) -> None:
    """Export other models than the source."""
    real = SklearnModel.attempts

    def attempts(self: SklearnModel, rows: Rows | None) -> list[Attempt]:
        return [
            replace(real(SklearnModel(model), rows)[0], name=f"wrong {i}")
            for i, model in enumerate(models)
        ]

    monkeypatch.setattr(SklearnModel, "attempts", attempts)


def test_swapped_weights_are_refused(line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = line
    swapped = copy.deepcopy(model)
    swapped.coef_[[0, 1]] = model.coef_[[1, 0]]
    _serve_instead(monkeypatch, swapped)
    with pytest.raises(ParityError) as caught:
        convert_model(model, x)
    message = str(caught.value)
    error = np.abs(model.predict(x.astype(np.float32)) - swapped.predict(x.astype(np.float32)))
    row = int((error / (9e-5 * np.abs(model.predict(x)) + 1e-6 * 300)).argmax())
    assert caught.value.exit_code == 3
    assert "wrong 0: differs: prediction: max error" in message
    assert f"at [{row}]: expected {str(model.predict(x)[row])[:7]}" in message
    assert f"got {str(np.float32(swapped.predict(x)[row]))[:5]}" in message
    assert "hint: " in message


def test_one_wrong_weight_in_the_last_place_that_matters(
    line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = line
    off = copy.deepcopy(model)
    off.coef_[3] *= 1.01
    _serve_instead(monkeypatch, off)
    with pytest.raises(ParityError):
        convert_model(model, x)


def test_swapped_labels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = load_data("wine")
    model = fit(RandomForestClassifier(5, random_state=0), x, y)
    relabelled = fit(RandomForestClassifier(5, random_state=0), x, (y + 1) % 3)
    _serve_instead(monkeypatch, relabelled)
    with pytest.raises(ParityError, match=r"label: 178 of 178 differ; at \[0\]: expected 0, got 1"):
        convert_model(model, x)


def test_the_first_right_attempt_is_kept(line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = line
    wrong = copy.deepcopy(model)
    wrong.intercept_ += 1.0
    _serve_instead(monkeypatch, wrong, model, model)
    artifact = convert_model(model, x)
    outcomes = [(a["name"], a["outcome"]) for a in artifact.parity["attempts"]]
    assert outcomes == [("wrong 0", "differs"), ("wrong 1", "kept")]
    assert artifact.provenance["attempt"] == "wrong 1"
    assert any(
        line.startswith("attempt wrong 0: differs") for line in describe_parity(artifact.parity)
    )


def test_exporters_that_fail_are_quoted(line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = line

    def fail() -> Any:
        raise RuntimeError("no such operator\nand a stack")

    attempts = [Attempt("first way", fail), Attempt("second way", fail)]
    monkeypatch.setattr(SklearnModel, "attempts", lambda self, rows: attempts)
    with pytest.raises(UnsupportedError, match=r"first way, second way.*RuntimeError: no such op"):
        convert_model(model, x)


def test_report_is_plain_and_readable() -> None:
    x, y = load_data("iris")
    model = fit(make_pipeline(StandardScaler(), LogisticRegression()), x, y)
    report = convert_model(model, x).parity
    canonical_json(report)
    assert set(report) == {
        "rows", "rows_are", "attempts", "outputs", "batches", "label_flips", "probes",
        "tolerance", "notes",
    }  # fmt: skip
    lines = describe_parity(report)
    assert lines[0] == "150 sample rows in batches of 1, 2, 7, 150: 0 label flips"
    assert any(line.startswith("probabilities: max error") for line in lines)
    assert any("next to" in line or "zeros" in line for line in lines)


def test_unnamed_dimensions_that_happen_to_fit(line: Any) -> None:
    model, x = line
    artifact = convert_model(model, Rows({"input": x}))
    named = convert_model(model, Rows({f"c{i}": x[:, i] for i in range(x.shape[1])}))
    assert artifact.files == named.files


class Averaging:
    """A model whose answers depend on the rest of the batch."""

    signature = Signature(
        (TensorSpec("input", "float32", ("N", 1)),), (TensorSpec("output", "float32", ("N", 1)),)
    )

    def __init__(self, weight: float) -> None:
        self._weight = weight

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        array = inputs["input"]
        return {"output": array + np.float32(self._weight) * array.mean(axis=0)}


@pytest.mark.parametrize(("weight", "independent"), [(0.0, True), (0.5, False)])
def test_rows_that_depend_on_each_other(weight: float, independent: bool) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    model = Averaging(weight)
    expected = model.run({"input": rows})
    verdict = compare_rows(model, model.signature, {"input": rows}, expected, Tolerance(1e-4, 1e-5))
    assert verdict.row_independent is independent
    assert verdict.agrees is independent


def test_many_rows_are_not_all_run_one_by_one() -> None:
    rows = np.arange(5000, dtype=np.float32).reshape(-1, 1)
    model = Averaging(0.0)
    verdict = compare_rows(
        model, model.signature, {"input": rows}, {"output": rows}, Tolerance(1e-4, 1e-5)
    )
    assert verdict.notes == [
        "batches of 1 were run on 1000 of 5000 rows",
        "batches of 2 were run on 2000 of 5000 rows",
    ]


def test_worst_element_is_named_by_its_row_in_the_sample() -> None:
    class FailsInSmallBatches(Averaging):
        def run(self, inputs: Any) -> dict[str, np.ndarray]:
            output = inputs["input"].copy()
            if len(output) == 2:
                output[output == 31] += 1
            return {"output": output}

    rows = np.arange(50, dtype=np.float32).reshape(-1, 1)
    model = FailsInSmallBatches(0.0)
    verdict = compare_rows(
        model, model.signature, {"input": rows}, {"output": rows}, Tolerance(1e-4, 1e-5)
    )
    assert verdict.outputs[0].worst == (31, 0)
    assert (verdict.outputs[0].expected, verdict.outputs[0].actual) == ("31.0", "32.0")
    assert not verdict.row_independent


def test_rounding_to_the_served_type_is_seen() -> None:
    signature = Averaging.signature
    exact = serve_rows(Rows({"": np.asarray([[0.5], [2.0]])}), signature)
    rounded = serve_rows(Rows({"": np.asarray([[0.1], [2.0]])}), signature)
    assert exact.exact
    assert not rounded.exact
    assert rounded.seen.columns["input"].dtype == np.float64
    assert rounded.seen.columns["input"][0, 0] == np.float64(np.float32(0.1))


def test_tolerance_follows_the_size_of_the_answers() -> None:
    signature = Averaging.signature
    base = TOLERANCES["float32"]
    assert tolerance_for(signature, {"output": np.asarray([[5.0]])}) == base
    assert tolerance_for(signature, {"output": np.asarray([[0.0]])}) == base
    small = tolerance_for(signature, {"output": np.asarray([[2e-6]])})
    assert small.absolute == pytest.approx(base.absolute * 2e-6)


def test_columns_of_different_size_have_their_own_scale() -> None:
    expected = np.column_stack([np.full(20, 1e6), np.full(20, 1.0)])
    actual = expected.copy()
    actual[7, 1] = 1.01
    (output,) = compare({"o": expected}, {"o": actual}, TOLERANCES["float32"])
    assert output.differing == 1
    assert output.worst == (7, 1)


def test_worst_is_measured_in_tolerances() -> None:
    expected = np.asarray([1e6, 1.0])
    actual = np.asarray([1e6 + 50, 1.0 + 40])  # the first error is larger, and allowed
    (output,) = compare({"o": expected}, {"o": actual}, Tolerance(1e-4, 1e-5))
    assert output.worst == (1,)


def test_regressions_are_held_to_one_in_ten_thousand() -> None:
    signature = Averaging.signature
    expected = np.linspace(10, 100, 20)[:, np.newaxis]
    tolerance = tolerance_for(signature, {"output": expected}, "regression")
    for factor, agrees in ((1 + 0.8e-4, True), (1 - 0.8e-4, True), (1 + 1.01e-4, False)):
        (output,) = compare({"output": expected}, {"output": expected * factor}, tolerance)
        assert output.agrees is agrees
        assert (output.differing == 0) is agrees
    # The rule for scores accepts twice as much of an answer that is a tenth of the largest.
    loose = tolerance_for(signature, {"output": expected}, "classification")
    actual = expected.copy()
    actual[0] *= 1.00019
    (output,) = compare({"output": expected}, {"output": actual}, loose)
    assert output.agrees


def test_a_widened_tolerance_excuses_no_label() -> None:
    expected = np.asarray([[0.500, 0.499], [0.9, 0.1]])
    actual = np.asarray([[0.499, 0.500], [0.9, 0.1]], dtype=np.float32)
    (output,) = compare({"o": expected}, {"o": actual}, Tolerance(1e-4, 1e-2))
    assert output.agrees
    assert (output.argmax_flips, output.ties) == (1, 0)
    verdict = RowsVerdict(2, [output], [], True, [], "classification")
    assert (verdict.label_flips, verdict.agrees) == (1, False)


def test_flips_of_the_best_class_are_counted() -> None:
    expected = np.asarray([[1.0, 2.0, 0.0], [5.0, 4.0, 0.0], [3.0, 3.00001, 0.0], [0.0, 1.0, 9.0]])
    actual = expected[:, [1, 0, 2]].astype(np.float32)
    (output,) = compare({"o": expected}, {"o": actual}, TOLERANCES["float32"])
    assert (output.argmax_flips, output.ties) == (2, 1)
    (same,) = compare({"o": expected}, {"o": expected}, TOLERANCES["float32"])
    assert (same.argmax_flips, same.ties) == (0, 0)


def test_classes_of_pixels_are_counted_where_probabilities_tell_the_axis() -> None:
    scores = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    wrong = shares[:, [1, 0, 2]]
    moved = int((shares.argmax(1) != wrong.argmax(1)).sum())
    assert moved > 10
    for axis in (1, -1):
        expected, actual = (np.moveaxis(array, 1, axis) for array in (shares, wrong))
        (output,) = compare({"o": expected}, {"o": actual}, TOLERANCES["float32"])
        assert output.argmax_flips == moved
    (output,) = compare({"o": scores}, {"o": scores[:, [1, 0, 2]]}, TOLERANCES["float32"])
    assert output.argmax_flips == 0  # nothing tells along which axis the classes stand


@pytest.mark.parametrize(
    ("task", "flips"), [("classification", 50), ("unknown", 50), ("regression", 0)]
)
def test_scores_count_as_labels_where_they_are_scores(task: str, flips: int) -> None:
    class Backwards:
        signature = Signature(
            (TensorSpec("input", "float32", ("N", 2)),),
            (TensorSpec("output", "float32", ("N", 2)),),
        )

        def run(self, inputs: Any) -> dict[str, np.ndarray]:
            return {"output": inputs["input"][:, ::-1]}

    rows = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    model = Backwards()
    verdict = compare_rows(
        model, model.signature, {"input": rows}, {"output": rows}, Tolerance(1e-4, 1e-5), task
    )
    assert verdict.label_flips == flips
    assert not verdict.agrees


class Dreaming:
    """A source model in training mode."""

    task = "unknown"

    def __init__(self) -> None:
        self._generator = np.random.default_rng(0)

    def predict(self, rows: Rows) -> dict[str, np.ndarray]:
        array = rows.columns["input"]
        return {"output": array * (self._generator.random(array.shape) > 0.5)}


def test_a_source_that_answers_otherwise_each_time_is_refused() -> None:
    rows = Rows({"input": np.ones((20, 3))})
    with pytest.raises(ParityError, match="differ from call to call: output at") as caught:
        refuse_unsteady(Dreaming(), rows)  # type: ignore[arg-type]
    assert "model.eval()" in caught.value.hint
    assert caught.value.exit_code == 3


def test_steady_sources_pass_and_fixed_batches_are_asked_whole(line: Any) -> None:
    model, x = line
    refuse_unsteady(SklearnModel(model), Rows({"": x}))

    class FixedBatch:
        task = "unknown"

        def predict(self, rows: Rows) -> dict[str, np.ndarray]:
            if len(rows) != 20:
                raise InputError("20 rows")
            return {"output": rows.columns["input"]}

    refuse_unsteady(FixedBatch(), Rows({"input": np.ones((20, 3))}))  # type: ignore[arg-type]


def test_load_times_are_told_and_not_kept(line: Any) -> None:
    model, x = line
    measured: dict[str, float] = {}
    lines: list[str] = []
    audited = audit(model)
    rows = Rows({"": x})
    artifact = convert(audited, rows, progress=lines.append, measure=measured.__setitem__)
    assert measured["load_ms"] > 0
    assert any(line.startswith("loads in ") for line in lines)
    assert "load_ms" not in str(artifact.parity)
    assert convert(audited, rows).parity == artifact.parity
