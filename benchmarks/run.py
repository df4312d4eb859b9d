"""Measure servers side by side: ``python benchmarks/run.py --help``, and README.md beside it."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import load
import models
import payloads
import processes
import raw
import table
from environments import interpreter
from peers.base import Peer
from server import BenchmarkError, Server, free_port

_PEERS: Final = Path(__file__).parent / "peers"
PEER_NAMES: Final = tuple(
    sorted(file.stem for file in _PEERS.glob("*.py") if file.stem not in ("__init__", "base"))
)
# When the load ends, the server may have worked on one request of every connection in vain.
_TOLERATED: Final = 2
_FEW: Final = (
    " (only {} answers: this may be up to {:.0f} % too much;"
    " more --seconds or --connections 1 tell better)"
)


def main() -> int:
    """Run the command line; 1 when a peer failed, 2 when nothing could be measured."""
    options = _parse()
    try:
        cores = two_cores()
        load.require_wrk()
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, {cores[1]})  # our own work stays off the server's core
    document: dict[str, Any] = {
        "machine": describe_machine(cores, options),
        "raw": [],
        "servers": [],
        "failures": [],
    }
    peers = _prepare(options.peers, document["failures"])
    for number in range(options.rounds):
        for name in options.models:
            model = models.build(name)
            timing = raw.measure(model, options.seconds, cores[0], options.scheduler)
            document["raw"].append({"model": name, "round": number, **asdict(timing)})
            _say(f"round {number + 1}: {name}: raw {timing.processor_microseconds:.1f} µs")
            # There and back again, so that a steady drift of the machine meets all alike.
            for peer, python in peers if number % 2 == 0 else peers[::-1]:
                if any(failure["peer"] == peer.name for failure in document["failures"]):
                    continue
                try:
                    _measure_peer(peer, python, model, options, cores, number, document["servers"])
                except (BenchmarkError, OSError) as error:
                    document["failures"].append({"peer": peer.name, "why": str(error)})
                    _say(f"round {number + 1}: {name}: {peer.name} FAILED: {error}")
    document["machine"]["load_average_after"] = os.getloadavg()
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(report(document, markdown=options.markdown))
    return 1 if document["failures"] else 0


def _measure_peer(
    peer: Peer,
    python: Path,
    model: models.Model,
    options: argparse.Namespace,
    cores: tuple[int, int],
    number: int,
    records: list[dict[str, Any]],
) -> None:
    """Start a peer, measure it in all protocols with all numbers of connections, end it."""
    protocols = [protocol for protocol in options.protocols if peer.supports(protocol)]
    if not protocols:
        return
    port = free_port()
    command = peer.command(python, model.path, port)
    with Server(command, peer.environment(), cores[0], options.scheduler) as server:
        first = peer.url(protocols[0], model.name, port)
        start = server.wait_until_correct(first, protocols[0], model)
        for protocol in protocols:
            for connections in options.connections:
                try:
                    measured = load.measure(
                        server,
                        peer.url(protocol, model.name, port),
                        protocol,
                        model,
                        connections=connections,
                        seconds=options.seconds,
                        server_core=cores[0],
                        load_core=cores[1],
                    )
                except BenchmarkError as error:
                    raise BenchmarkError(f"{protocol}: {error}\n{server.log()}") from error
                records.append(
                    {
                        "peer": peer.name,
                        "model": model.name,
                        "protocol": protocol,
                        "connections": connections,
                        "round": number,
                        "start": start,
                        **asdict(measured),
                        **asdict(processes.memory(server.pid)),
                    }
                )
                excess = 100 * connections / measured.requests
                _say(
                    f"round {number + 1}: {model.name}: {peer.name} {protocol} ×{connections}:"
                    f" {measured.processor_microseconds:.1f} µs,"
                    f" {measured.requests_per_second:,.0f}/s"
                    + (_FEW.format(measured.requests, excess) if excess > _TOLERATED else "")
                )


def report(document: dict[str, Any], *, markdown: bool) -> str:
    """The tables, with what they were measured on and who failed."""
    machine = document["machine"]
    text = [
        f"{machine['processor']}, Linux {machine['kernel']}, Python {machine['python']},"
        f" onnxruntime {machine['onnxruntime']}; {machine['rounds']} rounds of"
        f" {machine['seconds']:g} s; servers started under SCHED_{machine['scheduler'].upper()};"
        f" load average {machine['load_average_before'][0]:.1f} before,"
        f" {machine['load_average_after'][0]:.1f} after"
    ]
    for case in table.cases(document["servers"]):
        title = f"{case.model}, {case.protocol}, {case.connections} connection"
        text += ["", ("### " if markdown else "") + title + "s" * (case.connections != 1), ""]
        text.append(
            table.render(table.rows(case, document["servers"], document["raw"]), markdown=markdown)
        )
    for failure in document["failures"]:
        text += [
            "",
            f"{failure['peer']} FAILED and is not measured: {failure['why'].splitlines()[0][:300]}",
        ]
    return "\n".join(text)


def _prepare(names: list[str], failures: list[dict[str, str]]) -> list[tuple[Peer, Path]]:
    """The peers with their interpreters; those that cannot be installed become failures."""
    found: list[tuple[Peer, Path]] = []
    for name in names:
        peer = load_peer(name)
        try:
            found.append((peer, interpreter(peer)))
        except BenchmarkError as error:
            failures.append({"peer": name, "why": str(error)})
            _say(str(error))
    return found


def load_peer(name: str) -> Peer:
    """The peer that a module of this name in ``peers/`` declares."""
    peer: Peer = importlib.import_module(f"peers.{name}").PEER
    return peer


def two_cores() -> tuple[int, int]:
    """A core for the server and another one for the load.

    Raises
    ------
    BenchmarkError
        When this process may use one core only.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("needs two cores: one for the server, one for the load")
    return cores[0], cores[1]


def describe_machine(cores: tuple[int, int], options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": f"{names[0] if names else platform.machine()} ({os.cpu_count()} cores)",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "onnxruntime": version("onnxruntime"),
        "server_core": cores[0],
        "load_core": cores[1],
        "scheduler": options.scheduler,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "load_average_before": os.getloadavg(),
    }


def names_of(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    """A parser for comma-separated names."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure servers side by side.")
    add = parser.add_argument
    known = ", ".join(PEER_NAMES)
    add("--models", type=names_of(models.NAMES), default=["m8", "m784"], metavar="NAME,…",
        help=f"of {', '.join(models.NAMES)} (default: m8,m784)")  # fmt: skip
    add("--peers", type=names_of(PEER_NAMES), default=["modelport", "granian_bare"],
        metavar="NAME,…", help=f"of {known} (default: modelport,granian_bare)")  # fmt: skip
    add("--protocols", type=names_of(payloads.PROTOCOLS), default=["v2-json"], metavar="NAME,…",
        help=f"of {', '.join(payloads.PROTOCOLS)} (default: v2-json)")  # fmt: skip
    add("--connections", type=lambda text: [int(part) for part in text.split(",")], default=[32],
        metavar="N,…", help="connections of the load generator (default: 32)")  # fmt: skip
    add("--seconds", type=float, default=5.0, help="of each measurement (default: 5)")
    add("--rounds", type=int, default=3, help="medians are taken over them (default: 3)")
    add("--scheduler", choices=("other", "batch"), default="other",
        help="policy that all servers, and raw, are started under (default: other)")  # fmt: skip
    add("--json", type=Path, metavar="FILE", help="write every single measurement")
    add("--markdown", action="store_true", help="print Markdown tables")
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
