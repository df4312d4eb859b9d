"""Metrics against scikit-learn's, and what is compared when nothing is said."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference

from modelport.core.errors import InputError
from modelport.core.tensors import Array
from modelport.optimize.metrics import make_judge

RANDOM = np.random.default_rng(0)
SCORES = RANDOM.normal(size=(200, 4)).astype(np.float32)
LABELS = SCORES.argmax(axis=1)
OTHER = np.where(RANDOM.random(200) < 0.2, RANDOM.integers(0, 4, 200), LABELS)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("accuracy", reference.accuracy_score),
        ("f1", lambda a, b: reference.f1_score(a, b, average="macro")),
        ("recall", lambda a, b: reference.recall_score(a, b, average="macro")),
    ],
)
def test_labels_as_scikit_learn_counts_them(name: str, function: object) -> None:
    judge = make_judge(name, {"scores": SCORES}, OTHER, "unknown")
    assert judge.score(judge.decide({"scores": SCORES})) == pytest.approx(
        function(OTHER, LABELS)  # type: ignore[operator]
    )


@pytest.mark.parametrize(
    ("name", "function"), [("f1", reference.f1_score), ("recall", reference.recall_score)]
)
def test_of_two_labels_the_second_one_counts(name: str, function: object) -> None:
    truth, found = OTHER > 1, LABELS > 1
    judge = make_judge(
        name, {"label": found.astype(np.int64)}, truth.astype(np.int64), "classification"
    )
    assert judge.score(judge.decide({"label": found.astype(np.int64)})) == pytest.approx(
        function(truth, found)  # type: ignore[operator]
    )


def test_text_labels_are_compared_as_text() -> None:
    names = np.asarray(["cat", "dog", "cow", "owl"], dtype=object)
    judge = make_judge("", {"label": names[LABELS]}, names[OTHER], "classification")
    assert judge.name == "accuracy"
    assert judge.score(judge.decide({"label": names[LABELS]})) == np.mean(LABELS == OTHER)


def test_numbers_in_units_of_the_originals_error() -> None:
    truth = RANDOM.normal(size=200)
    original = {"y": (truth + 0.1).astype(np.float32).reshape(-1, 1)}
    judge = make_judge("", original, truth, "regression")
    assert judge.name == "rmse (1 is 0.1)"
    assert judge.score(judge.decide(original)) == pytest.approx(-1)
    worse = {"y": (truth + 0.11).astype(np.float32).reshape(-1, 1)}
    assert judge.score(judge.decide(worse)) == pytest.approx(-1.1, rel=1e-4)


@pytest.mark.parametrize(
    ("answers", "task", "title"),
    [
        ({"label": LABELS}, "classification", "agreement (same label)"),
        ({"scores": SCORES}, "unknown", "agreement (same label)"),
        ({"y": SCORES[:, :1]}, "regression", "agreement (R²)"),
        ({"y": SCORES[:, 0]}, "unknown", "agreement (R²)"),
        ({"v": SCORES / np.linalg.norm(SCORES, axis=1, keepdims=True)}, "unknown",
         "agreement (mean cosine)"),
        ({"hidden": SCORES.reshape(50, 4, 4)}, "unknown", "agreement (mean cosine)"),
    ],
)  # fmt: skip
def test_without_a_target_the_original_is_right(answers: dict, task: str, title: str) -> None:  # type: ignore[type-arg]
    judge = make_judge("", answers, None, task)
    assert judge.name == title
    assert judge.score(judge.decide(answers)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [
        ("auc", LABELS, "not a metric: 'auc'"),
        ("f1", None, "f1 needs labels"),
        ("accuracy", LABELS + 100, "the target holds"),
        ("cosine", LABELS, "cosine compares with the original"),
        ("no_such_module:f", LABELS, "cannot import the metric"),
        ("math:sqrt", None, "needs labels"),
        ("math:pi", LABELS, "is no function"),
        ("", np.where(LABELS == 1, np.nan, LABELS), "rows have no right answer; the first is row"),
        ("", (LABELS + 1) % 4, "are in another order than the model's"),
        ("", np.eye(4)[LABELS] + 1, "4 values a row"),
    ],
)
def test_metrics_that_do_not_fit_are_refused(name: str, target: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_judge(name, {"scores": SCORES}, target, "unknown")  # type: ignore[arg-type]


def test_labels_of_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="accuracy is of labels"):
        make_judge("accuracy", {"y": SCORES[:, 0]}, LABELS, "regression")


def test_a_function_of_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    (tmp_path / "mine.py").write_text(  # type: ignore[operator]
        "def share(expected, answers):\n"
        "    return float((answers['scores'].argmax(1) == expected).mean())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    judge = make_judge("mine:share", {"scores": SCORES}, OTHER, "unknown")
    assert judge.score(judge.decide({"scores": SCORES})) == np.mean(LABELS == OTHER)


@pytest.mark.parametrize(
    "target",
    [
        LABELS.astype(np.float64),
        LABELS.astype(str).astype(object),
        np.asarray([f"{label}.0" for label in LABELS], dtype=object),
        np.eye(4, dtype=np.int64)[LABELS],
    ],
    ids=["float", "text", "text of floats", "one of four"],
)
def test_labels_mean_the_same_however_they_are_written(target: Array) -> None:
    judge = make_judge("", {"scores": SCORES}, target, "unknown")
    assert judge.score(judge.decide({"scores": SCORES})) == 1


@pytest.mark.parametrize("target", [LABELS, LABELS.astype(str).astype(object)])
def test_places_of_scores_do_where_the_models_labels_are_names(target: Array) -> None:
    answers = {"label": np.asarray([*"abcd"], dtype=object)[LABELS], "probabilities": SCORES}
    judge = make_judge("", answers, target, "classification")
    assert judge.score(judge.decide(answers)) == 1


def test_a_label_that_few_rows_have_is_compared_alike_everywhere() -> None:
    """Labels are numbers in these rows, and a variant answers text once."""
    numbers = np.asarray(["1", "2"] * 50, dtype=object)
    judge = make_judge("", {"label": numbers}, np.asarray([1, 2] * 50), "classification")
    one_other = numbers.copy()
    one_other[0] = "unknown"
    assert judge.score(judge.decide({"label": one_other})) == pytest.approx(0.99)


@pytest.mark.parametrize("target", [LABELS > 1, (LABELS > 1).astype(np.float64)])
def test_one_score_and_a_target_of_two_labels_are_a_classifier(target: Array) -> None:
    probability = np.where(LABELS > 1, 0.8, 0.3).astype(np.float32).reshape(-1, 1)
    judge = make_judge("", {"p": probability}, target, "unknown")
    assert judge.name == "accuracy"
    assert judge.score(judge.decide({"p": probability})) == 1
    # The threshold is the original's: a variant whose scores leave 0 to 1 does not move it.
    beyond = np.where(LABELS > 1, 1.1, -0.1).astype(np.float32).reshape(-1, 1)
    assert judge.score(judge.decide({"p": beyond})) == 1
    assert judge.score(judge.decide({"p": np.maximum(beyond, 0.3)})) == 1


def test_without_a_target_every_head_counts() -> None:
    heads = {"kind": SCORES, "colour": SCORES[:, :3]}
    judge = make_judge("", heads, None, "unknown")
    assert judge.name == "agreement (same labels)"
    spoiled = {**heads, "colour": -SCORES[:, :3]}
    assert judge.score(judge.decide(heads)) == 1
    assert judge.score(judge.decide(spoiled)) == 0
    hidden = {"scores": SCORES, "hidden": SCORES.reshape(200, 2, 2)}
    judge = make_judge("", hidden, None, "unknown")
    assert judge.name == "agreement (same label)"
    numbers = {"price": SCORES[:, :1], "age": SCORES[:, 1:2]}
    judge = make_judge("", numbers, None, "regression")
    spoiled = {**numbers, "age": np.zeros_like(numbers["age"])}
    assert judge.name == "agreement (R², the worst output)"
    assert judge.score(judge.decide(numbers)) == 1
    assert judge.score(judge.decide(spoiled)) < 0.1


def test_several_labels_a_row_all_have_to_be_the_same() -> None:
    answers = {"labels": np.stack([LABELS, OTHER], axis=1)}
    judge = make_judge("", answers, None, "classification")
    changed = {"labels": np.stack([LABELS, (OTHER + 1) % 4], axis=1)}
    assert judge.score(judge.decide(changed)) == 0
    with pytest.raises(InputError, match="1 labels a row and the original 2"):
        judge.decide({"labels": LABELS})


@pytest.mark.parametrize(
    ("name", "target"), [("r2", np.ones(200)), ("", None), ("rmse", None)],
)  # fmt: skip
def test_what_never_changes_tells_nothing(name: str, target: Array | None) -> None:
    with pytest.raises(InputError, match="is the same for every row"):
        make_judge(name, {"y": np.ones((200, 1), dtype=np.float32)}, target, "regression")


def test_numbers_of_another_count_are_refused() -> None:
    with pytest.raises(InputError, match="holds 1 numbers a row, and the model answers 4"):
        make_judge("rmse", {"y": SCORES}, SCORES[:, 0], "regression")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('no')", "failed: KeyError: 'no'"),
        ("return 'good'", "failed: ValueError: could not convert"),
        ("return float('nan')", "the metric of its answers is nan"),
    ],
)
def test_a_function_of_the_users_own_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, said: str
) -> None:
    (tmp_path / "failing.py").write_text(f"def metric(expected, answers):\n    {body}\n")
    monkeypatch.chdir(tmp_path)  # found in the current folder, wherever modelport is installed
    monkeypatch.delitem(sys.modules, "failing", raising=False)
    judge = make_judge("failing:metric", {"scores": SCORES}, OTHER, "unknown")
    decided = judge.decide({"scores": SCORES})
    with pytest.raises(InputError, match=re.escape(said)):
        judge.loss(decided, decided, 0.01)
    assert str(tmp_path) not in sys.path


def test_a_variant_that_names_a_new_label_only_loses_its_rows() -> None:
    truth = np.asarray(["no", "yes"] * 50, dtype=object)
    judge = make_judge("f1", {"label": truth}, truth, "classification")
    assert judge.name == "f1 of yes"
    changed = truth.copy()
    changed[1] = "maybe"
    assert judge.score(judge.decide({"label": changed})) == pytest.approx(2 * 49 / 99)
