"""A PyTorch module does not tell what it takes: the declaration does, until it is exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from modelport import api
from modelport.core.errors import InputError
from modelport.core.tensors import Array

from .conftest import DIGITS


@pytest.fixture(scope="module")
def module(digit_pixels: tuple[Array, Array]) -> torch.nn.Module:
    """A linear classifier, trained by scikit-learn on colour pixels from -1 to 1."""
    pixels, target = digit_pixels
    rows = np.repeat(pixels.reshape(-1, 1, 64), 3, axis=1).reshape(-1, 192) / 127.5 - 1
    trained = LogisticRegression(max_iter=2000).fit(rows, target)
    linear = torch.nn.Linear(192, 10)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(trained.coef_))
        linear.bias.copy_(torch.from_numpy(trained.intercept_))
    return torch.nn.Sequential(torch.nn.Flatten(), linear).eval()


@pytest.mark.slow
def test_images(module: torch.nn.Module, digit_files: Path, tmp_path: Path) -> None:
    step = {"kind": "image", "preset": "tf", "size": [8, 8]}
    package = api.pack(
        module, "net", sample=digit_files, out=tmp_path,
        processing={"inputs": [step], "outputs": [{"kind": "labels", "labels": DIGITS}]},
    )  # fmt: skip
    processing = package.manifest.processing
    assert processing is not None
    assert processing.proven
    assert processing.inputs[0].layout == "NCHW"  # type: ignore[union-attr]
    answers = api.predict(str(package.path), digit_files)
    folders = [path.parent.name for path in sorted(digit_files.rglob("*.png"))]
    assert (answers["label"] == folders).mean() > 0.95


def test_a_size_that_nobody_tells(
    module: torch.nn.Module, digit_files: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="does not tell the size of its images"):
        api.pack(
            module, "net", sample=digit_files, out=tmp_path,
            processing={"inputs": [{"kind": "image", "preset": "tf"}]},
        )  # fmt: skip
