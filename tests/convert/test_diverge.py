"""Broken exports: each is located at its node, with both values, the cause and the remedy."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC

from modelport.cli.main import main
from modelport.convert.base import Attempt, Export, Inspectable, Probe
from modelport.convert.diverge.base import Divergence
from modelport.convert.frameworks.sklearn.model import SklearnModel
from modelport.convert.proof.trial import Trial, try_attempt
from modelport.core.errors import ParityError
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import NUMPY_DTYPES, TensorSpec

from .conftest import convert_model, fit, load_data, rows_of

Layers = list[tuple[str, Callable[[np.ndarray], np.ndarray]]]


class Network:
    """A source model: functions in float64, one after the other, as a framework runs layers."""

    framework_version = "NumPy"
    notes = ()

    def __init__(self, layers: Layers, task: str = "unknown") -> None:
        self.task = task
        self._layers = layers

    def layers(self, rows: Rows) -> Iterator[tuple[str, np.ndarray]]:
        value = rows.columns["x"]
        value = value.astype(np.float64) if value.dtype.kind == "f" else value
        for name, function in self._layers:
            with np.errstate(all="ignore"):
                value = function(value)
            yield name, value

    def predict(self, rows: Rows) -> dict[str, np.ndarray]:
        return {"y": list(self.layers(rows))[-1][1]}

    def attempts(self, rows: Rows | None) -> list[Attempt]:
        raise NotImplementedError

    def native(self, rows: Rows | None) -> None:
        return None

    def made_up_rows(self) -> None:
        return None

    def probes(self, rows: Rows) -> list[Probe]:
        return []


class Closed(Network):
    """The same, without a look inside."""

    layers = None  # type: ignore[assignment]

    def predict(self, rows: Rows) -> dict[str, np.ndarray]:
        return {"y": list(Network.layers(self, rows))[-1][1]}


def graph(
    nodes: list[onnx.NodeProto],
    x: tuple[str, tuple[Any, ...]],
    y: tuple[str, tuple[Any, ...]],
    constants: dict[str, np.ndarray],
    opset: int = 18,
) -> Export:
    def value(name: str, spec: tuple[str, tuple[Any, ...]]) -> onnx.ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(NUMPY_DTYPES[spec[0]])
        return helper.make_tensor_value_info(name, kind, list(spec[1]))

    made = helper.make_graph(
        nodes,
        "graph",
        [value("x", x)],
        [value("y", y)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    signature = Signature((TensorSpec("x", *x),), (TensorSpec("y", *y),))
    return Export(model.SerializeToString(), signature, "by hand", {"": opset})


def compare(source: Any, export: Export, rows: np.ndarray) -> Trial:
    attempt = Attempt("by hand", lambda: export)
    return try_attempt(attempt, source, Rows({"x": rows}), lambda line: None)


def found(source: Any, export: Export, rows: np.ndarray) -> Divergence:
    trial = compare(source, export, rows)
    assert trial.outcome == "differs"
    assert trial.divergence is not None
    assert trial.divergence.describe() in trial.reason
    return trial.divergence


def repaired(source: Any, export: Export, rows: np.ndarray) -> Trial:
    trial = compare(source, export, rows)
    assert trial.repair is not None
    return try_attempt(trial.repair, source, Rows({"x": rows}), lambda line: None)


def relu(a: np.ndarray) -> np.ndarray:
    return np.maximum(a, 0)


def softmax(a: np.ndarray) -> np.ndarray:
    e = np.exp(a - a.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return (load_digits().data[:200] / 16).astype(np.float32)


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    """A perceptron with two hidden layers, trained on the digits."""
    x, y = load_digits(return_X_y=True)
    model = fit(MLPClassifier((24, 16), max_iter=15, random_state=0), x / 16, y)
    named = {f"W{i}": w.astype(np.float32) for i, w in enumerate(model.coefs_)}
    return {**named, **{f"b{i}": b.astype(np.float32) for i, b in enumerate(model.intercepts_)}}


def perceptron(w: dict[str, np.ndarray], kind: type[Network] = Network) -> Network:
    wide = {name: array.astype(np.float64) for name, array in w.items()}
    return kind(
        [
            ("fc0", lambda a: a @ wide["W0"] + wide["b0"]),
            ("relu0", relu),
            ("fc1", lambda a: a @ wide["W1"] + wide["b1"]),
            ("relu1", relu),
            ("fc2", lambda a: a @ wide["W2"] + wide["b2"]),
            ("softmax", softmax),
        ],
        "classification",
    )


def perceptron_export(w: dict[str, np.ndarray], **changed: np.ndarray) -> Export:
    nodes, before = [], "x"
    for i in range(3):
        nodes += [
            helper.make_node("MatMul", [before, f"W{i}"], [f"product{i}"], name=f"fc{i}_matmul"),
            helper.make_node("Add", [f"product{i}", f"b{i}"], [f"sum{i}"], name=f"fc{i}_add"),
        ]
        kind, before = ("Relu", f"hidden{i}") if i < 2 else ("Softmax", "y")
        nodes.append(helper.make_node(kind, [f"sum{i}"], [before], name=f"activation{i}"))
    return graph(nodes, ("float32", ("N", 64)), ("float32", ("N", 10)), {**w, **changed})


def test_an_honest_export_agrees(weights: Any, digits: Any) -> None:
    trial = compare(perceptron(weights), perceptron_export(weights), digits)
    assert (trial.outcome, trial.reason, trial.divergence) == ("agrees", "", None)
    assert trial.candidate is not None
    assert trial.candidate.verdict is not None
    assert trial.candidate.verdict.label_flips == 0
    assert trial.load_ms is not None
    assert trial.load_ms > 0


def test_one_wrong_constant_in_the_middle(weights: Any, digits: Any) -> None:
    wrong = weights["b1"].copy()
    wrong[5] += 0.75
    part = found(perceptron(weights), perceptron_export(weights, b1=wrong), digits)
    assert part.kind == "meaning"
    assert part.node == "fc1_add (Add)"
    assert (part.layer, part.after) == ("fc1", "relu0")
    assert part.position[1] == 5
    assert float(part.actual) - float(part.expected) == pytest.approx(0.75, abs=1e-4)
    right = float(f"{weights['b1'][5]:.4g}")
    assert f"element 5 of b1 is {wrong[5]:.7g} and would have to be {right:g}" in part.cause
    assert "more elements" not in part.cause


def test_swapped_weights_in_the_middle(weights: Any, digits: Any) -> None:
    wrong = weights["W1"].copy()
    wrong[:, [2, 3]] = wrong[:, [3, 2]]
    part = found(perceptron(weights), perceptron_export(weights, W1=wrong), digits)
    assert part.node == "fc1_matmul (MatMul)"
    assert (part.layer, part.after) == ("fc1", "relu0")
    assert part.position[1] in (2, 3)
    assert "its weights (W1) are not the source model's" in part.cause


def test_a_wrong_factor(digits: Any) -> None:
    factor = np.linspace(1, 2, 64).astype(np.float32)
    wrong = factor.copy()
    wrong[20] *= 1.5
    source = Network([("scale", lambda a: a * factor), ("tanh", np.tanh)])
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["scaled"], name="scale"),
        helper.make_node("Tanh", ["scaled"], ["y"], name="squash"),
    ]
    shape = ("float32", ("N", 64))
    part = found(source, graph(nodes, shape, shape, {"factor": wrong}), digits)
    assert (part.node, part.layer) == ("scale (Mul)", "scale")
    assert "element 20 of factor" in part.cause


def batch_norm(training: int, epsilon: float = 1e-3) -> Export:
    constants = {
        "scale": np.linspace(0.5, 2, 64).astype(np.float32),
        "bias": np.linspace(-1, 1, 64).astype(np.float32),
        "mean": np.full(64, 0.2, np.float32),
        "variance": np.full(64, 0.01, np.float32),
    }
    outputs = ["normal", "mean2", "variance2"] if training else ["normal"]
    nodes = [
        helper.make_node(
            "BatchNormalization", ["x", *constants], outputs,
            name="norm", training_mode=training, epsilon=epsilon,
        ),
        helper.make_node("Relu", ["normal"], ["y"], name="activation"),
    ]  # fmt: skip
    shape = ("float32", ("N", 64))
    return graph(nodes, shape, shape, constants)


def normalized(a: np.ndarray) -> np.ndarray:
    scale, bias = np.linspace(0.5, 2, 64), np.linspace(-1, 1, 64)
    return (a - np.float32(0.2)) / np.sqrt(np.float32(0.01) + 1e-3) * scale + bias


@pytest.mark.parametrize("kind", [Network, Closed])
def test_batch_normalization_in_training_mode(kind: Any, digits: Any) -> None:
    source = kind([("bn", normalized), ("relu", relu)])
    part = found(source, batch_norm(1), digits)
    assert part.node == "norm (BatchNormalization)"
    assert part.proven
    assert "training mode" in part.cause
    assert "model.eval()" in part.remedy
    mended = repaired(source, batch_norm(1), digits)
    assert mended.outcome == "agrees"
    assert mended.name == "by hand in evaluation mode"
    assert mended.candidate is not None
    session = onnxruntime.InferenceSession(
        mended.candidate.export.model, providers=["CPUExecutionProvider"]
    )
    (answers,) = session.run(None, {"x": digits})
    np.testing.assert_allclose(answers, relu(normalized(digits)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Network, Closed])
def test_another_epsilon(kind: Any, digits: Any) -> None:
    source = kind([("bn", normalized), ("relu", relu)])
    part = found(source, batch_norm(0, epsilon=1e-5), digits)
    assert part.node == "norm (BatchNormalization)"
    assert part.cause == "BatchNormalization has epsilon 1e-05, and the source model 0.001"
    assert part.proven
    assert repaired(source, batch_norm(0, epsilon=1e-5), digits).outcome == "agrees"


def test_dropout_in_training_mode(digits: Any) -> None:
    constants = {"ratio": np.asarray(0.5, np.float32), "training": np.asarray(True)}
    nodes = [helper.make_node("Dropout", ["x", *constants], ["y"], name="drop")]
    shape = ("float32", ("N", 64))
    export = graph(nodes, shape, shape, constants)
    source = Network([("drop", lambda a: a)])
    part = found(source, export, digits)
    assert part.node == "drop (Dropout)"
    assert part.proven
    assert repaired(source, export, digits).outcome == "agrees"


def test_random_numbers(digits: Any) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"], name="draw", scale=0.1),
        helper.make_node("Add", ["x", "noise"], ["y"], name="add"),
    ]
    shape = ("float32", ("N", 64))
    part = found(Network([("same", lambda a: a)]), graph(nodes, shape, shape, {}), digits)
    assert (part.kind, part.node) == ("random", "draw (RandomNormalLike)")


@pytest.mark.parametrize("frozen", [1, 4])
def test_a_frozen_batch(frozen: int, digits: Any) -> None:
    constants = {
        "shape": np.asarray([frozen, -1], np.int64),
        "W": np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"], name="activation"),
        helper.make_node("Reshape", ["positive", "shape"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "W"], ["y"], name="fc"),
    ]
    export = graph(nodes, ("float32", ("N", 8, 8)), ("float32", ("N", 3)), constants)
    source = Network([("fc", lambda a: relu(a.reshape(len(a), -1)) @ constants["W"])])
    part = found(source, export, digits.reshape(-1, 8, 8))
    assert (part.kind, part.node) == ("batch", "flatten (Reshape)")
    assert f"exported for batches of {frozen}" in part.cause
    assert "dynamic batch dimension" in part.remedy


def test_rows_that_are_mixed(digits: Any) -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["shares"], name="shares", axis=0),
        helper.make_node("Sqrt", ["shares"], ["y"], name="root"),
    ]
    shape = ("float32", ("N", 64))
    source = Closed([("shares", softmax), ("root", np.sqrt)])
    part = found(source, graph(nodes, shape, shape, {}), digits)
    assert (part.kind, part.node) == ("batch", "shares (Softmax)")
    assert "mixes the rows" in part.cause


def test_a_source_that_mixes_its_rows(digits: Any) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="activation")]
    shape = ("float32", ("N", 64))
    source = Network([("norm", lambda a: a - a.mean(axis=0))])
    part = found(source, graph(nodes, shape, shape, {}), digits)
    assert part.kind == "source"
    assert "the source model itself answers a row otherwise" in part.cause
    assert "model.eval()" in part.remedy


def test_cancellation_in_float32(digits: Any) -> None:
    constants = {"large": np.asarray(1e5, np.float32)}
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["squashed"], name="squash"),
        helper.make_node("Add", ["squashed", "large"], ["sum"], name="up"),
        helper.make_node("Sub", ["sum", "large"], ["y"], name="down"),
    ]
    shape = ("float32", ("N", 64))
    source = Network([("sigmoid", lambda a: 1 / (1 + np.exp(-a)))], "regression")
    export = graph(nodes, shape, shape, constants)
    part = found(source, export, digits)
    assert (part.kind, part.node) == ("precision", "down (Sub)")
    assert part.proven
    assert "cancellation: terms as large as 100000.7" in part.cause
    assert abs(float(part.expected) - float(part.actual)) > 1e-3
    mended = repaired(source, export, digits)
    assert mended.name == "by hand in float64"
    assert mended.outcome == "agrees"


def test_a_threshold_in_float32(digits: Any) -> None:
    x = digits[:, :2].copy()
    x[:, 0] = 0.1
    x[:, 1] = np.arange(len(x)) / 1000
    constants = {"third": np.asarray(3, np.float32), "line": np.asarray(0.30000001, np.float32)}
    nodes = [
        helper.make_node("Mul", ["x", "third"], ["product"], name="times"),
        helper.make_node("Less", ["product", "line"], ["below"], name="compare"),
        helper.make_node("Cast", ["below"], ["y"], name="number", to=TensorProto.INT64),
    ]
    export = graph(nodes, ("float32", ("N", 2)), ("int64", ("N", 2)), constants)
    line = float(np.float32(0.30000001))
    source = Network([("below", lambda a: (a * 3 < line).astype(np.int64))], "classification")
    part = found(source, export, x)
    assert (part.kind, part.node) == ("precision", "compare (Less)")
    assert "Less decides on a value that float32 rounds across the line" in part.cause
    assert {part.expected, part.actual} == {"True", "False"}
    assert repaired(source, export, x).outcome == "agrees"


@pytest.mark.parametrize("kind", [Network, Closed])
def test_a_missing_cast(kind: Any) -> None:
    rows = np.arange(60, dtype=np.int64).reshape(20, 3)
    constants = {"seven": np.asarray(7, np.int64)}
    nodes = [
        helper.make_node("Div", ["x", "seven"], ["share"], name="divide"),
        helper.make_node("Cast", ["share"], ["number"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Sqrt", ["number"], ["y"], name="root"),
    ]
    export = graph(nodes, ("int64", ("N", 3)), ("float32", ("N", 3)), constants)
    source = kind([("share", lambda a: a / 7), ("root", np.sqrt)])
    part = found(source, export, rows)
    assert part.node == "divide (Div)"
    assert part.proven
    assert "a cast is missing: Div of integers drops the fraction" in part.cause
    if kind is Network:
        assert part.layer == "share"
        assert float(part.expected) - float(part.actual) == pytest.approx(6 / 7)


def test_classes_in_another_order(weights: Any, digits: Any) -> None:
    order = np.asarray([1, 0, 2, 3, 4, 5, 6, 7, 9, 8])
    export = perceptron_export(weights, W2=weights["W2"][:, order], b2=weights["b2"][order])
    trial = compare(perceptron(weights), export, digits)
    part = trial.divergence
    assert part is not None
    assert (part.kind, part.proven) == ("order", True)
    assert str(order.tolist()) in part.cause
    assert "classes_" in part.remedy
    assert "rows another element is the largest" in trial.reason


def picture_export(node: onnx.NodeProto, constants: dict[str, np.ndarray], out: Any) -> Export:
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"], name="activation"),
        node,
        helper.make_node("Sigmoid", ["middle"], ["y"], name="squash"),
    ]
    return graph(nodes, ("float32", ("N", 1, 8, 8)), ("float32", ("N", *out)), constants)


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def test_padding_on_the_other_side(digits: Any) -> None:
    """Keras pads 'same' at the end; PyTorch at both sides."""
    kernel = np.random.default_rng(0).normal(size=(2, 1, 3, 3)).astype(np.float32)

    def convolve(a: np.ndarray) -> np.ndarray:
        padded = np.pad(relu(a), ((0, 0), (0, 0), (0, 1), (0, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
        return np.einsum("ncijhw,ochw->noij", windows, kernel.astype(np.float64))

    node = helper.make_node(
        "Conv", ["positive", "kernel"], ["middle"], name="conv1",
        pads=[1, 1, 0, 0], strides=[2, 2], kernel_shape=[3, 3],
    )  # fmt: skip
    export = picture_export(node, {"kernel": kernel}, (2, 4, 4))
    source = Network([("conv1", convolve), ("sigmoid", sigmoid)])
    pictures = digits.reshape(-1, 1, 8, 8)
    part = found(source, export, pictures)
    assert (part.node, part.layer, part.proven) == ("conv1 (Conv)", "conv1", True)
    assert "pads [1, 1, 0, 0], the source model pads SAME_UPPER" in part.cause
    assert repaired(source, export, pictures).outcome == "agrees"


def test_resizing_by_another_rule(digits: Any) -> None:
    def double(a: np.ndarray) -> np.ndarray:
        return relu(a).repeat(2, axis=2).repeat(2, axis=3)

    node = helper.make_node(
        "Resize", ["positive", "", "factors"], ["middle"], name="up", mode="nearest",
        coordinate_transformation_mode="align_corners", nearest_mode="floor",
    )  # fmt: skip
    constants = {"factors": np.asarray([1, 1, 2, 2], np.float32)}
    export = picture_export(node, constants, (1, 16, 16))
    source = Network([("upsample", double), ("sigmoid", sigmoid)])
    pictures = digits.reshape(-1, 1, 8, 8)
    part = found(source, export, pictures)
    assert (part.node, part.layer) == ("up (Resize)", "upsample")
    assert "coordinate_transformation_mode align_corners" in part.cause
    assert repaired(source, export, pictures).outcome == "agrees"


def test_a_flattened_picture_in_another_order(digits: Any) -> None:
    """Channels last in the source, channels first in the graph, and nobody transposed."""
    weights = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "W"], ["y"], name="fc"),
    ]
    export = graph(nodes, ("float32", ("N", 4, 4, 4)), ("float32", ("N", 3)), {"W": weights})
    source = Closed(
        [("fc", lambda a: np.moveaxis(a, 1, -1).reshape(len(a), -1) @ weights.astype(np.float64))]
    )
    part = found(source, export, digits.reshape(-1, 4, 4, 4))
    assert (part.node, part.proven) == ("flatten (Flatten)", True)
    assert "channels last" in part.cause


def test_a_fusion_that_overflows(digits: Any) -> None:
    """ONNX Runtime merges the two factors into one, and 1e40 is infinite in float32."""
    constants = {
        "much": np.asarray(1e20, np.float32),
        "W": np.eye(64, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Mul", ["x", "much"], ["larger"], name="first"),
        helper.make_node("MatMul", ["larger", "W"], ["product"], name="fc"),
        helper.make_node("Mul", ["product", "much"], ["y"], name="second"),
    ]
    shape = ("float32", ("N", 64))
    rows = (digits + 1) * np.float32(1e-20)
    source = Network([("all", lambda a: a * 1e20 * 1e20)])
    part = found(source, graph(nodes, shape, shape, constants), rows)
    assert part.kind == "optimization"
    assert part.node in ("fc (MatMul)", "second (Mul)")
    assert part.actual == "inf"


def test_an_output_under_another_name(digits: Any) -> None:
    nodes = [
        helper.make_node("Sin", ["x"], ["sine"], name="sine"),
        helper.make_node("Cos", ["sine"], ["y"], name="cosine"),
    ]
    shape = ("float32", ("N", 64))
    source = Closed([("sine", np.sin)])
    part = found(source, graph(nodes, shape, shape, {}), digits)
    assert part.cause == "the source model's y is inner tensor sine of the graph"


def test_merged_layers_are_no_difference(weights: Any, digits: Any) -> None:
    """Exporters merge layers: what is missing between layers that agree is not the fault."""
    wrong = weights["b2"].copy()
    wrong[0] -= 1
    source = perceptron(weights)
    source._layers.insert(1, ("twice", lambda a: a * 2))
    source._layers.insert(2, ("half", lambda a: a / 2))
    assert isinstance(source, Inspectable)
    part = found(source, perceptron_export(weights, b2=wrong), digits)
    assert (part.node, part.layer, part.after) == ("fc2_add (Add)", "fc2", "relu1")


def test_unscaled_support_vectors_are_explained(cancer: Any, tmp_path: Path, capsys: Any) -> None:
    """A real refusal: features up to 4000 beside features of 0.01, and no scaler."""
    x, y = cancer
    model = fit(SVC(kernel="linear"), x, y)
    with pytest.raises(ParityError) as caught:
        convert_model(model, x)
    message = str(caught.value)
    assert "they part at node SVMc (SVMClassifier)" in message
    assert "rounded to float32" in message
    assert "StandardScaler" in message

    joblib.dump(model, tmp_path / "svc.joblib")
    np.save(tmp_path / "rows.npy", x)
    code = main(
        ["pack", str(tmp_path / "svc.joblib"), "--name", "svc", "--json",
         "--sample", str(tmp_path / "rows.npy"), "--out", str(tmp_path)]
    )  # fmt: skip
    report = json.loads(capsys.readouterr().out)["error"]["report"]
    assert code == 3
    first = report["attempts"][0]
    assert first["divergence"]["kind"] == "precision"
    assert first["divergence"]["node"] == "SVMc (SVMClassifier)"
    assert first["load_ms"] > 0


def _export_instead(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    real = SklearnModel.attempts
    monkeypatch.setattr(
        SklearnModel, "attempts", lambda self, rows: real(SklearnModel(model), rows)[:1]
    )


def test_the_step_of_a_pipeline_is_named(cancer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = cancer
    model = fit(make_pipeline(MinMaxScaler(), StandardScaler(), LogisticRegression()), x, y)
    wrong = copy.deepcopy(model)
    wrong[1].mean_[7] += 0.5
    _export_instead(monkeypatch, wrong)
    with pytest.raises(ParityError) as caught:
        convert_model(model, x)
    (attempt,) = caught.value.report["attempts"]  # type: ignore[index]
    part = attempt["divergence"]
    assert (part["layer"], part["after"]) == ("standardscaler", "minmaxscaler")
    assert "(Scaler)" in part["node"] or "(Sub)" in part["node"]
    assert part["position"][1] == 7
    row = x.astype(np.float32).astype(np.float64)
    assert part["expected"][:5] in [f"{v:.9g}"[:5] for v in model[:2].transform(row)[:, 7]]


def test_the_step_inside_columns_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = load_data("wine")
    frame = pd.DataFrame(x, columns=[f"c{i}" for i in range(x.shape[1])])
    left, right = list(frame.columns[:6]), list(frame.columns[6:])
    columns = ColumnTransformer(
        [("left", StandardScaler(), left), ("right", MinMaxScaler(), right)]
    )
    model = fit(make_pipeline(columns, LogisticRegression()), frame, y)
    wrong = copy.deepcopy(model)
    wrong[0].named_transformers_["right"].min_[2] += 0.25
    _export_instead(monkeypatch, wrong)
    with pytest.raises(ParityError, match=r"layer columntransformer\.right"):
        convert_model(model, rows_of(frame))


def test_weights_that_float32_cannot_hold(diabetes: Any) -> None:
    x, y = diabetes
    far = (100 * x + 1e6).astype(np.float32).astype(np.float64)
    artifact = convert_model(LinearRegression().fit(far, y), far)
    first, second = artifact.parity["attempts"]
    assert (first["outcome"], second["outcome"]) == ("differs", "kept")
    assert "they part at node LinearRegressor (LinearRegressor)" in first["reason"]
    assert "the weights are rounded to float32" in first["reason"]


def test_what_is_told_is_always_the_same(weights: Any, digits: Any) -> None:
    wrong = weights["b0"] * np.float32(1.1)
    export = perceptron_export(weights, b0=wrong)
    source = perceptron(weights)
    assert found(source, export, digits) == found(source, export, digits)
