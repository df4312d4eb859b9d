"""AWS Lambda: one function per service, a version per update, and two aliases.

::

    CreateFunction ─▶ version 7 ─▶ alias candidate ─ verified ─▶ alias live ◀─ URL or API ◀─ callers

A version cannot be changed, so what callers use is never touched before its successor has been
verified. The calls are Lambda's own, not a CloudFormation stack of the SAM template: a stack
moves the alias in the same step that creates the version, so there is nothing to verify in
between, and a failed one can block the next update. Only the API in front, which has no name to be
found again by, is a (small) stack. The template is for those who deploy with SAM.

Sources: see `modelport.deploy.aws.function`; "Lambda function versions", "Create an alias for a
Lambda function" and "Implement canary deployments using a weighted alias".
"""

from __future__ import annotations

import shlex
from typing import Final

from modelport.deploy.aws import function_calls as calls_of
from modelport.deploy.aws.front import LIVE
from modelport.deploy.aws.front_calls import front_address, front_calls, stack_name
from modelport.deploy.aws.function import CANDIDATE, Function, LambdaSettings, refuse_wrong
from modelport.deploy.aws.place import (
    SERVER_SIZE,
    find_place,
    image_notes,
    repository_call,
)
from modelport.deploy.aws.roles import role_calls, role_name
from modelport.deploy.aws.zipped import UNPACKED, zip_commands, zip_files, zip_notes
from modelport.deploy.base import Call, Plan, PlannedFile
from modelport.deploy.documents import to_yaml
from modelport.deploy.limits import Check, check_limits
from modelport.deploy.service import Service

_LAMBDA: Final = "lambda"
#: An assumption about the base image, on top of the server: Debian with Python.
_BASE_SIZE: Final = 150_000_000


class LambdaTarget:
    """See `modelport.deploy.base.Target`."""

    name = "lambda"
    settings = LambdaSettings
    cold_start = "seconds: the first request of each new environment loads the model"

    def plan(self, service: Service, settings: LambdaSettings) -> Plan:
        """See `modelport.deploy.base.Target.plan`."""
        refuse_wrong(settings)
        place = find_place(self.name, settings.region, settings.image)
        function = Function(service, settings, place)
        is_image = settings.package == "image"
        template = to_yaml(function.template(), comment="sam deploy --template-file template.yaml")
        sam = PlannedFile("template.yaml", template, "SAM template of everything")
        # A zip without a bucket is for SAM alone, which makes one.
        ours = is_image or bool(settings.bucket)
        return Plan(
            self.name,
            service,
            image=service.image(settings.image) if is_image else "",
            platform=function.platform,
            applier="aws" if ours else "",
            connection={"region": place.region, "profile": settings.profile},
            files=(sam,) if is_image else (sam, *zip_files(function)),
            calls=tuple(_calls(function)) if ours else (),
            status=_status(function) if ours else None,
            endpoint=front_address(function) if ours else "",
            verify_at=function.address(CANDIDATE) if ours else "",
            protocol="lambda",
            checks=_checks(function),
            notes=tuple(_notes(function)),
            commands=_commands(function),
        )


def _calls(function: Function) -> list[Call]:
    settings, place = function.settings, function.place
    zipped = settings.package == "zip"
    calls = [repository_call(place)] if settings.create_repository and place.repository else []
    if zipped:  # before anything is created: it is refused when it is too large
        calls.append(calls_of.upload_call(function))
    if not settings.role:
        calls += role_calls(_LAMBDA, function.service, place, function.trust(), function.rights())
    calls += [
        *calls_of.log_calls(function),
        calls_of.create_call(function),
        calls_of.code_call(function),
        calls_of.publish_call(function),
        calls_of.former_call(function),
        calls_of.candidate_call(function),
        calls_of.live_call(function),
    ]
    if settings.reserved_concurrency:
        calls.append(calls_of.concurrency_call(function))
    calls += front_calls(function)
    return [*calls, calls_of.upload_gone_call(function)] if zipped else calls


def _status(function: Function) -> Call:
    alias = {"FunctionName": function.name, "Qualifier": LIVE}
    if function.settings.front == "function-url":
        return Call(
            "status", _LAMBDA, "GetFunctionUrlConfig", alias, "read its URL",
            ("lambda:GetFunctionUrlConfig",),
        )  # fmt: skip
    if function.settings.front == "none":
        return Call(
            "status", _LAMBDA, "GetFunctionConfiguration", alias, "read its state", (calls_of.GET,)
        )
    return Call(
        "status", "cloudformation", "DescribeStacks", {"StackName": stack_name(function)},
        "read its URL", ("cloudformation:DescribeStacks",),
    )  # fmt: skip


def _checks(function: Function) -> tuple[Check, ...]:
    service, settings = function.service, function.settings
    is_zip = settings.package == "zip"
    variables = function.environment.items()
    values: dict[str, float] = {
        "memory": function.memory << 20,
        "timeout": settings.timeout,
        "latency": service.footprint.latency,
        "request": service.request_bytes,
        "start": function.start,
        "image": (UNPACKED if is_zip else SERVER_SIZE + _BASE_SIZE) + service.package.size,
        "environment": sum(len(key) + len(value) for key, value in variables),
        "name": len(role_name(_LAMBDA, service)) if not settings.role else len(function.name),
    }
    found = {
        check.limit.id: check
        for mode in (settings.package, settings.front)
        for check in check_limits(_LAMBDA, values, mode)
    }
    return tuple(found.values())


def _commands(function: Function) -> tuple[str, ...]:
    settings = function.settings
    deploy = (
        "sam deploy --template-file template.yaml --capabilities CAPABILITY_IAM "
        f"--stack-name {function.name} --region {function.place.region}"
    )
    if settings.profile:
        deploy += f" --profile {shlex.quote(settings.profile)}"
    if settings.package == "zip":
        return zip_commands(deploy)
    return (f"{deploy} --image-repository {_repository(settings.image)}",)


def _repository(image: str) -> str:
    return image.partition("@")[0] or "REGISTRY/REPOSITORY"


def _notes(function: Function) -> list[str]:
    settings = function.settings
    if settings.package == "zip":
        notes = zip_notes(function)
    else:
        notes = [
            *image_notes(settings.image, function.place),
            "Lambda takes an image of one platform only: " + function.platform,
            "a failed update leaves its version, which nobody calls; live stays as it was",
        ]
    if settings.front == "none":
        notes.append(f"call it with lambda:InvokeFunction, as {function.name}:{LIVE}")
    elif settings.auth == "none":
        notes.append("EVERYBODY on the internet can call it, at your expense")
    else:
        notes.append("callers sign their requests (SigV4), and need the right to call: "
                     + ("lambda:InvokeFunctionUrl and lambda:InvokeFunction"
                        if settings.front == "function-url" else "execute-api:Invoke"))  # fmt: skip
    if settings.front != "none":
        notes.append("`modelport deploy status` tells the URL")
    if settings.front in ("function-url", "none"):
        notes.append("an API in front of an earlier deployment stays: destroy that with its own "
                     "settings first")  # fmt: skip
    if settings.traffic < 100:
        notes.append(f"the calls give the new version {settings.traffic} percent; the SAM template "
                     "10 percent for five minutes, because CodeDeploy has fixed steps")  # fmt: skip
    return notes
