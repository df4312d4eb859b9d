"""XGBoost for many rows: which models get it, from how many rows on, and what the package does."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from xgboost import XGBClassifier

from modelport import api
from modelport.core.errors import UnsupportedError
from modelport.core.package import open_package
from modelport.core.signature import Signature
from modelport.core.tensors import Array, Tensors
from modelport.optimize.base import Subject, Variant
from modelport.optimize.emit import emit
from modelport.optimize.evaluate import Bench
from modelport.optimize.passes import bulk
from modelport.optimize.passes.load import LoadPass
from modelport.optimize.passes.trees import TreesPass
from modelport.optimize.shelf import Shelf
from modelport.optimize.stage import Request, optimize
from modelport.package.stage import build_package
from tests.engines.forests import engine, graph
from tests.optimize.tables import Packed, packed, two_classes

Gain = Callable[[float], None]


@pytest.fixture(scope="module")
def boosted(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    rows, labels = two_classes()
    model = XGBClassifier(n_estimators=40, max_depth=4, n_jobs=1).fit(rows[:1000], labels[:1000])
    return packed(model, rows, tmp_path_factory.mktemp("boosted"))


@pytest.fixture
def faster_from(monkeypatch: pytest.MonkeyPatch) -> Gain:
    """XGBoost is twice as fast for so many rows, whatever this machine does."""

    def choose(rows: float) -> None:
        def gain(few: Any, many: Any, batch: Tensors) -> float:
            return 2.0 if len(next(iter(batch.values()))) >= rows else 0.5

        monkeypatch.setattr(bulk, "_gain", gain)

    return choose


def variants(subject: Subject) -> list[Variant]:
    one = bulk.BulkPass()
    assert one.refuses(subject) == ""
    return list(one.variants(subject, lambda line: None))


@pytest.mark.parametrize("rows", [16, 512, 4096])
def test_the_metadata_says_from_how_many_rows_on(
    boosted: Packed, faster_from: Gain, rows: int
) -> None:
    faster_from(rows)
    (found,) = variants(boosted.subject)
    assert found.engine == "forest"
    assert found.name == f"bulk, XGBoost from {rows} rows on"
    assert found.detail == {"bulk": {"rows": rows}}
    written = onnx.load_from_string(found.model)
    told = {item.key: item.value for item in written.metadata_props}
    assert told["modelport.bulk_rows"] == str(rows)
    assert len(found.model) < len(boosted.model) + 50
    answers = engine("forest", found.model).run(boosted.held)
    for name, array in boosted.expected.items():
        np.testing.assert_array_equal(answers[name], array)


def test_it_is_refused_where_xgboost_is_never_faster(boosted: Packed, faster_from: Gain) -> None:
    faster_from(np.inf)
    with pytest.raises(UnsupportedError, match="no faster even for 4,096 rows at once"):
        variants(boosted.subject)


def test_times_are_really_taken(boosted: Packed) -> None:
    with contextlib.suppress(UnsupportedError):  # on a machine where it is no faster
        (found,) = variants(boosted.subject)
        assert found.detail["bulk"]["rows"] in bulk._SIZES


def test_it_says_what_it_does_not_apply_to(boosted: Packed) -> None:
    one, subject = bulk.BulkPass(), boosted.subject
    chosen = replace(subject, variant=replace(subject.variant, engine="forest"))
    assert "already" in one.refuses(chosen)
    negative = graph([helper.make_node("Neg", ["x"], ["y"])], {"y": TensorProto.FLOAT})
    plain = replace(subject, variant=Variant("original", negative.SerializeToString()))
    assert one.refuses(plain) == "no trees"
    inputs = tuple(replace(spec, shape=(8, 12)) for spec in subject.signature.inputs)
    fixed = Signature(inputs, subject.signature.outputs)
    assert "fixed" in one.refuses(replace(subject, signature=fixed))


@dataclass(frozen=True)
class Fixed:
    """A model that answers the same."""

    answer: dict[str, Array]
    signature: Any = None

    def run(self, inputs: Tensors) -> dict[str, Array]:
        return self.answer


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"label": np.array([1, 1]), "p": np.array([0.5, 0.25])}, "label: 1 of 2 differ"),
        ({"label": np.array([0, 1]), "p": np.array([0.5, 0.2501])}, "p: max error 0.0001"),
        ({"label": np.array([0, 1]), "p": np.array([0.5, np.nan])}, "p: "),
    ],
)
def test_one_other_answer_is_enough_to_refuse(other: dict[str, Array], why: str) -> None:
    one = Fixed({"label": np.array([0, 1]), "p": np.array([0.5, 0.25])})
    with pytest.raises(UnsupportedError, match=why):
        bulk._agree(one, Fixed(other), {"x": np.zeros((2, 2), dtype=np.float32)})


def test_rows_are_hurt_without_changing_what_they_are() -> None:
    rows = {"x": np.ones((100, 5), dtype=np.float32), "n": np.arange(100)}
    found = bulk._hurt(rows)
    assert np.isnan(found["x"]).any()
    assert np.isinf(found["x"]).any()
    np.testing.assert_array_equal(found["n"], rows["n"])
    assert {name: array.dtype for name, array in found.items()} == {
        name: array.dtype for name, array in rows.items()
    }


def test_what_the_shelf_keeps_is_what_was_put_there(
    boosted: Packed, faster_from: Gain, tmp_path: Path
) -> None:
    faster_from(64)
    shelf, one = Shelf(tmp_path, "rows"), bulk.BulkPass()
    (made,) = shelf.variants(one, boosted.subject, lambda line: None)
    faster_from(np.inf)  # it would refuse now
    (kept,) = shelf.variants(one, boosted.subject, lambda line: None)
    assert kept == made
    for other in (
        replace(boosted.subject, task="other"),
        replace(boosted.subject, target=np.arange(3)),
        replace(boosted.subject, variant=replace(boosted.subject.variant, name="another")),
        replace(boosted.subject, variant=replace(boosted.subject.variant, files={"a": b"b"})),
    ):
        with pytest.raises(UnsupportedError):
            list(shelf.variants(one, other, lambda line: None))


def test_from_a_package_to_a_package_that_answers(faster_from: Gain, tmp_path: Path) -> None:
    faster_from(32)
    rows, labels = two_classes()
    rows = rows.copy()
    rows[::9, 3] = np.nan
    model = XGBClassifier(n_estimators=30, n_jobs=1).fit(rows[:900], labels[:900])
    parent = api.pack(model, "trees", sample=rows[:100], out=tmp_path / "in")
    outcome = optimize(parent, Request({"input": rows[900:]}, passes=("bulk",)), lambda line: None)
    first, second = (point.measured for point in outcome.points)
    assert second.variant.engine == "forest"
    assert second.loss is not None
    assert second.loss.value == 0
    assert second.bulk is not None
    assert second.bulk.batch == 4096
    assert first.bulk is not None
    assert first.bulk.batch <= 64

    bench = Bench(1, 0.01)
    report = {"sentence": "two runtimes"}
    artifact = emit(
        parent, second.variant, report, lambda given: bench.answers(second.variant, given)
    )
    found = open_package(build_package(artifact, "trees", tmp_path / "out").path)
    assert found.manifest.engine == "forest"
    assert found.manifest.signature == parent.manifest.signature
    told = json.loads((found.path / "optimization.json").read_text())
    assert told["golden"]["labels_changed"] == 0
    for count in (1, 31, 32, 1500):
        expected = api.predict(parent.path, rows[:count])
        answers = api.predict(found.path, rows[:count])
        np.testing.assert_array_equal(answers["label"], expected["label"])
        np.testing.assert_allclose(
            answers["probabilities"], expected["probabilities"], rtol=0, atol=1e-5
        )


def test_a_package_with_two_runtimes_is_optimized_like_any_other(
    boosted: Packed, faster_from: Gain
) -> None:
    """Its file is ONNX: what passes make of it keeps the metadata, and the engine."""
    faster_from(64)
    (found,) = variants(boosted.subject)
    subject = replace(boosted.subject, variant=found)
    for one in (LoadPass(), TreesPass()):
        made = next(iter(one.variants(subject, lambda line: None)))
        assert made.engine == "forest"
        answers = engine("forest", made.model).run(boosted.held)
        np.testing.assert_allclose(
            answers["probabilities"], boosted.expected["probabilities"], atol=1e-5
        )


def test_what_makes_a_label_unequal_leaves_the_golden_records(
    boosted: Packed, tmp_path: Path
) -> None:
    """NaN for a number is no rounding: no tolerance would let the package open."""
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    made = helper.make_graph(
        [helper.make_node("Exp", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )  # fmt: skip
    content = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path / "exp.onnx"
    path.write_bytes(content.SerializeToString())
    parent = api.pack(str(path), "exp", sample={"x": rows}, out=tmp_path / "in")
    golden = parent.golden()
    assert golden is not None
    variant = Variant("half", parent.model_path.read_bytes(), ("half",))

    def answer(given: Tensors) -> Tensors:
        found = np.exp(given["x"])
        found[0, 0], found[1] = np.nan, np.inf
        found[2] += 0.5
        return {"y": found}

    artifact = emit(parent, variant, {"sentence": ""}, answer)
    assert artifact.golden is not None
    assert artifact.golden.rows == golden.rows - 2
    largest = np.abs(artifact.golden.outputs["y"]).max()
    assert 0.5 / largest <= artifact.tolerance.absolute <= 1.1
