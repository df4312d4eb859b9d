"""Requests that must be refused, the models they are sent to, and what a refusal is."""

from __future__ import annotations

import http.client
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelport.core.tensors import Array

from . import onnx_models
from .packages import build_package
from .running import Answer, ask

HEADER = "Inference-Header-Content-Length"

#: Whitespace that makes a body larger than those for which the server has its other parser.
PADDING = b" " * 2000

#: What an answer must never show.
INSIDES = re.compile(
    r"Traceback|\.py\b|File \"|site-packages|/home/|/tmp/|/usr/|simdjson|0x[0-9a-f]{6}"
)

FLOATS = np.array([[1, 2], [3, 4]], np.float32)

#: Name → model and the inputs of its golden records.
MODELS: dict[str, tuple[bytes, dict[str, Array]]] = {
    "pair": (onnx_models.identity("float32"), {"x": FLOATS}),
    "finite": (onnx_models.identity("float32"), {"x": FLOATS}),
    "no-nan": (onnx_models.identity("float32"), {"x": FLOATS}),
    "cube": (onnx_models.identity("float32", ("N", 2, 2)), {"x": FLOATS[None]}),
    "whole": (onnx_models.identity("int64"), {"x": FLOATS.astype(np.int64)}),
    "flags": (onnx_models.identity("bool"), {"x": FLOATS > 2}),
    "text": (onnx_models.identity("string"), {"x": np.array([["a", "b"]], object)}),
    "two": (
        onnx_models.sum_of_two(),
        {"a": np.ones((2, 3), np.float32), "b": np.array([[1, 2], [3, 4]])},
    ),
    "lookup": (onnx_models.lookup(), {"i": np.arange(10)}),
}


def write_packages(folder: Path) -> list[Path]:
    """The packages of `MODELS`."""
    refused = {"finite": ("nan", "infinity"), "no-nan": ("nan",)}
    return [
        build_package(folder / name, name, model, golden, refuses=refused.get(name, ())).path
        for name, (model, golden) in MODELS.items()
    ]


def path_of(protocol: str, model: str) -> str:
    return f"/v1/models/{model}:predict" if protocol == "tfserving" else f"/v2/models/{model}/infer"


def assert_unharmed(bystander: http.client.HTTPConnection) -> None:
    """Good requests of both protocols and sizes are still answered correctly."""
    tfserving = b'{"instances": [[1.5, 2]]}'
    oip = b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 2]}]}'
    for padding in (b"", PADDING):
        answer = ask(bystander, "POST", "/v1/models/pair:predict", padding + tfserving)
        assert (answer.status, answer.json()) == (200, {"predictions": [[1.5, 2.0]]})
        answer = ask(bystander, "POST", "/v2/models/pair/infer", padding + oip)
        assert answer.status == 200
        assert answer.json()["outputs"][0]["data"] == [1.5, 2.0]


def assert_refused(answer: Answer, statuses: tuple[int, ...] = (400,)) -> str:
    """The error, which is in the protocols' shape and shows no insides."""
    assert answer.status in statuses, answer.body[:500]
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert list(document) == ["error"]
    error = document["error"]
    assert isinstance(error, str)
    assert error
    assert not INSIDES.search(error), error
    return error


@dataclass(frozen=True)
class Bad:
    """A body that must be refused, and a part of the message that says why."""

    model: str
    body: bytes
    message: str = ""


def rows(model: str, values: str, message: str = "") -> Bad:
    return Bad(model, b'{"instances": %b}' % values.encode(), message)


def columns(model: str, values: str, message: str = "") -> Bad:
    return Bad(model, b'{"inputs": %b}' % values.encode(), message)


#: Bodies that no protocol accepts.
NO_OBJECT = {
    "empty": b"",
    "spaces": b"   ",
    "word": b"hello",
    "number": b"1",
    "string": b'"inputs"',
    "null": b"null",
    "list": b"[]",
    "list of lists": b"[[1, 2]]",
    "empty object": b"{}",
    "cut": b'{"instances": [[1, 2',
    "no value": b'{"instances"}',
    "no comma": b'{"instances": [[1 2]]}',
    "comma at the end": b'{"instances": [[1, 2],]}',
    "single quotes": b"{'instances': [[1, 2]]}",
    "comment": b'{"instances": [[1, 2]] /* two */}',
    "NUL byte": b'{"instances": [[1, \x002]]}',
    "NUL in a string": b'{"a": "\x00", "instances": [[1, 2]]}',
    "control character": b'{"a": "\x1f\n", "instances": [[1, 2]]}',
    "broken UTF-8": b'{"instances": [[1, 2]], "\xff": 1}',
    "cut UTF-8": b'{"a": "\xe2\x82", "instances": [[1, 2]]}',
    "overlong UTF-8": b'{"a": "\xc0\xaf", "instances": [[1, 2]]}',
    "surrogate in UTF-8": b'{"a": "\xed\xa0\x80", "instances": [[1, 2]], "inputs": NaN}',
    "UTF-16": '{"instances": [[1, 2]]}'.encode("utf-16"),
    "half a surrogate pair": rb'{"a": "\ud800", "instances": [[1, 2]]}',
    "half a pair in a key": rb'{"\udc00": 1, "instances": [[1, 2]]}',
    "wrong escape": rb'{"a": "\x41", "instances": [[1, 2]]}',
    "leading zero": b'{"instances": [[01, 2]]}',
    "plus": b'{"instances": [[+1, 2]]}',
    "hexadecimal": b'{"instances": [[0x1, 2]]}',
    "bare point": b'{"instances": [[.5, 2]]}',
    "nan in small letters": b'{"instances": [[nan, 2]]}',
    "form": b"instances=1&inputs=2",
    "pickle": b"\x80\x04\x95\x0e\x00\x00\x00\x00\x00\x00\x00]",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    "deep lists": b'{"instances": ' + b"[" * 100_000,
    "deep closed lists": b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"instances": ' + b'{"a":' * 100_000,
    "deep list outside": b"[" * 100_000,
    "integer of 5000 digits": b'{"instances": [[%b, 2]]}' % (b"9" * 5000),
}

TFSERVING = {
    "instances: object": rows("pair", '{"x": [1, 2]}', "instances"),
    "instances: number": rows("pair", "1", "instances"),
    "instances: string": rows("pair", '"ab"', "instances"),
    "instances: empty": rows("pair", "[]", "instances"),
    "both": Bad("pair", b'{"instances": [[1, 2]], "inputs": [[1, 2]]}', "not both"),
    "signature number": Bad("pair", b'{"signature_name": 1, "inputs": [[1, 2]]}', "signature_name"),
    "one value too many": rows("pair", "[[1, 2, 3]]", "shape [1, 3], expected [N, 2]"),
    "one value too few": rows("pair", "[[1]]", "shape [1, 1], expected [N, 2]"),
    "rank too low": rows("pair", "[1, 2]", "shape [2], expected [N, 2]"),
    "rank too high": rows("pair", "[[[1, 2]]]", "shape [1, 1, 2], expected [N, 2]"),
    "rows of nothing": rows("pair", "[[]]", "x"),
    "scalar": columns("pair", "1", "shape [], expected [N, 2]"),
    "no rows": columns("cube", "[]", "expected [N, 2, 2]"),
    "lists of nothing": columns("cube", "[[], []]", "expected [N, 2, 2]"),
    "ragged first": rows("pair", "[[1, 2], [3]]", "different length"),
    "ragged first, empty": rows("pair", "[[1, 2], []]", "different length"),
    "ragged middle": rows("cube", "[[[1, 2], [3, 4]], [[5, 6]]]", "different length"),
    "ragged innermost": rows("cube", "[[[1, 2], [3, 4]], [[5, 6], [7]]]", "different length"),
    "ragged, same count": rows("cube", "[[[1, 2], [3]], [[4, 5], [6, 7, 8]]]", "different length"),
    "list among numbers": rows("pair", "[[1, [2]]]", "different length"),
    "empty list among numbers": rows("pair", "[[1, 2], [3, []]]", "different length"),
    "list instead of a number": rows("pair", "[[1, 2], [[3], 4]]", "different length"),
    "list hidden, same count": rows("cube", "[[[1, 2], [3, [4, 5]]], [[6], [7, 8]]]", "length"),
    "number among lists": rows("pair", "[[1, 2], 3]", "different length"),
    "list after a number": rows("pair", "[3, [1, 2]]", "different length"),
    "string among lists": rows("pair", '[[1, 2], "ab"]', "x"),
    "object among lists": rows("pair", '[[1, 2], {"a": 1, "b": 2}]', "x"),
    "object among rows": rows("pair", '[[1, 2], {"x": [1, 2]}]', "x"),
    "row among objects": rows("pair", '[{"x": [1, 2]}, [1, 2]]', "instances[1]"),
    "null among lists": rows("pair", "[[1, 2], null]", "x"),
    "null": rows("pair", "[[1, null]]", "holds null"),
    "number as string": rows("pair", '[[1, "2"]]', 'holds "2"'),
    "boolean": rows("pair", "[[1, true]]", "holds true"),
    "object": rows("pair", '[[1, {"a": 1}]]', "x"),
    "base64": rows("pair", '[[1, {"b64": "AAAA"}]]', "x"),
    "integer with a point": rows("whole", "[[1, 2.0]]", "holds 2.0"),
    "integer in exponents": rows("whole", "[[1, 1e3]]", "x"),
    "integer too large": rows("whole", f"[[1, {2**63}]]", "int64"),
    "integer of 30 digits": rows("whole", f"[[1, {'9' * 30}]]", "int64"),
    "integer of 400 digits": rows("pair", f"[[1, {'9' * 400}]]", "out of float32's range"),
    "not an integer": rows("whole", "[[1, NaN]]", "x"),
    "not a boolean": rows("flags", "[[true, 1]]", "holds 1"),
    "NaN": rows("finite", "[[1, NaN]]", "[0, 1]"),
    "NaN beside infinity": rows("no-nan", "[[Infinity, NaN]]", "[0, 1]"),
    "infinity": rows("finite", "[[1, 2], [-Infinity, 2]]", "[1, 0]"),
    "infinity by overflow": rows("finite", "[[1, 1e39]]", "[0, 1]"),
    "infinity in columns": columns("finite", '{"x": [[Infinity, 1]]}', "[0, 0]"),
    "ragged strings": rows("text", '[["a", "b"], ["c"]]', "different length"),
    "string among lists of strings": rows("text", '[["a", "b"], "cd"]', "different length"),
    "list among strings": rows("text", '[["a", ["b"]]]', "different length"),
    "number among strings": rows("text", '[["a", 1]]', "holds 1"),
    "deep strings": rows("text", "[" * 900 + '"a"' + "]" * 900, "x"),
    "deep numbers": rows("pair", "[" * 900 + "1" + "]" * 900, "x"),
    "deep objects in a row": rows("text", '[["a", ' + '{"b":' * 900 + "1" + "}" * 900 + "]]", "x"),
    "bad base64": rows("text", '[["a", {"b64": "%"}]]', "base64"),
    "missing input": columns("two", '{"a": [[1, 2, 3]]}', "b"),
    "null input": columns("two", '{"a": [[1, 2, 3]], "b": null}', "b"),
    "extra input in a row": rows("two", '[{"a": [1, 2, 3], "b": [1, 2], "c": 1}]', "c"),
    "batch sizes differ": columns("two", '{"a": [[1, 2, 3]], "b": [[1, 2], [3, 4]]}', "dimension"),
    "ragged rows of objects": rows(
        "two", '[{"a": [1, 2, 3], "b": [1, 2]}, {"a": [1, 2], "b": [1, 2]}]', "different length"
    ),
    "input of an input": columns("two", '{"a": {"a": 1}, "b": [[1, 2]]}', "a"),
}


def oip(model: str, *changes: tuple[str, Any], message: str = "", **document: Any) -> Bad:
    """An otherwise good request with keys of its input changed; None removes a key."""
    kind, data = {"text": ("BYTES", ["a", "b"]), "whole": ("INT64", [1, 2])}.get(
        model, ("FP32", [1, 2])
    )
    described = {"name": "x", "shape": [1, 2], "datatype": kind, "data": data, **dict(changes)}
    described = {key: value for key, value in described.items() if value is not None}
    body = json.dumps({"inputs": [described], **document}).encode()
    return Bad(model, body, message)


OIP = {
    "inputs missing": Bad("pair", b'{"outputs": []}', "'inputs'"),
    "inputs: object": Bad("pair", b'{"inputs": {"x": [1, 2]}}', "'inputs'"),
    "inputs: string": Bad("pair", b'{"inputs": "xy"}', "'inputs'"),
    "inputs: empty": Bad("pair", b'{"inputs": []}', "missing input: x"),
    "inputs: numbers": Bad("pair", b'{"inputs": [1, 2]}', "inputs[0]"),
    "inputs: lists": Bad("pair", b'{"inputs": [[1, 2]]}', "inputs[0]"),
    "inputs: null": Bad("pair", b'{"inputs": [null]}', "inputs[0]"),
    "name missing": oip("pair", ("name", None), message="'name'"),
    "name: number": oip("pair", ("name", 1), message="'name'"),
    "name: list": oip("pair", ("name", ["x"]), message="'name'"),
    "name unknown": oip("pair", ("name", "z"), message="unknown input: z"),
    "name with NUL": oip("pair", ("name", "x\0"), message="unknown input"),
    "datatype missing": oip("pair", ("datatype", None), message="expected FP32"),
    "datatype of another type": oip("pair", ("datatype", "FP64"), message="expected FP32"),
    "datatype unknown": oip("pair", ("datatype", "FLOAT"), message="expected FP32"),
    "datatype: list": oip("pair", ("datatype", ["FP32"]), message="expected FP32"),
    "datatype: object": oip("pair", ("datatype", {"a": 1}), message="expected FP32"),
    "shape missing": oip("pair", ("shape", None), message="shape"),
    "shape: number": oip("pair", ("shape", 2), message="shape"),
    "shape: string": oip("pair", ("shape", "12"), message="shape"),
    "shape: object": oip("pair", ("shape", {"a": 1}), message="shape"),
    "shape: negative": oip("pair", ("shape", [-1, 2]), message="-1"),
    "shape: fraction": oip("pair", ("shape", [1.5, 2]), message="1.5"),
    "shape: boolean": oip("pair", ("shape", [True, 2]), message="True"),
    "shape: nested": oip("pair", ("shape", [[1, 2]]), message="shape"),
    "shape: null": oip("pair", ("shape", [None]), message="shape"),
    "shape: strings": oip("pair", ("shape", ["1", "2"]), message="shape"),
    "shape: more": oip("pair", ("shape", [2, 2]), message="2 elements, its shape [2, 2] needs 4"),
    "shape: fewer": oip("pair", ("shape", [1]), message="needs 1"),
    "shape: of another rank": oip("pair", ("shape", [2]), message="expected [N, 2]"),
    "shape: transposed": oip("pair", ("shape", [2, 1]), message="expected [N, 2]"),
    "shape: of 70 dimensions": oip("pair", ("shape", [1] * 69 + [2]), message="x"),
    "shape: huge": oip("pair", ("shape", [2**62, 2**62]), message="needs"),
    "shape: beyond 64 bits": oip("pair", ("shape", [10**30, 2]), message="shape"),
    "shape: zero times huge": oip("pair", ("shape", [0, 2**63]), ("data", []), message="x"),
    "data missing": oip("pair", ("data", None), message="'data'"),
    "data: empty": oip("pair", ("data", []), message="0 elements"),
    "data: number": oip("pair", ("data", 1), message="1 elements"),
    "data: object": oip("pair", ("data", {"a": 1}), message="x"),
    "data: string": oip("pair", ("data", "ab"), message="x"),
    "data: strings": oip("pair", ("data", ["1", "2"]), message="x"),
    "data: null": oip("pair", ("data", [1, None]), message="x"),
    "data: booleans": oip("pair", ("data", [True, False]), message="x"),
    "data: too many": oip("pair", ("data", [1, 2, 3]), message="3 elements"),
    "data: nested otherwise": oip("pair", ("data", [[1], [2]]), message="nested as [2, 1]"),
    "data: ragged": oip("pair", ("data", [[1, 2], [3]]), message="different length"),
    "data: ragged, same count": oip("pair", ("data", [[1], [2, 3]]), ("shape", [3, 1])),
    "data: list hidden": oip("pair", ("data", [1, [2]]), message="different length"),
    "data: list hidden deeper": oip(
        "cube", ("data", [[[1, 2], [3, [4]]]]), ("shape", [1, 2, 2]), message="different length"
    ),
    "data: empty list hidden": oip("pair", ("data", [[1, 2, []]]), message="x"),
    "data: first is a list": oip("pair", ("data", [[1], 2]), message="different length"),
    "data: deep": oip("pair", ("data", json.loads("[" * 500 + "]" * 500)), message="x"),
    "data: deep strings": oip("text", ("data", json.loads("[" * 500 + "]" * 500)), message="x"),
    "data: numbers for strings": oip("text", ("data", ["a", 1]), message="holds 1"),
    "data: null for strings": oip("text", ("data", ["a", None]), message="holds null"),
    "data: fractions": oip("whole", ("data", [1, 2.5]), message="x"),
    "data: out of range": oip("whole", ("data", [1, 2**63]), message="int64"),
    "data: of 400 digits": oip("pair", ("data", [1, 10**400]), message="float32"),
    "data: NaN": Bad(
        "finite",
        b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [NaN, 1]}]}',
        "[0, 0]",
    ),
    "data and binary": oip("pair", ("parameters", {"binary_data_size": 8}), message="both"),
    "binary without bytes": oip(
        "pair", ("data", None), ("parameters", {"binary_data_size": 8}), message="0 are left"
    ),
    "binary size: string": oip(
        "pair", ("data", None), ("parameters", {"binary_data_size": "8"}), message="'8'"
    ),
    "binary size: negative": oip(
        "pair", ("data", None), ("parameters", {"binary_data_size": -8}), message="-8"
    ),
    "binary size: fraction": oip(
        "pair", ("data", None), ("parameters", {"binary_data_size": 8.0}), message="8.0"
    ),
    "binary size: list": oip(
        "pair", ("data", None), ("parameters", {"binary_data_size": [8]}), message="binary"
    ),
    "parameters: list": oip("pair", ("data", None), ("parameters", [8]), message="'parameters'"),
    "id: number": oip("pair", id=1, message="'id'"),
    "id: object": oip("pair", id={"a": 1}, message="'id'"),
    "outputs: object": oip("pair", outputs={"name": "y"}, message="'outputs'"),
    "output unknown": oip("pair", outputs=[{"name": "z"}], message="output z"),
    "output twice": oip("pair", outputs=[{"name": "y"}, {"name": "y"}], message="twice"),
    "output: list": oip("pair", outputs=[["y"]], message="output"),
    "input twice": Bad(
        "pair",
        b'{"inputs": [%b, %b]}'
        % ((b'{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}',) * 2),
        "twice",
    ),
    "input missing": Bad(
        "two",
        b'{"inputs": [{"name": "a", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}',
        "missing input: b",
    ),
    "batch sizes differ": Bad(
        "two",
        b'{"inputs": [{"name": "a", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}, '
        b'{"name": "b", "shape": [2, 2], "datatype": "INT64", "data": [1, 2, 3, 4]}]}',
        "dimension",
    ),
    "half a surrogate pair": Bad("text", rb'{"id": "\ud800", "inputs": []}', "surrogate"),
    "half a pair and NaN": Bad(
        "text", rb'{"a": NaN, "inputs": [{"name": "\udfff", "shape": [1]}]}', "surrogate"
    ),
}  # fmt: skip


def binary_request(shape: list[int], size: Any, model: str = "pair", kind: str = "FP32") -> bytes:
    described = {"name": "x", "shape": shape, "datatype": kind}
    inputs = [{**described, "parameters": {"binary_data_size": size}}]
    return json.dumps({"inputs": inputs}).encode()


GOOD_HEAD = binary_request([1, 2], 8)
