"""The image of the digits package, run by real engines as every platform runs it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.api.image import build_image
from modelport.core.options import ImageOptions
from modelport.core.package import Package
from modelport.deploy.images.layout import TAG, read_document
from tests.deploy.containers import (
    CACHE,
    Podman,
    base_layout,
    digits_image,
    digits_layout,
    digits_package,
    locked,
    needs,
    podman,
)
from tests.deploy.registries import running_registry

__all__ = ["base_layout", "digits_image", "digits_layout", "digits_package", "podman"]

pytestmark = pytest.mark.slow

OPEN = {"MODELPORT_ALLOW_ANONYMOUS": "1"}
MIB = 1 << 20


@pytest.fixture(scope="session")
def golden(digits_package: Package) -> tuple[list[list[float]], list[int]]:
    """Two rows, and the labels that the source model gave them."""
    records = digits_package.golden()
    assert records is not None
    rows = records.inputs["input"][:2]
    return rows.tolist(), np.asarray(records.outputs["label"][:2]).tolist()


def labels_of(answer: Any) -> list[int]:
    """The labels of a TF Serving answer."""
    return [prediction["label"] for prediction in answer["predictions"]]


def image_of(layout: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The descriptor, manifest and config of a layout's image."""
    blobs = layout / "blobs" / "sha256"
    descriptor = json.loads((layout / "index.json").read_bytes())["manifests"][0]
    manifest = read_document(blobs, descriptor)
    return descriptor, manifest, read_document(blobs, manifest["config"])


def run(*command: str, **options: Any) -> str:
    """Run a tool that must succeed; what it printed."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_same_digest_from_other_folders_and_times(
    digits_package: Package, digits_layout: Path, base_layout: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(digits_package.path, copy, copy_function=shutil.copyfile)  # new times
    cache = tmp_path / "cache"
    cache.mkdir()
    with locked("wheels"):
        shutil.copytree(CACHE / "images" / "wheels", cache / "images" / "wheels")
    options = ImageOptions(
        base=f"oci:{base_layout}", out=str(tmp_path / "again.tar"), cache=str(cache)
    )
    again = build_image(copy, options=options)
    descriptor, manifest, _ = image_of(digits_layout)
    assert again.digest == descriptor["digest"]
    (built,) = again.platforms
    assert built.ours == sum(layer["size"] for layer in manifest["layers"][-4:])


def test_ours_is_small(digits_layout: Path, base_layout: Path) -> None:
    _, manifest, _ = image_of(digits_layout)
    _, below, _ = image_of(base_layout)
    assert manifest["layers"][: len(below["layers"])] == below["layers"]
    ours = manifest["layers"][len(below["layers"]) :]
    assert sum(layer["size"] for layer in ours) <= 75e6


def test_hardened_answers_within_two_seconds(
    podman: Podman, digits_image: str, golden: tuple[list[Any], list[int]]
) -> None:
    rows, labels = golden
    inputs = [{"name": "input", "datatype": "FP32", "shape": [2, 64], "data": rows}]
    seconds = []
    for _ in range(3):
        with podman.run(digits_image, env=OPEN) as container:
            container.wait()
            status, answer = container.ask("POST", "/v1/models/digits:predict", {"instances": rows})
            assert (status, labels_of(answer)) == (200, labels)
            status, answer = container.ask("POST", "/v2/models/digits/infer", {"inputs": inputs})
            seconds.append(time.monotonic() - container.started)
            assert status == 200
            outputs = {output["name"]: output["data"] for output in answer["outputs"]}
            assert outputs["label"] == labels
            inspected = json.loads(podman.call("inspect", container.name).stdout)[0]
            assert inspected["Config"]["User"] == "65532:65532"
            assert inspected["HostConfig"]["ReadonlyRootfs"]
            assert inspected["HostConfig"]["Memory"] == 256 * MIB
            assert not inspected["EffectiveCaps"]
    print(f"podman run to both answers: {statistics.median(seconds):.2f} s, median of 3")
    assert statistics.median(seconds) < 2


def test_nobody_answers_without_a_key(podman: Podman, digits_image: str) -> None:
    with podman.run(digits_image) as container:
        podman.call("wait", container.name)
        assert container.exit_code() == 2
        assert "MODELPORT_API_KEY" in container.logs()
    with podman.run(digits_image, env={"MODELPORT_API_KEY": "k" * 32}) as container:
        container.wait()
        path, body = "/v1/models/digits:predict", {"instances": [[0.0] * 64]}
        assert container.ask("POST", path, body)[0] == 401
        assert container.ask("POST", path, body, {"X-API-Key": "k" * 32})[0] == 200


def test_health_check(podman: Podman, digits_image: str) -> None:
    check = ["exec", "--", "", "/opt/modelport/bin/healthcheck"]
    with podman.run(digits_image, env={**OPEN, "PORT": "9001"}) as container:
        container.wait(port=9001)
        check[2] = container.name
        assert podman.call(*check, check=False).returncode == 0
    with podman.run(digits_image, flags=["--entrypoint", '["sleep", "60"]']) as container:
        check[2] = container.name
        assert podman.call(*check, check=False).returncode == 1


def test_engines_run_the_health_check_by_themselves(
    podman: Podman, digits_layout: Path, tmp_path: Path
) -> None:
    """Docker reads it of the image as it is; Podman once it has Docker's format."""
    needs("skopeo")
    descriptor, _, _ = image_of(digits_layout)
    name = f"localhost/modelport-tests/health:{os.getpid()}"
    with locked("podman"):
        run("skopeo", "copy", "--quiet", "--format", "v2s2",
            f"oci:{digits_layout}:{descriptor['annotations'][TAG]}", f"containers-storage:{name}",
            env=podman.environment)  # fmt: skip
    try:
        with podman.run(name, env=OPEN) as container:
            container.wait()
            assert podman.call("healthcheck", "run", container.name).returncode == 0
    finally:
        podman.call("rmi", "--force", name, check=False)


def test_sagemaker(podman: Podman, digits_image: str, golden: tuple[list[Any], list[int]]) -> None:
    rows, labels = golden
    env = {"SAGEMAKER_BIND_TO_PORT": "8081", "SAGEMAKER_REGION": "eu-west-1"}
    with podman.run(digits_image, "serve", env=env) as container:
        container.wait("/ping", port=8081)
        status, answer = container.ask("POST", "/invocations", {"instances": rows}, port=8081)
        assert (status, labels_of(answer)) == (200, labels)
        container.stop()
        assert container.exit_code() == 0


def test_sagemaker_multi_model(
    podman: Podman,
    digits_image: str,
    digits_package: Package,
    golden: tuple[list[Any], list[int]],
) -> None:
    rows, labels = golden
    config = json.loads(podman.call("image", "inspect", digits_image).stdout)[0]
    for capability in ("multi-models", "accept-bind-to-port"):
        assert config["Labels"][f"com.amazonaws.sagemaker.capabilities.{capability}"] == "true"
    folder = "/opt/ml/models/abc/model"
    flags = ["--volume", f"{digits_package.path}:{folder}:ro"]
    env = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_BIND_TO_PORT": "8080"}
    with podman.run(digits_image, "serve", flags=flags, env=env) as container:
        container.wait("/ping")
        assert container.ask("GET", "/models")[1] == {"models": []}
        status, answer = container.ask("POST", "/models", {"model_name": "abc", "url": folder})
        assert status == 200, answer
        status, answer = container.ask("POST", "/models/abc/invoke", {"instances": rows})
        assert (status, labels_of(answer)) == (200, labels)
        assert container.ask("DELETE", "/models/abc")[0] == 200
        assert container.ask("POST", "/models/abc/invoke", {"instances": rows})[0] == 404


def test_vertex(podman: Podman, digits_image: str, golden: tuple[list[Any], list[int]]) -> None:
    rows, labels = golden
    env = {
        "AIP_MODE": "PREDICTION",
        "AIP_HTTP_PORT": "8088",
        "AIP_HEALTH_ROUTE": "/alive",
        "AIP_PREDICT_ROUTE": "/ask",
        "AIP_STORAGE_URI": "",
        "AIP_ENDPOINT_ID": "1",
    }
    with podman.run(digits_image, env=env) as container:
        container.wait("/alive", port=8088)
        status, answer = container.ask("POST", "/ask", {"instances": rows}, port=8088)
        assert (status, labels_of(answer)) == (200, labels)


def test_azure_ml(
    podman: Podman, digits_image: str, digits_package: Package, golden: tuple[list[Any], list[int]]
) -> None:
    rows, labels = golden
    folder = "/var/azureml-app/azureml-models/digits/1"
    flags = ["--volume", f"{digits_package.path}:{folder}/digits:ro"]
    with podman.run(digits_image, flags=flags, env={"AZUREML_MODEL_DIR": folder}) as container:
        container.wait("/v2/health/live")
        container.wait("/v2/health/ready")
        status, answer = container.ask("POST", "/score", {"data": rows})
        assert status == 200, answer
        status, answer = container.ask("POST", "/v1/models/digits:predict", {"instances": rows})
        assert (status, labels_of(answer)) == (200, labels)


def test_cloud_run_and_its_end(podman: Podman, digits_image: str) -> None:
    env = {"K_SERVICE": "digits", "K_REVISION": "digits-1", "PORT": "8123", **OPEN}
    with podman.run(digits_image, env=env) as container:
        container.wait(port=8123)
        assert container.stop(seconds=10) < 10
        assert container.exit_code() == 0


def test_kserve(
    podman: Podman, digits_image: str, digits_package: Package, golden: tuple[list[Any], list[int]]
) -> None:
    rows, labels = golden
    flags = ["--volume", f"{digits_package.path}:/mnt/models:ro"]
    arguments = ["--model_name=iris", "--model_dir=/mnt/models", "--http_port=8085"]
    with podman.run(digits_image, *arguments, flags=flags, env=OPEN) as container:
        container.wait(port=8085)
        status, answer = container.ask(
            "POST", "/v1/models/iris:predict", {"instances": rows}, port=8085
        )
        assert (status, labels_of(answer)) == (200, labels)


def test_lambda_runtime_finds_the_handler(podman: Podman, digits_image: str) -> None:
    code = (
        "import awslambdaric, json, sys; from modelport.serve.awslambda import handler; "
        "print(json.dumps(handler({'instances': [[0.0] * 64]}, None)))"
    )
    done = podman.call(
        "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--network", "none", "--user", "993:990",
        "--cap-drop=ALL", "--entrypoint", '["python", "-c"]', digits_image, code,
    )  # fmt: skip
    assert "predictions" in json.loads(done.stdout)


def test_every_user_reads_every_file(podman: Podman, digits_image: str) -> None:
    script = (
        "find /opt/modelport /models /usr/share/modelport ! -type l ! -readable -print; "
        "find /opt/modelport /models ! -type l -perm /022 -print; test -w /models && echo writable"
    )
    done = podman.call(
        "run", "--rm", "--read-only", "--network", "none", "--user", "12345", "--entrypoint",
        '["sh", "-c"]', digits_image, script, check=False,
    )  # fmt: skip
    assert done.stdout == ""


def test_archive_is_loaded_by_podman_and_skopeo(
    podman: Podman, digits_package: Package, base_layout: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "digits.tar"
    options = ImageOptions(base=f"oci:{base_layout}", out=str(archive), cache=str(CACHE))
    with locked("wheels"):
        image = build_image(digits_package.path, options=options)
    told = json.loads(run("skopeo", "inspect", f"oci-archive:{archive}"))
    assert told["Digest"] == image.digest
    assert told["Labels"]["io.modelport.package.digest"] == digits_package.digest
    told = json.loads(run("skopeo", "inspect", f"docker-archive:{archive}"))
    assert told["Architecture"] == "amd64"
    with locked("podman"):
        loaded = podman.call("load", "--quiet", "--input", str(archive)).stdout
    name = loaded.strip().rpartition(" ")[2]
    with podman.run(name, env=OPEN) as container:
        container.wait()
    podman.call("rmi", "--force", name, check=False)


def test_umoci_unpacks_what_was_packed(
    digits_layout: Path, digits_package: Package, tmp_path: Path
) -> None:
    needs("umoci")
    descriptor, _, _ = image_of(digits_layout)
    name = f"{digits_layout}:{descriptor['annotations'][TAG]}"
    run("umoci", "unpack", "--image", name, str(tmp_path / "bundle"))
    root = tmp_path / "bundle" / "rootfs"
    for path in digits_package.path.rglob("*"):
        if path.is_file():
            copy = root / "models" / "digits" / path.relative_to(digits_package.path)
            assert copy.read_bytes() == path.read_bytes()
    bill = json.loads((root / "usr/share/modelport/sbom.json").read_bytes())
    names = {component["name"] for component in bill["components"]}
    assert {"digits", "modelport", "numpy", "onnxruntime", "libc6"} <= names
    run("umoci", "stat", "--image", name)


def test_pushed_pulled_and_built_upon(
    podman: Podman, digits_layout: Path, digits_package: Package, base_layout: Path, tmp_path: Path
) -> None:
    needs("docker-registry", "skopeo")
    with running_registry(tmp_path / "registry") as address:
        base = f"{address}/python:3.11-slim"
        run("skopeo", "copy", "--quiet", "--dest-tls-verify=false",
            f"oci:{base_layout}:3.11-slim", f"docker://{base}")  # fmt: skip
        cache = tmp_path / "cache"
        with locked("wheels"):
            shutil.copytree(CACHE / "images" / "wheels", cache / "images" / "wheels")
        lines: list[str] = []
        options = ImageOptions(base=base, push=f"{address}/team/digits", cache=str(cache))
        image = build_image(digits_package.path, options=options, report=lines.append)
        assert image.out is None
        assert image.reference == f"{address}/team/digits@{image.digest}"
        _, manifest, _ = image_of(digits_layout)
        raw = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{image.reference}")
        assert f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}" == image.digest
        pushed = json.loads(raw)
        assert pushed["layers"][:-2] == manifest["layers"][:-2]
        assert pushed["annotations"]["org.opencontainers.image.base.name"] == base
        lines.clear()
        again = replace(options, push=f"{address}/team/other")
        assert build_image(digits_package.path, options=again, report=lines.append).digest
        told = [line for line in lines if "pushing team/other: layer" in line]
        assert told
        assert not [line for line in told if "already" not in line]  # mounted, none is sent
        tagged = f"{address}/team/digits:{image.digest.replace(':', '-')}"
        referrers = json.loads(
            run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{tagged}")
        )
        (sbom,) = referrers["manifests"]
        assert sbom["artifactType"] == "application/vnd.cyclonedx+json"
        with locked("podman"):
            podman.call("pull", "--quiet", "--tls-verify=false", image.reference)
        with podman.run(image.reference, env=OPEN) as container:
            container.wait()
        podman.call("rmi", "--force", image.reference, check=False)
