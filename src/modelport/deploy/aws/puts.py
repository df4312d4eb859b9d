"""Puts replace what is there without a word: how to see whether they would.

Sources: the API references of IAM, CloudWatch, S3 and Application Auto Scaling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

_READS: Final[Mapping[str, Callable[[Any, Mapping[str, Any]], Any]]] = {
    "PutRolePolicy": lambda client, p: client.get_role_policy(
        RoleName=p["RoleName"], PolicyName=p["PolicyName"]
    ),
    "PutMetricAlarm": lambda client, p: client.describe_alarms(AlarmNames=[p["AlarmName"]])[
        "MetricAlarms"
    ],
    "PutObject": lambda client, p: client.head_object(Bucket=p["Bucket"], Key=p["Key"]),
    "RegisterScalableTarget": lambda client, p: client.describe_scalable_targets(
        ServiceNamespace=p["ServiceNamespace"],
        ResourceIds=[p["ResourceId"]],
        ScalableDimension=p["ScalableDimension"],
    )["ScalableTargets"],
}


def would_replace(client: Any, operation: str, parameters: Mapping[str, Any]) -> bool:
    """Whether something is there; raises what AWS says when it is not."""
    return bool(_READS[operation](client, parameters))
