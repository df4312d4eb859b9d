"""Rows in JSON: TensorFlow Serving, KServe V1, Vertex AI, Azure ML, MLflow, ``/invocations``.

All of them take ``{"instances": [row, …]}`` and answer ``{"predictions": [row, …]}``; models
without a batch dimension travel as ``{"inputs": …}``. They differ in routes and headers.
Sources: ``tensorflow/serving`` (``json_tensor.cc``), ``kserve`` (``v1_endpoints.py``), Vertex AI
"Custom container requirements", ``mlflow`` (``pyfunc/scoring_server``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from modelport.core.errors import EngineError, UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.deploy.verify import arrays
from modelport.deploy.verify.base import Answer, Ask, EndpointModel
from modelport.deploy.verify.web import read_json, shown

#: Element types that TensorFlow Serving's REST API does not read (501).
_UNREAD: Final = ("float16", "uint16")
_JSON: Final = {"content-type": "application/json", "accept": "application/json"}

#: From an endpoint's address to the path and the headers of a request.
Route = Callable[[EndpointModel], tuple[str, Mapping[str, str]]]


@dataclass(frozen=True)
class Instances:
    """A protocol of this family.

    Parameters
    ----------
    route : callable
    strict_numbers, access, key_header
        See `modelport.deploy.verify.base.EndpointProtocol`.
    unread : tuple of str
        Element types that it cannot carry.
    """

    route: Route
    strict_numbers: bool = False
    access: str = ""
    key_header: str = "x-api-key"
    unread: tuple[str, ...] = field(default=())

    def encode(self, tensors: Tensors, model: EndpointModel) -> Ask:
        """See `modelport.deploy.verify.base.EndpointProtocol.encode`."""
        for spec in model.signature.inputs:
            if spec.dtype in self.unread:
                raise UnsupportedError(
                    f"this protocol cannot carry input {spec.name}: {spec.dtype}",
                    hint="--protocol v2 can",
                )
        path, headers = self.route(model)
        columns = {name: arrays.plain(array) for name, array in tensors.items()}
        single = len(columns) == 1
        (first, *_) = columns.values()
        document: dict[str, Any]
        if _by_row(model):
            rows = first if single else _rows(columns)
            document = {"instances": rows}
        else:
            document = {"inputs": first if single else columns}
        return Ask("POST", path, json.dumps(document).encode(), {**_JSON, **headers})

    def decode(self, answer: Answer, model: EndpointModel) -> dict[str, Array]:
        """See `modelport.deploy.verify.base.EndpointProtocol.decode`."""
        value = read_json(answer, model.url)
        if isinstance(value, dict):
            found = [value[key] for key in ("predictions", "outputs") if key in value]
            if not found:
                raise EngineError(
                    f"{model.url} answered neither predictions nor outputs, but: "
                    f"{shown(', '.join(map(str, value))) or 'an empty object'}"
                )
            value = found[0]
        return {
            spec.name: arrays.read(_column(value, spec.name, model), spec, model.url)
            for spec in model.signature.outputs
        }


def _by_row(model: EndpointModel) -> bool:
    return model.signature.batch_symbol is not None


def _rows(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = list(columns)
    return [
        dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)
    ]  # fmt: skip


def _column(value: Any, name: str, model: EndpointModel) -> Any:
    """One output's values, of rows or of columns by name; a single output may have no name."""
    try:
        if isinstance(value, dict) and value.keys() != {"b64"}:
            return value[name]
        by_name = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
        if by_name and value[0].keys() != {"b64"}:
            return [row[name] for row in value]
    except (KeyError, TypeError) as error:
        raise EngineError(f"{model.url} answered without output {name}") from error
    if len(model.signature.outputs) > 1:
        raise EngineError(f"{model.url} answered one value where the model has several outputs")
    return value


def _verb(prefix: str, model: EndpointModel) -> str:
    """The path of TensorFlow Serving's predict below a base, unless the address names it."""
    if model.path.endswith((":predict", ":rawPredict")):
        return model.path
    if "/v1/models/" in model.path:
        return f"{model.path}:predict"
    return f"{model.path}{prefix}{quote(model.name, safe='')}:predict"


def _with_query(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def _tfserving(model: EndpointModel) -> tuple[str, Mapping[str, str]]:
    return _with_query(_verb("/v1/models/", model), model.query), {}


def _vertex(model: EndpointModel) -> tuple[str, Mapping[str, str]]:
    """The address is the whole route: it is decided when the model is deployed."""
    path = model.path
    if "/endpoints/" in path and not path.endswith((":predict", ":rawPredict")):
        path += ":predict"
    return _with_query(path or "/", model.query), {}


def _azureml(model: EndpointModel) -> tuple[str, Mapping[str, str]]:
    """``?deployment=NAME`` chooses a deployment, whatever the traffic: it becomes a header."""
    pairs = parse_qsl(model.query, keep_blank_values=True)
    chosen = dict(pairs).get("deployment")
    headers = {"azureml-model-deployment": chosen} if chosen else {}
    query = urlencode([pair for pair in pairs if pair[0] != "deployment"])
    return _with_query(model.path or "/score", query), headers


def _invocations(model: EndpointModel) -> tuple[str, Mapping[str, str]]:
    path = model.path if model.path.endswith(("/invocations", "/invoke")) else ""
    return _with_query(path or f"{model.path}/invocations", model.query), {}


TFSERVING: Final = Instances(_tfserving, unread=_UNREAD)
KSERVE_V1: Final = Instances(_tfserving, unread=_UNREAD)
VERTEX: Final = Instances(_vertex, strict_numbers=True, access="google")
AZUREML: Final = Instances(_azureml, access="azure")
MLFLOW: Final = Instances(_invocations)
SAGEMAKER: Final = Instances(_invocations)
