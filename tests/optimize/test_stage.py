"""From a package and rows to a better package, or to none and the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from modelport import api
from modelport.core.errors import InputError, UnsupportedError
from modelport.core.options import OptimizeOptions
from modelport.core.package import Package, open_package
from modelport.optimize import search, stage
from modelport.optimize.base import NUMBERS, Pass, Progress, Subject, Variant


class Scripted:
    """A pass that proposes what it is told to."""

    name = "scripted"
    order = NUMBERS

    def __init__(self, *models: bytes, files: dict[str, bytes] | None = None) -> None:
        self.models = models
        self.runs = 0

    def refuses(self, subject: Subject) -> str:
        return ""

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        self.runs += 1
        for index, model in enumerate(self.models):
            yield subject.variant.then(f"scripted, {index}", model)


def changed(package: Package, factor: float) -> bytes:
    """The model with its weights multiplied: other answers."""
    model = onnx.load(package.model_path)
    for item in model.graph.initializer:
        if item.data_type == onnx.TensorProto.FLOAT and len(item.dims) == 2:
            noise = np.random.default_rng(0).normal(1, factor, item.dims)
            array = numpy_helper.to_array(item) * noise
            item.CopyFrom(numpy_helper.from_array(array.astype(np.float32), item.name))
    return model.SerializeToString()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Pass]:
    chosen: list[Pass] = []
    monkeypatch.setattr(stage, "load_passes", lambda names: chosen)
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
    ranking = stage.ranking
    monkeypatch.setattr(
        stage, "ranking", lambda points: ranking([replace(p, verdict="") for p in points])
    )
    found = run(perceptron, rows_file, tmp_path)
    assert found.package is None
    (failed,) = found.report["did_not_hold"]
    assert "on rows that it had not seen" in failed["why"]


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
    found = run(perceptron, rows_file, tmp_path, passes="load,float16")
    names = [item["name"] for item in found.report["variants"]]
    assert "float16 + load" in names
    assert "load + float16" not in names


def test_passes_begin_within_the_budget(
    perceptron: Package, rows_file: Path, tmp_path: Path
) -> None:
    found = run(perceptron, rows_file, tmp_path, budget="0s")
    assert found.package is None
    whys = {item["why"] for item in found.report["passes_without_effect"]}
    assert "the time was up (--budget)" in whys


def test_a_native_package_is_refused(tmp_path: Path, perceptron: Package) -> None:
    native = replace(perceptron, manifest=replace(perceptron.manifest, engine="torch"))
    with pytest.raises(UnsupportedError, match="only ONNX models are optimized"):
        stage.optimize(native, stage.Request({"input": np.zeros((90, 64))}), print)


def test_passes_are_known_by_name() -> None:
    names = [one.name for one in search.load_passes(("load", "float16"))]
    assert names == ["float16", "load"]  # in their order
