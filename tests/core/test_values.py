"""Tensors, signatures, comparisons and settings: the rules that everything rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.core.compare import TOLERANCES, Tolerance, compare
from modelport.core.digest import canonical_json
from modelport.core.errors import (
    InputError,
    MissingPackageError,
    ModelportError,
    NotFoundError,
    SignatureError,
)
from modelport.core.golden import GoldenRecords, choose_rows, golden_rows
from modelport.core.lazy import load_module
from modelport.core.options import ServeOptions
from modelport.core.settings import resolve
from modelport.core.signature import Signature
from modelport.core.source import Source
from modelport.core.tensors import TensorSpec, dtype_name

FLOAT = TensorSpec("x", "float32", ("N", 3))


def floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_a_fitting_array_is_passed_on_uncopied() -> None:
    array = floats(5, 3)
    assert FLOAT.check(array) is array


def test_a_missing_trailing_one_is_added() -> None:
    column = TensorSpec("age", "float32", ("N", 1))
    assert column.check(floats(4)).shape == (4, 1)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 3)), r"element type float64, expected float32"),
        (floats(3), r"shape \[3\], expected \[N, 3\]"),
        (floats(1, 4), r"shape \[1, 4\], expected \[N, 3\]"),
        (floats(1, 1, 3), r"shape \[1, 1, 3\]"),
    ],
)
def test_misfits_say_what_is_needed(array: np.ndarray, message: str) -> None:
    with pytest.raises(SignatureError, match=message):
        FLOAT.check(array)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("refuses", [(), ("nan",), ("infinity",), ("nan", "infinity")])
def test_special_values(value: float, refuses: tuple[str, ...]) -> None:
    spec = TensorSpec("x", "float32", ("N", 3), refuses=refuses)
    array = floats(2, 3)
    array[1, 2] = value
    if ("nan" if np.isnan(value) else "infinity") in refuses:
        with pytest.raises(SignatureError, match=r"at \[1, 2\]"):
            spec.check(array)
    else:
        spec.check(array)


def test_large_numbers_are_not_infinite() -> None:
    spec = TensorSpec("x", "float32", ("N", 3), refuses=("nan", "infinity"))
    spec.check(np.full((2, 3), 3e38, np.float32))  # whose square overflows


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "float128"])
def test_types_that_no_signature_holds(dtype: str) -> None:
    with pytest.raises(SignatureError, match="unsupported element type"):
        dtype_name(np.zeros(1, dtype))


TWO = Signature(
    (TensorSpec("a", "float32", ("N", 2)), TensorSpec("b", "int64", ("N",))),
    (TensorSpec("y", "float32", ("N",)),),
)


def test_inputs_come_back_in_order() -> None:
    tensors = {"b": np.zeros(4, np.int64), "a": floats(4, 2)}
    assert list(TWO.check(tensors)) == ["a", "b"]
    assert TWO.batch_symbol == "N"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "missing input: b"),
        (["a", "b", "c"], "unknown input: c"),
        (["c"], "missing input: a, b; unknown input: c; the model takes: a, b"),
    ],
)
def test_names_must_match(names: list[str], message: str) -> None:
    with pytest.raises(SignatureError, match=message):
        TWO.check({name: floats(1, 2) for name in names})


def test_one_symbol_has_one_size() -> None:
    with pytest.raises(SignatureError, match=r"dimension N is 4 in input a and 5 in input b"):
        TWO.check({"a": floats(4, 2), "b": np.zeros(5, np.int64)})


def test_signatures_round_trip() -> None:
    spec = TensorSpec("x", "float32", ("N", 2), ("a", "b"), ("nan",))
    signature = Signature((spec,), TWO.outputs)
    assert Signature.from_json(signature.to_json()) == signature


def test_names_are_unique() -> None:
    with pytest.raises(SignatureError, match="input names repeat: x"):
        Signature((FLOAT, FLOAT), TWO.outputs)


LOOSE = Tolerance(relative=1e-4, absolute=1e-5)


@pytest.mark.parametrize(
    ("expected", "actual", "agrees"),
    [
        ([1.0], [1.00009], True),
        ([1.0], [1.0002], False),
        ([0.0, 100.0], [0.0009, 100.0], True),  # the scale is 100
        ([0.0, 1.0], [0.0009, 1.0], False),
        ([np.nan], [np.nan], True),
        ([np.nan], [0.0], False),
        ([np.inf], [np.inf], True),
        ([np.inf], [-np.inf], False),
        ([1.0], [np.nan], False),
    ],
)
def test_floats_agree_within_the_tolerance(
    expected: list[float], actual: list[float], agrees: bool
) -> None:
    (result,) = compare({"y": np.array(expected)}, {"y": np.array(actual)}, LOOSE)
    assert result.agrees is agrees


def test_labels_agree_only_when_equal() -> None:
    (result,) = compare({"l": np.array(["a", "b"])}, {"l": np.array(["a", "c"])}, LOOSE)
    assert (result.differing, result.exact, result.worst) == (1, True, (1,))
    assert "expected b, got c" in result.describe()


def test_missing_and_misshapen_outputs() -> None:
    missing, misshapen = compare({"a": np.zeros(2), "b": np.zeros(2)}, {"b": np.zeros(3)}, LOOSE)
    assert missing.problem == "output is missing"
    assert "shape is [3], expected [2]" in misshapen.problem


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_chosen_rows_are_spread_and_unique(count: int, limit: int) -> None:
    rows = choose_rows(count, limit)
    assert len(rows) == min(count, limit)
    assert rows[0] == 0
    assert rows[-1] == (count - 1 if limit > 1 else 0)


def test_tolerances_get_tighter_with_precision() -> None:
    widths = [TOLERANCES[name].relative for name in ("float16", "float32", "float64")]
    assert widths == sorted(widths, reverse=True)


def test_canonical_json_is_one_form() -> None:
    assert canonical_json({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


def test_settings_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve(ServeOptions, environment={}).port == 8080
    (tmp_path / "modelport.toml").write_text("port = 1\nworkers = 2\nallow_anonymous = true\n")
    assert resolve(ServeOptions, environment={}).port == 1
    environment = {"MODELPORT_PORT": "2", "MODELPORT_ALLOW_ANONYMOUS": "off"}
    options = resolve(ServeOptions, {"workers": 3, "port": None}, environment=environment)
    assert (options.port, options.workers, options.allow_anonymous) == (2, 3, False)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PORT", "many"), ("GRACE", "soon"), ("ALLOW_ANONYMOUS", "perhaps")],
)
def test_settings_say_where_they_are_wrong(variable: str, value: str) -> None:
    with pytest.raises(InputError, match=f"{value!r} \\(at MODELPORT_{variable}\\)"):
        resolve(ServeOptions, environment={f"MODELPORT_{variable}": value})


def test_settings_files(tmp_path: Path) -> None:
    named = tmp_path / "mine.toml"
    with pytest.raises(NotFoundError, match="settings file"):
        resolve(ServeOptions, environment={"MODELPORT_CONFIG": str(named)})
    named.write_text("port = [")
    with pytest.raises(InputError, match="not TOML"):
        resolve(ServeOptions, environment={"MODELPORT_CONFIG": str(named)})


def test_missing_packages_name_their_extra() -> None:
    with pytest.raises(MissingPackageError, match=r'pip install "modelport\[sklearn\]"'):
        load_module("no_such_package_at_all", extra="sklearn", purpose="by a test")


def test_sources_list_their_neighbours(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"x")
    with pytest.raises(NotFoundError, match=r"there is: model\.pkl"):
        Source.of(tmp_path / "modle.pkl")
    source = Source.of(str(tmp_path / "model.pkl"))
    assert (source.content, len(source.digest)) == (b"x", 64)
    assert Source.of({}).path is None


def test_every_error_has_an_exit_code() -> None:
    @dataclass
    class Tree:
        codes: set[int]

        def walk(self, kind: type[ModelportError]) -> None:
            self.codes.add(kind.exit_code)
            for child in kind.__subclasses__():
                self.walk(child)

    tree = Tree(set())
    tree.walk(ModelportError)
    assert tree.codes == {1, 2, 3}


@pytest.mark.parametrize(("width", "kept"), [(4, 32), (1 << 17, 8), (1 << 22, 4)])
def test_large_rows_are_kept_in_smaller_numbers(width: int, kept: int) -> None:
    inputs = {"x": np.broadcast_to(np.float32(0), (100, width))}
    assert len(golden_rows(inputs)) == kept


def test_large_records_are_replayed_in_parts() -> None:
    inputs = {"x": np.arange(5, dtype=np.float64)[:, np.newaxis] * np.ones(1 << 17)}
    records = GoldenRecords(inputs, {"y": inputs["x"][:, 0]})
    sizes = []

    def run(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        sizes.append(len(tensors["x"]))
        return {"y": tensors["x"][:, 0]}

    assert all(output.agrees for output in records.replay(run, LOOSE, in_parts=True))
    assert all(output.agrees for output in records.replay(run, LOOSE))
    assert sizes == [1, 1, 1, 1, 1, 5]
