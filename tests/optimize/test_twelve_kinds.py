"""What `optimize` promises, for every kind of model: on rows that it has not seen."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport import api
from modelport.core.errors import UnsupportedError
from modelport.core.options import OptimizeOptions
from modelport.core.package import Package, open_package
from modelport.core.tensors import Tensors
from modelport.optimize.measure import timing
from modelport.serve.models import prove, with_processing
from tests.optimize.drawn import Drawn
from tests.optimize.kinds import KINDS, Kind
from tests.optimize.made import Made, lost
from tests.optimize.networks import Network

#: Keras 3 asks TensorFlow for arrays in a way that NumPy 2 has a word about.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

_ROWS = 1200
_FRESH = 3000
#: Of a normal distribution, one-sided: one test in 700 would fail by chance at the very edge of
#: the budget.
_SIGMAS = 3.0

#: What a programmer reads and nobody else.
_EXCEPTION = re.compile(
    r"Error\b|Exception|Traceback|NoneType|object has no attribute|ONNXRuntime|unexpected keyword"
    r"|a defect|out of range|not subscriptable|<class |unsupported operand|could not be broadcast"
    r"|^'|None"
)


@dataclass(frozen=True)
class Case:
    """A trained model and its package."""

    name: str
    kind: Kind
    made: Made
    package: Package

    def rows(self, count: int, seed: int) -> Drawn:
        return self.made.named(self.package, count, seed)


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name = request.param
    made = KINDS[name].make(1)
    package = made.package(name, tmp_path_factory.mktemp(name))
    return Case(name, KINDS[name], made, package)


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here depends on how exact times are, only on what the report says of them."""
    monkeypatch.setattr(timing, "_ROUND_SECONDS", 0.003)


def optimized(
    case: Case, rows: int, tmp_path: Path, *, labels: bool, passes: str = "", **options: Any
) -> api.Optimization:
    given, right = case.rows(rows, 9)
    chosen = OptimizeOptions(
        target="right" if labels else "", passes=passes or ",".join(case.kind.passes),
        cache=str(tmp_path / "cache"), **{"max_drop": case.kind.max_drop, **options},
    )  # fmt: skip
    data = {**given, "right": right} if labels else given
    return api.optimize(str(case.package.path), data, out=tmp_path / "out", options=chosen)


@pytest.mark.parametrize("labels", [True, False], ids=["labels", "no-labels"])
def test_never_a_worse_model(case: Case, labels: bool, tmp_path: Path) -> None:
    if labels and case.made.vectors:
        pytest.skip("there are no right answers to a vector")
    found = optimized(case, _ROWS, tmp_path, labels=labels)
    every_pass_says_what_became_of_it(found.report, case.kind.passes)
    if found.package is None:
        assert found.report["picked"] is None
        return
    child = open_package(found.package.path)
    not_slower_or_smaller(found.report)
    says_where_it_comes_from(child, case.package, found.report)
    assert prove(child, with_processing(child, loaded(child))) > 0
    inside_the_budget(case, child, labels)


def every_pass_says_what_became_of_it(report: Any, passes: tuple[str, ...]) -> None:
    made = {one for item in report["variants"] for one in item["name"].split(" + ")}
    made = {name.partition(",")[0] for name in made}
    refused = {item["pass"]: item["why"] for item in report["passes_without_effect"]}
    assert set(passes) <= made | set(refused)
    sentences = [item["why"] for item in report["passes_without_effect"]]
    sentences += [item["verdict"] for item in report["variants"] if item.get("verdict")]
    for sentence in sentences:
        assert 10 < len(sentence) < 300 or sentence in ("slower", "not timed"), sentence
        assert not _EXCEPTION.search(sentence), sentence
        assert "\n" not in sentence
    assert not [item for item in report["variants"] if "failed" in item]


def not_slower_or_smaller(report: Any) -> None:
    by_name = {item["name"]: item for item in report["variants"]}
    original, picked = by_name["original"], by_name[report["picked"]]
    _, high = picked["one_row"]["speedup_interval"]
    assert high >= 1 or picked["bytes"] < original["bytes"]
    assert picked["loss"]["high"] <= report["max_drop"]
    assert report["held_out"]["loss"]["value"] <= report["max_drop"]


def says_where_it_comes_from(child: Package, parent: Package, report: Any) -> None:
    assert child.manifest.provenance["parent"] == parent.digest
    assert child.manifest.signature == parent.manifest.signature
    assert child.manifest.task == parent.manifest.task
    inside = json.loads((child.path / "optimization.json").read_text())
    assert inside["parent"] == parent.digest
    assert inside["picked"] == report["picked"] != "original"
    assert inside["golden"]["records"] > 0


def loaded(package: Package) -> Any:
    from modelport.adapters import find_adapter
    from modelport.engines.base import EngineOptions

    engine = find_adapter("engine", package.manifest.engine).load()
    return engine.load(package.model_path, EngineOptions(threads=1))


def inside_the_budget(case: Case, child: Package, labels: bool) -> None:
    """On rows of which neither the training nor `optimize` had any."""
    rows, right = case.rows(_FRESH, 77)
    before, after = (answers(package, rows) for package in (case.package, child))
    loss, error = lost(case.made, before, after, right if labels else None)
    assert loss - _SIGMAS * error <= case.kind.max_drop


def answers(package: Package, rows: Any) -> Tensors:
    if package.manifest.signature.batch_symbol:
        return api.predict(package.path, rows)
    model = loaded(package)
    parts = [model.run({name: array[at : at + 1] for name, array in rows.items()})
             for at in range(len(next(iter(rows.values()))))]  # fmt: skip
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("case", ["cnn", "text", "columns"], indirect=True)
@pytest.mark.parametrize("rows", [31, 90])
def test_too_few_rows(case: Case, rows: int, tmp_path: Path) -> None:
    """Nothing is written; the sentence has a number, which is more than there were."""
    passes = case.kind.passes[0]
    found = optimized(case, rows, tmp_path, labels=True, max_drop=0.002, passes=passes)
    assert found.package is None
    assert not (tmp_path / "out" / case.name).exists()
    assert float(re.findall(r"[\d,]+", found.report["sentence"])[-1].replace(",", "")) > rows


@pytest.mark.parametrize("case", ["cnn"], indirect=True)
@pytest.mark.parametrize("metric", ["f1", "recall"])
def test_too_few_rows_for_other_metrics_of_labels(case: Case, metric: str, tmp_path: Path) -> None:
    """Rows that never differ have no bootstrap; that says nothing about those to come."""
    found = optimized(
        case, 90, tmp_path, labels=True, metric=metric, max_drop=0.002, passes="float16"
    )
    assert found.package is None


@pytest.mark.parametrize("case", ["perceptron"], indirect=True)
def test_passes_that_train(case: Case, tmp_path: Path) -> None:
    found = optimized(
        case, _ROWS, tmp_path, labels=False, passes="channels,prune,layers,network-student",
        budget="20s", max_drop=0.05,
    )  # fmt: skip
    passes = ("channels", "prune", "layers", "network-student")
    every_pass_says_what_became_of_it(found.report, passes)
    if found.package is not None:
        not_slower_or_smaller(found.report)
        assert prove(found.package, with_processing(found.package, loaded(found.package))) > 0


def test_rows_that_cannot_be_told_apart(tmp_path: Path) -> None:
    """A graph that answers with another number of rows than it is asked."""
    network = Network()
    hidden = network.op("Relu", network.dense(network.input("x", 4), 4, 64))
    model = network.model(network.op("Transpose", network.op("NonZero", hidden)))
    rows = np.random.default_rng(0).standard_normal((90, 4)).astype(np.float32)
    package = Made(model, lambda count, seed: ({"x": rows[:count]}, rows)).package("odd", tmp_path)
    with pytest.raises(UnsupportedError, match="does not answer row by row"):
        api.optimize(str(package.path), rows, out=tmp_path / "out")


def test_answers_of_one_number_and_of_labels(tmp_path: Path) -> None:
    """Beside each other, and none of them a matrix."""
    network = Network()
    scores = network.dense(network.op("Relu", network.dense(network.input("x", 4), 4, 64)), 64, 3)
    label = network.op("ArgMax", scores, axis=1, keepdims=0)
    model = network.model(label, network.op("ReduceMax", scores, axes=[1], keepdims=0))
    rows = np.random.default_rng(0).standard_normal((900, 4)).astype(np.float32)
    package = Made(model, lambda count, seed: ({"x": rows[:count]}, rows)).package("odd", tmp_path)
    passes = ("float16", "int8-static", "int8-dynamic", "load")
    options = OptimizeOptions(passes=",".join(passes), cache=str(tmp_path / "cache"))
    found = api.optimize(str(package.path), rows, out=tmp_path / "out", options=options)
    every_pass_says_what_became_of_it(found.report, passes)
