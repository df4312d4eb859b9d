"""Bodies by content type and answers by ``Accept``, without a server."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from modelport import adapters
from modelport.core.errors import (
    InputError,
    LimitError,
    MediaTypeError,
    ModelportError,
    NotAcceptableError,
    SignatureError,
)
from modelport.core.signature import Signature
from modelport.core.tensors import Array, TensorSpec
from modelport.serve import scoring
from modelport.serve.base import ModelIdentity, Request
from modelport.serve.statuses import status_of

from .scoring_cases import (
    CSV,
    JSON,
    LINES,
    NPY,
    OCTETS,
    PARQUET,
    V2,
    identity,
    npy,
    parquet,
    read,
    refused,
    same,
    write,
)

MATRIX = identity(TensorSpec("x", "float32", ("N", 3)))
NAMED = identity(TensorSpec("x", "float32", ("N", 3), ("a", "b", "c")))
WHOLE = identity(TensorSpec("x", "int64", ("N", 2), ("a", "b")))
TWO = identity(TensorSpec("a", "float32", ("N", 3)), TensorSpec("b", "int64", ("N", 2)))
TABLE = identity(
    TensorSpec("age", "float64", ("N",)),
    TensorSpec("city", "string", ("N",)),
    TensorSpec("rooms", "int64", ("N",)),
    TensorSpec("new", "bool", ("N",)),
)
CUBE = identity(TensorSpec("x", "float32", ("N", 2, 2)))
FILES = identity(TensorSpec("image", "bytes", ("N",)))
TEXTS = identity(TensorSpec("text", "string", ("N",)))

X = np.array([[1, 2, 3], [4, 5.5, -6]], np.float32)
ROWS = X.tolist()


@pytest.mark.parametrize(
    "document",
    [
        {"instances": ROWS},
        {"inputs": ROWS},
        {"inputs": {"x": ROWS, "other": 1}},
        {"instances": [{"x": row} for row in ROWS]},
        {"instances": [{"a": a, "b": b, "c": c} for a, b, c in ROWS]},
        {"inputs": [{"b": b, "a": a, "c": c} for a, b, c in ROWS]},
        {"inputs": {"c": [3, -6], "a": [1, 4], "b": [2, 5.5]}},
        {"dataframe_split": {"columns": ["a", "b", "c"], "index": [0, 1], "data": ROWS}},
        {"dataframe_split": {"data": ROWS}},
        {"dataframe_split": {"columns": ["x"], "data": [[row] for row in ROWS]}},
        {"dataframe_split": {"columns": ["c", "z", "b", "a"],
                             "data": [[c, "?", b, a] for a, b, c in ROWS]}},
        {"dataframe_records": [{"c": c, "a": a, "b": b, "z": None} for a, b, c in ROWS]},
        {"dataframe_records": [{"x": row} for row in ROWS]},
        ROWS,
        [{"a": a, "b": b, "c": c} for a, b, c in ROWS],
    ],
    ids=lambda document: json.dumps(document)[:40],
)  # fmt: skip
@pytest.mark.parametrize("padding", [0, 2000])
def test_every_form_of_json_means_the_same(document: Any, padding: int) -> None:
    body = json.dumps(document).encode() + b" " * padding
    tensors, _ = read(NAMED, body, JSON)
    same(tensors, {"x": X})


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (CSV, b"1,2,3\n4,5.5,-6\n"),
        (CSV, b"1,2,3\r\n4,5.5,-6"),
        (CSV, b'\xef\xbb\xbf"1"," 2",3\n\n4,5.5,-6\n'),
        (CSV, b"c,a,z,b\n3,1,?,2\n-6,4,?,5.5\n"),
        (f"{CSV}; charset=utf-8; header=present", b"a,b,c\n1,2,3\n4,5.5,-6\n"),
        (f"{CSV};header=absent;label_size=0", b"1,2,3\n4,5.5,-6\n"),
        ("TEXT/CSV", b"a, b ,c\n1,2,3\n4,5.5,-6\n"),
        (LINES, b"[1,2,3]\n\n[4,5.5,-6]\n"),
        (LINES, b'{"c":3,"a":1,"b":2}\r\n{"a":4,"b":5.5,"c":-6,"z":0}'),
        ("application/x-ndjson; charset=UTF-8", b'{"x":[1,2,3]}\n{"x":[4,5.5,-6]}'),
        (NPY, npy(X)),
        (NPY, npy(np.asfortranarray(X.astype(">f8")))),
        (PARQUET, parquet(c=[3, -6], b=[2, 5.5], a=[1, 4], z=["?", None])),
        ("application/x-parquet", parquet(x=ROWS)),
        (OCTETS, X.tobytes()),
        (None, json.dumps(ROWS).encode()),
        (JSON, b"\xef\xbb\xbf \n" + json.dumps(ROWS).encode()),
        ("", json.dumps({"instances": ROWS}).encode()),
        ("application/json;charset=utf-8", json.dumps({"instances": ROWS}).encode()),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_every_content_type_means_the_same(content_type: str | None, body: bytes) -> None:
    tensors, _ = read(NAMED, body, content_type)
    same(tensors, {"x": X})


def test_columns_without_names_in_the_model() -> None:
    same(read(MATRIX, b"q,w,e\n1,2,3\n4,5.5,-6", CSV)[0], {"x": X})
    # Numbers are always a row, unless the client says otherwise.
    assert read(MATRIX, b"0,1,2\n1,2,3\n4,5.5,-6", CSV)[0]["x"].shape == (3, 3)
    same(read(MATRIX, b"0,1,2\n1,2,3\n4,5.5,-6", f"{CSV};header=present")[0], {"x": X})
    split = {"columns": [0, 1, 2], "data": ROWS}
    same(read(MATRIX, json.dumps({"dataframe_split": split}).encode(), JSON)[0], {"x": X})
    same(read(MATRIX, parquet(q=[1, 4], w=[2, 5.5], e=[3, -6]), PARQUET)[0], {"x": X})
    records = [{"q": a, "w": b, "e": c} for a, b, c in ROWS]
    same(read(MATRIX, json.dumps(records).encode(), JSON)[0], {"x": X})


@pytest.mark.parametrize("row", [b"NA,NA,NA", b"1,?,3", b"?,?,?", b"1,,y"])
def test_a_row_that_is_no_header_does_not_vanish(row: bytes) -> None:
    message = refused(MATRIX, row + b"\n1,2,3\n", CSV)
    assert "row 0" in message.line


@pytest.mark.parametrize("body", [b"1,2,3,4,5\n", b"1,2,3,4,5.0"])
def test_columns_of_several_inputs_in_their_order(body: bytes) -> None:
    expected = {"a": np.float32([[1, 2, 3]]), "b": np.int64([[4, 5]])}
    same(read(TWO, body, CSV)[0], expected)
    records = {"dataframe_records": [{"b": [4, 5], "a": [1, 2, 3]}]}
    same(read(TWO, json.dumps(records).encode(), JSON)[0], expected)


def test_a_table_of_all_types() -> None:
    expected = {
        "age": np.array([np.nan, 3.25]),
        "city": np.array(['"Rome",\r\nItaly', ""], object),
        "rooms": np.array([2**53 + 1, -3]),
        "new": np.array([True, False]),
    }
    text = 'city,new,rooms,age,id\n"""Rome"",\r\nItaly",TRUE,9007199254740993,,7\n,0,-3.0,3.25,8\n'
    same(read(TABLE, text.encode(), CSV)[0], expected)
    records = [
        {"age": None, "city": '"Rome",\r\nItaly', "rooms": 2**53 + 1, "new": True},
        {"age": 3.25, "city": None, "rooms": -3, "new": False},
    ]
    same(read(TABLE, json.dumps({"dataframe_records": records}).encode(), JSON)[0], expected)
    columns = {name: [row[name] for row in records] for name in records[0]}
    same(read(TABLE, parquet(**columns), PARQUET)[0], expected)


def test_rows_of_more_than_one_dimension() -> None:
    expected = {"x": np.float32([[[1, 2], [3, 4]]])}
    same(read(CUBE, b"1,2,3,4", CSV)[0], expected)
    same(read(CUBE, b'{"dataframe_split":{"data":[[1,2,3,4]]}}', JSON)[0], expected)
    same(read(CUBE, b"[[1,2],[3,4]]", LINES)[0], expected)
    same(read(CUBE, b"[[[1,2],[3,4]]]", JSON)[0], expected)
    same(read(CUBE, b"[[1,2],[3,4]]", JSON)[0], expected)
    same(read(CUBE, npy(np.float32([[1, 2], [3, 4]])), NPY)[0], expected)


def test_one_row_as_a_bare_list() -> None:
    same(read(MATRIX, b"[1,2,3]", JSON)[0], {"x": np.float32([[1, 2, 3]])})
    vector = identity(TensorSpec("x", "float32", ("N", 1)))
    same(read(vector, b"[1,2,3]", JSON)[0], {"x": np.float32([[1], [2], [3]])})


def test_files_and_texts_as_they_are() -> None:
    data = b"\x89PNG\r\n\0"
    for kind in ("image/png", "application/x-image", "IMAGE/JPEG", OCTETS):
        same(read(FILES, data, kind)[0], {"image": np.array([data], object)})
    for body in (b'{"instances":[{"b64":"iVBORw0KAA=="}]}', b'[{"b64":"iVBORw0KAA=="}]'):
        same(read(FILES, body, JSON)[0], {"image": np.array([data], object)})
    for body in (
        b'{"dataframe_split":{"columns":["image"],"data":[["iVBO\\nRw0KAA==\\n"]]}}',
        b'{"dataframe_records":[{"image":"iVBORw0KAA"}]}',
    ):
        same(read(FILES, body, JSON)[0], {"image": np.array([data], object)})
    same(read(FILES, b"image\niVBORw0KAA==\n", CSV)[0], {"image": np.array([data], object)})
    same(read(FILES, parquet(image=[data]), PARQUET)[0], {"image": np.array([data], object)})
    same(read(TEXTS, "Käse\n".encode(), "text/plain")[0], {"text": np.array(["Käse\n"], object)})
    same(read(TEXTS, npy(np.array(["a", "bc"])), NPY)[0], {"text": np.array(["a", "bc"], object)})
    same(read(TEXTS, npy(np.array([b"a", b""])), NPY)[0], {"text": np.array(["a", ""], object)})


@pytest.mark.parametrize(
    ("model", "content_type", "status"),
    [
        (MATRIX, "application/x-www-form-urlencoded", 415),
        (MATRIX, "text/html", 415),
        (MATRIX, "application/json; charset=utf-16", 415),
        (MATRIX, "application/json; format=pandas-split", 415),
        (MATRIX, "text/csv; charset=latin-1", 415),
        (MATRIX, "text/csv; header=maybe", 415),
        (MATRIX, "text/csv; label_size=1", 415),
        (MATRIX, "text/plain", 415),
        (MATRIX, "image/png", 415),
        (TEXTS, "application/x-image", 415),
        (TWO, "image/png", 415),
        (TWO, OCTETS, 415),
        (TWO, NPY, 400),
        (MATRIX, "application/x-recordio-protobuf", 415),
        (MATRIX, ";;;", 415),
        (MATRIX, f"{V2}; json-header-size=x", 400),
        (MATRIX, f"{V2}; json-header-size=99", 400),
        (MATRIX, f"{V2}; other=1", 415),
        (MATRIX, V2, 400),
        (FILES, "image/png", 200),
    ],
)
def test_formats_that_are_not_read(model: ModelIdentity, content_type: str, status: int) -> None:
    body = b"x" if model is not FILES else b"any"
    if status == 200:
        read(model, body, content_type)
    else:
        assert status_of(refused(model, body, content_type)) == status


@pytest.mark.parametrize("content_type", [JSON, LINES, CSV, NPY, PARQUET, OCTETS, "image/png", V2])
@pytest.mark.parametrize(
    "body",
    [b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"null", b"1", b'"', b"[", b"{}", b"[[]]",
     b"[null]", b"[{}]", b'{"instances":', b"\x93NUMPY", b"PAR1", b"[1e999]", b"[" * 3000,
     b'{"dataframe_split":[]}', b'{"dataframe_split":{"data":[1]}}',
     b'{"dataframe_split":{"data":[[1,2,3],[1]]}}',
     b'{"dataframe_split":{"columns":1,"data":[[1]]}}',
     b'{"dataframe_records":{}}', b'{"dataframe_records":[1]}', b'{"dataframe_records":[{}]}',
     b'{"dataframe_records":[{"a":1,"b":2,"c":3},{"a":1}]}', b'{"instances":[{"a":1},2]}',
     b'{"inputs":{"a":[1],"b":[1,2],"c":[1]}}', b'{"inputs":{"a":1,"b":1,"c":1}}',
     b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}',
     b'{"instances":[[1,2,3]],"inputs":1}',
     b'{"instances":[[1,2,3]],"params":[]}', b'{"instances":[[1,2,3]],"signature_name":["x"]}',
     b'[[1,2,3]], "x": [1]', b'[[1,2,3]]}', b'[1,2,3]]', b'[[1,2,"3"]]', b"[[1,2,true]]",
     b'a,b,c', b'a,b\n1,2', b'a,b,c\n1,2', b'a,a,c\n1,2,3', b'"1,2,3', b'1,2,"3"x', b"1,2,1_0",
     b"1,2,3\n1,2", b"1,2,\xff", b"1,2,0x1"],
    ids=lambda body: repr(body)[:40],
)  # fmt: skip
def test_bodies_that_are_refused(content_type: str, body: bytes) -> None:
    """Nothing but the tree of errors, and never a 5xx."""
    if content_type == OCTETS and len(body) % X[0].nbytes == 0:
        body += b"\0"  # raw numbers can be anything
    error = refused(NAMED, body, content_type)
    assert 400 <= status_of(error) < 500
    assert error.message


def test_messages_name_the_columns() -> None:
    for body, kind in (
        (b'{"dataframe_split":{"columns":["a","z"],"data":[[1,2]]}}', JSON),
        (b'{"dataframe_records":[{"a":1,"z":2}]}', JSON),
        (b'{"inputs":{"a":[1],"z":[2]}}', JSON),
        (b"a,z\n1,2", CSV),
        (b'{"a":1}', LINES),
        (parquet(a=[1], z=[1]), PARQUET),
    ):
        error = refused(NAMED, body, kind)
        assert isinstance(error, SignatureError)
        assert "columns are missing: b, c" in error.line
    error = refused(NAMED, b'{"dataframe_records":[{"a":1,"b":2,"c":3},{"a":1,"c":1}]}', JSON)
    assert error.line.startswith("columns are missing: b (at dataframe_records[1]")
    assert "5 columns" in refused(MATRIX, b"1,2,3,4,5", CSV).line


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"dataframe_split":{"data":[[1.0,2]]}}', JSON),
        (b'{"dataframe_split":{"data":[[null,2]]}}', JSON),
        (b'{"dataframe_records":[{"a":true,"b":2}]}', JSON),
        (b'{"instances":[["1",2]]}', JSON),
        (b'{"inputs":[[9223372036854775808,2]]}', JSON),
        (b"[1.5,2]", LINES),
        (b"1.5,2", CSV),
        (b"9223372036854775808,2", CSV),
        (b"9007199254740993.0,2", CSV),
        (b",2", CSV),
        (npy(np.array([[1.0, 2.0]])), NPY),
        (npy(np.array([[2**63, 1]], np.uint64)), NPY),
        (npy(np.array([[True, False]])), NPY),
        (npy(np.array([["1", "2"]])), NPY),
        (parquet(a=[1.0], b=[1]), PARQUET),
        (parquet(a=[None, 1], b=[1, 2]), PARQUET),
        (parquet(a=["1"], b=[1]), PARQUET),
    ],
)
def test_conversions_that_are_not_safe(body: bytes, content_type: str) -> None:
    assert isinstance(refused(WHOLE, body, content_type), SignatureError)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 1" + "0" * 40 + "), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,) * 3, }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<U0', 'fortran_order': False, 'shape': (10000000000000,), }",
        "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (0, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 500 + "}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 70 + "), }",
        "__import__('os')",
        "'",
    ],
)
def test_npy_headers_are_not_believed(header: str) -> None:
    text = header.encode() + b"\n"
    body = b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + b"\0" * 4
    assert type(refused(MATRIX, body, NPY)) is InputError


@pytest.mark.parametrize("code", [0xD800, 0x110000, 0xFFFFFFFF])
@pytest.mark.parametrize("order", ["<", ">"])
def test_npy_text_must_be_unicode(code: int, order: str) -> None:
    body = npy(np.array(["a"], f"{order}U1"))[:-4] + np.array([code], f"{order}u4").tobytes()
    with pytest.raises(InputError, match="not Unicode"):
        read(TEXTS, body, NPY)


def test_npy_pickles_are_not_read() -> None:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    assert "object" in refused(MATRIX, file.getvalue(), NPY).line


def test_parquet_that_unpacks_to_too_much() -> None:
    table = pyarrow.table({name: pyarrow.array(np.zeros(15_000_000)) for name in "abc"})
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, compression="zstd")
    assert len(file.getvalue()) < 1 << 20
    assert isinstance(refused(NAMED, file.getvalue(), PARQUET), LimitError)


@pytest.mark.parametrize(
    "options",
    [{}, {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}],
)
def test_parquet_of_one_text_many_times(options: dict[str, Any]) -> None:
    """A few hundred bytes that would be gigabytes; the same of little text is read."""

    def body(text: str, rows: int) -> bytes:
        file = io.BytesIO()
        table = pyarrow.table({"text": pyarrow.array([text] * rows)})
        pyarrow.parquet.write_table(table, file, compression="zstd", **options)
        return file.getvalue()

    expected = np.array(["ab"] * 3, object)
    same(read(TEXTS, body("ab", 3), PARQUET)[0], {"text": expected})
    bomb = body("x" * (128 << 10), 4096)
    assert len(bomb) < 10_000
    assert isinstance(refused(TEXTS, bomb, PARQUET), LimitError)


def test_parquet_of_one_list_that_never_ends() -> None:
    values = pyarrow.array(np.zeros(12_000_000))
    file = io.BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.table({"x": pyarrow.ListArray.from_arrays([0, len(values)], values)}), file
    )
    assert len(file.getvalue()) < 10_000
    assert isinstance(refused(MATRIX, file.getvalue(), PARQUET), LimitError)


def test_parquet_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.endswith("scoring.parquet")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    adapters._instance.cache_clear()
    error = refused(NAMED, parquet(a=[1], b=[2], c=[3]), PARQUET)
    assert isinstance(error, MediaTypeError)
    assert "modelport[parquet]" in error.line


def test_thousands_of_columns() -> None:
    width = 5000
    names = tuple(f"column {i}" for i in range(width))
    model = identity(TensorSpec("x", "float64", ("N", width), names))
    values = np.random.default_rng(3).normal(size=(3, width))
    lines = [",".join(map(repr, row)) for row in values.tolist()]
    same(read(model, "\n".join(lines).encode(), CSV)[0], {"x": values})
    lines = [",".join(reversed(row.split(","))) for row in lines]
    text = "\n".join([",".join(reversed(names)), *lines])
    same(read(model, text.encode(), CSV)[0], {"x": values})
    assert len(refused(model, text.replace("column", "Column").encode(), CSV).line) < 2000


def test_long_cells() -> None:
    text = 'ä"\n' * 100_000
    quoted = text.replace('"', '""')
    same(read(TEXTS, f'"{quoted}"'.encode(), CSV)[0], {"text": np.array([text], object)})


OUTPUTS = {"label": np.array([1, 0]), "scores": np.array([[0.25, 0.5], [1, np.nan]], np.float32)}


@pytest.mark.parametrize(
    ("accept", "content_type", "body"),
    [
        (None, JSON, b'{"predictions":[{"label":1,"scores":[0.25,0.5]},'
                     b'{"label":0,"scores":[1.0,NaN]}]}'),
        ("*/*", JSON, None),
        ("text/html, */*;q=0.8", JSON, None),
        ("application/*", JSON, None),
        ("application/json; charset=utf-8", JSON, None),
        ("text/csv;q=0.5, application/json", JSON, None),
        (CSV, CSV, b"1,0.25,0.5\n0,1.0,NaN"),
        ("text/*", CSV, None),
        ("application/json;q=0.1,text/csv", CSV, None),
        ("application/json;q=0, */*", LINES, None),
        (LINES, LINES, b'{"label":1,"scores":[0.25,0.5]}\n{"label":0,"scores":[1.0,NaN]}'),
        ("application/x-ndjson", "application/x-ndjson", None),
    ],
)  # fmt: skip
def test_answers(accept: str | None, content_type: str, body: bytes | None) -> None:
    answer = write(MATRIX, OUTPUTS, accept)
    assert dict(answer.headers)["content-type"] == content_type
    if body is not None:
        assert answer.body == body


@pytest.mark.parametrize(
    "accept", ["text/html", "image/*", "application/json;q=0", "application/xml", "*/*;q=0", V2]
)
def test_answers_that_cannot_be(accept: str) -> None:
    with pytest.raises(NotAcceptableError):
        write(MATRIX, {"y": X}, accept)


def test_outputs_that_do_not_fit_the_format() -> None:
    for accept in (NPY,):
        with pytest.raises(NotAcceptableError, match="label, scores"):
            write(MATRIX, OUTPUTS, accept)
    for accept in (CSV, LINES):
        for outputs in ({"y": X, "mean": np.float32(1)}, {"y": np.float32(1)}):
            with pytest.raises(NotAcceptableError, match="no rows in common"):
                write(MATRIX, {k: np.asarray(v) for k, v in outputs.items()}, accept)


def test_the_form_of_an_answer_follows_the_body() -> None:
    def answer(document: Any, outputs: dict[str, Array], **options: bool) -> Any:
        _, context = read(MATRIX, json.dumps(document).encode(), JSON)
        return json.loads(scoring.write(outputs, context, MATRIX, **options).body)

    one = {"y": np.array([[1], [2]])}
    assert answer({"instances": ROWS}, one) == {"predictions": [[1], [2]]}
    assert answer({"inputs": ROWS}, one) == {"predictions": [[1], [2]]}
    assert answer(ROWS, one) == [[1], [2]]
    assert answer({"instances": ROWS}, one, bare=True) == [[1], [2]]
    two = {"a": np.array([1, 2]), "b": np.array([True, False])}
    by_row = [{"a": 1, "b": True}, {"a": 2, "b": False}]
    assert answer({"instances": ROWS}, two) == {"predictions": by_row}
    assert answer({"dataframe_split": {"data": ROWS}}, two) == {"predictions": by_row}
    assert answer({"inputs": ROWS}, two) == {"predictions": {"a": [1, 2], "b": [True, False]}}
    assert answer(ROWS, two) == by_row


@pytest.mark.parametrize("accept", [JSON, None, V2, "*/*", CSV, NPY])
def test_open_inference(accept: str | None) -> None:
    item = {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": X.ravel().tolist()}
    body = json.dumps({"id": "7", "inputs": [item]}).encode()
    request = Request("POST", "/invocations", {"accept": accept} if accept else {}, body)
    tensors, context = scoring.read(request, MATRIX)
    same(tensors, {"x": X})
    answer = scoring.write({"y": X}, context, MATRIX)
    if accept == CSV:
        assert answer.body == b"1.0,2.0,3.0\n4.0,5.5,-6.0"
    elif accept == NPY:
        np.testing.assert_array_equal(np.load(io.BytesIO(answer.body)), X)
    else:
        document = json.loads(answer.body)
        assert (document["id"], document["model_name"]) == ("7", "m")
        assert document["outputs"][0]["data"] == X.ravel().tolist()


def test_open_inference_in_binary() -> None:
    size = {"binary_data_size": X.nbytes}
    item = {"name": "x", "shape": [2, 3], "datatype": "FP32", "parameters": size}
    head = json.dumps({"inputs": [item], "parameters": {"binary_data_output": True}}).encode()
    tensors, context = read(MATRIX, head + X.tobytes(), f"{V2};json-header-size={len(head)}")
    same(tensors, {"x": X})
    answer = scoring.write({"y": X}, context, MATRIX)
    kind, _, length = dict(answer.headers)["content-type"].partition(";json-header-size=")
    assert kind == V2
    assert answer.body[int(length) :] == X.tobytes()
    assert json.loads(answer.body[: int(length)])["outputs"][0]["shape"] == [2, 3]


def test_strings_in_csv_answers() -> None:
    texts = np.array(['a "b"', "c,d\n", "", "é"], object)
    answer = write(TEXTS, {"y": texts, "n": np.arange(4)}, CSV)
    rows = list(csv.reader(io.StringIO(answer.body.decode(), newline="")))
    assert rows == [['a "b"', "0"], ["c,d\n", "1"], ["", "2"], ["é", "3"]]


@pytest.mark.parametrize("error", [InputError("a"), SignatureError("b"), MediaTypeError("c")])
def test_errors_have_both_shapes(error: ModelportError) -> None:
    answer = scoring.error(error)
    document = json.loads(answer.body)
    assert answer.status == status_of(error)
    assert document["message"] == document["error"] == error.line
    assert document["error_code"].isupper()


def test_schemas_name_what_is_read_and_written() -> None:
    signature = FILES.signature
    assert {JSON, LINES, CSV, NPY, PARQUET, OCTETS, "application/x-image"} == set(
        scoring.body_schemas(signature)
    )
    assert NPY not in scoring.body_schemas(TWO.signature)
    several = Signature(MATRIX.signature.inputs, TWO.signature.inputs)
    assert NPY not in scoring.answer_schemas(several)


def test_no_row_is_lost_in_any_format() -> None:
    values: Sequence[float] = [0.1, math.inf, -math.inf, math.nan, 1e-7, 3e38, -0.0]
    array = np.array(values, np.float32)
    for accept in (CSV, LINES):
        lines = write(MATRIX, {"y": array}, accept).body.decode().split("\n")
        np.testing.assert_array_equal(np.array([float(line) for line in lines], "f4"), array)
