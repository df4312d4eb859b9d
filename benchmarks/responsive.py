"""How fast probes are answered while the server is as busy as it gets.

One long inference runs after the other and the queue is full, so that every other request is
refused; meanwhile every health route of every protocol is asked in turn, over HTTP and gRPC, on a
new connection each as probes do: ``python benchmarks/responsive.py --help``.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np

_ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(_ROOT))

from tests.serve import onnx_models  # noqa: E402
from tests.serve.packages import build_package  # noqa: E402
from tests.serve.routes import FLAGS, routes_of  # noqa: E402
from tests.serve.running import RunningServer, free_port  # noqa: E402

_MODEL: Final = "slow"
_QUEUE: Final = 4
#: The bar, in milliseconds at the 99th percentile.
_BAR: Final = 50.0


def main() -> int:
    """Run the command line; 1 when the bar is missed."""
    options = _parse()
    if options.one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        golden = {"n": np.array([0])}
        path = build_package(Path(folder) / _MODEL, _MODEL, onnx_models.laborious(), golden).path
        port = free_port()
        flags = [*FLAGS, "--threads", "1", "--max-queue", _QUEUE, "--grpc-port", port]
        with RunningServer(Path(folder) / "server", [path], flags) as server:
            steps = _calibrate(server, options.seconds)
            with Load(server, steps) as load:
                found = measure(server, port, options.rounds)
                inference = load.seconds
    print(f"inference: {inference:.2f} s each, one after the other; the queue was full")
    print(f"{'probe':48} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}")
    worst = 0.0
    for name, seconds in (*found.items(), ("all", [s for each in found.values() for s in each])):
        p50, p99, most = np.percentile(np.array(seconds) * 1e3, [50, 99, 100])
        worst = p99
        print(f"{name:48} {p50:8.2f} {p99:8.2f} {most:8.2f}")
    if options.json:
        options.json.write_text(json.dumps({"inference": inference, "seconds": found}) + "\n")
    return 0 if worst <= _BAR else 1


class Load:
    """Keeps one inference running and the queue full.

    Parameters
    ----------
    server : RunningServer
    steps : int
        Of the slow model, for one inference.
    """

    def __init__(self, server: RunningServer, steps: int) -> None:
        self._server = server
        self._steps = steps
        self._stop = threading.Event()
        self._took: list[float] = []
        self._full = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(_QUEUE + 2)]

    @property
    def seconds(self) -> float:
        """Between two answers, in the median."""
        return float(np.median(np.diff(sorted(self._took))))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        if not self._full.wait(60):
            raise SystemExit("the queue never was full")
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self) -> None:
        """Ask again and again; one more than there is room for is always refused."""
        while not self._stop.is_set():
            answer = self._server.post(f"/v1/models/{_MODEL}:predict", {"inputs": [self._steps]})
            if answer.status == 503:
                self._full.set()
                self._stop.wait(0.02)
            else:
                self._took.append(time.perf_counter())


def _calibrate(server: RunningServer, seconds: float) -> int:
    """As many steps as take so many seconds."""
    steps = 100_000
    started = time.perf_counter()
    server.post(f"/v1/models/{_MODEL}:predict", {"inputs": [steps]})
    return int(steps * seconds / (time.perf_counter() - started))


def measure(server: RunningServer, port: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of every answer, by probe."""
    probes: dict[str, Callable[[], None]] = {}
    for _, route in routes_of("protocol"):
        if route.health:
            path = route.example.replace("{model}", _MODEL)
            probes[f"GET {path}"] = _get(server, path)
    for _, route in routes_of("rpc"):
        if route.health and not route.watch and "GetModelStatus" not in route.example:
            probes[route.example.removeprefix("/")] = _call(port, route.example)
    found: dict[str, list[float]] = {name: [] for name in probes}
    for _ in range(rounds):
        for name, probe in probes.items():
            started = time.perf_counter()
            probe()
            found[name].append(time.perf_counter() - started)
            time.sleep(0.005)
    return found


def _get(server: RunningServer, path: str) -> Callable[[], None]:
    def probe() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        connection.close()
        if response.status != 200:
            raise SystemExit(f"{path} answered {response.status}")

    return probe


def _call(port: int, method: str) -> Callable[[], None]:
    def probe() -> None:
        # Otherwise channels to one address share a connection.
        with grpc.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            channel.unary_unary(method)(b"", timeout=30)

    return probe


def _parse() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200, help="requests per probe")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of an inference")
    parser.add_argument(
        "--one-core", action="store_true", help="server, its inference and the probes on one core"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
