"""Amazon SageMaker AI: endpoints (real-time, serverless, async, multi-model) and batch transform.

::

    model NAME-TAG-… ◀── configuration NAME-TAG-… ◀── endpoint NAME
    (the image, a role)  (instances or serverless)    (what callers ask; updated in place)

A model and a configuration cannot be changed, so their names tell what is in them; an update
gives the endpoint a new configuration, and taking it back gives it the former one. What is new is
verified first, see `modelport.deploy.aws.endpoint_calls`.

Why a candidate and not a variant without weight beside the old one: async and serverless endpoints
know one variant only, each change of the variants replaces the whole fleet, and guardrails ask for
the same variants before and after.

Sources: see `modelport.deploy.aws.endpoint`; "Exclusions" (deployment guardrails).
"""

from __future__ import annotations

from typing import Final

from modelport.deploy.aws import endpoint_calls as calls_of
from modelport.deploy.aws.endpoint import Request
from modelport.deploy.aws.endpoint_role import endpoint_trust
from modelport.deploy.aws.endpoint_settings import (
    ON_INSTANCES,
    THROUGH_S3,
    SageMakerSettings,
    refuse_wrong,
)
from modelport.deploy.aws.files import commands_of, request_files
from modelport.deploy.aws.place import (
    SERVER_SIZE,
    find_place,
    image_notes,
    repository_call,
)
from modelport.deploy.aws.roles import role_calls
from modelport.deploy.aws.scaling import alarm_call, scaling_calls
from modelport.deploy.base import Call, Plan, Result
from modelport.deploy.limits import Check, check_limits
from modelport.deploy.service import Service

#: An assumption about the base image, on top of the server: Debian with Python.
_BASE_SIZE: Final = 150_000_000


class SageMakerTarget:
    """See `modelport.deploy.base.Target`."""

    name = "sagemaker"
    settings = SageMakerSettings
    cold_start = "none: instances run all the time (serverless: tens of seconds after idle minutes)"

    def plan(self, service: Service, settings: SageMakerSettings) -> Plan:
        """See `modelport.deploy.base.Target.plan`."""
        refuse_wrong(settings)
        request = Request(service, settings, find_place(self.name, settings.region, settings.image))
        region = request.place.region
        prepare, serve = _prepare(request), _serve(request)
        by_hand = [call for call in (*prepare, *serve) if "candidate" not in call.id]
        askable = settings.candidate or settings.mode not in THROUGH_S3
        return Plan(
            self.name,
            service,
            image=request.container()["Image"],
            applier="aws",
            connection={"region": region, "profile": settings.profile},
            files=request_files(by_hand),
            calls=(*prepare, *serve),
            status=_status(request),
            endpoint="" if settings.mode in THROUGH_S3 else request.address(request.endpoint),
            verify_at=_verify_at(request) if askable else "",
            protocol="sagemaker",
            checks=_checks(request),
            notes=tuple(_notes(request)),
            commands=(*_packing(request), *commands_of(by_hand, region, settings.profile)),
        )


def _prepare(request: Request) -> list[Call]:
    settings, place = request.settings, request.place
    calls = [repository_call(place)] if settings.create_repository and place.repository else []
    if settings.mode == "multi-model":
        calls.append(calls_of.archive_call(request))
    if not settings.role:
        calls += role_calls("sagemaker", request.service, place, endpoint_trust(), request.rights())
    calls.append(calls_of.model_call(request))
    if settings.mode in ON_INSTANCES:
        calls.append(alarm_call(request))
    if settings.mode != "batch":
        calls.append(calls_of.config_call("endpoint-config", request.config()))
    if settings.candidate:
        calls.append(calls_of.config_call("candidate-config", request.candidate_config()))
    return calls


def _serve(request: Request) -> list[Call]:
    """From the first server that starts to the traffic."""
    settings = request.settings
    if settings.mode in THROUGH_S3:
        first = [calls_of.candidate_call(request)] if settings.candidate else []
        gone = [calls_of.candidate_gone_call(request)] if settings.candidate else []
        if settings.mode == "batch":
            return [*first, *gone, calls_of.transform_call(request)]
        update = calls_of.update_call(request, "shift")
        calls = [calls_of.former_call(request), *first, *gone,
                 calls_of.create_call(request, "shift", update)]  # fmt: skip
    else:
        calls = [calls_of.former_call(request)]
        if settings.candidate:
            kept = calls_of.kept_call(request, calls_of.candidate_call(request))
            calls += [
                calls_of.create_call(request, "serve", kept),
                calls_of.candidate_gone_call(request),
                calls_of.update_call(request, "shift"),
            ]
        else:
            update = calls_of.update_call(request, "serve")
            calls.append(calls_of.create_call(request, "serve", update))
    return calls + (scaling_calls(request) if settings.max_instances else [])


def _verify_at(request: Request) -> str | Result:
    if request.settings.mode in THROUGH_S3:
        return request.address(request.candidate_name)
    return Result("create-endpoint", "Address")


def _packing(request: Request) -> tuple[str, ...]:
    if request.settings.mode != "multi-model":
        return ()
    to = f"{request.settings.models}{request.archive}"
    profile = f" --profile {request.settings.profile}" if request.settings.profile else ""
    return (
        f"tar -C PACKAGE -czf {request.archive} .",
        f"aws{profile} --region {request.place.region} s3 cp {request.archive} {to}",
    )


def _status(request: Request) -> Call:
    operation, parameters = "DescribeEndpoint", {"EndpointName": request.endpoint}
    if request.settings.mode == "batch":
        operation, parameters = "DescribeTransformJob", {"TransformJobName": request.job_name}
    return Call(
        "status", "sagemaker", operation, parameters, "read its state", (f"sagemaker:{operation}",)
    )


def _checks(request: Request) -> tuple[Check, ...]:
    service, settings = request.service, request.settings
    values: dict[str, float] = {
        "request": service.request_bytes,
        "latency": service.footprint.latency,
        "start": service.footprint.start,
        "timeout": settings.startup_timeout,
        "concurrency": settings.max_concurrency,
        "memory": request.memory << 20,
        "image": _BASE_SIZE + SERVER_SIZE + service.package.size,
        "environment": len(request.container()["Environment"]),
        "name": len(request.model_name),
    }
    return check_limits("sagemaker", values, settings.mode)


def _notes(request: Request) -> list[str]:
    service, settings = request.service, request.settings
    notes = image_notes(settings.image, request.place)
    notes += _notes_on_verification(request)
    if settings.mode in ON_INSTANCES:
        notes.append(
            "an update starts a second fleet beside the first, gives it the traffic, and gives "
            "it back when the alarm goes off; both fleets are paid for until then"
        )
        if settings.instances == 1:
            notes.append("one instance: no canary, and the loss of its zone is an outage")
    if settings.mode == "serverless":
        notes.append("an update replaces the endpoint's workers at once: the guardrails of "
                     "instances do not exist for serverless")  # fmt: skip
    if settings.mode == "multi-model":
        notes.append(
            "packages that are deployed with the same name, image and models share the endpoint: "
            "each adds its archive, and the servers go on; destroy takes all of them out of service"
        )
    if settings.mode == "async" and not settings.input:
        notes.append(f"requests are read from below {settings.output} only; --set input=s3://… "
                     "gives the role another folder")  # fmt: skip
    if settings.mode == "batch":
        notes.append("jobs cannot be deleted; --set run=… starts another one with the same input")
    else:
        notes.append(
            "earlier models and configurations stay, and cost nothing, until destroy; the log "
            f"groups below /aws/sagemaker/Endpoints/{request.endpoint} stay after it"
        )
    if settings.max_instances and not service.footprint.measured and not settings.target_load:
        notes.append("the load to scale at is estimated; --measure computes it from a measurement")
    return notes


def _notes_on_verification(request: Request) -> list[str]:
    settings = request.settings
    if not settings.candidate:
        if settings.mode in THROUGH_S3:
            return ["not verified: requests and answers go through S3; candidate=true verifies "
                    "the model at an endpoint of its own first"]  # fmt: skip
        return ["an update has the traffic while it is verified, and gives it back when the golden "
                "records fail; candidate=true verifies it first"]  # fmt: skip
    what = "serverless" if settings.mode == "serverless" else f"one {settings.instance_type}"
    if settings.mode in THROUGH_S3:
        return [f"the model is verified at a real-time endpoint of its own ({what}, some minutes); "
                "not verified: the way through S3, and the role's rights there"]  # fmt: skip
    return [f"an update is verified at an endpoint of its own ({what}, some minutes) before the "
            "endpoint changes"]  # fmt: skip
