"""Lambda's calls: the function, its versions, and the aliases that point at them.

Sources: the API reference of Lambda; "Lambda function versions", "Create an alias for a Lambda
function" and "Implement canary deployments using a weighted alias".
"""

from __future__ import annotations

from typing import Any, Final

from modelport.deploy.aws.front import LIVE
from modelport.deploy.aws.function import CANDIDATE, Function
from modelport.deploy.aws.place import ACCOUNT, BUILT, PAIRS
from modelport.deploy.aws.roles import undone
from modelport.deploy.base import Call, Result

_LAMBDA: Final = "lambda"
GET: Final = "lambda:GetFunctionConfiguration"
#: Lambda writes the right to pull into the repository's policy, with the caller's rights.
_PULL: Final = (
    "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:GetRepositoryPolicy",
    "ecr:SetRepositoryPolicy",
)  # fmt: skip


def log_calls(function: Function) -> list[Call]:
    """The log, which goes with the function; made beforehand, so that it is not kept for ever."""
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


def upload_call(function: Function) -> Call:
    """Zip: build it from locked wheels, and put it where Lambda can take it from."""
    made = {
        "kind": "function",
        "package": str(function.service.package.path),
        "machine": function.machine,
    }
    return Call(
        "put-archive", "s3", "PutObject", {**_object(function), "Body": {BUILT: made}},
        "build the zip file from the locked wheels, and put it into the bucket",
        ("s3:PutObject",),
        undo=undone("archive", "s3", "DeleteObject", _object(function), "the zip file",
                    "s3:DeleteObject"),
    )  # fmt: skip


def upload_gone_call(function: Function) -> Call:
    """Lambda has a copy of its own."""
    return Call(
        "end-archive", "s3", "DeleteObject", _object(function),
        "delete the zip file; Lambda has a copy", ("s3:DeleteObject",), phase="shift",
    )  # fmt: skip


def create_call(function: Function) -> Call:
    """The function; callers do not see it before an alias points at a version of it."""
    named = {"FunctionName": function.name}
    update = Call(
        "update-function", _LAMBDA, "UpdateFunctionConfiguration", function.configuration(),
        f"update the function {function.name}; callers use its last version",
        ("lambda:UpdateFunctionConfiguration", GET), phase="serve",
        wait={"until": "function-updated"},
    )  # fmt: skip
    rights = (
        *(_PULL if function.settings.package == "image" else ("s3:GetObject",)), "iam:PassRole",
        "lambda:CreateFunction", "lambda:TagResource", "lambda:UpdateFunctionConfiguration", GET,
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


def code_call(function: Function) -> Call:
    """The new code, beside the versions that callers use."""
    parameters = {
        "FunctionName": function.name,
        **function.code(),
        "Architectures": [function.settings.architecture],
        "Publish": False,
    }
    return Call(
        "update-code", _LAMBDA, "UpdateFunctionCode", parameters, "give it the code",
        ("lambda:UpdateFunctionCode", GET), phase="serve", wait={"until": "function-updated"},
    )  # fmt: skip


def concurrency_call(function: Function) -> Call:
    """At most so many requests; for all versions, so not before the new one is verified."""
    parameters = {
        "FunctionName": function.name,
        "ReservedConcurrentExecutions": function.settings.reserved_concurrency,
    }
    return Call(
        "reserve-concurrency", _LAMBDA, "PutFunctionConcurrency", parameters,
        f"at most {function.settings.reserved_concurrency} requests at a time",
        ("lambda:PutFunctionConcurrency",), phase="shift",
    )  # fmt: skip


def publish_call(function: Function) -> Call:
    """A version, which nothing changes any more; Lambda makes none where nothing is new."""
    return Call(
        "publish-version", _LAMBDA, "PublishVersion",
        {"FunctionName": function.name, "Description": f"package {function.service.tag}"},
        "publish a version, and wait until it is active", ("lambda:PublishVersion", GET),
        phase="serve", wait={"until": "function-active", "Version": "the new one"},
    )  # fmt: skip


def former_call(function: Function) -> Call:
    """What callers use now, with the weights of a canary that is going on."""
    return Call(
        "former", _LAMBDA, "GetAlias", {"FunctionName": function.name, "Name": LIVE},
        "see which version callers use now, if any", ("lambda:GetAlias",), phase="serve",
        wait={"missing": "allowed",
              "default": {"RoutingConfig": {"AdditionalVersionWeights": {}}}},
    )  # fmt: skip


def candidate_call(function: Function) -> Call:
    """The alias that `verify` asks."""
    moved = {"FunctionVersion": Result("publish-version", "Version"), **_nowhere_else()}
    return _alias(function, CANDIDATE, "serve", moved, "move candidate", None)


def live_call(function: Function) -> Call:
    """The alias that callers use: all of their calls, or a part."""
    new, former = Result("publish-version", "Version"), Result("former", "FunctionVersion")
    percent = function.settings.traffic
    moved: dict[str, Any] = {"FunctionVersion": new, **_nowhere_else()}
    if percent < 100:
        weights = {PAIRS: [[new, percent / 100]]}
        moved = {
            "FunctionVersion": former, "RoutingConfig": {"AdditionalVersionWeights": weights},
        }  # fmt: skip
    back = Call(
        "restore-live", _LAMBDA, "UpdateAlias",
        {"FunctionName": function.name, "Name": LIVE, "FunctionVersion": former,
         "RoutingConfig": Result("former", "RoutingConfig")},
        "give the calls back to the former version", ("lambda:UpdateAlias",),
    )  # fmt: skip
    return _alias(function, LIVE, "shift", moved, f"{percent} percent of the calls of live", back)


def _alias(
    function: Function, alias: str, phase: str, moved: dict[str, Any], purpose: str,
    back: Call | None,
) -> Call:  # fmt: skip
    named = {"FunctionName": function.name, "Name": alias}
    update = Call(
        f"update-{alias}", _LAMBDA, "UpdateAlias", {**named, **moved}, purpose,
        ("lambda:UpdateAlias",), phase=phase, undo=back,
    )  # fmt: skip
    return Call(
        f"create-{alias}", _LAMBDA, "CreateAlias",
        {**named, "FunctionVersion": Result("publish-version", "Version")},
        f"let {alias} be the new version",
        ("lambda:CreateAlias", "lambda:InvokeFunction", "lambda:UpdateAlias"),  # to verify it
        phase=phase, otherwise=update,
        undo=undone(
            alias, _LAMBDA, "DeleteAlias", named, f"the alias {alias}", "lambda:DeleteAlias"
        ),
    )  # fmt: skip


def _nowhere_else() -> dict[str, Any]:
    return {"RoutingConfig": {"AdditionalVersionWeights": {}}}


def _object(function: Function) -> dict[str, str]:
    """The zip file's place: in a bucket of this account, or not at all."""
    return {
        "Bucket": function.settings.bucket,
        "Key": function.archive,
        "ExpectedBucketOwner": ACCOUNT,
    }
