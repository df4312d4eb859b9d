"""SageMaker's requests: the settings, and the documents that the calls carry.

Sources: the API reference of ``CreateModel``, ``CreateEndpointConfig``, ``UpdateEndpoint`` and
``CreateTransformJob``; SageMaker developer guide, "Serverless endpoints", "Asynchronous
inference", "Multi-model endpoints", "Blue/green deployments", "How to use SageMaker execution
roles".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.deploy.aws.place import ACCOUNT, Place, image_of
from modelport.deploy.aws.roles import allow, fingerprint, policy, role_of, tags, trust_policy
from modelport.deploy.base import Service, Settings
from modelport.deploy.settings import setting

MODES: Final = ("real-time", "serverless", "async", "multi-model", "batch")
#: The only variant. Its name never changes: scaling policies hang on it.
VARIANT: Final = "main"
#: Modes that run on instances of one's own, behind an endpoint.
ON_INSTANCES: Final = ("real-time", "async", "multi-model")

_PRINCIPAL: Final = "sagemaker.amazonaws.com"
_METRICS: Final = ("AWS/SageMaker", "/aws/sagemaker/*")
_STEP: Final = 1024


@dataclass(frozen=True, kw_only=True)
class SageMakerSettings(Settings):
    """What can be set about SageMaker."""

    mode: str = setting("real-time", "how it is asked", MODES)
    region: str = setting("", "region (default: the one of the image in ECR)")
    profile: str = setting("", "profile of the AWS configuration")
    role: str = setting("", "ARN of the execution role (default: one is created)")
    create_repository: bool = setting(False, "create the image's ECR repository")
    instance_type: str = setting("ml.m5.large", "instance type, except for serverless")
    instances: int = setting(1, "number of instances; two or more survive the loss of a zone")
    max_instances: int = setting(0, "scale up to so many (0: no autoscaling)")
    target_load: int = setting(0, "requests per minute and instance to scale at (0: computed)")
    memory: int = setting(0, "serverless: MiB, 1024 to 6144 in steps of 1024 (0: computed)")
    max_concurrency: int = setting(20, "serverless, async: requests at a time")
    startup_timeout: int = setting(300, "seconds from the start to the first healthy /ping")
    models: str = setting("", "multi-model: s3://bucket/prefix/ of the packages as .tar.gz")
    input: str = setting("", "batch: s3://bucket/prefix of what is scored")
    output: str = setting("", "async, batch: s3://bucket/prefix for the answers")
    content_type: str = setting("application/jsonlines", "batch: type of the input")
    run: str = setting("", "batch: tells this run from an earlier one with the same input")


@dataclass(frozen=True)
class Request:
    """Everything that SageMaker's documents are made of.

    Parameters
    ----------
    service : Service
    settings : SageMakerSettings
    place : Place
    """

    service: Service
    settings: SageMakerSettings
    place: Place

    @property
    def role(self) -> str:
        """The ARN of the execution role."""
        return role_of("sagemaker", self.service, self.place, self.settings.role)

    @property
    def memory(self) -> int:
        """MiB of a serverless endpoint: twice the measured peak, in steps of 1024."""
        needed = 2 * self.service.footprint.memory / (1 << 20)
        return self.settings.memory or max(_STEP, _STEP * -(-int(needed) // _STEP))

    @property
    def endpoint(self) -> str:
        """The endpoint's name: it stays when its model changes."""
        return self.service.name

    @property
    def model_name(self) -> str:
        """A model cannot be changed, so its name tells what is in it."""
        told = (self.settings.image, self.container(tagged=False), self.role)
        return f"{self.service.name}-{self.service.tag}-{fingerprint(told)}"

    @property
    def config_name(self) -> str:
        """The same for the endpoint's configuration."""
        told = (self.settings.image, self.role, self.variant(""), self._asynchronous())
        return f"{self.service.name}-{self.service.tag}-{fingerprint(told)}"

    @property
    def job_name(self) -> str:
        """The same for a transform job."""
        s = self.settings
        told = (s.image, self.role, s.input, s.output, s.instance_type, s.instances, s.run)
        return f"{self.service.name}-{self.service.tag}-{fingerprint(told)}"

    def container(self, *, tagged: bool = True) -> dict[str, Any]:
        """The container; the server sees by ``SAGEMAKER_REGION`` where it is."""
        settings = self.settings
        image = image_of(self.service, settings.image) if tagged else settings.image
        found: dict[str, Any] = {
            "Image": image,
            "Environment": {"SAGEMAKER_REGION": self.place.region},
        }
        if settings.mode == "multi-model":
            found |= {"Mode": "MultiModel", "ModelDataUrl": settings.models}
        return found

    def model(self) -> dict[str, Any]:
        """``CreateModel``. The server calls nobody, so it gets no network where that is possible.

        Serverless endpoints know no network isolation ("Feature exclusions").
        """
        isolated = self.settings.mode != "serverless"
        return {
            "ModelName": self.model_name,
            "PrimaryContainer": self.container(),
            "ExecutionRoleArn": self.role,
            **({"EnableNetworkIsolation": True} if isolated else {}),
            "Tags": tags(self.service),
        }

    def variant(self, model: str) -> dict[str, Any]:
        """The one production variant."""
        settings = self.settings
        common = {"VariantName": VARIANT, "ModelName": model}
        if settings.mode == "serverless":
            sizes = {"MemorySizeInMB": self.memory, "MaxConcurrency": settings.max_concurrency}
            return {**common, "ServerlessConfig": sizes}
        return {
            **common,
            "InstanceType": settings.instance_type,
            "InitialInstanceCount": settings.instances,
            "InitialVariantWeight": 1.0,
            "ContainerStartupHealthCheckTimeoutInSeconds": settings.startup_timeout,
        }

    def config(self) -> dict[str, Any]:
        """``CreateEndpointConfig``."""
        return {
            "EndpointConfigName": self.config_name,
            "ProductionVariants": [self.variant(self.model_name)],
            **self._asynchronous(),
            "Tags": tags(self.service),
        }

    def _asynchronous(self) -> dict[str, Any]:
        settings = self.settings
        if settings.mode != "async":
            return {}
        output = settings.output.rstrip("/")
        return {
            "AsyncInferenceConfig": {
                "OutputConfig": {"S3OutputPath": output, "S3FailurePath": f"{output}/failed"},
                "ClientConfig": {"MaxConcurrentInvocationsPerInstance": settings.max_concurrency},
            }
        }

    def update(self, alarm: str) -> dict[str, Any]:
        """``UpdateEndpoint``: the new fleet starts beside the old one and takes its traffic.

        A canary of ten percent first, where there are instances for one; back to the old fleet
        when `alarm` goes off. Serverless endpoints are replaced without either.
        """
        named = {"EndpointName": self.endpoint, "EndpointConfigName": self.config_name}
        if self.settings.mode not in ON_INSTANCES:
            return named
        routing: dict[str, Any] = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 300}
        if self.settings.instances > 1:
            size = {"Type": "CAPACITY_PERCENT", "Value": max(10, 100 // self.settings.instances)}
            routing = {"Type": "CANARY", "WaitIntervalInSeconds": 300, "CanarySize": size}
        return {
            **named,
            "RetainAllVariantProperties": bool(self.settings.max_instances),
            "DeploymentConfig": {
                "BlueGreenUpdatePolicy": {
                    "TrafficRoutingConfiguration": routing,
                    "TerminationWaitInSeconds": 120,
                    "MaximumExecutionTimeoutInSeconds": 3600,
                },
                "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm}]},
            },
        }

    def transform_job(self) -> dict[str, Any]:
        """``CreateTransformJob``: lines in, lines out, in the same order."""
        settings = self.settings
        return {
            "TransformJobName": self.job_name,
            "ModelName": self.model_name,
            "BatchStrategy": "MultiRecord",
            "MaxPayloadInMB": 6,
            "ModelClientConfig": {"InvocationsTimeoutInSeconds": 600, "InvocationsMaxRetries": 3},
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": settings.input}},
                "ContentType": settings.content_type,
                "SplitType": "Line",
                "CompressionType": "None",
            },
            "TransformOutput": {
                "S3OutputPath": settings.output,
                "Accept": settings.content_type,
                "AssembleWith": "Line",
            },
            "TransformResources": {
                "InstanceType": settings.instance_type,
                "InstanceCount": settings.instances,
            },
            "Tags": tags(self.service),
        }

    def trust(self) -> dict[str, Any]:
        """SageMaker may act as the role, for this account alone."""
        return trust_policy(_PRINCIPAL, {"StringEquals": {"aws:SourceAccount": ACCOUNT}})

    def rights(self) -> dict[str, Any]:
        """What the role may do: pull this image, write its log and metrics, its own S3 folders.

        ``*`` stands alone where AWS has no resources: ``ecr:GetAuthorizationToken`` and
        ``cloudwatch:PutMetricData``, which a condition narrows to SageMaker's own names.
        """
        place, settings = self.place, self.settings
        group = place.arn("logs", "log-group:/aws/sagemaker/*")
        found = [
            allow(
                "Pull",
                ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage",
                 "ecr:GetDownloadUrlForLayer"),
                place.repository_arn,
            ),
            allow("PullToken", ("ecr:GetAuthorizationToken",), "*"),
            allow(
                "Log",
                ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams",
                 "logs:PutLogEvents"),
                group,
            ),
            allow(
                "Metrics", ("cloudwatch:PutMetricData",), "*",
                Condition={"StringLike": {"cloudwatch:namespace": list(_METRICS)}},
            ),
        ]  # fmt: skip
        for name, address, actions in (
            ("Read", settings.models if settings.mode == "multi-model" else "", ("s3:GetObject",)),
            ("Input", settings.input if settings.mode == "batch" else "", ("s3:GetObject",)),
            ("Output", settings.output if settings.mode in ("async", "batch") else "",
             ("s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject")),
        ):  # fmt: skip
            if address:
                bucket, objects = place.bucket_arns(address)
                found.append(allow(name, actions, objects))
                found.append(
                    allow(f"{name}List", ("s3:GetBucketLocation", "s3:ListBucket"), bucket)
                )
        return policy(found)


def refuse_wrong(settings: SageMakerSettings) -> None:
    """Raise `InputError` for settings that do not fit the mode or each other."""
    needed = {"async": ("output",), "multi-model": ("models",), "batch": ("input", "output")}
    for key in needed.get(settings.mode, ()):
        if not getattr(settings, key):
            raise InputError(
                f"{settings.mode} needs the setting {key}", hint=f"--set {key}=s3://bucket/prefix/"
            )
    for key in ("models", "input", "output"):
        value = getattr(settings, key)
        if value and not value.startswith("s3://"):
            raise InputError(f"not an address in S3: {value!r}", where=f"--set {key}={value}",
                             hint=f"--set {key}=s3://bucket/prefix/")  # fmt: skip
    if settings.models and not settings.models.endswith("/"):
        raise InputError(
            f"the address of the models has to end with /: {settings.models!r}",
            hint=f"--set models={settings.models}/",
        )
    if settings.memory % _STEP:
        raise InputError(
            f"serverless memory comes in steps of {_STEP} MiB, not {settings.memory}",
            hint=f"--set memory={_STEP * -(-settings.memory // _STEP)}",
        )
    if settings.instances < 1:
        raise InputError(f"instances is {settings.instances}", hint="--set instances=1 or more")
    if settings.max_instances and settings.mode not in ON_INSTANCES:
        raise InputError(
            f"{settings.mode} scales by itself", where="--set max-instances",
            hint="leave out --set max-instances; --set max-concurrency limits serverless",
        )  # fmt: skip
    if settings.max_instances and settings.max_instances < settings.instances:
        raise InputError(
            f"max-instances is {settings.max_instances}, fewer than instances",
            hint=f"--set max-instances={settings.instances}",
        )
    if settings.mode != "serverless" and not settings.instance_type.startswith("ml."):
        raise InputError(
            f"not an instance type of SageMaker: {settings.instance_type!r}",
            hint="--set instance-type=ml.m5.large",
        )
