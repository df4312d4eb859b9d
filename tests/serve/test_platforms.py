"""One image finds out where it runs from what each platform sets, and flags override it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.core.errors import InputError, UnsupportedError
from modelport.core.options import ServeOptions
from modelport.core.settings import resolve
from modelport.serve.discover import models_here
from modelport.serve.platforms import detect, wait_for_models

from .onnx_models import dense
from .packages import build_package
from .running import LIMIT, RunningServer, environment, free_port

ROWS = np.ones((3, 8), np.float32)

#: What a platform sets → the options that must follow.
SETTINGS: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("nothing", {}, {}),
    (
        "Vertex AI",
        {
            "AIP_MODE": "PREDICTION",
            "AIP_HTTP_PORT": "8123",
            "AIP_ENDPOINT_ID": "7",
            "AIP_DEPLOYED_MODEL_ID": "9",
        },
        {
            "port": 8123,
            "host": "0.0.0.0",
            "allow_anonymous": True,
            "predict_route": "/v1/endpoints/7/deployedModels/9:predict",
            "health_route": "/v1/endpoints/7/deployedModels/9",
        },
    ),
    (
        "Vertex AI",
        {"AIP_HTTP_PORT": "8080", "AIP_PREDICT_ROUTE": "/p", "AIP_HEALTH_ROUTE": "/h"},
        {"predict_route": "/p", "health_route": "/h", "port": 8080},
    ),
    (
        "SageMaker",
        {"SAGEMAKER_BIND_TO_PORT": "8085", "SAGEMAKER_MODEL_SERVER_WORKERS": "3"},
        {"port": 8085, "workers": 3, "allow_anonymous": True},
    ),
    (
        "SageMaker",
        {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_MODEL_SERVER_WORKERS": "3"},
        {"multi_model": True, "model_control": True, "workers": 1},
    ),
    ("Azure Functions", {"FUNCTIONS_CUSTOMHANDLER_PORT": "4444"}, {"port": 4444}),
    ("Lambda Web Adapter", {"AWS_LWA_PORT": "8088", "PORT": "9"}, {"port": 8088}),
    ("Cloud Run or Knative", {"K_SERVICE": "s", "PORT": "8090"}, {"port": 8090, "host": "0.0.0.0"}),
    ("KServe", {"INFERENCE_SERVICE_NAME": "churn"}, {"name": "churn"}),
    (
        "TensorFlow Serving's image",
        {"MODEL_BASE_PATH": "/models", "MODEL_NAME": "half"},
        {"port": 8501, "grpc_port": 8500, "name": "half"},
    ),
    ("PORT", {"PORT": "8099"}, {"port": 8099, "host": "0.0.0.0"}),
]


@pytest.mark.parametrize(("name", "variables", "expected"), SETTINGS)
def test_what_a_platform_sets(
    name: str, variables: dict[str, str], expected: dict[str, Any], tmp_path: Path
) -> None:
    detected = detect(variables, tmp_path)
    assert (detected.platforms[0] if detected.platforms else "nothing") == name
    assert {key: detected.options[key] for key in expected} == expected
    options = resolve(ServeOptions, environment={}, platform=detected.options)
    assert {key: getattr(options, key) for key in expected} == expected


def test_the_order_of_ports(tmp_path: Path) -> None:
    """Flag, then MODELPORT_PORT, then the platforms in the order of their contracts."""
    variables = {
        "AIP_HTTP_PORT": "1001",
        "SAGEMAKER_BIND_TO_PORT": "1002",
        "FUNCTIONS_CUSTOMHANDLER_PORT": "1003",
        "AWS_LWA_PORT": "1004",
        "PORT": "1005",
    }
    platform = detect({**variables, "AIP_MODE": "PREDICTION"}, tmp_path).options
    own = {"MODELPORT_PORT": "1000"}
    assert resolve(ServeOptions, {"port": 7}, environment=own, platform=platform).port == 7
    assert resolve(ServeOptions, environment=own, platform=platform).port == 1000
    for variable, port in list(variables.items()):
        options = detect(variables, tmp_path).options
        assert resolve(ServeOptions, environment={}, platform=options).port == int(port)
        del variables[variable]
    assert resolve(ServeOptions, environment={}, platform={}).port == 8080


@pytest.mark.parametrize(
    "variables",
    [
        {"PORT": "http"},
        {"PORT": "0"},
        {"AIP_HTTP_PORT": "70000"},
        {"K_SERVICE": "x", "PORT": "-1"},
        {"SAGEMAKER_BIND_TO_PORT": "8080", "SAGEMAKER_MODEL_SERVER_TIMEOUT": "soon"},
    ],
)
def test_variables_that_make_no_sense(variables: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        detect(variables, tmp_path)
    assert error.value.where in variables
    assert variables[error.value.where] in error.value.message


def test_models_in_a_bucket_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="gs://bucket/m"):
        detect({"AIP_MODE": "PREDICTION", "AIP_STORAGE_URI": "gs://bucket/m"}, tmp_path)


def package_at(folder: Path, name: str = "m") -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    build_package(folder, name, dense(), {"x": ROWS})
    return folder


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, "opt/ml/model"),
        ({}, "mnt/models"),
        ({}, "models/anything"),
        ({}, "opt/ml/model/nested/once"),
        ({"AZUREML_MODEL_DIR": "/var/azureml/churn/3"}, "var/azureml/churn/3/folder"),
        ({"AIP_MODE": "PREDICTION", "AIP_STORAGE_URI": "file:///data/m"}, "data/m"),
        ({"MODEL_BASE_PATH": "/tfs", "MODEL_NAME": "half"}, "tfs/half/5"),
    ],
)
def test_where_models_are(variables: dict[str, str], folder: str, tmp_path: Path) -> None:
    package = package_at(tmp_path / folder)
    (tmp_path / "opt/ml/model").mkdir(parents=True, exist_ok=True)  # mounted, and perhaps empty
    specs = models_here(variables, detect(variables, tmp_path))
    assert [Path(spec.path) for spec in specs] == [package]
    assert specs[0].version == (5 if folder.endswith("/5") else 1)


def test_no_model_anywhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model is named"):
        models_here({}, detect({}, tmp_path))
    (tmp_path / "mnt/models").mkdir(parents=True)
    with pytest.raises(InputError, match="mnt/models"):
        models_here({}, detect({}, tmp_path))


def test_a_multi_model_endpoint_starts_with_none(tmp_path: Path) -> None:
    package_at(tmp_path / "opt/ml/model")
    variables = {"SAGEMAKER_MULTI_MODEL": "true"}
    assert models_here(variables, detect(variables, tmp_path), none_needed=True) == []


def test_own_variable_before_the_platform(tmp_path: Path) -> None:
    package_at(tmp_path / "opt/ml/model")
    first, second = package_at(tmp_path / "a", "a"), package_at(tmp_path / "b", "b")
    variables = {"MODELPORT_MODELS": f"{first}{os.pathsep}{second}"}
    specs = models_here(variables, detect(variables, tmp_path))
    assert [spec.name for spec in specs] == ["a", "b"]


def test_a_volume_that_is_still_being_filled(tmp_path: Path) -> None:
    """KServe's modelcar makes the link when its own container runs."""
    real = package_at(tmp_path / "elsewhere" / "m")
    link = tmp_path / "models"
    child = subprocess.Popen(["/bin/sh", "-c", f"sleep 0.5; ln -s {real} {link}"])
    wait_for_models(link, {"MODEL_INIT_MODE": "async"})
    assert link.is_dir()
    assert child.wait(LIMIT) == 0
    wait_for_models(tmp_path / "nowhere", {})  # nobody announced anything: no waiting


class PlatformServer(RunningServer):
    """A server that is told everything by variables and start arguments."""

    def __init__(self, home: Path, variables: Mapping[str, str], arguments: list[str]) -> None:
        super().__init__(home, [])
        self._variables = variables
        self._arguments = arguments

    def start(self) -> PlatformServer:
        self.home.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        told = {key: value.format(port=self.port) for key, value in self._variables.items()}
        arguments = [text.format(port=self.port) for text in self._arguments]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "modelport", "serve", *arguments],
                stdout=log,
                stderr=log,
                env={**environment(self.home), **told},
                cwd=self.home,
                start_new_session=True,
            )
        return self


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., PlatformServer]]:
    running: list[PlatformServer] = []

    def start(variables: Mapping[str, str], *arguments: str) -> PlatformServer:
        server = PlatformServer(tmp_path / "server", variables, list(arguments))
        running.append(server)
        server.__enter__()
        return server

    yield start
    for server in running:
        server.close()


@pytest.mark.parametrize(
    ("variables", "arguments", "name"),
    [
        # SageMaker and MLflow start the image with the one argument 'serve'.
        ({"SAGEMAKER_BIND_TO_PORT": "{port}", "MODELPORT_MODELS": "{package}"}, ["serve"], "m"),
        ({"AIP_HTTP_PORT": "{port}", "AIP_MODE": "PREDICTION"}, ["{package}"], "m"),
        ({"AZUREML_MODEL_DIR": "{package}", "MODELPORT_PORT": "{port}"}, [], "m"),
        (
            {"K_SERVICE": "s", "PORT": "{port}", "MODELPORT_ALLOW_ANONYMOUS": "1"},
            ["{package}"],
            "m",
        ),
        # KServe appends arguments: its own servers', TensorFlow Serving's, Triton's.
        ({}, ["--model_name=churn", "--model_dir={package}", "--http_port={port}"], "churn"),
        (
            {},
            ["--model_name=churn", "--rest_api_port={port}", "--model_base_path={package}"],
            "churn",
        ),
        ({}, ["--model-repository={package}", "--http-port={port}", "--allow-http=true"], "m"),
        ({"MODELPORT_MODELS": "{package}", "PORT": "1"}, ["--port={port}", "--host=::1"], "m"),
    ],
)
def test_servers_started_as_platforms_do(
    started: Callable[..., PlatformServer],
    tmp_path: Path,
    variables: dict[str, str],
    arguments: list[str],
    name: str,
) -> None:
    package = str(package_at(tmp_path / "package"))

    def fill(text: str) -> str:
        return text.replace("{package}", package)

    if "--host=::1" in arguments:
        arguments[-1] = "--host=127.0.0.1"
    server = started({k: fill(v) for k, v in variables.items()}, *map(fill, arguments))
    answer = server.post(f"/v1/models/{name}:predict", {"instances": ROWS.tolist()})
    assert answer.status == 200
    assert len(answer.json()["predictions"]) == 3
