"""Google's own clients against its APIs on this machine: create, update, canary, destroy, fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from google.cloud import aiplatform_v1, run_v2
from google.longrunning import operations_pb2

from modelport.core.errors import (
    ConflictError,
    InputError,
    NotFoundError,
    ParityError,
    PlatformError,
)
from modelport.core.package import Package
from modelport.deploy import stage
from modelport.deploy.appliers.google import GoogleApplier
from modelport.deploy.base import Call, Plan
from modelport.deploy.google.messages import build_request
from modelport.deploy.google.traffic import revisions, shares
from modelport.deploy.service import Footprint

from .google_fake import Google, RefusalError, google_here

DIGESTS = ["sha256:" + letter * 64 for letter in "abc"]
PLACE = ["project=acme-ml", "region=europe-west4"]
SERVICE = "projects/acme-ml/locations/europe-west4/services/churn"
ENDPOINT = "projects/acme-ml/locations/europe-west4/endpoints/churn"
MODEL = "projects/acme-ml/locations/europe-west4/models/churn"

Deploy = Callable[..., str]


@pytest.fixture
def google() -> Iterator[tuple[Google, dict[str, str]]]:
    with google_here() as here:
        yield here


@pytest.fixture
def planned(
    google: tuple[Google, dict[str, str]], package: Package, footprint: Footprint
) -> Callable[..., Plan]:
    def make(target: str, image: int = 0, *pairs: str) -> Plan:
        chosen = [*PLACE, f"image=europe-docker.pkg.dev/acme-ml/m/churn@{DIGESTS[image]}", *pairs]
        plan = stage.plan(package, target, chosen, footprint=footprint)
        return replace(plan, connection={**plan.connection, **google[1]})

    return make


class Verified:
    """Remembers where it was asked to verify; says no when told to."""

    def __init__(self, google: Google, *, wrong: bool = False) -> None:
        self.urls: list[str] = []
        self.traffic: list[dict[str, int]] = []
        self._google = google
        self._wrong = wrong

    def __call__(self, plan: Plan, url: str, headers: Mapping[str, str]) -> None:
        self.urls.append(url)
        if SERVICE in self._google.services:
            self.traffic.append(traffic(self._google))
        if self._wrong:
            raise ParityError("3 of 4 records differ")


def traffic(google: Google) -> dict[str, int]:
    """Share of each revision."""
    targets = google.services[SERVICE].traffic
    return {target.revision: target.percent for target in targets if target.percent}


def quiet(line: str) -> None:
    """Report nothing."""


# Cloud Run -----------------------------------------------------------------------------------


def test_cloud_run_from_nothing_to_nothing(google: Any, planned: Callable[..., Plan]) -> None:
    state, _ = google
    plan = planned("cloudrun")
    verified, lines = Verified(state), list[str]()
    url = stage.apply(plan, verified, lines.append)
    assert url == "https://churn-abc123-ew.a.run.app"
    assert verified.urls == ["https://candidate---churn-abc123-ew.a.run.app"]
    assert state.calls == [
        "iam POST", "iam GET", "CreateService", "UpdateService", "UpdateService",
    ]  # fmt: skip
    assert len(state.revisions) == 1, "the tag must not have made another revision"
    (revision,) = state.revisions
    assert traffic(state) == {revision: 100}
    assert not [target.tag for target in state.services[SERVICE].traffic if target.tag]
    assert any(line.startswith("create the service: ") for line in lines), "progress"
    told = stage.status(plan)
    assert told["uri"] == url
    assert told["latest_ready_revision"].endswith(revision)

    stage.destroy(plan, quiet)
    assert (state.services, state.accounts) == ({}, set())
    with pytest.raises(NotFoundError, match="was not found"):
        stage.status(plan)
    stage.destroy(plan, quiet)  # nothing is there: nothing to do


def test_a_new_revision_gets_no_traffic_before_it_is_verified(
    google: Any, planned: Callable[..., Plan]
) -> None:
    state, _ = google
    stage.apply(planned("cloudrun", 0), Verified(state), quiet)
    (old,) = state.revisions
    verified = Verified(state)
    stage.apply(planned("cloudrun", 1), verified, quiet)
    assert verified.traffic == [{old: 100}]
    (new,) = set(state.revisions) - {old}
    assert traffic(state) == {new: 100}


def test_canary_by_steps(google: Any, planned: Callable[..., Plan]) -> None:
    state, _ = google
    stage.apply(planned("cloudrun", 0), Verified(state), quiet)
    (old,) = state.revisions
    shares_seen = []
    for percent in (10, 50, 100):
        stage.apply(planned("cloudrun", 1, f"percent={percent}"), Verified(state), quiet)
        shares_seen.append(traffic(state))
    (new,) = set(state.revisions) - {old}
    assert shares_seen == [{old: 90, new: 10}, {old: 50, new: 50}, {new: 100}]


def test_a_wrong_answer_puts_the_service_back(google: Any, planned: Callable[..., Plan]) -> None:
    state, _ = google
    stage.apply(planned("cloudrun", 0), Verified(state), quiet)
    (old,) = state.revisions
    before = state.services[SERVICE].template
    lines: list[str] = []
    with pytest.raises(ParityError, match="3 of 4"):
        stage.apply(planned("cloudrun", 1, "timeout=9"), Verified(state, wrong=True), lines.append)
    after = state.services[SERVICE]
    assert traffic(state) == {old: 100}
    assert after.template == before
    assert not [target.tag for target in after.traffic if target.tag]
    assert state.accounts, "the account was there before, and stays"
    assert "put the service back as it was" in lines


def test_a_service_that_follows_its_latest_revision(
    google: Any, planned: Callable[..., Plan]
) -> None:
    """Somebody else's: all traffic to the latest. The candidate must not get it."""
    state, _ = google
    latest = "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"
    service = run_v2.Service(
        name=SERVICE,
        template={"containers": [{"image": "by-hand"}]},
        traffic=[{"type_": latest, "percent": 100}, {"revision": "churn-1", "tag": "stable"}],
        latest_ready_revision=f"{SERVICE}/revisions/churn-1",
        etag='"0"',
    )
    state.services[SERVICE] = service
    state.revisions["churn-1"] = run_v2.RevisionTemplate.to_dict(service.template)
    verified = Verified(state)
    with pytest.raises(ParityError):
        stage.apply(planned("cloudrun"), Verified(state, wrong=True), quiet)
    back = state.services[SERVICE]
    assert back.traffic[0].type_.name == latest
    assert back.template.containers[0].image == "by-hand"
    back.latest_ready_revision = f"{SERVICE}/revisions/churn-1"
    stage.apply(planned("cloudrun"), verified, quiet)
    assert verified.traffic == [{"churn-1": 100}]
    assert [target.tag for target in state.services[SERVICE].traffic if target.tag] == ["stable"]


def test_what_the_platform_says_when_a_start_fails(
    google: Any, planned: Callable[..., Plan]
) -> None:
    state, _ = google
    words = "The user-provided container failed to start and listen on the port defined by PORT"
    state.fail["CreateService"] = RefusalError("FAILED_PRECONDITION", words)
    with pytest.raises(PlatformError, match=words):
        stage.apply(planned("cloudrun"), Verified(state), quiet)
    assert (state.services, state.accounts) == ({}, set())


def test_an_account_that_is_known_late(google: Any, planned: Callable[..., Plan]) -> None:
    state, _ = google
    state.late = 2
    stage.apply(planned("cloudrun"), Verified(state), quiet)
    assert state.calls[:5] == ["iam POST", "iam GET", "iam GET", "iam GET", "CreateService"]


def test_a_second_revision_that_does_not_start(google: Any, planned: Callable[..., Plan]) -> None:
    state, _ = google
    stage.apply(planned("cloudrun", 0), Verified(state), quiet)
    (old,) = state.revisions
    state.fail["UpdateService"] = RefusalError("FAILED_PRECONDITION", "no port")
    with pytest.raises(PlatformError, match="no port"):
        stage.apply(planned("cloudrun", 1), Verified(state), quiet)
    assert traffic(state) == {old: 100}
    assert state.services[SERVICE].template.revision == old


def test_somebody_else_changed_it(google: Any, planned: Callable[..., Plan]) -> None:
    state, _ = google
    state.refuse["UpdateService"] = RefusalError("ABORTED", "Conflict for resource")
    with pytest.raises(PlatformError, match="Conflict for resource") as error:
        stage.apply(planned("cloudrun"), Verified(state), quiet)
    assert "try again" in error.value.hint


# Vertex AI -----------------------------------------------------------------------------------


def split(google: Google) -> list[int]:
    """Shares of what is deployed, oldest first."""
    endpoint = google.endpoints[ENDPOINT]
    return [endpoint.traffic_split.get(model.id, 0) for model in endpoint.deployed_models]


def test_vertex_from_nothing_to_nothing(google: Any, planned: Callable[..., Plan]) -> None:
    state, _ = google
    plan = planned("vertex")
    verified = Verified(state)
    url = stage.apply(plan, verified, quiet)
    host = "https://europe-west4-aiplatform.googleapis.com/v1"
    assert url == f"{host}/{ENDPOINT}:predict"
    assert verified.urls == [f"{host}/{ENDPOINT}-candidate:predict"]
    assert list(state.endpoints) == [ENDPOINT], "the candidate is gone"
    assert split(state) == [100]
    assert state.endpoints[ENDPOINT].deployed_models[0].model == f"{MODEL}@1"
    assert stage.status(plan)["deployed_models"][0]["model"] == f"{MODEL}@1"
    stage.destroy(plan, quiet)
    assert (state.endpoints, state.models) == ({}, {})
    stage.destroy(plan, quiet)


def test_vertex_canary_then_all(google: Any, planned: Callable[..., Plan]) -> None:
    state, _ = google
    stage.apply(planned("vertex", 0), Verified(state), quiet)
    stage.apply(planned("vertex", 1, "percent=20"), Verified(state), quiet)
    assert split(state) == [80, 20]
    stage.apply(planned("vertex", 2), Verified(state), quiet)
    assert split(state) == [100], "what has no traffic is undeployed"
    assert state.endpoints[ENDPOINT].deployed_models[0].model == f"{MODEL}@3"


@pytest.mark.parametrize("candidate", ["true", "false"])
def test_vertex_with_wrong_answers(
    google: Any, planned: Callable[..., Plan], candidate: str
) -> None:
    state, _ = google
    stage.apply(planned("vertex", 0), Verified(state), quiet)
    with pytest.raises(ParityError):
        stage.apply(
            planned("vertex", 1, f"candidate={candidate}"), Verified(state, wrong=True), quiet
        )
    assert list(state.endpoints) == [ENDPOINT]
    assert split(state) == [100]
    assert state.endpoints[ENDPOINT].deployed_models[0].model == f"{MODEL}@1"
    assert len(state.models[MODEL]) == 1, "the version that was wrong is gone"


def test_vertex_leaves_no_candidate_of_an_earlier_try(
    google: Any, planned: Callable[..., Plan]
) -> None:
    """It was there already, so nothing here created it; but its machines cost money."""
    state, _ = google
    beside = f"{ENDPOINT}-candidate"
    state.endpoints[beside] = aiplatform_v1.Endpoint(name=beside)
    with pytest.raises(ParityError):
        stage.apply(planned("vertex"), Verified(state, wrong=True), quiet)
    assert state.endpoints == {}


def test_an_operation_that_says_it_exists_already(
    google: Any, planned: Callable[..., Plan]
) -> None:
    """Not the call, but the operation that it began."""
    state, _ = google
    stage.apply(planned("vertex", 0), Verified(state), quiet)
    state.fail["CreateEndpoint"] = RefusalError("ALREADY_EXISTS", "Endpoint already exists")
    stage.apply(planned("vertex", 1, "percent=20"), Verified(state), quiet)
    assert split(state) == [80, 20]


def test_vertex_in_place(google: Any, planned: Callable[..., Plan]) -> None:
    state, _ = google
    verified = Verified(state)
    url = stage.apply(planned("vertex", 0, "candidate=false"), verified, quiet)
    assert verified.urls == [url]
    assert state.calls.count("DeployModel") == 1


def test_vertex_dedicated_endpoint(google: Any, planned: Callable[..., Plan]) -> None:
    state, _ = google
    verified = Verified(state)
    url = stage.apply(planned("vertex", 0, "dedicated=true", "timeout=300"), verified, quiet)
    assert url == f"https://churn.l-1.prediction.vertexai.goog/v1/{ENDPOINT}:predict"
    assert verified.urls[0].startswith("https://churn-candidate.l-1.")
    limit = state.endpoints[ENDPOINT].client_connection_config.inference_timeout
    assert limit.total_seconds() == 300


def test_vertex_deployment_that_fails(google: Any, planned: Callable[..., Plan]) -> None:
    state, _ = google
    words = "Model server never became ready. Please validate that your model file is valid"
    state.fail["DeployModel"] = RefusalError("INVALID_ARGUMENT", words)
    with pytest.raises(PlatformError, match=words):
        stage.apply(planned("vertex"), Verified(state), quiet)
    assert (state.endpoints, state.models) == ({}, {})


def test_vertex_destroy_after_a_canary(google: Any, planned: Callable[..., Plan]) -> None:
    state, _ = google
    stage.apply(planned("vertex", 0), Verified(state), quiet)
    stage.apply(planned("vertex", 1, "percent=20"), Verified(state), quiet)
    stage.destroy(planned("vertex", 2), quiet)  # by name: whatever the image
    assert (state.endpoints, state.models) == ({}, {})


def test_vertex_batch(google: Any, planned: Callable[..., Plan]) -> None:
    state, _ = google
    where = ("mode=batch", "source=gs://b/in.jsonl", "destination=gs://b/out/")
    lines: list[str] = []
    assert (
        stage.apply(planned("vertex", 0, *where), lambda plan, url, headers: None, lines.append)
        == ""
    )
    assert state.calls.count("GetBatchPredictionJob") == 3
    state.fail["CreateBatchPredictionJob"] = RefusalError("INTERNAL", "")
    with pytest.raises(PlatformError, match="the file has no instances"):
        stage.apply(planned("vertex", 0, *where), lambda plan, url, headers: None, quiet)


# Requests and errors -------------------------------------------------------------------------


def call(operation: str, service: str = "run.ServicesClient", **more: Any) -> Call:
    return Call("it", service, operation, {}, "do it", **more)


@pytest.mark.parametrize(
    ("code", "kind", "hint"),
    [
        ("ALREADY_EXISTS", ConflictError, ""),
        ("NOT_FOUND", NotFoundError, ""),
        ("PERMISSION_DENIED", PlatformError, "needed: run.services.get"),
        ("UNAUTHENTICATED", PlatformError, "gcloud auth application-default login"),
        ("RESOURCE_EXHAUSTED", PlatformError, "quota"),
        ("INVALID_ARGUMENT", PlatformError, ""),
        ("INTERNAL", PlatformError, ""),
    ],
)
def test_refusals_become_our_errors(google: Any, code: str, kind: type, hint: str) -> None:
    state, connection = google
    state.refuse["GetService"] = RefusalError(code, "words of the platform")
    asked = call("get_service", rights=("run.services.get",))
    connected = GoogleApplier().connect({"region": "europe-west4", **connection})
    with pytest.raises(kind, match="words of the platform") as error:
        connected.call(asked, {"name": SERVICE})
    assert hint in error.value.hint
    assert type(error.value) is kind


def test_nobody_answers() -> None:
    connected = GoogleApplier().connect({"region": "x", "emulator": "127.0.0.1:1"})
    with pytest.raises(PlatformError, match=r"ServiceUnavailable|cannot be reached"):
        connected.call(call("delete_service"), {"name": SERVICE})


def test_an_operation_that_takes_too_long(google: Any) -> None:
    state, connection = google
    state.services[SERVICE] = run_v2.Service(name=SERVICE)
    state._look = lambda request, context: operations_pb2.Operation(name=request.name)
    connected = GoogleApplier().connect({"region": "x", **connection})
    deletion = call("delete_service", wait={"operation": 0.01})
    answer = connected.call(deletion, {"name": SERVICE})
    with pytest.raises(PlatformError, match="not done after 0 s"):
        connected.wait(deletion, {"name": SERVICE}, answer, quiet)


def test_without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(PlatformError, match="no credentials") as error:
        GoogleApplier().connect({"region": "europe-west4"})
    assert "application-default login" in error.value.hint


@pytest.mark.parametrize(
    ("asked", "parameters", "words"),
    [
        (call("create_service"), {"parnet": "x"}, "parnet"),
        (call("create_service"), {"service": {"template": {"contianers": []}}}, "contianers"),
        (call("create_service"), {"service": {"ingress": "EVERYBODY"}}, "ingress"),
        (call("make_service"), {}, "no run.ServicesClient.make_service"),
        (call("create_service", "storage.Client"), {}, "storage.Client"),
    ],
)
def test_requests_that_the_api_does_not_have(
    asked: Call, parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        build_request(asked, parameters)


# Traffic -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("former", "percent", "expected"),
    [
        ({}, 10, {"new": 100}),
        ({"new": 100}, 10, {"new": 100}),
        ({"a": 100}, 0, {"a": 100}),
        ({"a": 100}, 100, {"new": 100}),
        ({"a": 100}, 10, {"a": 90, "new": 10}),
        ({"a": 90, "new": 10}, 25, {"a": 75, "new": 25}),
        ({"a": 33, "b": 33, "c": 34}, 50, {"a": 17, "b": 16, "c": 17, "new": 50}),
        ({"a": 1, "b": 99}, 99, {"b": 1, "new": 99}),
        ({"a": 0, "b": 100}, 30, {"b": 70, "new": 30}),
    ],
)
def test_shares(former: dict[str, int], percent: int, expected: dict[str, int]) -> None:
    found = shares(former, "new", percent)
    assert found == expected
    assert sum(found.values()) == 100


def test_shares_always_add_up() -> None:
    for first in range(0, 101, 7):
        for percent in range(101):
            found = shares({"a": first, "b": 100 - first}, "new", percent)
            assert sum(found.values()) == 100
            assert found.get("new", 0) == percent
            assert min(found.values()) > 0


def test_revisions_of_a_service_that_says_nothing_of_traffic() -> None:
    """All of it then goes to the latest that was ready."""
    latest = f"{SERVICE}/revisions/churn-1"
    found = revisions([], latest, "churn-2", 10, "")
    assert {t["revision"]: t["percent"] for t in found} == {"churn-1": 90, "churn-2": 10}


def test_revisions_of_a_service_that_was_never_ready() -> None:
    found = revisions([], "", "churn-2", 0, "candidate")
    assert [(t["revision"], t.get("percent", 0), t.get("tag", "")) for t in found] == [
        ("churn-2", 100, ""),
        ("churn-2", 0, "candidate"),
    ]
