"""Which platform runs this process, from its own environment variables and folders.

One image serves everywhere because it looks where it is: each record below says what a platform
sets, and what that means. Nothing is probed over the network, and every flag or ``MODELPORT_…``
variable overrides what is found here.

Sources: the platforms' container contracts (SageMaker "Use your own inference code", Vertex AI
"Custom container requirements", Azure ML "Deploy a custom container", Cloud Run and Knative
"Container runtime contract", Azure Functions "Custom handlers", AWS Lambda Web Adapter).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from modelport.core.errors import InputError, UnsupportedError

Environment = Mapping[str, str]

EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - containers are reached from outside
_HERE: Final = "127.0.0.1"

#: Seconds that `wait_for_models` waits for a volume that is still being filled.
_PATIENCE: Final = 600.0


@dataclass(frozen=True)
class Detected:
    """What the platform asks for.

    Parameters
    ----------
    platforms : tuple of str
        Their names; empty on a machine of one's own.
    options : dict
        Fields of `modelport.core.options.ServeOptions`.
    models : tuple of Path
        Where models may be: the place that the platform names, or else the usual folders that
        exist, in order.
    """

    platforms: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    models: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Platform:
    name: str
    #: One of these variables says that it is this platform.
    variables: tuple[str, ...]
    options: Callable[[Environment], dict[str, Any]]
    #: The folder or address where it puts models, from its variables.
    models: Callable[[Environment], str] = lambda environment: ""


def detect(environment: Environment, root: Path = Path("/")) -> Detected:
    """Find out what the platform asks for.

    Parameters
    ----------
    environment : mapping
    root : Path
        Where the file system begins; for tests.

    Raises
    ------
    InputError
        When a variable is no port, or names models that cannot be had.
    """
    found = [p for p in _PLATFORMS if any(environment.get(name) for name in p.variables)]
    options: dict[str, Any] = {}
    for platform in reversed(found):  # the first has the last word
        options |= platform.options(environment)
    named = [text for platform in found if (text := platform.models(environment))]
    if named:
        models = [_local(named[0], root)]
    else:
        usual = [root / folder for folder in _FOLDERS]
        models = [] if options.get("multi_model") else [path for path in usual if path.is_dir()]
    return Detected(tuple(p.name for p in found), options, tuple(models))


def wait_for_models(path: Path, environment: Environment) -> None:
    """Wait until a folder is there that another container fills, at most ten minutes.

    KServe's modelcars announce it by ``MODEL_INIT_MODE=async``.
    """
    if environment.get("MODEL_INIT_MODE") != "async":
        return
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and not (path.is_dir() and any(path.iterdir())):
        time.sleep(0.2)


def _local(text: str, root: Path) -> Path:
    scheme, separator, rest = text.partition("://")
    if not separator:
        return root / text.removeprefix("/")
    if scheme == "file":
        return root / rest.removeprefix("/")
    raise UnsupportedError(
        f"the platform keeps the model at {text}; nothing here reads {scheme}:// yet",
        hint="put the package into the image, at /models, and leave the address empty",
    )


def _port(environment: Environment, *variables: str) -> dict[str, int]:
    for variable in variables:
        text = environment.get(variable, "")
        if text:
            if not (text.isdecimal() and 0 < int(text) < 65536):
                raise InputError(f"not a port: {text!r}", where=variable)
            return {"port": int(text)}
    return {}


def _number(environment: Environment, variable: str, name: str) -> dict[str, Any]:
    text = environment.get(variable, "")
    if not text:
        return {}
    if not text.isdecimal():
        raise InputError(f"not a number: {text!r}", where=variable)
    return {name: int(text)}


def _vertex(environment: Environment) -> dict[str, Any]:
    deployed = (
        f"/v1/endpoints/{environment.get('AIP_ENDPOINT_ID', '')}"
        f"/deployedModels/{environment.get('AIP_DEPLOYED_MODEL_ID', '')}"
    )
    return {
        "host": EVERYWHERE,
        "allow_anonymous": True,  # its front end authenticates
        "predict_route": environment.get("AIP_PREDICT_ROUTE") or f"{deployed}:predict",
        "health_route": environment.get("AIP_HEALTH_ROUTE") or deployed,
        **_port(environment, "AIP_HTTP_PORT"),
    }


def _sagemaker(environment: Environment) -> dict[str, Any]:
    options: dict[str, Any] = {
        "host": EVERYWHERE,
        "allow_anonymous": True,  # its front end authenticates
        **_port(environment, "SAGEMAKER_BIND_TO_PORT"),
        **_number(environment, "SAGEMAKER_MODEL_SERVER_WORKERS", "workers"),
        **_number(environment, "SAGEMAKER_MODEL_SERVER_TIMEOUT", "timeout"),
    }
    if environment.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true":
        store = {"multi_model": True, "model_control": True, "model_store": "/opt/ml/models"}
        return options | store | {"workers": 1}
    return options


def _tf_serving(environment: Environment) -> dict[str, Any]:
    return {
        "host": EVERYWHERE,
        "port": 8501,
        "grpc_port": 8500,
        "name": environment.get("MODEL_NAME", "model"),
    }


_PLATFORMS: Final = (
    _Platform(
        "Vertex AI",
        ("AIP_MODE", "AIP_PREDICT_ROUTE", "AIP_HTTP_PORT"),
        _vertex,
        lambda environment: environment.get("AIP_STORAGE_URI", ""),
    ),
    _Platform(
        "SageMaker",
        ("SAGEMAKER_BIND_TO_PORT", "SAGEMAKER_MULTI_MODEL", "SAGEMAKER_BATCH", "SAGEMAKER_REGION"),
        _sagemaker,
    ),
    _Platform(
        "Azure Functions",
        ("FUNCTIONS_CUSTOMHANDLER_PORT",),
        lambda environment: {
            "host": _HERE,
            "custom_handler": True,
            **_port(environment, "FUNCTIONS_CUSTOMHANDLER_PORT"),
        },
    ),
    _Platform(
        "Azure ML",
        ("AZUREML_MODEL_DIR",),
        lambda environment: {"host": EVERYWHERE, "allow_anonymous": True},  # its front end asks
        lambda environment: environment["AZUREML_MODEL_DIR"],
    ),
    _Platform(
        "Lambda Web Adapter",
        ("AWS_LWA_PORT",),
        lambda environment: {"host": _HERE, **_port(environment, "AWS_LWA_PORT")},
    ),
    _Platform(
        "Cloud Run or Knative",
        ("K_SERVICE",),
        # Whether somebody authenticates in front of it, only who deploys it knows.
        lambda environment: {"host": EVERYWHERE, **_port(environment, "PORT")},
    ),
    _Platform(
        "KServe",
        ("INFERENCE_SERVICE_NAME", "STORAGE_URI"),
        lambda environment: {
            "host": EVERYWHERE,
            "name": environment.get("INFERENCE_SERVICE_NAME", ""),
        },
    ),
    _Platform(
        "TensorFlow Serving's image",
        ("MODEL_BASE_PATH",),
        _tf_serving,
        lambda environment: (
            f"{environment['MODEL_BASE_PATH']}/{environment.get('MODEL_NAME', 'model')}"
        ),
    ),
    _Platform(
        "PORT",
        ("PORT",),
        lambda environment: {"host": EVERYWHERE, **_port(environment, "PORT")},
    ),
)

#: Where platforms and images put models, in this order.
_FOLDERS: Final = ("opt/ml/model", "mnt/models", "models")
