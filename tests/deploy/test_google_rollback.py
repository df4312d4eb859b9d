"""Google's clients against its APIs on this machine: roles, interruptions, what is taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform_v1
from google.longrunning import operations_pb2
from google.rpc import error_details_pb2

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
from modelport.deploy.google.iam import _granted, _revoked
from modelport.deploy.google.refusals import translate
from modelport.deploy.service import Footprint

from .google_fake import Google, RefusalError, google_here

PLACE = ["project=acme-ml", "region=europe-west4", "name=churn"]
PARENT = "projects/acme-ml/locations/europe-west4"
ENDPOINT, SERVICE = f"{PARENT}/endpoints/churn", f"{PARENT}/services/churn"
SECRET = "projects/acme-ml/secrets/churn-key"
READER = "roles/secretmanager.secretAccessor"
KEY = ["public=true", "key-secret=churn-key:3"]

Make = Callable[..., Plan]


@pytest.fixture
def google() -> Iterator[tuple[Google, dict[str, str]]]:
    with google_here() as here:
        yield here


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPORT_API_KEY", "open-sesame-open-sesame")


@pytest.fixture
def planned(google: tuple[Google, dict[str, str]], package: Package, footprint: Footprint) -> Make:
    def make(target: str, *pairs: str) -> Plan:
        image = "image=europe-docker.pkg.dev/acme-ml/m/churn@sha256:" + "a" * 64
        plan = stage.plan(package, target, [*PLACE, image, *pairs], footprint=footprint)
        return replace(plan, connection={**plan.connection, **google[1]})

    return make


def agree(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
    """An endpoint that gives the right answers."""


def differ(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
    raise ParityError("3 of 4 records differ")


def quiet(line: str) -> None:
    """Report nothing."""


# Roles ---------------------------------------------------------------------------------------


def test_the_services_own_account_can_read_the_key_before_it_starts(
    google: Any, planned: Make
) -> None:
    """Otherwise no instance starts, and the account that should get the role is taken back."""
    state, _ = google
    state.policies[SECRET] = [("roles/owner", "user:me@example.com")]
    state.policy_refusals = [(400, "Service account x does not exist."), (409, "etag")]
    plan = planned("cloudrun", *KEY)
    stage.apply(plan, agree, quiet)
    assert state.calls.index("CreateService") > state.calls.index("iam POST", 2)
    (account,) = state.accounts
    member = "serviceAccount:" + account.rpartition("/")[2]
    owner = ("roles/owner", "user:me@example.com")
    assert state.policies[SECRET] == [owner, (READER, member)]
    stage.apply(planned("cloudrun", *KEY, "cpu=2"), agree, quiet)
    with pytest.raises(ParityError):
        stage.apply(planned("cloudrun", *KEY, "cpu=4", "memory=2Gi"), differ, quiet)
    assert (READER, member) in state.policies[SECRET], "it had the role before"
    stage.destroy(plan, quiet)
    assert state.policies[SECRET] == [owner]
    stage.destroy(plan, quiet)


def test_a_secret_that_may_not_be_shared(google: Any, planned: Make) -> None:
    state, _ = google
    state.policy_refusals = [(403, "Permission denied")]
    with pytest.raises(PlatformError, match="Permission denied") as error:
        stage.apply(planned("cloudrun", *KEY), agree, quiet)
    assert "secretmanager.secrets.setIamPolicy" in error.value.hint
    assert (state.services, state.accounts) == ({}, set())


def test_a_public_server_is_shown_the_key(
    google: Any, planned: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An identity token in its place would be refused, and a right deployment taken back."""
    shown: list[Mapping[str, str]] = []
    stage.apply(planned("cloudrun", *KEY), lambda plan, url, headers: shown.append(headers), quiet)
    stage.apply(planned("cloudrun"), lambda plan, url, headers: shown.append(headers), quiet)
    assert shown == [{"x-api-key": "open-sesame-open-sesame"}, {}]
    monkeypatch.delenv("MODELPORT_API_KEY")
    with pytest.raises(InputError, match="MODELPORT_API_KEY has none"):
        stage.apply(planned("cloudrun", *KEY), agree, quiet)


def test_callers_are_let_in_after_the_verification(google: Any, planned: Make) -> None:
    state, _ = google
    somebody = "serviceAccount:shop@acme-ml.iam.gserviceaccount.com"
    plan = planned("cloudrun", f"invoker={somebody}")
    with pytest.raises(ParityError):
        stage.apply(plan, differ, quiet)
    assert SERVICE not in state.policies
    stage.apply(plan, agree, quiet)
    assert state.policies[SERVICE] == [("roles/run.invoker", somebody)]
    stage.apply(plan, agree, quiet)
    assert state.policies[SERVICE] == [("roles/run.invoker", somebody)]


def test_other_bindings_and_their_conditions_stay() -> None:
    conditional = {"role": "r", "members": ["user:a"], "condition": {"expression": "false"}}
    policy = {"version": 3, "etag": "e", "bindings": [conditional]}
    granted = _granted(policy, "r", "user:a")
    assert granted["bindings"] == [conditional, {"role": "r", "members": ["user:a"]}]
    assert (granted["version"], granted["etag"]) == (3, "e")
    with pytest.raises(ConflictError):
        _granted(granted, "r", "user:a")
    assert _revoked(granted, "r", "user:a")["bindings"] == [conditional]
    with pytest.raises(NotFoundError, match=r"r not found: user:a$"):
        _revoked(policy, "r", "user:a")


# What is under way ---------------------------------------------------------------------------


def never_ends(state: Google, method: str) -> None:
    """Its operation goes on until it is cancelled."""
    start, look = state._start, state._look
    endless: list[str] = []

    def started(name: str, result: Any) -> Any:
        operation = start(name, result)
        if name == method:
            endless.append(operation.name)
        return operation

    def looked(request: Any, context: Any) -> Any:
        if request.name in endless and request.name not in state.cancelled:
            return operations_pb2.Operation(name=request.name)
        return look(request, context)

    state._start = started  # type: ignore[method-assign]
    state._look = looked  # type: ignore[method-assign]


def test_ctrl_c_while_a_model_is_deployed(google: Any, planned: Make) -> None:
    """It would be ready after everything else was taken back, and cost its machines."""
    state, _ = google
    never_ends(state, "DeployModel")

    def press(line: str) -> None:
        if line.startswith("deploy the model") and line.endswith(" s"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.apply(planned("vertex", "candidate=false"), agree, press)
    assert len(state.cancelled) == 1
    assert (state.endpoints, state.models) == ({}, {})


def test_a_deployment_that_fails_leaves_the_endpoint_as_it_was(google: Any, planned: Make) -> None:
    state, _ = google
    stage.apply(planned("vertex"), agree, quiet)
    state.fail["DeployModel"] = RefusalError("INTERNAL", "no machines")
    lines: list[str] = []
    with pytest.raises(PlatformError, match="no machines"):
        stage.apply(planned("vertex", "candidate=false"), agree, lines.append)
    assert list(state.endpoints[ENDPOINT].traffic_split.values()) == [100]
    assert len(state.models[f"{PARENT}/models/churn"]) == 1
    assert not [line for line in lines if "could not be taken back" in line]


def test_what_cannot_be_cleaned_up_does_not_take_back_what_serves(
    google: Any, planned: Make
) -> None:
    state, _ = google
    stage.apply(planned("vertex"), agree, quiet)
    state.refuse["DeleteEndpoint"] = RefusalError("INTERNAL", "try later")
    lines: list[str] = []
    stage.apply(planned("vertex"), agree, lines.append)
    assert state.endpoints[ENDPOINT].deployed_models[0].model.endswith("@2")
    assert any("try later" in line and "costs" in line for line in lines)


def test_ctrl_c_cancels_a_batch_job(google: Any, planned: Make) -> None:
    state, _ = google

    def press(line: str) -> None:
        if line == "score the files: 0 s":
            raise KeyboardInterrupt

    where = ("mode=batch", "source=gs://b/in.jsonl", "destination=gs://b/out/")
    with pytest.raises(KeyboardInterrupt):
        stage.apply(planned("vertex", *where), agree, press)
    assert "CancelBatchPredictionJob" in state.calls
    assert state.models == {}


def test_a_dedicated_endpoint_without_an_address_is_not_asked_elsewhere(google: Any) -> None:
    state, connection = google
    state.endpoints[ENDPOINT] = aiplatform_v1.Endpoint(
        name=ENDPOINT, dedicated_endpoint_enabled=True
    )
    connected = GoogleApplier().connect({"region": "europe-west4", **connection})
    read = Call("it", "aiplatform.EndpointServiceClient", "get_endpoint", {}, "read it")
    assert "predict_url" not in connected.call(read, {"name": ENDPOINT})


def test_an_api_that_is_switched_off() -> None:
    error = exceptions.Forbidden(
        "Cloud Run Admin API has not been used in project 1",
        error_info=_info("SERVICE_DISABLED", {"service": "run.googleapis.com"}),
    )
    call = Call("it", "run.ServicesClient", "get_service", {}, "read", rights=("run.x",))
    assert translate(call, error).hint == "gcloud services enable run.googleapis.com"


def _info(reason: str, metadata: dict[str, str]) -> Any:
    return error_details_pb2.ErrorInfo(reason=reason, metadata=metadata)
