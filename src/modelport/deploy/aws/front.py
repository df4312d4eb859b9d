"""The APIs in front of a Lambda function, as CloudFormation resources.

Sources: the CloudFormation references of ``AWS::ApiGatewayV2`` and ``AWS::ApiGateway``; API
Gateway developer guide, "Working with AWS Lambda proxy integrations" and "Controlling access with
IAM authorization".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from modelport.deploy.base import Settings
from modelport.deploy.settings import setting

#: The alias that callers use.
LIVE: Final = "live"
#: Checks of checkov that do not apply to a log, and why.
LOG_SKIPS: Final = (("CKV_AWS_158", "encrypted with the key of CloudWatch Logs; no payloads"),)


@dataclass(frozen=True, kw_only=True)
class FrontSettings(Settings):
    """What can be set about where requests come in."""

    front: str = setting(
        "function-url", "where requests come in", ("function-url", "http-api", "rest-api", "none")
    )
    auth: str = setting("iam", "who may call: signed requests, or everybody", ("iam", "none"))
    log_days: int = setting(30, "days that the log is kept")
    timeout: int = setting(29, "seconds that a request may take")


def front_template(name: str, settings: FrontSettings) -> dict[str, Any]:
    """The stack of the API in front of the alias that callers use."""
    arn = (
        "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:"
        f"function:{name}:{LIVE}"
    )
    resources, url = front(name, settings, {"Fn::Sub": arn})
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"modelport: {settings.front} of {name}",
        "Resources": resources,
        "Outputs": {"Url": {"Value": url}},
    }


def front(name: str, settings: FrontSettings, alias: Any) -> tuple[dict[str, Any], Any]:
    """The resources of the API in front of a function's alias, and its URL."""
    kind = "NONE" if settings.auth == "none" else "AWS_IAM"
    uri = {
        "Fn::Sub": [
            "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/"
            "${Alias}/invocations",
            {"Alias": alias},
        ]
    }
    log = with_skips(
        {
            "Type": "AWS::Logs::LogGroup",
            "DeletionPolicy": "Delete",
            "UpdateReplacePolicy": "Delete",
            "Properties": {
                "LogGroupName": f"/aws/apigateway/{name}",
                "RetentionInDays": settings.log_days,
            },
        },
        LOG_SKIPS,
    )
    access = {
        "DestinationArn": {"Fn::GetAtt": ["AccessLog", "Arn"]},
        "Format": '{"request":"$context.requestId","status":"$context.status"}',
    }
    if settings.front == "http-api":
        resources = _http_api(name, settings, kind, uri, access)
        path = "${Api}/*"
        url = {"Fn::Sub": "https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}"}
    else:
        resources = _rest_api(name, settings, kind, uri, access)
        path = "${Api}/*"
        url = {"Fn::Sub": "https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}/live"}
    permission = {
        "Type": "AWS::Lambda::Permission",
        "Properties": {
            "Action": "lambda:InvokeFunction",
            "FunctionName": alias,
            "Principal": "apigateway.amazonaws.com",
            "SourceArn": {
                "Fn::Sub": "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:"
                + path
            },
        },
    }
    return {"AccessLog": log, **resources, "ApiPermission": permission}, url


def _http_api(
    name: str, settings: FrontSettings, kind: str, uri: Any, access: Any
) -> dict[str, Any]:
    api = {"Ref": "Api"}
    return {
        "Api": {
            "Type": "AWS::ApiGatewayV2::Api",
            "Properties": {"Name": name, "ProtocolType": "HTTP"},
        },
        "Integration": {
            "Type": "AWS::ApiGatewayV2::Integration",
            "Properties": {
                "ApiId": api,
                "IntegrationType": "AWS_PROXY",
                "IntegrationUri": uri,
                "PayloadFormatVersion": "2.0",
                "TimeoutInMillis": 1000 * min(30, settings.timeout),
            },
        },
        "Route": {
            "Type": "AWS::ApiGatewayV2::Route",
            "Properties": {
                "ApiId": api,
                "RouteKey": "$default",
                "AuthorizationType": kind,
                "Target": {"Fn::Sub": "integrations/${Integration}"},
            },
        },
        "Stage": {
            "Type": "AWS::ApiGatewayV2::Stage",
            "Properties": {
                "ApiId": api,
                "StageName": "$default",
                "AutoDeploy": True,
                "AccessLogSettings": access,
            },
        },
    }


def _rest_api(
    name: str, settings: FrontSettings, kind: str, uri: Any, access: Any
) -> dict[str, Any]:
    integration = {"Type": "AWS_PROXY", "IntegrationHttpMethod": "POST", "Uri": uri}
    root = {"Fn::GetAtt": ["Api", "RootResourceId"]}
    method = {"RestApiId": {"Ref": "Api"}, "HttpMethod": "ANY", "AuthorizationType": kind}
    return {
        "Api": {
            "Type": "AWS::ApiGateway::RestApi",
            "Properties": {"Name": name, "BinaryMediaTypes": ["*/*"]},
        },
        "Path": {
            "Type": "AWS::ApiGateway::Resource",
            "Properties": {"RestApiId": {"Ref": "Api"}, "ParentId": root, "PathPart": "{proxy+}"},
        },
        "Method": {
            "Type": "AWS::ApiGateway::Method",
            "Properties": {
                **method,
                "ResourceId": {"Ref": "Path"},
                "RequestParameters": {"method.request.path.proxy": True},
                "Integration": integration,
            },
        },
        "Deployment": {
            "Type": "AWS::ApiGateway::Deployment",
            "DependsOn": ["Method"],
            "Properties": {"RestApiId": {"Ref": "Api"}},
        },
        "Stage": with_skips(
            {
                "Type": "AWS::ApiGateway::Stage",
                "Properties": {
                    "RestApiId": {"Ref": "Api"},
                    "DeploymentId": {"Ref": "Deployment"},
                    "StageName": "live",
                    "AccessLogSetting": access,
                },
            },
            (
                ("CKV_AWS_73", "tracing costs, and the server writes its own log"),
                ("CKV_AWS_120", "answers of a model are not cached: every request is another one"),
            ),
        ),
    }


def with_skips(resource: dict[str, Any], skips: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """A resource that says which checks of checkov do not apply to it, and why."""
    told = [{"id": check, "comment": why} for check, why in skips]
    return {**resource, "Metadata": {"checkov": {"skip": told}}}
