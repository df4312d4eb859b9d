"""The targets docker's plan, its Dockerfile, and its containers in a real podman."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from modelport import api
from modelport.core.errors import (
    InputError,
    LimitError,
    ModelportError,
    NotFoundError,
    ParityError,
    PlatformError,
)
from modelport.core.package import Package
from modelport.deploy import show, stage
from modelport.deploy.appliers.command import CommandApplier
from modelport.deploy.base import Plan
from modelport.deploy.images.push import push_layout
from modelport.deploy.service import Footprint
from modelport.deploy.verify import verify_endpoint
from tests.deploy.built import NETWORK, bridged, built
from tests.deploy.containers import (
    CACHE,
    Podman,
    base_image,
    base_layout,
    locked,
    podman,
)
from tests.deploy.golden_files import assert_golden
from tests.deploy.registries import Layout, running_registry
from tests.serve.running import free_port

__all__ = ["base_image", "base_layout", "bridged", "built", "podman"]

DIGEST = "sha256:" + "ab" * 32
IMAGE = f"image=registry.example/churn@{DIGEST}"


def quiet(_: str) -> None: ...


# The plan


def planned(package: Package, footprint: Footprint, *pairs: str) -> Plan:
    return stage.plan(package, "docker", [IMAGE, *pairs], footprint=footprint)


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("docker", []),
        ("docker-public", ["public=true", "key-file=/etc/modelport/keys", "engine=podman",
                           "port=9443", "memory=1Gi", "cpus=1500m", "network=models"]),
    ],
)  # fmt: skip
def test_the_plan_is_the_one_that_was_reviewed(
    package: Package, footprint: Footprint, name: str, pairs: list[str]
) -> None:
    plan = planned(package, footprint, *pairs)
    assert_golden(f"{name}.txt", show.to_text(plan), package)
    calls = json.dumps(show.to_json(plan)["calls"], indent=2) + "\n"
    assert_golden(f"{name}.json", calls, package)


def test_the_dockerfile_is_the_one_that_was_reviewed(
    package: Package, footprint: Footprint
) -> None:
    files = {file.path: file for file in planned(package, footprint).files}
    assert_golden("docker/Dockerfile", files["image/Dockerfile"].content, package)
    lock = files["image/requirements.lock"].content
    assert lock.count("--hash=sha256:") > lock.count("==") > 10
    assert "tokenizers" not in lock  # this model has no text
    assert files["image/healthcheck"].executable


def test_every_container_is_hardened(package: Package, footprint: Footprint) -> None:
    plan = planned(package, footprint)
    started = [call.parameters["flags"] for call in plan.calls if call.operation == "run"]
    assert len(started) == 2
    for flags in started:
        text = " ".join(flags)
        for flag in ("--read-only", "--cap-drop ALL", "--security-opt no-new-privileges",
                     "--user 65532:65532", "--memory ", "--cpus ", "--pids-limit ",
                     "--publish 127.0.0.1:"):  # fmt: skip
            assert flag in text
        assert "--privileged" not in text


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["public=true"], "everybody in the network could ask"),
        (["port=0"], "not a port"),
        (["port=70000"], "not a port"),
        (["key-file=keys"], "not an absolute path"),
        (["key-file=/a,b"], "not an absolute path"),
        (["key-file=/a", "env-file=/b"], "both"),
        (["engine=lxc"], "lxc"),
        (["network=-x"], "not a network"),
        (["memory=lots"], "not an amount of memory"),
        (["nonsense=1"], "nonsense"),
        (["base=python:3.13\nRUN evil"], "not an image reference"),
        (["base="], "not an image reference"),
        (["image=REGISTRY/x"], "not an image reference"),
    ],
)
def test_settings_that_cannot_be(
    package: Package, footprint: Footprint, pairs: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        planned(package, footprint, *pairs)


def test_limits(package: Package, footprint: Footprint) -> None:
    with pytest.raises(InputError, match="less than the 90Mi"):
        planned(package, footprint, "memory=6Mi")
    guessed = replace(footprint, measured=False)
    assert planned(package, guessed, "memory=6Mi")
    with pytest.raises(LimitError, match="5 MiB of at least 6 MiB"):
        planned(package, guessed, "memory=5Mi")


def test_a_key_is_named_and_never_written(package: Package, footprint: Footprint) -> None:
    by_file = show.to_text(planned(package, footprint, "key-file=/etc/keys"))
    assert "source=/etc/keys,target=/run/secrets/api-key,readonly" in by_file
    assert "MODELPORT_ALLOW_ANONYMOUS" not in by_file
    by_variable = show.to_text(planned(package, footprint, "env-file=/etc/env"))
    assert "--env-file /etc/env" in by_variable
    assert "MODELPORT_ALLOW_ANONYMOUS" not in by_variable


# The real thing


@pytest.fixture
def name(bridged: Podman, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A service's name; its containers are removed afterwards."""
    monkeypatch.setenv("CONTAINERS_CONF", str(bridged.conf))
    name = f"t{os.getpid()}-{free_port()}"
    yield name
    for suffix in ("", "-candidate", "-previous"):
        bridged.call("rm", "--force", "--ignore", "--time", "1", f"{name}{suffix}")


def real(
    package: Package, footprint: Footprint, name: str, image: str, port: int, *pairs: str
) -> Plan:
    settings = [f"name={name}", "engine=podman", f"image={image}", f"port={port}"]
    settings += [f"network={NETWORK}", *pairs]
    return stage.plan(package, "docker", settings, footprint=footprint)


def verify(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
    assert not headers
    assert url != plan.endpoint  # not at the port that clients ask
    verify_endpoint(plan.service.package, url, plan.protocol, quiet)


def containers(podman: Podman, name: str) -> list[str]:
    listed = podman.call("ps", "--all", "--filter", f"name={name}", "--format", "{{.Names}}")
    return sorted(listed.stdout.split())


@pytest.mark.slow
def test_the_dockerfile_builds_an_image_that_serves(
    bridged: Podman, built: str, package: Package
) -> None:
    with bridged.run(built, env={"MODELPORT_ALLOW_ANONYMOUS": "1"}) as container:
        container.wait()
        assert container.ask("GET", "/v2/models")[1] == {"models": [package.manifest.name]}
        assert bridged.call("healthcheck", "run", container.name).returncode == 0
        whoami = bridged.call("exec", container.name, "id", "-u").stdout.strip()
        assert whoami == "65532"
        written = bridged.call("exec", container.name, "touch", "/models/x", check=False)
        assert "Read-only" in written.stderr
        assert bridged.call("exec", container.name, "python", "-m", "pip", check=False).returncode
        found = bridged.call(
            "exec", container.name, "find", "/opt/modelport", "/models", "!", "-type", "l",
            "(", "!", "-user", "0", "-o", "!", "-perm", "-a=r", "-o", "-perm", "/022", ")",
        )  # fmt: skip
        assert found.stdout == ""  # all can read it, none but root could change it
        assert container.stop(seconds=20) < 15
        assert container.exit_code() == 0
    health = bridged.call("image", "inspect", "--format", "{{.HealthCheck}}", built).stdout
    assert "/opt/modelport/bin/healthcheck" in health
    labels = json.loads(bridged.call("image", "inspect", built).stdout)[0]["Labels"]
    signature = json.loads(labels["io.modelport.signature"])
    assert signature == package.manifest.signature.to_json()
    assert labels["io.modelport.package.digest"] == package.digest


@pytest.mark.slow
def test_deploy_deploy_again_and_destroy(
    bridged: Podman, built: str, package: Package, footprint: Footprint, name: str
) -> None:
    plan = real(package, footprint, name, built, free_port())
    with pytest.raises(NotFoundError):
        stage.status(plan)
    told: list[str] = []
    assert stage.apply(plan, verify, told.append) == plan.endpoint
    assert "read the container's state" not in told
    first = stage.status(plan)
    assert first["status"] == "running"
    assert first["package"] == package.digest
    verify_endpoint(package, str(plan.endpoint), "v2", quiet)
    stage.apply(plan, verify, quiet)  # the same again: replaced, nothing is left over
    assert stage.status(plan)["started"] != first["started"]
    assert containers(bridged, name) == [name]
    stage.destroy(plan, quiet)
    assert containers(bridged, name) == []
    stage.destroy(plan, quiet)  # nothing there: nothing to do


@pytest.mark.slow
def test_a_version_with_other_answers_never_gets_the_port(
    bridged: Podman, built: str, package: Package, footprint: Footprint, name: str
) -> None:
    plan = real(package, footprint, name, built, free_port())
    stage.apply(plan, verify, quiet)
    before = stage.status(plan)

    def differs(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
        raise ParityError("the endpoint gives other answers")

    with pytest.raises(ParityError):
        stage.apply(plan, differs, quiet)
    assert stage.status(plan) | {"health": ""} == dict(before) | {"health": ""}
    assert containers(bridged, name) == [name]


@pytest.mark.slow
def test_the_old_version_comes_back_when_the_new_one_cannot_start(
    bridged: Podman, built: str, package: Package, footprint: Footprint, name: str
) -> None:
    port = free_port()
    stage.apply(real(package, footprint, name, built, port), verify, quiet)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        other = real(package, footprint, name, built, taken.getsockname()[1])
        with pytest.raises(PlatformError, match="address already in use"):
            stage.apply(other, verify, quiet)
    assert containers(bridged, name) == [name]
    old = real(package, footprint, name, built, port)
    connection = CommandApplier().connect(old.connection)
    last = next(call for call in old.calls if call.id == "run")
    connection.wait(last, last.parameters, {}, quiet)
    verify_endpoint(package, str(old.endpoint), "v2", quiet)


@pytest.mark.slow
def test_a_container_that_ends_is_quoted_and_removed(
    bridged: Podman, built: str, package: Package, footprint: Footprint, name: str, tmp_path: Path
) -> None:
    keys = tmp_path / "env"
    keys.write_text("MODELPORT_API_KEY=short\n")
    plan = real(package, footprint, name, built, free_port(), f"env-file={keys}")
    with pytest.raises(
        PlatformError, match=r"(?s)candidate ended with 2: .*at least 16 are needed"
    ):
        stage.apply(plan, verify, quiet)
    assert containers(bridged, name) == []


def test_a_container_of_somebody_else_is_left_alone(
    bridged: Podman, base_image: str, package: Package, footprint: Footprint, name: str
) -> None:
    plan = real(package, footprint, name, f"{base_image}@{DIGEST}", free_port())
    bridged.call("run", "--detach", "--name", name, base_image, "sleep", "100")
    connection = CommandApplier().connect(plan.connection)
    retire = next(call for call in plan.calls if call.id == "retire")
    run = next(call for call in plan.calls if call.id == "run")
    assert run.undo is not None
    for call in (retire, run.undo):
        with pytest.raises(PlatformError, match="was not made by modelport"):
            connection.call(call, call.parameters)
    state = bridged.call("inspect", "--format", "{{.State.Status}}", name).stdout
    assert state.strip() == "running"


def test_an_image_that_does_not_exist(
    bridged: Podman, package: Package, footprint: Footprint, name: str
) -> None:
    plan = real(package, footprint, name, f"127.0.0.1:1/none@{DIGEST}", free_port())
    with pytest.raises(PlatformError, match=r"podman pull: .*127\.0\.0\.1:1"):
        stage.apply(plan, verify, quiet)
    assert containers(bridged, name) == []


def test_an_image_from_a_registry_of_this_machine(
    bridged: Podman, package: Package, footprint: Footprint, name: str, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "tiny")
    with running_registry(tmp_path / "registry") as address:
        digest = push_layout(layout.finish(layout.image("x")), f"{address}/tiny:1", quiet)
        plan = real(package, footprint, name, f"{address}/tiny@{digest}", free_port())
        connection = CommandApplier().connect(plan.connection)
        pull = next(call for call in plan.calls if call.operation == "pull")
        try:
            connection.call(pull, pull.parameters)
            assert bridged.call("image", "exists", plan.image).returncode == 0
        finally:
            bridged.call("rmi", "--force", plan.image, check=False)


@pytest.mark.slow
def test_without_a_registry_the_image_is_loaded(
    bridged: Podman, base_layout: Path, package: Package, name: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One command from a package to a container: no registry, no Dockerfile."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MODELPORT_BASE", f"oci:{base_layout}")
    monkeypatch.setenv("MODELPORT_CACHE", str(CACHE))
    settings = [f"name={name}", "engine=podman", f"port={free_port()}", f"network={NETWORK}"]
    with locked("wheels"):
        made = api.deploy(str(package.path), "docker", settings)
    assert made.verified
    assert verify_endpoint(package, made.url, "v2", quiet).agrees
    assert containers(bridged, name) == [name]
    assert api.deployment_status(str(package.path), "docker", settings)["package"] == package.digest
    api.destroy(str(package.path), "docker", settings)
    assert containers(bridged, name) == []
    bridged.call("rmi", "--force", f"{package.manifest.name}:{made.plan.service.tag}", check=False)


def test_an_engine_that_is_not_there_or_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError, match="docker is not installed"):
        CommandApplier().connect({"engine": "docker"})
    with pytest.raises(InputError, match="not an engine"):
        CommandApplier().connect({"engine": "sh"})
    engine = tmp_path / "docker"
    engine.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2; exit 1\n")
    engine.chmod(0o755)
    with pytest.raises(ModelportError, match="docker version: Cannot connect to the Docker daemon"):
        CommandApplier().connect({"engine": "docker"})
    engine.write_text("#!/bin/sh\nexec /bin/sleep 20\n")
    monkeypatch.setattr("modelport.deploy.appliers.command.CommandConnection.run.__kwdefaults__",
                        {"seconds": 0.1})  # fmt: skip
    with pytest.raises(PlatformError, match="gave no answer in 0 s"):
        CommandApplier().connect({"engine": "docker"})
