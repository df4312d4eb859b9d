"""What `optimize` promises, held against models of many kinds and rows that it never sees.

``python benchmarks/optimization_twelve.py [--json FILE] [--markdown FILE] [--only NAME,…]
[--size 4] [--rows 6000] [--seeds 3] [--passes LIST]``

The kinds are those of ``tests/optimize/kinds.py``, at the size of models that people deploy. Every
one is trained once and optimized with other rows for every seed, once with labels and once
without, by the command line in a process of its own and at its default settings. Since the rows'
distribution is known, what the emitted package loses is then measured on ten times as many rows
that nothing has seen: how often that is more than ``--max-drop`` is what "95 %" has to mean.

The exit status is 1 where a promise is broken: a package that is slower and not smaller, one that
loses more than the budget with 95 % confidence, a run of more than three minutes or 2 GB (where no
pass trains), or one that fails. Times are only worth something on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from processes import memory

from modelport.adapters import find_adapter
from modelport.core.package import Package, open_package
from modelport.core.tensors import Array, Tensors
from modelport.engines.base import EngineOptions
from modelport.serve.models import prove, with_processing
from tests.optimize.kinds import KINDS
from tests.optimize.made import Made, lost

_MAX_DROP: Final = 0.01
_SECONDS: Final = 180
_BYTES: Final = 2 << 30
_PATIENCE: Final = 1800
#: Not counted among the three minutes.
_TRAINED: Final = frozenset({"channels", "layers", "network-student", "prune"})
_BATCH: Final = 256
_Z: Final = 1.96
_COLUMNS: Final = (
    "kind", "labels", "original", "picked", "faster", "smaller", "held-out loss", "fresh loss",
    "beyond", "seconds", "CPU s", "MB",
)  # fmt: skip


class Peak:
    """The memory that a process and all that it starts hold together, at most."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.bytes = 0
        self._process = process
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while self._process.poll() is None:
            try:
                self.bytes = max(self.bytes, memory(self._process.pid).pss)
            except (OSError, ValueError, IndexError, KeyError):  # one of them ended just now
                continue
            time.sleep(0.1)


def optimized(
    package: Package, data: Mapping[str, Array], folder: Path, *, labels: bool, passes: str
) -> dict[str, Any]:
    """The command line's report, with seconds, memory, and what it wrote."""
    texts = {name: array.astype(np.str_) if array.dtype == object else array
             for name, array in data.items() if labels or name != "right"}  # fmt: skip
    np.savez(folder / "rows.npz", **texts)
    command = [
        sys.executable, "-m", "modelport", "optimize", str(package.path),
        "--data", str(folder / "rows.npz"), "--out", str(folder / "out"), "--json",
        "--max-drop", str(_MAX_DROP), *(["--target", "right"] if labels else []),
        *(["--passes", passes] if passes else []),
    ]  # fmt: skip
    begin, used = time.monotonic(), _processor_seconds()
    environment = {**os.environ, "MODELPORT_CACHE": str(folder / "cache")}
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment)
        peak = Peak(process)
        try:
            code = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    report: dict[str, Any] = {}
    if code == 0:
        report = json.loads((folder / "stdout").read_text())
    words = (folder / "stderr").read_text(errors="replace").strip()
    return {
        "report": report,
        "failed": "" if code == 0 else f"exit code {code}: {words[-600:]}",
        "seconds": time.monotonic() - begin,
        "processor_seconds": _processor_seconds() - used,
        "memory": peak.bytes,
    }


def _processor_seconds() -> float:
    """Of all processes that were started here and have ended, with their own."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def answers(package: Package, rows: Mapping[str, Array]) -> Tensors:
    """As a server gives them, a few rows at a time."""
    engine = find_adapter("engine", package.manifest.engine).load()
    model = with_processing(package, engine.load(package.model_path, EngineOptions()))
    batch = _BATCH if package.manifest.signature.batch_symbol else 1
    count = len(next(iter(rows.values())))
    parts = [
        model.run({name: array[at : at + batch] for name, array in rows.items()})
        for at in range(0, count, batch)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def fresh_loss(
    made: Made, package: Package, child: Package, rows: int, labels: bool
) -> list[float]:
    """What the emitted package loses on rows that nothing has seen, with the 95 % interval."""
    given, right = made.named(package, rows, 4_242)
    spec = package.manifest.signature.inputs_by_name
    given = {name: _shaped(array, spec[name].shape) for name, array in given.items()}
    before, after = answers(package, given), answers(child, given)
    loss, error = lost(made, before, after, right if labels else None)
    return [loss, loss - _Z * error, loss + _Z * error]


def _shaped(array: Array, shape: Any) -> Array:
    """Columns as the model takes them: of shape (n, 1)."""
    return array.reshape(len(array), 1) if array.ndim < len(shape) else array


def violations(record: Mapping[str, Any], original: Mapping[str, Any]) -> list[str]:
    """Promises that a run has broken."""
    found = []
    if record["failed"]:
        return [record["failed"]]
    trained = _TRAINED & {one for item in record["passes"] for one in item}
    if record["seconds"] > _SECONDS and not trained:
        found.append(f"took {record['seconds']:.0f} s")
    if record["memory"] > _BYTES:
        found.append(f"took {record['memory'] / 2**30:.1f} GB")
    broken = [item for item in record["variants"] if item.get("failed")]
    found += [f"{item['name']} does not work: {item['failed']}" for item in broken]
    picked = record.get("picked")
    if picked is None:
        return found
    if picked["speedup"][2] < 1 and picked["bytes"] >= original["bytes"]:
        found.append("slower and not smaller")
    if picked["fresh_loss"][1] > _MAX_DROP:
        found.append(f"outside the budget: loses {picked['fresh_loss'][0]:.4f} on fresh rows")
    return found


def measure(
    name: str, made: Made, package: Package, seed: int, options: argparse.Namespace, labels: bool
) -> dict[str, Any]:
    """One run, checked."""
    rows, right = made.named(package, options.rows, 1000 + seed)
    with tempfile.TemporaryDirectory() as folder:
        run = optimized(
            package, {**rows, "right": right}, Path(folder), labels=labels, passes=options.passes
        )
        report = run.pop("report")
        variants = report.get("variants", [])
        record = {
            "kind": name, "seed": seed, "labels": labels, **run,
            "metric": report.get("metric", ""),
            "sentence": report.get("sentence", ""),
            "variants": variants,
            "passes": [item.get("passes", []) for item in variants],
            "refusals": report.get("passes_without_effect", []),
            "did_not_hold": report.get("did_not_hold", []),
        }  # fmt: skip
        if report.get("picked"):
            record["picked"] = _picked(report, made, package, options.fresh, labels)
    record["violations"] = violations(record, variants[0] if variants else {})
    return record


def _picked(
    report: Mapping[str, Any], made: Made, package: Package, fresh: int, labels: bool
) -> dict[str, Any]:
    child = open_package(Path(report["package"]))
    engine = find_adapter("engine", child.manifest.engine).load()
    proven = prove(child, with_processing(child, engine.load(child.model_path, EngineOptions())))
    (item,) = [one for one in report["variants"] if one["name"] == report["picked"]]
    rows = fresh if package.manifest.signature.batch_symbol else fresh // 10
    held = report["held_out"]["loss"]
    return {
        "name": report["picked"],
        "bytes": item["bytes"],
        "smaller": report["variants"][0]["bytes"] / item["bytes"],
        "speedup": [item["one_row"]["speedup"], *item["one_row"]["speedup_interval"]],
        "held_loss": [held["value"], held["low"], held["high"]],
        "fresh_loss": fresh_loss(made, package, child, rows, labels),
        "golden_records": proven,
    }


def table(records: list[dict[str, Any]]) -> str:
    """One row per kind, of all its seeds: the median, of losses and costs the worst."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    for name, labels in dict.fromkeys((item["kind"], item["labels"]) for item in records):
        mine = [item for item in records if (item["kind"], item["labels"]) == (name, labels)]
        lines.append("| " + " | ".join(_row(name, labels, mine)) + " |")
    return "\n".join(lines)


def _row(name: str, labels: bool, mine: list[dict[str, Any]]) -> list[str]:
    picks = [item["picked"] for item in mine if "picked" in item]
    sizes = [item["variants"][0]["bytes"] for item in mine if item["variants"]]
    cells = [name, "yes" if labels else "no", f"{max(sizes, default=0) / 1e3:.0f} kB"]
    if picks:
        names = dict.fromkeys(pick["name"] for pick in picks)
        held, fresh = (max(picks, key=lambda pick: pick[key][0])[key]
                       for key in ("held_loss", "fresh_loss"))  # fmt: skip
        cells += [
            f"{len(picks)}/{len(mine)} " + " · ".join(names),
            f"{np.median([pick['speedup'][0] for pick in picks]):.2f}×",
            f"{np.median([pick['smaller'] for pick in picks]):.1f}×",
            f"{held[0]:.4f} [{held[1]:.4f}, {held[2]:.4f}]",
            f"{fresh[0]:.4f} [{fresh[1]:.4f}, {fresh[2]:.4f}]",
            f"{sum(pick['fresh_loss'][0] > _MAX_DROP for pick in picks)}/{len(picks)}",
        ]
    else:
        cells += [f"0/{len(mine)}", *[""] * 5]
    most = max(item["memory"] for item in mine)
    spent = [f"{max(item[key] for item in mine):.0f}" for key in ("seconds", "processor_seconds")]
    return [*cells, *spent, f"{most / 1e6:.0f}"]


def _told(record: Mapping[str, Any]) -> str:
    lines = [
        f"{record['kind']} seed {record['seed']} labels {record['labels']}: "
        f"{record['seconds']:.0f} s ({record['processor_seconds']:.0f} CPU), "
        f"{record['memory'] / 1e6:.0f} MB: {record['sentence']}"
    ]
    if "picked" in record:
        lines.append("  on fresh rows {:+.4f} [{:+.4f}, {:+.4f}]".format(
            *record["picked"]["fresh_loss"]))  # fmt: skip
    lines += [f"  VIOLATION {text}" for text in record["violations"]]
    return "\n".join(lines)


def main() -> int:
    """Measure the kinds, print a table, and write it down when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--markdown", metavar="FILE")
    parser.add_argument("--only", metavar="NAMES", default=",".join(KINDS))
    parser.add_argument("--size", type=int, default=4, help="1: as in the tests")
    parser.add_argument("--rows", type=int, default=6000, help="that optimize gets")
    parser.add_argument("--fresh", type=int, default=20_000, help="that nothing has seen")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--passes", default="", help="default: all that are installed")
    parser.add_argument("--labels", choices=("both", "yes", "no"), default="both")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    records = []
    for name in options.only.split(","):
        made = KINDS[name].make(options.size)
        with tempfile.TemporaryDirectory() as folder:
            package = made.package(name, Path(folder))
            for seed in range(options.seeds):
                for labels in (True, False):
                    if options.labels not in ("both", "yes" if labels else "no"):
                        continue
                    if labels and made.vectors:
                        continue
                    records.append(measure(name, made, package, seed, options, labels))
                    print(_told(records[-1]), file=sys.stderr, flush=True)
                    if options.json:
                        Path(options.json).write_text(json.dumps(records, indent=1) + "\n")
    print(table(records))
    if options.markdown:
        Path(options.markdown).write_text(table(records) + "\n", encoding="utf-8")
    return 1 if any(record["violations"] for record in records) else 0


if __name__ == "__main__":
    sys.exit(main())
