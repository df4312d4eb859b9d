"""Trained ONNX models from published packages, packed with data like those that they see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image, ImageDraw, ImageFont
from real_models import real
from sklearn.datasets import load_sample_image

from modelport.api import pack
from modelport.core.package import Package

OCR = ("rapidocr-onnxruntime", "rapidocr_onnxruntime", "models")
VAD = ("silero-vad", "silero_vad", "data")
ROOT = Path(__file__).parents[2]


def packed_and_asked(
    path: Path, sample: dict[str, np.ndarray], folder: Path
) -> tuple[Package, dict[str, np.ndarray]]:
    """Pack, and run ONNX Runtime as it comes on the packaged file and on the original."""
    package = pack(path, "model", sample=sample, out=folder)
    answers = [
        ask(content, sample) for content in (package.model_path.read_bytes(), path.read_bytes())
    ]
    assert answers[0].keys() == answers[1].keys()
    for name, array in answers[1].items():
        np.testing.assert_allclose(answers[0][name], array, rtol=1e-4, atol=1e-5)
    return package, answers[0]


def ask(content: bytes, sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, sample), strict=True))


def shapes(specs: Any) -> dict[str, tuple[int | str, ...]]:
    return {spec.name: spec.shape for spec in specs}


def test_file_types_of_real_files(tmp_path: Path) -> None:
    folder = real("magika", "magika", "models", "standard_v3_3")
    config = json.loads((folder / "config.min.json").read_text())
    files = [ROOT / "README.md", ROOT / "pyproject.toml", ROOT / "LICENSE", Path(__file__),
             *sorted((ROOT / "src" / "modelport" / "core").glob("*.py"))]  # fmt: skip
    rows = np.stack([features(path.read_bytes(), config) for path in files])
    package, answers = packed_and_asked(folder / "model.onnx", {"bytes": rows}, tmp_path)
    labels = [config["target_labels_space"][i] for i in answers["target_label"].argmax(axis=1)]
    assert labels[:2] == ["markdown", "toml"]
    assert set(labels[3:]) == {"python"}
    assert shapes(package.manifest.signature.inputs) == {"bytes": ("N", 2048)}
    assert shapes(package.manifest.signature.outputs) == {"target_label": ("N", 214)}
    assert package.manifest.row_independent


def features(content: bytes, config: dict[str, Any]) -> np.ndarray:
    """The first and the last bytes of a file, as magika takes them."""
    size, padding = config["beg_size"], config["padding_token"]
    block = config["block_size"]
    first = content[:block].lstrip()[:size]
    last = content[-block:].rstrip()[-size:]
    row = np.full(2 * size, padding, np.int32)
    row[: len(first)] = list(first)
    row[2 * size - len(last) :] = list(last)
    return row


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    """Two photographs, channels first, as PaddleOCR scales them."""
    return [
        ((load_sample_image(name) / 255.0 - 0.5) / 0.5).transpose(2, 0, 1).astype(np.float32)
        for name in ("china.jpg", "flower.jpg")
    ]


@pytest.mark.parametrize(("height", "width"), [(160, 256), (96, 96)])
def test_finding_text_in_images_of_any_size(
    photographs: list[np.ndarray], height: int, width: int, tmp_path: Path
) -> None:
    images = np.stack([photo[:, :height, :width] for photo in photographs])
    path = real(*OCR, "ch_PP-OCRv4_det_infer.onnx")
    package, answers = packed_and_asked(path, {"x": images}, tmp_path)
    (output,) = answers.values()
    assert output.shape == (2, 1, height, width)
    (spec,) = package.manifest.signature.inputs
    assert spec.shape[:2] == ("N", 3)
    assert all(isinstance(size, str) for size in spec.shape[2:])
    assert len(set(spec.shape)) == 4


def line_of_text(text: str) -> np.ndarray:
    image = Image.new("RGB", (320, 48), "white")
    ImageDraw.Draw(image).text((8, 2), text, "black", ImageFont.load_default(36))
    return ((np.asarray(image) / 255.0 - 0.5) / 0.5).transpose(2, 0, 1).astype(np.float32)


def test_reading_text(tmp_path: Path) -> None:
    texts = ["modelport 2026", "Real photos", "ONNX 1.23"]
    lines = np.stack([line_of_text(text) for text in texts])
    path = real(*OCR, "ch_PP-OCRv4_rec_infer.onnx")
    package, answers = packed_and_asked(path, {"x": lines}, tmp_path)
    session = onnxruntime.InferenceSession(package.model_path.read_bytes())
    characters = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    (output,) = answers.values()
    alphabet = ["", *characters, " "]
    read = [decoded(row.argmax(axis=-1), alphabet).strip() for row in output]
    assert read == texts
    assert package.manifest.signature.batch_symbol == "N"


def decoded(best: np.ndarray, characters: list[str]) -> str:
    """Without repetitions and blanks (CTC)."""
    changed = np.flatnonzero(np.diff(best, prepend=-1))
    return "".join(characters[best[i]] for i in changed)


def test_dimensions_that_share_a_question_mark(
    photographs: list[np.ndarray], tmp_path: Path
) -> None:
    # The file calls both height and width "?".
    crops = np.stack([p[:, y : y + 48, :192] for p in photographs for y in range(0, 240, 48)])
    path = real(*OCR, "ch_ppocr_mobile_v2.0_cls_infer.onnx")
    package, answers = packed_and_asked(path, {"x": crops}, tmp_path)
    assert package.manifest.signature.inputs[0].shape == ("N", 3, "x_2", "x_3")
    (output,) = answers.values()
    np.testing.assert_allclose(output.sum(axis=1), 1.0, rtol=1e-5)


def tones(count: int, rate: int) -> np.ndarray:
    """Chords that fade, with a little noise."""
    time = np.arange(count) / rate
    generator = np.random.default_rng(0)
    chord = sum(np.sin(2 * np.pi * f * time) for f in (220.0, 277.2, 329.6))
    noise = 0.01 * generator.normal(size=count)
    return (chord * np.exp(-time % 1.0) / 6 + noise).astype(np.float32)


@pytest.mark.parametrize(
    ("variant", "window"),
    [
        ("silero_vad.onnx", 576),
        ("silero_vad_16k_op15.onnx", 576),
        ("silero_vad_half.onnx", 576),
        ("silero_vad_op18_ifless.onnx", 576),
        ("silero_vad_openvino_16k.onnx", 576),
    ],
)
def test_speech_with_a_state_and_subgraphs(variant: str, window: int, tmp_path: Path) -> None:
    path = real(*VAD, variant)
    session = onnxruntime.InferenceSession(path.read_bytes())
    sample = {
        "input": tones(window, 16000)[np.newaxis],
        "state": np.random.default_rng(1).normal(size=(2, 1, 128)).astype(np.float32),
        "sr": np.asarray(16000, dtype=np.int64),
    }
    sample = {value.name: sample[value.name] for value in session.get_inputs()}
    package, answers = packed_and_asked(path, sample, tmp_path)
    assert package.model_path.read_bytes() == path.read_bytes()
    signature = package.manifest.signature
    assert signature.batch_symbol is None
    assert answers["stateN"].shape == (2, 1, 128)
    assert package.golden().inputs["state"].shape == (2, 1, 128)
    if "sr" in sample:
        assert signature.inputs_by_name["sr"].shape == ()
        assert package.golden().inputs["sr"] == 16000


def test_a_sequence_model_is_not_batched(tmp_path: Path) -> None:
    path = real(*VAD, "silero_vad_16k_sequence.onnx")
    sample = {
        "input": tones(10 * 576, 16000).reshape(10, 576),
        "h": np.zeros((1, 1, 128), np.float32),
        "c": np.zeros((1, 1, 128), np.float32),
    }
    package, answers = packed_and_asked(path, sample, tmp_path)
    assert answers["speech_probs"].shape == (10,)
    assert package.manifest.signature.batch_symbol is None
    assert not package.manifest.row_independent


def test_notes_of_music_by_names_with_colons(tmp_path: Path) -> None:
    path = real("basic-pitch", "basic_pitch", "saved_models", "icassp_2022", "nmp.onnx")
    windows = tones(2 * 43844, 22050).reshape(2, 43844, 1)
    package, answers = packed_and_asked(path, {"serving_default_input_2:0": windows}, tmp_path)
    assert shapes(package.manifest.signature.outputs) == {
        "StatefulPartitionedCall:2": ("N", 172, 88),
        "StatefulPartitionedCall:1": ("N", 172, 88),
        "StatefulPartitionedCall:0": ("N", 172, 264),
    }
    notes = answers["StatefulPartitionedCall:1"][0].max(axis=0)
    assert {36, 40, 43} <= set(np.argsort(notes)[-6:].tolist())  # A3, C sharp, E


@pytest.mark.parametrize(
    "name",
    [
        "gradient_boosting_regressor",
        "k_neighbors_classifier",
        "k_neighbors_classifier.validity",
        "k_neighbors_regressor",
    ],
)
def test_models_that_others_made_with_skl2onnx(name: str, tmp_path: Path) -> None:
    path = real("surfaces-onnx-files", "surfaces_onnx_files", f"{name}.onnx")
    rows = np.random.default_rng(0).uniform(0, 20, size=(200, 4)).astype(np.float32)
    package, answers = packed_and_asked(path, {"input": rows}, tmp_path)
    assert package.manifest.signature.batch_symbol == "N"
    assert package.manifest.row_independent
    assert all(np.isfinite(array).all() for array in answers.values())
