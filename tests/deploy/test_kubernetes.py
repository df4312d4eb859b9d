"""Kubernetes: manifests against the published schemas, calls against a small API server."""

from __future__ import annotations

import copy
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import kubernetes_validate
import pytest
import yaml

from modelport.core.errors import InputError, NotFoundError, ParityError, PlatformError
from modelport.core.package import Package
from modelport.deploy import show, stage
from modelport.deploy.appliers import kubernetes as applier
from modelport.deploy.base import Call, Plan
from modelport.deploy.kubernetes import changes, watch
from modelport.deploy.kubernetes.objects import folder_of, owned_fields
from modelport.deploy.kubernetes.state import rollout_state
from modelport.deploy.service import Footprint
from modelport.deploy.verify import verify_endpoint
from tests.deploy import kubetools
from tests.deploy.fake_kubernetes import TOKEN, Cluster, fields_of, running
from tests.deploy.golden_files import assert_golden
from tests.deploy.test_helm import CHOICES, DIGEST, IMAGE, KEY, planned, rendered

TARGET: Final = "kubernetes"
OPEN: Final = [IMAGE, "anonymous=true"]
#: What the manifests promise to run on; kubernetes-validate has the schemas of all of these.
VERSIONS: Final = ("1.27", "1.30", "1.32", "1.34", "1.37")
SERVER: Final = {"app.kubernetes.io/name": "churn", "app.kubernetes.io/component": "model-server"}
DEPLOYMENT: Final = "/apis/apps/v1/namespaces/models/deployments/churn"
SERVICE: Final = "/api/v1/namespaces/models/services/churn"
CANDIDATE: Final = "/api/v1/namespaces/models/pods/churn-candidate"


def plan_of(package: Package, footprint: Footprint, settings: list[str]) -> Plan:
    return stage.plan(package, TARGET, settings, footprint=footprint)


def objects_of(plan: Plan) -> list[dict[str, Any]]:
    """Every object that the plan writes or creates, also the pod without traffic."""
    files = [
        yaml.safe_load(file.content)
        for file in plan.files
        if file.path.startswith("manifests/") and "kustomization" not in file.path
    ]
    return [
        *files,
        *(call.parameters["object"] for call in plan.calls if call.operation == "create"),
    ]


def test_the_plan_is_the_golden_one(package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint, [IMAGE, KEY])
    assert_golden("kubernetes.txt", show.to_text(plan), package)
    # The files' own digests follow from the package's, which is a word there.
    text = re.sub(r'("sha256": )".*"', r"\1…", json.dumps(show.to_json(plan), indent=1) + "\n")
    assert_golden("kubernetes.json", text, package)
    for file in plan.files:
        assert_golden(f"kubernetes/{file.path}", file.content, package)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("settings", CHOICES.values(), ids=CHOICES.keys())
def test_every_object_is_valid(
    package: Package, footprint: Footprint, settings: list[str], version: str
) -> None:
    bodies = objects_of(plan_of(package, footprint, [IMAGE, *settings]))
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "Pod"} <= {
        body["kind"] for body in bodies
    }
    for body in bodies:
        if body["kind"] != "ServiceMonitor":  # of the Prometheus operator
            kubernetes_validate.validate(body, version, strict=True)


def test_the_schemas_catch_mistakes(package: Package, footprint: Footprint) -> None:
    body = next(
        b for b in objects_of(plan_of(package, footprint, OPEN)) if b["kind"] == "Deployment"
    )
    body["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(body, "1.33", strict=True)


def test_the_deployers_role_is_valid_and_least(package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint, OPEN)
    role = yaml.safe_load(next(f for f in plan.files if f.path == "deployer-role.yaml").content)
    kubernetes_validate.validate(role, "1.33", strict=True)
    allowed = {
        f"{verb} {resource}{'.' if group else ''}{group}"
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert set(plan.rights) <= allowed
    assert not any("*" in right or "secrets" in right for right in allowed)


@pytest.mark.parametrize("settings", [CHOICES["everything"], CHOICES["anonymous"]])
def test_checkov_finds_nothing(
    package: Package, footprint: Footprint, tmp_path: Path, settings: list[str]
) -> None:
    plan, manifests, chart = planned(package, footprint, tmp_path, settings)
    (tmp_path / "rendered").mkdir()
    (tmp_path / "rendered" / "all.yaml").write_text(rendered(plan, chart))
    for folder in (manifests, tmp_path / "rendered"):
        found = json.loads(
            kubetools.run(
                kubetools.checkov(), "-d", folder, "--framework", "kubernetes", "--skip-download",
                "-o", "json",
            )
        )  # fmt: skip
        assert found["summary"]["failed"] == 0
        assert found["summary"]["parsing_errors"] == 0
        assert found["summary"]["passed"] > 80
        skipped = {check["check_id"] for check in found["results"]["skipped_checks"]}
        assert skipped == {"CKV_K8S_15"}  # the reason is in the annotation


def test_the_pod_can_do_nothing_but_serve(package: Package, footprint: Footprint) -> None:
    for body in objects_of(plan_of(package, footprint, [IMAGE, KEY])):
        if body["kind"] not in ("Deployment", "Pod"):
            continue
        spec = body["spec"]["template"]["spec"] if body["kind"] == "Deployment" else body["spec"]
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert spec["automountServiceAccountToken"] is False
        # A Service named "modelport" would set MODELPORT_PORT=tcp://… in the container.
        assert spec["enableServiceLinks"] is False
        assert spec["terminationGracePeriodSeconds"] > 30
        assert container["image"].endswith(DIGEST)
        assert container["resources"]["limits"]["memory"] == "208Mi"  # 1.5 * 90 + 64, in 16ths
        assert container["resources"]["requests"]["memory"] == "208Mi"


def test_the_key_is_only_named(package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint, [IMAGE, KEY])
    deployment = next(b for b in objects_of(plan) if b["kind"] == "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    environment = {e["name"]: e["value"] for e in spec["containers"][0]["env"]}
    assert environment["MODELPORT_API_KEY_FILE"] == "/etc/modelport/keys/api-key"
    assert "MODELPORT_ALLOW_ANONYMOUS" not in environment
    assert spec["volumes"][1]["secret"]["secretName"] == "churn-keys"
    assert spec["volumes"][1]["secret"]["items"] == [{"key": "key", "path": "api-key"}]
    assert not any(body["kind"] == "Secret" for body in objects_of(plan))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "nobody may ask it"),
        (["key-secret=a/b", "anonymous=true"], "both key-secret and anonymous"),
        (["key-secret=only-a-name"], "not a Secret's entry"),
        (["key-secret=Upper/key"], "not a Secret's entry"),
        (["anonymous=true", "rps=0"], "not a rate"),
        (["anonymous=true", "replicas=0"], "no replica"),
        (["anonymous=true", "max-replicas=1"], "less than replicas"),
        (["anonymous=true", "memory=lots"], "not an amount of memory"),
        (["anonymous=true", "cpu=0"], "not an amount of processor"),
        (["anonymous=true", "namespace=Upper"], "not a name"),
        (["anonymous=true", "host=no spaces.example"], "not a host name"),
        (["anonymous=true", "rps=nan"], "not a rate"),
        (["anonymous=true", "rps=inf"], "not a rate"),
        (["anonymous=true", "memory=0"], "less than the 90Mi"),
        (["anonymous=true", "memory=80Mi"], "less than the 90Mi"),
        (["anonymous=true", "pull-secret=My_Secret"], "not a name"),
        (["anonymous=true", "ingress-class=a b"], "not a name"),
        (["anonymous=true", "monitor-labels=release=p"], "without a ServiceMonitor"),
        (["anonymous=true", "service-monitor=on", "monitor-labels=a=b c"], "not labels"),
        (["anonymous=true", "clients=a,B"], "not a name"),
        (["anonymous=true", "tls-secret=cert"], "without host"),
        (["anonymous=true", "service-monitor=on", "monitor-labels=release"], "not labels"),
        (["anonymous=true", "utilization=0"], "not a percentage"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    package: Package, footprint: Footprint, settings: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan_of(package, footprint, [IMAGE, *settings])


def test_an_image_without_digest_is_named_by_the_packages_and_told(
    package: Package, footprint: Footprint
) -> None:
    plan = plan_of(package, footprint, ["image=localhost:5000/team/churn", "anonymous=true"])
    assert plan.image.startswith("localhost:5000/team/churn:")
    assert plan.image.endswith(plan.service.tag)
    assert any("digest" in note for note in plan.notes)
    assert "set image" in plan_of(package, footprint, ["anonymous=true"]).image


def test_processor_follows_the_rate(package: Package) -> None:
    slow = Footprint(memory=1 << 30, latency=0.05, processor=0.05, start=9.0, measured=False)
    plan = plan_of(package, slow, [*OPEN, "rps=100", "replicas=4"])
    container = next(b for b in objects_of(plan) if b["kind"] == "Deployment")["spec"]["template"][
        "spec"
    ]["containers"][0]
    # 100/s * 50 ms / 4 replicas = 1.25 cores, 70 % busy: 1.79.
    assert container["resources"]["requests"]["cpu"] == "1790m"
    assert container["resources"]["limits"]["cpu"] == "4"
    probe = container["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= 20 * slow.start
    assert any("estimated" in note for note in plan.notes)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """An API server whose controllers do their work at once."""
    monkeypatch.setattr(applier, "_POLL", 0.02)
    monkeypatch.setattr(changes, "_POLL", 0.02)
    monkeypatch.setattr(watch, "_SETTLE", 0.0)
    found = Cluster()
    found.controllers.append(pods_start)
    found.controllers.append(deployments_roll)
    with running(found, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield found


def pods_start(cluster: Cluster) -> None:
    for pod in cluster.of_kind("Pod"):
        pod.setdefault("status", {"phase": "Running", "conditions": [READY]})


def deployments_roll(cluster: Cluster) -> None:
    for body in cluster.of_kind("Deployment"):
        body["status"] = rolled(body["metadata"]["generation"], body["spec"].get("replicas", 1))


READY: Final = {"type": "Ready", "status": "True"}


def rolled(generation: int, count: int) -> dict[str, Any]:
    return {
        "observedGeneration": generation, "replicas": count, "updatedReplicas": count,
        "availableReplicas": count,
    }  # fmt: skip


def agree(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
    """The endpoint gives the package's answers."""


def quiet(line: str) -> None:
    """Report nothing."""


def image_in(body: Mapping[str, Any]) -> str:
    return str(body["spec"]["template"]["spec"]["containers"][0]["image"])


@pytest.fixture
def plan(package: Package, footprint: Footprint) -> Plan:
    return plan_of(package, footprint, OPEN)


@pytest.fixture
def newer(package: Package, footprint: Footprint) -> Plan:
    image = IMAGE.replace("ab" * 32, "cd" * 32)
    return plan_of(package, footprint, [image, "anonymous=true", "clients=shop"])


def test_apply_creates_everything_and_destroy_takes_it_away(cluster: Cluster, plan: Plan) -> None:
    seen: list[str] = []

    def verify(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
        seen.append(url)
        assert CANDIDATE in cluster.objects
        assert DEPLOYMENT not in cluster.objects, "nothing serves before it was verified"

    assert stage.apply(plan, verify, quiet) == "http://churn.models.svc"
    assert [url.rpartition(":")[0] for url in seen] == ["http://127.0.0.1"]
    assert CANDIDATE not in cluster.objects
    assert {b["kind"] for b in cluster.objects.values()} == {
        "ServiceAccount", "NetworkPolicy", "Service", "PodDisruptionBudget", "Deployment",
        "HorizontalPodAutoscaler",
    }  # fmt: skip
    assert stage.status(plan)["status"]["availableReplicas"] == 1
    stage.destroy(plan, quiet)
    assert cluster.objects == {}
    stage.destroy(plan, quiet)  # again: nothing is there, and that is all right
    with pytest.raises(NotFoundError):
        stage.status(plan)


def test_apply_again_changes_nothing(cluster: Cluster, plan: Plan) -> None:
    stage.apply(plan, agree, quiet)
    before = copy.deepcopy(cluster.objects)
    stage.apply(plan, agree, quiet)
    assert cluster.objects == before


def test_an_update_keeps_the_autoscalers_replicas(
    cluster: Cluster, plan: Plan, newer: Plan
) -> None:
    stage.apply(plan, agree, quiet)
    cluster.objects[DEPLOYMENT]["spec"]["replicas"] = 7
    cluster.owners[DEPLOYMENT]["kube-controller-manager"] = {"spec": {"replicas": 7}}
    cluster.controllers.append(scaled_to(7))
    stage.apply(newer, agree, quiet)
    assert cluster.objects[DEPLOYMENT]["spec"]["replicas"] == 7
    assert image_in(cluster.objects[DEPLOYMENT]).endswith("cd" * 32)


def scaled_to(count: int) -> Any:
    def control(cluster: Cluster) -> None:
        for body in cluster.of_kind("Deployment"):
            body["status"] |= {"replicas": count, "updatedReplicas": count,
                               "availableReplicas": count}  # fmt: skip

    return control


def test_wrong_answers_take_the_candidate_back_and_leave_what_runs(
    cluster: Cluster, plan: Plan, newer: Plan
) -> None:
    stage.apply(plan, agree, quiet)
    before = copy.deepcopy(cluster.objects)

    def differ(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
        raise ParityError("other answers")

    with pytest.raises(ParityError):
        stage.apply(newer, differ, quiet)
    assert spec_of(cluster.objects) == spec_of(before)
    deployment_asked = [verb for verb, path in cluster.asked if path == DEPLOYMENT]
    assert deployment_asked.count("PATCH") == 1, "the Deployment was not touched again"


def spec_of(objects: Mapping[str, Any]) -> dict[str, Any]:
    return {path: body.get("spec") for path, body in objects.items()}


def test_a_rollout_that_fails_is_rolled_back_with_the_reason(
    cluster: Cluster, plan: Plan, newer: Plan
) -> None:
    stage.apply(plan, agree, quiet)
    before = copy.deepcopy(cluster.objects)
    cluster.controllers.append(crash_of("cd" * 32))
    with pytest.raises(PlatformError, match="CrashLoopBackOff") as caught:
        stage.apply(newer, agree, quiet)
    assert "cannot allocate 2 GiB" in str(caught.value)
    assert "Liveness probe failed" in str(caught.value)
    assert spec_of(cluster.objects) | {} == spec_of(before) | {
        path: spec for path, spec in spec_of(cluster.objects).items() if path not in before
    }
    assert image_in(cluster.objects[DEPLOYMENT]).endswith("ab" * 32)


def crash_of(digest: str) -> Any:
    """A controller whose new pods crash, while an old one is broken in its own way."""

    def control(cluster: Cluster) -> None:
        body = cluster.objects.get(DEPLOYMENT)
        if body is None or not image_in(body).endswith(digest):
            return
        body["metadata"].setdefault("annotations", {})["deployment.kubernetes.io/revision"] = "2"
        body["status"] |= {"updatedReplicas": 1, "replicas": 2}
        for name, revision, reason in (("old", "1", "ImagePullBackOff"), ("new", "2", "Crash")):
            put(
                cluster,
                "apps/v1",
                "ReplicaSet",
                name,
                {
                    "metadata": {
                        "uid": name,
                        "labels": SERVER,
                        "annotations": {"deployment.kubernetes.io/revision": revision},
                    }
                },
            )
            waiting = {"reason": "CrashLoopBackOff" if reason == "Crash" else reason}
            put(
                cluster,
                "v1",
                "Pod",
                f"pod-{name}",
                {
                    "metadata": {"labels": SERVER, "ownerReferences": [{"uid": name}]},
                    "status": {
                        "phase": "Running",
                        "containerStatuses": [
                            {
                                "state": {"waiting": waiting},
                                "lastState": {
                                    "terminated": {
                                        "reason": "Error",
                                        "exitCode": 1,
                                        "message": "cannot allocate 2 GiB",
                                    }
                                },
                            }
                        ],
                    },
                },
            )
        put(
            cluster,
            "v1",
            "Event",
            "e",
            {
                "involvedObject": {"name": "pod-new"},
                "type": "Warning",
                "reason": "Unhealthy",
                "message": "Liveness probe failed",
            },
        )

    return control  # fmt: skip


def put(cluster: Cluster, version: str, kind: str, name: str, body: dict[str, Any]) -> None:
    metadata = {"name": name, "namespace": "models", **body.get("metadata", {})}
    whole = {"apiVersion": version, "kind": kind, **body, "metadata": metadata}
    cluster.objects[f"{folder_of(version, kind, 'models')}/{name}"] = whole


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {
                "reason": "ImagePullBackOff", "message": "Back-off pulling image x"}}}]},
            "ImagePullBackOff: Back-off pulling image x",
        ),
        (
            {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {
                "reason": "CreateContainerConfigError", "message": 'secret "keys" not found'}}}]},
            'secret "keys" not found',
        ),
        (
            {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {
                "reason": "OOMKilled", "exitCode": 137}}}]},
            "OOMKilled",
        ),
        (
            {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {
                "reason": "Error", "exitCode": 3, "message": "answers differ from golden"}}}]},
            "answers differ from golden",
        ),
        # Ended by a probe that failed, it ends without an error.
        ({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {
            "reason": "Completed", "exitCode": 0}}}]}, "it has ended"),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "low on memory"),
    ],
)  # fmt: skip
def test_a_candidate_that_fails_says_why_and_is_removed(
    cluster: Cluster, plan: Plan, status: dict[str, Any], message: str
) -> None:
    def fail(cluster: Cluster) -> None:
        for pod in cluster.of_kind("Pod"):
            pod["status"] = status

    cluster.controllers.append(fail)
    with pytest.raises(PlatformError, match="pod churn-candidate") as caught:
        stage.apply(plan, agree, quiet)
    assert message in str(caught.value)
    assert cluster.objects == {}


def test_a_pod_without_a_node_is_waited_for_and_told(cluster: Cluster, plan: Plan) -> None:
    lines: list[str] = []
    unplaced = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: no memory"}

    def place(cluster: Cluster) -> None:
        for pod in cluster.of_kind("Pod"):
            pod["status"] = {"phase": "Pending", "conditions": [unplaced]}

    cluster.controllers.append(place)
    plan = replace(plan, calls=tuple(impatient(call) for call in plan.calls))
    with pytest.raises(PlatformError, match=r"took too long.*0/3 nodes"):
        stage.apply(plan, agree, lines.append)
    assert lines.count("not placed: 0/3 nodes: no memory") == 1


def impatient(call: Call) -> Call:
    return replace(call, wait={**call.wait, "timeout": 0.2}) if call.wait else call


def test_an_earlier_candidate_is_replaced(cluster: Cluster, plan: Plan, newer: Plan) -> None:
    body = next(c for c in plan.calls if c.id == "candidate").parameters["object"]
    cluster.add(CANDIDATE, copy.deepcopy(body), "modelport")
    cluster.objects[CANDIDATE]["status"] = {"phase": "Failed"}
    stage.apply(newer, agree, quiet)
    assert image_in(cluster.objects[DEPLOYMENT]).endswith("cd" * 32)
    assert ("DELETE", CANDIDATE) in cluster.asked


def test_fields_of_other_tools_are_left_alone_unless_told(
    cluster: Cluster, package: Package, footprint: Footprint, plan: Plan
) -> None:
    stage.apply(plan, agree, quiet)
    theirs = copy.deepcopy(cluster.owners[SERVICE]["modelport"])
    theirs["spec"]["type"] = "LoadBalancer"
    cluster.owners[SERVICE] = {}
    cluster.add(SERVICE, theirs, "helm")
    with pytest.raises(PlatformError, match=r'spec\.type: conflict with "helm"') as caught:
        stage.apply(plan, agree, quiet)
    assert "take-over=true" in caught.value.hint
    assert cluster.objects[SERVICE]["spec"]["type"] == "LoadBalancer"
    stage.apply(plan_of(package, footprint, [*OPEN, "take-over=true"]), agree, quiet)
    assert cluster.objects[SERVICE]["spec"]["type"] == "ClusterIP"


def test_what_another_tool_made_is_put_back_as_it_was(cluster: Cluster, plan: Plan) -> None:
    theirs = {
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "churn", "namespace": "models"},
        "spec": {"type": "ClusterIP", "selector": {"app": "theirs"}},
    }  # fmt: skip
    cluster.add(SERVICE, theirs, "kubectl")
    with pytest.raises(ParityError):
        stage.apply(plan, refuse, quiet)
    assert cluster.objects[SERVICE]["spec"] == theirs["spec"]


def refuse(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
    raise ParityError("other answers")


@pytest.mark.parametrize(
    ("break_it", "message", "hint"),
    [
        ("forbidden", "cannot patch", "deployer-role.yaml"),
        ("namespace", 'namespaces "models" not found', "kubectl create namespace models"),
        ("token", "Unauthorized", "log in"),
        ("down", "cannot be reached", "cluster-info"),
    ],
)
def test_refusals_are_in_the_servers_words(
    cluster: Cluster, plan: Plan, tmp_path: Path, break_it: str, message: str, hint: str
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    if break_it == "forbidden":
        cluster.controllers.append(
            lambda c: (
                c.forbidden.add("deployments") if c.asked[-1] == ("PATCH", DEPLOYMENT) else None
            )
        )
    if break_it == "namespace":
        cluster.namespaces.clear()
    if break_it == "token":
        kubeconfig.write_text(kubeconfig.read_text().replace(TOKEN, "wrong"))
    if break_it == "down":
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        text = kubeconfig.read_text()
        start = text.index("http://127.0.0.1:")
        end = text.index("\n", start)
        kubeconfig.write_text(text[:start] + f"http://127.0.0.1:{port}" + text[end:])
    with pytest.raises(PlatformError, match=message) as caught:
        stage.apply(plan, agree, quiet)
    assert hint in caught.value.hint
    assert "Traceback" not in str(caught.value)
    assert cluster.objects == {}


def test_without_a_cluster_the_error_says_what_to_do(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(PlatformError, match="no access") as caught:
        stage.apply(plan, agree, quiet)
    assert "kubectl config" in caught.value.hint


def test_an_unknown_context_is_named(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    with pytest.raises(PlatformError, match="elsewhere"):
        stage.apply(plan_of(package, footprint, [*OPEN, "context=elsewhere"]), agree, quiet)


def test_a_kind_that_the_cluster_lacks_is_named(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    plan = plan_of(package, footprint, [*OPEN, "service-monitor=true"])
    with pytest.raises(PlatformError, match="could not find") as caught:
        stage.apply(plan, agree, quiet)
    assert "ServiceMonitor" in caught.value.hint
    assert cluster.objects == {}


def test_what_the_schema_refuses_is_told(cluster: Cluster, plan: Plan) -> None:
    account = plan.calls[0]
    account.parameters["object"]["metadata"]["lables"] = {}
    with pytest.raises(PlatformError, match=r"lables.*\(status 422\)"):
        stage.apply(plan, agree, quiet)


def test_the_pod_without_traffic_is_verified_through_a_port_forward(
    cluster: Cluster, package: Package, plan: Plan
) -> None:
    with serving(package) as port:
        cluster.forwards = port
        verified = []

        def verify(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
            verified.append(verify_endpoint(package, url, plan.protocol, quiet))

        stage.apply(plan, verify, quiet)
        assert verified[0].agrees


def test_large_bodies_pass_through_the_port_forward(cluster: Cluster, plan: Plan) -> None:
    with socket.create_server(("127.0.0.1", 0)) as pod:
        cluster.forwards = pod.getsockname()[1]
        sent = os.urandom(300_000)

        def verify(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
            port = int(url.rpartition(":")[2])
            pod.settimeout(20)
            pod.accept()[0].close()  # whether a port can be forwarded is tried first
            with socket.create_connection(("127.0.0.1", port), timeout=20) as near:
                near.sendall(sent)
                far, _ = pod.accept()
                with far:
                    assert exactly(far, len(sent)) == sent
                    far.sendall(sent[::-1])
                    assert exactly(near, len(sent)) == sent[::-1]
                assert near.recv(1) == b""

        stage.apply(plan, verify, quiet)


def exactly(source: socket.socket, size: int) -> bytes:
    source.settimeout(20)
    data = b""
    while len(data) < size:
        more = source.recv(65536)
        assert more, f"closed after {len(data)} of {size} bytes"
        data += more
    return data


class serving:  # noqa: N801 - used as a function
    """The package's real server, as in the container."""

    def __init__(self, package: Package) -> None:
        self.package = package

    def __enter__(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modelport", "serve", str(self.package.path),
             "--port", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(600):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/v2/health/ready").status_code == 200:
                    return int(port)
            except httpx.TransportError:
                time.sleep(0.05)
        self.__exit__()
        raise AssertionError("the server did not start")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)


def test_what_a_manager_applied_is_found_in_its_fields() -> None:
    applied = {
        "metadata": {"labels": {"a": "1"}},
        "spec": {"containers": [{"name": "s", "image": "i", "env": [{"name": "E", "value": "1"}]}],
                 "egress": [], "volumes": [{"name": "t", "emptyDir": {}}]},
    }  # fmt: skip
    live = copy.deepcopy(applied)
    live |= {"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Running"}}
    live["metadata"] |= {"name": "p", "namespace": "n", "uid": "u"}  # type: ignore[arg-type]
    live["spec"]["replicas"] = 3  # type: ignore[assignment,index]
    live["spec"]["containers"][0]["terminationMessagePath"] = "/dev"  # type: ignore[index]
    live["spec"]["containers"].append({"name": "injected"})  # type: ignore[index,union-attr]
    live["metadata"]["managedFields"] = [  # type: ignore[index,assignment]
        {"manager": "other", "operation": "Apply", "fieldsV1": {}},
        {"manager": "modelport", "operation": "Apply", "fieldsV1": fields_of(applied)},
    ]
    own = owned_fields(live, "modelport")
    assert own is not None
    assert own["spec"] == applied["spec"]
    assert own["metadata"] == {"labels": {"a": "1"}, "name": "p", "namespace": "n"}
    assert owned_fields(live, "nobody") is None


@pytest.mark.parametrize(
    ("status", "done"),
    [
        ({"observedGeneration": 1, "updatedReplicas": 2, "replicas": 2, "availableReplicas": 2},
         False),
        ({"observedGeneration": 2, "updatedReplicas": 1, "replicas": 3, "availableReplicas": 3},
         False),
        ({"observedGeneration": 2, "updatedReplicas": 2, "replicas": 3, "availableReplicas": 2},
         False),
        ({"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2, "availableReplicas": 1},
         False),
        ({"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2, "availableReplicas": 2},
         True),
    ],
)  # fmt: skip
def test_a_rollout_is_done_when_all_are_new_and_available(
    status: dict[str, int], done: bool
) -> None:
    found = {"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status}
    assert rollout_state(found)[0] is done
