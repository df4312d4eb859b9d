"""Amazon SageMaker AI: endpoints (real-time, serverless, async, multi-model) and batch transform.

::

    model NAME-TAG-… ◀── configuration NAME-TAG-… ◀── endpoint NAME
    (the image, a role)  (instances or serverless)    (what callers ask; updated in place)

A model and a configuration cannot be changed, so their names tell what is in them; an update
gives the endpoint a new configuration, and taking it back gives it the former one.

Sources: see `modelport.deploy.aws.endpoint`; "Automatically scale SageMaker models" for the
autoscaling calls; "Auto-rollback configuration and monitoring" for the alarm.
"""

from __future__ import annotations

from typing import Final

from modelport.deploy.aws.endpoint import (
    ON_INSTANCES,
    VARIANT,
    Request,
    SageMakerSettings,
    refuse_wrong,
)
from modelport.deploy.aws.files import commands_of, request_files
from modelport.deploy.aws.place import SERVER_SIZE, find_place, image_notes, repository_call
from modelport.deploy.aws.roles import only_new, role_calls, undone
from modelport.deploy.base import Call, Plan, Result, Service
from modelport.deploy.limits import Check, check_limits

_DIMENSION: Final = "sagemaker:variant:DesiredInstanceCount"
_SCALING: Final = "application-autoscaling"
#: Of a core's time: what is left over absorbs the minutes until another instance runs.
_BUSY: Final = 0.6
#: An assumption about the base image, on top of the server: Debian with Python.
_BASE_SIZE: Final = 150_000_000


class SageMakerTarget:
    """See `modelport.deploy.base.Target`."""

    name = "sagemaker"
    settings = SageMakerSettings
    needs_image = True
    cold_start = "none: instances run all the time (serverless: tens of seconds after idle minutes)"

    def plan(self, service: Service, settings: SageMakerSettings) -> Plan:
        """See `modelport.deploy.base.Target.plan`."""
        refuse_wrong(settings)
        request = Request(service, settings, find_place(self.name, settings.region, settings.image))
        calls = tuple(_calls(request))
        region = request.place.region
        return Plan(
            self.name,
            service,
            image=request.container()["Image"],
            applier="aws",
            connection={"region": region, "profile": settings.profile},
            files=request_files(calls),
            calls=calls,
            status=_status(request),
            endpoint=_endpoint(request),
            protocol="sagemaker",
            checks=_checks(request),
            notes=tuple(_notes(request)),
            commands=commands_of(calls, region, settings.profile),
        )


def _calls(request: Request) -> list[Call]:
    settings, place = request.settings, request.place
    calls = [repository_call(place)] if settings.create_repository and place.repository else []
    if not settings.role:
        calls += role_calls("sagemaker", request.service, place, request.trust(), request.rights())
    if settings.mode == "multi-model":
        calls.append(_archive(request))
    calls.append(_model(request))
    if settings.mode == "batch":
        return [*calls, _transform(request)]
    if settings.mode in ON_INSTANCES:
        calls.append(_alarm(request))
    calls += [_config(request), _former(request), _serve(request)]
    return calls + (_scaling(request) if settings.max_instances else [])


def _archive(request: Request) -> Call:
    """Multi-model: the package has to be in the bucket, or nothing could be asked."""
    bucket, _, prefix = request.settings.models.removeprefix("s3://").partition("/")
    return Call(
        "find-archive", "s3", "HeadObject",
        {"Bucket": bucket, "Key": prefix + _archive_name(request)},
        "look for the package in the bucket", ("s3:GetObject",),
    )  # fmt: skip


def _archive_name(request: Request) -> str:
    return f"{request.service.name}-{request.service.tag}.tar.gz"


def _model(request: Request) -> Call:
    named = {"ModelName": request.model_name}
    return Call(
        "create-model", "sagemaker", "CreateModel", request.model(),
        f"create the model {request.model_name}",
        ("iam:PassRole", "sagemaker:AddTags", "sagemaker:CreateModel"),
        undo=undone(
            "model", "sagemaker", "DeleteModel", named, "the model", "sagemaker:DeleteModel"
        ),
    )  # fmt: skip


def _config(request: Request) -> Call:
    named = {"EndpointConfigName": request.config_name}
    return Call(
        "create-endpoint-config", "sagemaker", "CreateEndpointConfig", request.config(),
        f"create the configuration {request.config_name}",
        ("sagemaker:AddTags", "sagemaker:CreateEndpointConfig"),
        undo=undone(
            "endpoint-config", "sagemaker", "DeleteEndpointConfig", named, "the configuration",
            "sagemaker:DeleteEndpointConfig",
        ),
    )  # fmt: skip


def _alarm_name(request: Request) -> str:
    return f"modelport-{request.endpoint}-5xx"


def _alarm(request: Request) -> Call:
    """What makes SageMaker take an update back by itself."""
    name = _alarm_name(request)
    parameters = {
        "AlarmName": name,
        "AlarmDescription": f"more than one percent of {request.endpoint}'s answers are errors",
        "Namespace": "AWS/SageMaker",
        "MetricName": "Invocation5XXErrors",
        "Dimensions": [
            {"Name": "EndpointName", "Value": request.endpoint},
            {"Name": "VariantName", "Value": VARIANT},
        ],
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 0.01,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }
    delete = undone(
        "alarm", "cloudwatch", "DeleteAlarms", {"AlarmNames": [name]}, "the alarm",
        "cloudwatch:DeleteAlarms",
    )  # fmt: skip
    put = Call(
        "put-alarm", "cloudwatch", "PutMetricAlarm", parameters,
        "an alarm on failed requests, which takes a bad update back",
        ("cloudwatch:DescribeAlarms", "cloudwatch:PutMetricAlarm"), undo=delete,
    )  # fmt: skip
    return only_new(put)


def _former(request: Request) -> Call:
    return Call(
        "former", "sagemaker", "DescribeEndpoint", {"EndpointName": request.endpoint},
        "see what the endpoint serves now, if it exists", ("sagemaker:DescribeEndpoint",),
        phase="serve", wait={"missing": "allowed"},
    )  # fmt: skip


def _serve(request: Request) -> Call:
    named = {"EndpointName": request.endpoint}
    ready = {"until": "endpoint-in-service"}
    rights = ("sagemaker:DescribeEndpoint", "sagemaker:UpdateEndpoint")
    back = Call(
        "restore-endpoint", "sagemaker", "UpdateEndpoint",
        {**named, "EndpointConfigName": Result("former", "EndpointConfigName")},
        "give the endpoint its former configuration", rights, wait=ready,
    )  # fmt: skip
    update = Call(
        "update-endpoint", "sagemaker", "UpdateEndpoint", request.update(_alarm_name(request)),
        f"update the endpoint {request.endpoint}", rights, phase="serve", undo=back, wait=ready,
    )  # fmt: skip
    delete = Call(
        "delete-endpoint", "sagemaker", "DeleteEndpoint", named, "delete the endpoint",
        ("sagemaker:DeleteEndpoint", "sagemaker:DescribeEndpoint"),
        wait={"until": "endpoint-deleted"},
    )  # fmt: skip
    return Call(
        "create-endpoint", "sagemaker", "CreateEndpoint",
        {**named, "EndpointConfigName": request.config_name, "Tags": request.config()["Tags"]},
        f"create the endpoint {request.endpoint}, and wait until it is in service",
        ("sagemaker:AddTags", "sagemaker:CreateEndpoint", *rights, "sagemaker:InvokeEndpoint"),
        phase="serve", otherwise=update, undo=delete, wait=ready,
    )  # fmt: skip


def _scaling(request: Request) -> list[Call]:
    settings = request.settings
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{request.endpoint}/variant/{VARIANT}",
        "ScalableDimension": _DIMENSION,
    }
    tracking = {
        "TargetValue": float(_load(request)),
        "PredefinedMetricSpecification": {
            "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
        },
        "ScaleInCooldown": 300,
        "ScaleOutCooldown": 60,
    }
    deregister = undone(
        "scaling", _SCALING, "DeregisterScalableTarget", target, "the autoscaling",
        f"{_SCALING}:DeregisterScalableTarget",
    )  # fmt: skip
    register = Call(
        "register-scaling",
        _SCALING,
        "RegisterScalableTarget",
        {**target, "MinCapacity": settings.instances, "MaxCapacity": settings.max_instances},
        f"let {settings.instances} to {settings.max_instances} instances run",
        (
            f"{_SCALING}:DescribeScalableTargets",
            f"{_SCALING}:RegisterScalableTarget",
            "iam:CreateServiceLinkedRole",
            "sagemaker:DescribeEndpoint",
            "sagemaker:DescribeEndpointConfig",
            "sagemaker:UpdateEndpointWeightsAndCapacities",
        ),
        phase="shift",
        undo=deregister,
    )
    return [
        only_new(register),
        Call(
            "put-scaling-policy", _SCALING, "PutScalingPolicy",
            {
                **target,
                "PolicyName": f"modelport-{request.endpoint}",
                "PolicyType": "TargetTrackingScaling",
                "TargetTrackingScalingPolicyConfiguration": tracking,
            },
            f"scale at {_load(request)} requests per minute and instance",
            (f"{_SCALING}:PutScalingPolicy", "cloudwatch:PutMetricAlarm",
             "cloudwatch:DescribeAlarms", "cloudwatch:DeleteAlarms"),
            phase="shift",
        ),
    ]  # fmt: skip


def _load(request: Request) -> int:
    """Requests per minute that keep one core of an instance as busy as it should be."""
    seconds = max(request.service.footprint.processor, 1e-4)
    return request.settings.target_load or max(1, int(60 * _BUSY / seconds))


def _transform(request: Request) -> Call:
    named = {"TransformJobName": request.job_name}
    read = Call(
        "read-transform-job", "sagemaker", "DescribeTransformJob", named, "read the transform job",
        ("sagemaker:DescribeTransformJob",), phase="serve",
        wait={"until": "transform-job-completed"},
    )  # fmt: skip
    stop = Call(
        "stop-transform-job", "sagemaker", "StopTransformJob", named, "stop the transform job",
        ("sagemaker:StopTransformJob",), wait={"until": "transform-job-stopped"},
    )  # fmt: skip
    return Call(
        "create-transform-job", "sagemaker", "CreateTransformJob", request.transform_job(),
        f"score {request.settings.input}",
        ("sagemaker:AddTags", "sagemaker:CreateTransformJob", "sagemaker:DescribeTransformJob"),
        phase="serve", otherwise=read, undo=stop, wait={"until": "transform-job-completed"},
    )  # fmt: skip


def _status(request: Request) -> Call:
    operation, parameters = "DescribeEndpoint", {"EndpointName": request.endpoint}
    if request.settings.mode == "batch":
        operation, parameters = "DescribeTransformJob", {"TransformJobName": request.job_name}
    return Call(
        "status", "sagemaker", operation, parameters, "read its state", (f"sagemaker:{operation}",)
    )


def _endpoint(request: Request) -> str:
    if request.settings.mode in ("async", "batch"):
        return ""
    query = ""
    if request.settings.mode == "multi-model":
        query = f"?model={_archive_name(request)}"
    return f"sagemaker://{request.place.region}/{request.endpoint}{query}"


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
    notes = image_notes("SageMaker", settings.image, request.place)
    if settings.mode in ON_INSTANCES:
        notes.append(
            "an update starts a second fleet, gives it the traffic, and gives it back when the "
            "alarm goes off or the golden records fail; both fleets are paid for until then"
        )
        if settings.instances == 1:
            notes.append("one instance: no canary, and the loss of its zone is an outage")
    if settings.mode == "serverless":
        notes.append("an update replaces the endpoint's workers at once: the guardrails of "
                     "instances do not exist for serverless")  # fmt: skip
    if settings.mode == "multi-model":
        name = _archive_name(request)
        notes.append(
            f"put the package into the bucket first: tar -C PACKAGE -czf {name} . && "
            f"aws s3 cp {name} {settings.models}"
        )
    if settings.mode == "async":
        notes.append("not verified: answers arrive in S3, where modelport does not read them")
    if settings.mode == "batch":
        notes.append("jobs cannot be deleted; --set run=… starts another one with the same input")
    if settings.max_instances and not service.footprint.measured and not settings.target_load:
        notes.append("the load to scale at is estimated; --measure computes it from a measurement")
    return notes
