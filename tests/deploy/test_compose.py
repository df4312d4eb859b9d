"""The target compose: its files, promtool and nginx on them, and all of it running in podman."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelport.core.errors import InputError, LimitError
from modelport.core.package import Package
from modelport.deploy import show, stage
from modelport.deploy.base import Plan
from modelport.deploy.containers import monitoring, nginx
from modelport.deploy.service import Footprint
from modelport.deploy.verify import verify_endpoint
from modelport.serve.metrics import Metrics
from tests.deploy.built import CERTIFICATES, ROOT, bridged, built, tools
from tests.deploy.containers import Podman, base_image, base_layout, locked, needs, podman
from tests.deploy.golden_files import assert_golden
from tests.serve.certificates import Certificates
from tests.serve.running import LIMIT, free_port

__all__ = ["base_image", "base_layout", "bridged", "built", "podman", "tools"]

DIGEST = "sha256:" + "ab" * 32
IMAGE = f"image=registry.example/churn@{DIGEST}"
KEY = "a-key-of-the-tests-0123456789"


def planned(package: Package, footprint: Footprint, *pairs: str) -> Plan:
    return stage.plan(package, "compose", [IMAGE, *pairs], footprint=footprint)


def content(plan: Plan, path: str) -> str:
    return next(file.content for file in plan.files if file.path == path)


@pytest.fixture
def plan(package: Package, footprint: Footprint) -> Plan:
    return planned(package, footprint)


def test_the_plan_is_the_one_that_was_reviewed(plan: Plan, package: Package) -> None:
    assert_golden("compose.txt", show.to_text(plan), package)
    for path in ("compose.yaml", "front/nginx.conf", "prometheus/prometheus.yml",
                 "prometheus/rules.yml"):  # fmt: skip
        assert_golden(f"compose/{path}", content(plan, path), package)


def test_only_the_front_is_published(package: Package, footprint: Footprint) -> None:
    document = yaml.safe_load(content(planned(package, footprint), "compose.yaml"))
    published = [name for name, one in document["services"].items() if "ports" in one]
    assert published == ["front"]
    assert document["networks"]["inside"] == {"internal": True}
    assert document["services"]["model"]["networks"] == ["inside"]
    local = planned(package, footprint, "prometheus-port=9090", "listen=127.0.0.1", "port=8443")
    document = yaml.safe_load(content(local, "compose.yaml"))
    assert document["services"]["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]
    assert document["services"]["front"]["ports"] == ["127.0.0.1:8443:8443"]
    document = yaml.safe_load(content(planned(package, footprint, "listen=::1"), "compose.yaml"))
    assert document["services"]["front"]["ports"] == ["[::1]:443:8443"]


def test_every_container_is_hardened(plan: Plan) -> None:
    for one in yaml.safe_load(content(plan, "compose.yaml"))["services"].values():
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", one["user"])
        assert {"mem_limit", "cpus", "pids_limit", "healthcheck"} <= set(one)
        assert "privileged" not in one


def test_without_an_image_the_dockerfile_builds_it(package: Package, footprint: Footprint) -> None:
    plan = stage.plan(package, "compose", [], footprint=footprint)
    model = yaml.safe_load(content(plan, "compose.yaml"))["services"]["model"]
    assert model["image"] == f"churn:{plan.service.tag}"
    assert model["build"]["context"] == "./image"
    assert set(model["build"]["additional_contexts"]) == {"model", "server"}
    assert content(plan, "image/Dockerfile")
    assert plan.image == model["image"]
    assert "modelport image --push" in plan.notes[0]


def test_keys_are_files_and_nothing_else(plan: Plan) -> None:
    document = yaml.safe_load(content(plan, "compose.yaml"))
    assert all(set(secret) == {"file"} for secret in document["secrets"].values())
    assert document["services"]["model"]["environment"]["MODELPORT_API_KEY_FILE"]
    assert "MODELPORT_ALLOW_ANONYMOUS" not in content(plan, "compose.yaml")
    assert content(plan, ".gitignore").endswith("secrets/\n")


@pytest.mark.parametrize(
    "pair",
    [
        "port=0", "port=65536", "prometheus-port=-1", "front-image=", "front-image=a b",
        "prometheus-image=A", "base=", "base=a\nRUN b", "listen=here", "retention=15 d",
        "retention=0d", "retention=${HOME}",
    ],
)  # fmt: skip
def test_settings_that_cannot_be(package: Package, footprint: Footprint, pair: str) -> None:
    with pytest.raises(InputError, match=r"not a port|not an image|not an addr|not how long"):
        planned(package, footprint, pair)


def test_limits(package: Package, footprint: Footprint) -> None:
    with pytest.raises(InputError, match="less than the 90Mi"):
        planned(package, footprint, "memory=6Mi")
    guessed = replace(footprint, measured=False)
    assert planned(package, guessed, "memory=6Mi")
    with pytest.raises(LimitError, match="5 MiB of at least 6 MiB"):
        planned(package, guessed, "memory=5Mi")


# Prometheus


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["timeout", "60", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_the_rules_name_only_metrics_that_there_are(plan: Plan) -> None:
    rendered = Metrics(['model="",version=""', 'model="m",version="1"'], 1).render().decode()
    known = {line.split()[2] for line in rendered.splitlines() if line.startswith("# TYPE")}
    known |= {f"{name}_bucket" for name in known} | {"up"}
    rules = yaml.safe_load(content(plan, "prometheus/rules.yml"))["groups"][0]["rules"]
    known |= {rule["record"] for rule in rules if "record" in rule}
    for rule in rules:
        bare = re.sub(r"\{[^}]*\}|\bby \([^)]*\)|\[\w+\]", "", rule["expr"])
        names = set(re.findall(r"[a-z_:][a-z0-9_:]{3,}|\bup\b", bare))
        assert names - {"rate", "histogram_quantile"} <= known, rule["expr"]


def test_promtool_takes_the_files(plan: Plan, tmp_path: Path) -> None:
    needs("promtool")
    stage.write(plan, tmp_path)
    folder = tmp_path / "prometheus"
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    (tmp_path / "key").write_text(KEY)
    config["scrape_configs"][0]["authorization"]["credentials_file"] = str(tmp_path / "key")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    done = run("promtool", "check", "config", "prometheus.yml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 rules found" in done.stdout


_SERIES = {
    # 12 of 600 requests in a minute fail; one takes longer than half a second.
    'modelport_requests_total{model="m",version="1",code="200"}': "0+588x20",
    'modelport_requests_total{model="m",version="1",code="500"}': "0+12x20",
    'modelport_requests_total{model="n",version="1",code="200"}': "0+600x20",
    'modelport_requests_total{model="",version="",code="401",instance="i"}': "0+120x20",
    'modelport_request_duration_seconds_bucket{model="m",version="1",le="0.005"}': "0+500x20",
    'modelport_request_duration_seconds_bucket{model="m",version="1",le="0.5"}': "0+600x20",
    'modelport_request_duration_seconds_bucket{model="m",version="1",le="+Inf"}': "0+600x20",
    'modelport_request_duration_seconds_bucket{model="n",version="1",le="0.005"}': "0+600x20",
    'modelport_request_duration_seconds_bucket{model="n",version="1",le="0.5"}': "0+600x20",
    'modelport_request_duration_seconds_bucket{model="n",version="1",le="+Inf"}': "0+600x20",
    'modelport_requests_in_flight{model="m",version="1"}': "600x20",
    'modelport_requests_in_flight{model="n",version="1"}': "5x20",
    'modelport_model_ready{model="m",version="1"}': "0x20",
    'modelport_model_ready{model="n",version="1"}': "1x20",
    'up{job="modelport",instance="i"}': "0x20",
    'up{job="modelport",instance="j"}': "1x20",
    'process_resident_memory_bytes{job="modelport",instance="i"}': f"{190 << 20}x20",
    'process_resident_memory_bytes{job="modelport",instance="j"}': f"{100 << 20}x20",
}
_FIRING = {
    "ModelportDown": {"job": "modelport", "instance": "i"},
    "ModelportModelNotReady": {"model": "m", "version": "1"},
    "ModelportFailures": {"model": "m", "version": "1"},
    "ModelportSlow": {"model": "m", "version": "1"},
    "ModelportQueue": {"model": "m", "version": "1"},
    "ModelportRefusedKeys": {"instance": "i"},
    "ModelportMemory": {"job": "modelport", "instance": "i"},
}


def test_each_alert_is_for_whom_it_should_be_and_nobody_else(
    footprint: Footprint, tmp_path: Path
) -> None:
    needs("promtool")
    rules = monitoring.rules(footprint, 200 << 20)
    alerts = {r["alert"]: r for r in rules["groups"][0]["rules"] if "alert" in r}
    assert set(alerts) == set(_FIRING)
    for rule in alerts.values():
        rule["annotations"] = {}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    expected = [
        {
            "eval_time": "19m",
            "alertname": name,
            "exp_alerts": [
                {"exp_labels": {**labels, "severity": alerts[name]["labels"]["severity"]}}
            ],
        }
        for name, labels in _FIRING.items()
    ]
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": s, "values": v} for s, v in _SERIES.items()],
                "alert_rule_test": expected,
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = run("promtool", "test", "rules", "test.yml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


# nginx


def test_nginx_takes_its_file(tmp_path: Path) -> None:
    needs("nginx")
    certificates = Certificates(tmp_path)
    text = nginx.nginx_conf(
        "127.0.0.1:1", str(certificates["server"]), str(certificates["server.key"]),
        max_body=1 << 20, timeout=60, body_timeout=60,
    )  # fmt: skip
    path = tmp_path / "nginx.conf"
    path.write_text(re.sub(r"(_path|pid) /tmp/", rf"\1 {tmp_path}/", text))
    done = run("nginx", "-t", "-e", "/dev/stderr", "-c", str(path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


# All of it


@dataclass
class Running:
    """A project that runs."""

    podman: Podman
    name: str
    port: int
    certificate: Path

    def ask(self, method: str, path: str, *, size: int = 0, key: str = KEY) -> tuple[int, bytes]:
        context = ssl.create_default_context(cafile=str(self.certificate))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=LIMIT, context=context
        )
        try:
            headers = {"X-API-Key": key} if key else {}
            length = {"Content-Length": str(size)} if size else {}  # of a body that is not sent
            connection.request(method, path, headers=headers | length)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def query(self, text: str) -> Any:
        url = f"http://127.0.0.1:9090/api/v1/query?query={text}"
        done = self.podman.call("exec", self.of("prometheus"), "wget", "-q", "-O", "-", url)
        return json.loads(done.stdout)["data"]["result"]

    def of(self, service: str) -> str:
        return f"{self.name}_{service}_1"


@pytest.fixture(scope="module")
def project(
    bridged: Podman,
    built: str,
    tools: str,
    package: Package,
    footprint: Footprint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    """The compose file, up; images of the hub replaced by Debian's nginx and Prometheus."""
    folder = tmp_path_factory.mktemp("compose")
    port, name = free_port(), f"compose{os.getpid()}"
    stage.write(
        stage.plan(
            package, "compose",
            [f"name={name}", "engine=podman", f"image={built}", f"front-image={tools}",
             f"prometheus-image={tools}", f"port={port}", "listen=127.0.0.1"],
            footprint=footprint,
        ),
        folder,
    )  # fmt: skip
    certificates = Certificates(tmp_path_factory.mktemp("certificates"))
    secrets = folder / "secrets"
    secrets.mkdir()
    (secrets / "api-key").write_text(f"{KEY}\n")
    shutil.copy(certificates["server"], secrets / "tls.crt")
    shutil.copy(certificates["server.key"], secrets / "tls.key")
    for path in secrets.iterdir():
        path.chmod(0o444)
    compose = _compose_program()

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["timeout", "120", compose, *arguments], cwd=folder, env=bridged.environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    try:
        done = call("up", "--detach")
        assert done.returncode == 0, done.stderr
        yield Running(bridged, name, port, certificates["ca"])
    finally:
        call("down", "--volumes", "--timeout", "2")


def _compose_program() -> str:
    program = ROOT / ".venv/podman-compose/bin/podman-compose"
    if program.is_file():
        return str(program)
    found = shutil.which("podman-compose")
    if found is None:
        needs("podman-compose")
    return str(found)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.2)


@pytest.mark.slow
def test_the_project_serves_behind_tls(
    project: Running, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ready() -> bool:
        try:
            return project.ask("GET", "/v2/health/ready")[0] == 200
        except OSError:
            return False

    until(ready)
    monkeypatch.setenv("SSL_CERT_FILE", str(project.certificate))
    monkeypatch.setenv("MODELPORT_API_KEY", KEY)
    verify_endpoint(package, f"https://127.0.0.1:{project.port}", "v2", lambda _: None)
    assert project.ask("GET", "/v2/models", key="")[0] == 401
    assert project.ask("GET", "/metrics")[0] == 404
    assert project.ask("GET", "/front-health", key="")[0] == 401
    assert project.ask("POST", "/v2/models/churn/infer", size=65 << 20)[0] == 413


@pytest.mark.slow
def test_prometheus_sees_the_server_and_its_rules(project: Running) -> None:
    def seen() -> bool:
        found = project.query('up{job="modelport"}') if healthy("prometheus") else []
        return [one["value"][1] for one in found] == ["1"]

    def healthy(service: str) -> bool:
        name = project.of(service)
        return not project.podman.call("healthcheck", "run", name, check=False).returncode

    until(seen)
    assert project.query("modelport_model_ready")[0]["value"][1] == "1"
    for service in ("model", "front", "prometheus"):
        until(lambda service=service: healthy(service))  # type: ignore[misc]


#: More than nginx could keep beside itself in 128 MiB.
_AT_ONCE = 12


@pytest.mark.slow
def test_the_front_keeps_bodies_within_its_memory(project: Running) -> None:
    """Large bodies at once, which nginx keeps in /tmp: memory of the container."""
    body = bytes(15 << 20)  # of at most 16
    context = ssl.create_default_context(cafile=str(project.certificate))

    def ask(_: int) -> int:
        connection = http.client.HTTPSConnection("127.0.0.1", project.port, context=context)
        try:
            # Without a key: the server refuses it unread, once nginx has it whole.
            length = {"Content-Length": str(len(body))}
            connection.request("POST", "/v2/models/churn/infer", headers=length)
            connection.send(body[:-1])
            arrived.wait(LIMIT)
            connection.send(body[-1:])
            return connection.getresponse().status
        finally:
            connection.close()

    arrived = threading.Barrier(_AT_ONCE)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        assert list(pool.map(ask, range(_AT_ONCE))) == [401] * _AT_ONCE
    state = project.podman.call("container", "inspect", project.of("front")).stdout
    assert json.loads(state)[0]["RestartCount"] == 0


@pytest.mark.slow
def test_the_containers_are_as_locked_in_as_the_file_says(project: Running) -> None:
    for service in ("model", "front", "prometheus"):
        name = project.of(service)
        state = json.loads(project.podman.call("container", "inspect", name).stdout)[0]
        assert state["HostConfig"]["ReadonlyRootfs"] is True
        assert state["HostConfig"]["Memory"] > 0
        assert state["EffectiveCaps"] in (None, [])
        assert state["Config"]["User"].split(":")[0] not in ("", "0")
        written = project.podman.call("exec", name, "touch", "/etc/x", check=False)
        assert "Read-only" in written.stderr
    out = "import socket; socket.create_connection(('192.0.2.1', 80), 3)"
    done = project.podman.call("exec", project.of("model"), "python", "-c", out, check=False)
    assert "unreachable" in done.stderr


@pytest.mark.slow
def test_compose_builds_the_image_itself(
    bridged: Podman, base_image: str, package: Package, footprint: Footprint, tmp_path: Path
) -> None:
    name = f"own{os.getpid()}"
    plan = stage.plan(
        package, "compose", [f"name={name}", "engine=podman", f"base={base_image}"],
        footprint=footprint,
    )  # fmt: skip
    stage.write(plan, tmp_path)
    environment = bridged.environment | {
        "PACKAGE": str(package.path),
        "MODELPORT": str(ROOT / "src" / "modelport"),
    }
    arguments = f"--format docker --network host --volume {CERTIFICATES}:{CERTIFICATES}:ro"
    with locked("built"):
        done = subprocess.run(
            ["timeout", "250", _compose_program(), f"--podman-build-args={arguments}", "build",
             "model"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    try:
        image = f"localhost/{plan.image}"
        with bridged.run(image, env={"MODELPORT_ALLOW_ANONYMOUS": "1"}) as container:
            container.wait()
            assert container.ask("GET", "/v2/models")[1] == {"models": [package.manifest.name]}
    finally:
        bridged.call("rmi", "--force", image, check=False)
