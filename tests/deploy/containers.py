"""Containers without a daemon, for tests: a base image, podman, and how to run it here.

Import the fixtures by name into a test module. All is kept in ``~/.cache/modelport-tests``: the
base image is Debian with its Python 3.11, made by mmdebstrap from Debian's packages, because
tests must not need a registry.
"""

from __future__ import annotations

import ctypes
import fcntl
import gzip
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from modelport import api
from modelport.adapters import find_adapter
from modelport.api.image import build_image
from modelport.core.options import ImageOptions
from modelport.core.package import Package
from modelport.deploy.images.layers import GZIP_LAYER, Entry, write_layer
from modelport.deploy.images.layout import CONFIG, MANIFEST, TAG, Layout

CACHE = Path("~/.cache/modelport-tests").expanduser()
BASE_NAME = "localhost/modelport-tests/python:3.11-slim"
_SUITE = "bookworm"
_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"

_CLONE_NEWNET = 0x40000000

#: Machines without CAP_SYS_RESOURCE cannot raise limits; their cgroups are hybrid, which crun
#: does not take; the host's network, for builds, needs neither bridges nor a firewall.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
netns = "host"
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def needs(*tools: str) -> None:
    """Skip the test where a tool is missing; on CI, fail it."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if not missing:
        return
    reason = f"{', '.join(missing)} missing: 'make system' installs them"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process of the test run at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass
class Container:
    """A container that runs, in a network of its own where nobody else reaches it.

    Parameters
    ----------
    podman : Podman
    name : str
    started : float
        `time.monotonic` right before ``podman run``.
    """

    podman: Podman
    name: str
    started: float

    def logs(self) -> str:
        """What it has written."""
        done = self.podman.call("logs", self.name, check=False)
        return done.stdout + done.stderr

    @cached_property
    def _process(self) -> int:
        return int(self.podman.call("inspect", "--format", "{{.State.Pid}}", self.name).stdout)

    def connect(self, port: int) -> socket.socket:
        """A connection to a port of its loopback address."""

        def enter() -> socket.socket:
            # A thread of its own joins that network; the socket stays in it.
            with open(f"/proc/{self._process}/ns/net") as network:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(network.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return socket.create_connection(("127.0.0.1", port), 10)

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(enter).result()

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        port: int = 8080,
    ) -> tuple[int, Any]:
        """One HTTP request; the status and the JSON answer, or its bytes."""
        connection = HTTPConnection("localhost", port)
        try:
            connection.sock = self.connect(port)
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            told = {"Content-Type": "application/json"} if data is not None else {}
            connection.request(method, path, data, {**told, **(headers or {})})
            response = connection.getresponse()
            content = response.read()
            try:
                return response.status, json.loads(content)
            except ValueError:
                return response.status, content
        finally:
            connection.close()

    def wait(
        self, path: str = "/v2/health/ready", *, port: int = 8080, seconds: float = 60
    ) -> float:
        """Wait until a path answers 200; seconds from the start."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self.ask("GET", path, port=port)[0] == 200:
                    return time.monotonic() - self.started
            except (OSError, HTTPException):
                pass
            time.sleep(0.01)
        raise AssertionError(f"{path} does not answer 200; the container says:\n{self.logs()}")

    def stop(self, *, seconds: int = 10) -> float:
        """SIGTERM, and SIGKILL after some seconds; how many it took."""
        begun = time.monotonic()
        self.podman.call("stop", "--time", str(seconds), self.name)
        return time.monotonic() - begun

    def exit_code(self) -> int:
        """Its exit code, once it has ended."""
        told = self.podman.call("inspect", "--format", "{{.State.ExitCode}}", self.name).stdout
        return int(told)


@dataclass
class Podman:
    """podman as it runs here."""

    conf: Path

    def call(
        self, *arguments: str, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run podman."""
        done = subprocess.run(
            ["podman", *arguments], env=self.environment, capture_output=True,
            text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"podman {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done

    @property
    def environment(self) -> dict[str, str]:
        """For podman and what calls it."""
        return {**os.environ, "CONTAINERS_CONF": str(self.conf)}

    @contextmanager
    def run(
        self,
        image: str,
        *arguments: str,
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Iterator[Container]:
        """A container, hardened as far as can be, as the image's user; it is removed at the end."""
        name = f"modelport-test-{os.getpid()}-{time.monotonic_ns()}"
        variables = [w for k, v in (env or {}).items() for w in ("--env", f"{k}={v}")]
        started = time.monotonic()
        try:
            self.call(
                "run", "--detach", "--name", name, "--read-only", "--tmpfs", "/tmp",
                "--cap-drop=ALL", "--security-opt", "no-new-privileges",
                "--memory", "256m", "--network", "none",
                *variables, *flags, image, *arguments,
            )  # fmt: skip
            yield Container(self, name, started)
        finally:
            self.call("rm", "--force", "--time", "1", name, check=False)


@pytest.fixture(scope="session")
def base_layout() -> Path:
    """The base image as an OCI layout, tagged ``3.11-slim``."""
    folder = CACHE / "base-layout"
    with locked("base"):
        if not (folder / "index.json").is_file():
            archive = _debian()
            beside = CACHE / "base-layout.new"
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            _write_base(archive, Layout(beside))
            beside.rename(folder)
    return folder


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    """podman, ready to run."""
    needs("podman", "runc")
    conf = tmp_path_factory.mktemp("podman") / "containers.conf"
    conf.write_text(_CONTAINERS_CONF)
    return Podman(conf)


@pytest.fixture(scope="session")
def base_image(podman: Podman, base_layout: Path) -> str:
    """The base image in podman's storage, for builds: ``FROM`` this name."""
    with locked("podman"):
        if podman.call("image", "exists", BASE_NAME, check=False).returncode:
            identity = podman.call("pull", "--quiet", f"oci:{base_layout}:3.11-slim").stdout
            podman.call("tag", identity.split()[-1], BASE_NAME)
    return BASE_NAME


@pytest.fixture(scope="session")
def digits_package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The demo's better model of digits, with golden records."""
    trained = find_adapter("demo", "digits").load().train()
    *_, model = trained.models.values()
    folder = tmp_path_factory.mktemp("digits")
    return api.pack(model, "digits", sample=trained.rows[:200], out=folder)


@pytest.fixture(scope="session")
def digits_layout(
    digits_package: Package, base_layout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The image of that package as a layout, tagged by the package's digest."""
    folder = tmp_path_factory.mktemp("images") / "digits"
    options = ImageOptions(base=f"oci:{base_layout}", out=str(folder), cache=str(CACHE))
    with locked("wheels"):
        build_image(digits_package.path, options=options)
    return folder


@pytest.fixture(scope="session")
def digits_image(
    podman: Podman, digits_layout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """That image in podman's storage."""
    needs("skopeo")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    name = f"localhost/modelport-tests/digits:{worker}-{os.getpid()}"
    tag = json.loads((digits_layout / "index.json").read_bytes())["manifests"][0]["annotations"][
        TAG
    ]
    with locked("podman"):
        subprocess.run(
            ["skopeo", "copy", "--quiet", f"oci:{digits_layout}:{tag}",
             f"containers-storage:{name}"],
            env=podman.environment, check=True, timeout=120,
        )  # fmt: skip
    yield name
    podman.call("rmi", "--force", name, check=False)


def _debian() -> Path:
    """A Debian root file system as a tar archive, cached."""
    archive = CACHE / "base.tar"
    if not archive.is_file():
        needs("mmdebstrap")
        beside = CACHE / "base.new.tar"
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", _SUITE,
             str(beside)],
            check=True, timeout=600,
        )  # fmt: skip
        beside.rename(archive)
    return archive


def _write_base(archive: Path, layout: Layout) -> None:
    """Debian's files, and what makes them look like Docker Hub's python image."""
    compressed = layout.folder / "layer"
    inner = hashlib.sha256()
    with archive.open("rb") as source, gzip.GzipFile(compressed, "wb", 1, mtime=0) as target:
        while chunk := source.read(1 << 20):
            inner.update(chunk)
            target.write(chunk)
    digest = f"sha256:{hashlib.sha256(compressed.read_bytes()).hexdigest()}"
    layers = [{"mediaType": GZIP_LAYER, "digest": digest, "size": compressed.stat().st_size}]
    layout.add_file(compressed, digest)
    compressed.unlink()
    links = [
        Entry("usr/local/bin/python", link="/usr/bin/python3"),
        # pip may install into this Python: the image is nobody's system.
        Entry("usr/lib/python3.11/.wh.EXTERNALLY-MANAGED"),
    ]
    link_layer = write_layer(layout.folder / "links", links)
    layers.append(link_layer.descriptor)
    layout.add_file(link_layer.path, link_layer.digest)
    link_layer.path.unlink()
    config = {
        "created": "1970-01-01T00:00:00Z",
        "os": "linux",
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["python3"],
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{inner.hexdigest()}", link_layer.diff_id],
        },
        "history": [
            {"created": "1970-01-01T00:00:00Z", "created_by": text} for text in ("debian", "links")
        ],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": layout.add_json(config, CONFIG),
        "layers": layers,
    }
    layout.finish(layout.add_json(manifest, MANIFEST), "3.11-slim")
