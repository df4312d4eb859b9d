"""Files, forms and texts: ``POST /predict``, multipart or raw."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport import api
from modelport.core.errors import InputError, LimitError
from modelport.core.package import Package
from modelport.serve.base import ModelIdentity, Request
from modelport.serve.uploads.bodies import Form, read
from modelport.serve.uploads.forms import MOST_PARTS, fields_of, parts_of

from . import onnx_models
from .packages import reference, signature_of
from .running import Answer, RunningServer
from .test_processing import PHOTOS
from .upload_models import ROWS, image_package, plain_packages, text_package

BOUNDARY = "limit"
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MOST_BYTES = 1 << 20


def part(name: str, data: bytes, extra: str = "", kind: str = "") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"{extra}\r\n'
    head += f"Content-Type: {kind}\r\n" if kind else ""
    return f"--{BOUNDARY}\r\n{head}\r\n".encode() + data + b"\r\n"


def multipart(*parts: tuple[str, bytes]) -> bytes:
    return b"".join(part(name, data) for name, data in parts) + f"--{BOUNDARY}--\r\n".encode()


@pytest.fixture(scope="module")
def packages(module_path: Path) -> dict[str, Package]:
    return {
        "colours": image_package(module_path, "colours", keep=False),
        "top": image_package(module_path, "top", top_k=3, keep=True),
        "words": text_package(module_path, "words"),
    }


@pytest.fixture(scope="module")
def server(packages: dict[str, Package], module_path: Path) -> Iterator[RunningServer]:
    models = [*(package.path for package in packages.values()), *plain_packages(module_path)]
    with RunningServer(module_path / "server", models, ["--max-body", str(MOST_BYTES)]) as running:
        yield running


def predictions(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer.body
    ((key, rows),) = answer.json().items()
    assert key == "predictions"
    found: list[dict[str, Any]] = rows
    return found


def expect_labels(rows: Sequence[Mapping[str, Any]], package: Package, photos: Any) -> None:
    expected = api.predict(str(package.path), photos)
    assert [row["label"] for row in rows] == expected["label"].tolist()
    found = np.float32([row["probability"] for row in rows])
    np.testing.assert_array_equal(found, expected["probability"])


@pytest.mark.parametrize("path", ["/predict", "/predict/colours"])
@pytest.mark.parametrize("name", ["image", "file", "data", "body"])
def test_a_photograph(
    server: RunningServer, packages: dict[str, Package], path: str, name: str
) -> None:
    answer = server.post(path, multipart((name, PHOTOS[0])), MULTIPART)
    rows = predictions(answer)
    expect_labels(rows, packages["colours"], PHOTOS[:1])
    assert rows[0].keys() == {"label", "probability"}


@pytest.mark.parametrize(
    "kind",
    ["image/jpeg", "image/png", "application/octet-stream", "", "text/plain", "application/pdf",
     "application/x-www-form-urlencoded", "image/jpeg; charset=binary"],
)  # fmt: skip
@pytest.mark.parametrize("photo", [0, 1], ids=["jpeg", "png"])
def test_a_photograph_as_it_is(
    server: RunningServer, packages: dict[str, Package], kind: str, photo: int
) -> None:
    """What it is called matters to nobody: its own first bytes tell."""
    headers = {"Content-Type": kind} if kind else {}
    rows = predictions(server.post("/predict", PHOTOS[photo], headers))
    expect_labels(rows, packages["colours"], [PHOTOS[photo]])


def test_several_photographs_are_several_rows(
    server: RunningServer, packages: dict[str, Package]
) -> None:
    body = multipart(*(("image", photo) for photo in PHOTOS))
    expect_labels(
        predictions(server.post("/predict", body, MULTIPART)), packages["colours"], PHOTOS
    )


def encoded(photo: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(photo).decode()}


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [encoded(PHOTOS[0])]},
        {"instances": [{"image": encoded(PHOTOS[0])}]},
        {"inputs": {"image": [encoded(PHOTOS[0])]}},
        {"inputs": [encoded(PHOTOS[0])]},
        [encoded(PHOTOS[0])],
        encoded(PHOTOS[0]),
        {"image": encoded(PHOTOS[0])},
        {"data": encoded(PHOTOS[0])},
        {"data": [encoded(PHOTOS[0])]},
    ],
)
@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "", "application/ld+json"])
def test_json(
    server: RunningServer, packages: dict[str, Package], document: Any, kind: str
) -> None:
    answer = server.post("/predict", document, {"Content-Type": kind} if kind else {})
    expect_labels(predictions(answer), packages["colours"], PHOTOS[:1])


def test_the_best_few(server: RunningServer, packages: dict[str, Package]) -> None:
    expected = api.predict(str(packages["top"].path), PHOTOS[:2])
    body = multipart(("image", PHOTOS[0]), ("image", PHOTOS[1]))
    for query, count in (("", 3), ("?top_k=1", 1), ("?a=b&top_k=2", 2), ("?top_k=3", 3)):
        rows = predictions(server.post(f"/predict/top{query}", body, MULTIPART))
        for position, row in enumerate(rows):
            assert row["label"] == row["top_k"][0]["label"]
            assert row["probability"] == row["top_k"][0]["probability"]
            labels = [item["label"] for item in row["top_k"]]
            assert labels == expected["labels"][position].tolist()[:count]
            numbers = np.float32([item["probability"] for item in row["top_k"]])
            np.testing.assert_array_equal(numbers, expected["probabilities"][position][:count])
            np.testing.assert_array_equal(np.float32(row["logits"]), expected["logits"][position])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/predict/top?top_k=4", "the model answers 1 to 3 labels"),
        ("/predict/top?top_k=0", "the model answers 1 to 3"),
        ("/predict/top?top_k=-1", "top_k is '-1'"),
        ("/predict/top?top_k=", "top_k is ''"),
        ("/predict/top?top_k=9999999999999999999", "top_k is"),
        ("/predict/colours?top_k=2", "1 to 1 labels"),
        ("/predict/dense?top_k=1", "the model answers no labels"),
    ],
)
def test_no_such_few(server: RunningServer, path: str, message: str) -> None:
    answer = server.post(path, PHOTOS[0])
    assert answer.status == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize("text", ["free money", "", "good morning \N{SNOWMAN}", "[1]", "a=b"])
@pytest.mark.parametrize("way", ["multipart", "form", "plain", "json"])
def test_texts(server: RunningServer, packages: dict[str, Package], text: str, way: str) -> None:
    bodies: dict[str, tuple[bytes, Mapping[str, str]]] = {
        "multipart": (multipart(("text", text.encode())), MULTIPART),
        "form": (b"data=" + "".join(f"%{byte:02X}" for byte in text.encode()).encode(), FORM),
        "plain": (text.encode(), {"Content-Type": "text/plain; charset=utf-8"}),
        "json": (json.dumps(text).encode(), {"Content-Type": "application/json"}),
    }
    body, headers = bodies[way]
    answer = server.post("/predict/words", body, headers)
    if not body:
        assert answer.status == 400
        assert answer.json() == {"error": "body is empty"}
        return
    expect_labels(predictions(answer), packages["words"], [text])


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (json.dumps(ROWS.tolist()).encode(), {}),
        (json.dumps({"instances": ROWS.tolist()}).encode(), FORM),
        (json.dumps({"inputs": ROWS.tolist()}).encode(), {"Content-Type": "application/json"}),
        (ROWS.tobytes(), {"Content-Type": "application/octet-stream"}),
        (multipart(*(("x", json.dumps(row.tolist()).encode()) for row in ROWS)), MULTIPART),
        (multipart(("data", json.dumps(ROWS.tolist()).encode())), MULTIPART),
        (
            part("data", json.dumps({"instances": ROWS.tolist()}).encode(), kind="application/json")
            + f"--{BOUNDARY}--".encode(),
            MULTIPART,
        ),
        (b"\n".join(json.dumps(row.tolist()).encode() for row in ROWS),
         {"Content-Type": "application/jsonlines"}),
        (b"\n".join(json.dumps(row.tolist())[1:-1].encode() for row in ROWS),
         {"Content-Type": "text/csv"}),
        (json.dumps({"dataframe_split": {"data": ROWS.tolist()}}).encode(), {}),
        (b"\xef\xbb\xbf" + json.dumps(ROWS.tolist()).encode(), {}),
        (b"&".join(b"x=" + json.dumps(row.tolist()).encode() for row in ROWS), FORM),
    ],
)  # fmt: skip
def test_tensors(server: RunningServer, body: bytes, headers: Mapping[str, str]) -> None:
    rows = predictions(server.post("/predict/dense", body, headers))
    expected = reference(onnx_models.dense(0), {"x": ROWS})["y"]
    np.testing.assert_array_equal(np.float32([row["y"] for row in rows]), expected)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/predict/two", {"a": [1, 2, 3], "b": [4, 5]}, {"predictions": [{"total": 15.0}]}),
        ("/predict/two", [{"a": [1, 2, 3], "b": [4, 5]}], {"predictions": [{"total": 15.0}]}),
        ("/predict/two", b"a=[1,2,3]&b=[4,5]", {"predictions": [{"total": 15.0}]}),
        (
            "/predict/summary",
            [[1, 2], [3, 4]],
            {"outputs": {"rows": [[1, 2], [3, 4]], "mean": 2.5}},
        ),
        ("/predict/same", b"[[NaN, -Infinity]]", {"predictions": [{"y": [None, None]}]}),
        ("/predict/half", [[1.5, 65504]], {"predictions": [{"y": [1.5, 65504]}]}),
        ("/predict/truth", [[True, False]], {"predictions": [{"y": [True, False]}]}),
        ("/predict/vector", [1, 2], {"predictions": [{"y": 1}, {"y": 2}]}),
        ("/predict/colours", {"inputs": []}, {"predictions": []}),
        ("/predict/top", {"inputs": {"image": []}}, {"predictions": []}),
        ("/predict/words", {"inputs": []}, {"predictions": []}),
        ("/predictions/top", {"inputs": []}, {"predictions": []}),
        ("/predict/vector", {"inputs": []}, {"predictions": []}),
        ("/predict/vector", 3, {"predictions": [{"y": 3}]}),
        ("/predict/echo", ["a", "ß"], {"predictions": [{"y": "a"}, {"y": "ß"}]}),
        ("/predict/echo", "NaN", {"predictions": [{"y": "NaN"}]}),
    ],
)
def test_any_model(server: RunningServer, path: str, body: Any, expected: Any) -> None:
    headers = FORM if isinstance(body, bytes) else {"Content-Type": "application/json"}
    answer = server.post(path, body, headers)
    assert answer.status == 200, answer.body
    assert answer.json() == expected


def test_several_inputs_in_parts(server: RunningServer) -> None:
    body = multipart(("a", b"[1,2,3]"), ("b", b"[4,5]"), ("a", b"[0,0,0]"), ("b", b"[1,1]"))
    rows = predictions(server.post("/predict/two", body, MULTIPART))
    assert rows == [{"total": 15.0}, {"total": 2.0}]


END = f"--{BOUNDARY}--\r\n".encode()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "body is empty"),
        (END, 400, "has no parts"),
        (b"hello", 400, "multipart body is broken"),
        (part("image", PHOTOS[0]), 400, "ends before its closing boundary"),
        (part("image", PHOTOS[0])[:-200], 400, "ends before its closing boundary"),
        (part("image", PHOTOS[0]) + f"--{BOUNDARY}".encode(), 400, "ends before its closing"),
        (b"--other\r\n\r\n\r\n--other--", 400, "multipart body is broken"),
        (multipart(("picture", PHOTOS[0])), 400, "no input is named 'picture'; the model takes: "),
        (multipart(("image[0]", PHOTOS[0])), 400, "no input is named 'image[0]'"),
        (multipart(("", PHOTOS[0])), 400, "no input is named ''"),
        (multipart(("x" * 3000, PHOTOS[0])), 400, "no input is named 'xxxx"),
        (multipart(("x" * 9000, PHOTOS[0])), 400, "Maximum header size exceeded"),
        (multipart(("image", b"")), 400, "not a JPEG, PNG, WebP or BMP image"),
        (multipart(("image", b"hello")), 400, "not a JPEG, PNG, WebP or BMP image: 5 bytes"),
        (multipart(("image", PHOTOS[1][:60])), 400, "damaged"),
        (multipart(("image", PHOTOS[1]), ("image", b"no")), 400, "image[1]"),
        (f"--{BOUNDARY}\r\n\r\n\r\n".encode() + END, 400, "no 'Content-Disposition"),
        (
            f"--{BOUNDARY}\r\nContent-Disposition: attachment\r\n\r\n\r\n".encode() + END,
            400, "no 'Content-Disposition",
        ),
        (
            f"--{BOUNDARY}\r\nContent-Disposition: form-data; a=b\r\n\r\n\r\n".encode() + END,
            400, "no 'Content-Disposition",
        ),
        (
            part("image", b"aGk=", "\r\nContent-Transfer-Encoding: base64") + END,
            415, "part is encoded as 'base64'",
        ),
        (part("image", b"x", "".join(f"\r\nX-{i}: 1" for i in range(20))) + END, 400, "broken"),
        (part("image", b"x") * (MOST_PARTS + 1) + END, 413, f"more than {MOST_PARTS} parts"),
        (part("image", b"") * 10_000 + END, 413, f"more than {MOST_PARTS} parts"),
        (part("image", b"\r\n--limitX" * 2000) + END, 413, f"more than {MOST_PARTS} parts"),
        (part("image", b"\r\n--limit" + b" " * 900_000) + END, 400, "blanks behind a delimiter"),
        (f"--{BOUNDARY}".encode() + b"\t" * 900_000, 400, ""),
        (part("image", bytes(MOST_BYTES)) + END, 413, "the limit is 1048576 bytes"),
    ],
)  # fmt: skip
def test_broken_multipart(server: RunningServer, body: bytes, status: int, message: str) -> None:
    answer = server.post("/predict", body, MULTIPART)
    assert answer.status == status, answer.body
    assert message in answer.json()["error"]
    assert len(answer.body) < 1000


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({"Content-Type": "multipart/form-data"}, 400, "names no boundary"),
        ({"Content-Type": 'multipart/form-data; boundary=""'}, 400, "names no boundary"),
        ({"Content-Type": "multipart/form-data; boundary=" + "x" * 300}, 400, "Boundary length"),
        ({"Content-Type": "multipart/mixed; boundary=limit"}, 400, "not a JPEG"),
        ({"Content-Type": ";;;=;"}, 200, ""),
    ],
)
def test_strange_types(
    server: RunningServer, headers: Mapping[str, str], status: int, message: str
) -> None:
    body = PHOTOS[0] if status == 200 else multipart(("image", PHOTOS[0]))
    answer = server.post("/predict", body, headers)
    assert answer.status == status, answer.body
    assert message in answer.body.decode()


@pytest.mark.parametrize(
    "extra",
    [
        '; filename="cat.jpg"',
        '; filename="кошка ☃.jpg"',
        "; filename=\"a.jpg\"; filename*=UTF-8''%e2%98%83.jpg",
        '; filename="../../etc/passwd"',
        '; filename="a\\"b;c.jpg"',
        '; filename=""',
    ],
)
def test_file_names_are_nothing_but_names(server: RunningServer, extra: str) -> None:
    answer = server.post("/predict", part("image", PHOTOS[0], extra) + END, MULTIPART)
    assert len(predictions(answer)) == 1


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "message"),
    [
        ("/predict/dense", PHOTOS[0], {"Content-Type": "image/jpeg"}, 415,
         "input x takes float32 [N, 8], not image/jpeg"),
        ("/predict/dense", PHOTOS[0], {}, 400, "body is not UTF-8"),
        ("/predict/dense", b"abc", FORM, 400, "body is not JSON"),
        ("/predict/dense", b"123", {"Content-Type": "application/octet-stream"}, 400,
         "3 bytes are no whole number of float32"),
        ("/predict/dense", b"[[1]]", {}, 400, "expected [N, 8]"),
        ("/predict/dense", b"[]", {}, 400, "No values in"),
        ("/predict/dense", b"{}", {}, 400, "the model takes x"),
        ("/predict/dense", b'{"y":[1]}', {}, 400, "the model takes x"),
        ("/predict/dense", b"[[1]],[[2]]", {}, 400, "body is not JSON"),
        ("/predict/dense", b'[[1]],"instances":[[2]]', {}, 400, "Extra data"),
        ("/predict/dense", b'{"instances": [[1]]}, [1]', {}, 400, "body is not JSON"),
        ("/predict/dense", b"a,b\n1,2", {"Content-Type": "text/csv"}, 400, "columns"),
        ("/predict/dense", b"null", {}, 400, "needs float32, and holds null"),
        ("/predict/dense", b"[[1,2,3,4,5,6,7,true]]", {}, 400, "needs float32, and holds true"),
        ("/predict/dense", multipart(("x", b"[1,2]"), ("x", b"[1]")), MULTIPART, 400,
         "different shapes: [2], [1]"),
        ("/predict/dense", multipart(("x", b"abc")), MULTIPART, 400, "body is not JSON"),
        ("/predict/dense", part("x", PHOTOS[0], kind="image/jpeg") + END, MULTIPART, 415,
         "not image/jpeg (at part 0)"),
        ("/predict/two", b"12345678", {"Content-Type": "application/octet-stream"}, 415,
         "the model takes a, b: send multipart/form-data or JSON"),
        ("/predict/two", multipart(("a", b"[1,2,3]")), MULTIPART, 400, "missing input: b"),
        ("/predict/two", multipart(("data", b"[1,2,3]")), MULTIPART, 400, "no input is named"),
        ("/predict/two", multipart(("a", b"[1,2,3]"), ("b", b"[1,2]"), ("b", b"[1,2]")), MULTIPART,
         400, "dimension N is 1 in input a and 2 in input b"),
        ("/predict/two", multipart(("a", b"[1,2,3]"), ("b", b"[1.5,2]")), MULTIPART, 400,
         "needs int64, and holds 1.5"),
        ("/predict/words", b"\xff\xfe", {"Content-Type": "text/plain"}, 400, "takes text in UTF-8"),
        ("/predict/words", PHOTOS[0], {"Content-Type": "image/jpeg"}, 415, "takes string"),
        ("/predict/words", b"data=" + b"%ff", FORM, 400, "takes text in UTF-8"),
        ("/predict/words", b"data=1&" * (MOST_PARTS + 5), FORM, 413, "fields"),
        ("/predict/echo", b"[" * 100_000, {}, 400, "nested too deeply"),
        ("/predict/nobody", PHOTOS[0], {}, 404, "model not found: nobody"),
        ("/predict/dense/1", b"[[1]]", {}, 404, "Not Found"),
    ],
)  # fmt: skip
def test_refused(
    server: RunningServer, path: str, body: bytes, headers: Any, status: int, message: str
) -> None:
    answer = server.post(path, body, headers)
    assert answer.status == status, answer.body
    assert message in answer.json()["error"]


def test_methods(server: RunningServer) -> None:
    for path in ("/predict", "/predict/dense"):
        answer = server.request("OPTIONS", path)
        assert (answer.status, answer.headers["allow"], answer.body) == (200, "OPTIONS, POST", b"")
        answer = server.get(path)
        assert (answer.status, answer.headers["allow"]) == (405, "OPTIONS, POST")
    assert server.request("OPTIONS", "/predict/nobody").status == 404


def test_openapi_tells_it(server: RunningServer) -> None:
    paths = server.get("/openapi.json").json()["paths"]
    for path in ("/predict", "/predict/colours", "/predict/dense"):
        assert paths[path].keys() == {"post", "options"}
        content = paths[path]["post"]["requestBody"]["content"]
        assert ("image/jpeg" in content) is not path.endswith("dense")
        assert {"200", "400", "401", "413", "415"} <= paths[path]["post"]["responses"].keys()


def test_the_log_stays_quiet(server: RunningServer) -> None:
    for body in (b"hello", part("image", b"")[:-2], b"--limit\r\n:\r\n\r\n"):
        assert server.post("/predict", body, MULTIPART).status == 400
    assert "Traceback" not in server.log()
    assert "boundary" not in server.log()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    "arguments",
    [
        ["-F", "image=@cat.jpg"],
        ["-F", "file=@cat.jpg;type=image/jpeg"],
        ["-F", "image=@cat.jpg;filename=ä.jpg"],
        ["--data-binary", "@cat.jpg"],
        ["--data-binary", "@cat.jpg", "-H", "Content-Type: image/jpeg"],
        ["--data-binary", "@cat.jpg", "-H", "Transfer-Encoding: chunked"],
        ["-F", "image=<cat.jpg"],
    ],
)
def test_curl(
    server: RunningServer, packages: dict[str, Package], tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "cat.jpg").write_bytes(PHOTOS[0])
    done = subprocess.run(
        ["curl", "-sS", "--fail", *arguments, f"http://127.0.0.1:{server.port}/predict"],
        capture_output=True,
        cwd=tmp_path,
        check=True,
    )
    expect_labels(json.loads(done.stdout)["predictions"], packages["colours"], PHOTOS[:1])


MODEL = ModelIdentity("dense", 1, signature_of(onnx_models.dense(0)), "onnxruntime_onnx")


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_no_cut_is_taken_for_a_whole(cut: int) -> None:
    whole = multipart(("x", b"\r\n--limi" * 20), ("x", b"-" * 150))
    assert [item.data for item in parts_of(whole, BOUNDARY)] == [b"\r\n--limi" * 20, b"-" * 150]
    with pytest.raises(InputError):
        parts_of(whole[:cut], BOUNDARY)


def test_parts_keep_every_byte() -> None:
    random = np.random.default_rng(3)
    pieces = [b"\r", b"\n", b"-", b"--", b"limit", b"\r\n--", b"\r\n--limi", b"\0", b"\xff"]
    for _ in range(200):
        contents = [
            b"".join(pieces[i] for i in random.integers(0, len(pieces), random.integers(0, 12)))
            for _ in range(random.integers(1, 4))
        ]
        if any(b"\r\n--limit" in content for content in contents):
            continue
        found = parts_of(multipart(*(("x", content) for content in contents)), BOUNDARY)
        assert [item.data for item in found] == contents


def test_fields_keep_every_byte() -> None:
    raw = bytes(range(256))
    quoted = "".join(f"%{byte:02x}" for byte in raw)
    found = fields_of(f"data={quoted}&b=&c".encode())
    assert [(item.name, item.data) for item in found] == [("data", raw), ("b", b""), ("c", b"")]
    with pytest.raises(LimitError):
        fields_of(b"&".join([b"a=1"] * (MOST_PARTS + 1)))


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b"[[1,2,3,4,5,6,7,8]]", Form.ROWS),
        (b'{"instances": [[1,2,3,4,5,6,7,8]]}', Form.DOCUMENT),
        (b'{"inputs": [[1,2,3,4,5,6,7,8]]}', Form.DOCUMENT),
        (b'{"x": [1,2,3,4,5,6,7,8]}', Form.FILES),
        (b'{"data": [[1,2,3,4,5,6,7,8]]}', Form.ROWS),
    ],
)
def test_how_a_body_was_written(body: bytes, form: Form) -> None:
    found = read(Request("POST", "/predict", {}, body), MODEL)
    assert found.form is form
    assert MODEL.signature.check(found.tensors)["x"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
