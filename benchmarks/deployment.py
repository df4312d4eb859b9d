"""What plans and images cost: ``python benchmarks/deployment.py --help``, README.md beside it."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import models
from server import BenchmarkError, ask, free_port

from modelport import api

#: The fewest settings with which each target can be planned.
TARGETS: Final = {
    "docker": (),
    "compose": (),
    "kubernetes": ("anonymous=true",),
    "kserve": ("anonymous=true",),
    "cloudrun": ("project=example", "region=europe-west1"),
    "vertex": ("project=example", "region=europe-west1"),
    "lambda": ("region=eu-west-1",),
    "sagemaker": ("region=eu-west-1",),
    "azureml": (
        "subscription=00000000-0000-0000-0000-000000000000", "resource-group=models",
        "location=westeurope", "workspace=models",
    ),
    "azure-functions": (
        "subscription=00000000-0000-0000-0000-000000000000", "resource-group=models",
        "location=westeurope",
    ),
}  # fmt: skip
_MODEL: Final = "m784"
_POLL: Final = 0.01
_START_LIMIT: Final = 60.0
_ENGINE_LIMIT: Final = 300


def main() -> int:
    """Run the command line; 1 when something could not be measured."""
    options = _parse()
    with tempfile.TemporaryDirectory(prefix="modelport-bench-") as folder:
        try:
            model = models.build(_MODEL)
            package = api.pack(model.path, _MODEL, out=Path(folder) / _MODEL).path
            result: dict[str, Any] = {"plans": plan_times(package, options.runs)}
            if options.base:
                result["image"] = image(package, options.base, Path(folder))
            if options.base and options.engine:
                archive = Path(folder) / "image.tar"
                result["starts"] = container_starts(options.engine, archive, model, options.runs)
        except BenchmarkError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    _print(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def plan_times(package: Path, runs: int) -> dict[str, dict[str, list[float]]]:
    """``modelport deploy --plan`` as a process of its own, in a network without interfaces.

    Returns
    -------
    dict
        For each target ``seconds`` and ``processor`` (seconds of processor time): one for each
        run, without the first, which compiles.
    """
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or _run([*alone, "true"]).returncode:
        alone = []  # the tests hold plans to it, too
    times: dict[str, dict[str, list[float]]] = {}
    for target, settings in TARGETS.items():
        words = [word for setting in settings for word in ("--set", setting)]
        command = [
            *alone, sys.executable, "-m", "modelport", "deploy", str(package),
            "--to", target, *words, "--plan",
        ]  # fmt: skip
        laps: dict[str, list[float]] = {"seconds": [], "processor": []}
        for _ in range(runs + 1):
            before, start = _children(), time.perf_counter()
            done = _run(command)
            laps["seconds"].append(time.perf_counter() - start)
            laps["processor"].append(_children() - before)
            if done.returncode:
                raise BenchmarkError(f"{target} cannot be planned:\n{done.stderr}")
        times[target] = {name: values[1:] for name, values in laps.items()}
    return times


def image(package: Path, base: str, folder: Path) -> dict[str, float]:
    """Build the image twice: the second time everything that can be kept is there.

    Returns
    -------
    dict
        ``ours`` and ``base``: compressed bytes; ``first`` and ``again``: seconds.
    """
    found: dict[str, float] = {}
    for lap in ("first", "again"):
        out = folder / "image.tar"
        out.unlink(missing_ok=True)
        options = api.ImageOptions(base=base, out=str(out), cache=str(folder / "cache"))
        start = time.perf_counter()
        built = api.build_image(package, options=options)
        found[lap] = time.perf_counter() - start
        (platform,) = built.platforms
        found |= {"ours": platform.ours, "base": platform.base}
    return found


def container_starts(engine: str, archive: Path, model: models.Model, runs: int) -> list[float]:
    """Seconds from ``run`` to the first right answer: read-only, no rights, 256 MB."""
    loaded = _engine(engine, "load", "--quiet", "--input", str(archive)).split()[-1]
    try:
        return [_start(engine, loaded, model) for _ in range(runs + 1)][1:]
    finally:
        _run([engine, "rmi", "--force", loaded])


def _start(engine: str, image: str, model: models.Model) -> float:
    port, name = free_port(), f"modelport-bench-{os.getpid()}"
    url = f"http://127.0.0.1:{port}/v2/models/{model.name}/infer"
    start = time.perf_counter()
    try:
        _engine(
            engine, "run", "--detach", "--name", name, "--network", "host", "--read-only",
            "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
            "--memory", "256m", "--env", "MODELPORT_HOST=127.0.0.1",
            "--env", f"MODELPORT_PORT={port}", image,
        )  # fmt: skip
        while time.perf_counter() - start < _START_LIMIT:
            try:
                ask(url, "v2-json", model)
            except OSError:
                time.sleep(_POLL)
                continue
            return time.perf_counter() - start
        raise BenchmarkError(f"no answer after {_START_LIMIT:.0f} s")
    finally:
        _run([engine, "rm", "--force", "--time", "1", name])


def _engine(engine: str, *words: str) -> str:
    done = _run([engine, *words])
    if done.returncode:
        raise BenchmarkError(f"{engine} {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=_ENGINE_LIMIT
    )


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _print(result: dict[str, Any]) -> None:
    for target, laps in result["plans"].items():
        seconds = laps["seconds"]
        print(
            f"plan for {target}: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to "
            f"{max(seconds):.2f}), {statistics.median(laps['processor']):.2f} s of processor time"
        )
    if found := result.get("image"):
        print(
            f"image: {found['ours'] / 1e6:.1f} MB of ours on {found['base'] / 1e6:.1f} MB, built "
            f"in {found['first']:.1f} s, again in {found['again']:.1f} s"
        )
    if starts := result.get("starts"):
        print(
            f"run to the first right answer: {statistics.median(starts):.2f} s "
            f"({min(starts):.2f} to {max(starts):.2f})"
        )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what plans and images cost.")
    add = parser.add_argument
    add("--runs", type=int, default=5, help="of each (default: 5)")
    add("--base", help="image to build on, as for 'modelport image'; builds only with it")
    add("--engine", choices=("docker", "podman"), help="start containers of the image, too")
    add("--json", type=Path, metavar="FILE", help="write every single measurement")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
