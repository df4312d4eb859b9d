"""Boosted trees in bulk: ``python benchmarks/optimization_bulk.py [--json FILE]``.

500 trees of XGBoost and of LightGBM, answered by three side by side at 1 to 4096 rows, one thread:
the package that ``--passes bulk`` makes, ONNX Runtime with the same file, and the library's own
scikit-learn interface. They take turns, so that whatever slows the machine slows all; times are
medians. Also how many rows differ from the library's own answers by more than 1e-5: rows with
missing numbers and rows at thresholds are among them. Times are only worth something on a machine
that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from lightgbm import LGBMClassifier
from sklearn.datasets import make_classification
from xgboost import XGBClassifier

from modelport import api
from modelport.adapters import find_adapter
from modelport.core.errors import ModelportError
from modelport.engines.base import EngineOptions, LoadedModel
from modelport.optimize.base import Subject, Variant

SIZES: Final = (1, 16, 64, 256, 1024, 4096)
_TREES: Final = 500
_ROUNDS: Final = 9
_ROUND_SECONDS: Final = 0.1

Answer = Callable[[np.ndarray], Any]


def data() -> tuple[np.ndarray, np.ndarray]:
    """28 features, as float32, some missing."""
    rows, labels = make_classification(14_000, 28, n_informative=12, random_state=0)
    rows = rows.astype(np.float32)
    rows[::9, 3] = np.nan
    return rows, labels


MODELS: Final = {
    "xgboost": lambda: XGBClassifier(
        n_estimators=_TREES, max_depth=6, learning_rate=0.05, n_jobs=1
    ),
    "lightgbm": lambda: LGBMClassifier(n_estimators=_TREES, max_depth=6, n_jobs=1, verbose=-1),
}


def measure(name: str) -> dict[str, Any]:
    """One library's model."""
    rows, labels = data()
    model = MODELS[name]().fit(rows[:10_000], labels[:10_000])
    held = rows[10_000:]
    with tempfile.TemporaryDirectory() as folder:
        package = api.pack(model, name, sample=rows[:200], out=Path(folder))
        content = package.model_path.read_bytes()
    few = load("onnxruntime", content)
    variant = bulk(content, few, rows[:2000])
    chosen = load(variant.engine, variant.model)
    answers: dict[str, Answer] = {
        "modelport": lambda batch: chosen.run({"input": batch}),
        "ONNX Runtime": lambda batch: few.run({"input": batch}),
        f"{name}, scikit-learn interface": model.predict_proba,
    }
    expected = model.predict_proba(held)
    found = chosen.run({"input": held})["probabilities"]
    off = int((np.abs(found - expected).max(axis=1) > 1e-5).sum())
    return {
        "model": name,
        "variant": variant.name,
        "rows_off_by_more_than_1e-5": f"{off} of {len(held)}",
        "milliseconds": {size: times(answers, np.resize(held, (size, 28))) for size in SIZES},
    }


def load(engine: str, content: bytes) -> LoadedModel:
    """As a server does, with one thread."""
    loaded: LoadedModel = find_adapter("engine", engine).load().load(content, EngineOptions())
    return loaded


def bulk(content: bytes, loaded: LoadedModel, rows: np.ndarray) -> Variant:
    """What the pass makes of it; the original where it is refused."""
    original = Variant("original", content)
    subject = Subject(original, loaded.signature, {"input": rows}, loaded.run({"input": rows}))
    try:
        variants = find_adapter("pass", "bulk").load().variants(subject, lambda line: None)
        return next(variants)
    except ModelportError as error:
        print(error.line)
        return original


def times(answers: Mapping[str, Answer], batch: np.ndarray) -> dict[str, float]:
    """Milliseconds of each, in turns."""
    counts = {}
    for name, answer in answers.items():
        answer(batch)
        counts[name] = max(1, int(_ROUND_SECONDS / len(answers) / lap(answer, batch, 1)))
    laps: dict[str, list[float]] = {name: [] for name in answers}
    for _ in range(_ROUNDS):
        for name, answer in answers.items():
            answer(batch)
            laps[name].append(lap(answer, batch, counts[name]))
    return {name: round(1e3 * float(np.median(found)), 4) for name, found in laps.items()}


def lap(answer: Answer, batch: np.ndarray, count: int) -> float:
    """Seconds of one execution, of so many."""
    start = time.perf_counter()
    for _ in range(count):
        answer(batch)
    return (time.perf_counter() - start) / count


def main() -> None:
    """Measure the models that are named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=list(MODELS), help=", ".join(MODELS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found = [measure(name) for name in options.models]
    print(json.dumps(found, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
