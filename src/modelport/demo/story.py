"""The main job from end to end: train, pack, register, serve, compare, roll back."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np

from modelport import api
from modelport.adapters import find_adapter
from modelport.core.errors import EngineError, ParityError, UnavailableError
from modelport.core.options import PackOptions, RegistryOptions
from modelport.core.parity_report import describe_parity
from modelport.core.tensors import Array

NAME = "digits"
ALIAS = "champion"

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Score:
    """One way of asking the model, on the held-out rows.

    Parameters
    ----------
    way : str
    accuracy : float
    differing : int
        Labels other than the trained model's.
    """

    way: str
    accuracy: float
    differing: int


def tell(*, keep: bool) -> None:
    """Run the demo and print what happens.

    Parameters
    ----------
    keep : bool
        Leave the server running and its folder in place, and print commands for it.

    Raises
    ------
    ParityError
        When the served model gives another label than the trained one: it must not.
    """
    folder = Path(tempfile.mkdtemp(prefix="modelport-demo-"))
    finished = False
    try:
        _tell(folder, keep=keep)
        finished = True
    finally:
        if not (keep and finished):
            shutil.rmtree(folder, ignore_errors=True)


def _tell(folder: Path, *, keep: bool) -> None:
    _say("1. Train two classifiers of handwritten digits with scikit-learn")
    trained = find_adapter("demo", "digits").load().train()
    sample = folder / "sample.npy"
    np.save(sample, trained.rows)
    registry = RegistryOptions(registry=str(folder / "registry"), cache=str(folder / "cache"))
    for model in trained.models.values():
        print(f"   {_accuracy(model.predict(trained.rows), trained.labels):.2%}  {_kind(model)}")

    _say("2. Pack: scan, convert to ONNX, prove that the answers are the same; then register")
    for version, (kind, model) in enumerate(trained.models.items(), start=1):
        source = folder / f"model-{version}.pkl"
        source.write_bytes(pickle.dumps(model))
        package = api.pack(
            source, NAME, sample=sample, out=folder, options=PackOptions(replace=True)
        )
        record = api.push(package, registry=registry)
        print(f"   {record.model}@{record.version}: {kind}, {package.digest[:19]}")
        for line in describe_parity(package.manifest.parity):
            print(f"     {line}")
        api.promote(f"{NAME}@{record.version}", ALIAS, why="demo", registry=registry)

    best = list(trained.models.values())[-1]
    _say(f"3. Serve {NAME}@{ALIAS} and ask for all {len(trained.rows)} held-out rows")
    with _server(registry, keep=keep) as base:
        scores = [
            _score("the trained model", best.predict(trained.rows), best, trained),
            _score("served, TF Serving REST", _ask_tfserving(base, trained.rows), best, trained),
            _score("served, Open Inference V2", _ask_v2(base, trained.rows), best, trained),
        ]
        print(f"   {'':28}accuracy   differing labels")
        for score in scores:
            print(f"   {score.way:28}{score.accuracy:>8.2%}   {score.differing:>16}")
        if any(score.differing for score in scores):
            raise ParityError("the served model differs from the trained one")
        if keep:
            _print_commands(base, folder, trained.rows[0])
    _say(f"4. Roll {ALIAS} back")
    back = api.rollback(NAME, ALIAS, why="demo", registry=registry)
    print(f"   {NAME}@{ALIAS} is version {back.version} again; the history:")
    for entry in api.history(NAME, registry=registry):
        document = entry.to_json()
        what = document.get("action", "push")
        print(f"     {document['at'][11:19]}  {what:9} version {document['version']}")
    _say("Done: same answers, and every step on record.")


def _say(line: str) -> None:
    print(f"\n{line}", flush=True)


def _kind(model: Any) -> str:
    return str(type(model.steps[-1][1]).__name__)


def _accuracy(answers: Array, labels: Array) -> float:
    return float(np.mean(answers == labels))


def _score(way: str, answers: Array, model: Any, trained: Any) -> Score:
    differing = int(np.sum(answers != model.predict(trained.rows)))
    return Score(way, _accuracy(answers, trained.labels), differing)


def _ask_tfserving(base: str, rows: Array) -> Array:
    body = json.dumps({"instances": rows.tolist()}).encode()
    with urlopen(Request(f"{base}/v1/models/{NAME}:predict", body), timeout=60) as answer:  # noqa: S310
        predictions = json.load(answer)["predictions"]
    return np.asarray([prediction["label"] for prediction in predictions])


def _ask_v2(base: str, rows: Array) -> Array:
    return api.predict(f"{base}/{NAME}", rows)["label"]


@contextlib.contextmanager
def _server(registry: RegistryOptions, *, keep: bool) -> Iterator[str]:
    """A server in a process of its own; stopped at the end unless it is kept."""
    port = _free_port()
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "modelport", "serve", f"{NAME}@{ALIAS}", "--port", str(port)]
    environment = {
        **os.environ,
        "MODELPORT_REGISTRY": registry.registry,
        "MODELPORT_CACHE": registry.cache,
    }
    process = subprocess.Popen(  # noqa: S603
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if not keep else subprocess.DEVNULL,
        start_new_session=keep,
    )
    done = False
    try:
        _wait_until_ready(base, process)
        print(f"   ready: {base}")
        yield base
        done = True
    finally:
        if not (keep and done):
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=_STOP_SECONDS)
            if done and process.returncode:
                raise EngineError(f"the server ended with {process.returncode}: {errors!r}")
        else:
            print(f"   the server stays: process {process.pid}; stop it with: kill {process.pid}")


def _wait_until_ready(base: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = process.stderr.read().decode(errors="replace") if process.stderr else ""
            raise UnavailableError(f"the server ended with {process.returncode}: {said}")
        try:
            with urlopen(f"{base}/v2/health/ready", timeout=1):  # noqa: S310
                return
        except (URLError, OSError):
            time.sleep(0.02)
    raise UnavailableError(f"the server was not ready within {_START_SECONDS:.0f} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _print_commands(base: str, folder: Path, row: Array) -> None:
    values = json.dumps(row.tolist())
    v2 = json.dumps(
        {"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32", "data": row.tolist()}]}
    )
    print(f"\n   Try it (the packages are in {folder}):\n")
    print(f"curl -d '{{\"instances\": [{values}]}}' {base}/v1/models/{NAME}:predict\n")
    print(f"curl -d '{v2}' {base}/v2/models/{NAME}/infer\n")
    print(f"curl {base}/metrics\n")
