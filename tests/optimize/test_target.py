"""What a student learns from right answers, and when it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from modelport.core.errors import UnsupportedError
from modelport.optimize.passes.channels import ChannelsPass
from modelport.optimize.train.lesson import lesson_of
from modelport.optimize.train.losses import (
    NUMBERS,
    PROBABILITIES,
    SCORES,
    VECTORS,
    goals_of,
)
from modelport.optimize.train.target import UNKNOWN, target_of
from tests.optimize.networks import Network, answers, cnn, images, quiet, subject_of


def _linear(count: int, outputs: int = 3, seed: int = 0) -> tuple[bytes, dict[str, np.ndarray]]:
    network = Network(seed)
    model = network.model(network.dense(network.input("x", 4), 4, outputs))
    random = np.random.default_rng(1)
    return model, {"x": random.standard_normal((count, 4)).astype(np.float32)}


def _told(target: Any, task: str = "", outputs: int = 3) -> Any:
    model, rows = _linear(60, outputs)
    subject = subject_of(model, rows, task=task, target=np.asarray(target))
    return target_of(subject, goals_of(subject.answers, 60, task))


def _best(outputs: int = 3) -> np.ndarray:
    model, rows = _linear(60, outputs)
    (scores,) = answers(model, rows).values()
    return np.asarray(scores.argmax(axis=1))


@pytest.mark.parametrize("kind", [np.int64, np.float64, str])
def test_labels_are_places_of_scores_however_they_are_written(kind: type) -> None:
    best = _best()
    target, places = _told(best.astype(kind))
    assert np.array_equal(places, best)
    scores = torch.from_numpy(np.eye(3, dtype=np.float32)[best] * 20)
    assert float(target.loss({target.goal.name: scores}, torch.from_numpy(places))) < 1e-3
    assert target.score({target.goal.name: scores}, torch.from_numpy(places))[0] == 1


def test_the_models_own_labels_say_what_its_places_are_called() -> None:
    network = Network(0)
    scores = network.dense(network.input("x", 4), 4, 3)
    names = network.constant(np.array([7, 3, 5], dtype=np.int64))
    label = network.op("Gather", names, network.op("ArgMax", scores, axis=1, keepdims=0))
    model, (_, rows) = network.model(label, scores), _linear(60)
    found = answers(model, rows)
    subject = subject_of(model, rows, target=found[label].astype(str))
    target, places = target_of(subject, goals_of(subject.answers, 60))
    assert target.goal.name == scores
    assert np.array_equal(places, found[scores].argmax(axis=1))


def test_labels_that_are_no_places_are_left_alone_and_it_is_said() -> None:
    names = np.array(["cat", "dog", "owl"])[_best()]
    assert "labels like" in _told(names)
    assert "no places of scores" in _told(names)
    assert "in another order" in _told((_best() + 1) % 3)
    assert "worse than the mean" in _told(np.random.default_rng(0).random(60), outputs=1)
    assert "one score, and labels" in _told([0, 1] * 30, "classification", outputs=1)
    assert "another number of values" in _told(np.random.rand(60, 2), outputs=1)


def test_some_labels_may_be_unknown() -> None:
    best = _best().astype(object)
    best[:5] = "elephant"
    target, places = _told(best)
    assert (places[:5] == UNKNOWN).all()
    scores = {target.goal.name: torch.zeros(60, 3)}
    assert float(target.loss(scores, torch.from_numpy(places))) == pytest.approx(
        np.log(3), abs=1e-5
    )
    nothing = torch.full((60,), UNKNOWN)
    assert float(target.loss(scores, nothing)) == 0


def test_right_numbers_are_of_the_shape_of_the_answers() -> None:
    model, rows = _linear(60, 1)
    (numbers,) = answers(model, rows).values()
    target, right = _told(numbers[:, 0] + 0.1, outputs=1)
    assert right.shape == (60, 1)
    assert target.goal.kind == NUMBERS
    found = {target.goal.name: torch.from_numpy(numbers)}
    assert float(target.loss(found, torch.from_numpy(right))) == pytest.approx(
        0.01 / numbers.var(), rel=1e-3
    )
    right[:30] = np.nan  # rows that were made up
    assert float(target.loss(found, torch.from_numpy(right))) == pytest.approx(
        0.01 / numbers.var(), rel=1e-3
    )


def test_numbers_of_a_regression_are_no_scores() -> None:
    answer = {
        "y": np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32) * (1, 100, 1)
    }
    answer = {"y": answer["y"].astype(np.float32)}
    (goal,) = goals_of(answer, 40, "regression")
    assert goal.kind == NUMBERS
    assert np.allclose(goal.variance, answer["y"].var(axis=0), rtol=1e-4)
    assert [g.kind for g in goals_of(answer, 40, "classification")] == [SCORES]
    model, rows = _linear(60)
    (numbers,) = answers(model, rows).values()
    lesson = lesson_of(subject_of(model, rows, target=numbers + 0.01), cost=1)
    assert [goal.kind for goal in lesson.goals] == [NUMBERS]
    assert lesson.target is not None
    made = lesson.learned.right
    assert made is not None
    assert np.isnan(made[54:]).all()


def test_probabilities_are_recognised_before_vectors() -> None:
    sure = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    assert goals_of({"p": sure}, 4)[0].kind == PROBABILITIES
    assert goals_of({"v": -sure}, 4)[0].kind == VECTORS
    several = np.array([[0.9, 0.8], [0.1, 0.7]], dtype=np.float32)
    assert goals_of({"s": several}, 2)[0].kind == NUMBERS


def test_answers_that_hardly_differ_do_not_outweigh_all_others() -> None:
    same = np.full((20, 1), 5, dtype=np.float32)
    (goal,) = goals_of({"y": same}, 20)
    near = torch.full((20, 1), 5.005)
    assert float(goal.loss(near, torch.from_numpy(same))) == pytest.approx(1, rel=0.1)


def test_answers_that_are_no_numbers_are_counted() -> None:
    wrong = np.ones((20, 2), dtype=np.float32)
    wrong[3] = np.inf
    with pytest.raises(UnsupportedError, match="y is NaN or infinite on 1 of 20 rows"):
        goals_of({"y": wrong}, 20)


def test_the_pass_learns_right_answers_where_that_helps_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("modelport.optimize.train.recipe._MOST_STEPS", 60)
    rows = {"x": images(400)}
    right = next(iter(answers(cnn(), rows).values())).argmax(axis=1)
    said = {}
    for name, target in (("labels", right), ("texts", right.astype(str)), ("names", None)):
        given = np.array([f"class {label}" for label in right]) if target is None else target
        variant = next(ChannelsPass().variants(subject_of(cnn(), rows, target=given), quiet))
        said[name] = variant.detail["channels"]["target"]
    assert said["labels"].startswith(("learned from: accuracy", "not learned from: accuracy"))
    assert said["texts"] == said["labels"]
    assert said["names"].startswith("not learned from: labels like class")
    without = next(ChannelsPass().variants(subject_of(cnn(), rows), quiet))
    assert "target" not in without.detail["channels"]
