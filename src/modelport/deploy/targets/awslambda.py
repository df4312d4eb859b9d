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

import json
from typing import Any, Final

from modelport.deploy.aws.front import LIVE, front_template
from modelport.deploy.aws.function import (
    CANDIDATE,
    Function,
    LambdaSettings,
    auth_type,
    refuse_wrong,
)
from modelport.deploy.aws.place import (
    PAIRS,
    SERVER_SIZE,
    find_place,
    image_notes,
    image_of,
    repository_call,
)
from modelport.deploy.aws.roles import role_calls, role_name, undone
from modelport.deploy.base import Call, Plan, PlannedFile, Result, Service
from modelport.deploy.documents import to_yaml
from modelport.deploy.limits import Check, check_limits

_LAMBDA: Final = "lambda"
_GET: Final = "lambda:GetFunctionConfiguration"
#: An assumption about the base image, on top of the server: Debian with Python.
_BASE_SIZE: Final = 150_000_000
_BUILD: Final = (
    "python -m pip install --target build --only-binary=:all: --python-version 3.12 "
    "--platform manylinux_2_28_{architecture} modelport"
)


class LambdaTarget:
    """See `modelport.deploy.base.Target`."""

    name = "lambda"
    settings = LambdaSettings
    needs_image = True
    cold_start = "seconds: the first request of each new environment loads the model"

    def plan(self, service: Service, settings: LambdaSettings) -> Plan:
        """See `modelport.deploy.base.Target.plan`."""
        refuse_wrong(settings)
        place = find_place(self.name, settings.region, settings.image)
        function = Function(service, settings, place)
        is_image = settings.package == "image"
        template = to_yaml(function.template(), comment="sam deploy --template-file template.yaml")
        return Plan(
            self.name,
            service,
            image=image_of(service, settings.image) if is_image else "",
            applier="aws" if is_image else "",
            connection={"region": place.region, "profile": settings.profile},
            files=(PlannedFile("template.yaml", template, "SAM template of everything"),),
            calls=tuple(_calls(function)) if is_image else (),
            status=_status(function) if is_image else None,
            endpoint=f"lambda://{place.region}/{function.name}?qualifier={CANDIDATE}",
            protocol="lambda",
            checks=_checks(function),
            notes=tuple(_notes(function)),
            commands=_commands(function),
        )


def _calls(function: Function) -> list[Call]:
    settings, place = function.settings, function.place
    calls = [repository_call(place)] if settings.create_repository and place.repository else []
    if not settings.role:
        calls += role_calls(_LAMBDA, function.service, place, function.trust(), function.rights())
    calls += [*_log(function), _create(function), _code(function)]
    if settings.reserved_concurrency:
        calls.append(_concurrency(function))
    calls += [_publish(function), _former(function), _alias(function, CANDIDATE, "serve")]
    calls.append(_alias(function, LIVE, "shift"))
    if settings.front == "function-url":
        calls += _url(function)
    elif settings.front != "none":
        calls.append(_front(function))
    return calls


def _log(function: Function) -> list[Call]:
    named = {"logGroupName": function.log_group}
    delete = undone("log", "logs", "DeleteLogGroup", named, "the log", "logs:DeleteLogGroup")
    return [
        Call(
            "create-log", "logs", "CreateLogGroup", named, f"create the log {function.log_group}",
            ("logs:CreateLogGroup",), undo=delete,
        ),
        Call(
            "keep-log", "logs", "PutRetentionPolicy",
            {**named, "retentionInDays": function.settings.log_days},
            f"keep the log for {function.settings.log_days} days", ("logs:PutRetentionPolicy",),
        ),
    ]  # fmt: skip


def _create(function: Function) -> Call:
    named = {"FunctionName": function.name}
    update = Call(
        "update-function", _LAMBDA, "UpdateFunctionConfiguration", function.configuration(),
        f"update the function {function.name}; callers use its last version",
        ("lambda:UpdateFunctionConfiguration", _GET), phase="serve",
        wait={"until": "function-updated"},
    )  # fmt: skip
    # Lambda writes the right to pull into the repository's policy, with the caller's rights.
    rights = (
        "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:GetRepositoryPolicy",
        "ecr:SetRepositoryPolicy", "iam:PassRole", "lambda:CreateFunction", "lambda:TagResource",
        "lambda:UpdateFunctionConfiguration", _GET,
    )  # fmt: skip
    return Call(
        "create-function", _LAMBDA, "CreateFunction", function.creation(),
        f"create the function {function.name}", rights, phase="serve", otherwise=update,
        undo=undone(
            "function", _LAMBDA, "DeleteFunction", named, "the function and all its versions",
            "lambda:DeleteFunction",
        ),
        wait={"until": "function-active"},
    )  # fmt: skip


def _code(function: Function) -> Call:
    parameters = {
        "FunctionName": function.name,
        "ImageUri": image_of(function.service, function.settings.image),
        "Architectures": [function.settings.architecture],
        "Publish": False,
    }
    return Call(
        "update-code", _LAMBDA, "UpdateFunctionCode", parameters, "give it the image",
        ("lambda:UpdateFunctionCode", _GET), phase="serve", wait={"until": "function-updated"},
    )  # fmt: skip


def _concurrency(function: Function) -> Call:
    parameters = {
        "FunctionName": function.name,
        "ReservedConcurrentExecutions": function.settings.reserved_concurrency,
    }
    return Call(
        "reserve-concurrency", _LAMBDA, "PutFunctionConcurrency", parameters,
        f"at most {function.settings.reserved_concurrency} requests at a time",
        ("lambda:PutFunctionConcurrency",), phase="serve",
    )  # fmt: skip


def _publish(function: Function) -> Call:
    return Call(
        "publish-version", _LAMBDA, "PublishVersion",
        {"FunctionName": function.name, "Description": f"package {function.service.tag}"},
        "publish a version, and wait until it is active", ("lambda:PublishVersion", _GET),
        phase="serve", wait={"until": "function-active", "Version": "the new one"},
    )  # fmt: skip


def _former(function: Function) -> Call:
    return Call(
        "former", _LAMBDA, "GetAlias", {"FunctionName": function.name, "Name": LIVE},
        "see which version callers use now, if any", ("lambda:GetAlias",),
        phase="serve", wait={"missing": "allowed"},
    )  # fmt: skip


def _alias(function: Function, alias: str, phase: str) -> Call:
    named = {"FunctionName": function.name, "Name": alias}
    new, former = Result("publish-version", "Version"), Result("former", "FunctionVersion")
    everything: dict[str, Any] = {
        "FunctionVersion": new, "RoutingConfig": {"AdditionalVersionWeights": {}},
    }  # fmt: skip
    percent = function.settings.traffic if alias == LIVE else 100
    back = None
    if alias == LIVE:
        back = Call(
            "restore-live", _LAMBDA, "UpdateAlias",
            {**named, **everything, "FunctionVersion": former},
            "give the calls back to the former version", ("lambda:UpdateAlias",),
        )  # fmt: skip
    if percent < 100:
        weights = {PAIRS: [[new, percent / 100]]}
        everything = {
            "FunctionVersion": former, "RoutingConfig": {"AdditionalVersionWeights": weights},
        }  # fmt: skip
    update = Call(
        f"update-{alias}", _LAMBDA, "UpdateAlias", {**named, **everything},
        f"{percent} percent of the calls of {alias}" if alias == LIVE else f"move {alias}",
        ("lambda:UpdateAlias",), phase=phase, undo=back,
    )  # fmt: skip
    return Call(
        f"create-{alias}", _LAMBDA, "CreateAlias", {**named, "FunctionVersion": new},
        f"let {alias} be the new version",
        ("lambda:CreateAlias", "lambda:InvokeFunction", "lambda:UpdateAlias"),  # to verify it
        phase=phase, otherwise=update,
        undo=undone(
            alias, _LAMBDA, "DeleteAlias", named, f"the alias {alias}", "lambda:DeleteAlias"
        ),
    )  # fmt: skip


def _url(function: Function) -> list[Call]:
    named = {"FunctionName": function.name, "Qualifier": LIVE}
    wanted = {**named, "AuthType": auth_type(function.settings), "InvokeMode": "BUFFERED"}
    update = Call(
        "update-url", _LAMBDA, "UpdateFunctionUrlConfig", wanted, "update the function's URL",
        ("lambda:UpdateFunctionUrlConfig",), phase="shift",
    )  # fmt: skip
    create = Call(
        "create-url", _LAMBDA, "CreateFunctionUrlConfig", wanted, "give the function a URL",
        ("lambda:CreateFunctionUrlConfig", "lambda:UpdateFunctionUrlConfig"), phase="shift",
        otherwise=update,
        undo=undone(
            "url", _LAMBDA, "DeleteFunctionUrlConfig", named, "the URL",
            "lambda:DeleteFunctionUrlConfig",
        ),
    )  # fmt: skip
    return [create, *(_open(named) if function.settings.auth == "none" else [])]


def _open(named: dict[str, str]) -> list[Call]:
    """Everybody may call: since October 2025 that takes two permissions ("Control access")."""
    calls = []
    for action, condition in (
        ("lambda:InvokeFunctionUrl", {"FunctionUrlAuthType": "NONE"}),
        ("lambda:InvokeFunction", {"InvokedViaFunctionUrl": True}),
    ):
        name = action.partition(":")[2].lower()
        statement = {**named, "StatementId": f"modelport-{name}"}
        calls.append(
            Call(
                f"allow-{name}", _LAMBDA, "AddPermission",
                {**statement, "Action": action, "Principal": "*", **condition},
                "let everybody call it", ("lambda:AddPermission",), phase="shift",
                undo=undone(
                    name, _LAMBDA, "RemovePermission", statement, "that permission",
                    "lambda:RemovePermission",
                ),
            )
        )  # fmt: skip
    return calls


def _front(function: Function) -> Call:
    stack = {"StackName": f"modelport-{function.name}-front"}
    wanted = {**stack, "TemplateBody": json.dumps(front_template(function.name, function.settings))}
    read = ("cloudformation:DescribeStacks",)
    ready = {"until": "stack-complete"}
    update = Call(
        "update-front", "cloudformation", "UpdateStack", wanted,
        f"update the {function.settings.front} in front of it",
        ("cloudformation:UpdateStack", *read), phase="shift", wait=ready,
    )  # fmt: skip
    return Call(
        "create-front", "cloudformation", "CreateStack", wanted,
        f"put the {function.settings.front} in front of it",
        ("apigateway:DELETE", "apigateway:GET", "apigateway:PATCH", "apigateway:POST",
         "apigateway:PUT", "cloudformation:CreateStack", "cloudformation:UpdateStack",
         "lambda:AddPermission", "lambda:RemovePermission", "logs:CreateLogDelivery",
         "logs:CreateLogGroup", "logs:DeleteLogGroup", "logs:PutRetentionPolicy", *read),
        phase="shift", otherwise=update, wait=ready,
        undo=Call(
            "delete-front", "cloudformation", "DeleteStack", stack, "delete what is in front",
            ("cloudformation:DeleteStack", *read), wait={"until": "stack-deleted"},
        ),
    )  # fmt: skip


def _status(function: Function) -> Call:
    alias = {"FunctionName": function.name, "Qualifier": LIVE}
    if function.settings.front == "function-url":
        return Call(
            "status", _LAMBDA, "GetFunctionUrlConfig", alias, "read its URL",
            ("lambda:GetFunctionUrlConfig",),
        )  # fmt: skip
    if function.settings.front == "none":
        return Call("status", _LAMBDA, "GetFunctionConfiguration", alias, "read its state", (_GET,))
    return Call(
        "status", "cloudformation", "DescribeStacks",
        {"StackName": f"modelport-{function.name}-front"}, "read its URL",
        ("cloudformation:DescribeStacks",),
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
        "image": SERVER_SIZE + service.package.size + (0 if is_zip else _BASE_SIZE),
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
        deploy += f" --profile {settings.profile}"
    if settings.package == "zip":
        machine = "aarch64" if settings.architecture == "arm64" else "x86_64"
        return (
            _BUILD.format(architecture=machine),
            f"mkdir -p build/models && cp -r PACKAGE build/models/{function.service.model}",
            f"{deploy} --resolve-s3",
        )
    return (f"{deploy} --image-repository {_repository(settings.image)}",)


def _repository(image: str) -> str:
    return image.partition("@")[0] or "REGISTRY/REPOSITORY"


def _notes(function: Function) -> list[str]:
    settings = function.settings
    if settings.package == "zip":
        notes = [
            "as a zip: SAM uploads it, because it is too large for a direct upload (50 MB)",
            "SnapStart restores a snapshot in which the model is loaded already",
        ]
    else:
        notes = [
            *image_notes("Lambda", settings.image, function.place),
            "Lambda takes an image of one platform only: "
            + ("linux/arm64" if settings.architecture == "arm64" else "linux/amd64"),
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
    return notes
