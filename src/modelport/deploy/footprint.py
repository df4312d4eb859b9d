"""What one server of a package needs: measured once on this machine, else estimated.

A measurement is kept in ``~/.modelport/footprints/``, by the package's digest, so that plans that
follow say the same.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Final

from modelport.core.errors import EngineError, ModelportError
from modelport.core.package import Package
from modelport.core.tensors import Tensors
from modelport.deploy.base import Progress
from modelport.deploy.processes import Usage, usage_of_tree
from modelport.deploy.service import Footprint
from modelport.deploy.verify.base import Ask, EndpointModel
from modelport.deploy.verify.records import one_row
from modelport.deploy.verify.v2 import V2
from modelport.deploy.verify.web import WebCarrier, check_status, send

_MIB: Final = 1 << 20

#: Bytes that a server takes before it has a model, by engine. Measured with this project's digits
#: example on Linux x86-64, CPython 3.11; PyTorch's and TensorFlow's own code is the most of it.
_BASE: Final = {
    "onnxruntime": 80 * _MIB, "forest": 130 * _MIB, "torch": 400 * _MIB, "keras": 700 * _MIB,
}  # fmt: skip
_BASE_SECONDS: Final = {"onnxruntime": 0.5, "forest": 1.0, "torch": 3.0, "keras": 8.0}
#: A model stands in memory once as the file that is read and once as the engine's own tensors.
_COPIES: Final = 2.5
#: Bytes per second: of weights read from memory once per row, and of files read at the start.
_MEMORY_SPEED: Final = 5e9
_DISK_SPEED: Final = 2e8
_LEAST_LATENCY: Final = 0.001

#: Requests are timed for a second, so that the kernel's ticks of 10 ms tell processor time to a
#: few percent; slow ones until there are enough, or for this long. The first few warm it up.
_SECONDS: Final = 1.0
_REQUESTS: Final = 20
_LONGEST_SECONDS: Final = 5.0
_WARM_UP: Final = 10
_START_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.01
_ATTEMPTS: Final = 3


def read_footprint(package: Package) -> Footprint:
    """What was measured for this package, or an estimate from its size; at once."""
    return _recorded(package) or estimated_footprint(package)


def estimated_footprint(package: Package) -> Footprint:
    """An estimate on the safe side, from the package's size and its engine."""
    engine = package.manifest.engine
    latency = _LEAST_LATENCY + package.size / _MEMORY_SPEED
    return Footprint(
        memory=_BASE.get(engine, max(_BASE.values())) + int(_COPIES * package.size),
        latency=latency,
        processor=latency,
        start=_BASE_SECONDS.get(engine, max(_BASE_SECONDS.values())) + package.size / _DISK_SPEED,
        measured=False,
    )


def measured_footprint(package: Package, report: Progress) -> Footprint:
    """Start the package's server here, ask it for a few seconds, and keep what it took.

    A package that was measured before is not measured again.

    Parameters
    ----------
    package : Package
    report : callable

    Returns
    -------
    Footprint
        ``measured`` is False where this system does not tell what a process takes.

    Raises
    ------
    EngineError
        When the server does not start, or does not answer the package's own rows.
    """
    found = _recorded(package)
    if found is not None:
        return found
    if usage_of_tree(os.getpid()) is None:
        report("memory and processor time cannot be measured on this system; estimating them")
        return estimated_footprint(package)
    report(f"starting {package.manifest.name} here, to measure memory and time")
    footprint = _measure(package, report)
    _record(package, footprint)
    report(
        f"measured: {footprint.memory / _MIB:.0f} MiB, {1000 * footprint.latency:.2f} ms a row, "
        f"ready after {footprint.start:.2f} s"
    )
    return footprint


def _measure(package: Package, report: Progress) -> Footprint:
    with _server(package) as (process, url, start):
        carrier = WebCarrier(url)
        try:
            rows = one_row(package)
            before = latencies = None
            if rows is not None:
                ask = _ask(package, rows, url)
                for _ in range(_WARM_UP):
                    check_status(send(carrier, ask, url), url)
                before = _usage(process)
                latencies = _timed(carrier, ask, url)
            else:
                report("no row could be made up for this model: its time is estimated")
            usage = _usage(process)
        finally:
            carrier.close()
    guess = estimated_footprint(package)
    if before is None or latencies is None:
        return Footprint(usage.memory, guess.latency, guess.processor, start, measured=True)
    spent = max(usage.seconds - before.seconds, 0.0) / len(latencies)
    # The kernel counts processor time in ticks; a request costs a few at least of microseconds.
    return Footprint(usage.memory, median(latencies), max(spent, 1e-5), start, measured=True)


def _ask(package: Package, rows: Tensors, url: str) -> Ask:
    manifest = package.manifest
    model = EndpointModel(url, "", "", manifest.name, manifest.signature)
    return V2.encode(rows, model)


def _timed(carrier: WebCarrier, ask: Ask, url: str) -> list[float]:
    latencies: list[float] = []
    total = 0.0
    while total < _SECONDS or (len(latencies) < _REQUESTS and total < _LONGEST_SECONDS):
        answer = send(carrier, ask, url)
        check_status(answer, url)
        latencies.append(answer.seconds)
        total += answer.seconds
    return latencies


@contextlib.contextmanager
def _server(package: Package) -> Iterator[tuple[subprocess.Popen[bytes], str, float]]:
    """A server of the package in a process of its own; its URL, and how long it took to start."""
    for attempt in range(_ATTEMPTS):
        port = _free_port()
        url = f"http://127.0.0.1:{port}"
        with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
            with _started(package, port, Path(folder)) as process:
                start = _wait_ready(process, url)
                if start is not None:
                    yield process, url, start
                    return
            log = (Path(folder) / "log").read_text(encoding="utf-8", errors="replace")
        # Somebody may have taken the port between its choice and its use.
        if "cannot listen" not in log or attempt == _ATTEMPTS - 1:
            lines = log.strip().splitlines()
            raise EngineError(
                f"the server of {package.manifest.name} does not become ready: "
                f"{lines[-1] if lines else 'it says nothing'}",
                where=str(package.path),
                hint=f"modelport serve {package.path} shows why",
            )


@contextlib.contextmanager
def _started(package: Package, port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    # Settings meant for other servers stay away: variables, and a settings file here.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MODELPORT_")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own program and a verified package
            [
                *(sys.executable, "-m", "modelport", "serve", str(package.path.resolve())),
                *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=folder,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], url: str) -> float | None:
    """Seconds until it was ready; None when it ended before."""
    begin = time.monotonic()
    while time.monotonic() - begin < _START_SECONDS and process.poll() is None:
        carrier = WebCarrier(url, timeout=5.0)
        with contextlib.suppress(ModelportError):
            if send(carrier, Ask("GET", "/v2/health/ready"), url).status == 200:
                carrier.close()
                return time.monotonic() - begin
        carrier.close()
        time.sleep(_POLL_SECONDS)
    return None


def _usage(process: subprocess.Popen[bytes]) -> Usage:
    usage = usage_of_tree(process.pid)
    if usage is None:
        raise EngineError("the server ended while it was measured")
    return usage


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _place(package: Package) -> Path:
    digest = package.digest.removeprefix("sha256:")
    try:
        home = Path.home()
    except RuntimeError as error:  # a user without an entry and without HOME
        raise OSError(str(error)) from error
    return home / ".modelport" / "footprints" / f"{digest}.json"


def _recorded(package: Package) -> Footprint | None:
    """What was written, if it is whole and sensible."""
    try:
        document = json.loads(_place(package).read_bytes())
        footprint = Footprint(
            memory=int(document["memory"]),
            latency=float(document["latency"]),
            processor=float(document["processor"]),
            start=float(document["start"]),
            measured=True,
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    numbers = (footprint.memory, footprint.latency, footprint.processor, footprint.start)
    return footprint if all(0 < n < math.inf for n in numbers) else None


def _record(package: Package, footprint: Footprint) -> None:
    """Keep it where that is possible; who cannot write at home measures every time."""
    with contextlib.suppress(OSError):
        place = _place(package)
        beside = place.with_name(f".{place.name}.{os.getpid()}")
        place.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(asdict(footprint)), encoding="utf-8")
        beside.replace(place)
