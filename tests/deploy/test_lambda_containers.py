"""Our image as Lambda runs it: under AWS's emulator, and through ``sam local invoke``."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from modelport.core.package import Package
from modelport.deploy.service import Footprint

from .aws_plans import IMAGE, aws_plan, http_event
from .containers import (  # noqa: F401 - fixtures
    Podman,
    base_layout,
    digits_image,
    digits_layout,
    digits_package,
    podman,
)
from .test_lambda import emulator, tool  # noqa: F401 - a fixture

INVOKE: Final = "/2015-03-31/functions/function/invocations"


@pytest.fixture
def function(digits_package: Package, footprint: Footprint) -> dict[str, Any]:  # noqa: F811
    plan = aws_plan(digits_package, footprint, "lambda", IMAGE)
    return dict(next(c for c in plan.calls if c.id == "create-function").parameters)


@pytest.fixture
def event(digits_package: Package) -> dict[str, Any]:  # noqa: F811
    (spec,) = digits_package.manifest.signature.inputs
    rows = {"name": spec.name, "shape": [1, 64], "datatype": "FP32", "data": [1.0] * 64}
    body = json.dumps({"inputs": [rows]}).encode()
    return http_event("/v2/models/digits/infer", body)


def outputs_of(answer: dict[str, Any]) -> list[Any]:
    assert answer["statusCode"] == 200, answer
    found: list[Any] = json.loads(answer["body"])["outputs"]
    assert all(np.isfinite(o["data"]).all() for o in found if o["datatype"].startswith("FP"))
    return found


def test_the_image_answers_under_the_emulator(
    podman: Podman,  # noqa: F811
    digits_image: str,  # noqa: F811
    emulator: str,  # noqa: F811
    function: dict[str, Any],
    event: dict[str, Any],
) -> None:
    config = function["ImageConfig"]
    flags = ["--volume", f"{emulator}:/aws-lambda-rie:ro", "--entrypoint", "/aws-lambda-rie"]
    variables = {**function["Environment"]["Variables"], "AWS_LAMBDA_FUNCTION_NAME": "digits"}
    command = [*config["EntryPoint"], *config["Command"]]
    with podman.run(digits_image, *command, flags=flags, env=variables) as container:
        deadline = time.monotonic() + 60
        while True:
            try:
                status, answer = container.ask("POST", INVOKE, event)
                break
            except OSError:
                assert time.monotonic() < deadline, container.logs()
                time.sleep(0.1)
        assert status == 200, container.logs()
        assert outputs_of(answer)


@pytest.fixture
def docker_host(podman: Podman, tmp_path: Path) -> Iterator[str]:  # noqa: F811
    """podman's own service, which speaks Docker's protocol."""
    address = f"unix://{tmp_path}/podman.sock"
    with subprocess.Popen(
        ["podman", "system", "service", "--time=0", address],
        env=podman.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 30
        while not (tmp_path / "podman.sock").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield address
        process.terminate()
        process.wait(20)


def test_the_template_runs_in_sam_local(
    podman: Podman,  # noqa: F811
    digits_image: str,  # noqa: F811
    digits_package: Package,  # noqa: F811
    footprint: Footprint,
    docker_host: str,
    event: dict[str, Any],
    tmp_path: Path,
) -> None:
    local = f"docker.io/library/modelport-sam-{os.getpid()}:latest"
    # SAM adds its emulator by a RUN, which an image of an unprivileged user does not allow; only
    # the user is another one.
    (tmp_path / "Containerfile").write_text(f"FROM {digits_image}\nUSER 0\n")
    podman.call("build", "--quiet", "--format", "docker", "--tag", local, str(tmp_path))
    (file,) = aws_plan(digits_package, footprint, "lambda", IMAGE).files
    template = tmp_path / "template.yaml"
    template.write_text(file.content.replace(IMAGE.partition("=")[2], local), encoding="utf-8")
    (tmp_path / "event.json").write_text(json.dumps(event))
    environment = {
        **podman.environment, "DOCKER_HOST": docker_host, "SAM_CLI_TELEMETRY": "0",
        "HOME": str(tmp_path), "AWS_DEFAULT_REGION": "eu-west-1",
    }  # fmt: skip
    try:
        done = subprocess.run(
            [tool("sam", "sam"), "local", "invoke", "Function", "--template", str(template),
             "--event", str(tmp_path / "event.json"), "--skip-pull-image"],
            capture_output=True, text=True, timeout=240, check=False, env=environment,
            cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        begin = done.stdout.find('{"statusCode"')
        assert begin >= 0, done.stdout + done.stderr
        answer, _ = json.JSONDecoder().raw_decode(done.stdout[begin:])
        assert outputs_of(answer)
    finally:
        repository = local.partition(":")[0]
        for name in (local, f"{repository}:rapid-x86_64", f"{repository}:rapid-arm64"):
            podman.call("rmi", "--force", name, check=False)
