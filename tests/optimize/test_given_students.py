"""Networks that users give, taught by a package: PyTorch's and Keras'."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from sklearn.linear_model import LogisticRegression
from torch import nn

from modelport import api
from modelport.api.own_student import own_student
from modelport.cli.main import main
from modelport.core.artifact import Artifact
from modelport.core.errors import InputError, ModelportError, NotFoundError, UnsupportedError
from modelport.core.options import OptimizeOptions
from modelport.core.package import Package, open_package
from modelport.core.tensors import Array
from modelport.optimize.base import Subject, Variant
from modelport.optimize.given import course
from modelport.optimize.passes.own_student import OwnStudentPass
from modelport.optimize.shelf import Shelf
from tests.optimize.networks import Network
from tests.optimize.subjects import exported, run, same_labels, subject, trained

CODE = """
import torch
from torch import nn

def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))

def broken():
    raise ValueError("no such width")

def no_network():
    return 3
"""


@pytest.fixture(autouse=True)
def short_course(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "_MOST_STEPS", 800)


@pytest.fixture
def few_steps(short_course: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "_MOST_STEPS", 20)


def small(inputs: int = 64, outputs: int = 10, width: int = 24) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))


class SmallCnn(nn.Module):
    """With a batch norm, which learns from whole batches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(torch.relu(self.norm(self.body(image))).flatten(1))
        return found


def keras_cnn() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((1, 8, 8)),
            keras.layers.Permute((2, 3, 1)),
            keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(10),
        ]
    )


@pytest.fixture(scope="module")
def pixels(digits: tuple[Array, Array]) -> tuple[Array, Array]:
    return (digits[0].reshape(-1, 1, 8, 8) / 16).astype(np.float32), digits[1]


@pytest.fixture(scope="module")
def network(pixels: tuple[Array, Array]) -> nn.Module:
    """A convolutional network that knows digits and answers scores."""
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 64, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * 16, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    return trained(module, pixels[0][:900], pixels[1][:900], epochs=6)


@pytest.fixture(scope="module")
def about_digits(network: nn.Module, pixels: tuple[Array, Array]) -> Subject:
    model = exported(network, {"x": torch.zeros(2, 1, 8, 8)}, "scores")
    return subject(model, {"x": pixels[0][900:1300]})


def taught(about: Subject, student: Any, **changes: Any) -> tuple[Variant, list[str]]:
    """The variant and what was reported, or the reason there is none as an error."""
    lines: list[str] = []
    about = replace(about, student=own_student(student), deadline=time.monotonic() + 90, **changes)
    why = OwnStudentPass().refuses(about)
    if why:
        raise UnsupportedError(why)
    (variant,) = OwnStudentPass().variants(about, lines.append)
    return variant, lines


def takes(model: bytes) -> list[tuple[str, int]]:
    graph = onnx.load_from_string(model).graph
    return [(v.name, v.type.tensor_type.elem_type) for v in (*graph.input, *graph.output)]


def test_a_run_teaches_goes_on_and_writes_a_package(
    network: nn.Module, pixels: tuple[Array, Array], tmp_path: Path
) -> None:
    images, labels = pixels
    cnn = api.pack(network, "cnn", sample=images[:64], out=tmp_path)
    data = {"input": images[:1500], "digit": labels[:1500]}
    options = OptimizeOptions(
        target="digit", passes="load", max_drop=0.1, budget="150s",
        cache=str(tmp_path / "cache"),
    )  # fmt: skip
    found = api.optimize(
        str(cnn.path), data, out=tmp_path / "out", student=SmallCnn, options=options
    )
    variants = {item["name"]: item for item in found.report["variants"]}
    assert variants["student SmallCnn"]["detail"]["own-student"]["labels"] is True
    assert any(name.startswith("student SmallCnn + load") for name in variants)
    assert found.package is not None, found.report["sentence"]
    assert found.report["picked"].startswith("student SmallCnn")
    package = open_package(found.package.path)
    assert package.manifest.signature == cnn.manifest.signature
    assert package.model_path.stat().st_size < cnn.model_path.stat().st_size / 5
    golden = package.golden()
    assert golden is not None
    replayed = golden.replay(
        lambda rows: api.predict(package.path, rows), package.manifest.tolerance
    )
    assert all(item.agrees for item in replayed)
    answers = [api.predict(p.path, {"input": images[1500:]}) for p in (cnn, package)]
    assert same_labels(*answers, cnn.manifest.signature.outputs[0].name) > 0.85


def test_the_command_line_takes_a_function_of_the_current_folder(
    perceptron: Package, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "my_models.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELPORT_CACHE", str(tmp_path / "cache"))
    command = [
        "optimize", str(perceptron.path), "--data", str(rows_file), "--target", "digit",
        "--max-drop", "0.1", "--student", "my_models:small_net", "--passes", "own-student",
        "--budget", "100s", "--json",
    ]  # fmt: skip
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["picked"] == "student small_net"
    assert (tmp_path / "optimized" / "perceptron").is_dir()
    command[command.index("my_models:small_net")] = "my_models:broken"
    command += ["--out", "others"]
    assert main(command) == 2
    assert "ValueError: no such width (at --student)" in capsys.readouterr().err


@pytest.mark.parametrize("student", [SmallCnn, keras_cnn])
def test_a_student_agrees_with_its_teacher_on_fresh_rows(
    about_digits: Subject, pixels: tuple[Array, Array], student: Any
) -> None:
    variant, lines = taught(about_digits, student)
    assert variant.name == f"student {student.__name__}"
    assert variant.passes == ("own-student",)
    assert variant.row_independent
    assert len(variant.model) < len(about_digits.variant.model) / 5
    assert takes(variant.model) == takes(about_digits.variant.model)
    fresh = {"x": pixels[0][1300:]}
    found, wanted = run(variant.model, fresh), run(about_digits.variant.model, fresh)
    assert same_labels(found, wanted, "scores") > 0.85, lines


def test_labels_of_text_follow_from_scores(digits: tuple[Array, Array], tmp_path: Path) -> None:
    rows, labels = digits[0] / 16, np.asarray([f"is {label}" for label in digits[1]])
    model = LogisticRegression(max_iter=60, tol=1e-2).fit(rows[:900], labels[:900])
    package = api.pack(model, "texts", sample=rows[:64], out=tmp_path)
    about = subject(package.model_path.read_bytes(), {"input": rows[900:1300].astype(np.float32)})
    variant, lines = taught(about, small, target=labels[900:1300])
    assert any("and their labels" in line for line in lines), lines
    fresh = {"input": rows[1300:].astype(np.float32)}
    found, wanted = run(variant.model, fresh), run(about.variant.model, fresh)
    assert np.mean(found["label"] == wanted["label"]) > 0.85
    (scores,) = [array for name, array in found.items() if name != "label"]
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-4)  # the student answers scores
    assert [f"is {place}" for place in scores.argmax(axis=1)] == found["label"].tolist()


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = small(6, 8)
        self.scores, self.number = nn.Linear(8, 5), nn.Linear(8, 1)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hidden = torch.relu(self.body(torch.cat([first, second], 1)))
        return self.scores(hidden), self.number(hidden)


def keras_two_heads() -> Any:
    keras.utils.set_random_seed(0)
    inputs = {name: keras.Input((n,), name=name) for name, n in (("left", 4), ("right", 2))}
    hidden = keras.layers.Concatenate()(list(inputs.values()))
    hidden = keras.layers.Dense(16, activation="relu")(hidden)
    return keras.Model(inputs, [keras.layers.Dense(5)(hidden), keras.layers.Dense(1)(hidden)])


@pytest.mark.parametrize("student", [TwoHeads, keras_two_heads])
def test_several_inputs_and_outputs_keep_their_order_names_and_types(student: Any) -> None:
    made = Network()
    doubles = made.input("b", 4, kind=TensorProto.DOUBLE)
    h = made.op(
        "Concat", made.op("Cast", doubles, to=TensorProto.FLOAT), made.input("a", 2), axis=1
    )
    h = made.op("Relu", made.dense(h, 6, 64))
    made.nodes.append(
        helper.make_node("Cast", [made.dense(h, 64, 1)], ["number"], to=TensorProto.DOUBLE)
    )
    model = made.model(made.dense(h, 64, 5), "number")
    random = np.random.default_rng(0)
    rows = {"b": random.standard_normal((300, 4)), "a": random.standard_normal((300, 2))}
    about = subject(model, {"b": rows["b"], "a": rows["a"].astype(np.float32)})
    variant, lines = taught(about, student)
    assert takes(variant.model) == takes(model)
    found = run(variant.model, about.rows)
    for name, array in about.answers.items():
        assert found[name].dtype == array.dtype
        error = np.mean((found[name] - array) ** 2) / np.var(array)
        assert error < 0.5, (name, error, lines)


class Sum(keras.Model):
    """A class of its own, of a list of inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = keras.layers.Dense(16, activation="tanh")
        self.last = keras.layers.Dense(1)

    def call(self, both: Any) -> Any:
        return self.last(self.hidden(keras.ops.concatenate(both, axis=1)))


class Apart(Sum):
    """Whose second argument Keras forgets."""

    def call(self, first: Any, second: Any) -> Any:
        return super().call([first, second])


@pytest.mark.usefixtures("few_steps")
def test_what_cannot_be_converted_is_told() -> None:
    made = Network()
    h = made.op("Concat", *[made.input(name, 3) for name in "ab"], axis=1)
    model = made.model(made.dense(made.op("Tanh", made.dense(h, 6, 16)), 16, 1))
    rows = np.random.default_rng(0).standard_normal((2, 64, 3)).astype(np.float32)
    with pytest.raises(UnsupportedError, match="it is not converted: TypeError: missing"):
        taught(subject(model, {"a": rows[0], "b": rows[1]}), Apart)


@pytest.mark.parametrize("student", [lambda: TwoArms(), Sum])
def test_large_numbers_are_scaled_around_the_student(student: Any) -> None:
    made = Network()
    inputs = [made.input(name, 3) for name in ("a", "b")]
    small = [made.op("Mul", x, made.constant(np.float32(1e-4))) for x in inputs]
    h = made.op("Tanh", made.dense(made.op("Concat", *small, axis=1), 6, 64))
    h = made.op("Mul", made.dense(h, 64, 1), made.constant(np.float32(2e5)))
    model = made.model(made.op("Add", h, made.constant(np.float32(1e6))))
    random = np.random.default_rng(0)
    rows = {x: (1e4 * random.standard_normal((300, 3)) + 5e3).astype(np.float32) for x in "ab"}
    about = subject(model, rows)
    variant, lines = taught(about, student)
    (name,) = about.answers
    found, wanted = run(variant.model, rows)[name], about.answers[name]
    assert 1 - np.mean((found - wanted) ** 2) / wanted.var() > 0.6, lines


class TwoArms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = small(6, 1)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.body(torch.cat([first, second], 1))
        return found


def told(about: Subject, student: Any, **changes: Any) -> str:
    """What is reported before a student learns; it is not converted."""

    def stop(*_: object) -> Artifact:
        raise UnsupportedError("enough")

    lines: list[str] = []
    about = replace(about, student=replace(own_student(student), convert=stop), **changes)
    with pytest.raises(UnsupportedError, match="enough"):
        list(OwnStudentPass().variants(about, lines.append))
    return lines[0]


@pytest.mark.usefixtures("few_steps")
def test_numbers_are_learned_with_what_is_right() -> None:
    made = Network()
    x = made.input("x", 3)
    model = made.model(made.dense(made.op("Tanh", made.dense(x, 3, 32)), 32, 1))
    rows = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    about = subject(model, {"x": rows})
    (answers,) = about.answers.values()
    for student in (lambda: small(3, 1), lambda: keras.Sequential([keras.layers.Dense(1)])):
        assert "and their labels" in told(about, student, target=answers[:, 0] + 0.01)
    line = told(about, lambda: small(3, 1), target=answers[:, 0] + 100)
    assert "without labels: its answers are farther" in line


@pytest.mark.usefixtures("few_steps")
def test_labels_in_another_order_are_left_out(
    about_digits: Subject, pixels: tuple[Array, Array]
) -> None:
    right = pixels[1][900:1300]
    assert "and their labels" in told(about_digits, keras_cnn, target=right)
    line = told(about_digits, SmallCnn, target=(right + 5) % 10)
    assert "without labels: it is right on 0%" in line


class NoWeights(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :10]


class Diverging(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(x.flatten(1))
        return found / 0.0 if self.training else found


def flat(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), *layers)


@pytest.mark.parametrize(
    ("student", "words"),
    [
        (lambda: flat(small(64, 7)), r"answers \[5, 7\]; the original answers scores .*\[N, 10\]"),
        (lambda: flat(nn.Linear(32, 10)), "refuses the rows: RuntimeError: mat1 and mat2"),
        (lambda: nn.Bilinear(64, 64, 10), "refuses the rows: TypeError"),
        (lambda: flat(nn.Linear(64, 10), nn.Softmax(-1)), "probabilities, the original scores"),
        (NoWeights, "no weights that could learn"),
        (Diverging, "training diverged: after 0 steps the loss is nan"),
        (lambda: keras.Sequential([keras.layers.Dense(10)]), r"answers \[5, 1, 8, 10\]; "),
        (
            lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(10)]),
            "refuses the rows: ValueError: ",
        ),
    ],
)
def test_why_a_student_is_not_taught_is_told(
    about_digits: Subject, student: Any, words: str
) -> None:
    with pytest.raises(UnsupportedError) as raised:
        taught(about_digits, student)
    assert re.search(words, raised.value.line), raised.value.line
    assert "\n" not in raised.value.line


def test_too_little_time_is_told(about_digits: Subject) -> None:
    about = replace(about_digits, student=own_student(SmallCnn), deadline=time.monotonic() + 3)
    with pytest.raises(UnsupportedError, match="too little to train"):
        list(OwnStudentPass().variants(about, lambda line: None))


@pytest.mark.parametrize(
    ("rows", "changes", "words"),
    [
        (200, {}, "not the label of the largest score"),
        (20, {}, "20 rows are too few"),
        (200, {"student": None}, "no student is given"),
    ],
)
def test_what_no_student_can_learn_is_refused(
    rows: int, changes: Mapping[str, Any], words: str
) -> None:
    made = Network()
    scores = made.dense(made.input("x", 4), 4, 3)
    least = made.op("ArgMin", scores, axis=1, keepdims=0)
    array = np.random.default_rng(0).standard_normal((rows, 4)).astype(np.float32)
    about = subject(made.model(scores, least), {"x": array})
    about = replace(about, student=own_student(lambda: small(4, 3)))
    about = replace(about, **changes)
    with pytest.raises(UnsupportedError, match=words):
        raise UnsupportedError(
            OwnStudentPass().refuses(about)
            or str(next(OwnStudentPass().variants(about, lambda line: None)))
        )


@pytest.mark.parametrize(
    ("student", "kind", "words"),
    [
        ("my_models:broken", InputError, "ValueError: no such width"),
        ("my_models:no_network", InputError, "an object of int is no student"),
        ("my_models:absent", NotFoundError, "absent"),
        ("no_models:small_net", NotFoundError, "no_models"),
        ("small_net", InputError, "module:Name"),
        (lambda: 1 / 0, InputError, "ZeroDivisionError"),
        (lambda: torch.zeros(3), InputError, "an object of Tensor is no student"),
        (nn.CrossEntropyLoss, None, ""),
    ],
)
def test_what_makes_no_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, student: Any, kind: Any, words: str
) -> None:
    (tmp_path / "my_models.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    if kind is None:
        assert own_student(student).name == "CrossEntropyLoss"  # a network as others are
        return
    with pytest.raises(kind, match=words) as raised:
        own_student(student)
    assert isinstance(raised.value, ModelportError)
    assert raised.value.where in ("--student", "student")


def test_what_an_interrupted_run_left_is_not_taken_for_a_student_that_may_have_changed(
    about_digits: Subject, tmp_path: Path
) -> None:
    shelf = Shelf(tmp_path, "rows")
    assert shelf._key(OwnStudentPass(), about_digits) != shelf._key(OwnStudentPass(), about_digits)
