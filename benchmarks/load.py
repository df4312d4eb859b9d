"""Load from `wrk`, pinned to a core of its own, with what the server used meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc_load
import payloads
import processes
from models import Model
from server import BenchmarkError, Server, ask

_INSTALL_HINT: Final = "wrk is not installed\n  hint: apt-get install wrk, or brew install wrk"
_WARM_UP: Final = 1.0
_TIMEOUT: Final = 60
# A request is built once, since `wrk.body` never changes. `done` runs once, at the end.
_SCRIPT: Final = """
wrk.method = "POST"
for name, value in string.gmatch([[{headers}]], "([^:\\n]+): ([^\\n]+)") do
  wrk.headers[name] = value
end
wrk.body = assert(io.open("{body}", "rb")):read("*a")
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\n{{"requests":%d,"microseconds":%d,"p50":%f,"p99":%f,"status":%d,"socket":%d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True)
class Measurement:
    """One run of the load generator against one server.

    Parameters
    ----------
    requests : int
        Answers received.
    requests_per_second : float
    p50, p99 : float
        Percentiles of the latency that the client sees, in microseconds.
    processor_microseconds : float
        User and system time of the server's process tree for each answer.
    busy : float
        The part of the time in which the server used its core, 0 to 1.
    others : float
        The part of the time in which somebody else used the server's core, 0 to 1.
    policy : str
        The scheduling policy that the server's threads had.
    """

    requests: int
    requests_per_second: float
    p50: float
    p99: float
    processor_microseconds: float
    busy: float
    others: float
    policy: str


def require_wrk() -> None:
    """Raise `BenchmarkError` with an install hint when there is no load generator."""
    if shutil.which("wrk") is None:
        raise BenchmarkError(_INSTALL_HINT)


def measure(
    server: Server,
    url: str,
    protocol: str,
    model: Model,
    *,
    connections: int,
    seconds: float,
    server_core: int,
    load_core: int,
) -> Measurement:
    """Check an answer, warm up, measure, and check an answer again.

    Raises
    ------
    BenchmarkError
        When an answer is wrong, or any answer of the load is not 2xx, or a connection broke.
    """
    ask(url, protocol, model)
    payload = payloads.encode(protocol, model)
    with tempfile.TemporaryDirectory(prefix="modelport-bench-") as folder:
        body = Path(folder) / "body"
        body.write_bytes(payload.body)
        script = Path(folder) / "request.lua"
        headers = "\n".join(f"{name}: {value}" for name, value in payload.headers.items())
        script.write_text(_SCRIPT.format(headers=headers + "\n", body=body))
        _wrk(script, url, connections, _WARM_UP, load_core)
        server.wait_until_idle()
        policy = processes.policy(server.pid)
        core, used, clock = (
            processes.core_seconds(server_core),
            processes.processor_seconds(server.pid),
            time.perf_counter(),
        )
        result = _wrk(script, url, connections, seconds, load_core)
        # At once: what it does for requests whose answers nobody waits for is not counted.
        used = processes.processor_seconds(server.pid) - used
        core = processes.core_seconds(server_core) - core
        clock = time.perf_counter() - clock
        server.wait_until_idle()
    ask(url, protocol, model)
    if not result["requests"]:
        raise BenchmarkError(f"{url}: no request was answered within {seconds:g} s")
    return Measurement(
        requests=result["requests"],
        requests_per_second=result["requests"] / result["microseconds"] * 1e6,
        p50=result["p50"],
        p99=result["p99"],
        processor_microseconds=used / result["requests"] * 1e6,
        busy=used / clock,
        others=max(0.0, (core - used) / clock),
        policy=policy,
    )


def _wrk(script: Path, url: str, connections: int, seconds: float, core: int) -> dict[str, Any]:
    if url.startswith(grpc_load.SCHEME):
        return grpc_load.load(url, script.with_name("body"), connections, seconds, core)
    # wrk takes whole seconds only.
    duration = max(1, round(seconds))
    command = [
        "taskset", "--cpu-list", str(core),
        "wrk", "--threads", "1", "--connections", str(connections),
        "--duration", f"{duration}s", "--timeout", f"{_TIMEOUT}s", "--script", str(script), url,
    ]  # fmt: skip
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=duration + _TIMEOUT + 10
    )
    if done.returncode:
        raise BenchmarkError(f"wrk failed: {done.stdout}{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if result["status"] or result["socket"] or "Non-2xx" in done.stdout:
        raise BenchmarkError(f"{url}: not every request was answered with 2xx:\n{done.stdout}")
    return result
