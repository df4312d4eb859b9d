"""Fewer trees, fewer splits, and what can go without changing an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightgbm import LGBMClassifier
from onnx import helper
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from xgboost import XGBClassifier, XGBRegressor

from modelport.core.errors import UnsupportedError
from modelport.optimize.classic.ensemble import LEAF, LEQ, OPERATORS, Ensemble
from modelport.optimize.classic.lossless import (
    simplified,
    with_equal_trees_added,
    without_equal_sides,
    without_unreachable,
)
from modelport.optimize.classic.narrow import rounded_down
from modelport.optimize.classic.shrink import first_trees, refitted, round_size, seen_by
from modelport.optimize.classic.tree_nodes import read, write
from modelport.optimize.passes.trees import TreesPass
from tests.optimize.tables import (
    Packed,
    agreement,
    largest,
    node_of,
    numbers,
    packed,
    ten_classes,
    two_classes,
)

CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "xgboost": lambda: XGBClassifier(n_estimators=40, max_depth=4, n_jobs=1),
    "lightgbm": lambda: LGBMClassifier(n_estimators=40, num_leaves=12, n_jobs=1, verbose=-1),
    "forest": lambda: RandomForestClassifier(20, max_depth=7, random_state=0),
    "extra": lambda: ExtraTreesClassifier(20, max_depth=7, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=30, random_state=0),
    "histogram": lambda: HistGradientBoostingClassifier(max_iter=30, random_state=0),
}


@pytest.fixture(scope="module", params=CLASSIFIERS)
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    rows, labels = two_classes()
    model = CLASSIFIERS[request.param]().fit(rows[:1500], labels[:1500])
    return packed(model, rows[1500:], tmp_path_factory.mktemp("trees"))


def test_every_library_gets_a_ladder(classifier: Packed) -> None:
    found = classifier.variants(TreesPass())
    sizes = [len(content) for content in found.values()]
    assert len(found) >= 6
    assert min(sizes) < 0.2 * len(classifier.model)
    scores = {n: agreement(classifier.expected, classifier.answers(c)) for n, c in found.items()}
    if "same answers" in found:
        assert scores["same answers"] == 1.0
        same = classifier.answers(found["same answers"])
        assert largest(classifier.expected, same, "probabilities") < 1e-5
    half = next(name for name in found if name.startswith("50%"))
    assert scores[half] > 0.95
    assert scores[next(name for name in found if " of " in name)] > 0.95


def test_probabilities_of_fewer_trees_still_add_up(classifier: Packed) -> None:
    for content in classifier.variants(TreesPass()).values():
        shares = classifier.answers(content)["probabilities"]
        assert (shares >= 0).all()
        np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-4)


def test_whole_rounds_of_boosting_stay_together(tmp_path: Path) -> None:
    rows, labels = ten_classes()
    model = XGBClassifier(n_estimators=12, max_depth=3, n_jobs=1).fit(rows[:900], labels[:900])
    pack = packed(model, rows[900:], tmp_path)
    assert round_size(read(node_of(pack.model, *OPERATORS))) == 10
    found = pack.variants(TreesPass())
    kept = [int(name.partition(" ")[0]) for name in found if " of 120" in name]
    assert kept
    assert all(count % 10 == 0 for count in kept)
    best = next(name for name in found if " of 120" in name)
    assert agreement(pack.expected, pack.answers(found[best])) > 0.95


@pytest.mark.parametrize("library", ["xgboost", "forest"])
def test_regressors_keep_their_scale(library: str, tmp_path: Path) -> None:
    rows, targets = numbers()
    model = (
        XGBRegressor(n_estimators=60, max_depth=4, n_jobs=1)
        if library == "xgboost"
        else RandomForestRegressor(30, max_depth=8, random_state=0)
    )
    pack = packed(model.fit(rows[:1000], targets[:1000]), rows[1000:], tmp_path)
    found = pack.variants(TreesPass())
    expected = pack.expected["prediction"]
    for name in [name for name in found if " of " in name][:2]:
        error = pack.answers(found[name])["prediction"] - expected
        assert np.mean(error**2) < 0.05 * np.var(expected)


def test_refitted_votes_are_closer_than_a_bare_prefix(tmp_path: Path) -> None:
    rows, labels = two_classes()
    model = XGBClassifier(n_estimators=60, max_depth=4, n_jobs=1).fit(rows[:1500], labels[:1500])
    whole = read(node_of(packed(model, rows[1500:], tmp_path).model, *OPERATORS))
    given, held = seen_by(whole, rows[1500:2300]), seen_by(whole, rows[2300:])
    bare = first_trees(whole, 20)
    better = refitted(bare, given)
    errors = [np.mean((seen_by(e, rows[2300:]).target - held.target) ** 2) for e in (bare, better)]
    assert errors[1] < 0.6 * errors[0]


def test_float64_trees_become_float32(tmp_path: Path) -> None:
    rows, labels = two_classes()
    model = LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1).fit(rows[:1500], labels[:1500])
    pack = packed(model, rows[1500:], tmp_path)
    content = pack.variants(TreesPass())["all"]
    assert len(content) < 0.85 * len(pack.model)
    assert agreement(pack.expected, pack.answers(content)) == 1.0
    assert largest(pack.expected, pack.answers(content), "probabilities") < 1e-6


def test_rounded_thresholds_send_no_float32_another_way() -> None:
    exact = np.random.default_rng(0).normal(size=1000)
    narrow = rounded_down(exact)
    assert (narrow <= exact).all()
    for x in (narrow, np.nextafter(narrow, np.float32(np.inf))):
        np.testing.assert_array_equal(x <= narrow, x.astype(np.float64) <= exact)


def _tree(**changes: Any) -> Ensemble:
    """x0 <= 1 ? (x0 <= 2 ? 5 : 6) : (x1 <= 0 ? 7 : 7); NaN goes right."""
    leaf = np.array([0, 0, 0, 1, 1, 1, 1], dtype=bool)
    votes = np.array([0, 0, 0, 5, 6, 7, 7], dtype=float)[:, np.newaxis]
    fields: dict[str, Any] = {
        "tree": np.zeros(7, dtype=np.int64),
        "mode": np.where(leaf, LEAF, LEQ).astype(np.uint8),
        "feature": np.array([0, 0, 1, 0, 0, 0, 0]),
        "threshold": np.array([1.0, 2.0, 0.0, 0, 0, 0, 0]),
        "left": np.array([1, 3, 5, -1, -1, -1, -1]),
        "right": np.array([2, 4, 6, -1, -1, -1, -1]),
        "missing_left": np.zeros(7, dtype=bool),
        "votes": votes,
        "voted": leaf[:, np.newaxis],
    }
    return Ensemble(**{**fields, **changes})


_ROWS = np.array([[0.5, 1], [1.5, -1], [3, 2], [np.nan, 0], [0, np.nan]], dtype=np.float32)


def _sums(ensemble: Ensemble) -> list[float]:
    return list(ensemble.votes[ensemble.leaves_of(_ROWS), 0].sum(axis=1))


def test_what_an_ancestor_has_decided_goes() -> None:
    tree = _tree()
    left = without_unreachable(tree)
    assert len(left.mode) == 5
    assert _sums(left) == _sums(tree)


def test_nan_may_still_reach_a_branch() -> None:
    # NaN goes left at the root, and right below it: the "decided" comparison decides for NaN.
    tree = _tree(missing_left=np.array([1, 0, 0, 0, 0, 0, 0], dtype=bool))
    left = without_unreachable(tree)
    assert len(left.mode) == 7
    assert _sums(left) == _sums(tree)


def test_sides_that_answer_the_same_go() -> None:
    tree = _tree()
    left = without_equal_sides(tree)
    assert len(left.mode) == 5
    assert _sums(left) == _sums(tree)
    assert len(simplified(tree).mode) == 3


def test_trees_with_the_same_comparisons_are_added() -> None:
    tree = _tree()
    twice = replace(
        tree,
        tree=np.repeat([0, 1], 7),
        left=np.concatenate([tree.left, np.where(tree.left < 0, -1, tree.left + 7)]),
        right=np.concatenate([tree.right, np.where(tree.right < 0, -1, tree.right + 7)]),
        **{
            name: np.concatenate([getattr(tree, name)] * 2)
            for name in ("mode", "feature", "threshold", "missing_left", "votes", "voted")
        },
    )
    added = with_equal_trees_added(twice)
    assert (added.trees, len(added.mode)) == (1, 7)
    assert _sums(added) == _sums(twice) == [2 * v for v in _sums(tree)]


def test_nodes_are_written_as_they_were_read(classifier: Packed) -> None:
    node = node_of(classifier.model, *OPERATORS)
    before = read(node)
    write(node, before)
    after = read(node)
    for name in ("tree", "mode", "feature", "threshold", "left", "right", "votes", "voted"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name), err_msg=name)


def test_shared_branches_are_refused() -> None:
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1,
        nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[0, 1, 0],
        nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"], nodes_values=[1.0, 2.0, 0.0],
        nodes_truenodeids=[2, 2, 0], nodes_falsenodeids=[1, 2, 0],
        target_ids=[0], target_nodeids=[2], target_treeids=[0], target_weights=[1.0],
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="share branches"):
        read(node)


def test_a_linear_model_is_refused(tmp_path: Path) -> None:
    rows, labels = two_classes()
    model = LogisticRegression().fit(rows[:500], labels[:500])
    assert TreesPass().refuses(packed(model, rows[500:900], tmp_path).subject) == "no trees"
