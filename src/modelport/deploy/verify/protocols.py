"""Which protocols `verify` speaks, and which one an address asks for."""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import SplitResult, quote

from modelport.core.errors import InputError, NotFoundError
from modelport.deploy.verify import instances, v2
from modelport.deploy.verify.address import read_address
from modelport.deploy.verify.base import Ask, Carrier, EndpointProtocol
from modelport.deploy.verify.web import send

AUTO: Final = "auto"

PROTOCOLS: Final[dict[str, EndpointProtocol]] = {
    "v2": v2.V2,
    "tfserving": instances.TFSERVING,
    "kserve-v1": instances.KSERVE_V1,
    "sagemaker": instances.SAGEMAKER,
    "vertex": instances.VERTEX,
    "azureml": instances.AZUREML,
    "mlflow": instances.MLFLOW,
    "lambda": v2.V2,
    "azure-functions": v2.AZURE_FUNCTIONS,
    "cloudrun": v2.CLOUDRUN,
}

#: Endings of hosts, and whose they are.
_HOSTS: Final = (
    (".aiplatform.googleapis.com", "vertex"),
    ("-aiplatform.googleapis.com", "vertex"),
    (".prediction.vertexai.goog", "vertex"),
    (".inference.ml.azure.com", "azureml"),
    (".azurewebsites.net", "azure-functions"),
    (".run.app", "cloudrun"),
    (".on.aws", "lambda"),
)

#: What a server that speaks a protocol answers with 200, in the order in which it is tried.
_SIGNS: Final = (("v2", "/v2"), ("tfserving", "/v1/models/{model}"), ("mlflow", "/ping"))


def find_protocol(name: str) -> EndpointProtocol:
    """The protocol of that name.

    Raises
    ------
    NotFoundError
        With those that exist.
    """
    if name not in PROTOCOLS:
        raise NotFoundError("protocol", name, [AUTO, *PROTOCOLS], where="--protocol")
    return PROTOCOLS[name]


def platform_of(url: str) -> str:
    """Whose host an address names, as the target and its protocol are called; empty: nobody's."""
    parts = read_address(url)
    if parts.scheme in ("sagemaker", "lambda"):
        return parts.scheme
    host = parts.hostname or ""
    if ".execute-api." in host:
        return "lambda"
    return next((name for ending, name in _HOSTS if host.endswith(ending)), "")


def protocol_of_address(url: str) -> str:
    """The protocol that an address names by its scheme, path or host; empty: it names none.

    Raises
    ------
    InputError
        When it is an address that only an SDK can ask, in another form.
    """
    parts = read_address(url)
    host, path = parts.hostname or "", parts.path.rstrip("/")
    by_host = platform_of(url)
    if parts.scheme in ("sagemaker", "lambda"):
        return by_host
    if host.startswith("runtime.sagemaker."):
        raise InputError(
            f"requests to {host} have to be signed",
            hint=f"give the address as {_sagemaker_address(parts)}",
        )
    if "/v2/models/" in path or path.endswith("/v2"):
        return by_host if by_host in ("lambda", "azure-functions", "cloudrun") else "v2"
    if "/v1/models/" in path:
        return "tfserving"
    if path.endswith((":predict", ":rawPredict")):
        return "vertex"
    if path.endswith(("/invocations", "/invoke")):
        return "mlflow"
    if path.endswith("/score"):
        return "azureml"
    return by_host


def protocol_that_answers(carrier: Carrier, url: str, model: str) -> str:
    """The protocol whose signs the server at a bare address shows.

    Raises
    ------
    InputError
        When it shows none.
    UnavailableError
        When nobody answers.
    """
    base = read_address(url).path.rstrip("/")
    base = "" if base == f"/{model}" else base
    for name, path in _SIGNS:
        answer = send(carrier, Ask("GET", base + path.format(model=quote(model, safe=""))), url)
        if answer.status in (401, 403):
            return name  # the request itself will say it better
        if answer.status == 200 and (name == "mlflow" or _is_object(answer.body)):
            return name
    raise InputError(
        f"{url} shows no protocol that modelport knows",
        hint=f"--protocol, of: {', '.join(PROTOCOLS)}; or modelport doctor {url}",
    )


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _sagemaker_address(parts: SplitResult) -> str:
    region = (parts.hostname or "").split(".")[2]
    words = parts.path.strip("/").split("/")
    return f"sagemaker://{region}/{words[1] if len(words) > 1 else 'ENDPOINT'}"
