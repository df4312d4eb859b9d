"""Cloud Run and Knative: what is planned is what the API, the YAML and the server know."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import numpy as np
import pytest
import yaml
from google.cloud import run_v2

from modelport.core.errors import InputError, LimitError, NotFoundError
from modelport.core.package import Package
from modelport.deploy import show, stage
from modelport.deploy.base import Plan
from modelport.deploy.google.messages import build_request
from modelport.deploy.service import Footprint
from tests.serve.test_platforms import PlatformServer

from .golden_files import assert_golden
from .google_types import answered, every_call, is_method, missing_fields, required

IMAGE = "europe-docker.pkg.dev/acme-ml/models/churn@sha256:" + "ab" * 32
LEAST = ["project=acme-ml", "region=europe-west4", f"image={IMAGE}"]
PUBLIC = ["public=true", "key-secret=churn-key:3", "percent=10", "service-account=a@b.example.com"]
VARIANTS: dict[str, list[str]] = {
    "cloudrun": LEAST,
    "cloudrun-public": [*LEAST, *PUBLIC, "cpu=2", "min-instances=1", "ingress=internal"],
    "cloudrun-own": [
        *LEAST,
        "public=true",
        "key-secret=churn-key:3",
        "generation=gen2",
        "memory=1Gi",
    ],
    "cloudrun-knative": ["knative=true", f"image={IMAGE}", "name=churn-v2", "ingress=internal"],
}
MIB = 1 << 20

Make = Callable[..., Plan]


@pytest.fixture
def make(package: Package, footprint: Footprint) -> Make:
    def plan(*pairs: str, footprint: Footprint = footprint) -> Plan:
        return stage.plan(package, "cloudrun", pairs, footprint=footprint)

    return plan


def revision(plan: Plan) -> str:
    service: str = yaml.safe_load(plan.files[0].content)["spec"]["template"]["metadata"]["name"]
    return service


@pytest.mark.parametrize("variant", VARIANTS)
def test_golden(variant: str, make: Make, package: Package) -> None:
    plan = make(*VARIANTS[variant])
    texts = {
        f"{variant}.txt": show.to_text(plan),
        f"{variant}.json": json.dumps(show.to_json(plan)["calls"], indent=2) + "\n",
        f"{variant}/service.yaml": plan.files[0].content,
    }
    for name, text in texts.items():
        assert_golden(name, text.replace(revision(plan), f"{plan.service.name}-SHAPE"), package)


# The API's own types -------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["cloudrun", "cloudrun-public", "cloudrun-own"])
def test_every_request_builds_and_has_what_is_required(variant: str, make: Make) -> None:
    calls = [call for call in every_call(make(*VARIANTS[variant])) if is_method(call)]
    assert len(calls) == 7, "beside accounts and roles"
    for call in calls:
        request = build_request(call, answered(call.parameters))
        assert isinstance(request, getattr(run_v2, type(request).__name__))
        assert missing_fields(request) == [], call.id


def test_the_check_for_required_fields_finds_them() -> None:
    assert required(run_v2.CreateServiceRequest) == ["parent", "service", "service_id"]
    request = run_v2.CreateServiceRequest(service={"template": {"containers": [{"name": "x"}]}})
    missing = missing_fields(request)
    assert {"parent", "service_id", "image"} <= {path.rpartition(".")[2] for path in missing}


def created(plan: Plan) -> run_v2.Service:
    call = next(call for call in plan.calls if call.id == "service")
    service: run_v2.Service = build_request(call, answered(call.parameters)).service
    return service


def test_the_service_that_is_created(make: Make) -> None:
    service = created(make(*LEAST))
    template = service.template
    (container,) = template.containers
    assert container.image == IMAGE
    assert container.ports[0].container_port == 8080
    assert {e.name: e.value for e in container.env} == {
        "MODELPORT_TIMEOUT": "60",
        "MODELPORT_GRACE": "8",
        "MODELPORT_ALLOW_ANONYMOUS": "1",
    }
    assert dict(container.resources.limits) == {"cpu": "1", "memory": "512Mi"}
    assert container.resources.startup_cpu_boost
    assert template.timeout.total_seconds() == 60
    assert template.service_account.endswith("@acme-ml.iam.gserviceaccount.com")
    assert not service.invoker_iam_disabled
    (first,) = service.traffic
    assert (first.type_.name.rpartition("_")[2], first.percent) == ("LATEST", 100)
    assert not first.revision, "it does not exist yet: it could not be named"
    start, live = container.startup_probe, container.liveness_probe
    assert start.failure_threshold * start.period_seconds <= 240
    for probe in (start, live):
        assert probe.timeout_seconds < probe.period_seconds
        assert not probe.http_get.path.endswith("z"), "the front end keeps those"


def test_a_public_service_asks_for_the_key(make: Make) -> None:
    service = created(make(*LEAST, *PUBLIC))
    environment = {e.name: e for e in service.template.containers[0].env}
    assert service.invoker_iam_disabled
    assert "MODELPORT_ALLOW_ANONYMOUS" not in environment
    reference = environment["MODELPORT_API_KEY"].value_source.secret_key_ref
    assert (reference.secret, reference.version) == ("churn-key", "3")
    assert not environment["MODELPORT_API_KEY"].value


def test_another_image_is_another_revision(make: Make) -> None:
    """The same name with other contents would be refused by Cloud Run."""
    names = [
        revision(make(*LEAST)),
        revision(make(*LEAST[:2], f"image={IMAGE[:-2]}cd")),
        revision(make(*LEAST, "cpu=2")),
        revision(make(*LEAST, "name=" + "n" * 49)),
    ]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 for name in names)
    assert revision(make(*LEAST, "percent=10")) == names[0], "traffic is not part of a revision"


def test_what_is_taken_away_does_not_depend_on_the_image(make: Make) -> None:
    """`destroy` is planned without the digest that `apply` pinned."""

    def undone(plan: Plan) -> list[Any]:
        lasting = [c.undo for c in plan.calls if c.undo and c.id != "candidate"]
        return [(undo.operation, undo.parameters) for undo in lasting]

    assert undone(make(*LEAST)) == undone(make(*LEAST[:2])) != []


@pytest.mark.parametrize(
    ("name", "region"),
    [("a", "europe-west4"), ("n" * 49, "us-central1"), ("abc-def-ghi-jkl-mn-op", "asia-east1")],
)
def test_names_of_accounts(make: Make, name: str, region: str) -> None:
    plan = make("project=acme-ml", f"region={region}", f"name={name}")
    account = plan.calls[0].parameters["body"]["accountId"]
    assert 6 <= len(account) <= 30
    assert account[0].isalpha()
    assert not account.endswith("-")
    other = make("project=acme-ml", "region=us-east1", f"name={name}")
    assert other.calls[0].parameters["body"]["accountId"] != account, "destroyed on its own"


def test_only_read_modify_write_with_an_etag(make: Make) -> None:
    for call in make(*LEAST).calls[2:]:
        assert "etag" in call.parameters["service"]


# The YAML ------------------------------------------------------------------------------------

#: Knative Serving v1: what a Service may have, and below it, as far as it is not Kubernetes' own.
_KEYS = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "metadata": {"name", "namespace", "labels", "annotations"},
    "spec": {"template", "traffic"},
    "spec.template": {"metadata", "spec"},
    "spec.template.metadata": {"name", "labels", "annotations"},
    "spec.traffic": {"revisionName", "latestRevision", "percent", "tag"},
}
_REVISION_ONLY = {"containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds"}
_CLOUD_RUN = {
    "run.googleapis.com/ingress",
    "run.googleapis.com/invoker-iam-disabled",
    "run.googleapis.com/cpu-throttling",
    "run.googleapis.com/startup-cpu-boost",
    "autoscaling.knative.dev/minScale",
    "autoscaling.knative.dev/maxScale",
}


def at(document: Any, path: str) -> list[dict[str, Any]]:
    for key in path.split(".") if path else []:
        document = document[key]
    return document if isinstance(document, list) else [document]


def check_knative(document: dict[str, Any]) -> None:
    """A Knative Service: its own keys here, its pod by Kubernetes' own schema, strictly."""
    assert (document["apiVersion"], document["kind"]) == ("serving.knative.dev/v1", "Service")
    for path, known in _KEYS.items():
        for item in at(document, path):
            assert set(item) <= known, path
    for metadata in (*at(document, "metadata"), *at(document, "spec.template.metadata")):
        texts = {**metadata.get("annotations", {}), **metadata["labels"]}
        assert all(isinstance(value, str) for value in texts.values()), "annotations are texts"
    name = document["metadata"]["name"]
    assert document["spec"]["template"]["metadata"]["name"].startswith(f"{name}-")
    assert sum(target["percent"] for target in document["spec"]["traffic"]) == 100
    spec = dict(document["spec"]["template"]["spec"])
    for key in _REVISION_ONLY:
        assert isinstance(spec.pop(key, 0), int)
    (container,) = spec["containers"]
    assert [port["name"] for port in container["ports"]] in (["http1"], ["h2c"])
    assert {env["name"] for env in container["env"]}.isdisjoint(
        {"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"}
    )
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    kubernetes_validate.validate(pod, "1.32", strict=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_yaml_is_a_knative_service(variant: str, make: Make) -> None:
    plan = make(*VARIANTS[variant])
    (file,) = plan.files
    document = yaml.safe_load(file.content)
    check_knative(document)
    used = {
        key
        for metadata in (document["metadata"], document["spec"]["template"]["metadata"])
        for key in metadata.get("annotations", {})
    }
    if variant == "cloudrun-knative":
        assert used == {"autoscaling.knative.dev/min-scale", "autoscaling.knative.dev/max-scale"}
        assert "googleapis" not in file.content
        assert not plan.calls
        assert not plan.applier
    else:
        second = {"run.googleapis.com/execution-environment"}
        assert used == (_CLOUD_RUN | second if variant == "cloudrun-own" else _CLOUD_RUN)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d["spec"]["template"]["spec"].update(concurrency=1),
        lambda d: d["spec"]["template"]["spec"]["containers"][0].update(imgae="x"),
        lambda d: d["spec"].update(scaling=1),
        lambda d: d["metadata"]["annotations"].update(x=1),
        lambda d: d["spec"]["traffic"][0].update(percent=99),
        lambda d: d["spec"]["template"]["metadata"].update(name="other"),
    ],
)
def test_the_check_of_the_yaml_finds_mistakes(spoil: Callable[[Any], Any], make: Make) -> None:
    document = yaml.safe_load(make(*LEAST).files[0].content)
    spoil(document)
    with pytest.raises((AssertionError, kubernetes_validate.ValidationError)):
        check_knative(document)


def test_the_yaml_says_what_the_api_is_told(make: Make) -> None:
    plan = make(*VARIANTS["cloudrun-public"])
    service = created(plan)
    template = service.template
    document = yaml.safe_load(plan.files[0].content)
    spec = document["spec"]["template"]["spec"]
    (written,), (told,) = spec["containers"], template.containers
    assert document["spec"]["template"]["metadata"]["name"] == template.revision
    assert spec["serviceAccountName"] == template.service_account
    assert spec["timeoutSeconds"] == template.timeout.total_seconds()
    assert spec["containerConcurrency"] == template.max_instance_request_concurrency
    assert written["image"] == told.image
    assert written["resources"]["limits"] == dict(told.resources.limits)
    assert [e["name"] for e in written["env"]] == [e.name for e in told.env]
    for key, probe in (
        ("startupProbe", told.startup_probe),
        ("livenessProbe", told.liveness_probe),
    ):
        assert written[key]["httpGet"]["path"] == probe.http_get.path
        assert written[key]["periodSeconds"] == probe.period_seconds
        assert written[key]["failureThreshold"] == probe.failure_threshold
    annotations = document["spec"]["template"]["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/minScale"] == str(
        template.scaling.min_instance_count
    )
    assert document["metadata"]["annotations"]["run.googleapis.com/ingress"] == "internal"
    assert service.ingress.name == "INGRESS_TRAFFIC_INTERNAL_ONLY"
    disabled = document["metadata"]["annotations"]["run.googleapis.com/invoker-iam-disabled"]
    assert disabled == str(service.invoker_iam_disabled).lower() == "true"


def test_on_a_cluster_of_ones_own_nothing_is_allowed(make: Make) -> None:
    document = yaml.safe_load(make(*VARIANTS["cloudrun-knative"]).files[0].content)
    spec = document["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    security = container["securityContext"]
    assert security["runAsNonRoot"]
    assert security["readOnlyRootFilesystem"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec["automountServiceAccountToken"]
    names = {env["name"] for env in container["env"]}
    assert "MODELPORT_ALLOW_ANONYMOUS" not in names, "nobody authenticates in front of it"
    assert "MODELPORT_API_KEY" in names
    labels = document["metadata"]["labels"]
    assert labels["networking.knative.dev/visibility"] == "cluster-local"


# Settings and limits -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (["region=europe-west4"], "needs a project"),
        (["project=acme-ml"], "needs a region"),
        (["project=Acme", "region=europe-west4"], "'Acme'"),
        (["project=acme-ml", "region=Europe"], "'Europe'"),
        ([*LEAST, "public=true"], "needs a key"),
        ([*LEAST, "cpu=3"], "3"),
        ([*LEAST, "percent=0"], "0"),
        ([*LEAST, "percent=101"], "101"),
        ([*LEAST, "min-instances=5", "max-instances=4"], "5 to 4"),
        ([*LEAST, "min-instances=-1"], "-1"),
        ([*LEAST, "max-instances=0"], "0 to 0"),
        ([*LEAST, "memory=lots"], "lots"),
        ([*LEAST, "service-account=me"], "'me'"),
        ([*LEAST, "key-secret=churn-key"], "not public has no key"),
        ([*LEAST, "public=true", "key-secret=a b"], "no name of a secret"),
        ([*LEAST, "public=true", "key-secret=k", "invoker=user:a@b.c"], "anybody may call"),
        ([*LEAST, "invoker=allUsers"], "'allUsers'"),
        ([*LEAST, "invoker=user:a@b.c; rm -r /"], "not somebody"),
        ([*LEAST[:2], "image=Foo bar"], "Foo bar"),
        ([*LEAST, "generation=gen2", "memory=256Mi"], "needs 512Mi"),
        (["knative=true", "namespace=a b"], "not a namespace"),
        (["knative=true", "service-account=A@b"], "not a service-account"),
        (["knative=true", "key-secret=x;y/z"], "not a Secret"),
    ],
)
def test_settings_that_cannot_be(pairs: list[str], words: str, make: Make) -> None:
    with pytest.raises(InputError, match=words):
        make(*pairs)


def test_a_key_in_place_of_its_secrets_name_is_not_repeated(make: Make) -> None:
    with pytest.raises(InputError) as error:
        make(*LEAST, "public=true", "key-secret=hunter2+hunter2/hunter2")
    assert "hunter2" not in str(error.value)


def test_who_may_open_a_service_to_all(make: Make) -> None:
    """Source: Cloud Run, "Disable the Cloud Run Invoker": the right to update is not enough."""
    assert "run.services.setIamPolicy" in make(*LEAST, *PUBLIC).rights
    assert "run.services.setIamPolicy" not in make(*LEAST).rights


@pytest.mark.parametrize(
    ("image", "taken"),
    [
        ("europe-docker.pkg.dev/p/r/churn", True), ("eu.gcr.io/p/churn", True),
        ("gcr.io/p/churn", True), ("me/churn", True), ("docker.io/me/churn:1", True),
        ("registry.example/churn", False), ("docker.pkg.dev.example/churn", False),
        ("xgcr.io/churn", False),
    ],
)  # fmt: skip
def test_registries_that_cloud_run_does_not_know(make: Make, image: str, taken: bool) -> None:
    plan = make(*LEAST[:2], f"image={image}")
    assert any("refuses images from" in note for note in plan.notes) is not taken


def test_ingress_is_one_of_three(make: Make) -> None:
    with pytest.raises(NotFoundError, match="internal-and-cloud-load-balancing"):
        make(*LEAST, "ingress=everywhere")


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("memory=4Gi", "memory=33Gi"),
        ("cpu=8", None),
        (None, ("cpu=1", "memory=4097Mi")),
        (("cpu=4", "memory=2Gi"), ("cpu=4", "memory=2047Mi")),
        ("timeout=3600", "timeout=3601"),
        ("concurrency=1000", "concurrency=1001"),
        (f"name={'n' * 49}", f"name={'n' * 50}"),
    ],
)
def test_limits(good: Any, bad: Any, make: Make) -> None:
    def several(pairs: Any) -> tuple[str, ...]:
        return pairs if isinstance(pairs, tuple) else (pairs,)

    if good and good != "cpu=8":
        make(*LEAST, *several(good))
    if bad:
        with pytest.raises(LimitError) as error:
            make(*LEAST, *several(bad))
        assert "--set" in error.value.hint


@pytest.mark.parametrize(
    ("memory", "processor", "expected"),
    [
        (90 * MIB, 0.0001, (512, 1, 80)),
        (90 * MIB, 0.005, (512, 1, 20)),
        (300 * MIB, 0.3, (640, 1, 1)),
        (3000 * MIB, 0.02, (6016, 2, 10)),
        (9000 * MIB, 0.0, (18048, 8, 80)),
    ],
)
def test_instances_follow_what_was_measured(
    memory: int, processor: float, expected: tuple[int, int, int], make: Make
) -> None:
    measured = Footprint(memory, 0.001, processor, 0.5, measured=True)
    template = created(make(*LEAST, footprint=measured)).template
    limits = template.containers[0].resources.limits
    found = (limits["memory"], limits["cpu"], template.max_instance_request_concurrency)
    assert found == (f"{expected[0]}Mi", str(expected[1]), expected[2])


def test_without_an_image_it_is_still_a_plan(make: Make, package: Package) -> None:
    tag = package.digest.removeprefix("sha256:")[:12]
    plan = make(*LEAST[:2], "image=europe-docker.pkg.dev/acme-ml/m/churn")
    assert plan.image == f"europe-docker.pkg.dev/acme-ml/m/churn:{tag}"
    assert any("not pinned" in note for note in plan.notes)
    assert make(*LEAST[:2]).image.startswith("<set image=")


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


def planned_environment(plan: Plan, secrets: dict[str, str]) -> dict[str, str]:
    """What Cloud Run sets for the container of the plan."""
    environment = {}
    for entry in created(plan).template.containers[0].env:
        secret = entry.value_source.secret_key_ref.secret
        environment[entry.name] = secrets[secret] if secret else entry.value
    return {**environment, "PORT": "{port}", "K_SERVICE": "churn", "K_REVISION": "churn-1"}


def test_the_server_answers_as_planned(make: Make, started: Callable[..., PlatformServer]) -> None:
    plan = make(*LEAST)
    server = started(planned_environment(plan, {}))
    container = created(plan).template.containers[0]
    for probe in (container.startup_probe, container.liveness_probe):
        assert server.get(probe.http_get.path).status == 200
    rows = np.ones((2, 8), np.float32).tolist()
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 8], "data": rows}
    answer = server.post("/v2/models/churn/infer", {"inputs": [tensor]})
    assert answer.status == 200, answer.body
    assert answer.json()["outputs"][0]["shape"][0] == 2
    server.process.terminate()
    assert server.wait_exit() == 0, "SIGTERM ends it in time"


def test_a_public_server_wants_the_key(make: Make, started: Callable[..., PlatformServer]) -> None:
    plan = make(*LEAST, *PUBLIC)
    server = started(planned_environment(plan, {"churn-key": "open-sesame-open-sesame"}))
    container = created(plan).template.containers[0]
    for probe in (container.startup_probe, container.liveness_probe):
        assert server.get(probe.http_get.path).status == 200, "probes have no key"
    assert server.get("/v2/models/churn").status == 401
    answer = server.request(
        "GET", "/v2/models/churn", headers={"X-API-Key": "open-sesame-open-sesame"}
    )
    assert answer.status == 200
