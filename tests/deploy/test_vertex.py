"""Vertex AI: what is planned is what its API and our server know."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.cloud import aiplatform_v1
from google.protobuf import json_format

from modelport.core.errors import InputError, LimitError
from modelport.core.package import Package
from modelport.deploy import show, stage
from modelport.deploy.base import Plan, Result
from modelport.deploy.google.messages import build_request
from modelport.deploy.service import Footprint
from tests.serve.test_platforms import PlatformServer

from .golden_files import assert_golden
from .google_types import answered, every_call, is_method, missing_fields, required

IMAGE = "europe-docker.pkg.dev/acme-ml/models/churn@sha256:" + "ab" * 32
LEAST = ["project=acme-ml", "region=europe-west4", f"image={IMAGE}"]
BATCH = ["mode=batch", "source=gs://rows/in.jsonl", "destination=gs://rows/out/"]
VARIANTS: dict[str, list[str]] = {
    "vertex": LEAST,
    "vertex-dedicated": [
        *LEAST, "dedicated=true", "timeout=600", "percent=5", "machine=n2-highmem-4",
        "metric=requests", "target=600", "shared-memory=256",
        "service-account=churn@acme-ml.iam.gserviceaccount.com",
    ],
    "vertex-in-place": [*LEAST, "candidate=false"],
    "vertex-batch": [*LEAST, *BATCH],
}  # fmt: skip
GIB = 1 << 30

Make = Callable[..., Plan]


@pytest.fixture
def make(package: Package, footprint: Footprint) -> Make:
    def plan(*pairs: str, footprint: Footprint = footprint) -> Plan:
        return stage.plan(package, "vertex", pairs, footprint=footprint)

    return plan


@pytest.mark.parametrize("variant", VARIANTS)
def test_golden(variant: str, make: Make, package: Package) -> None:
    plan = make(*VARIANTS[variant])
    assert_golden(f"{variant}.txt", show.to_text(plan), package)
    calls = json.dumps(show.to_json(plan)["calls"], indent=2) + "\n"
    assert_golden(f"{variant}.json", calls, package)
    for file in plan.files:
        assert_golden(f"{variant}/{file.path}", file.content, package)


# The API's own types -------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_request_builds_and_has_what_is_required(variant: str, make: Make) -> None:
    calls = [call for call in every_call(make(*VARIANTS[variant])) if is_method(call)]
    assert len(calls) >= 5
    for call in calls:
        request = build_request(call, answered(call.parameters))
        assert isinstance(request, getattr(aiplatform_v1, type(request).__name__))
        assert missing_fields(request) == [], call.id


def test_the_check_for_required_fields_finds_them() -> None:
    assert required(aiplatform_v1.DeployModelRequest) == ["endpoint", "deployed_model"]
    request = aiplatform_v1.UploadModelRequest(model={"container_spec": {"predict_route": "/"}})
    missing = {path.rpartition(".")[2] for path in missing_fields(request)}
    assert {"parent", "display_name", "image_uri"} <= missing


def request(plan: Plan, id_: str) -> Any:
    call = next(call for call in plan.calls if call.id == id_)
    return build_request(call, answered(call.parameters))


def test_the_model_that_is_uploaded(make: Make, package: Package) -> None:
    uploaded = request(make(*LEAST), "model")
    spec = uploaded.model.container_spec
    assert uploaded.model_id == "churn"
    assert list(uploaded.model.version_aliases) == ["package-" + package.digest[7:19]]
    assert spec.image_uri == IMAGE
    assert [port.container_port for port in spec.ports] == [8080]
    assert spec.deployment_timeout.total_seconds() == 1800
    assert spec.startup_probe.http_get.path == spec.health_route
    assert not any(env.name.startswith("AIP_") for env in spec.env), "Vertex AI's own"


def test_what_is_deployed(make: Make) -> None:
    plan = make(*VARIANTS["vertex-dedicated"])
    deployed = request(plan, "deploy")
    resources = deployed.deployed_model.dedicated_resources
    assert dict(deployed.traffic_split) == {"17": 95, "0": 5}
    assert resources.machine_spec.machine_type == "n2-highmem-4"
    assert (resources.min_replica_count, resources.max_replica_count) == (1, 2)
    (metric,) = resources.autoscaling_metric_specs
    assert metric.metric_name.endswith("/request_count")
    assert metric.target == 600
    assert dict(request(plan, "try").traffic_split) == {"0": 100}
    assert request(plan, "model").model.container_spec.shared_memory_size_mb == 256
    # Read after the deployment: before it, a dedicated endpoint may have no address.
    assert plan.endpoint == Result("address", "predict_url")
    assert plan.verify_at == Result("candidate-address", "predict_url")
    ids = [call.id for call in plan.calls]
    assert ids.index("try") < ids.index("candidate-address")
    assert ids.index("deploy") < ids.index("address")


def test_nothing_runs_as_the_projects_default_account(make: Make) -> None:
    """Without one, Vertex AI's own is used, which has no access to the project."""
    assert request(make(*LEAST), "deploy").deployed_model.service_account == ""


def test_the_candidate_gets_verified_and_the_endpoint_is_told(make: Make) -> None:
    plan = make(*LEAST)
    assert str(plan.verify_at).endswith("/endpoints/churn-candidate:predict")
    assert str(plan.endpoint).endswith("/endpoints/churn:predict")
    in_place = make(*VARIANTS["vertex-in-place"])
    assert in_place.verify_at == ""
    assert [call.phase for call in in_place.calls if call.id == "deploy"] == ["serve"]


def test_what_is_taken_away_does_not_depend_on_the_image(make: Make) -> None:
    """`destroy` is planned without the digest that `apply` pinned."""

    def undone(plan: Plan) -> list[Any]:
        lasting = [c.undo for c in plan.calls if c.undo and c.id != "deploy"]
        return [(undo.operation, undo.parameters) for undo in lasting]

    assert undone(make(*LEAST)) == undone(make(*LEAST[:2])) != []


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_files_are_requests_of_the_rest_api(variant: str, make: Make) -> None:
    plan = make(*VARIANTS[variant])
    kinds = {
        "upload-model.json": aiplatform_v1.UploadModelRequest,
        "create-endpoint.json": aiplatform_v1.Endpoint,
        "deploy-model.json": aiplatform_v1.DeployModelRequest,
        "create-batch-prediction-job.json": aiplatform_v1.BatchPredictionJob,
    }
    assert len(plan.files) == len(plan.commands) >= 2
    for file, command in zip(plan.files, plan.commands, strict=True):
        kind = kinds[file.path]
        document = json.loads(file.content)
        parsed = json_format.ParseDict(document, kind.pb(kind()))
        assert json_format.MessageToDict(parsed) == document, "JSON's own names and forms"
        assert f"@{file.path}" in command
        assert "<" not in file.content, "nothing is left open"


# Settings and limits -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (["region=europe-west4"], "needs a project"),
        (["project=acme-ml"], "needs a region"),
        ([*LEAST, "percent=10", "candidate=false"], "10 %"),
        ([*LEAST, "percent=0"], "0"),
        ([*LEAST, "min-replicas=3"], "3 to 2"),
        ([*LEAST, "mode=batch", "source=gs://b/x"], "destination"),
        ([*LEAST, "mode=batch", "source=/tmp/x", "destination=gs://b"], "source"),
        ([*LEAST, "service-account=me"], "'me'"),
    ],
)
def test_settings_that_cannot_be(pairs: list[str], words: str, make: Make) -> None:
    with pytest.raises(InputError, match=words):
        make(*pairs)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (["timeout=60"], ["timeout=61"]),
        (["dedicated=true", "timeout=3600"], ["dedicated=true", "timeout=3601"]),
        (["min-replicas=1"], ["min-replicas=0"]),
        (["deployment-timeout=7200"], ["deployment-timeout=7201"]),
        ([f"name={'n' * 53}"], [f"name={'n' * 54}"]),
    ],
)
def test_limits(good: list[str], bad: list[str], make: Make) -> None:
    make(*LEAST, *good)
    with pytest.raises(LimitError) as error:
        make(*LEAST, *bad)
    assert error.value.hint


def test_names_fit_with_the_candidates_end(make: Make) -> None:
    names = [
        call.parameters["endpoint_id"]
        for call in make(*LEAST, f"name={'n' * 53}").calls
        if call.operation == "create_endpoint"
    ]
    assert [len(name) for name in names] == [53, 63]


@pytest.mark.parametrize(
    ("memory", "machine"),
    [(GIB // 10, "e2-standard-2"), (4 * GIB, "e2-standard-4"), (15 * GIB, "e2-standard-8")],
)
def test_machines_follow_what_was_measured(memory: int, machine: str, make: Make) -> None:
    measured = Footprint(memory, 0.001, 0.001, 0.5, measured=True)
    resources = request(
        make(*LEAST, footprint=measured), "deploy"
    ).deployed_model.dedicated_resources
    assert resources.machine_spec.machine_type == machine


def test_a_model_too_large_for_the_machines_that_are_chosen(make: Make) -> None:
    measured = Footprint(16 * GIB, 0.001, 0.001, 0.5, measured=True)
    with pytest.raises(InputError) as error:
        make(*LEAST, footprint=measured)
    assert "--set machine=" in error.value.hint
    make(*LEAST, "machine=n2-highmem-8", footprint=measured)


# The server ----------------------------------------------------------------------------------


@pytest.fixture
def started(tmp_path: Path, package: Package) -> Iterator[Callable[..., PlatformServer]]:
    running: list[PlatformServer] = []

    def start(variables: dict[str, str]) -> PlatformServer:
        server = PlatformServer(tmp_path / "server", variables, [str(package.path)])
        running.append(server)
        server.__enter__()
        return server

    yield start
    for server in running:
        server.close()


def test_the_server_answers_on_the_planned_routes(
    make: Make, started: Callable[..., PlatformServer], package: Package
) -> None:
    """As Vertex AI starts the container, asks it, and reads its answer."""
    spec = request(make(*LEAST), "model").model.container_spec
    server = started(
        {
            **{env.name: env.value for env in spec.env},
            "AIP_MODE": "PREDICTION",
            "AIP_HTTP_PORT": "{port}",
            "AIP_PREDICT_ROUTE": spec.predict_route,
            "AIP_HEALTH_ROUTE": spec.health_route,
            "AIP_ENDPOINT_ID": "7",
            "AIP_DEPLOYED_MODEL_ID": "9",
        }
    )
    for probe in (spec.startup_probe, spec.health_probe):
        assert server.get(probe.http_get.path).status == 200
    golden = package.golden()
    assert golden is not None
    rows = golden.inputs["x"]
    asked = aiplatform_v1.PredictRequest.from_json(json.dumps({"instances": rows.tolist()}))
    body = json_format.MessageToJson(aiplatform_v1.PredictRequest.pb(asked)).encode()
    answer = server.request("POST", spec.predict_route, body, {"Content-Type": "application/json"})
    assert answer.status == 200, answer.body
    # Strictly: a key that the answer does not have would be refused here.
    parsed = json_format.Parse(
        answer.body, aiplatform_v1.PredictResponse.pb(aiplatform_v1.PredictResponse())
    )
    predictions = json_format.MessageToDict(parsed)["predictions"]
    (expected,) = golden.outputs.values()
    np.testing.assert_allclose(np.asarray(predictions, np.float32), expected, rtol=1e-4)
    refused = server.request(
        "POST", spec.predict_route, b"{}", {"Content-Type": "application/json"}
    )
    assert refused.status == 400
