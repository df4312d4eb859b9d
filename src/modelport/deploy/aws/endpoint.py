"""SageMaker's requests: the documents that the calls carry.

Sources: the API reference of ``CreateModel``, ``CreateEndpointConfig``, ``UpdateEndpoint`` and
``CreateTransformJob``; SageMaker developer guide, "Serverless endpoints", "Asynchronous
inference", "Multi-model endpoints", "Blue/green deployments".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from modelport.deploy.aws.endpoint_role import endpoint_rights
from modelport.deploy.aws.endpoint_settings import ON_INSTANCES, STEP, SageMakerSettings
from modelport.deploy.aws.place import Place
from modelport.deploy.aws.roles import fingerprint, role_of, tags
from modelport.deploy.service import Service

#: The only variant. Its name never changes: scaling policies hang on it, and updates ask for it.
VARIANT: Final = "main"


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
        return self.settings.memory or max(STEP, STEP * -(-int(needed) // STEP))

    @property
    def endpoint(self) -> str:
        """The endpoint's name: it stays when its model changes."""
        return self.service.name

    @property
    def model_name(self) -> str:
        """A model cannot be changed, so its name tells what is in it."""
        return self._named(self.settings.image, self.container(tagged=False), self.role)

    @property
    def config_name(self) -> str:
        """The same for the endpoint's configuration."""
        return self._named(self.settings.image, self.role, self.variant(""), self._asynchronous())

    @property
    def candidate_name(self) -> str:
        """The same for the endpoint that is verified before this one changes."""
        return self._named("candidate", self.settings.image, self.role, self.candidate_variant(""))

    @property
    def job_name(self) -> str:
        """The same for a transform job."""
        s = self.settings
        return self._named(
            s.image, self.role, s.input, s.output, s.instance_type, s.instances, s.content_type,
            s.run,
        )  # fmt: skip

    @property
    def archive(self) -> str:
        """What the package's archive is called in the bucket of a multi-model endpoint."""
        return f"{self.service.name}-{self.service.tag}.tar.gz"

    def address(self, endpoint: str) -> str:
        """Where `verify` asks an endpoint, with whose credentials, and for which model."""
        asked = {
            "model": self.archive if self.settings.mode == "multi-model" else "",
            "profile": self.settings.profile,
        }
        query = urlencode({key: value for key, value in asked.items() if value})
        return f"sagemaker://{self.place.region}/{endpoint}" + (f"?{query}" if query else "")

    def rights(self) -> dict[str, Any]:
        """What the role may do."""
        return endpoint_rights(self.service.name, self.settings, self.place)

    def container(self, *, tagged: bool = True) -> dict[str, Any]:
        """The container; the server sees by ``SAGEMAKER_REGION`` where it is."""
        settings = self.settings
        image = self.service.image(settings.image) if tagged else settings.image
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

    def candidate_variant(self, model: str) -> dict[str, Any]:
        """The same model on as little as can be: only the golden records are asked."""
        found = self.variant(model)
        if "ServerlessConfig" in found:
            return {**found, "ServerlessConfig": {**found["ServerlessConfig"], "MaxConcurrency": 1}}
        return {**found, "InitialInstanceCount": 1}

    def config(self) -> dict[str, Any]:
        """``CreateEndpointConfig``."""
        return {
            "EndpointConfigName": self.config_name,
            "ProductionVariants": [self.variant(self.model_name)],
            **self._asynchronous(),
            "Tags": tags(self.service),
        }

    def candidate_config(self) -> dict[str, Any]:
        """The candidate's: it answers at once, also where the service's answers go to S3."""
        return {
            "EndpointConfigName": self.candidate_name,
            "ProductionVariants": [self.candidate_variant(self.model_name)],
            "Tags": tags(self.service),
        }

    def update(self, alarm: str) -> dict[str, Any]:
        """``UpdateEndpoint``: the new fleet starts beside the old one and takes its traffic.

        A canary first, where there are instances for one; back to the old fleet when `alarm`
        goes off. Serverless endpoints are replaced without either.
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

    def _named(self, *told: Any) -> str:
        """Of the service and its package; several packages share a multi-model endpoint."""
        what = "models" if self.settings.mode == "multi-model" else self.service.tag
        return f"{self.service.name}-{what}-{fingerprint(told)}"

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
