"""Images that podman builds from the generated Dockerfile, and stand-ins for those of a hub.

Import the fixtures by name into a test module.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from modelport.core.package import Package
from modelport.deploy import stage
from modelport.deploy.service import Footprint
from tests.deploy.containers import BASE_NAME, Podman, locked, needs

ROOT = Path(__file__).parents[2]
#: Apart from that of the other tests: compose files and published ports need a bridge.
_CONF = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
log_driver = "k8s-file"
[network]
network_backend = "netavark"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
#: Others of this machine may have a bridge with the addresses of podman's default network.
NETWORK = "modelport-tests"
TOOLS = "localhost/modelport-tests/front-and-prometheus:1"
_TOOLS = f"""\
FROM {BASE_NAME}
RUN apt-get update -qq && \\
    apt-get install -qq --yes --no-install-recommends nginx-light prometheus wget >/dev/null && \\
    rm -rf /var/lib/apt/lists && install -d -o 65534 -g 65534 /prometheus
"""


@pytest.fixture(scope="session")
def bridged(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    """podman whose containers have a network of their own."""
    needs("podman", "runc")
    conf = tmp_path_factory.mktemp("bridged") / "containers.conf"
    conf.write_text(_CONF)
    podman = Podman(conf)
    with locked("podman"):
        if podman.call("network", "exists", NETWORK, check=False).returncode:
            podman.call("network", "create", NETWORK)
    return podman


@pytest.fixture(scope="session")
def built(
    bridged: Podman,
    base_image: str,
    package: Package,
    footprint: Footprint,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The image of the generated Dockerfile, named by its digest."""
    plan = stage.plan(
        package, "docker", ["engine=podman", f"base={base_image}"], footprint=footprint
    )
    folder = tmp_path_factory.mktemp("build")
    stage.write(plan, folder)
    name = f"localhost/modelport-tests/built:{plan.service.tag}"
    with locked("built"):
        bridged.call(
            "build", "--quiet", "--format", "docker", "--network", "host",
            "--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro",
            "--build-context", f"model={package.path}",
            "--build-context", f"server={ROOT / 'src' / 'modelport'}",
            "--tag", name, str(folder / "image"),
            timeout=500,
        )  # fmt: skip
    digest = bridged.call("image", "inspect", "--format", "{{.Digest}}", name).stdout.strip()
    return f"{name.rpartition(':')[0]}@{digest}"


@pytest.fixture(scope="session")
def tools(bridged: Podman, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """nginx and Prometheus from Debian, in one image: those of the hub cannot be had here."""
    folder = tmp_path_factory.mktemp("tools")
    (folder / "Dockerfile").write_text(_TOOLS)
    with locked("built"):
        if bridged.call("image", "exists", TOOLS, check=False).returncode:
            bridged.call(
                "build", "--quiet", "--network", "host", "--tag", TOOLS, str(folder), timeout=500
            )
    return TOOLS
