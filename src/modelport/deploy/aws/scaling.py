"""What watches an endpoint: an alarm that takes a bad update back, and autoscaling.

Sources: SageMaker developer guide, "Auto-rollback configuration and monitoring" and
"Automatically scale Amazon SageMaker AI models"; the API reference of Application Auto Scaling.
"""

from __future__ import annotations

from typing import Final

from modelport.deploy.aws.endpoint import VARIANT, Request
from modelport.deploy.aws.roles import only_new, undone
from modelport.deploy.base import Call

_DIMENSION: Final = "sagemaker:variant:DesiredInstanceCount"
_SCALING: Final = "application-autoscaling"
#: Of a core's time: what is left over absorbs the minutes until another instance runs.
_BUSY: Final = 0.6


def alarm_name(request: Request) -> str:
    """Of the alarm on an endpoint's failed requests."""
    return f"modelport-{request.endpoint}-5xx"


def alarm_call(request: Request) -> Call:
    """What makes SageMaker take an update back by itself."""
    name = alarm_name(request)
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


def load(request: Request) -> int:
    """Requests per minute that keep one core of an instance as busy as it should be."""
    seconds = max(request.service.footprint.processor, 1e-4)
    return request.settings.target_load or max(1, int(60 * _BUSY / seconds))


def scaling_calls(request: Request) -> list[Call]:
    """Let instances come and go with the requests."""
    settings = request.settings
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{request.endpoint}/variant/{VARIANT}",
        "ScalableDimension": _DIMENSION,
    }
    tracking = {
        "TargetValue": float(load(request)),
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
            f"scale at {load(request)} requests per minute and instance",
            (f"{_SCALING}:PutScalingPolicy", "cloudwatch:PutMetricAlarm",
             "cloudwatch:DescribeAlarms", "cloudwatch:DeleteAlarms"),
            phase="shift",
        ),
    ]  # fmt: skip
