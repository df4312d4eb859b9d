"""A Cloud Run service as YAML: for ``gcloud``, and without anything of Google's, for any Knative.

Sources: Cloud Run's YAML reference, ``serving.knative.dev/v1`` with annotations of its own; Knative
Serving's API and runtime contract.
"""

from __future__ import annotations

from typing import Any

from modelport.deploy.base import PlannedFile
from modelport.deploy.documents import to_yaml
from modelport.deploy.google import run
from modelport.deploy.google.place import short_digest
from modelport.deploy.google.run import CloudRunSettings
from modelport.deploy.kubernetes import knative
from modelport.deploy.kubernetes.manifests import Key
from modelport.deploy.service import Service
from modelport.deploy.settings import mebibytes


def for_gcloud(
    service: Service, settings: CloudRunSettings, template: dict[str, Any]
) -> PlannedFile:
    """The same service as ``gcloud run services replace`` takes it."""
    server = template["containers"][0]
    document = knative.knative_service(
        service,
        revision=template["revision"],
        annotations={
            "run.googleapis.com/ingress": settings.ingress,
            "run.googleapis.com/invoker-iam-disabled": str(settings.public).lower(),
        },
        revision_annotations={
            "autoscaling.knative.dev/minScale": str(settings.min_instances),
            "autoscaling.knative.dev/maxScale": str(settings.max_instances),
            "run.googleapis.com/cpu-throttling": "true",
            "run.googleapis.com/startup-cpu-boost": "true",
            **_generation(settings),
        },
        spec={
            "containerConcurrency": template["max_instance_request_concurrency"],
            "timeoutSeconds": settings.timeout,
            "serviceAccountName": template["service_account"],
            "containers": [
                knative.container(
                    server["image"],
                    run.environment(settings),
                    run.secrets(settings, "latest"),
                    server["resources"]["limits"],
                    {
                        "startupProbe": knative.probe(run.READY, **run.STARTUP),
                        "livenessProbe": knative.probe(run.LIVE, **run.LIVENESS),
                    },
                )
            ],
        },
    )
    text = to_yaml(document, comment="Written by modelport: gcloud run services replace FILE")
    return PlannedFile("service.yaml", text, "the service, for gcloud run services replace")


def _generation(settings: CloudRunSettings) -> dict[str, str]:
    if settings.generation == "default":
        return {}
    return {"run.googleapis.com/execution-environment": settings.generation}


def for_cluster(
    service: Service, settings: CloudRunSettings, shape: run.Shape, image: str, key: Key
) -> PlannedFile:
    """The service on a cluster of one's own: as little as the server needs, and with a key."""
    account = {"serviceAccountName": settings.service_account} if settings.service_account else {}
    spec = knative.hardened(
        {
            "containerConcurrency": shape.concurrency,
            "timeoutSeconds": settings.timeout,
            **account,
        },
        [
            knative.container(
                image,
                run.times(settings),
                {run.KEY: (key.secret, key.entry)},
                {"cpu": str(shape.cpu), "memory": mebibytes(shape.memory)},
                {
                    "readinessProbe": knative.probe(run.READY, period=5, timeout=2, failures=3),
                    "livenessProbe": knative.probe(run.LIVE, **run.LIVENESS),
                },
            )
        ],
    )
    # Only inside of the cluster, unless all may reach it. Source: Knative, "Private services".
    inside = {"networking.knative.dev/visibility": "cluster-local"}
    document = knative.knative_service(
        service,
        revision=f"{service.name}-{short_digest(spec)}",
        namespace=settings.namespace,
        annotations={},
        more_labels={} if settings.ingress == "all" else inside,
        revision_annotations={
            "autoscaling.knative.dev/min-scale": str(settings.min_instances),
            "autoscaling.knative.dev/max-scale": str(settings.max_instances),
        },
        spec=spec,
    )
    text = to_yaml(document, comment="Written by modelport: kubectl apply -f FILE")
    return PlannedFile("service.yaml", text, "the Knative Service")
