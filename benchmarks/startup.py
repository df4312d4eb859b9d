"""What starting costs: ``python benchmarks/startup.py --help``, and README.md beside it."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import models
import processes
from environments import interpreter
from run import PEER_NAMES, load_peer, names_of, two_cores
from server import BenchmarkError, Server, free_port, pinned

_ROOT: Final = Path(__file__).parents[1]
_INSTALL_LIMIT: Final = 600
_LARGEST: Final = 8


def main() -> int:
    """Run the command line; 1 when something could not be measured."""
    options = _parse()
    result: dict[str, Any] = {"servers": [], "imports": {}, "installed": {}}
    try:
        cores = two_cores()
        os.sched_setaffinity(0, {cores[1]})
        for peer in options.peers:
            for model in options.models:
                found = cold_starts(peer, models.build(model), options.runs, cores[0])
                result["servers"].append({"peer": peer, "model": model, **found})
                _print_server(result["servers"][-1])
        if "modelport" in options.peers:
            result["imports"] = import_times(options.runs, cores[0])
            _print_imports(result["imports"])
        if options.installed_size:
            result["installed"] = installed_sizes()
            _print_sizes(result["installed"])
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def cold_starts(name: str, model: models.Model, runs: int, core: int) -> dict[str, Any]:
    """Start a peer again and again, until its first correct answer.

    The files are in the page cache, except perhaps in the first run.

    Returns
    -------
    dict
        ``seconds``, ``rss`` and ``pss`` (bytes): one for each run.
    """
    peer = load_peer(name)
    python = interpreter(peer)
    protocol = next(known for known in ("v2-json", "tfs") if peer.supports(known))
    found: dict[str, Any] = {"seconds": [], "rss": [], "pss": []}
    for _ in range(runs):
        port = free_port()
        command = peer.command(python, model.path, port)
        with Server(command, peer.environment(), core, "other") as server:
            url = peer.url(protocol, model.name, port)
            found["seconds"].append(server.wait_until_correct(url, protocol, model))
            server.wait_until_idle()
            used = processes.memory(server.pid)
            found["rss"].append(used.rss)
            found["pss"].append(used.pss)
    return found


def import_times(runs: int, core: int) -> dict[str, list[float]]:
    """Seconds that Python takes to start and end, with and without importing modelport."""
    times: dict[str, list[float]] = {"pass": [], "import modelport": []}
    for _ in range(runs + 1):
        for statement, laps in times.items():
            command = pinned([sys.executable, "-c", statement], core, "other")
            start = time.perf_counter()
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
            laps.append(time.perf_counter() - start)
            if done.returncode:
                raise BenchmarkError(f"{statement} failed:\n{done.stderr}")
    return {statement: laps[1:] for statement, laps in times.items()}  # the first one compiles


def installed_sizes() -> dict[str, int]:
    """Bytes on disk that ``pip install .`` without extras puts into an empty environment.

    Byte code is included, since pip writes it.
    """
    with tempfile.TemporaryDirectory(prefix="modelport-bench-") as folder:
        venv.create(folder, with_pip=False)
        # This environment's pip installs into that one, so that pip itself is not counted.
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--python", folder, "install", "--quiet", str(_ROOT)],
            check=False,
            capture_output=True,
            text=True,
            timeout=_INSTALL_LIMIT,
        )
        if done.returncode:
            raise BenchmarkError(f"pip install failed:\n{done.stderr[-3000:]}")
        (packages,) = Path(folder).glob("lib/python*/site-packages")
        return {entry.name: _size(entry) for entry in packages.iterdir()}


def _size(entry: Path) -> int:
    files = entry.rglob("*") if entry.is_dir() else [entry]
    return sum(file.stat().st_size for file in files if file.is_file())


def _print_server(found: dict[str, Any]) -> None:
    seconds = found["seconds"]
    print(
        f"{found['peer']} {found['model']}: first correct answer after"
        f" {statistics.median(seconds):.3f} s (median of {len(seconds)};"
        f" {min(seconds):.3f} to {max(seconds):.3f}),"
        f" RSS {_megabytes(found['rss'])}, PSS {_megabytes(found['pss'])}",
        flush=True,
    )


def _print_imports(times: dict[str, list[float]]) -> None:
    bare, with_it = (statistics.median(laps) * 1e3 for laps in times.values())
    print(
        f"import modelport: {with_it - bare:.1f} ms"
        f" (python starts and ends in {bare:.1f} ms, with the import in {with_it:.1f} ms)"
    )


def _print_sizes(sizes: dict[str, int]) -> None:
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:_LARGEST]
    parts = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in largest)
    print(f"installed without extras: {sum(sizes.values()) / 1e6:.1f} MB ({parts})")


def _megabytes(values: Sequence[int]) -> str:
    return f"{statistics.median(values) / 1e6:.0f} MB"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what starting a server costs.")
    add = parser.add_argument
    add("--peers", type=names_of(PEER_NAMES), default=["modelport"], metavar="NAME,…",
        help=f"of {', '.join(PEER_NAMES)} (default: modelport)")  # fmt: skip
    add("--models", type=names_of(models.NAMES), default=["m8"], metavar="NAME,…",
        help=f"of {', '.join(models.NAMES)} (default: m8)")  # fmt: skip
    add("--runs", type=int, default=10, help="starts of each (default: 10)")
    add("--installed-size", action="store_true", help="install modelport afresh and measure it")
    add("--json", type=Path, metavar="FILE", help="write every single measurement")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
