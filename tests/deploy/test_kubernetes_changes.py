"""What changes of a running deployment leave behind, and what goes wrong meanwhile."""

from __future__ import annotations

import copy
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from modelport.core.errors import NotFoundError, ParityError, PlatformError
from modelport.core.package import Package
from modelport.deploy import stage
from modelport.deploy.appliers import kubernetes as applier
from modelport.deploy.base import Plan
from modelport.deploy.kubernetes import changes, watch
from modelport.deploy.kubernetes.relay import Relay
from modelport.deploy.kubernetes.state import rollout_state
from modelport.deploy.service import Footprint
from tests.deploy.fake_kubernetes import Cluster, running
from tests.deploy.test_helm import IMAGE, KEY
from tests.deploy.test_kubernetes import (
    CANDIDATE,
    DEPLOYMENT,
    OPEN,
    SERVER,
    SERVICE,
    agree,
    crash_of,
    deployments_roll,
    image_in,
    objects_of,
    plan_of,
    pods_start,
    put,
    quiet,
    refuse,
    serving,
    spec_of,
)  # fmt: skip

NEWER: Final = [IMAGE.replace("ab" * 32, "cd" * 32), "anonymous=true"]
FIXED: Final = ["replicas=3", "max-replicas=3"]
SCALER: Final = "/apis/autoscaling/v2/namespaces/models/horizontalpodautoscalers/churn"
INGRESS: Final = "/apis/networking.k8s.io/v1/namespaces/models/ingresses/churn"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """An API server whose controllers do their work at once."""
    monkeypatch.setattr(applier, "_POLL", 0.02)
    monkeypatch.setattr(changes, "_POLL", 0.02)
    monkeypatch.setattr(watch, "_SETTLE", 0.0)
    found = Cluster()
    found.controllers += [pods_start, deployments_roll]
    with running(found, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield found


def role_of(plan: Plan) -> dict[str, Any]:
    file = next(f for f in plan.files if f.path == "deployer-role.yaml")
    found: dict[str, Any] = yaml.safe_load(file.content)
    return found


def allowed_by(role: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {
        (verb, group, resource)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def test_the_role_allows_what_is_done_and_nothing_else(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    everything = ["host=m.example.com", "anonymous=true"]
    old = plan_of(package, footprint, [IMAGE, *everything, *FIXED])
    new = plan_of(package, footprint, [NEWER[0], *everything, "clients=shop"])
    cluster.role = role_of(old)
    stage.apply(old, agree, quiet)
    cluster.role = role_of(new)
    with pytest.raises(ParityError):  # takes it all back
        stage.apply(new, refuse, quiet)
    stage.apply(new, agree, quiet)
    cluster.add(CANDIDATE, candidate_of(new), "modelport")  # of a run that was killed
    stage.apply(new, agree, quiet)
    theirs = copy.deepcopy(cluster.objects[SERVICE])
    cluster.owners[SERVICE] = {}  # made by another tool: put back as a whole
    cluster.objects[SERVICE]["metadata"]["managedFields"] = []
    cluster.controllers.append(crash_of("cd" * 32))
    with pytest.raises(PlatformError, match="CrashLoopBackOff"):
        stage.apply(new, agree, quiet)
    assert cluster.objects[SERVICE]["spec"] == theirs["spec"]
    stage.destroy(new, quiet)
    # Only kinds that were all put back as a whole would need `update` of each.
    unused = {right for right in allowed_by(role_of(new)) - cluster.used if right[0] != "update"}
    # Newer API servers ask for `create`; no ServiceMonitor was there to be deleted.
    monitor = {(v, "monitoring.coreos.com", "servicemonitors") for v in
               ("create", "delete", "get", "patch")}  # fmt: skip
    assert unused - monitor == {("create", "", "pods/portforward")}


def candidate_of(plan: Plan) -> dict[str, Any]:
    body = next(c for c in plan.calls if c.id == "candidate").parameters["object"]
    return {**copy.deepcopy(body), "status": {"phase": "Failed"}}


def test_replicas_stay_when_an_autoscaler_takes_them_over(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    stage.apply(plan_of(package, footprint, [*OPEN, *FIXED]), agree, quiet)
    assert cluster.objects[DEPLOYMENT]["spec"]["replicas"] == 3
    assert SCALER not in cluster.objects
    stage.apply(plan_of(package, footprint, [*OPEN, "replicas=3"]), agree, quiet)
    assert cluster.objects[DEPLOYMENT]["spec"]["replicas"] == 3, "or it falls to one"
    assert SCALER in cluster.objects


def test_replicas_come_back_from_an_autoscaler_which_goes(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    stage.apply(plan_of(package, footprint, OPEN), agree, quiet)
    cluster.objects[DEPLOYMENT]["spec"]["replicas"] = 7
    cluster.owners[DEPLOYMENT]["kube-controller-manager"] = {"spec": {"replicas": 7}}
    stage.apply(plan_of(package, footprint, [*OPEN, *FIXED]), agree, quiet)
    assert cluster.objects[DEPLOYMENT]["spec"]["replicas"] == 3
    assert SCALER not in cluster.objects


def test_an_ingress_that_is_no_longer_wanted_goes(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    stage.apply(plan_of(package, footprint, [*OPEN, "host=m.example.com"]), agree, quiet)
    assert INGRESS in cluster.objects
    plan = plan_of(package, footprint, OPEN)
    stage.apply(plan, agree, quiet)
    assert INGRESS not in cluster.objects
    put(cluster, "networking.k8s.io/v1", "Ingress", "churn", {})  # somebody else's
    stage.apply(plan, agree, quiet)
    assert INGRESS in cluster.objects


def test_an_autoscaler_that_went_comes_back_when_the_rollout_fails(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    stage.apply(plan_of(package, footprint, OPEN), agree, quiet)
    before = copy.deepcopy(cluster.objects)
    cluster.controllers.append(crash_of("cd" * 32))
    with pytest.raises(PlatformError, match="CrashLoopBackOff"):
        stage.apply(plan_of(package, footprint, [*NEWER, *FIXED]), agree, quiet)
    assert spec_of(cluster.objects)[SCALER] == spec_of(before)[SCALER]
    assert "replicas" not in cluster.owners[DEPLOYMENT]["modelport"]["spec"]


def test_what_is_not_modelports_is_not_deleted(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    plan = plan_of(package, footprint, OPEN)
    stage.apply(plan, agree, quiet)
    del cluster.objects[SERVICE]["metadata"]["labels"]
    with pytest.raises(PlatformError, match="Service churn is not modelport's"):
        stage.destroy(plan, quiet)
    assert list(cluster.objects) == [SERVICE]


def test_a_fix_is_not_refused_for_the_broken_pods_that_it_replaces(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    stage.apply(plan_of(package, footprint, OPEN), agree, quiet)
    asked = []

    def late(cluster: Cluster) -> None:
        """The controller is slow: for a moment the newest pods are the broken ones."""
        body = cluster.objects[DEPLOYMENT]
        if image_in(body).endswith("cd" * 32) and len(asked) < 8:
            asked.append(1)
            body["status"] = {"observedGeneration": body["metadata"]["generation"] - 1}

    crash = crash_of("ab" * 32)
    cluster.controllers += [crash, late]
    stage.apply(plan_of(package, footprint, NEWER), agree, quiet)
    assert image_in(cluster.objects[DEPLOYMENT]).endswith("cd" * 32)


def test_the_verified_pod_makes_room_for_the_rollout(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    stage.apply(plan_of(package, footprint, OPEN), agree, quiet)
    verbs = [(verb, path) for verb, path in cluster.asked if path in (CANDIDATE, DEPLOYMENT)]
    assert verbs.index(("DELETE", CANDIDATE)) < verbs.index(("PATCH", DEPLOYMENT))


@pytest.mark.parametrize("agrees", [True, False])
def test_the_forwarded_port_is_closed_after_the_verification(
    cluster: Cluster, package: Package, footprint: Footprint, agrees: bool
) -> None:
    ports = []

    def verify(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
        ports.append(int(url.rpartition(":")[2]))
        socket.create_connection(("127.0.0.1", ports[0]), timeout=5).close()
        if not agrees:
            raise ParityError("other answers")

    plan = plan_of(package, footprint, OPEN)
    if agrees:
        stage.apply(plan, verify, quiet)
    else:
        with pytest.raises(ParityError):
            stage.apply(plan, verify, quiet)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports[0]), timeout=5)


def test_a_closed_relay_ends_its_connections() -> None:
    near, far = socket.socketpair()
    relay = Relay(lambda: far)
    with near, socket.create_connection(("127.0.0.1", relay.port), timeout=10) as local:
        local.sendall(b"in")
        assert near.recv(2) == b"in"
        relay.close()
        assert local.recv(1) == b""


def test_a_port_forward_that_is_forbidden_is_told(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    cluster.forbidden.add("pods/portforward")
    with pytest.raises(PlatformError, match="churn-candidate can be forwarded: status 403") as e:
        stage.apply(plan_of(package, footprint, OPEN), agree, quiet)
    assert "deployer-role.yaml" in e.value.hint
    assert cluster.objects == {}


def test_an_api_server_that_is_away_for_a_moment_is_waited_for(
    cluster: Cluster, package: Package, footprint: Footprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    failed: list[int] = []

    def once(cluster: Cluster) -> None:
        if cluster.asked[-1] == ("GET", CANDIDATE) and CANDIDATE in cluster.objects:
            failed.append(1)
            cluster.failing = 7 if len(failed) == 2 else cluster.failing  # while it is waited for

    cluster.controllers.append(once)
    stage.apply(plan_of(package, footprint, OPEN), agree, lines.append)
    assert any("no healthy upstream" in line for line in lines)
    stage.destroy(plan_of(package, footprint, OPEN), quiet)
    monkeypatch.setattr(applier, "_PATIENCE", 0.0)
    failed.clear()
    with pytest.raises(PlatformError, match="no healthy upstream"):
        stage.apply(plan_of(package, footprint, OPEN), agree, quiet)


@pytest.mark.parametrize(
    ("reason", "hint"),
    [("OOMKilled", "--set memory"), ("ImagePullBackOff", "--set pull-secret")],
)
def test_a_pod_that_fails_shows_its_log_and_what_to_do(
    cluster: Cluster, package: Package, footprint: Footprint, reason: str, hint: str
) -> None:
    state = (
        {"terminated": {"reason": reason, "exitCode": 137}}
        if reason == "OOMKilled"
        else {"waiting": {"reason": reason, "message": "no such image"}}
    )

    def fail(cluster: Cluster) -> None:
        for pod in cluster.of_kind("Pod"):
            phase = "Failed" if reason == "OOMKilled" else "Pending"
            pod["status"] = {"phase": phase, "containerStatuses": [{"state": state}]}

    cluster.logs["churn-candidate"] = "loading churn\nreading 2 GiB of weights\n"
    cluster.controllers.append(fail)
    with pytest.raises(PlatformError, match=reason) as caught:
        stage.apply(plan_of(package, footprint, OPEN), agree, quiet)
    assert "end of its log:\n  loading churn\n  reading 2 GiB" in str(caught.value)
    assert hint in caught.value.hint


def test_a_pull_that_fails_once_is_tried_again(
    cluster: Cluster, package: Package, footprint: Footprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_SETTLE", 30.0)
    seen = []

    def flaky(cluster: Cluster) -> None:
        for pod in cluster.of_kind("Pod"):
            seen.append(1)
            waiting = {"waiting": {"reason": "ImagePullBackOff"}}
            if len(seen) < 6:
                pod["status"] = {"phase": "Pending", "containerStatuses": [{"state": waiting}]}
            elif len(seen) == 6:
                del pod["status"]

    cluster.controllers.insert(0, flaky)
    stage.apply(plan_of(package, footprint, OPEN), agree, quiet)


def test_a_quota_is_told_while_it_may_still_be_met() -> None:
    found = {
        "metadata": {"generation": 1}, "spec": {"replicas": 2},
        "status": {"observedGeneration": 1, "updatedReplicas": 1, "replicas": 2, "conditions": [
            {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: cpu"}]},
    }  # fmt: skip
    done, failed, said = rollout_state(found)
    assert not done
    assert not failed
    assert "exceeded quota: cpu" in said
    found["status"]["conditions"].append(  # type: ignore[index]
        {"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    )
    assert rollout_state(found)[1] == "timed out; exceeded quota: cpu"


@pytest.mark.parametrize("text", ["a: b: c", "- just\n- a list\n", "clusters: 5\ncontexts: 3\n",
                                  "current-context: x\ncontexts: [{name: x}]\n"])  # fmt: skip
def test_a_broken_kubeconfig_is_told(
    package: Package, footprint: Footprint, tmp_path: Path, text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(PlatformError, match="no access to a Kubernetes cluster"):
        stage.apply(plan_of(package, footprint, OPEN), agree, quiet)


def test_nobody_elses_pods_get_the_network_policy(package: Package, footprint: Footprint) -> None:
    bodies = {body["kind"]: body for body in objects_of(plan_of(package, footprint, OPEN))}
    selector = bodies["NetworkPolicy"]["spec"]["podSelector"]
    (component,) = selector["matchExpressions"]
    assert selector["matchLabels"] == {"app.kubernetes.io/name": "churn"}
    assert component["key"] in SERVER
    for labels in (
        bodies["Deployment"]["spec"]["template"]["metadata"]["labels"],
        bodies["Pod"]["metadata"]["labels"],
    ):
        assert labels[component["key"]] in component["values"]


def test_waits_are_as_long_as_the_probes_allow(package: Package) -> None:
    slow = Footprint(memory=90 << 20, latency=0.001, processor=0.001, start=100.0, measured=True)
    plan = plan_of(package, slow, OPEN)
    spec = next(b for b in objects_of(plan) if b["kind"] == "Deployment")["spec"]
    assert spec["progressDeadlineSeconds"] > 20 * slow.start
    waits = [call.wait["timeout"] for call in plan.calls if call.wait]
    assert len(waits) == 2
    assert min(waits) >= spec["progressDeadlineSeconds"]


def test_the_registrys_credentials_are_named_for_every_pod(
    package: Package, footprint: Footprint
) -> None:
    plan = plan_of(package, footprint, [*OPEN, "pull-secret=registry"])
    bodies = {body["kind"]: body for body in objects_of(plan)}
    for spec in (bodies["Deployment"]["spec"]["template"]["spec"], bodies["Pod"]["spec"]):
        assert spec["imagePullSecrets"] == [{"name": "registry"}]


def test_the_probes_ask_what_the_server_answers_without_a_key(
    package: Package, footprint: Footprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(package, footprint, [IMAGE, KEY])
    container = next(b for b in objects_of(plan) if b["kind"] == "Pod")["spec"]["containers"][0]
    paths = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in
             ("startup", "readiness", "liveness")}  # fmt: skip
    monkeypatch.setenv("MODELPORT_API_KEY", "a-key-of-this-test-only")
    with serving(package) as port:
        for path in paths:
            assert httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 200
        metrics = f"http://127.0.0.1:{port}/metrics"
        assert httpx.get(metrics).status_code == 401
        bearer = {"Authorization": "Bearer a-key-of-this-test-only"}  # as the ServiceMonitor says
        assert httpx.get(metrics, headers=bearer).status_code == 200


def test_a_destroyed_deployment_is_not_found(
    cluster: Cluster, package: Package, footprint: Footprint
) -> None:
    with pytest.raises(NotFoundError):
        stage.status(plan_of(package, footprint, OPEN))
