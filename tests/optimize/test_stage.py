"""From a package and rows to a better package, or to none and the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from modelport import adapters, api
from modelport.api.target import split_target
from modelport.core.errors import (
    ConflictError,
    InputError,
    NotFoundError,
    UnsupportedError,
)
from modelport.core.options import OptimizeOptions
from modelport.core.package import Package, open_package
from modelport.core.rows import Rows
from modelport.optimize import search, stage
from modelport.optimize.base import NUMBERS, REDUCE, Pass, Progress, Subject, Variant
from modelport.optimize.frontier import ranking


class Scripted:
    """A pass that proposes what it is told to."""

    tolerance = 0.0

    def __init__(self, *models: bytes, order: str = NUMBERS, name: str = "scripted") -> None:
        self.models = models
        self.order = order
        self.name = name
        self.runs = 0
        self.deadlines: list[float] = []

    def refuses(self, subject: Subject) -> str:
        return ""

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        self.runs += 1
        self.deadlines.append(subject.deadline)
        for index, model in enumerate(self.models):
            yield subject.variant.then(f"{self.name}, {index}", model)


def changed(package: Package, factor: float) -> bytes:
    """The model with its weights multiplied: other answers."""
    model = onnx.load(package.model_path)
    for item in model.graph.initializer:
        if item.data_type == onnx.TensorProto.FLOAT and len(item.dims) == 2:
            noise = np.random.default_rng(0).normal(1, factor, item.dims)
            array = numpy_helper.to_array(item) * noise
            item.CopyFrom(numpy_helper.from_array(array.astype(np.float32), item.name))
    return bytes(model.SerializeToString())


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Pass]:
    chosen: list[Pass] = []
    monkeypatch.setattr(stage, "load_passes", lambda names, **_: chosen)
    return chosen


def run(package: Package, rows: Path, tmp_path: Path, **options: Any) -> Any:
    chosen = OptimizeOptions(target="digit", cache=str(tmp_path / "cache"), **options)
    return api.optimize(str(package.path), rows, out=tmp_path / "out", options=chosen)


def test_a_better_package_is_written_and_opens(
    perceptron: Package, rows_file: Path, tmp_path: Path
) -> None:
    found = run(perceptron, rows_file, tmp_path, max_drop=0.02, passes="float16,load")
    assert found.package is not None, found.report["sentence"]
    package = open_package(found.package.path)
    assert package.manifest.provenance["parent"] == perceptron.digest
    assert package.manifest.signature == perceptron.manifest.signature
    report = json.loads((package.path / "optimization.json").read_text())
    assert report["parent"] == perceptron.digest
    assert report["picked"] in report["sentence"]
    assert report["golden"]["records"] + report["golden"]["labels_changed"] > 0
    assert {item["name"] for item in report["variants"]} >= {"original", "float16", "load"}
    assert json.loads((tmp_path / "out" / "frontier.json").read_text()) == found.report
    assert (tmp_path / "out" / "frontier.svg").read_text().startswith("<?xml")
    assert (tmp_path / "out" / "frontier.png").read_bytes().startswith(b"\x89PNG")
    answers = api.predict(package.path, {"input": np.load(rows_file)["input"][:9]})
    assert len(answers["label"]) == 9
    assert not list((tmp_path / "cache").rglob("*.onnx"))


def test_nothing_is_written_when_nothing_wins(
    perceptron: Package, rows_file: Path, tmp_path: Path, passes: list[Pass]
) -> None:
    passes.append(Scripted(changed(perceptron, 3.0), b"no model at all"))
    found = run(perceptron, rows_file, tmp_path)
    assert found.package is None
    assert not (tmp_path / "out" / "perceptron").exists()
    assert "the original stays" in found.report["sentence"]
    verdicts = {item["name"]: item.get("verdict") or item.get("failed")
                for item in found.report["variants"]}  # fmt: skip
    assert verdicts["scripted, 0"].startswith("loses 0.")
    assert "cannot load" in verdicts["scripted, 1"]


def test_too_few_rows_say_how_many_are_needed(
    perceptron: Package, rows_file: Path, tmp_path: Path
) -> None:
    with np.load(rows_file) as archive:
        np.savez(tmp_path / "few.npz", **{name: archive[name][:90] for name in archive.files})
    found = run(perceptron, tmp_path / "few.npz", tmp_path, passes="float16", max_drop=0.005)
    assert found.package is None
    assert "rows are too few to tell a loss of 0.005; about" in found.report["sentence"]
    with np.load(rows_file) as archive:
        np.savez(tmp_path / "fewer.npz", **{name: archive[name][:20] for name in archive.files})
    with pytest.raises(InputError, match="20 rows are too few"):
        run(perceptron, tmp_path / "fewer.npz", tmp_path)


def test_what_only_holds_on_the_rows_it_was_chosen_by_is_not_written(
    perceptron: Package, rows_file: Path, tmp_path: Path, passes: list[Pass],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    passes.append(Scripted(changed(perceptron, 3.0)))
    # As if it had been good by chance: the frontier lets it pass.
    monkeypatch.setattr(
        stage, "ranking", lambda points: ranking([replace(p, verdict="") for p in points])
    )
    found = run(perceptron, rows_file, tmp_path)
    assert found.package is None
    (failed,) = found.report["did_not_hold"]
    assert "on rows that it had not seen" in failed["why"]
    assert found.report["sentence"].startswith("nothing is emitted: scripted, 0 loses")


def test_an_interrupted_run_goes_on(
    perceptron: Package, rows_file: Path, tmp_path: Path, passes: list[Pass],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    scripted = Scripted(changed(perceptron, 1e-6))
    passes.append(scripted)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "frontier", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(perceptron, rows_file, tmp_path)
    run(perceptron, rows_file, tmp_path)
    assert scripted.runs == 1


def test_later_passes_build_on_earlier_ones(
    perceptron: Package, rows_file: Path, tmp_path: Path
) -> None:
    found = run(perceptron, rows_file, tmp_path, passes="load,int8-dynamic")
    names = [item["name"] for item in found.report["variants"]]
    assert "int8-dynamic + load" in names
    assert "load + int8-dynamic" not in names


def test_passes_begin_within_the_budget(
    perceptron: Package, rows_file: Path, tmp_path: Path
) -> None:
    found = run(perceptron, rows_file, tmp_path, budget="0s")
    assert found.package is None
    whys = {item["why"] for item in found.report["passes_without_effect"]}
    assert "the time was up (--budget)" in whys


def test_what_shrinks_a_model_ends_early_enough_for_the_others(
    perceptron: Package, rows_file: Path, tmp_path: Path, passes: list[Pass]
) -> None:
    shrinks = Scripted(changed(perceptron, 1e-6), order=REDUCE, name="shrinks")
    rounds = Scripted(changed(perceptron, 1e-5), name="rounds")
    passes += [shrinks, rounds]
    found = run(perceptron, rows_file, tmp_path, budget="1h")
    assert 0.39 * 3600 < rounds.deadlines[0] - shrinks.deadlines[0] < 0.41 * 3600
    names = [item["name"] for item in found.report["variants"]]
    assert "shrinks, 0 + rounds, 0" in names


def test_what_one_pass_cannot_do_costs_nothing_else(
    perceptron: Package, rows_file: Path, tmp_path: Path, passes: list[Pass]
) -> None:
    class Broken(Scripted):
        def refuses(self, subject: Subject) -> str:
            raise ValueError("a node it does not know")

    model = changed(perceptron, 1e-6)
    passes += [Broken(name="broken"), Scripted(model, model)]
    found = run(perceptron, rows_file, tmp_path)
    assert len(found.report["variants"]) == 3
    (told,) = found.report["passes_without_effect"]
    assert told["pass"] == "broken"
    assert told["why"] == (
        "a defect in modelport: ValueError: a node it does not know; MODELPORT_DEBUG=1 shows "
        "where: please report it"
    )


def test_variants_of_the_same_name_are_told_apart(
    perceptron: Package, rows_file: Path, tmp_path: Path, passes: list[Pass]
) -> None:
    class Alike(Scripted):
        def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
            for model in self.models:
                yield subject.variant.then(self.name, model)

    passes.append(Alike(changed(perceptron, 1e-6), changed(perceptron, 1e-5)))
    found = run(perceptron, rows_file, tmp_path)
    names = [item["name"] for item in found.report["variants"]]
    assert sorted(names) == ["original", "scripted", "scripted (2)"]


def test_where_it_cannot_be_written_is_said_before_the_work(
    perceptron: Package, rows_file: Path, tmp_path: Path, passes: list[Pass]
) -> None:
    passes.append(Scripted())
    (tmp_path / "out").mkdir()
    shutil.copytree(perceptron.path, tmp_path / "out" / "perceptron")
    with pytest.raises(ConflictError, match="another package exists"):
        run(perceptron, rows_file, tmp_path)


@pytest.mark.parametrize("max_drop", [0.0, -0.1, float("nan"), float("inf"), 1.0])
def test_budgets_that_mean_nothing_are_refused(
    perceptron: Package, rows_file: Path, tmp_path: Path, max_drop: float
) -> None:
    with pytest.raises(InputError, match="--max-drop is"):
        run(perceptron, rows_file, tmp_path, max_drop=max_drop, passes="load")


def test_where_the_right_answers_come_from(perceptron: Package, tmp_path: Path) -> None:
    rows = Rows({"input": np.zeros((40, 64)), "digit": np.arange(40), "short": np.arange(39)})
    rest, answers = split_target(rows, "digit", perceptron)
    assert list(rest.columns) == ["input", "short"]
    assert answers is not None
    assert len(answers) == 40
    kept, _ = split_target(rows, "input", perceptron)  # the model takes it: it stays
    assert "input" in kept.columns
    with pytest.raises(InputError, match="short holds 39 answers to 40 rows"):
        split_target(rows, "short", perceptron)
    with pytest.raises(InputError, match="holds nothing but 'digit'"):
        split_target(Rows({"digit": np.arange(40)}), "digit", perceptron)
    (tmp_path / "two.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="holds 2 columns: a, b"):
        split_target(rows, str(tmp_path / "two.csv"), perceptron)
    (tmp_path / "one.csv").write_text("digit\n" + "7\n" * 40)
    assert split_target(rows, str(tmp_path / "one.csv"), perceptron)[1] is not None


def test_a_native_package_is_refused(tmp_path: Path, perceptron: Package) -> None:
    native = replace(perceptron, manifest=replace(perceptron.manifest, engine="torch"))
    with pytest.raises(UnsupportedError, match="only ONNX models are optimized"):
        stage.optimize(native, stage.Request({"input": np.zeros((90, 64))}), print)


def test_passes_are_known_by_name() -> None:
    names = [one.name for one in search.load_passes(("load", "float16"))]
    assert names == ["float16", "load"]  # in their order


def test_passes_are_excluded_by_a_dash() -> None:
    names = {one.name for one in search.load_passes(("-load", "-float16"))}
    assert "int8-dynamic" in names
    assert not names & {"load", "float16"}
    assert [one.name for one in search.load_passes(("load", "float16", "-load"))] == ["float16"]
    with pytest.raises(InputError, match="no pass is left"):
        search.load_passes(("load", "-load"))
    with pytest.raises(NotFoundError, match="pass not found: magic; there is"):
        search.load_passes(("-magic",))


def test_passes_whose_packages_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "_is_installed", lambda name: name != "torch")
    missing = {item.name: item.why for item in search.missing_passes(())}
    assert missing["channels"] == "needs torch: pip install 'modelport[distil]'"
    assert "channels" not in {item.name for item in search.missing_passes(("-channels",))}
    assert search.missing_passes(("load",)) == []
