"""The calls of a deployment on plain Kubernetes: one pod first, then all of them.

One pod of the new version, which gets no traffic, is verified through a forwarded port; only then
the Deployment is updated, which replaces its pods one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modelport.deploy.base import Call
from modelport.deploy.kubernetes import calls, manifests, workload
from modelport.deploy.kubernetes.objects import reference_of

#: What an earlier deployment may have needed, and when it has to go: before or after the rollout.
_OPTIONAL: Final = {
    "autoscaler": ("autoscaling/v2", "HorizontalPodAutoscaler", "before"),
    "ingress": ("networking.k8s.io/v1", "Ingress", "after"),
    "service-monitor": ("monitoring.coreos.com/v1", "ServiceMonitor", "after"),
}


def rollout_calls(
    work: workload.Workload, objects: Mapping[str, dict[str, Any]], *, force: bool
) -> tuple[Call, ...]:
    """Prepare, start a pod without traffic, verify it, then roll the Deployment over.

    Parameters
    ----------
    work : Workload
    objects : mapping
        By the `Call.id` that creates each.
    force : bool
        Change fields, too, that other tools manage.
    """

    def apply(identity: str, purpose: str, phase: str, **how: Any) -> Call:
        return calls.applied(identity, objects[identity], purpose, phase=phase, force=force, **how)

    gone = {key: when for key, (_, _, when) in _OPTIONAL.items() if key not in objects}
    pod = reference_of(workload.candidate(work))
    made = [
        apply("service-account", "create the account without rights", "prepare"),
        apply("network-policy", "close the network but for clients", "prepare"),
        apply("service", f"create the address {work.name}.{work.namespace}.svc", "prepare"),
        apply("disruption-budget", "let nodes be drained one replica at a time", "prepare"),
        *_candidate(work),
        calls.forward_closed(),
        # Now, so that its place is free for the first of the new replicas.
        Call(
            "candidate-done", "kubernetes", "delete", {**pod, "unless": ["missing"]},
            "remove the verified pod", rights=("delete pods", "get pods"), phase="shift",
        ),
        *(_left_out(work, key) for key, when in gone.items() if when == "before"),
        apply(
            "deployment", "replace the replicas one by one", "shift",
            previous="roll the Deployment back", scaled=True,
        ),
        Call(
            "rollout", "kubernetes", "get", reference_of(objects["deployment"]),
            "wait until all replicas are new",
            rights=("get deployments.apps", "list replicasets.apps", *calls.WATCHING),
            phase="shift",
            wait={
                "for": "rollout", "selector": work.selector(),
                # The Deployment says itself when it gets no further, a little earlier.
                "timeout": manifests.deadline(work.footprint) + 60,
            },
        ),
    ]  # fmt: skip
    for key, purpose in (
        ("autoscaler", "let the replicas follow the load"),
        ("ingress", "route its host to it"),
        ("service-monitor", "let Prometheus find it"),
    ):
        if key in objects:
            made.append(apply(key, purpose, "shift"))
        elif gone[key] == "after":
            made.append(_left_out(work, key))
    return tuple(made)


def _left_out(work: workload.Workload, key: str) -> Call:
    api_version, kind, _ = _OPTIONAL[key]
    reference = {
        "apiVersion": api_version, "kind": kind, "name": work.name, "namespace": work.namespace,
    }  # fmt: skip
    return calls.left_out(
        f"{key}-left-out", reference, f"delete the {kind} of an earlier deployment, if there is one"
    )


def _candidate(work: workload.Workload) -> list[Call]:
    pod = workload.candidate(work)
    reference = reference_of(pod)
    gone = Call(
        "candidate-delete", "kubernetes", "delete", reference, "remove the pod without traffic",
        rights=("delete pods", "get pods"),
    )  # fmt: skip
    again = Call(
        "candidate-again", "kubernetes", "recreate", {"object": pod},
        "start a pod without traffic, in place of an earlier one",
        rights=("create pods", "delete pods", "get pods", "patch pods"), phase="serve", undo=gone,
    )  # fmt: skip
    return [
        Call(
            "candidate", "kubernetes", "create", {"object": pod},
            "start one pod of the new version, without traffic",
            rights=("create pods", "get pods", "patch pods"), phase="serve",
            otherwise=again, undo=gone,
        ),
        Call(
            "candidate-ready", "kubernetes", "get", reference,
            "wait until it has answered its golden records",
            rights=("get pods", *calls.WATCHING), phase="serve",
            wait={"for": "ready", "timeout": manifests.deadline(work.footprint)},
        ),
        calls.forwarded(
            work.namespace, work.selector(workload.CANDIDATE), manifests.HTTP_PORT
        ),
    ]  # fmt: skip
