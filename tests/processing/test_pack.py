"""From a trained model and raw rows to answers: pack, predict, and the proof between them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image, ImageDraw, ImageFont
from real_models import real
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer

from modelport import api
from modelport.adapters import find_adapter
from modelport.cli.main import main
from modelport.core.errors import InputError, IntegrityError, NotFoundError
from modelport.core.manifest import read_manifest
from modelport.core.options import PackOptions
from modelport.core.package import Package, open_package
from modelport.core.processing import Processing
from modelport.core.tensors import Array
from modelport.engines.base import EngineOptions
from modelport.serve.models import with_processing

from .conftest import DIGITS, MEAN, STD, TOKENS, ask, encode, graph

IMAGENET = {
    "kind": "image", "preset": "imagenet", "resize": "exact", "mean": MEAN, "std": STD,
}  # fmt: skip


@pytest.fixture(scope="module")
def cnn_package(cnn: bytes, digit_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("cnn")
    (folder / "cnn.onnx").write_bytes(cnn)
    return api.pack(
        folder / "cnn.onnx",
        "cnn",
        sample=digit_files,
        out=folder,
        processing={"inputs": [IMAGENET], "outputs": [{"kind": "labels", "labels": DIGITS}]},
    )


def softmax(logits: Array) -> Array:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def files_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*.png"))]


def test_images_to_labels(
    cnn_package: Package, cnn: bytes, cnn_input: Callable[..., Array], digit_files: Path
) -> None:
    encoded = files_of(digit_files)
    logits = ask(cnn, pixels=cnn_input(encoded))["logits"]
    answers = api.predict(str(cnn_package.path), digit_files)
    assert list(answers) == ["label", "probability", "logits"]
    np.testing.assert_array_equal(answers["logits"], logits)
    assert answers["label"].tolist() == [DIGITS[i] for i in logits.argmax(axis=1)]
    np.testing.assert_allclose(answers["probability"], softmax(logits).max(axis=1), rtol=1e-6)
    folders = [path.parent.name for path in sorted(digit_files.rglob("*.png"))]
    assert (answers["label"] == folders).mean() > 0.95
    assert answers["probability"].dtype == np.float32


def test_the_manifest_says_all(cnn_package: Package) -> None:
    manifest = open_package(cnn_package.path).manifest
    document = json.loads(manifest.to_bytes())
    assert document["format"] == 2
    assert manifest.signature.to_json() == {
        "inputs": [{"name": "image", "dtype": "bytes", "shape": ["N"]}],
        "outputs": [
            {"name": "label", "dtype": "string", "shape": ["N"]},
            {"name": "probability", "dtype": "float32", "shape": ["N"]},
            {"name": "logits", "dtype": "float32", "shape": ["N", 10]},
        ],
    }
    (image,) = document["processing"]["inputs"]
    assert image["layout"] == "NCHW"
    assert image["size"] == [8, 8]
    assert image["to"] == "pixels"
    (labels,) = document["processing"]["outputs"]
    assert labels["activation"] == "softmax"
    assert document["processing"]["proven"] is True
    assert manifest.row_independent
    assert any("Pillow" in name for name in manifest.provenance["processing"])


def test_golden_records_are_what_clients_send(cnn_package: Package, digit_files: Path) -> None:
    golden = cnn_package.golden()
    assert golden is not None
    assert set(golden.inputs["image"]) <= set(files_of(digit_files))
    assert 4 <= golden.rows <= 32
    assert golden.outputs.keys() == {"label", "probability", "logits"}


def test_the_card_and_inspect_say_it_in_words(
    cnn_package: Package, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "image: an encoded image, as RGB, resized to 8×8 (bilinear), ÷ 255, - (0.485, 0.456"
    assert f"- {line}" in (cnn_package.path / "README.md").read_text(encoding="utf-8")
    assert main(["inspect", str(cnn_package.path)]) == 0
    printed = capsys.readouterr().out
    assert f"step: {line}" in printed
    assert "softmax of logits → the best of 10 labels (label and probability)" in printed


def test_the_same_bytes_twice(
    cnn_package: Package, cnn: bytes, digit_files: Path, tmp_path: Path
) -> None:
    (tmp_path / "cnn.onnx").write_bytes(cnn)
    again = api.pack(
        tmp_path / "cnn.onnx", "cnn", sample=sorted(digit_files.rglob("*.png")), out=tmp_path,
        processing={"inputs": [IMAGENET], "outputs": [{"kind": "labels", "labels": DIGITS}]},
    )  # fmt: skip
    assert again.digest == cnn_package.digest


def test_command_line(
    cnn: bytes,
    digit_files: Path,
    tmp_path: Path,
    write_json: Callable[[str, object], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "cnn.onnx").write_bytes(cnn)
    (tmp_path / "names.txt").write_text("\n".join(DIGITS), encoding="utf-8")
    step = write_json("image.json", {k: v for k, v in IMAGENET.items() if k != "kind"})
    arguments = ["--name", "cnn", "--out", str(tmp_path), "--sample", str(digit_files)]
    arguments += ["--image", str(step), "--labels", str(tmp_path / "names.txt"), "--top-k", "3"]
    assert main(["pack", str(tmp_path / "cnn.onnx"), *arguments]) == 0
    assert "step: softmax of logits → the best 3 of 10 labels" in capsys.readouterr().out
    picture = next(digit_files.rglob("three/*.png"))
    assert main(["predict", str(tmp_path / "cnn"), "--input", str(picture)]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["row", "labels", "probabilities", "logits"]
    assert row.startswith(f"{picture.name}  three ")


def test_sklearn_takes_a_flat_row(
    digit_pixels: tuple[Array, Array], digit_files: Path, tmp_path: Path
) -> None:
    pixels, target = digit_pixels
    model = LogisticRegression(max_iter=2000).fit(pixels.reshape(-1, 64) / 255.0, target)
    package = api.pack(
        model, "flat", sample=digit_files, out=tmp_path, options=PackOptions(image="keras")
    )
    answers = api.predict(str(package.path), digit_files)
    rows = np.stack([np.asarray(Image.open(p)) for p in sorted(digit_files.rglob("*.png"))])
    expected = model.predict_proba(rows.reshape(-1, 64) / np.float32(255))
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)


def test_tensors_as_the_sample(
    cnn: bytes, cnn_input: Callable[..., Array], digit_files: Path, tmp_path: Path
) -> None:
    """Proves the answers, not the steps, and says so; the server replays on the model itself."""
    (tmp_path / "cnn.onnx").write_bytes(cnn)
    tensors = cnn_input(files_of(digit_files))
    package = api.pack(
        tmp_path / "cnn.onnx", "cnn", sample=tensors, out=tmp_path,
        processing={"inputs": [IMAGENET], "outputs": [{"kind": "labels", "labels": DIGITS}]},
    )  # fmt: skip
    processing = package.manifest.processing
    assert processing is not None
    assert not processing.proven
    assert any("processing steps are not" in note for note in package.manifest.parity["notes"])
    golden = package.golden()
    assert golden is not None
    assert golden.inputs.keys() == {"pixels"}
    answers = api.predict(str(package.path), digit_files)
    np.testing.assert_array_equal(answers["logits"], ask(cnn, pixels=tensors)["logits"])


def test_labels_alone(cnn: bytes, cnn_input: Callable[..., Array], digit_files: Path,
                      tmp_path: Path) -> None:  # fmt: skip
    (tmp_path / "cnn.onnx").write_bytes(cnn)
    tensors = cnn_input(files_of(digit_files))
    package = api.pack(
        tmp_path / "cnn.onnx", "cnn", sample=tensors, out=tmp_path,
        processing={"outputs": [{"kind": "labels", "labels": DIGITS, "keep": False, "top_k": 2}]},
    )  # fmt: skip
    assert package.manifest.processing is not None
    assert package.manifest.processing.proven
    answers = api.predict(str(package.path), tensors)
    logits = ask(cnn, pixels=tensors)["logits"]
    order = np.argsort(-logits, axis=1)[:, :2]
    assert answers.keys() == {"labels", "probabilities"}
    assert answers["labels"].tolist() == np.array(DIGITS)[order].tolist()


def test_without_a_sample(cnn: bytes, digit_files: Path, tmp_path: Path) -> None:
    (tmp_path / "cnn.onnx").write_bytes(cnn)
    package = api.pack(
        tmp_path / "cnn.onnx", "cnn", out=tmp_path, processing={"inputs": [IMAGENET]}
    )
    answers = api.predict(str(package.path), digit_files)
    assert answers["logits"].shape == (60, 10)


def test_a_fixed_number_of_rows(digit_files: Path, tmp_path: Path) -> None:
    """Many exports take one image at a time; of the sample so many are used."""
    weights = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    (tmp_path / "one.onnx").write_bytes(
        graph(
            [
                helper.make_node("Flatten", ["x"], ["flat"]),
                helper.make_node("MatMul", ["flat", "weights"], ["y"]),
            ],
            {"x": (TensorProto.FLOAT, [1, 8, 8, 1])},
            {"y": (TensorProto.FLOAT, [1, 3])},
            weights=weights,
        )
    )
    package = api.pack(
        tmp_path / "one.onnx", "one", sample=digit_files, out=tmp_path,
        options=PackOptions(image="none"),
    )  # fmt: skip
    assert [spec.shape for spec in package.manifest.signature.inputs] == [(1,)]
    assert "1 of 60 sample rows were used" in package.manifest.parity["notes"]
    picture = next(digit_files.rglob("*.png"))
    pixels = np.asarray(Image.open(picture)).reshape(1, 64).astype(np.float32)
    answers = api.predict(str(package.path), picture)
    np.testing.assert_allclose(answers["y"], pixels @ weights, rtol=1e-4)


def test_a_real_network_of_open_size(tmp_path: Path) -> None:
    """RapidOCR's classifier of upside-down text, fed as its own package feeds it."""
    upright, turned = [], []
    font = ImageFont.load_default(30)
    for words in ("MODELPORT", "Parity 100", "same answers", "Zebra crossing", "INVOICE 2024"):
        image = Image.new("RGB", (192, 48), "white")
        ImageDraw.Draw(image).text((4, 5), words, fill="black", font=font)
        upright.append(encode(np.asarray(image)))
        turned.append(encode(np.asarray(image.rotate(180)), "JPEG", quality=95))
    model = real(
        "rapidocr-onnxruntime", "rapidocr_onnxruntime", "models",
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
    )  # fmt: skip
    step = {"kind": "image", "size": [48, 192], "colour": "BGR", "divide": 127.5, "mean": [1]}
    package = api.pack(
        model, "angle", sample=upright + turned, out=tmp_path,
        processing={
            "inputs": [step], "outputs": [{"kind": "labels", "labels": ["upright", "turned"]}]
        },
    )  # fmt: skip
    answers = api.predict(str(package.path), upright + turned)
    assert answers["label"].tolist() == ["upright"] * 5 + ["turned"] * 5
    assert package.manifest.processing is not None
    assert package.manifest.processing.outputs[0].activation == "none"


def test_mails(
    spam_model: bytes, mails: tuple[list[str], Array], tokenizer_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "spam.onnx").write_bytes(spam_model)
    texts, spam = mails
    step = {"kind": "text", "file": str(tokenizer_file), "max_length": TOKENS}
    package = api.pack(
        tmp_path / "spam.onnx", "spam", sample=texts[::5], out=tmp_path,
        processing={
            "inputs": [step], "outputs": [{"kind": "labels", "labels": ["ham", "spam"]}]
        },
    )  # fmt: skip
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    rows = [tokenizer.encode(text).ids[:TOKENS] for text in texts]
    ids = np.array([row + [0] * (TOKENS - len(row)) for row in rows])
    mask = np.array([[1] * len(row) + [0] * (TOKENS - len(row)) for row in rows])
    logits = ask(spam_model, input_ids=ids, attention_mask=mask)["logit"]
    answers = api.predict(str(package.path), texts)
    np.testing.assert_array_equal(answers["logit"], logits)
    assert (answers["label"] == np.where(logits[:, 0] >= 0, "spam", "ham")).all()
    assert (answers["label"] == np.where(spam, "spam", "ham")).mean() > 0.9
    assert package.manifest.row_independent
    assert package.manifest.processing is not None
    assert package.manifest.processing.files == ("processing/tokenizer.json",)


def test_the_longest_text_of_a_request(
    spam_model: bytes, mails: tuple[list[str], Array], tokenizer_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "spam.onnx").write_bytes(spam_model)
    step = {
        "kind": "text", "file": str(tokenizer_file), "max_length": TOKENS, "padding": "longest",
    }  # fmt: skip
    package = api.pack(
        tmp_path / "spam.onnx", "spam", sample=mails[0][:20], out=tmp_path,
        processing={"inputs": [step]},
    )  # fmt: skip
    assert not package.manifest.row_independent
    assert api.predict(str(package.path), ["free money"])["logit"].shape == (1, 1)


def test_a_damaged_file_of_the_sample_is_named(
    cnn: bytes, digit_files: Path, tmp_path: Path
) -> None:
    (tmp_path / "cnn.onnx").write_bytes(cnn)
    samples = tmp_path / "samples"
    (samples / "a").mkdir(parents=True)
    good = next(digit_files.rglob("*.png")).read_bytes()
    (samples / "a" / "1.png").write_bytes(good)
    (samples / "a" / "2.png").write_bytes(good[:-40])
    with pytest.raises(InputError, match=r"the image is damaged.*\(at a/2\.png\)"):
        api.pack(
            tmp_path / "cnn.onnx", "cnn", sample=samples, out=tmp_path,
            processing={"inputs": [IMAGENET]},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ([{"kind": "image", "size": [9, 9]}], [], r"makes \['N', 3, 9, 9\] of an image"),
        ([{"kind": "image", "layout": "NHWC"}], [], "declare|makes"),
        ([{"kind": "image", "layout": "flat"}], [], "layout flat does not fit input pixels"),
        ([{"kind": "image", "colour": "L"}], [], r"makes \['N', 1, 8, 8\]"),
        ([{"kind": "image", "to": "picture"}], [], "makes an input 'picture'; the model takes: p"),
        ([{"kind": "image", "dtype": "uint8"}], [], "the step makes uint8, input pixels needs"),
        ([{"kind": "table"}], [], r"input pixels is float32 \[N, 3, 8, 8\]"),
        ([{"kind": "text"}], [], "needs a file"),
        ([], [{"kind": "labels", "labels": ["a", "b"]}], "2 labels do not fit output logits"),
        ([], [{"kind": "labels", "labels": ["a", "b"], "output": "x"}], "reads scores from 'x'"),
    ],
)
def test_steps_that_do_not_fit(
    cnn: bytes, tmp_path: Path, inputs: list[object], outputs: list[object], message: str
) -> None:
    (tmp_path / "cnn.onnx").write_bytes(cnn)
    with pytest.raises(InputError, match=message):
        api.pack(
            tmp_path / "cnn.onnx", "cnn", out=tmp_path,
            processing={"inputs": inputs, "outputs": outputs},
        )  # fmt: skip
    assert not (tmp_path / "cnn").exists()


def test_a_package_whose_steps_were_changed(cnn_package: Package, tmp_path: Path) -> None:
    """Even with all digests made right again, steps and signature contradict each other."""
    copy = tmp_path / "cnn"
    shutil.copytree(cnn_package.path, copy)
    document = json.loads((copy / "manifest.json").read_bytes())
    document["processing"]["inputs"][0]["input"] = "photo"
    content = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    (copy / "manifest.json").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (copy / "manifest.sha256").write_bytes(f"{digest}  manifest.json\n".encode())
    package = open_package(copy)
    loaded = find_adapter("engine", "onnxruntime").load().load(package.model_path, EngineOptions())
    with pytest.raises(IntegrityError, match="another signature"):
        with_processing(package, loaded)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("processing",), None),
        (("processing",), {"inputs": []}),
        (("processing", "inputs", 0, "kind"), "code"),
        (("processing", "inputs", 0, "divide"), 0.0),
        (("processing", "inputs", 0, "script"), "import os"),
        (("processing", "outputs", 0, "labels"), []),
        (("processing", "signature", "inputs"), []),
        (("format",), 1),
    ],
)
def test_damaged_processing(cnn_package: Package, path: tuple[str | int, ...], value: Any) -> None:
    document = json.loads(cnn_package.manifest.to_bytes())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    content = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    with pytest.raises(IntegrityError, match="manifest is"):
        read_manifest(content, where="here")


def test_a_file_that_the_package_lacks(cnn_package: Package) -> None:
    document = json.loads(cnn_package.manifest.to_bytes())
    step = {"kind": "vocabulary", "file": "../words.txt"}
    document["processing"]["inputs"] = [
        json.loads(json.dumps(Processing.from_json({"inputs": [step]}).inputs[0].to_json()))
    ]
    content = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    with pytest.raises(IntegrityError, match="words"):
        read_manifest(content, where="here")


def test_unknown_files_and_presets(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="preset not found: imagnet; there is: imagenet"):
        api.pack("x.onnx", "x", options=PackOptions(image="imagnet"), out=tmp_path)
    with pytest.raises(NotFoundError, match=r"file not found: names\.txt"):
        api.pack("x.onnx", "x", options=PackOptions(labels="names.txt"), out=tmp_path)
