"""Linear models and support vector machines with less in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from modelport.core.errors import UnsupportedError
from modelport.optimize.classic import fewer_vectors
from modelport.optimize.classic.fewer_vectors import representatives
from modelport.optimize.classic.support import Machine, merged, read
from modelport.optimize.passes.linear import LinearPass
from tests.optimize.tables import (
    agreement,
    attribute,
    largest,
    node_of,
    numbers,
    packed,
    ten_classes,
    two_classes,
)


def test_a_linear_kernel_needs_one_vector_for_each_class(tmp_path: Path) -> None:
    rows, labels = two_classes()
    model = SVC(kernel="linear", C=0.1).fit(rows[:1000], labels[:1000])
    pack = packed(model, rows[1000:], tmp_path)
    content = pack.variants(LinearPass())["same answers"]
    assert attribute(node_of(content, "SVMClassifier"), "vectors_per_class") == [1, 1]
    assert len(content) < 0.1 * len(pack.model)
    assert agreement(pack.expected, pack.answers(content)) > 0.999
    assert largest(pack.expected, pack.answers(content), "scores") < 1e-3


def test_a_linear_kernel_with_many_classes(tmp_path: Path) -> None:
    rows, labels = ten_classes()
    model = SVC(kernel="linear", C=0.001).fit(rows[:900], labels[:900])
    pack = packed(model, rows[900:], tmp_path)
    content = pack.variants(LinearPass())["same answers"]
    assert attribute(node_of(content, "SVMClassifier"), "vectors_per_class") == [9] * 10
    assert agreement(pack.expected, pack.answers(content)) == 1.0


def test_fewer_vectors_of_a_classifier(tmp_path: Path) -> None:
    rows, labels = ten_classes()
    pack = packed(SVC().fit(rows[:900], labels[:900]), rows[900:], tmp_path)
    found = pack.variants(LinearPass())
    ladder = [name for name in found if " vectors" in name]
    assert len(ladder) >= 3
    half = found[ladder[0]]
    assert len(half) < 0.6 * len(pack.model)
    assert agreement(pack.expected, pack.answers(half)) > 0.98


def test_fewer_vectors_of_a_regression(tmp_path: Path) -> None:
    rows, targets = numbers()
    model = SVR(C=10.0).fit(rows[:800], targets[:800])
    pack = packed(model, rows[1000:], tmp_path)
    found = pack.variants(LinearPass())
    name = next(name for name in found if " vectors" in name)
    error = pack.answers(found[name])["prediction"] - pack.expected["prediction"]
    assert np.mean(error**2) < 0.01 * np.var(pack.expected["prediction"])


def test_equal_vectors_are_counted_once() -> None:
    machine = Machine(
        vectors=np.array([[1.0, 2], [1, 2], [3, 4], [5, 6]]),
        coefficients=np.array([[0.5, 0.25, 0.0, -1.0]]),
        offsets=np.zeros(1),
        classes=np.array([0, 0, 0, 1]),
        kernel="RBF",
        gamma=0.1,
        constant=0.0,
        degree=3.0,
    )
    left = merged(machine)
    assert left.vectors.tolist() == [[1, 2], [5, 6]]
    assert left.coefficients.tolist() == [[0.75, -1.0]]
    rows = np.random.default_rng(0).normal(size=(20, 2))
    np.testing.assert_allclose(left.decisions(rows), machine.decisions(rows))
    assert set(left.classes[representatives(left)]) == {0, 1}


def test_decisions_are_those_of_the_source(tmp_path: Path) -> None:
    rows, labels = ten_classes()
    model = SVC(decision_function_shape="ovo").fit(rows[:600], labels[:600])
    pack = packed(model, rows[600:900], tmp_path)
    found = read(node_of(pack.model, "SVMClassifier")).decisions(rows[600:900].astype(float))
    np.testing.assert_allclose(found, model.decision_function(rows[600:900]), atol=1e-3)


def test_two_labels_need_one_row_of_weights(tmp_path: Path) -> None:
    rows, labels = two_classes()
    pack = packed(LogisticRegression().fit(rows[:900], labels[:900]), rows[900:], tmp_path)
    content = pack.variants(LinearPass())["same answers"]
    assert len(attribute(node_of(content, "LinearClassifier"), "coefficients")) == 12
    assert agreement(pack.expected, pack.answers(content)) == 1.0
    assert largest(pack.expected, pack.answers(content), "probabilities") < 1e-6


def test_fewer_columns_are_refitted(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(2000, 300)).astype(np.float32)
    labels = (rows[:, :10].sum(axis=1) + 0.3 * random.normal(size=2000) > 0).astype(int)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    pack = packed(model.fit(rows[:1000], labels[:1000]), rows[1000:], tmp_path)
    found = pack.variants(LinearPass())
    content = found["10% of the columns"]
    assert len(content) < 0.5 * len(pack.model)
    assert agreement(pack.expected, pack.answers(content)) > 0.85
    assert agreement(pack.expected, pack.answers(found["50% of the columns"])) > 0.93


@pytest.mark.parametrize("kernel", ["poly", "sigmoid"])
def test_other_kernels(kernel: str, tmp_path: Path) -> None:
    rows, labels = two_classes()
    model = make_pipeline(StandardScaler(), SVC(kernel=kernel)).fit(rows[:800], labels[:800])
    pack = packed(model, rows[800:], tmp_path)
    found = pack.variants(LinearPass())
    name = next(name for name in found if " vectors" in name)
    assert agreement(pack.expected, pack.answers(found[name])) > 0.9


def test_what_is_small_already_is_told(tmp_path: Path) -> None:
    rows, targets = numbers()
    pack = packed(Ridge().fit(rows[:500], targets[:500]), rows[500:900], tmp_path)
    with pytest.raises(UnsupportedError, match="fewer than 64 columns"):
        list(LinearPass().variants(pack.subject, lambda _: None))


def test_too_many_vectors_are_refused_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fewer_vectors, "_MOST_VECTORS", 3)
    machine = Machine(
        vectors=np.eye(4), coefficients=np.ones((1, 4)), offsets=np.zeros(1),
        classes=np.zeros(4, dtype=int), kernel="RBF", gamma=0.1, constant=0.0, degree=3.0,
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"4 support vectors .* at most 3"):
        representatives(machine)
