"""Small trees and linear models taught by a larger one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from modelport.optimize.base import Subject
from modelport.optimize.onnx_graph import parse
from modelport.optimize.passes import student
from modelport.optimize.passes.student import StudentPass
from tests.optimize.subjects import subject
from tests.optimize.tables import Packed, agreement, numbers, packed, ten_classes, two_classes


def _signature(content: bytes) -> list[tuple[str, bytes]]:
    graph = parse(content).graph
    return [(v.name, v.type.SerializeToString()) for v in (*graph.input, *graph.output)]


def _checked(pack: Packed) -> dict[str, bytes]:
    found = pack.variants(StudentPass())
    assert found
    for content in found.values():
        assert _signature(content) == _signature(pack.model)
        answers = pack.answers(content)
        assert {n: (a.dtype, a.shape) for n, a in answers.items()} == {
            n: (a.dtype, a.shape) for n, a in pack.expected.items()
        }
    return found


@pytest.mark.parametrize("labels_are", ["numbers", "words"])
def test_of_a_forest_of_two_labels(labels_are: str, tmp_path: Path) -> None:
    rows, labels = two_classes()
    given = labels if labels_are == "numbers" else np.where(labels == 1, "yes", "no")
    model = RandomForestClassifier(60, random_state=0).fit(rows[:1500], given[:1500])
    pack = packed(model, rows[1500:], tmp_path)
    found = _checked(pack)
    best = next(iter(found.values()))
    assert len(best) < 0.35 * len(pack.model)
    assert agreement(pack.expected, pack.answers(best)) > 0.9
    shares = pack.answers(best)["probabilities"]
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-5)
    named = np.where(shares[:, 1] > 0.5, *(("yes", "no") if labels_are == "words" else (1, 0)))
    assert np.mean(named == pack.answers(best)["label"]) > 0.999


def test_of_neighbours_with_many_labels(tmp_path: Path) -> None:
    rows, labels = ten_classes()
    pack = packed(KNeighborsClassifier().fit(rows[:900], labels[:900]), rows[1300:], tmp_path)
    found = _checked(pack)
    assert max(agreement(pack.expected, pack.answers(c)) for c in found.values()) > 0.75
    assert not any(name.startswith("200 trees") for name in found)  # would be larger than it


def test_of_a_margin(tmp_path: Path) -> None:
    rows, labels = two_classes()
    pack = packed(SVC().fit(rows[:1500], labels[:1500]), rows[1500:], tmp_path)
    assert max(agreement(pack.expected, pack.answers(c)) for c in _checked(pack).values()) > 0.9


def test_of_a_regression(tmp_path: Path) -> None:
    rows, targets = numbers()
    model = RandomForestRegressor(60, random_state=0).fit(rows[:1000], targets[:1000])
    pack = packed(model, rows[1000:], tmp_path)
    expected = pack.expected["prediction"]
    errors = [
        np.mean((pack.answers(content)["prediction"] - expected) ** 2) / np.var(expected)
        for content in _checked(pack).values()
    ]
    assert min(errors) < 0.1


def test_the_same_rows_give_the_same_students(tmp_path: Path) -> None:
    rows, labels = two_classes()
    model = RandomForestClassifier(20, random_state=0).fit(rows[:1500], labels[:1500])
    pack = packed(model, rows[2400:], tmp_path)
    assert pack.variants(StudentPass()) == pack.variants(StudentPass())


def _few(subject: Subject, count: int) -> Subject:
    return replace(
        subject,
        rows={name: array[:count] for name, array in subject.rows.items()},
        answers={name: array[:count] for name, array in subject.answers.items()},
    )


def test_refusals_say_why(tmp_path: Path) -> None:
    rows, labels = two_classes()
    pack = packed(LogisticRegression().fit(rows[:500], labels[:500]), rows[500:900], tmp_path)
    assert "too few" in StudentPass().refuses(_few(pack.subject, 40))
    texts = np.array(["good film", "bad film"] * 60, dtype=object)
    model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, np.arange(120) % 2)
    pack = packed(model, texts, tmp_path / "texts")
    assert StudentPass().refuses(pack.subject) == "students take tables of numbers only"
    tokens = subject(_words(), {"tokens": np.tile(np.arange(5), (80, 1))})
    assert "places in a table, such as tokens" in StudentPass().refuses(tokens)


def _words() -> bytes:
    """The mean of looked-up vectors."""
    table = numpy_helper.from_array(np.ones((9, 4), dtype=np.float32), "table")
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["vectors"]),
        helper.make_node("ReduceMean", ["vectors"], ["y"], axes=[1], keepdims=0),
    ]
    given = helper.make_tensor_value_info("tokens", onnx.TensorProto.INT64, ["N", 5])
    answer = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4])
    made = helper.make_graph(nodes, "words", [given], [answer], [table])
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()


def test_a_label_that_no_row_has_is_told(tmp_path: Path) -> None:
    rows, labels = two_classes()
    model = RandomForestClassifier(20, random_state=0).fit(rows[:1500], labels[:1500])
    pack = packed(model, rows[2400:], tmp_path)
    ones = pack.subject.answers["label"] == 1
    some = replace(
        pack.subject,
        rows={name: array[ones] for name, array in pack.subject.rows.items()},
        answers={name: array[ones] for name, array in pack.subject.answers.items()},
    )
    assert "none of the rows has its label number 0" in StudentPass().refuses(some)


def test_large_models_are_not_loaded_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, labels = two_classes()
    model = RandomForestClassifier(20, random_state=0).fit(rows[:1500], labels[:1500])
    pack = packed(model, rows[1500:], tmp_path)
    monkeypatch.setattr(student, "_MOST_ASKED", 1000)
    monkeypatch.setattr(student, "Probe", None)
    assert StudentPass().refuses(pack.subject) == ""
    assert list(StudentPass().variants(pack.subject, lambda _: None))


def test_learning_that_would_take_too_long_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, labels = two_classes()
    model = RandomForestClassifier(60, random_state=0).fit(rows[:1500], labels[:1500])
    pack = packed(model, rows[2400:], tmp_path)
    monkeypatch.setattr(student, "_MOST_WORK", 1000)
    assert list(_checked(pack)) == ["linear"]
