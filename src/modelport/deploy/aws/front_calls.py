"""The calls for where a function's requests come in: a URL of its own, or an API as a stack.

Sources: Lambda developer guide, "Creating and managing Lambda function URLs" and "Control access
to Lambda function URLs"; the API reference of CloudFormation.
"""

from __future__ import annotations

import json
from typing import Final

from modelport.deploy.aws.front import LIVE, front_template
from modelport.deploy.aws.function import Function, auth_type
from modelport.deploy.aws.roles import undone
from modelport.deploy.base import Call, Result

#: Everybody may call: since October 2025 that takes two permissions.
_OPEN: Final = (
    ("lambda:InvokeFunctionUrl", {"FunctionUrlAuthType": "NONE"}),
    ("lambda:InvokeFunction", {"InvokedViaFunctionUrl": True}),
)
_READ: Final = ("cloudformation:DescribeStacks",)


def front_calls(function: Function) -> list[Call]:
    """Open what is wanted, and close the URL of an earlier deployment that is not."""
    settings = function.settings
    if settings.front == "function-url":
        opened = settings.auth == "none"
        return [_url(function), *_permissions(function, allowed=opened)]
    closed = [_url_gone(function), *_permissions(function, allowed=False)]
    return closed if settings.front == "none" else [_stack(function), *closed]


def front_address(function: Function) -> str | Result:
    """What callers use."""
    if function.settings.front == "function-url":
        return Result("create-url", "FunctionUrl")
    if function.settings.front == "none":
        return function.address(LIVE)
    return Result("create-front", "Outputs.Url")


def stack_name(function: Function) -> str:
    """Of the stack with the API."""
    return f"modelport-{function.name}-front"


def _url(function: Function) -> Call:
    named = {"FunctionName": function.name, "Qualifier": LIVE}
    wanted = {**named, "AuthType": auth_type(function.settings), "InvokeMode": "BUFFERED"}
    update = Call(
        "update-url", "lambda", "UpdateFunctionUrlConfig", wanted, "update the function's URL",
        ("lambda:UpdateFunctionUrlConfig",), phase="shift",
    )  # fmt: skip
    return Call(
        "create-url", "lambda", "CreateFunctionUrlConfig", wanted, "give the function a URL",
        ("lambda:CreateFunctionUrlConfig", "lambda:UpdateFunctionUrlConfig"), phase="shift",
        otherwise=update,
        undo=undone(
            "url", "lambda", "DeleteFunctionUrlConfig", named, "the URL",
            "lambda:DeleteFunctionUrlConfig",
        ),
    )  # fmt: skip


def _url_gone(function: Function) -> Call:
    return Call(
        "close-url", "lambda", "DeleteFunctionUrlConfig",
        {"FunctionName": function.name, "Qualifier": LIVE},
        "close the URL of an earlier deployment, if there is one",
        ("lambda:DeleteFunctionUrlConfig",), phase="shift", wait={"missing": "allowed"},
    )  # fmt: skip


def _permissions(function: Function, *, allowed: bool) -> list[Call]:
    calls = []
    for action, condition in _OPEN:
        name = action.partition(":")[2].lower()
        statement = {
            "FunctionName": function.name, "Qualifier": LIVE, "StatementId": f"modelport-{name}",
        }  # fmt: skip
        remove = undone(
            name, "lambda", "RemovePermission", statement, "that permission",
            "lambda:RemovePermission",
        )  # fmt: skip
        if allowed:
            calls.append(Call(
                f"allow-{name}", "lambda", "AddPermission",
                {**statement, "Action": action, "Principal": "*", **condition},
                "let everybody call it", ("lambda:AddPermission",), phase="shift", undo=remove,
            ))  # fmt: skip
        else:
            calls.append(Call(
                f"forbid-{name}", "lambda", "RemovePermission", statement,
                "let nobody call it unsigned, if an earlier deployment did",
                ("lambda:RemovePermission",), phase="shift", wait={"missing": "allowed"},
            ))  # fmt: skip
    return calls


def _stack(function: Function) -> Call:
    stack = {"StackName": stack_name(function)}
    wanted = {**stack, "TemplateBody": json.dumps(front_template(function.name, function.settings))}
    ready = {"until": "stack-complete"}
    # "No updates are to be performed" answers no outputs.
    read = Call(
        "read-front", "cloudformation", "DescribeStacks", stack, "read its URL", _READ,
        phase="shift", wait=ready,
    )  # fmt: skip
    update = Call(
        "update-front", "cloudformation", "UpdateStack", wanted,
        f"update the {function.settings.front} in front of it",
        ("cloudformation:UpdateStack", *_READ), phase="shift", otherwise=read, wait=ready,
    )  # fmt: skip
    return Call(
        "create-front", "cloudformation", "CreateStack", wanted,
        f"put the {function.settings.front} in front of it",
        ("apigateway:DELETE", "apigateway:GET", "apigateway:PATCH", "apigateway:POST",
         "apigateway:PUT", "cloudformation:CreateStack", "cloudformation:DescribeStackEvents",
         "cloudformation:UpdateStack", "lambda:AddPermission", "lambda:RemovePermission",
         "logs:CreateLogDelivery", "logs:CreateLogGroup", "logs:DeleteLogDelivery",
         "logs:DeleteLogGroup", "logs:PutRetentionPolicy", *_READ),
        phase="shift", otherwise=update, wait=ready,
        undo=Call(
            "delete-front", "cloudformation", "DeleteStack", stack, "delete what is in front",
            ("cloudformation:DeleteStack", *_READ), wait={"until": "stack-deleted"},
        ),
    )  # fmt: skip
