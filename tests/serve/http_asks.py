"""How every inference route of HTTP is asked for one tensor, and how its answer is read."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from modelport.core.tensors import Array

from .asks import DATATYPES, HEADER, NUMBERS, Ask, Asked, array_of, from_raw, plain, raw, text


def _v2_json(rows: Array, dtype: str) -> Asked:
    described = {"name": "x", "shape": list(rows.shape), "datatype": DATATYPES[dtype]}
    return Asked(text({"inputs": [{**described, "data": rows.ravel().tolist()}]}))


def _v2_binary(rows: Array, dtype: str) -> Asked:
    data = raw(rows)
    described = {"name": "x", "shape": list(rows.shape), "datatype": DATATYPES[dtype]}
    document = {
        "inputs": [{**described, "parameters": {"binary_data_size": len(data)}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    head = text(document)
    return Asked(head + data, {HEADER: str(len(head))})


def _v2_whole(rows: Array, dtype: str) -> Asked:
    return Asked(raw(rows), {HEADER: "0"})


def _read_v2(body: bytes, headers: Mapping[str, str], dtype: str) -> Array:
    length = headers.get(HEADER)
    document = json.loads(body[: int(length)] if length else body)
    (output,) = document["outputs"]
    assert (output["name"], output["datatype"]) == ("y", DATATYPES[dtype])
    if length:
        data = body[int(length) :]
        assert output["parameters"]["binary_data_size"] == len(data)
        return from_raw(data, output["shape"], dtype)
    return array_of(output["data"], dtype).reshape(output["shape"])


V2: Final = (
    Ask("json", _v2_json, _read_v2),
    Ask("binary", _v2_binary, _read_v2),
    Ask("whole body", _v2_whole, _read_v2, NUMBERS),
)


JSON: Final = {"content-type": "application/json"}


def _body(key: str) -> Callable[[Array, str], Asked]:
    def build(rows: Array, dtype: str) -> Asked:
        return Asked(text({key: plain(rows)}), JSON)

    return build


def _bare(rows: Array, dtype: str) -> Asked:
    return Asked(text(plain(rows)), JSON)


def _rows_by_name(rows: Array, dtype: str) -> Asked:
    return Asked(text({"instances": [{"x": row} for row in plain(rows)]}), JSON)


def _columns_by_name(rows: Array, dtype: str) -> Asked:
    return Asked(text({"inputs": {"x": plain(rows)}}), JSON)


def _base64_rows(rows: Array, dtype: str) -> Asked:
    encoded = [[{"b64": base64.b64encode(item.encode()).decode()} for item in row] for row in rows]
    return Asked(text({"instances": encoded}), JSON)


def _whole(rows: Array, dtype: str) -> Asked:
    return Asked(raw(rows), {"content-type": "application/octet-stream"})


def _csv(rows: Array, dtype: str) -> Asked:
    with io.StringIO(newline="") as written:
        csv.writer(written).writerows(plain(rows))
        body = written.getvalue().encode()
    return Asked(body, {"content-type": "text/csv", "accept": "text/csv"})


def _read_csv(body: bytes, headers: Mapping[str, str], dtype: str) -> Array:
    assert headers["content-type"].startswith("text/csv")
    rows = list(csv.reader(io.StringIO(body.decode(), newline="")))
    convert = {
        "bool": {"true": True, "false": False}.__getitem__, "string": str, "float32": float,
        "float64": float, "int64": int, "uint64": int,
    }[dtype]  # fmt: skip
    return array_of([[convert(cell) for cell in row] for row in rows], dtype)


def _lines(rows: Array, dtype: str) -> Asked:
    kind = "application/jsonlines"
    return Asked(b"\n".join(map(text, plain(rows))), {"content-type": kind, "accept": kind})


def _read_lines(body: bytes, headers: Mapping[str, str], dtype: str) -> Array:
    return array_of([json.loads(line) for line in body.split(b"\n") if line], dtype)


def _npy(rows: Array, dtype: str) -> Asked:
    with io.BytesIO() as written:
        np.save(written, rows)
        kind = "application/x-npy"
        return Asked(written.getvalue(), {"content-type": kind, "accept": kind})


def _read_npy(body: bytes, headers: Mapping[str, str], dtype: str) -> Array:
    return np.load(io.BytesIO(body), allow_pickle=False)


def _multipart(rows: Array, dtype: str) -> Asked:
    parts = [
        b'--cut\r\ncontent-disposition: form-data; name="x"\r\n\r\n%b\r\n' % text(row)
        for row in plain(rows)
    ]
    body = b"".join((*parts, b"--cut--\r\n"))
    return Asked(body, {"content-type": "multipart/form-data; boundary=cut"})


def at(*keys: str) -> Callable[[bytes, Mapping[str, str], str], Array]:
    """Read a JSON answer: the tensor below one key after the other, each the only one."""

    def read(body: bytes, headers: Mapping[str, str], dtype: str) -> Array:
        assert headers.get("content-type", "").startswith("application/json")
        value = json.loads(body)
        for key in keys:
            assert list(value) == [key]
            value = value[key]
        return array_of(value, dtype)

    return read


def _read_named(body: bytes, headers: Mapping[str, str], dtype: str) -> Array:
    return array_of([row["y"] for row in json.loads(body)["predictions"]], dtype)


def instances(of_rows: str, of_columns: str) -> tuple[Ask, ...]:
    """TF Serving's bodies, and the key of the answer to each form."""
    return (
        Ask("instances", _body("instances"), at(of_rows)),
        Ask("instances by name", _rows_by_name, at(of_rows)),
        Ask("inputs", _body("inputs"), at(of_columns)),
        Ask("inputs by name", _columns_by_name, at(of_columns)),
        Ask("instances in Base64", _base64_rows, at(of_rows), ("string",)),
    )


def _examples(rows: Array, dtype: str) -> Asked:
    return Asked(text({"examples": [{"x": row} for row in plain(rows)]}), JSON)


def _read_classes(body: bytes, headers: Mapping[str, str], dtype: str) -> Array:
    rows = json.loads(body)["results"]
    assert all([label for label, _ in row] == ["0", "1"] for row in rows)
    return array_of([[score for _, score in row] for row in rows], dtype)


def _read_values(body: bytes, headers: Mapping[str, str], dtype: str) -> Array:
    return array_of([[value] for value in json.loads(body)["results"]], dtype)


FLOATS: Final = ("float32", "float64")
TABLES: Final = (
    Ask("CSV", _csv, _read_csv),
    Ask("JSON Lines", _lines, _read_lines),
    Ask("NPY", _npy, _read_npy, NUMBERS),
)


def files(read_whole: Any, read_rows: Any, read_document: Any) -> tuple[Ask, ...]:
    """Bodies of `modelport.serve.uploads.bodies`, and how each kind is answered."""
    return (
        Ask("instances", _body("instances"), read_document),
        Ask("bare rows", _bare, read_rows),
        Ask("whole body", _whole, read_whole, NUMBERS),
        Ask("form", _multipart, read_whole, NUMBERS),
    )


#: (protocol, example of the route) → ways to ask it.
HTTP_ASKS: Final[dict[tuple[str, str], Sequence[Ask]]] = {
    ("oip", "/v2/models/{model}/infer"): V2,
    ("tfserving", "/v1/models/{model}:predict"): instances("predictions", "outputs"),
    ("tfserving", "/v1/models/{model}:classify"): (
        Ask("examples", _examples, _read_classes, FLOATS),
    ),
    ("tfserving", "/v1/models/{model}:regress"): (
        Ask("examples", _examples, _read_values, FLOATS, "column"),
    ),
    ("sagemaker", "/invocations"): (
        *instances("predictions", "predictions"),
        *TABLES,
        *(replace(way, name=f"V2 {way.name}") for way in V2[:1]),
        Ask("bare rows", _bare, at()),
    ),
    ("vertex", "/my/predict"): (
        *instances("predictions", "outputs"), *TABLES, V2[0],
        Ask("whole body", _whole, at("predictions"), NUMBERS),
    ),
    ("azureml", "/score"): (
        *instances("predictions", "outputs"), *TABLES,
        Ask("whole body", _whole, at("predictions"), NUMBERS),
    ),
    ("torchserve", "/predictions/{model}"): files(at(), at(), at("predictions")),
    ("upload", "/predict"): files(_read_named, _read_named, _read_named),
    ("upload", "/predict/{model}"): files(_read_named, _read_named, _read_named),
}  # fmt: skip
