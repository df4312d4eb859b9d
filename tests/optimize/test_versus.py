"""Two packages on the same rows: who is right where, and which rows differ most."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.tree import DecisionTreeClassifier

from modelport import api
from modelport.api.side_by_side import compare
from modelport.core.errors import InputError
from modelport.core.package import Package
from modelport.core.tensors import Array

RANDOM = np.random.default_rng(0)
COLUMNS = ["age", "income", "visits", "a", "b", "c"]
ROWS = RANDOM.normal(size=(600, 3))
LABELS = np.where(ROWS[:, 0] + 0.3 * ROWS[:, 1] + 0.3 * RANDOM.normal(size=600) > 0, "yes", "no")


def frame(rows: Array) -> pd.DataFrame:
    return pd.DataFrame(rows.astype(np.float32), columns=COLUMNS[: rows.shape[1]])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Package]:
    folder = tmp_path_factory.mktemp("models")
    three, six = frame(ROWS[:200]), frame(np.hstack([ROWS, ROWS])[:200])
    letters = np.where(LABELS == "no", "a", "b")
    made = {
        "linear": LogisticRegression().fit(three, LABELS[:200]),
        "tree": DecisionTreeClassifier(max_depth=2, random_state=0).fit(three, LABELS[:200]),
        "price": Ridge().fit(three, ROWS[:200, 0] * 3),
        "other": LogisticRegression().fit(three, letters[:200]),
        "wide": LogisticRegression().fit(six, LABELS[:200]),
    }
    return {
        name: api.pack(model, name, sample=six.iloc[:32, : model.n_features_in_], out=folder)
        for name, model in made.items()
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.json"
    rows = [
        {**{name: float(value) for name, value in zip(COLUMNS, row, strict=False)}, "bought": label}
        for row, label in zip(ROWS[200:].astype(np.float32), LABELS[200:].tolist(), strict=True)
    ]
    path.write_text(json.dumps(rows))
    return path


def test_who_is_right_where_the_other_is_not(models: dict[str, Package], data: Path) -> None:
    found = compare(str(models["linear"].path), str(models["tree"].path), data, target="bought")
    rows = {"input": ROWS[200:].astype(np.float32)}
    one, other = (
        np.asarray(api.predict(models[name].path, rows)["label"]) for name in ("linear", "tree")
    )
    right = LABELS[200:]
    assert found.rows == 400
    assert found.metric == "accuracy"
    assert found.first.metric == pytest.approx(np.mean(one == right))
    assert found.second.metric == pytest.approx(np.mean(other == right))
    assert found.only_first == np.sum((one == right) & (other != right))
    assert found.only_second == np.sum((other == right) & (one != right))
    assert found.flips is not None
    assert {(flip.first, flip.second): flip.rows for flip in found.flips} == {
        pair: int(np.sum((one == pair[0]) & (other == pair[1])))
        for pair in (("yes", "no"), ("no", "yes"))
    }
    assert found.second.single is not None
    assert found.second.bulk is not None


def test_rows_that_differ_most_come_first_and_are_shown(
    models: dict[str, Package], data: Path
) -> None:
    found = compare(str(models["linear"].path), str(models["tree"].path), data, target="bought")
    errors = [item.error for item in found.differences]
    assert errors == sorted(errors, reverse=True)
    worst = found.differences[0]
    assert worst.first != worst.second
    shown = [float(value) for value in worst.inputs.values()]
    assert shown == pytest.approx(ROWS[200 + worst.row], rel=1e-4)


def test_numbers_have_no_flips(models: dict[str, Package], data: Path) -> None:
    path = str(models["price"].path)
    found = compare(path, path, data, target="age")
    assert found.flips is None
    assert found.only_first is None
    assert found.differences == ()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("price", "A answers labels and B numbers: they cannot be compared"),
        ("other", "their labels have nothing in common"),
        ("wide", r"wide: columns are missing: a, b, c"),
    ],
)
def test_models_that_answer_or_take_something_else_are_refused(
    models: dict[str, Package], data: Path, other: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        compare(str(models["linear"].path), str(models[other].path), data)
