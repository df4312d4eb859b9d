"""Vertex AI: a model in the registry, an endpoint, and batch prediction jobs.

A version without traffic cannot be asked on Vertex AI (``predict`` has no parameter for it), so a
new version is first deployed to an endpoint of its own, ``NAME-candidate``, verified there, then
deployed to the endpoint with its share of the traffic. ``candidate=false`` saves that second
deployment: the new version then gets all traffic at once, and is taken back if it is wrong.

Sources: the types of `google.cloud.aiplatform_v1` (ModelContainerSpec, Endpoint, DeployedModel),
"Custom container requirements" and "Choose an endpoint type" of the Vertex AI documentation.
"""

from __future__ import annotations

from typing import Final

from modelport.core.errors import InputError
from modelport.deploy.base import Call, Plan, PlannedFile, Result
from modelport.deploy.documents import to_json
from modelport.deploy.google import vertex
from modelport.deploy.google.place import (
    check_account,
    check_counts,
    check_percent,
    image_reference,
    location,
)
from modelport.deploy.google.traffic import CANDIDATE, as_rest, shares_of
from modelport.deploy.google.vertex import VertexSettings
from modelport.deploy.limits import Check, check_limits
from modelport.deploy.service import Service

_ALL: Final = 100


class VertexTarget:
    """Vertex AI online and batch prediction."""

    name = "vertex"
    settings = VertexSettings
    cold_start = "none: at least one machine always runs; a deployment takes minutes"

    def plan(self, service: Service, settings: VertexSettings) -> Plan:
        """Say what has to be written and called.

        Raises
        ------
        InputError
            When the project or the region is missing, or a setting cannot be used.
        """
        parent = location(settings.project, settings.region, "vertex")
        check_account(settings.service_account)
        check_percent(settings.percent)
        if settings.min_replicas > 0:  # else the limit refuses it, with its source
            check_counts(settings.min_replicas, settings.max_replicas, 1)
        if settings.percent < _ALL and not settings.candidate:
            raise InputError(
                f"{settings.percent} % of the traffic cannot be verified at the endpoint",
                where="--set candidate=false",
                hint="leave candidate out, or percent",
            )
        image, notes = image_reference(service, settings.image, "Vertex AI")
        model = vertex.upload(service, settings, parent, image)
        if settings.mode == "batch":
            return _batch(service, settings, parent, image, model, notes)
        return _online(service, settings, parent, image, model, notes)


def _online(
    service: Service,
    settings: VertexSettings,
    parent: str,
    image: str,
    model: Call,
    notes: tuple[str, ...],
) -> Plan:
    full = f"{parent}/endpoints/{service.name}"
    phase = "shift" if settings.candidate else "serve"
    final = vertex.deploy(
        "deploy", service, settings, full,
        shares_of(Result("endpoint", "traffic_split"), "0", settings.percent),
        replicas=(settings.min_replicas, settings.max_replicas),
        phase=phase,
        undo=vertex.undeploy(full),
    )  # fmt: skip
    address = (vertex.read("address", full, phase),) if settings.dedicated else ()
    endpoint = vertex.endpoint(service, settings, parent, "", "create the endpoint")
    calls: tuple[Call, ...] = (model, endpoint, final, *address, vertex.clean(full))
    if settings.candidate:
        tried, gone = _candidate(service, settings, parent, full)
        calls = (model, endpoint, *tried, final, *address, gone, vertex.clean(full))
    files, commands = _by_hand(service, parent, (model, endpoint, final))
    return Plan(
        target="vertex",
        service=service,
        image=image,
        applier="google",
        connection={"project": settings.project, "region": settings.region},
        files=files,
        calls=calls,
        status=Call(
            "status", vertex.ENDPOINTS, "get_endpoint", {"name": full}, "read the endpoint",
            rights=("aiplatform.endpoints.get",),
        ),
        endpoint=_url(settings, full, "address"),
        verify_at=(
            _url(settings, f"{full}-{CANDIDATE}", "candidate-address") if settings.candidate else ""
        ),
        protocol="vertex",
        checks=_checks(service, settings),
        notes=(*notes, *_notes(settings)),
        commands=commands,
    )  # fmt: skip


def _candidate(
    service: Service, settings: VertexSettings, parent: str, full: str
) -> tuple[tuple[Call, ...], Call]:
    """What is verified, on an endpoint of its own; and what takes that away afterwards."""
    beside = f"{full}-{CANDIDATE}"
    why = "create an endpoint for the verification"
    tried: tuple[Call, ...] = (
        vertex.endpoint(service, settings, parent, CANDIDATE, why),
        vertex.deploy(
            "try", service, settings, beside, {"0": _ALL}, replicas=(1, 1), phase="serve",
            undo=vertex.delete("try-delete", beside),
        ),
    )  # fmt: skip
    if settings.dedicated:
        tried += (vertex.read("candidate-address", beside, "serve"),)
    return tried, vertex.delete("candidate-gone", beside, "shift")


def _url(settings: VertexSettings, full: str, call: str) -> str | Result:
    """Known before, unless the endpoint has an address of its own."""
    if settings.dedicated:
        return Result(call, "predict_url")
    return f"https://{settings.region}-aiplatform.googleapis.com/v1/{full}:predict"


def _batch(
    service: Service,
    settings: VertexSettings,
    parent: str,
    image: str,
    model: Call,
    notes: tuple[str, ...],
) -> Plan:
    for key in ("source", "destination"):
        if not getattr(settings, key).startswith("gs://"):
            raise InputError(f"mode=batch needs a {key}", hint=f"--set {key}=gs://BUCKET/…")
    job = {
        "display_name": f"{service.name}-{service.tag}",
        "labels": service.labels,
        "model": Result("model", "versioned_name"),
        "input_config": {
            "instances_format": "jsonl",
            "gcs_source": {"uris": [settings.source]},
        },
        "output_config": {
            "predictions_format": "jsonl",
            "gcs_destination": {"output_uri_prefix": settings.destination},
        },
        "dedicated_resources": {
            "machine_spec": vertex.machine(service, settings),
            "starting_replica_count": settings.min_replicas,
            "max_replica_count": settings.max_replicas,
        },
    }
    if settings.service_account:
        job["service_account"] = settings.service_account
    call = Call(
        "job", vertex.JOBS, "create_batch_prediction_job",
        {"parent": parent, "batch_prediction_job": job}, "score the files",
        rights=("aiplatform.batchPredictionJobs.create", "aiplatform.batchPredictionJobs.get",
                "aiplatform.batchPredictionJobs.cancel",
                "storage.objects.get", "storage.objects.list", "storage.objects.create",
                *vertex.acting(settings)),
        phase="shift", wait={"job": 24 * 3600},
    )  # fmt: skip
    calls = (model, call)
    files, commands = _by_hand(service, parent, calls)
    return Plan(
        target="vertex",
        service=service,
        image=image,
        applier="google",
        connection={"project": settings.project, "region": settings.region},
        files=files,
        calls=calls,
        status=Call(
            "status", vertex.MODELS, "get_model", {"name": f"{parent}/models/{service.name}"},
            "read the model", rights=("aiplatform.models.get",),
        ),
        protocol="vertex",
        checks=_checks(service, settings),
        notes=(
            *notes,
            "there is no endpoint: the answers are not verified here, but in the job's output",
            "destroy deletes the model; finished jobs and their output stay",
        ),
        commands=commands,
    )  # fmt: skip


def _checks(service: Service, settings: VertexSettings) -> tuple[Check, ...]:
    values = {
        "name": len(service.name),
        "request": service.request_bytes,
        "timeout": settings.timeout,
        "deployment": settings.deployment_timeout,
        "replicas": settings.min_replicas,
        "package": service.package.size,
    }
    kind = "dedicated" if settings.dedicated else "shared"
    return check_limits("vertex", values, "batch" if settings.mode == "batch" else kind)


def _notes(settings: VertexSettings) -> tuple[str, ...]:
    notes: tuple[str, ...] = (
        "callers need aiplatform.endpoints.predict (roles/aiplatform.user) and an access token; "
        "the server itself asks for no key",
        "Vertex AI reads the image with its own agent, "
        "service-PROJECT_NUMBER@gcp-sa-aiplatform.iam.gserviceaccount.com, which needs "
        "roles/artifactregistry.reader where the image is in another project",
    )
    if settings.candidate:
        notes += (
            "it is deployed twice, first for the verification: minutes more, and one more machine "
            "for that time; --set candidate=false deploys once, and verifies after the traffic "
            "has been shifted",
        )
    return notes


def _by_hand(
    service: Service, parent: str, calls: tuple[Call, ...]
) -> tuple[tuple[PlannedFile, ...], tuple[str, ...]]:
    """The requests as files for the REST API, without the candidate, and their commands.

    Source: the API's reference, v1: the path has what the body leaves out.
    """
    version = f"{parent}/models/{service.name}@{vertex.alias(service)}"
    region = parent.rpartition("/")[2]
    files, commands = [], []
    for call in calls:
        path, field = _PATHS[call.operation]
        values = {**call.parameters}
        where = path.format_map(values)
        body = values[field] if field else {k: v for k, v in values.items() if k not in _IN_PATH}
        file = f"{call.operation.replace('_', '-')}.json"
        purpose = f"the body of the request: {call.purpose}"
        files.append(PlannedFile(file, to_json(as_rest(body, version)), purpose))
        commands.append(
            "curl --fail-with-body -X POST"
            ' -H "Authorization: Bearer $(gcloud auth print-access-token)"'
            f" -H 'Content-Type: application/json' -d @{file}"
            f" 'https://{region}-aiplatform.googleapis.com/v1/{where}'"
        )
    return tuple(files), tuple(commands)


#: Path of the REST API, and the field that is the whole body; empty: all that is not in the path.
_PATHS: Final = {
    "upload_model": ("{parent}/models:upload", ""),
    "create_endpoint": ("{parent}/endpoints?endpointId={endpoint_id}", "endpoint"),
    "deploy_model": ("{endpoint}:deployModel", ""),
    "create_batch_prediction_job": ("{parent}/batchPredictionJobs", "batch_prediction_job"),
}
_IN_PATH: Final = ("parent", "endpoint")
