"""KServe: YAML against the published CRDs, calls against a small API server."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

from modelport.core.errors import InputError, LimitError, ParityError, PlatformError
from modelport.core.package import Package
from modelport.deploy import show, stage
from modelport.deploy.appliers import kubernetes as applier
from modelport.deploy.base import Plan
from modelport.deploy.kubernetes import changes, watch
from modelport.deploy.kubernetes.state import service_state
from modelport.deploy.service import Footprint
from tests.deploy.fake_kubernetes import Cluster, running
from tests.deploy.golden_files import assert_golden
from tests.deploy.test_helm import IMAGE, KEY
from tests.deploy.test_kubernetes import agree, pods_start, quiet, refuse
from tests.deploy.test_kubernetes_changes import allowed_by, role_of

TARGET: Final = "kserve"
#: ``config/crd/full`` of github.com/kserve/kserve; published schemas lie beside the checkout.
CRDS: Final = Path(
    os.environ.get("KSERVE_SCHEMAS")
    or Path(__file__).parents[3] / "shared" / "reference" / "schemas" / "kserve"
)
SERVICE: Final = "/apis/serving.kserve.io/v1beta1/namespaces/models/inferenceservices/churn"

CHOICES: Final = {
    "a key": [KEY],
    "anonymous": ["anonymous=true"],
    "v1": [KEY, "protocol=v1"],
    "grpc": [KEY, "protocol=grpc-v2"],
    "knative": [KEY, "mode=knative", "min-replicas=0", "scale-metric=rps", "scale-target=50"],
    "canary": [KEY, "mode=knative", "canary=10", "concurrency=4"],
    "knative grpc": [KEY, "mode=knative", "protocol=grpc-v2"],
    "storage": [KEY, "storage-uri=s3://bucket/churn", "service-account=reader"],
}


def plan_of(package: Package, footprint: Footprint, settings: list[str]) -> Plan:
    return stage.plan(package, TARGET, [IMAGE, *settings], footprint=footprint)


def objects_of(plan: Plan) -> dict[str, Any]:
    bodies = [yaml.safe_load(f.content) for f in plan.files]
    return {body["kind"]: body for body in bodies if body["kind"] != "Role"}


def strict(schema: Any) -> Any:
    """A schema that refuses unknown fields, but for those that Kubernetes keeps."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items() if key != "properties"}
    if "properties" in schema:
        closed["properties"] = {k: strict(v) for k, v in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    return closed


def schema_of(body: dict[str, Any]) -> Any:
    """The published schema of an object; its metadata are Kubernetes' own."""
    name = {"InferenceService": "inferenceservices", "ServingRuntime": "servingruntimes"}
    path = CRDS / f"{name[body['kind']]}.yaml"
    if not path.exists():
        pytest.skip(f"{path} is not there; KSERVE_SCHEMAS may name KServe's config/crd/full")
    crd = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    version = body["apiVersion"].rpartition("/")[2]
    return strict(
        next(
            v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == version
        )
    )


@pytest.fixture(scope="module")
def schemas(package: Package, footprint: Footprint) -> dict[str, Any]:
    bodies = objects_of(plan_of(package, footprint, [KEY]))
    return {kind: schema_of(body) for kind, body in bodies.items()}


@pytest.mark.parametrize("settings", CHOICES.values(), ids=CHOICES.keys())
def test_every_object_is_valid_with_unknown_fields_forbidden(
    package: Package, footprint: Footprint, schemas: dict[str, Any], settings: list[str]
) -> None:
    plan = plan_of(package, footprint, settings)
    sent = [c.parameters["object"] for c in plan.calls if c.operation == "create"]
    for body in [*objects_of(plan).values(), *sent]:
        jsonschema.Draft7Validator(schemas[body["kind"]]).validate(body)


def test_the_schemas_catch_mistakes(
    package: Package, footprint: Footprint, schemas: dict[str, Any]
) -> None:
    body = objects_of(plan_of(package, footprint, [KEY]))["InferenceService"]
    body["spec"]["predictor"]["minReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        jsonschema.Draft7Validator(schemas["InferenceService"]).validate(body)


@pytest.mark.parametrize("choice", ["a key", "canary", "grpc"])
def test_the_plan_is_the_golden_one(package: Package, footprint: Footprint, choice: str) -> None:
    plan = plan_of(package, footprint, CHOICES[choice])
    folder = choice.replace(" ", "-")
    texts = {
        "plan.txt": show.to_text(plan),
        "plan.json": json.dumps(show.to_json(plan), indent=1) + "\n",
        **{file.path: file.content for file in plan.files},
    }
    bodies = objects_of(plan)
    runtime = bodies["ServingRuntime"]["metadata"]["name"].rpartition("-")[2]
    revision = bodies["InferenceService"]["spec"]["predictor"]["labels"]["modelport/revision"]
    for name, text in texts.items():  # both are digests of what the package's digest is in
        text = text.replace(runtime, "RUNTIME").replace(revision, "REVISION")
        # YAML quotes a digest that looks like a number, and its own digest is in the plan.
        text = re.sub(r"'(RUNTIME|REVISION)'", r"\1", re.sub(r'("sha256": )".*"', r"\1…", text))
        assert_golden(f"kserve/{folder}/{name}", text, package)


def test_the_server_understands_the_arguments(package: Package, footprint: Footprint) -> None:
    for settings in CHOICES.values():
        runtime = objects_of(plan_of(package, footprint, settings))["ServingRuntime"]
        (container,) = runtime["spec"]["containers"]
        assert container["name"] == "kserve-container"
        assert container["args"][0] == "--model_name={{.Name}}"
        assert ("--model_dir=/mnt/models" in container["args"]) is ("storage-uri=" in str(settings))
        (port,) = container["ports"]  # Knative takes one
        grpc = "protocol=grpc-v2" in settings
        assert (port["name"], port["containerPort"]) == (("h2c", 9000) if grpc else ("http1", 8080))
        assert ("grpc" in container["readinessProbe"]) is grpc


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "nobody may ask it"),
        ([KEY, "canary=10"], "only with Knative"),
        ([KEY, "canary=101", "mode=knative"], "not a percentage"),
        ([KEY, "max-replicas=0"], "less than min-replicas"),
        ([KEY, "scale-metric=rps"], "Knative only"),
        ([KEY, "mode=knative", "min-replicas=0", "scale-metric=cpu"], "nothing scales from zero"),
        ([KEY, "scale-target=101"], "not a target for cpu"),
        ([KEY, "timeout=0"], "less than 1"),
        ([KEY, "concurrency=-1"], "less than 0"),
        ([KEY, "namespace=a.b"], "not a name"),
        ([KEY, "service-account=A"], "not a name"),
        ([KEY, "storage-uri=bucket"], "not a storage URI"),
        ([KEY, "storage-uri=https://me:secret@host/x"], "holds credentials"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    package: Package, footprint: Footprint, settings: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan_of(package, footprint, settings)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        (["name=" + "n" * 54], "shorter name"),
        (["mode=knative", "timeout=601"], "timeout"),
        (["mode=knative", "concurrency=1001"], "concurrency"),
        (["min-replicas=0"], "knative"),
    ],
)
def test_limits_are_refused_with_the_remedy(
    package: Package, footprint: Footprint, settings: list[str], remedy: str
) -> None:
    with pytest.raises(LimitError) as caught:
        plan_of(package, footprint, [KEY, *settings])
    assert remedy in caught.value.hint


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(applier, "_POLL", 0.02)
    monkeypatch.setattr(changes, "_POLL", 0.02)
    monkeypatch.setattr(watch, "_SETTLE", 0.0)
    found = Cluster()
    found.controllers += [services_start, pods_start]
    with running(found, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield found


def services_start(cluster: Cluster) -> None:
    """KServe's controller: a pod of the newest version, and a status."""
    for body in cluster.of_kind("InferenceService"):
        if "status" in body and body["status"].get("kept"):
            continue
        revision = body["spec"]["predictor"]["labels"]["modelport/revision"]
        body["status"] = {
            "observedGeneration": body["metadata"]["generation"],
            "url": "http://churn.models.example.com",
            "conditions": [{"type": "Ready", "status": "True"}],
            "modelStatus": {"transitionStatus": "UpToDate"},
        }
        cluster.objects[f"/api/v1/namespaces/models/pods/churn-{revision}"] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"churn-{revision}",
                "namespace": "models",
                "labels": {
                    "serving.kserve.io/inferenceservice": "churn",
                    "modelport/revision": revision,
                },
            },
        }


def canary_of(cluster: Cluster) -> Any:
    return cluster.objects[SERVICE]["spec"]["predictor"].get("canaryTrafficPercent")


@pytest.mark.parametrize(("settings", "after"), [([], None), (["canary=10"], 10)])
def test_with_knative_traffic_comes_after_the_verification(
    cluster: Cluster,
    package: Package,
    footprint: Footprint,
    settings: list[str],
    after: int | None,
) -> None:
    plan = plan_of(package, footprint, ["anonymous=true", "mode=knative", *settings])

    def verify(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
        assert canary_of(cluster) == 0
        assert url.startswith("http://127.0.0.1:")
        assert url.endswith("/v2/models/churn/infer")

    assert stage.apply(plan, verify, quiet) == "http://churn.models.example.com"
    assert canary_of(cluster) == after
    stage.destroy(plan, quiet)
    assert not cluster.of_kind("InferenceService")
    assert not cluster.of_kind("ServingRuntime")


def test_another_image_is_another_runtime_and_the_running_one_stays(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    settings = ["anonymous=true", "mode=knative"]
    old = plan_of(package, footprint, settings)
    new = stage.plan(
        package, TARGET, [IMAGE.replace("ab" * 32, "cd" * 32), *settings], footprint=footprint
    )
    stage.apply(old, agree, quiet)
    (before,) = json.loads(json.dumps(cluster.of_kind("ServingRuntime")))

    def differ(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
        assert before in cluster.of_kind("ServingRuntime"), "or what runs is replaced unverified"
        raise ParityError("other answers")

    with pytest.raises(ParityError):
        stage.apply(new, differ, quiet)
    assert cluster.of_kind("ServingRuntime") == [before]


def test_deploying_again_takes_no_traffic_away(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    # KServe rolls back when a version that has all of the traffic is given none.
    plan = plan_of(package, footprint, ["anonymous=true", "mode=knative"])
    stage.apply(plan, agree, quiet)

    def verify(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
        assert canary_of(cluster) is None

    stage.apply(plan, verify, quiet)
    canary = plan_of(package, footprint, ["anonymous=true", "mode=knative", "canary=25"])
    stage.apply(canary, verify, quiet)
    assert canary_of(cluster) == 25


def test_what_knative_refuses_is_not_said(package: Package, footprint: Footprint) -> None:
    bodies = objects_of(plan_of(package, footprint, [KEY, "mode=knative"]))
    predictor = bodies["InferenceService"]["spec"]["predictor"]
    assert not {"securityContext", "terminationGracePeriodSeconds"} & set(predictor)
    assert predictor["scaleMetric"] == "concurrency"
    (container,) = bodies["ServingRuntime"]["spec"]["containers"]
    assert "privileged" not in container["securityContext"]
    assert container["securityContext"]["runAsUser"] == 65532
    keys = bodies["ServingRuntime"]["spec"]["volumes"][1]["secret"]
    assert keys["defaultMode"] == 0o444, "without a group of the pod nobody but root could read it"


def test_without_knative_the_group_reads_the_key_and_hpa_scales(
    package: Package, footprint: Footprint
) -> None:
    bodies = objects_of(plan_of(package, footprint, [KEY, "pull-secret=registry"]))
    service, runtime = bodies["InferenceService"], bodies["ServingRuntime"]["spec"]
    # KServe's webhook takes `cpu` only beside these two, in these words.
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "hpa"
    assert service["spec"]["predictor"]["securityContext"]["fsGroup"] == 65532
    assert runtime["volumes"][1]["secret"]["defaultMode"] == 0o440
    assert runtime["imagePullSecrets"] == [{"name": "registry"}]


def test_a_slow_start_is_told_to_knative(package: Package) -> None:
    slow = Footprint(memory=90 << 20, latency=0.1, processor=0.1, start=60.0, measured=True)
    settings = [KEY, "mode=knative", "scale-metric=rps"]
    plan = plan_of(package, slow, settings)
    predictor = objects_of(plan)["InferenceService"]["spec"]["predictor"]
    assert predictor["annotations"] == {"serving.knative.dev/progress-deadline": "1500s"}
    # 10/s at 0.1 s, 70 % busy: 1.43 cores, which are busy at 14/s.
    assert predictor["scaleTarget"] == 14
    assert all(call.wait["timeout"] > 1500 for call in plan.calls if call.wait)


def test_an_old_pod_that_is_ready_is_not_taken_for_the_new_one(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    """Without Knative KServe says `Ready` all the time, since an old pod is."""
    old = plan_of(package, footprint, ["anonymous=true", "timeout=10"])
    new = plan_of(package, footprint, ["anonymous=true", "timeout=20"])
    stage.apply(old, agree, quiet)
    lines: list[str] = []
    looks: list[int] = []

    def slow(cluster: Cluster) -> None:
        for pod in cluster.of_kind("Pod"):
            labels = pod["metadata"]["labels"]
            if labels["modelport/revision"] == revision_of(new) and len(looks) < 12:
                looks.append(1)
                pod["status"] = {"phase": "Pending"}
            elif len(looks) == 12:
                pod.pop("status", None)
                looks.append(1)

    cluster.controllers.insert(1, slow)
    stage.apply(new, agree, lines.append)
    assert "waiting for a pod of the new version" in lines


def revision_of(plan: Plan) -> str:
    predictor = objects_of(plan)["InferenceService"]["spec"]["predictor"]
    return str(predictor["labels"]["modelport/revision"])


@pytest.mark.parametrize("mode", ["standard", "knative"])
def test_the_role_allows_what_is_done_and_nothing_else(
    cluster: Cluster, package: Package, footprint: Footprint, mode: str
) -> None:
    settings = ["anonymous=true", f"mode={mode}"]
    old = plan_of(package, footprint, settings)
    new = plan_of(package, footprint, [*settings, "timeout=20"])
    cluster.role = role_of(new)
    stage.apply(old, agree, quiet)
    with pytest.raises(ParityError):
        stage.apply(new, refuse, quiet)
    stage.apply(new, agree, quiet)
    cluster.controllers.append(break_pods)
    with pytest.raises(PlatformError, match="OOMKilled"):
        stage.apply(old, agree, quiet)
    stage.destroy(new, quiet)
    unused = {right for right in allowed_by(cluster.role) - cluster.used if right[0] != "update"}
    assert unused == {("create", "", "pods/portforward")}  # newer API servers ask for that


def break_pods(cluster: Cluster) -> None:
    for body in cluster.of_kind("InferenceService"):
        body["status"]["conditions"] = []
    for pod in cluster.of_kind("Pod"):
        ended = {"reason": "OOMKilled", "exitCode": 137}
        pod["status"] = {"phase": "Failed", "containerStatuses": [{"state": {"terminated": ended}}]}


@pytest.mark.parametrize("mode", ["standard", "knative"])
def test_wrong_answers_put_the_earlier_version_back(
    cluster: Cluster, package: Package, footprint: Footprint, mode: str
) -> None:
    old = plan_of(package, footprint, ["anonymous=true", f"mode={mode}", "timeout=10"])
    new = plan_of(package, footprint, ["anonymous=true", f"mode={mode}", "timeout=20"])
    stage.apply(old, agree, quiet)
    before = json.dumps(cluster.objects[SERVICE]["spec"], sort_keys=True)

    def differ(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
        assert cluster.objects[SERVICE]["spec"]["predictor"]["timeout"] == 20
        raise ParityError("other answers")

    with pytest.raises(ParityError):
        stage.apply(new, differ, quiet)
    assert json.dumps(cluster.objects[SERVICE]["spec"], sort_keys=True) == before


def test_a_model_that_does_not_load_is_told_and_taken_back(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    def fail(cluster: Cluster) -> None:
        for body in cluster.of_kind("InferenceService"):
            body["status"]["modelStatus"] = {
                "transitionStatus": "BlockedByFailedLoad",
                "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no such package"},
            }

    cluster.controllers.append(fail)
    with pytest.raises(PlatformError, match="ModelLoadFailed: no such package"):
        stage.apply(plan_of(package, footprint, ["anonymous=true"]), agree, quiet)
    assert not cluster.of_kind("InferenceService")


@pytest.mark.parametrize(
    ("status", "done"),
    [
        ({"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}, False),
        ({"observedGeneration": 2, "conditions": [{"type": "Ready", "status": "False"}]}, False),
        ({"observedGeneration": 2, "conditions": [{"type": "Ready", "status": "True"}]}, True),
        (
            {
                "observedGeneration": 2,
                "conditions": [{"type": "Ready", "status": "True"}],
                "components": {
                    "predictor": {"latestCreatedRevision": "b", "latestReadyRevision": "a"}
                },
            },
            False,
        ),
    ],
)
def test_an_old_state_is_not_taken_for_the_new_one(status: dict[str, Any], done: bool) -> None:
    assert service_state({"metadata": {"generation": 2}, "status": status})[0] is done
