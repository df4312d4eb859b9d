"""``/metrics`` in the Prometheus text format 0.0.4, read by a strict parser."""

from __future__ import annotations

import math
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from modelport.serve.metrics import BUCKETS, Metrics, model_labels

from . import onnx_models
from .packages import build_package
from .running import RunningServer

ROWS = np.random.default_rng(4).normal(size=(4, 8)).astype(np.float32)

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SAMPLE = re.compile(rf"({_NAME})(?:\{{(.*)\}})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

Labels = frozenset[tuple[str, str]]


@dataclass
class Family:
    """One metric: its kind and its samples by name and labels."""

    kind: str
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)


def parse(exposition: bytes) -> dict[str, Family]:
    """Read an exposition; anything that the format forbids fails."""
    text = exposition.decode()
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    current = helped = ""
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            _, _, helped, words = line.split(" ", 3)
            assert words
            assert helped not in families, "a family is in one piece"
        elif line.startswith("# TYPE "):
            _, _, current, kind = line.split(" ")
            assert current == helped
            assert kind in ("counter", "gauge", "histogram")
            families[current] = Family(kind)
        else:
            read_sample(line, current, families[current])
    for name, family in families.items():
        if family.kind == "histogram":
            check_histogram(name, family)
        if family.kind == "counter":
            assert name.endswith("_total")
            assert all(value >= 0 for value in family.samples.values())
    return families


def read_sample(line: str, owner: str, family: Family) -> None:
    match = _SAMPLE.fullmatch(line)
    assert match, line
    name, labels, value = match.groups()
    suffixes = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
    assert name in [owner + suffix for suffix in suffixes]
    pairs = []
    position = 0
    while labels and position < len(labels):
        pair = _LABEL.match(labels, position)
        assert pair, line
        pairs.append((pair[1], re.sub(r"\\.", lambda escape: _ESCAPES[escape[0]], pair[2])))
        position = pair.end()
    assert len(dict(pairs)) == len(pairs)
    key = (name, frozenset(pairs))
    assert key not in family.samples, f"twice: {line}"
    family.samples[key] = float(value)


def check_histogram(name: str, family: Family) -> None:
    buckets: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for (sample, labels), value in family.samples.items():
        if sample == f"{name}_bucket":
            bound = float(dict(labels)["le"])
            buckets[frozenset(pair for pair in labels if pair[0] != "le")].append((bound, value))
    assert buckets
    for labels, pairs in buckets.items():
        bounds, counts = zip(*pairs, strict=True)
        assert list(bounds) == sorted(set(bounds))
        assert list(counts) == sorted(counts), "buckets are cumulative"
        assert bounds[-1] == math.inf
        assert counts[-1] == family.samples[(f"{name}_count", labels)]
        assert family.samples[(f"{name}_sum", labels)] >= 0


@pytest.fixture(scope="module")
def server(module_path: Path) -> Iterator[RunningServer]:
    models = [
        build_package(module_path / str(seed), "dense", onnx_models.dense(seed), {"x": ROWS}).path
        for seed in range(2)
    ]
    lookup = {"i": np.arange(10)}
    models.append(
        build_package(module_path / "lookup", "lookup", onnx_models.lookup(), lookup).path
    )
    with RunningServer(module_path / "server", models) as running:
        yield running


def scrape(server: RunningServer) -> dict[str, Family]:
    answer = server.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(answer.body)


def value(families: dict[str, Family], name: str, **labels: str) -> float:
    """One sample; 0 where there is none yet."""
    family = families.get(name) or families[re.sub("_(bucket|sum|count)$", "", name)]
    return family.samples.get((name, frozenset(labels.items())), 0.0)


def test_the_exposition_is_valid(server: RunningServer) -> None:
    families = scrape(server)
    assert {name: family.kind for name, family in families.items()} == {
        "modelport_requests_total": "counter",
        "modelport_request_duration_seconds": "histogram",
        "modelport_executions_total": "counter",
        "modelport_rows_total": "counter",
        "modelport_requests_in_flight": "gauge",
        "modelport_model_ready": "gauge",
        "process_cpu_seconds_total": "counter",
        "process_resident_memory_bytes": "gauge",
        "process_start_time_seconds": "gauge",
    }
    assert value(families, "process_resident_memory_bytes") > 1 << 20
    for version in ("1", "2"):
        assert value(families, "modelport_model_ready", model="dense", version=version) == 1


def test_requests_are_counted_by_model_and_status(server: RunningServer) -> None:
    before = scrape(server)
    good = {"instances": ROWS.tolist()}
    for _ in range(3):
        assert server.post("/v1/models/dense:predict", good).status == 200
    assert server.post("/v1/models/dense/versions/1:predict", good).status == 200
    assert server.post("/v1/models/dense:predict", {"instances": [[1]]}).status == 400
    assert server.post("/v2/models/dense/infer", b"x").status == 400
    assert server.post("/v1/models/lookup:predict", {"instances": [99]}).status == 500
    assert server.post("/v1/models/nothing:predict", good).status == 404
    assert server.get("/v2/models/dense/infer").status == 405
    assert server.get("/nothing").status == 404
    after = scrape(server)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    def requests(model: str, version: str, code: str) -> float:
        return grown("modelport_requests_total", model=model, version=version, code=code)

    assert requests("dense", "2", "200") == 3
    assert requests("dense", "1", "200") == 1
    assert requests("dense", "2", "400") == 2
    assert requests("lookup", "1", "500") == 1
    assert requests("", "", "404") == 2
    assert requests("", "", "405") == 1
    count = "modelport_request_duration_seconds_count"
    assert grown(count, model="dense", version="2") == 5
    assert grown(count, model="lookup", version="1") == 1
    assert grown("modelport_executions_total", model="dense", version="2") == 3
    assert grown("modelport_executions_total", model="lookup", version="1") == 0
    seconds = "modelport_request_duration_seconds_sum"
    assert grown(seconds, model="dense", version="2") > 0


def test_the_histogram_has_a_count_per_request(server: RunningServer) -> None:
    families = scrape(server)
    for labels in ({"model": "dense", "version": "2"}, {"model": "", "version": ""}):
        total = sum(
            number
            for (_, pairs), number in families["modelport_requests_total"].samples.items()
            if labels.items() <= dict(pairs).items()
        )
        assert value(families, "modelport_request_duration_seconds_count", **labels) == total


def test_nothing_is_in_flight_in_the_end(server: RunningServer) -> None:
    def client() -> None:
        connection = server.connect()
        for document in (b'{"instances": [[1, 2, 3, 4, 5, 6, 7, 8]]}', b"{", b"[]"):
            connection.request("POST", "/v1/models/dense:predict", document)
            connection.getresponse().read()
        connection.close()

    threads = [threading.Thread(target=client, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    def idle() -> bool:
        samples = scrape(server)["modelport_requests_in_flight"].samples
        assert all(number >= 0 for number in samples.values())
        return not any(samples.values())

    server.wait_for("an idle server", idle)


@pytest.mark.parametrize("name", ["plain", 'quo"te', "back\\slash", "new\nline", "grüße", r"a\nb"])
def test_labels_are_escaped(name: str) -> None:
    metrics = Metrics(['model="",version=""', model_labels(name, 3)], workers=1)
    counters, _ = metrics.model(1)
    counters.started()
    counters.answered(200, 0.5)
    families = parse(metrics.render())
    assert value(families, "modelport_requests_total", model=name, version="3", code="200") == 1


def test_times_at_the_bounds_of_buckets() -> None:
    """An observation that equals a bound is in that bucket."""
    metrics = Metrics(['model="",version=""', model_labels("m", 1)], workers=1)
    counters, _ = metrics.model(1)
    for seconds in (0.0, *BUCKETS, BUCKETS[-1] * 2):
        counters.started()
        counters.answered(200, seconds)
    families = parse(metrics.render())
    for index, bound in enumerate(BUCKETS):
        bucket = "modelport_request_duration_seconds_bucket"
        labels = {"model": "m", "version": "1", "le": str(bound)}
        assert value(families, bucket, **labels) == index + 2


def test_statuses_that_are_not_listed_are_other() -> None:
    metrics = Metrics(['model="",version=""', model_labels("m", 1)], workers=1)
    for status in (499, 418, 200):
        metrics.model(1)[0].started()
        metrics.model(1)[0].answered(status, 0.0)
    families = parse(metrics.render())
    name = "modelport_requests_total"
    assert value(families, name, model="m", version="1", code="other") == 2
    assert value(families, name, model="m", version="1", code="200") == 1


def test_workers_are_summed() -> None:
    metrics = Metrics(['model="",version=""', model_labels("m", 1)], workers=3)
    for worker in range(3):
        metrics.enter_worker(worker)
        counters, _ = metrics.model(1)
        counters.started()
        counters.started()
        counters.answered(200, 0.001 * worker)
        counters.executed(5, 1, 0.001)
        assert not metrics.ready_everywhere(1)
        counters.set_ready(True)
    assert metrics.ready_everywhere(1)
    families = parse(metrics.render())
    labels = {"model": "m", "version": "1"}
    assert value(families, "modelport_requests_total", code="200", **labels) == 3
    assert value(families, "modelport_rows_total", **labels) == 15
    assert value(families, "modelport_requests_in_flight", **labels) == 3
    assert value(families, "modelport_model_ready", **labels) == 1
    # One that replaces a worker which died in the middle of a request.
    metrics.enter_worker(1)
    families = parse(metrics.render())
    assert value(families, "modelport_requests_total", code="200", **labels) == 3
    assert value(families, "modelport_requests_in_flight", **labels) == 2
