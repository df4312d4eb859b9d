"""SageMaker's calls: the model, the endpoint, and the candidate that is verified before it.

::

    no endpoint yet      create it ─ verify it ─────────────────────────────┐
    another one serves   create a candidate ─ verify that ─ update ─────────┤─ done; the candidate
    it serves this       verify it as it is ────────────────────────────────┤  is gone again
    async, batch         create a candidate ─ verify that ─ create, update, ┘
                                                            or run the job

What callers use is not touched before the golden records have been answered. Sources: see
`modelport.deploy.aws.endpoint`; the API reference of ``DescribeEndpoint`` for the states.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from modelport.deploy.aws.endpoint import Request
from modelport.deploy.aws.endpoint_settings import ON_INSTANCES
from modelport.deploy.aws.place import BUILT
from modelport.deploy.aws.roles import undone
from modelport.deploy.aws.scaling import alarm_name
from modelport.deploy.base import Call, Result

_READ: Final = "sagemaker:DescribeEndpoint"
_UPDATE: Final = (_READ, "sagemaker:UpdateEndpoint")
_CREATE: Final = (
    "sagemaker:AddTags", "sagemaker:CreateEndpoint", "sagemaker:InvokeEndpoint", *_UPDATE,
)  # fmt: skip
#: An endpoint's earlier configurations and models go with it.
_DELETE: Final = (
    "sagemaker:DeleteEndpoint", "sagemaker:DeleteEndpointConfig", "sagemaker:DeleteModel",
    "sagemaker:DescribeEndpointConfig", "sagemaker:ListEndpointConfigs", _READ,
)  # fmt: skip
_READY: Final = "endpoint-in-service"


def archive_call(request: Request) -> Call:
    """Multi-model: the package has to be in the bucket, or nothing could be asked."""
    bucket, _, prefix = request.settings.models.removeprefix("s3://").partition("/")
    named = {"Bucket": bucket, "Key": prefix + request.archive}
    package = {"kind": "package", "package": str(request.service.package.path)}
    return Call(
        "put-archive", "s3", "PutObject", {**named, "Body": {BUILT: package}},
        "pack the package and put it into the bucket, if it is not there",
        ("s3:GetObject", "s3:ListBucket", "s3:PutObject"), wait={"only": "new"},
        undo=undone("archive", "s3", "DeleteObject", named, "the archive", "s3:DeleteObject"),
    )  # fmt: skip


def model_call(request: Request) -> Call:
    """The image and the role."""
    named = {"ModelName": request.model_name}
    return Call(
        "create-model", "sagemaker", "CreateModel", request.model(),
        f"create the model {request.model_name}",
        ("iam:PassRole", "sagemaker:AddTags", "sagemaker:CreateModel"),
        undo=undone(
            "model", "sagemaker", "DeleteModel", named, "the model", "sagemaker:DeleteModel"
        ),
    )  # fmt: skip


def config_call(name: str, parameters: dict[str, Any]) -> Call:
    """A configuration, which says where a model runs: the endpoint's, or the candidate's."""
    whose = name.partition("-")[0]
    named = {"EndpointConfigName": parameters["EndpointConfigName"]}
    return Call(
        f"create-{name}", "sagemaker", "CreateEndpointConfig", parameters,
        f"create the {whose}'s configuration {named['EndpointConfigName']}",
        ("sagemaker:AddTags", "sagemaker:CreateEndpointConfig"),
        undo=undone(
            name, "sagemaker", "DeleteEndpointConfig", named, f"the {whose}'s configuration",
            "sagemaker:DeleteEndpointConfig",
        ),
    )  # fmt: skip


def former_call(request: Request) -> Call:
    """What is there, for the way back; where nothing is, the way back leads to this one."""
    named = {"EndpointName": request.endpoint}
    now = {**named, "EndpointConfigName": request.config_name}
    return Call(
        "former", "sagemaker", "DescribeEndpoint", named,
        "see what the endpoint serves now, if it exists", (_READ,), phase="serve",
        wait={"missing": "allowed", "default": now},
    )  # fmt: skip


def candidate_call(request: Request) -> Call:
    """An endpoint that nobody knows, with the new model: `verify` asks it."""
    named = {"EndpointName": request.candidate_name}
    wait = {"until": _READY, "address": request.address(request.candidate_name)}
    delete = _delete_candidate(request)
    read = Call(
        "read-candidate", "sagemaker", "DescribeEndpoint", named,
        "wait for the candidate of an earlier run", (_READ,), phase="serve", undo=delete,
        wait=wait,
    )  # fmt: skip
    return Call(
        "create-candidate", "sagemaker", "CreateEndpoint",
        {**named, "EndpointConfigName": request.candidate_name,
         "Tags": request.candidate_config()["Tags"]},
        "create a candidate, and wait until it is in service", _CREATE, phase="serve",
        otherwise=read, undo=delete, wait=wait,
    )  # fmt: skip


def candidate_gone_call(request: Request) -> Call:
    """It has been verified, and costs money; `destroy` looks for one that was left over."""
    delete = _delete_candidate(request)
    return replace(
        delete, id="end-candidate", purpose="delete the candidate, if there is one",
        phase="shift", undo=delete, wait={**delete.wait, "missing": "allowed"},
    )  # fmt: skip


def create_call(request: Request, phase: str, otherwise: Call) -> Call:
    """The endpoint, or what is done when it exists."""
    named = {"EndpointName": request.endpoint}
    delete = Call(
        "delete-endpoint", "sagemaker", "DeleteEndpoint", named,
        "delete the endpoint with all its configurations and models", _DELETE,
        wait={"missing": "allowed", "until": "endpoint-deleted", "sweep": request.service.name},
    )  # fmt: skip
    return Call(
        "create-endpoint", "sagemaker", "CreateEndpoint",
        {**named, "EndpointConfigName": request.config_name, "Tags": request.config()["Tags"]},
        f"create the endpoint {request.endpoint}, and wait until it is in service", _CREATE,
        phase=phase, otherwise=otherwise, undo=delete,
        wait={"until": _READY, "address": request.address(request.endpoint)},
    )  # fmt: skip


def kept_call(request: Request, otherwise: Call) -> Call:
    """The endpoint as it is, when it serves this configuration already."""
    return Call(
        "keep-endpoint", "sagemaker", "DescribeEndpoint", {"EndpointName": request.endpoint},
        "see whether the endpoint serves this already", (_READ,), phase="serve",
        otherwise=otherwise,
        wait={"until": "endpoint-settled", "is": {"EndpointConfigName": request.config_name},
              "address": request.address(request.endpoint)},
    )  # fmt: skip


def update_call(request: Request, phase: str) -> Call:
    """Give the endpoint the new configuration; nothing happens when it has it."""
    former = {"EndpointName": Result("former", "EndpointName")}
    restore = Call(
        "restore-endpoint", "sagemaker", "UpdateEndpoint",
        {**former, "EndpointConfigName": Result("former", "EndpointConfigName")},
        "give the endpoint its former configuration", _UPDATE, wait={"until": _READY},
    )  # fmt: skip
    # An update that is still going on cannot be taken back, and AWS may do it by itself.
    settle = Call(
        "settle-endpoint", "sagemaker", "DescribeEndpoint", former,
        "give the endpoint its former configuration, once it has settled", _UPDATE,
        otherwise=restore,
        wait={"until": "endpoint-settled", "not": {"EndpointConfigName": request.config_name}},
    )  # fmt: skip
    alarm = alarm_name(request) if request.settings.mode in ON_INSTANCES else ""
    return Call(
        "update-endpoint", "sagemaker", "UpdateEndpoint", request.update(alarm),
        f"give the endpoint {request.endpoint} this configuration, if it has another", _UPDATE,
        phase=phase, undo=settle,
        wait={"until": _READY, "address": request.address(request.endpoint)},
    )  # fmt: skip


def transform_call(request: Request) -> Call:
    """Score what lies in S3, once."""
    named = {"TransformJobName": request.job_name}
    until = {"until": "transform-job-completed"}
    rights = ("sagemaker:DescribeTransformJob",)
    read = Call(
        "read-transform-job", "sagemaker", "DescribeTransformJob", named, "read the transform job",
        rights, phase="shift", wait=until,
    )  # fmt: skip
    stop = Call(
        "stop-transform-job", "sagemaker", "StopTransformJob", named, "stop the transform job",
        ("sagemaker:StopTransformJob", *rights), wait={"until": "transform-job-stopped"},
    )  # fmt: skip
    return Call(
        "create-transform-job", "sagemaker", "CreateTransformJob", request.transform_job(),
        f"score {request.settings.input}",
        ("sagemaker:AddTags", "sagemaker:CreateTransformJob", *rights),
        phase="shift", otherwise=read, undo=stop, wait=until,
    )  # fmt: skip


def _delete_candidate(request: Request) -> Call:
    return Call(
        "delete-candidate", "sagemaker", "DeleteEndpoint",
        {"EndpointName": request.candidate_name}, "delete the candidate",
        ("sagemaker:DeleteEndpoint", _READ), wait={"until": "endpoint-deleted"},
    )  # fmt: skip
