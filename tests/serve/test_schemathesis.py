"""Generated requests, over our own OpenAPI document and the published one of Open Inference.

schemathesis makes requests that fit the documents and requests that do not. Whatever comes, the
answer is one that the document tells of, and no failure of the server.

There is a test for each operation, so that workers share them.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, settings
from schemathesis.checks import CheckContext
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from modelport.core.signature import Signature
from modelport.core.tensors import TensorSpec
from modelport.serve.base import ModelIdentity
from modelport.serve.openapi import document

from . import onnx_models
from .packages import build_package
from .routes import FLAGS, routes_of
from .running import RunningServer

KEY: Final = "correct-horse-battery-staple"
MODEL: Final = "pair"

#: Requests that all of these tests make together, at least.
AT_LEAST: Final = 20_000


@pytest.fixture(scope="module")
def server(module_path: Path) -> Iterator[RunningServer]:
    (module_path / "keys").write_text(KEY)
    golden = {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 2), np.int64)}
    path = build_package(module_path / MODEL, MODEL, onnx_models.sum_of_two(), golden).path
    flags = [*FLAGS, "--api-key-file", module_path / "keys"]
    with RunningServer(module_path / "server", [path], flags) as running:
        yield running
        log = running.log()
        assert "Traceback" not in log
        assert "defect" not in log


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers["x-api-key"] = KEY
        yield session


@pytest.fixture(scope="module")
def controlled(module_path: Path) -> Iterator[RunningServer]:
    """Clients may load and unload its models."""
    (module_path / "keys").write_text(KEY)
    golden = {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 2), np.int64)}
    store = module_path / "store"
    path = build_package(store / MODEL, MODEL, onnx_models.sum_of_two(), golden).path
    flags = [*FLAGS, "--api-key-file", module_path / "keys", "--model-control"]
    flags += ["--model-store", store]
    with RunningServer(module_path / "controlled", [path], flags) as running:
        yield running
        log = running.log()
        assert "Traceback" not in log
        assert "defect" not in log


def own_document() -> dict[str, Any]:
    """What the server will tell at ``/openapi.json``: the test names come from it."""
    signature = Signature(
        (TensorSpec("a", "float32", ("N", 3)), TensorSpec("b", "int64", ("N", 2))),
        (TensorSpec("total", "float32", ("N",)),),
    )
    model = ModelIdentity(MODEL, 1, signature, "onnxruntime_onnx")
    return document(routes_of("protocol"), [model], closed=True)


#: ``open_inference_rest.yaml`` of github.com/kserve/open-inference-protocol; published
#: specifications lie beside the checkout, not in it.
SPECIFICATION: Final = Path(
    os.environ.get("OPEN_INFERENCE_SPECIFICATION")
    or Path(__file__).parents[3]
    / "shared/reference/schemas/open-inference/open_inference_rest.yaml"
)


def published_document() -> dict[str, Any]:
    """The specification, with our model in its paths; without any where it is not at hand."""
    if not SPECIFICATION.is_file():
        return {"openapi": "3.0.0", "info": {"title": "none", "version": "0"}, "paths": {}}
    text = SPECIFICATION.read_text(encoding="utf-8").replace("${", "{")
    found: dict[str, Any] = yaml.safe_load(text)
    for item in found["paths"].values():
        for parameter in item.get("parameters", ()):
            # Most of the time our model; everything else is another 404.
            known = {"MODEL_NAME": MODEL, "MODEL_VERSION": "1"}[parameter["name"]]
            parameter["schema"] = {"type": "string", "enum": [known, known, "other"]}
    tensor = found["components"]["schemas"]["request_input"]["properties"]
    tensor["name"]["enum"] = ["a", "b", "c"]
    tensor["datatype"]["enum"] = ["FP32", "INT64", "BYTES"]
    return found


OWN = own_document()
PUBLISHED = published_document()


def operations(described: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every operation by the name that schemathesis gives it."""
    return {
        f"{method.upper()} {path}": operation
        for path, item in described["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


def with_body(described: dict[str, Any]) -> list[str]:
    """Operations that take a body: of those there is no end of different requests."""
    return [name for name, item in operations(described).items() if "requestBody" in item]


CONTROL: Final = sorted(
    {
        f"{route.method} {route.example.replace('{model}', MODEL)}"
        for _, route in routes_of("protocol")
        if route.control
    }
    & operations(OWN).keys()
)
BODIES: Final = {"own": with_body(OWN), "published": with_body(PUBLISHED)}

#: A loaded machine takes its time.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

#: How many of the requests go to each operation that takes a body.
SHARE: Final = math.ceil(AT_LEAST / sum(map(len, BODIES.values())))

#: Numbers that JSON cannot write, as TensorFlow Serving and Triton write them.
BARE_TOKENS: Final = re.compile(rb"[\[:,](NaN|-?Infinity)[\],}]")


@schemathesis.serializer("application/jsonlines")
def json_lines(context: schemathesis.SerializationContext, value: Any) -> bytes:
    items = value if isinstance(value, list) else [value]
    return "\n".join(json.dumps(item) for item in items).encode("utf-8", "surrogatepass")


@schemathesis.serializer("application/vnd.apache.parquet")
def as_it_is(context: schemathesis.SerializationContext, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


def no_failure(ctx: CheckContext, response: Response, case: schemathesis.Case) -> bool | None:
    """5xx are for what the server says that it does not do, or cannot do now."""
    assert response.status_code < 500 or response.status_code in (501, 503, 504, 507), response.text
    return None


def schema_conformance(ctx: CheckContext, response: Response, case: schemathesis.Case) -> Any:
    """No schema can tell of NaN and infinities, which are no JSON."""
    if BARE_TOKENS.search(response.content):
        return None
    return response_schema_conformance(ctx, response, case)


CHECKS = [
    no_failure,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    schema_conformance,
]


def generate(number: int) -> settings:
    return settings(
        max_examples=number,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture
def statuses() -> Iterator[Counter[int]]:
    """Of all answers of one operation."""
    found: Counter[int] = Counter()
    yield found
    print(found.total(), "requests:", dict(sorted(found.items())))


@pytest.fixture
def share(statuses: Counter[int]) -> Iterator[Counter[int]]:
    """As `statuses`, of an operation to which a share of the requests goes."""
    yield statuses
    assert statuses.total() >= SHARE
    assert set(statuses) - {401, 404, 405}, "nothing but refusals"


own = schemathesis.openapi.from_dict(OWN)
published = schemathesis.openapi.from_dict(PUBLISHED)


@own.include(name=BODIES["own"]).parametrize()
@generate(SHARE)
def test_own_bodies(
    case: schemathesis.Case,
    server: RunningServer,
    session: requests.Session,
    share: Counter[int],
) -> None:
    ask(case, server, session, share, CHECKS)


@own.exclude(name=BODIES["own"]).parametrize()
@generate(20)
def test_own_others(
    case: schemathesis.Case,
    server: RunningServer,
    session: requests.Session,
    statuses: Counter[int],
) -> None:
    ask(case, server, session, statuses, CHECKS)


@own.include(name=CONTROL).parametrize()
@generate(60)
def test_own_control(
    case: schemathesis.Case,
    controlled: RunningServer,
    session: requests.Session,
    statuses: Counter[int],
) -> None:
    ask(case, controlled, session, statuses, CHECKS)


def test_the_published_specification_is_at_hand() -> None:
    if not SPECIFICATION.is_file():
        pytest.skip(f"no {SPECIFICATION.name}; OPEN_INFERENCE_SPECIFICATION may name it")
    assert len(BODIES["published"]) == 1


if PUBLISHED["paths"]:

    @published.include(name=BODIES["published"]).parametrize()
    @generate(SHARE)
    def test_published_bodies(
        case: schemathesis.Case,
        server: RunningServer,
        session: requests.Session,
        share: Counter[int],
    ) -> None:
        ask(case, server, session, share, PUBLISHED_CHECKS)

    @published.exclude(name=BODIES["published"]).parametrize()
    @generate(20)
    def test_published_others(
        case: schemathesis.Case,
        server: RunningServer,
        session: requests.Session,
        statuses: Counter[int],
    ) -> None:
        ask(case, server, session, statuses, PUBLISHED_CHECKS)


def told(ctx: CheckContext, response: Response, case: schemathesis.Case) -> bool | None:
    """The published document leaves 401, 404 and the like out; an answer it knows fits it."""
    if response.status_code in (200, 400):
        schema_conformance(ctx, response, case)
        content_type_conformance(ctx, response, case)
    else:
        assert response.status_code in (404, 405, 413, 415), response.text
    return None


PUBLISHED_CHECKS = [no_failure, told]


def ask(
    case: schemathesis.Case,
    server: RunningServer,
    session: requests.Session,
    statuses: Counter[int],
    checks: list[Any],
) -> None:
    response = case.call(base_url=f"http://127.0.0.1:{server.port}", session=session)
    statuses[response.status_code] += 1
    case.validate_response(response, checks=checks)


def test_the_document_is_the_servers(server: RunningServer) -> None:
    told = server.request("GET", "/openapi.json", headers={"x-api-key": KEY}).json()
    assert told == json.loads(json.dumps(OWN))


def test_there_are_enough() -> None:
    """Each of these operations asserts its share, in whatever process it runs."""
    assert SHARE * sum(map(len, BODIES.values())) >= AT_LEAST
