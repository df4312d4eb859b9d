"""Lambda's documents: the settings, the function, the SAM template and the APIs in front of it.

Sources: Lambda developer guide, "Create a Lambda function using a container image", "Lambda
function URLs", "Configure memory" and "Defining permissions with an execution role"; AWS SAM
developer guide, "AWS::Serverless::Function"; the CloudFormation references of API Gateway.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from modelport.core.errors import InputError
from modelport.deploy.aws.front import LIVE, LOG_SKIPS, FrontSettings, front, with_skips
from modelport.deploy.aws.place import Place
from modelport.deploy.aws.roles import allow, policy, role_of, tag_values, trust_policy
from modelport.deploy.service import Service
from modelport.deploy.settings import setting

#: The alias that is verified before the one that callers use moves.
CANDIDATE: Final = "candidate"
HANDLER: Final = "modelport.serve.awslambda.handler"
ENTRY_POINT: Final = ("python", "-m", "awslambdaric")
PRINCIPAL: Final = "lambda.amazonaws.com"

#: MiB with which a function has one whole processor.
_WHOLE: Final = 1769
_LEAST: Final = 512
_RUNTIME: Final = "python3.12"
#: Source: the API reference of ``PutRetentionPolicy``.
_LOG_DAYS: Final = (
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922,
    3288, 3653,
)  # fmt: skip
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SKIPPED: Final = (
    ("CKV_AWS_115", "--set reserved-concurrency=… limits it; by default the account's pool does"),
    ("CKV_AWS_116", "callers wait for the answer: nothing is lost that a queue would keep"),
    ("CKV_AWS_117", "the function calls nobody, so it needs no network of yours"),
    ("CKV_AWS_173", "no variable is a secret"),
)


@dataclass(frozen=True, kw_only=True)
class LambdaSettings(FrontSettings):
    """What can be set about Lambda."""

    region: str = setting("", "region (default: the one of the image in ECR)")
    profile: str = setting("", "profile of the AWS configuration")
    role: str = setting("", "ARN of the execution role (default: one is created)")
    create_repository: bool = setting(False, "create the image's ECR repository")
    package: str = setting("image", "how the code gets there", ("image", "zip"))
    bucket: str = setting("", "zip: S3 bucket of this account and region, for minutes")
    memory: int = setting(0, "MiB; the processor grows with it (0: computed)")
    architecture: str = setting("x86_64", "the image's architecture", ("x86_64", "arm64"))
    reserved_concurrency: int = setting(0, "at most so many requests at a time (0: no limit)")
    traffic: int = setting(100, "percent of the calls that an update gets after verification")


@dataclass(frozen=True)
class Function:
    """Everything that Lambda's documents are made of.

    Parameters
    ----------
    service : Service
    settings : LambdaSettings
    place : Place
    """

    service: Service
    settings: LambdaSettings
    place: Place

    @property
    def name(self) -> str:
        """The function's name."""
        return self.service.name

    @property
    def role(self) -> str:
        """The ARN of the execution role."""
        return role_of("lambda", self.service, self.place, self.settings.role)

    @property
    def log_group(self) -> str:
        """Where Lambda writes the log."""
        return f"/aws/lambda/{self.name}"

    @property
    def memory(self) -> int:
        """MiB: twice the measured peak, in steps of 64, and enough of a processor to start with."""
        needed = 2 * self.service.footprint.memory / (1 << 20)
        return self.settings.memory or max(_LEAST, 64 * -(-int(needed) // 64))

    @property
    def start(self) -> float:
        """Seconds until the first answer, with the part of a processor that the memory gives."""
        return self.service.footprint.start * max(1.0, _WHOLE / self.memory)

    @property
    def environment(self) -> dict[str, str]:
        """No secrets; where the model is, when there is no image that knows it."""
        found = {"HOME": "/tmp"}  # noqa: S108 - the only folder that can be written
        if self.settings.package == "zip":
            found["MODELPORT_MODELS"] = f"/var/task/models/{self.service.model}"
        return found

    @property
    def archive(self) -> str:
        """The key of the zip file in the bucket."""
        return f"modelport/{self.name}-{self.service.tag}-{self.settings.architecture}.zip"

    @property
    def platform(self) -> str:
        """The architecture as images spell it."""
        return "linux/arm64" if self.settings.architecture == "arm64" else "linux/amd64"

    @property
    def machine(self) -> str:
        """The architecture as wheels spell it."""
        return "aarch64" if self.settings.architecture == "arm64" else "x86_64"

    def address(self, alias: str) -> str:
        """Where `verify` asks an alias, and with whose credentials."""
        asked = {"qualifier": alias, "profile": self.settings.profile}
        query = urlencode({key: value for key, value in asked.items() if value})
        return f"lambda://{self.place.region}/{self.name}?{query}"

    def configuration(self) -> dict[str, Any]:
        """What ``UpdateFunctionConfiguration`` and ``CreateFunction`` have in common."""
        return {
            "FunctionName": self.name,
            "Role": self.role,
            "Description": f"modelport: {self.service.model}",
            "MemorySize": self.memory,
            "Timeout": self.settings.timeout,
            **self._start(),
            "Environment": {"Variables": self.environment},
            "TracingConfig": {"Mode": "PassThrough"},
            "LoggingConfig": {"LogFormat": "JSON", "LogGroup": self.log_group},
        }

    def creation(self) -> dict[str, Any]:
        """``CreateFunction``."""
        return {
            **self.configuration(),
            "PackageType": "Zip" if self.settings.package == "zip" else "Image",
            "Code": self.code(),
            "Architectures": [self.settings.architecture],
            "Publish": False,
            "Tags": tag_values(self.service),
        }

    def code(self) -> dict[str, Any]:
        """Where Lambda takes the code from."""
        if self.settings.package == "zip":
            return {"S3Bucket": self.settings.bucket, "S3Key": self.archive}
        return {"ImageUri": self.service.image(self.settings.image)}

    def _start(self) -> dict[str, Any]:
        """What is run; a zip's versions start from a snapshot in which the model is loaded."""
        if self.settings.package == "zip":
            snapshot = {"ApplyOn": "PublishedVersions"}
            return {"Runtime": _RUNTIME, "Handler": HANDLER, "SnapStart": snapshot}
        return {"ImageConfig": {"EntryPoint": list(ENTRY_POINT), "Command": [HANDLER]}}

    def trust(self) -> dict[str, Any]:
        """Lambda may act as the role."""
        return trust_policy(PRINCIPAL)

    def rights(self, group: Any = "") -> dict[str, Any]:
        """What the function may do: write its own log, and nothing else.

        The log group is created beforehand, so that ``logs:CreateLogGroup`` is not needed. The
        image is pulled by Lambda itself, not by this role.
        """
        arn = group or self.place.arn("logs", f"log-group:{self.log_group}:*")
        return policy([allow("Log", ("logs:CreateLogStream", "logs:PutLogEvents"), arn)])

    def template(self) -> dict[str, Any]:
        """The SAM template: all of it in one stack."""
        resources: dict[str, Any] = {
            "Log": with_skips(
                {
                    "Type": "AWS::Logs::LogGroup",
                    "DeletionPolicy": "Delete",
                    "UpdateReplacePolicy": "Delete",
                    "Properties": {
                        "LogGroupName": self.log_group,
                        "RetentionInDays": self.settings.log_days,
                    },
                },
                LOG_SKIPS,
            ),
        }
        if not self.settings.role:
            document = self.rights({"Fn::GetAtt": ["Log", "Arn"]})
            resources["Role"] = {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "AssumeRolePolicyDocument": self.trust(),
                    "Policies": [{"PolicyName": "modelport", "PolicyDocument": document}],
                },
            }
        resources["Function"] = with_skips(self._serverless(), _SKIPPED)
        outputs: dict[str, Any] = {"Function": {"Value": {"Ref": "FunctionAliaslive"}}}
        if self.settings.front == "function-url":
            outputs["Url"] = {"Value": {"Fn::GetAtt": ["FunctionUrl", "FunctionUrl"]}}
        elif self.settings.front != "none":
            more, url = front(self.name, self.settings, {"Ref": "FunctionAliaslive"})
            resources |= more
            outputs["Url"] = {"Value": url}
        return {
            "AWSTemplateFormatVersion": "2010-09-09",
            "Transform": "AWS::Serverless-2016-10-31",
            "Description": f"modelport: {self.service.model} as {self.name}",
            "Resources": resources,
            "Outputs": outputs,
        }

    def _serverless(self) -> dict[str, Any]:
        settings = self.settings
        common = self.configuration()
        properties: dict[str, Any] = {
            "FunctionName": self.name,
            "Description": common["Description"],
            **self._start(),
            **self._code(),
            "Architectures": [settings.architecture],
            "MemorySize": self.memory,
            "Timeout": settings.timeout,
            "Role": settings.role or {"Fn::GetAtt": ["Role", "Arn"]},
            "Environment": common["Environment"],
            "Tracing": "PassThrough",
            "LoggingConfig": {"LogFormat": "JSON", "LogGroup": {"Ref": "Log"}},
            "AutoPublishAlias": LIVE,
            "AutoPublishAliasAllProperties": True,
            "Tags": tag_values(self.service),
        }
        if settings.traffic < 100:  # CodeDeploy has fixed steps; this is the one with ten percent
            properties["DeploymentPreference"] = {"Type": "Canary10Percent5Minutes"}
        if settings.reserved_concurrency:
            properties["ReservedConcurrentExecutions"] = settings.reserved_concurrency
        if settings.front == "function-url":
            properties["FunctionUrlConfig"] = {"AuthType": auth_type(settings)}
        return {"Type": "AWS::Serverless::Function", "Properties": properties}

    def _code(self) -> dict[str, Any]:
        if self.settings.package == "zip":
            return {"PackageType": "Zip", "CodeUri": "build/"}
        return {"PackageType": "Image", "ImageUri": self.service.image(self.settings.image)}


def auth_type(settings: LambdaSettings) -> str:
    """As function URLs spell it."""
    return "NONE" if settings.auth == "none" else "AWS_IAM"


def refuse_wrong(settings: LambdaSettings) -> None:
    """Raise `InputError` for settings that do not fit each other."""
    if not 1 <= settings.traffic <= 100:
        raise InputError(
            f"traffic is {settings.traffic}, expected 1 to 100 percent", hint="--set traffic=10"
        )
    if settings.auth == "none" and settings.front == "none":
        raise InputError("nobody can call without a front", hint="leave out --set auth=none")
    if settings.package == "zip" and settings.image:
        raise InputError(
            "a zip has no image", where="--set image", hint="leave out --set image, or package=zip"
        )
    if settings.bucket and settings.package != "zip":
        raise InputError(
            "only a zip goes through a bucket", where="--set bucket",
            hint="leave out --set bucket, or --set package=zip",
        )  # fmt: skip
    if settings.bucket and not _BUCKET.fullmatch(settings.bucket):
        raise InputError(
            f"not the name of a bucket: {settings.bucket!r}", hint="--set bucket=my-bucket"
        )
    if settings.log_days not in _LOG_DAYS:
        days = ", ".join(map(str, _LOG_DAYS))
        raise InputError(
            f"a log cannot be kept for {settings.log_days} days", hint=f"--set log-days=, of {days}"
        )
    if settings.reserved_concurrency < 0:
        raise InputError(
            f"reserved-concurrency is {settings.reserved_concurrency}",
            hint="--set reserved-concurrency=20, or 0 for no limit",
        )
