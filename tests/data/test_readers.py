"""Sample and input files, good and bad, and how their columns become tensors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modelport.core.errors import InputError, NotFoundError, SignatureError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import TensorSpec
from modelport.data.base import read_rows

FRAME = pd.DataFrame({"a": [1, 2], "b": [0.5, np.nan], "c": ["x", "ü"]})


def write(path: Path, frame: pd.DataFrame) -> Path:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".json":
        frame.to_json(path, orient="records")
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        np.savez(path, a=frame["a"], b=frame["b"], c=frame["c"].to_numpy(dtype=np.str_))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json", ".jsonl", ".npz"])
def test_columns_of_every_format(tmp_path: Path, suffix: str) -> None:
    rows = read_rows(write(tmp_path / f"rows{suffix}", FRAME))
    assert list(rows.columns) == ["a", "b", "c"]
    assert rows.columns["a"].tolist() == [1, 2]
    assert rows.columns["a"].dtype == np.int64
    np.testing.assert_array_equal(rows.columns["b"], [0.5, np.nan])
    assert rows.columns["c"].tolist() == ["x", "ü"]
    assert rows.columns["c"].dtype == object


def test_matrices(tmp_path: Path) -> None:
    matrix = np.array([[1.5, 2.0], [3.0, 4.0]])
    np.save(tmp_path / "m.npy", matrix)
    (tmp_path / "m.csv").write_text("1.5,2\n3,4\n")
    (tmp_path / "m.json").write_text(json.dumps(matrix.tolist()))
    (tmp_path / "m.jsonl").write_text("[1.5, 2]\n[3, 4]\n")
    (tmp_path / "body.json").write_text(json.dumps({"instances": matrix.tolist()}))
    for name in ("m.npy", "m.csv", "m.json", "m.jsonl", "body.json"):
        unnamed = read_rows(tmp_path / name).unnamed
        assert unnamed is not None
        np.testing.assert_array_equal(unnamed, matrix)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "a,b\n1\n", "row 2 has 1 cells"),
        ("x.csv", "a,a\n1,2\n", "column names repeat"),
        ("x.csv", "a,b\n", "no rows"),
        ("x.csv", b"a\n\xff\n", "not a CSV"),
        ("x.json", "[1, ", "not JSON"),
        ("x.json", "3", "list of rows"),
        ("x.json", "[[1, 2], [3]]", "differ in length"),
        ("x.json", '[{"a": 1}, {"b": 2}]', "other keys"),
        ("x.json", '{"a": [1], "b": [1, 2]}', "columns differ in length"),
        ("x.json", "[]", "no rows"),
        ("x.jsonl", "[1]\n[", "x.jsonl:2"),
        ("x.npy", "hello", "not a plain NumPy file"),
        ("x.npz", "PK", "not a plain NumPy file"),
        ("x.parquet", "PAR1", "not a Parquet file"),
        ("x.csv", "", "empty"),
    ],
)
def test_bad_files_say_where(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read_rows(path)


def test_pickled_arrays_are_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="object arrays hold pickles"):
        read_rows(tmp_path / "x.npy")


def test_unknown_files(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"x")
    with pytest.raises(UnsupportedError, match=r"\.parquet"):
        read_rows(tmp_path / "rows.xlsx")
    with pytest.raises(NotFoundError, match=r"there is: rows\.xlsx"):
        read_rows(tmp_path / "rows.csv")


MATRIX = Signature(
    (TensorSpec("input", "float32", ("N", 2), ("a", "b")),), (TensorSpec("y", "float32", ("N",)),)
)
COLUMNS = Signature(
    (TensorSpec("a", "int64", ("N", 1)), TensorSpec("c", "string", ("N", 1))),
    (TensorSpec("y", "float32", ("N",)),),
)


def test_columns_become_one_matrix_by_name() -> None:
    rows = Rows({"c": np.array(["x"]), "b": np.array([2.0]), "a": np.array([1])})
    np.testing.assert_array_equal(rows.bind(MATRIX)["input"], np.array([[1, 2]], np.float32))
    assert rows.unused(MATRIX) == ["c"]


def test_columns_become_inputs() -> None:
    bound = Rows({"a": np.array([1.0, 2.0]), "c": np.array(["x", None], object)}).bind(COLUMNS)
    assert bound["a"].tolist() == [[1], [2]]
    assert bound["c"].tolist() == [["x"], [""]]


@pytest.mark.parametrize(
    ("columns", "signature", "message"),
    [
        ({"a": [1.0]}, MATRIX, "columns are missing: b; the data has a"),
        ({"a": [1.5], "c": ["x"]}, COLUMNS, "input a needs int64"),
        ({"a": [1]}, COLUMNS, "columns are missing: c"),
        ({"a": ["one"], "b": [1]}, MATRIX, "input input needs numbers"),
        ({"": [[1.0, 2.0, 3.0]]}, MATRIX, r"shape \[1, 3\], expected \[N, 2\]"),
    ],
)
def test_rows_that_do_not_fit(
    columns: dict[str, list[object]], signature: Signature, message: str
) -> None:
    rows = Rows({name: np.asarray(values) for name, values in columns.items()}, "rows.csv")
    with pytest.raises(SignatureError, match=message):
        rows.bind(signature)


def files(folder: Path, **contents: bytes) -> Path:
    """Files of those names, in which ``__`` stands for ``/`` and ``_`` for the last dot."""
    for name, content in contents.items():
        stem, _, suffix = name.replace("__", "/").rpartition("_")
        path = folder / f"{stem}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_a_folder_of_images(tmp_path: Path) -> None:
    folder = files(tmp_path / "f", b__2_png=b"two\0", a_JPG=b"one", b__3_webp=b"3", x_csv=b"a\n1")
    rows = read_rows(folder)
    assert rows.unnamed is not None
    assert rows.unnamed.tolist() == [b"one", b"two\0", b"3"]
    assert rows.names == ("a.JPG", "b/2.png", "b/3.webp")


def test_texts(tmp_path: Path) -> None:
    folder = files(tmp_path / "f", a_txt=b"one\n\ntwo \xc3\xbc\n", b_txt=b"three\n")
    rows = read_rows(folder)
    assert rows.unnamed is not None
    assert rows.unnamed.tolist() == ["one\n\ntwo ü", "three"]
    assert rows.names == ("a.txt", "b.txt")
    lines = read_rows(folder / "a.txt")
    assert lines.unnamed is not None
    assert lines.unnamed.tolist() == ["one", "two ü"]
    with pytest.raises(InputError, match="not UTF-8"):
        read_rows(files(tmp_path / "g", c_txt=b"\xff") / "c.txt")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({}, "holds no images or texts"),
        ({"a_csv": b"1"}, "holds no images or texts"),
        ({"a_txt": b"a", "b_png": b"b"}, "files of several kinds: image, text"),
    ],
)
def test_folders_that_are_none(tmp_path: Path, contents: dict[str, bytes], message: str) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(InputError, match=message):
        read_rows(files(tmp_path / "f", **contents))


def test_bytes_in_json(tmp_path: Path) -> None:
    """As TF Serving's clients send them."""
    path = tmp_path / "body.json"
    for document, name in (
        ({"instances": [{"b64": "aGk="}, {"b64": "aAA="}]}, ""),
        ({"inputs": {"image": [{"b64": "aGk="}, {"b64": "aAA="}]}}, "image"),
        ([{"image": {"b64": "aGk="}}, {"image": {"b64": "aAA="}}], "image"),
    ):
        path.write_text(json.dumps(document), encoding="utf-8")
        assert read_rows(path).columns[name].tolist() == [b"hi", b"h\0"]
    path.write_text('{"instances": [{"b64": "!"}]}', encoding="utf-8")
    with pytest.raises(InputError, match="not Base64"):
        read_rows(path)


def test_bytes_become_an_input(tmp_path: Path) -> None:
    image = TensorSpec("image", "bytes", ("N",))
    signature = Signature((image,), (TensorSpec("y", "float32", ("N",)),))
    files(tmp_path, a_png=b"\x89PNG\0")
    for rows in (read_rows(tmp_path), Rows({"": np.array(["iVBORwA="], dtype=object)})):
        assert rows.bind(signature)["image"].tolist() == [b"\x89PNG\0"]
    for wrong in (np.array([1.0]), np.array(["!"], dtype=object)):
        with pytest.raises(SignatureError, match="image needs bytes of files, and holds a"):
            Rows({"": wrong}).bind(signature)
