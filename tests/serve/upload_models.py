"""Packages that take files: images with labels, texts, tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelport import api
from modelport.core.package import Package

from . import onnx_models
from .packages import build_package
from .test_processing import LABELS, PHOTOS, colours, words

IMAGE = {"kind": "image", "resize": "shorter", "size": [20], "divide": 255}
ROWS = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)


def image_package(folder: Path, name: str, **labels: Any) -> Package:
    """Photographs to one of three labels, or to the best few."""
    model = folder / f"{name}.onnx"
    model.write_bytes(colours())
    step = {"kind": "labels", "labels": LABELS, **labels}
    return api.pack(
        model, name, sample=PHOTOS, out=folder, processing={"inputs": [IMAGE], "outputs": [step]}
    )


def text_package(folder: Path, name: str) -> Package:
    """Words to spam or ham."""
    model = folder / f"{name}.onnx"
    model.write_bytes(words())
    listed = folder / f"{name}.txt"
    listed.write_text("free\nmoney\ngood\nmorning\n")
    step = {"kind": "vocabulary", "file": str(listed), "max_length": 8}
    labels = {"kind": "labels", "labels": ["ham", "spam"]}
    return api.pack(
        model,
        name,
        sample=["free money", "good morning"],
        out=folder,
        processing={"inputs": [step], "outputs": [labels]},
    )


def plain_packages(folder: Path) -> list[Path]:
    """Models that take tensors: one input, two, strings, truth values."""

    def package(name: str, model: bytes, **golden: Any) -> Path:
        inputs = {key: np.asarray(value) for key, value in golden.items()}
        return build_package(folder / name, name, model, inputs).path

    floats = np.array([[1, 2], [3, 4]], np.float32)
    return [
        package("dense", onnx_models.dense(0), x=ROWS),
        package("two", onnx_models.sum_of_two(), a=ROWS[:2, :3], b=np.array([[1, 2], [3, 4]])),
        package("summary", onnx_models.summary(), x=floats),
        package("same", onnx_models.identity("float32"), x=floats),
        package("half", onnx_models.identity("float16"), x=floats.astype(np.float16)),
        package("truth", onnx_models.identity("bool"), x=floats > 2),
        package("echo", onnx_models.identity("string", ("N",)), x=np.array(["a", "b"], object)),
        package("vector", onnx_models.identity("float32", ("N",)), x=floats[0]),
    ]
