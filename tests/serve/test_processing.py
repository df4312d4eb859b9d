"""Images and texts sent as they are, over every protocol: the same bits as everywhere else."""

from __future__ import annotations

import base64
import concurrent.futures
import hashlib
import io
import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from modelport import api
from modelport.core.errors import InputError, SignatureError
from modelport.core.golden import GoldenRecords
from modelport.core.package import CHECKSUM, GOLDEN, MANIFEST, Package
from modelport.core.tensors import BYTES, Array, TensorSpec
from modelport.serve.json_codec import from_base64
from modelport.serve.oip import codec as oip_codec

from .running import RunningServer

SIZE = 16
LABELS = ("dark", "light", "red")
RANDOM = np.random.default_rng(11)
FLOAT = TensorProto.FLOAT


def photo(seed: int, height: int = 40, width: int = 50) -> bytes:
    """A picture whose brightness depends on its seed, as JPEG or PNG."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 60 + 60 * (seed % 4), (height, width, 3), dtype=np.uint8)
    if seed % 3 == 2:
        pixels[..., 1:] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG" if seed % 2 else "JPEG")
    return buffer.getvalue()


PHOTOS = [photo(seed) for seed in range(12)]


def colours() -> bytes:
    """Logits from the mean of each channel: row by row, and quick."""
    weights = RANDOM.normal(size=(3, 3)).astype(np.float32) * 4
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
    ]
    return model(
        nodes, {"x": (FLOAT, ["N", 3, SIZE, SIZE])}, {"logits": (FLOAT, ["N", 3])}, weights
    )


def words() -> bytes:
    weights = RANDOM.normal(size=(6, 2)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["each"]),
        helper.make_node("ReduceMean", ["each"], ["scores"], axes=[1], keepdims=0),
    ]
    return model(
        nodes, {"input_ids": (TensorProto.INT64, ["N", 8])}, {"scores": (FLOAT, ["N", 2])}, weights
    )


def model(nodes: list[Any], inputs: Any, outputs: Any, weights: Array) -> bytes:
    sides = [
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in side.items()]
        for side in (inputs, outputs)
    ]
    constant = helper.make_tensor("weights", FLOAT, weights.shape, weights.ravel())
    proto = helper.make_model(
        helper.make_graph(nodes, "g", *sides, [constant]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    content: bytes = proto.SerializeToString()
    return content


@pytest.fixture(scope="module")
def packages(module_path: Path) -> dict[str, Package]:
    (module_path / "colours.onnx").write_bytes(colours())
    (module_path / "words.onnx").write_bytes(words())
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "free": 2, "money": 3, "good": 4, "morning": 5}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(module_path / "tokenizer.json"))
    image = {"kind": "image", "resize": "shorter", "size": [20], "divide": 255}
    labels = {"kind": "labels", "labels": LABELS}
    text = {"kind": "text", "file": str(module_path / "tokenizer.json")}
    return {
        "colours": api.pack(
            module_path / "colours.onnx", "colours", sample=PHOTOS, out=module_path,
            processing={"inputs": [image], "outputs": [labels]},
        ),
        "words": api.pack(
            module_path / "words.onnx", "words", out=module_path,
            sample=["free money", "good morning", "good money for free"],
            processing={
                "inputs": [text],
                "outputs": [{**labels, "labels": ["ham", "spam"], "top_k": 2, "keep": False}],
            },
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def server(packages: dict[str, Package], module_path: Path) -> Iterator[RunningServer]:
    folders = [str(package.path) for package in packages.values()]
    with RunningServer(module_path / "server", folders, ["--max-body", str(8 << 20)]) as running:
        yield running


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def tf_serving(server: RunningServer, photos: list[bytes]) -> dict[str, Array]:
    body = {"inputs": {"image": [{"b64": b64(data)} for data in photos]}}
    answer = server.post("/v1/models/colours:predict", body)
    assert answer.status == 200, answer.body
    outputs = answer.json()["outputs"]
    return {
        "label": np.array(outputs["label"], object),
        "probability": np.float32(outputs["probability"]),
        "logits": np.float32(outputs["logits"]),
    }


def tf_serving_rows(server: RunningServer, photos: list[bytes]) -> dict[str, Array]:
    body = {"instances": [{"b64": b64(data)} for data in photos]}
    rows = server.post("/v1/models/colours:predict", body).json()["predictions"]
    return {
        "label": np.array([row["label"] for row in rows], object),
        "probability": np.float32([row["probability"] for row in rows]),
        "logits": np.float32([row["logits"] for row in rows]),
    }


def tf_serving_objects(server: RunningServer, photos: list[bytes]) -> dict[str, Array]:
    body = {"instances": [{"image": {"b64": b64(data)}} for data in photos]}
    rows = server.post("/v1/models/colours:predict", body).json()["predictions"]
    return {
        "label": np.array([row["label"] for row in rows], object),
        "probability": np.float32([row["probability"] for row in rows]),
        "logits": np.float32([row["logits"] for row in rows]),
    }


def v2(server: RunningServer, photos: list[bytes]) -> dict[str, Array]:
    item = {"name": "image", "shape": [len(photos)], "datatype": "BYTES"}
    body = {"inputs": [{**item, "data": [b64(data) for data in photos]}]}
    answer = server.post("/v2/models/colours/infer", body)
    assert answer.status == 200, answer.body
    return {
        o["name"]: np.array(o["data"], np.float32 if o["datatype"] == "FP32" else object).reshape(
            o["shape"]
        )
        for o in answer.json()["outputs"]
    }


def v2_binary(server: RunningServer, photos: list[bytes]) -> dict[str, Array]:
    raw = b"".join(struct.pack("<I", len(data)) + data for data in photos)
    item = {"name": "image", "shape": [len(photos)], "datatype": "BYTES"}
    head = json.dumps(
        {
            "inputs": [{**item, "parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = server.post("/v2/models/colours/infer", head + raw, headers)
    assert answer.status == 200, answer.body
    return read_binary(answer.headers["Inference-Header-Content-Length"], answer.body)


def read_binary(length: str | None, body: bytes) -> dict[str, Array]:
    assert length is not None
    document, raw = json.loads(body[: int(length)]), body[int(length) :]
    outputs: dict[str, Array] = {}
    for item in document["outputs"]:
        size = item["parameters"]["binary_data_size"]
        part, raw = raw[:size], raw[size:]
        if item["datatype"] == "FP32":
            outputs[item["name"]] = np.frombuffer(part, "<f4").reshape(item["shape"])
        else:
            texts = []
            while part:
                (end,) = struct.unpack_from("<I", part)
                texts.append(part[4 : 4 + end].decode())
                part = part[4 + end :]
            outputs[item["name"]] = np.array(texts, object).reshape(item["shape"])
    return outputs


def own_client(server: RunningServer, photos: list[bytes]) -> dict[str, Array]:
    return api.predict(f"http://127.0.0.1:{server.port}/colours", photos)


@pytest.mark.parametrize(
    "ask", [tf_serving, tf_serving_rows, tf_serving_objects, v2, v2_binary, own_client]
)
@pytest.mark.parametrize("count", [1, 12])
def test_the_same_bits_everywhere(
    server: RunningServer, packages: dict[str, Package], ask: Any, count: int
) -> None:
    expected = api.predict(str(packages["colours"].path), PHOTOS[:count])
    found = ask(server, PHOTOS[:count])
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_a_file_as_the_body(server: RunningServer, packages: dict[str, Package]) -> None:
    """``curl -H 'Inference-Header-Content-Length: 0' --data-binary @cat.jpg``."""
    answer = server.post(
        "/v2/models/colours/infer", PHOTOS[1], {"Inference-Header-Content-Length": "0"}
    )
    assert answer.status == 200, answer.body
    found = read_binary(answer.headers["Inference-Header-Content-Length"], answer.body)
    expected = api.predict(str(packages["colours"].path), PHOTOS[1:2])
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_requests_that_share_a_batch_get_their_own_answers(
    server: RunningServer, packages: dict[str, Package]
) -> None:
    """Bad images among them fail alone."""
    expected = api.predict(str(packages["colours"].path), PHOTOS)["logits"]
    bodies = [PHOTOS[i % 12] if i % 7 else PHOTOS[i % 12][:-30] for i in range(120)]

    def send(body: bytes) -> Any:
        return server.post("/v1/models/colours:predict", {"instances": [{"b64": b64(body)}]})

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, bodies))
    for i, answer in enumerate(answers):
        if i % 7:
            found = np.float32(answer.json()["predictions"][0]["logits"])
            np.testing.assert_array_equal(found, expected[i % 12])
        else:
            assert answer.status == 400
            assert "damaged" in answer.json()["error"]
            assert answer.json()["error"].endswith("(at image[0])")


def bomb(width: int, height: int) -> bytes:
    """A small file that says it is a large image."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        parts += [struct.pack(">I", len(content)), kind, content, checksum]
    return b"".join(parts)


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"hello", 400, "not a JPEG, PNG, WebP or BMP image"),
        (b"", 400, "not a JPEG"),
        (PHOTOS[1][:60], 400, "damaged"),
        (bomb(65_536, 65_536), 413, "pixels"),
        (bomb(8_000, 8_000), 413, "8000×8000 pixels, at most 50000000 are allowed"),
    ],
)
def test_hostile_images(server: RunningServer, data: bytes, status: int, message: str) -> None:
    body = {"instances": [{"b64": b64(PHOTOS[0])}, {"b64": b64(data)}]}
    answer = server.post("/v1/models/colours:predict", body)
    assert answer.status == status
    assert message in answer.json()["error"]
    assert "image[1]" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/models/colours:predict", {"instances": ["text"]}, 'needs bytes: {"b64"'),
        ("/v1/models/colours:predict", {"instances": [{"b64": "!"}]}, "needs Base64 text"),
        ("/v1/models/colours:predict", {"instances": [{"b64": 1}]}, "the model takes image"),
        ("/v1/models/colours:predict", {"inputs": [1, 2]}, 'needs bytes: {"b64"'),
        ("/v2/models/colours/infer", ["!"], 'needs Base64 text, and holds "!" at [0]'),
        ("/v2/models/colours/infer", [1], "needs string, and holds 1"),
        ("/v2/models/colours/infer", [["aGk="], []], "lists of different length"),
    ],
)
def test_what_are_no_bytes(server: RunningServer, path: str, body: Any, message: str) -> None:
    if path.startswith("/v2"):
        item = {"name": "image", "shape": [len(body)], "datatype": "BYTES", "data": body}
        body = {"inputs": [item]}
    answer = server.post(path, body)
    assert answer.status == 400
    assert message in answer.json()["error"]


def test_metadata(server: RunningServer) -> None:
    document = server.get("/v2/models/colours").json()
    assert document["inputs"] == [
        {
            "name": "image",
            "datatype": "BYTES",
            "shape": [-1],
            "parameters": {"content_type": "bytes"},
        }
    ]
    assert document["outputs"][0] == {"name": "label", "datatype": "BYTES", "shape": [-1]}
    definition = server.get("/v1/models/colours/metadata").json()["metadata"]["signature_def"]
    inputs = definition["signature_def"]["serving_default"]["inputs"]
    assert inputs["image"]["dtype"] == "DT_STRING"


def test_texts(server: RunningServer, packages: dict[str, Package]) -> None:
    texts = ["free money free", "good morning", "", "\N{SNOWMAN}"]
    expected = api.predict(str(packages["words"].path), texts)
    answer = server.post("/v1/models/words:predict", {"instances": texts})
    rows = answer.json()["predictions"]
    assert [row["labels"] for row in rows] == expected["labels"].tolist()
    found = np.float32([row["probabilities"] for row in rows])
    np.testing.assert_array_equal(found, expected["probabilities"])
    remote = api.predict(f"http://127.0.0.1:{server.port}/words", texts)
    for name, array in expected.items():
        np.testing.assert_array_equal(remote[name], array)


def test_a_text_that_is_too_long(server: RunningServer) -> None:
    answer = server.post("/v1/models/words:predict", {"instances": ["free", "a" * 1_000_001]})
    assert answer.status == 413
    assert "text[1]" in answer.json()["error"]


def test_a_large_photograph_does_not_hold_the_others(
    server: RunningServer, packages: dict[str, Package]
) -> None:
    """The model is fast on its golden records, and runs on threads all the same."""
    large = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 255, (3000, 4000, 3), dtype=np.uint8)).save(
        large, "JPEG", quality=60
    )
    body = {"instances": [{"b64": b64(large.getvalue())}]}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.post, "/v1/models/colours:predict", body)
        answered = 0
        while not slow.done():
            assert server.get("/v2/health/live").status == 200
            answered += 1
        assert slow.result().status == 200
    assert answered > 1


def test_another_decoder_is_noticed(packages: dict[str, Package], tmp_path: Path) -> None:
    """Golden records made of other pixels than this machine decodes refuse the package."""
    copy = tmp_path / "colours"
    shutil.copytree(packages["colours"].path, copy)
    golden = GoldenRecords.from_bytes((copy / GOLDEN).read_bytes())
    other = {name: array.copy() for name, array in golden.inputs.items()}
    pixels = np.asarray(Image.open(io.BytesIO(other["image"][0])).convert("RGB")) // 2
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    other["image"][0] = buffer.getvalue()
    content = GoldenRecords(other, golden.outputs).to_bytes()
    (copy / GOLDEN).write_bytes(content)
    document = json.loads((copy / MANIFEST).read_bytes())
    document["files"][GOLDEN] = {
        "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)
    }  # fmt: skip
    manifest = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    (copy / MANIFEST).write_bytes(manifest)
    digest = hashlib.sha256(manifest).hexdigest()
    (copy / CHECKSUM).write_text(f"{digest}  {MANIFEST}\n")
    server = RunningServer(tmp_path / "server", [str(copy)]).start()
    try:
        assert server.wait_exit() == 3
        assert "golden records are not answered as the source model did" in server.log()
    finally:
        server.close()


SPEC = TensorSpec("image", BYTES, ("N",))


def test_bytes_in_binary_tensors() -> None:
    items = [b"", b"\0", b"\xff\xfe", b"abc\0"]
    array = np.empty(4, object)
    array[:] = items
    raw = oip_codec.encode(array)
    assert oip_codec.decode(memoryview(raw), SPEC, 4).tolist() == items
    with pytest.raises(SignatureError, match="ends inside a string"):
        oip_codec.decode(memoryview(raw[:-1]), SPEC, 4)
    assert oip_codec.decode_whole(memoryview(b"any bytes"), SPEC).tolist() == [b"any bytes"]


def test_bytes_in_json() -> None:
    assert from_base64(["aGk=", "aGk", ""], SPEC).tolist() == [b"hi", b"hi", b""]
    with pytest.raises(SignatureError, match=r"Base64 text, and holds \"a\" at \[1\]"):
        from_base64(["aGk=", "a"], SPEC)
    with pytest.raises(InputError):
        from_base64([None], SPEC)
