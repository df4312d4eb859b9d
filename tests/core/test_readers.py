"""Reading rows from files: good ones, and bad ones with the place of their fault."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelport.core.errors import InputError, ModelportError, NotFoundError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.tensors import Array
from modelport.data.base import read_rows


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows"


def read(path: Path, ending: str, content: str | bytes) -> Rows:
    path = path.with_suffix(ending)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_rows(path)


def plain(rows: Rows) -> dict[str, tuple[str, list[object]]]:
    return {name: (array.dtype.name, array.tolist()) for name, array in rows.columns.items()}


def refused(path: Path, ending: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(path, ending, content)
    assert path.name in caught.value.where


def test_the_ending_chooses_the_reader(file: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"no reader for files ending in '\.xls'") as caught:
        read(file, ".xls", "1")
    assert ".csv" in caught.value.hint
    assert read(file, ".CSV", "1,2\n").columns[""].tolist() == [[1, 2]]
    with pytest.raises(NotFoundError, match=r"file not found: row\.csv; there is: rows\.CSV"):
        read_rows(file.with_name("row.csv"))
    with pytest.raises(NotFoundError, match="there is none"):
        read_rows(file / "nowhere" / "rows.csv")


@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv", ".json", ".jsonl", ".parquet"])
def test_empty_files(file: Path, ending: str) -> None:
    refused(file, ending, b"", "file is empty")


@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv", ".json", ".jsonl", ".parquet"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(min_size=1, max_size=60))
def test_no_bytes_crash_a_reader(file: Path, ending: str, content: bytes) -> None:
    for start in (b"", b"\x93NUMPY\x01\x00", b"PAR1", b"[", b'{"a":'):
        try:
            rows = read(file, ending, start + content)
        except ModelportError:
            continue
        assert len(rows) > 0


def test_npy(file: Path) -> None:
    for array in (np.eye(2, dtype=np.float32), np.array([1, 2]), np.array([True])):
        np.save(file.with_suffix(".npy"), array)
        rows = read_rows(file.with_suffix(".npy"))
        assert rows.unnamed is not None
        np.testing.assert_array_equal(rows.unnamed, array)
        assert rows.unnamed.dtype == array.dtype
    for text in (np.array(["ü", "b"]), np.array([b"u", b"b"])):
        np.save(file.with_suffix(".npy"), text)
        read_back = read_rows(file.with_suffix(".npy")).columns[""]
        assert read_back.dtype == object
        assert read_back.tolist() == text.astype(str).tolist()


def test_npz(file: Path) -> None:
    path = file.with_suffix(".npz")
    np.savez(path, age=np.array([1, 2]), city=np.array(["Bonn", "Köln"]))
    assert plain(read_rows(path)) == {
        "age": ("int64", [1, 2]),
        "city": ("object", ["Bonn", "Köln"]),
    }
    np.savez_compressed(path, x=np.ones((2, 3)))
    assert read_rows(path).columns["x"].shape == (2, 3)
    np.savez(path, a=np.zeros(2), b=np.zeros(3))
    with pytest.raises(InputError, match="columns differ in length"):
        read_rows(path)


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_pickles_in_numpy_files_are_not_loaded(file: Path, tmp_path: Path, ending: str) -> None:
    array = np.array([_Evil(tmp_path / "was-here")], object)
    with file.with_suffix(ending).open("wb") as opened:
        if ending == ".npy":
            np.save(opened, array)
        else:
            np.savez(opened, x=array)
    with pytest.raises(InputError, match="not a plain NumPy file") as caught:
        read_rows(file.with_suffix(ending))
    assert "fixed-width strings" in caught.value.hint
    assert not (tmp_path / "was-here").exists()


@pytest.mark.parametrize("keep", [1, 8, 50, -1])
def test_cut_numpy_files(file: Path, keep: int) -> None:
    np.save(file.with_suffix(".npy"), np.arange(100.0))
    content = file.with_suffix(".npy").read_bytes()[:keep]
    refused(file, ".npy", content, "not a plain NumPy file")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,x\n2,y\n", {"a": ("int64", [1, 2]), "b": ("object", ["x", "y"])}),
        ("a,b\r\n1,2.5\r\n\r\n3,4\r\n", {"a": ("int64", [1, 3]), "b": ("float64", [2.5, 4.0])}),
        ("\ufeffa\n1\n", {"a": ("int64", [1])}),
        ('"a,b","c ""d"""\n1,"x\ny"\n', {"a,b": ("int64", [1]), 'c "d"': ("object", ["x\ny"])}),
        ("1,2\n3,4\n", {"": ("int64", [[1, 2], [3, 4]])}),
        ("1,2.5\n3,4\n", {"": ("float64", [[1.0, 2.5], [3.0, 4.0]])}),
        ("a\n9007199254740993\n", {"a": ("int64", [2**53 + 1])}),
        ("a\n18446744073709551615\n", {"a": ("float64", [float(2**64)])}),
        ("a\n1e400\n", {"a": ("float64", [float("inf")])}),
        ("ü\nä\n", {"ü": ("object", ["ä"])}),
    ],
)
def test_csv(file: Path, text: str, expected: dict[str, tuple[str, list[object]]]) -> None:
    assert plain(read(file, ".csv", text)) == expected


def test_empty_cells_are_nan_or_empty_text(file: Path) -> None:
    columns = read(file, ".csv", "a,b\n1,x\n,\n nan ,z\n").columns
    np.testing.assert_array_equal(columns["a"], [1.0, np.nan, np.nan])
    assert columns["b"].tolist() == ["x", "", "z"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", "row 3 has 1 cells, the first has 2"),
        ("a,b\n1,2,3\n", "row 2 has 3 cells"),
        ("a,a\n1,2\n", "column names repeat"),
        ("a,b\n", "there is a header and no rows"),
        ("\n\n", "there are no rows"),
        ('a\n"open\n', "not a CSV file"),
        ('a\n"x"y\n', "not a CSV file"),
        (b"a\n\xff\n", "not a CSV file"),
    ],
)
def test_bad_csv(file: Path, text: str | bytes, message: str) -> None:
    refused(file, ".csv", text, message)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[1, 2], [3, 4]]", {"": ("int64", [[1, 2], [3, 4]])}),
        ("[1.5, 2]", {"": ("float64", [1.5, 2.0])}),
        ('["a", "b"]', {"": ("object", ["a", "b"])}),
        ('[{"a": 1, "b": "x"}, {"b": "y", "a": 2}]',
         {"a": ("int64", [1, 2]), "b": ("object", ["x", "y"])}),
        ('{"a": [1, 2], "b": [[1], [2]]}', {"a": ("int64", [1, 2]), "b": ("int64", [[1], [2]])}),
        ('{"instances": [[1, 2]]}', {"": ("int64", [[1, 2]])}),
        ('{"instances": [{"a": 1}]}', {"a": ("int64", [1])}),
        ('{"inputs": {"a": [1], "b": [2]}}', {"a": ("int64", [1]), "b": ("int64", [2])}),
        ('{"a": [true, false]}', {"a": ("bool", [True, False])}),
        ("\ufeff[1]", {"": ("int64", [1])}),
    ],
)  # fmt: skip
def test_json(file: Path, text: str, expected: dict[str, tuple[str, list[object]]]) -> None:
    assert plain(read(file, ".json", text)) == expected


def test_missing_numbers_in_json_are_nan(file: Path) -> None:
    columns = read(file, ".json", '{"a": [1, null], "b": [NaN, 2.5], "c": [null, 3]}').columns
    np.testing.assert_array_equal(columns["a"], [1.0, np.nan])
    np.testing.assert_array_equal(columns["b"], [np.nan, 2.5])
    np.testing.assert_array_equal(columns["c"], [np.nan, 3.0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", "not JSON"),
        ("hello", "not JSON"),
        (b"\xff", "not JSON"),
        ("1", "a list of rows or an object of columns is needed"),
        ("null", "a list of rows"),
        ('"text"', "a list of rows"),
        ("[[1, 2], [3]]", "rows differ in length"),
        ('{"a": [1, 2], "b": [1]}', "columns differ in length"),
        ('[{"a": 1}, {"b": 1}]', "row 1 has other keys than the first: a"),
        ('[{"a": 1}, 2]', "row 1 has other keys"),
        ("[]", "there are no rows"),
        ("{}", "there are no rows"),
        ('{"instances": []}', "there are no rows"),
        (f"[{'9' * 5000}]", "not JSON"),
    ],
)
def test_bad_json(file: Path, text: str | bytes, message: str) -> None:
    refused(file, ".json", text, message)


def test_json_lines(file: Path) -> None:
    assert plain(read(file, ".jsonl", '{"a": 1}\n\n{"a": 2}\n')) == {"a": ("int64", [1, 2])}
    assert plain(read(file, ".jsonl", "[1, 2]\n[3, 4]")) == {"": ("int64", [[1, 2], [3, 4]])}
    with pytest.raises(InputError, match="not JSON") as caught:
        read(file, ".jsonl", '{"a": 1}\n{"a": \n')
    assert caught.value.where.endswith("rows.jsonl:2")
    refused(file, ".jsonl", "\n\n", "there are no rows")


def parquet(path: Path, **columns: object) -> Rows:
    path = path.with_suffix(".parquet")
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return read_rows(path)


def test_parquet(file: Path) -> None:
    rows = parquet(
        file,
        age=[1, 2],
        height=pyarrow.array([1.5, None]),
        city=["Bonn", None],
        flag=[True, False],
        vector=[[1.0, 2.0], [3.0, 4.0]],
        kind=pyarrow.array(["a", "b"]).dictionary_encode(),
        small=pyarrow.array([1, 2], pyarrow.int8()),
    )
    assert rows.columns["age"].dtype == np.int64
    np.testing.assert_array_equal(rows.columns["height"], [1.5, np.nan])
    assert rows.columns["city"].tolist() == ["Bonn", None]
    assert rows.columns["flag"].tolist() == [True, False]
    assert rows.columns["vector"].tolist() == [[1, 2], [3, 4]]
    assert rows.columns["kind"].tolist() == ["a", "b"]
    assert rows.columns["small"].dtype == np.int8


def test_missing_integers_in_parquet_are_nan(file: Path) -> None:
    column = parquet(file, age=pyarrow.array([1, None])).columns["age"]
    np.testing.assert_array_equal(column, [1.0, np.nan])


def test_bad_parquet(file: Path) -> None:
    refused(file, ".parquet", b"PAR1 nothing PAR1", "not a Parquet file")
    with pytest.raises(InputError, match="rows differ in length"):
        parquet(file, vector=[[1.0, 2.0], [3.0]])
    with pytest.raises(InputError, match="there are no rows"):
        parquet(file, a=pyarrow.array([], pyarrow.int64()))
    good = file.with_suffix(".parquet")
    pyarrow.parquet.write_table(pyarrow.table({"a": list(range(1000))}), good)
    content = good.read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], content[:4] + b"\xff" * 50):
        refused(file, ".parquet", damaged, "not a Parquet file")


def test_messages_name_the_column(file: Path) -> None:
    with pytest.raises(InputError, match=re.escape("rows.json: b")):
        read(file, ".json", '{"a": [[1], [2]], "b": [[1], [2, 3]]}')


def test_all_forms_bind_alike(file: Path) -> None:
    """The same rows in every format are the same columns."""
    arrays: list[dict[str, Array]] = [
        read(file, ".csv", "a,b\n1,0.5\n2,1.5\n").columns,
        read(file, ".json", '[{"a": 1, "b": 0.5}, {"a": 2, "b": 1.5}]').columns,
        read(file, ".jsonl", '{"a": 1, "b": 0.5}\n{"a": 2, "b": 1.5}').columns,
        parquet(file, a=[1, 2], b=[0.5, 1.5]).columns,
    ]
    np.savez(file.with_suffix(".npz"), a=np.array([1, 2]), b=np.array([0.5, 1.5]))
    arrays.append(read_rows(file.with_suffix(".npz")).columns)
    for columns in arrays:
        assert {n: (a.dtype.name, a.tolist()) for n, a in columns.items()} == {
            "a": ("int64", [1, 2]),
            "b": ("float64", [0.5, 1.5]),
        }
