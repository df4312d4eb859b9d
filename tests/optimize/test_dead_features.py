"""What nothing uses is not made; scalers move into models; clients send what they sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, RobustScaler, StandardScaler

from modelport.core.errors import UnsupportedError
from modelport.optimize.classic.columns import Graph
from modelport.optimize.classic.dead import without_dead_columns
from modelport.optimize.classic.linear import linear_models
from modelport.optimize.classic.scalers import fold_scalers, last_below
from modelport.optimize.classic.widths import widths_of
from modelport.optimize.onnx_graph import operators, parse
from modelport.optimize.passes.dead_features import DeadFeaturesPass
from tests.optimize.tables import (
    agreement,
    attribute,
    largest,
    node_of,
    numbers,
    packed,
    run,
    two_classes,
)


def _kinds(content: bytes) -> set[str]:
    return operators(parse(content))


def _frame(count: int) -> tuple[pd.DataFrame, np.ndarray]:
    random = np.random.default_rng(0)
    rows = random.normal(size=(count, 4)).astype(np.float32)
    frame = pd.DataFrame(rows, columns=list("abcd"))
    frame["city"] = random.choice(["here", "there", "beyond"], count)
    frame["noise"] = random.choice(["x", "y"], count)
    return frame, (rows[:, 1] + (frame["city"] == "there").to_numpy() > 0.3).astype(int)


def test_columns_of_a_data_frame_that_have_no_weight(tmp_path: Path) -> None:
    frame, labels = _frame(1000)
    columns = ColumnTransformer([
        ("numbers", StandardScaler(), list("abcd")),
        ("texts", OneHotEncoder(handle_unknown="ignore"), ["city", "noise"]),
    ])  # fmt: skip
    sparse = LogisticRegression(C=0.05, l1_ratio=1.0, solver="liblinear")
    model = make_pipeline(columns, sparse).fit(frame[:500], labels[:500])
    pack = packed(model, frame[500:], tmp_path)
    (content,) = pack.variants(DeadFeaturesPass()).values()
    assert len(content) < 0.95 * len(pack.model)
    assert "Scaler" not in _kinds(content)
    encoders = [n for n in parse(content).graph.node if n.op_type == "OneHotEncoder"]
    kept = [text for n in encoders for text in attribute(n, "cats_strings")]
    assert b"there" in kept
    assert len(kept) < 5
    before, after = (parse(c).graph for c in (pack.model, content))
    assert [v.name for v in after.input] == [v.name for v in before.input]
    assert agreement(pack.expected, pack.answers(content)) == 1.0
    assert largest(pack.expected, pack.answers(content), "probabilities") < 1e-6


def test_columns_that_a_selection_drops(tmp_path: Path) -> None:
    rows, labels = two_classes()
    model = make_pipeline(StandardScaler(), SelectKBest(k=3), LogisticRegression())
    pack = packed(model.fit(rows[:1500], labels[:1500]), rows[1500:], tmp_path)
    (content,) = pack.variants(DeadFeaturesPass()).values()
    scaler = [n for n in parse(content).graph.node if n.op_type == "Scaler"]
    assert all(len(attribute(n, "scale")) == 3 for n in scaler)
    assert largest(pack.expected, pack.answers(content), "probabilities") < 1e-6


def test_a_scaler_moves_into_a_regression(tmp_path: Path) -> None:
    rows, targets = numbers()
    model = make_pipeline(RobustScaler(), Lasso(alpha=1.0)).fit(rows[:1000], targets[:1000])
    pack = packed(model, rows[1000:], tmp_path)
    (content,) = pack.variants(DeadFeaturesPass()).values()
    assert "Scaler" not in _kinds(content)
    scale = np.abs(pack.expected["prediction"]).max()
    assert largest(pack.expected, pack.answers(content), "prediction") < 1e-5 * scale


def test_a_scaler_moves_into_trees_without_a_flip(tmp_path: Path) -> None:
    rows, labels = two_classes()
    model = make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0))
    pack = packed(model.fit(rows[:1500], labels[:1500]), rows[1500:], tmp_path)
    (content,) = pack.variants(DeadFeaturesPass()).values()
    assert "Scaler" not in _kinds(content)
    # Also at rows that lie next to the thresholds.
    node = node_of(content, "TreeEnsembleRegressor", "TreeEnsembleClassifier")
    limits = np.asarray(attribute(node, "nodes_values"), dtype=np.float32)
    features = np.asarray(attribute(node, "nodes_featureids"))
    near = np.repeat(rows[:1], 600, axis=0)
    near[np.arange(600), features[:600]] = np.nextafter(
        limits[:600], np.where(np.arange(600) % 2, np.inf, -np.inf).astype(np.float32)
    )
    for held in (pack.held, {"input": near}):
        before, after = run(pack.model, held), run(content, held)
        assert agreement(before, after) == 1.0
        assert largest(before, after, "probabilities") == 0.0


def test_the_last_number_below_a_threshold() -> None:
    random = np.random.default_rng(0)
    offset = random.normal(size=500).astype(np.float32)
    scale = np.exp(random.normal(size=500)).astype(np.float32)
    limit = random.normal(size=500).astype(np.float32).astype(np.float64)
    found = last_below(offset, scale, limit).astype(np.float32)
    assert ((found - offset) * scale <= limit).all()
    above = np.nextafter(found, np.float32(np.inf))
    assert ((above - offset) * scale > limit).all()


def test_words_without_weight_go_where_no_norm_counts_them(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    words = [f"word{i}" for i in range(300)]
    texts = np.array([" ".join(random.choice(words, 20)) for _ in range(600)], dtype=object)
    labels = np.array(["word1 " in t or "word7 " in t for t in texts]).astype(int)
    sparse = LogisticRegression(C=0.5, l1_ratio=1.0, solver="liblinear")
    model = make_pipeline(CountVectorizer(), sparse).fit(texts[:400], labels[:400])
    pack = packed(model, texts[200:], tmp_path)
    (content,) = pack.variants(DeadFeaturesPass()).values()
    assert len(content) < 0.6 * len(pack.model)
    assert largest(pack.expected, pack.answers(content), "probabilities") < 1e-6


def test_refusals_say_why(tmp_path: Path) -> None:
    rows, labels = two_classes()
    forest = RandomForestClassifier(5, random_state=0).fit(rows[:500], labels[:500])
    pack = packed(forest, rows[500:900], tmp_path)
    with pytest.raises(UnsupportedError, match="no column can be left out"):
        list(DeadFeaturesPass().variants(pack.subject, lambda _: None))
    network = MLPClassifier((8,), early_stopping=True, random_state=0).fit(rows[:500], labels[:500])
    pack = packed(network, rows[500:900], tmp_path / "network")
    assert DeadFeaturesPass().refuses(pack.subject) == "no pipeline with columns"


def test_inputs_that_nothing_uses_are_still_taken(tmp_path: Path) -> None:
    frame, _ = _frame(900)
    numeric = frame[list("abcd")]
    model = make_pipeline(
        ColumnTransformer([("all", StandardScaler(), list("abcd"))]), Lasso(alpha=0.2)
    ).fit(numeric[:500], 3.0 * numeric["b"][:500])
    pack = packed(model, numeric[500:], tmp_path)
    (content,) = pack.variants(DeadFeaturesPass()).values()
    graph = onnx.load_from_string(content).graph
    used = {name for node in graph.node for name in node.input}
    assert "a" not in used
    assert "b" in used
    assert {value.name for value in graph.input} == set("abcd")
    assert largest(pack.expected, pack.answers(content), "prediction") < 1e-5


_X = np.arange(40, dtype=np.float32).reshape(10, 4)


def _graph(made: list[onnx.NodeProto], outputs: dict[str, int], **constants: Any) -> Graph:
    """From an input ``x`` of four columns to outputs of so many."""
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            made, "test", [onnx.helper.make_tensor_value_info("x", 1, ["N", 4])],
            [onnx.helper.make_tensor_value_info(n, 1, ["N", w]) for n, w in outputs.items()],
            [onnx.numpy_helper.from_array(v, name) for name, v in constants.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("ai.onnx.ml", 3), onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )  # fmt: skip
    return Graph(model, widths_of(model, {"x": _X}))


def _answers(graph: Graph) -> dict[str, np.ndarray]:
    return dict(run(graph.model.SerializeToString(), {"x": _X}))


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    classic = kind in ("Scaler", "LinearRegressor")
    domain = "ai.onnx.ml" if classic else ""
    return onnx.helper.make_node(kind, inputs, [output], domain=domain, **attributes)


def test_a_scaler_whose_columns_are_an_answer_stays() -> None:
    graph = _graph(
        [
            _node("Scaler", ["x"], "scaled", offset=[1.0] * 4, scale=[2.0] * 4),
            _node("Concat", ["scaled", "x"], "both", axis=1),
            _node("LinearRegressor", ["both"], "y", coefficients=[1.0] * 8, intercepts=[0.0]),
        ],
        {"both": 8, "y": 1},
    )
    before = _answers(graph)
    fold_scalers(graph)
    for name, array in _answers(graph).items():
        np.testing.assert_allclose(array, before[name])


def test_columns_that_are_picked_from_behind() -> None:
    graph = _graph(
        [
            _node("MatMul", ["x", "weight"], "hidden"),
            _node("Gather", ["hidden", "places"], "picked", axis=1),
            _node("LinearRegressor", ["picked"], "y", coefficients=[1.0, 2.0], intercepts=[0.0]),
        ],
        {"y": 1},
        weight=np.arange(16, dtype=np.float32).reshape(4, 4),
        places=np.array([-1, 1]),
    )
    before = _answers(graph)["y"]
    assert without_dead_columns(graph)
    np.testing.assert_allclose(_answers(graph)["y"], before)


def test_weights_with_two_rows_are_no_table() -> None:
    graph = _graph(
        [
            _node("Identity", ["weight"], "same"),
            _node("MatMul", ["x", "same"], "y"),
        ],
        {"y": 3},
        weight=np.ones((4, 3), dtype=np.float32),
    )
    assert graph.widths == {"x": 4, "y": 3}
    model, shape = graph.model, np.ones((2, 3), dtype=np.float32)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(shape, "weight"))
    model.graph.node[1].CopyFrom(_node("Sub", ["x", "x"], "y"))
    assert "same" not in widths_of(model, {"x": _X})


def test_constants_of_two_passes_have_names_of_their_own() -> None:
    made = [_node("Mul", ["x", "c"], "a"), _node("Mul", ["a", "c"], "y")]
    graph = _graph(made, {"y": 4}, c=np.ones(4, dtype=np.float32))
    graph.set_input(graph.model.graph.node[0], 1, np.full(4, 2, dtype=np.float32))
    again = Graph(graph.model, graph.widths)
    again.set_input(again.model.graph.node[1], 1, np.full(4, 3, dtype=np.float32))
    np.testing.assert_allclose(_answers(again)["y"], 6 * _X)


def test_a_product_that_is_scaled_is_no_linear_model() -> None:
    weight = np.ones((4, 2), dtype=np.float32)
    for beta, count in ((1.0, 1), (0.5, 0)):
        product = _node("Gemm", ["x", "w", "b"], "y", beta=beta)
        graph = _graph([product], {"y": 2}, w=weight, b=np.ones(2, dtype=np.float32))
        assert len(linear_models(graph)) == count
