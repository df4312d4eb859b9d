"""Fewer trees, fewer splits, and what can go without changing an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from lightgbm import LGBMClassifier
from onnx import helper
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from xgboost import XGBClassifier, XGBRegressor

from modelport.core.errors import UnsupportedError
from modelport.optimize.classic import tree_nodes
from modelport.optimize.classic.ensemble import LEAF, LEQ, OPERATORS, Ensemble
from modelport.optimize.classic.lossless import (
    simplified,
    with_equal_trees_added,
    without_equal_sides,
    without_unreachable,
)
from modelport.optimize.classic.narrow import rounded_down
from modelport.optimize.classic.refit import refitted
from modelport.optimize.classic.shrink import are_shares, first_trees, round_size, seen_by
from modelport.optimize.classic.tree_nodes import decides_alike, read
from modelport.optimize.classic.tree_writer import write
from modelport.optimize.passes import trees
from modelport.optimize.passes.trees import TreesPass
from tests.optimize.tables import (
    Packed,
    agreement,
    largest,
    node_of,
    numbers,
    packed,
    run,
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


def test_leaves_that_are_looked_up_stay(tmp_path: Path) -> None:
    rows, _ = two_classes()
    pack = packed(IsolationForest(n_estimators=5, random_state=0).fit(rows), rows[:300], tmp_path)
    found = TreesPass().variants(pack.subject, lambda _: None)
    same = next(found)
    assert same.name == "trees, same answers"
    assert agreement(pack.expected, pack.answers(same.model)) == 1.0
    with pytest.raises(UnsupportedError, match="looked up"):
        next(found)


def test_only_probabilities_are_shares(tmp_path: Path) -> None:
    rows, targets = numbers()
    both = np.stack([np.abs(targets), np.abs(targets[::-1])], axis=1)
    model = RandomForestRegressor(20, max_depth=5, random_state=0).fit(rows[:800], both[:800])
    pack = packed(model, rows[1000:], tmp_path / "two")
    whole = read(node_of(pack.model, *OPERATORS))
    assert not are_shares(whole)
    # Two numbers have no sum to keep: votes are fitted to each.
    given, expected = seen_by(whole, rows[1000:1500]), pack.expected["prediction"]
    part = refitted(first_trees(whole, 4), given)
    assert np.ptp(part.votes[part.leaf].sum(axis=1)) > 0
    content = pack.variants(TreesPass())["8 of 20"]
    error = pack.answers(content)["prediction"] - expected
    assert np.mean(error**2) < 0.15 * np.var(expected)
    rows, labels = two_classes()
    forest = RandomForestClassifier(5, max_depth=4, random_state=0).fit(rows, labels)
    assert are_shares(read(node_of(packed(forest, rows[:200], tmp_path).model, *OPERATORS)))


def _one_column(low: float, high: float) -> onnx.NodeProto:
    """x0 <= 0 ? low : high, for two labels."""
    return helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml",
        classlabels_int64s=[0, 1], nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0], nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.0, 0.0, 0.0], nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        class_ids=[0, 0], class_nodeids=[1, 2], class_treeids=[0, 0], class_weights=[low, high],
    )  # fmt: skip


def test_a_vote_below_zero_moves_the_line_between_two_labels() -> None:
    rows = {"x": np.array([[1.0]], dtype=np.float32)}
    labels = []
    for node in (_one_column(0.1, 0.3), _one_column(-0.1, 0.3)):
        graph = helper.make_graph(
            [node], "test", [helper.make_tensor_value_info("x", 1, ["N", 1])],
            [helper.make_tensor_value_info("label", 7, ["N"])],
        )  # fmt: skip
        opsets = [helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        labels.append(int(run(model.SerializeToString(), rows)["label"][0]))
    assert labels == [0, 1]
    ones = [read(_one_column(low, 0.3)) for low in (0.1, 0.2, -0.1)]
    assert decides_alike(_one_column(0.1, 0.3), ones[0], ones[1])
    assert not decides_alike(_one_column(0.1, 0.3), ones[0], ones[2])


def test_of_a_large_forest_the_first_trees_are_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, labels = two_classes()
    model = RandomForestClassifier(40, max_depth=7, random_state=0).fit(rows[:1500], labels[:1500])
    pack = packed(model, rows[1500:], tmp_path)
    whole = read(node_of(pack.model, *OPERATORS))
    monkeypatch.setattr(trees, "_MANY_NODES", 1000)
    monkeypatch.setattr(trees, "_MOST_CHANGED", whole.targets * len(whole.mode) // 2)
    found = pack.variants(TreesPass())
    assert "same answers" not in found
    counts = [int(name.partition(" ")[0]) for name in found if name.endswith(" of 40")]
    assert counts
    assert max(counts) <= 10
    for content in found.values():
        assert agreement(pack.expected, pack.answers(content)) > 0.9


def test_too_many_nodes_are_refused_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, labels = two_classes()
    model = RandomForestClassifier(5, max_depth=3, random_state=0).fit(rows, labels)
    pack = packed(model, rows[:200], tmp_path)
    monkeypatch.setattr(tree_nodes, "_MOST_NODES", 50)
    with pytest.raises(UnsupportedError, match=r"^\d+ nodes of trees would take more .*most 50"):
        next(TreesPass().variants(pack.subject, lambda _: None))
