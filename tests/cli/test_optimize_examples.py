"""Every example of `optimize` and `compare`, in their help and in the guide, runs as it stands."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline

from modelport import api
from modelport.cli import compare, optimize
from modelport.core.options import PackOptions, RegistryOptions

Run = Callable[..., subprocess.CompletedProcess[str]]

GUIDE = Path(__file__).parents[2] / "docs" / "30-optimize.md"
CODE = {
    "my_metrics.py": "def gain(expected, answers):\n"
    "    return -abs(answers[next(iter(answers))].reshape(-1) - expected).mean()\n",
    "my_models.py": "from torch import nn\n\n\ndef small_net():\n"
    "    return nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))\n",
}


def of_help(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line.startswith("modelport ")]


def of_guide() -> list[str]:
    lines = GUIDE.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ modelport ")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder and a registry in which everything is there that examples name."""
    tmp_path = tmp_path_factory.mktemp("world")
    random = np.random.default_rng(0)
    registry = RegistryOptions(registry=str(tmp_path / "registry"))
    rows = random.normal(size=(1500, 6)).astype(np.float32)
    left = np.where(rows[:, 0] + rows[:, 1] + 0.5 * random.normal(size=1500) > 0, "yes", "no")
    table = pd.DataFrame(rows, columns=[*"abcdef"])
    for trees, alias in ((60, "champion"), (12, "candidate")):
        model = RandomForestClassifier(trees, max_depth=6, random_state=0)
        package = api.pack(model.fit(table[:300], left[:300]), "churn", sample=table[:50],
                           out=tmp_path / alias)  # fmt: skip
        record = api.push(package.path, registry=registry)
        api.promote(f"churn@{record.version}", alias, registry=registry)
    shutil.copytree(tmp_path / "candidate" / "churn", tmp_path / "written" / "churn")
    table.assign(left=left)[200:].to_csv(tmp_path / "rows.csv", index=False)
    _houses(tmp_path, table[:300])
    _mails(tmp_path, random)
    _cats(tmp_path, random, registry)
    _digits(tmp_path, registry)
    for name, code in CODE.items():
        (tmp_path / name).write_text(code)
    return tmp_path


def _houses(folder: Path, table: pd.DataFrame) -> None:
    price = (table["a"] * 3 + table["b"]).to_numpy()
    api.pack(Ridge().fit(table[:100], price[:100]), "houses", sample=table[:50], out=folder)
    table.assign(price=price + 0.1)[100:].to_csv(folder / "houses.csv", index=False)


def _mails(folder: Path, random: np.random.Generator) -> None:
    words = np.asarray([f"word{index}" for index in range(400)])
    spam = random.random(300) < 0.5
    texts = [" ".join([*random.choice(words, 20), *["prize"] * (2 * bad)]) for bad in spam]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts[:100], spam[:100])
    api.pack(model, "mails", sample=texts[:50], out=folder)
    pd.DataFrame({"text": texts[100:]}).to_csv(folder / "mails.csv", index=False)


def _cats(folder: Path, random: np.random.Generator, registry: RegistryOptions) -> None:
    photos = folder / "photos"
    photos.mkdir()
    for index in range(45):
        pixels = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{index}.png")
    weights = numpy_helper.from_array(random.normal(size=(192, 3)).astype(np.float32), "weights")
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "cats",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])], [weights],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "cats.onnx")
    package = api.pack(folder / "cats.onnx", "cats", sample=photos, out=folder,
                       options=PackOptions(image="none"))  # fmt: skip
    shutil.copytree(package.path, folder / "written" / "cats")
    record = api.push(package.path, registry=registry)
    api.promote(f"cats@{record.version}", "champion", registry=registry)


def _digits(folder: Path, registry: RegistryOptions) -> None:
    rows, labels = load_digits(return_X_y=True)
    rows = (rows / 16).astype(np.float32)
    for name, width in (("digits", 24), ("a", 16), ("b", 8)):
        model = MLPClassifier((width,), max_iter=8, random_state=0, early_stopping=True)
        package = api.pack(model.fit(rows[:300], labels[:300]), name, sample=rows[:50], out=folder)
    package = api.pack(model, "digits", sample=rows[:50], out=folder / "registered")
    api.push(package.path, registry=registry)
    np.savez(folder / "rows.npz", input=rows[300:500])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "line", of_help(optimize.EXAMPLES) + of_help(compare.EXAMPLES) + of_guide()
)
def test_the_examples_run(run: Run, world: Path, tmp_path: Path, line: str) -> None:
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    words = shlex.split(line)[1:]
    for word in words[1:]:
        if word.startswith("optimized/"):  # an earlier example has written it
            name = word.removeprefix("optimized/")
            shutil.copytree(world / "written" / name, tmp_path / "optimized" / name)
    done = run(*words, MODELPORT_BUDGET="5s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
