"""The role that a server on SageMaker runs as.

Sources: SageMaker developer guide, "How to use SageMaker AI execution roles" (the rights of
``CreateModel`` and ``CreateTransformJob``), "Complete the prerequisites" (asynchronous inference),
"Log groups and streams that SageMaker AI sends to CloudWatch Logs"; service authorization
reference (which actions know resources).
"""

from __future__ import annotations

from typing import Any, Final

from modelport.deploy.aws.endpoint_settings import SageMakerSettings
from modelport.deploy.aws.place import ACCOUNT, Place
from modelport.deploy.aws.roles import allow, policy, trust_policy

_PRINCIPAL: Final = "sagemaker.amazonaws.com"
_METRICS: Final = ("AWS/SageMaker", "/aws/sagemaker/*")
_PULL: Final = (
    "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer",
)  # fmt: skip
_LOG: Final = (
    "logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents",
)  # fmt: skip


def endpoint_trust() -> dict[str, Any]:
    """SageMaker may act as the role, for this account alone (no confused deputy)."""
    return trust_policy(_PRINCIPAL, {"StringEquals": {"aws:SourceAccount": ACCOUNT}})


def endpoint_rights(name: str, settings: SageMakerSettings, place: Place) -> dict[str, Any]:
    """What the role may do: pull this image, write its own logs and metrics, its S3 folders.

    ``*`` stands alone where AWS has no resources: ``ecr:GetAuthorizationToken`` and
    ``cloudwatch:PutMetricData``, which a condition narrows to SageMaker's own names.
    """
    found = [
        allow("Pull", _PULL, place.repository_arn),
        allow("PullToken", ("ecr:GetAuthorizationToken",), "*"),
        allow("Log", _LOG, _log_groups(name, settings, place)),
        allow(
            "Metrics", ("cloudwatch:PutMetricData",), "*",
            Condition={"StringLike": {"cloudwatch:namespace": list(_METRICS)}},
        ),
    ]  # fmt: skip
    if settings.mode == "multi-model":
        found += _folder("Models", place, settings.models, ("s3:GetObject",))
    if settings.mode in ("async", "batch"):
        output = settings.output.rstrip("/") + "/"
        found += _folder("Output", place, output,
                         ("s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"))  # fmt: skip
        if settings.input:
            found += _folder("Input", place, settings.input, ("s3:GetObject",))
    return policy(found)


def _log_groups(name: str, settings: SageMakerSettings, place: Place) -> list[str]:
    """The service's own groups: of the endpoint, and of its candidates."""
    if settings.mode == "batch":
        groups = ["TransformJobs", f"Endpoints/{name}-*"]
    else:
        groups = [f"Endpoints/{name}", f"Endpoints/{name}-*"]
    # With and without the streams of a group: which form is asked for differs by action.
    arns = [place.arn("logs", f"log-group:/aws/sagemaker/{group}") for group in groups]
    return [one for arn in arns for one in ((arn,) if arn.endswith("*") else (arn, f"{arn}:*"))]


def _folder(
    name: str, place: Place, address: str, actions: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Objects below an address, and the list of what is there; nothing else of the bucket."""
    bucket, objects = place.bucket_arns(address)
    prefix = address.removeprefix("s3://").partition("/")[2]
    return [
        allow(name, actions, objects),
        allow(
            f"{name}List", ("s3:ListBucket",), bucket,
            Condition={"StringLike": {"s3:prefix": [f"{prefix}*"]}},
        ),
        allow(f"{name}Region", ("s3:GetBucketLocation",), bucket),
    ]  # fmt: skip
