"""Metrics against scikit-learn's, and what is compared when nothing is said."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from modelport.core.errors import InputError
from modelport.optimize.metrics import make_judge

RANDOM = np.random.default_rng(0)
SCORES = RANDOM.normal(size=(200, 4)).astype(np.float32)
LABELS = SCORES.argmax(axis=1)
OTHER = np.where(RANDOM.random(200) < 0.2, RANDOM.integers(0, 4, 200), LABELS)
ALL = np.arange(200)


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
    assert judge.score(judge.decide({"scores": SCORES}), ALL) == pytest.approx(
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
    assert judge.score(judge.decide({"label": found.astype(np.int64)}), ALL) == pytest.approx(
        function(truth, found)  # type: ignore[operator]
    )


def test_text_labels_are_compared_as_text() -> None:
    names = np.asarray(["cat", "dog", "cow", "owl"], dtype=object)
    judge = make_judge("", {"label": names[LABELS]}, names[OTHER], "classification")
    assert judge.name == "accuracy"
    assert judge.score(judge.decide({"label": names[LABELS]}), ALL) == np.mean(LABELS == OTHER)


def test_numbers_in_units_of_the_originals_error() -> None:
    truth = RANDOM.normal(size=200)
    original = {"y": (truth + 0.1).astype(np.float32).reshape(-1, 1)}
    judge = make_judge("", original, truth, "regression")
    assert judge.name == "rmse"
    assert judge.score(judge.decide(original), ALL) == pytest.approx(-1)
    worse = {"y": (truth + 0.11).astype(np.float32).reshape(-1, 1)}
    assert judge.score(judge.decide(worse), ALL) == pytest.approx(-1.1, rel=1e-4)


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
    rows = np.arange(len(next(iter(answers.values()))))
    assert judge.score(judge.decide(answers), rows) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [
        ("auc", LABELS, "not a metric: 'auc'"),
        ("f1", None, "f1 needs labels"),
        ("accuracy", LABELS + 100, "the target holds"),
        ("cosine", LABELS, "cosine compares with the original"),
        ("no_such_module:f", LABELS, "cannot import the metric"),
        ("math:sqrt", None, "needs labels"),
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
    assert judge.score(judge.decide({"scores": SCORES}), ALL) == np.mean(LABELS == OTHER)
