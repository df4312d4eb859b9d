"""SageMaker's settings, and which of them do not go together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from modelport.core.errors import InputError
from modelport.deploy.base import Settings
from modelport.deploy.settings import setting

MODES: Final = ("real-time", "serverless", "async", "multi-model", "batch")
#: Modes that run on instances of one's own, behind an endpoint.
ON_INSTANCES: Final = ("real-time", "async", "multi-model")
#: Modes whose server cannot be asked itself: requests and answers lie in S3.
THROUGH_S3: Final = ("async", "batch")
#: Serverless memory comes in steps of so many MiB.
STEP: Final = 1024

#: ``*``, ``?`` and ``$`` would mean something else in a policy than in S3.
_ADDRESS: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.()'/=+@,:~-]*)?")


@dataclass(frozen=True, kw_only=True)
class SageMakerSettings(Settings):
    """What can be set about SageMaker."""

    mode: str = setting("real-time", "how it is asked", MODES)
    region: str = setting("", "region (default: the one of the image in ECR)")
    profile: str = setting("", "profile of the AWS configuration")
    role: str = setting("", "ARN of the execution role (default: one is created)")
    create_repository: bool = setting(False, "create the image's ECR repository")
    candidate: bool = setting(
        True, "updates, async and batch: verify at an endpoint of its own, for minutes, first"
    )
    instance_type: str = setting("ml.m5.large", "instance type, except for serverless")
    instances: int = setting(1, "number of instances; two or more survive the loss of a zone")
    max_instances: int = setting(0, "scale up to so many (0: no autoscaling)")
    target_load: int = setting(0, "requests per minute and instance to scale at (0: computed)")
    memory: int = setting(0, "serverless: MiB, 1024 to 6144 in steps of 1024 (0: computed)")
    max_concurrency: int = setting(20, "serverless, async: requests at a time")
    startup_timeout: int = setting(300, "seconds from the start to the first healthy /ping")
    models: str = setting("", "multi-model: s3://bucket/prefix/ of the packages as .tar.gz")
    input: str = setting("", "async, batch: s3://bucket/prefix of what is scored")
    output: str = setting("", "async, batch: s3://bucket/prefix for the answers")
    content_type: str = setting("application/jsonlines", "batch: type of the input")
    run: str = setting("", "batch: tells this run from an earlier one with the same input")


def refuse_wrong(settings: SageMakerSettings) -> None:
    """Raise `InputError` for settings that do not fit the mode or each other."""
    _refuse_wrong_addresses(settings)
    if settings.memory < 0 or settings.memory % STEP:
        raise InputError(
            f"serverless memory comes in steps of {STEP} MiB, not {settings.memory}",
            hint=f"--set memory={STEP * max(1, -(-settings.memory // STEP))}",
        )
    if settings.instances < 1:
        raise InputError(f"instances is {settings.instances}", hint="--set instances=1 or more")
    if settings.target_load < 0:
        raise InputError(
            f"target-load is {settings.target_load}", hint="--set target-load=600, or 0: computed"
        )
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


def _refuse_wrong_addresses(settings: SageMakerSettings) -> None:
    needed = {"async": ("output",), "multi-model": ("models",), "batch": ("input", "output")}
    for key in needed.get(settings.mode, ()):
        if not getattr(settings, key):
            raise InputError(
                f"{settings.mode} needs the setting {key}", hint=f"--set {key}=s3://bucket/prefix/"
            )
    for key in ("models", "input", "output"):
        value = getattr(settings, key)
        if value and not _ADDRESS.fullmatch(value):
            raise InputError(
                f"not an address in S3: {value!r}", where=f"--set {key}={value}",
                hint=f"--set {key}=s3://bucket/prefix/, without wildcards and spaces",
            )  # fmt: skip
    if settings.models and not settings.models.endswith("/"):
        raise InputError(
            f"the address of the models has to end with /: {settings.models!r}",
            hint=f"--set models={settings.models}/",
        )
