"""KServe: a ServingRuntime of this package's image, and an InferenceService that uses it.

With Knative the new revision gets no traffic before it has been verified; without it, KServe gives
it traffic when it is ready, which is when it has answered its own golden records.

Sources: https://github.com/kserve/kserve (``pkg/constants``,
``pkg/controller/v1beta1/inferenceservice``); https://knative.dev/docs/serving/.
"""

from __future__ import annotations

import shlex

from modelport.deploy import documents
from modelport.deploy.base import Call, Plan, PlannedFile, Result
from modelport.deploy.kubernetes import calls as kubecalls
from modelport.deploy.kubernetes import manifests
from modelport.deploy.kubernetes.inference import Inference, inference_service, serving_runtime
from modelport.deploy.kubernetes.inference_choices import KserveSettings, check
from modelport.deploy.limits import check_limits
from modelport.deploy.service import Service

_CANARY = "spec.predictor.canaryTrafficPercent"


class KserveTarget:
    """Plans for KServe 0.16 and newer; with Knative, 1.15 and newer."""

    name = "kserve"
    settings = KserveSettings
    needs_image = True
    cold_start = "none (replicas always run); tens of seconds with knative and min-replicas=0"

    def plan(self, service: Service, settings: KserveSettings) -> Plan:
        """Say what has to be written and called.

        Raises
        ------
        InputError
            When a setting is missing or cannot be used, with the key.
        """
        check(settings)
        key = manifests.read_key(settings.key_secret, settings.anonymous, self.name)
        sizing = manifests.size(
            service.footprint, rps=settings.rps, replicas=max(1, settings.min_replicas),
            memory=settings.memory, cpu=settings.cpu, max_body=settings.max_body,
        )  # fmt: skip
        image = service.image(settings.image)
        unpinned = manifests.unpinned_note(image)
        work = Inference(service, settings, key, sizing, image)
        calls = _calls(work)
        return Plan(
            target=self.name,
            service=service,
            image=image,
            applier="kubernetes",
            connection={"context": settings.context, "namespace": settings.namespace},
            files=_files(work, calls),
            calls=calls,
            status=Call(
                "status", "kubernetes", "get", work.reference, "read the InferenceService",
                rights=("get inferenceservices.serving.kserve.io",),
            ),
            endpoint=Result("ready", "url"),
            verify_at=Result("forward", "url"),
            checks=check_limits(
                self.name,
                {
                    "name": len(service.name),
                    "timeout": settings.timeout,
                    "concurrency": settings.concurrency,
                    "replicas": settings.min_replicas,
                },
                settings.mode,
            ),
            notes=_notes(work, unpinned),
            commands=_commands(settings),
        )  # fmt: skip


def _files(work: Inference, calls: tuple[Call, ...]) -> tuple[PlannedFile, ...]:
    role = kubecalls.role(f"{work.service.name}-deployer", work.settings.namespace, calls)
    service = inference_service(work, work.settings.canary)
    return (
        PlannedFile(
            "servingruntime.yaml", documents.to_yaml(serving_runtime(work)), "how it is served"
        ),
        PlannedFile("inferenceservice.yaml", documents.to_yaml(service), "the service"),
        PlannedFile(
            "deployer-role.yaml",
            documents.to_yaml(role, comment="What modelport deploy --yes has to be allowed."),
            "the least rights of whoever deploys; nothing applies it",
        ),
    )


def _commands(settings: KserveSettings) -> tuple[str, ...]:
    context = f" --context {shlex.quote(settings.context)}" if settings.context else ""
    return (
        f"kubectl{context} create namespace {settings.namespace}  # once",
        f"kubectl{context} apply --server-side -f servingruntime.yaml -f inferenceservice.yaml",
    )


def _calls(work: Inference) -> tuple[Call, ...]:
    force, settings = work.settings.take_over, work.settings
    calls = [
        kubecalls.applied(
            "runtime", serving_runtime(work), "say how the image is served", force=force
        ),
        kubecalls.applied(
            "service", inference_service(work, 0 if work.knative else 100),
            "start the new version" + (", without traffic where one runs" if work.knative else ""),
            phase="serve", previous="put the earlier version back", force=force,
            # None of the traffic for a version that has it already would take it away.
            **({"steady": _CANARY} if work.knative else {}),
        ),
        _ready(work, "ready", "serve", "wait until it has answered its golden records"),
        kubecalls.forwarded(
            settings.namespace, work.selector, manifests.HTTP_PORT,
            f"/v2/models/{work.service.name}/infer",
        ),
        kubecalls.forward_closed(),
    ]  # fmt: skip
    if work.knative:
        calls += [
            kubecalls.applied(
                "traffic", inference_service(work, settings.canary),
                f"give it {settings.canary} % of the traffic",
                phase="shift", previous="take the traffic away again", force=force,
            ),
            _ready(work, "moved", "shift", "wait until the traffic has moved"),
        ]  # fmt: skip
    return tuple(calls)


def _ready(work: Inference, identity: str, phase: str, purpose: str) -> Call:
    return Call(
        identity, "kubernetes", "get", work.reference, purpose,
        rights=("get inferenceservices.serving.kserve.io", *kubecalls.WATCHING),
        phase=phase,
        wait={
            "for": "service", "selector": work.selector,
            # With none that always runs, the first one may be gone again.
            "pods": phase == "serve" and work.settings.min_replicas > 0,
            "timeout": manifests.deadline(work.service.footprint) + 60,
        },
    )  # fmt: skip


def _notes(work: Inference, unpinned: str) -> tuple[str, ...]:
    service, settings = work.service, work.settings
    notes = [unpinned] if unpinned else []
    notes.append(manifests.sizing_note(service.footprint, work.sizing, settings.rps))
    notes.append(
        f"clients call the model {service.name}, as KServe demands; verification asks the new pod "
        "through a forwarded port of 127.0.0.1 that is closed before the traffic moves"
    )
    if settings.mode == "standard":
        notes.append(
            "without Knative the new version gets traffic as soon as it is ready, which is after "
            "it has answered its own golden records; wrong answers put the earlier one back"
        )
    if settings.protocol == "grpc-v2":
        notes.append("clients speak gRPC; verification asks the same model over HTTP, in the pod")
    if settings.anonymous:
        notes.append("there is no key: everybody who reaches the service may ask")
    else:
        notes.append(
            f"the Secret of {settings.key_secret} has to be in the namespace before; to verify, "
            "modelport shows the key in MODELPORT_API_KEY"
        )
    notes.append("ServingRuntimes of earlier versions stay, for a way back; delete them at will")
    if settings.canary < 100:
        notes.append("canary=100 later gives the new version all of the traffic")
    return tuple(notes)
