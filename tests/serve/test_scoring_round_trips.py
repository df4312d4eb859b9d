"""What is written in a format is read back the same, bit for bit."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelport.core.errors import ModelportError
from modelport.core.tensors import Array, TensorSpec
from modelport.serve.base import ModelIdentity
from modelport.serve.statuses import status_of

from .scoring_cases import CSV, JSON, LINES, NPY, PARQUET, identity, npy, parquet, read, same, write

EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

NUMBERS = ("float32", "float64", "int8", "int32", "int64", "uint8", "uint64", "float16")
NAMES = ("a", "b b", 'c"c', "d,d")

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


def matrices(dtype: str, *, finite: bool = False) -> st.SearchStrategy[Array]:
    elements = (
        {"allow_nan": False, "allow_infinity": False} if finite and "float" in dtype else None
    )
    shapes = st.tuples(st.integers(1, 6), st.just(len(NAMES)))
    return hnp.arrays(dtype, shapes, elements=elements)


def model(dtype: str) -> ModelIdentity:
    return identity(TensorSpec("x", dtype, ("N", len(NAMES)), NAMES))


def quoted(rows: list[list[Any]], end: str) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=end).writerows(rows)
    return file.getvalue().encode()


@pytest.mark.parametrize("dtype", NUMBERS)
@given(data=st.data())
@EXAMPLES
def test_numbers(dtype: str, data: st.DataObject) -> None:
    array = data.draw(matrices(dtype))
    rows = array.tolist()
    order = data.draw(st.permutations(range(len(NAMES))))
    names = [NAMES[i] for i in order]
    mixed = [[row[i] for i in order] for row in rows]
    split = {"columns": names, "index": list(range(len(rows))), "data": mixed}
    records = [dict(zip(names, row, strict=True)) for row in mixed]
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    bodies = [
        (JSON, json.dumps({"instances": rows}).encode()),
        (JSON, json.dumps({"inputs": {"x": rows}}).encode()),
        (JSON, json.dumps({"dataframe_split": split}).encode()),
        (JSON, json.dumps({"dataframe_records": records}).encode()),
        (JSON, json.dumps(rows).encode()),
        (LINES, "\n".join(map(json.dumps, rows)).encode()),
        (LINES, "\r\n".join(map(json.dumps, records)).encode()),
        (CSV, quoted(rows, end)),
        (CSV, quoted([names, *mixed], end)),
        (NPY, npy(array)),
        (NPY, npy(np.asfortranarray(array.astype(array.dtype.newbyteorder(">"))))),
        (PARQUET, parquet(**{name: array[:, i] for name, i in zip(names, order, strict=True)})),
    ]
    for kind, body in bodies:
        same(read(model(dtype), body, kind)[0], {"x": array})


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint64", "bool", "int8"])
@given(data=st.data())
@EXAMPLES
def test_answers(dtype: str, data: st.DataObject) -> None:
    array = data.draw(matrices(dtype))
    got = np.load(io.BytesIO(write(model("float32"), {"y": array}, NPY).body))
    assert got.dtype == array.dtype
    assert got.tobytes() == array.tobytes()
    lines = write(model("float32"), {"y": array}, LINES).body.split(b"\n")
    np.testing.assert_array_equal(np.array([json.loads(line) for line in lines], dtype), array)
    text = write(model("float32"), {"y": array, "z": array[:, 0]}, CSV).body
    both = np.column_stack([array, array[:, 0]])
    rows = [[json.loads(cell) for cell in line.split(b",")] for line in text.split(b"\n")]
    np.testing.assert_array_equal(np.array(rows, dtype), both)


@given(rows=st.lists(st.tuples(TEXT, st.floats(), st.booleans()), min_size=1, max_size=6))
@example(rows=[("", float("nan"), True)])
@example(rows=[("a\r\nb", -0.0, False), (",", float("inf"), True), ("\u2028", 1.5, True)])
@EXAMPLES
def test_tables(rows: list[tuple[str, float, bool]]) -> None:
    table = identity(
        TensorSpec("text", "string", ("N",)),
        TensorSpec("n", "float64", ("N",)),
        TensorSpec("b", "bool", ("N",)),
    )
    columns = dict(zip(("text", "n", "b"), map(list, zip(*rows, strict=True)), strict=True))
    expected = {
        "text": np.array(columns["text"], object),
        "n": np.array(columns["n"]),
        "b": np.array(columns["b"]),
    }
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    for kind, body in (
        (JSON, json.dumps({"dataframe_records": records}).encode()),
        (JSON, json.dumps({"inputs": columns}, ensure_ascii=False).encode()),
        (LINES, "\n".join(json.dumps(r, ensure_ascii=False) for r in records).encode()),
        (CSV, quoted([list(columns), *map(list, rows)], "\r\n")),
        (f"{CSV}; header=absent", quoted([list(row) for row in rows], "\r\n")),
        (PARQUET, parquet(**columns)),
    ):
        same(read(table, body, kind)[0], expected)


@given(texts=st.lists(TEXT, min_size=1, max_size=6))
@EXAMPLES
@example(texts=["\r"])
@example(texts=[""])
def test_text_answers(texts: list[str]) -> None:
    array = np.array(texts, object)
    body = write(model("float32"), {"y": array, "n": np.arange(len(texts))}, CSV).body
    rows = list(csv.reader(io.StringIO(body.decode(), newline=""), strict=True))
    assert rows == [[text, str(i)] for i, text in enumerate(texts)]
    lines = write(model("float32"), {"y": array}, LINES).body.split(b"\n")
    assert [json.loads(line) for line in lines] == texts


_START = st.sampled_from(
    [b"", b"\x93NUMPY\1\0", b"PAR1", b"[", b"[[1,2", b"{", b"a,b", b'{"instances":',
     b'{"inputs":[{"name":"x","shape":', b'{"dataframe_split":{"data":[', npy(np.zeros((1, 4))),
     parquet(a=[1.0])]
)  # fmt: skip


@given(
    kind=st.sampled_from([JSON, LINES, CSV, NPY, PARQUET, "image/png", "text/plain"]),
    start=_START,
    rest=st.binary(max_size=64),
    cut=st.integers(0, 600),
)
@settings(EXAMPLES, max_examples=400)
def test_garbage_is_refused_or_read(kind: str, start: bytes, rest: bytes, cut: int) -> None:
    statuses = [200]
    for served in (model("float32"), identity(TensorSpec("x", "string", ("N",)))):
        try:
            read(served, start[:cut] + rest + start[cut:], kind)
        except ModelportError as error:
            statuses.append(status_of(error))
    assert max(statuses) < 500


_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.sampled_from([10**30, -(2**63), 2**64, "", "a", "x", "b64", "FP32", "aGk="])
)
_KEYS = st.sampled_from(
    ["instances", "inputs", "dataframe_split", "dataframe_records", "columns", "data", "index",
     "params", "name", "shape", "datatype", "b64", "signature_name", *"abcxyz"]
)  # fmt: skip
_DOCUMENTS = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
_MODELS = (
    identity(TensorSpec("x", "float32", ("N", 3), ("a", "b", "c"))),
    identity(TensorSpec("a", "int64", ("N",)), TensorSpec("b", "string", ("N", 1))),
    identity(TensorSpec("x", "bool", ("N", "M"))),
    identity(TensorSpec("x", "bytes", ("N",))),
    identity(TensorSpec("x", "float64", ())),
    identity(TensorSpec("x", "float32", ("N", 2, "K"))),
)


@given(
    key=st.sampled_from(["instances", "inputs", "dataframe_split", "dataframe_records", ""]),
    value=_DOCUMENTS,
    kind=st.sampled_from([JSON, LINES]),
    padding=st.sampled_from([b"", b" " * 2000]),
)
@settings(EXAMPLES, max_examples=800)
def test_random_documents(key: str, value: Any, kind: str, padding: bytes) -> None:
    body = json.dumps({key: value} if key else value).encode() + padding
    statuses = [200]
    for served in _MODELS:
        try:
            read(served, body, kind)
        except ModelportError as error:
            statuses.append(status_of(error))
    assert max(statuses) < 500
