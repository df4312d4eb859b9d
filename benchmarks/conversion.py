"""What conversion gets wrong: stock exporters beside modelport, on real rows.

``python benchmarks/conversion.py [--json FILE] [--only NAME,…]`` trains models on scikit-learn's
and npm's data sets, converts each with the framework's usual exporter as its documentation shows,
and with modelport, and counts on held-out rows the labels that flip and the numbers that are off
by more than 1e-5. Both files are run by ONNX Runtime on the same float32 rows; the source model is
asked about the same values. Needs ``onnxmltools`` beside the test extra.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from modelport import api
from modelport.core.errors import ModelportError

_OFF: Final = 1e-5
_LOADS: Final = 5


@dataclass(frozen=True)
class Case:
    """One trained model.

    Parameters
    ----------
    rows : ndarray
        Held-out rows, float32 or text.
    labels : ndarray or None
        The source model's labels for them.
    numbers : ndarray
        Its probabilities, scores or predictions.
    stock : callable
        Makes the usual exporter's file; its outputs are the labels, if any, then the numbers.
    """

    title: str
    exporter: str
    model: Any
    rows: np.ndarray
    labels: np.ndarray | None
    numbers: np.ndarray
    stock: Callable[[], bytes]


@dataclass(frozen=True)
class Measured:
    """What one file does on the rows."""

    outcome: str
    flips: int = 0
    off: int = 0
    largest: float = 0.0
    load_ms: float = 0.0
    size: int = 0


def measure(case: Case, content: bytes) -> Measured:
    """Run a file on all rows, one batch, and count."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    laps = []
    try:
        for _ in range(_LOADS):
            start = time.perf_counter()
            session = onnxruntime.InferenceSession(content, options)
            laps.append(time.perf_counter() - start)
        names = [output.name for output in session.get_outputs()]
        feed = {session.get_inputs()[0].name: case.rows}
        answers = session.run(names, feed)
    except Exception as error:  # ONNX Runtime has no common base class for its errors
        return Measured(f"fails: {str(error)[:80]}")
    labels, numbers = _sorted_out(case, names, answers)
    flips = 0 if case.labels is None else int((labels != case.labels).sum())
    error = np.abs(numbers.astype(np.float64).reshape(case.numbers.shape) - case.numbers)
    off = error.reshape(len(error), -1).max(axis=1) > _OFF
    return Measured(
        "converted", flips, int(off.sum()), float(error.max()), min(laps) * 1e3, len(content)
    )


def _sorted_out(case: Case, names: list[str], answers: list[Any]) -> tuple[Any, np.ndarray]:
    """Labels and numbers, by element type."""
    numbers = [a for a in answers if getattr(a, "dtype", np.dtype(object)).kind == "f"]
    labels = [a for a in answers if getattr(a, "dtype", np.dtype(float)).kind in "iO"]
    chosen = next(a for a in numbers if a.size == case.numbers.size)
    return (labels[0].reshape(-1) if labels else None), chosen


def convert(case: Case, folder: Path) -> Measured:
    """Convert with modelport and measure, or say why it refuses."""
    out = folder / "model.onnx"
    out.unlink(missing_ok=True)
    try:
        api.convert(case.model, out, sample=case.rows)
    except ModelportError as error:
        return Measured(f"refused: {error.message[:120]}")
    return measure(case, out.read_bytes())


def stock(case: Case) -> Measured:
    """Convert with the usual exporter and measure."""
    try:
        return measure(case, case.stock())
    except Exception as error:  # exporters raise whatever they like; the table quotes it
        return Measured(f"fails: {type(error).__name__}: {str(error)[:80]}")


def main() -> int:
    """Measure all cases, print them, and write them down when asked."""
    from conversion_cases import CASES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--only", metavar="NAMES", default=",".join(CASES))
    options = parser.parse_args()
    records = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only.split(","):
            case = CASES[name]()
            record = {
                "name": name,
                "title": case.title,
                "exporter": case.exporter,
                "rows": len(case.rows),
                "stock": asdict(stock(case)),
                "modelport": asdict(convert(case, Path(folder))),
            }
            records.append(record)
            print(json.dumps(record), file=sys.stderr, flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
