"""A plan's calls as files and commands of the AWS CLI, for those who run them themselves.

Source: AWS CLI user guide, "Parameters from a file" (``--cli-input-json``); its commands are the
operations' names in lower case with dashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from modelport.deploy.aws.place import ACCOUNT
from modelport.deploy.base import Call, PlannedFile, has_results
from modelport.deploy.documents import to_json

_WAITS: Final = {"endpoint-in-service": "endpoint-in-service"}


def request_files(calls: Iterable[Call]) -> tuple[PlannedFile, ...]:
    """One file with the parameters of each call; also of what is done when it exists already."""
    files = []
    for call in calls:
        for one in (call, call.otherwise):
            if one is call.otherwise and one is not None and one.parameters == call.parameters:
                continue
            if one is not None and not has_results(one.parameters):
                purpose = f"{one.service}.{one.operation}: {one.purpose}"
                files.append(PlannedFile(f"{one.id}.json", to_json(one.parameters), purpose))
    return tuple(files)


def commands_of(calls: Iterable[Call], region: str, profile: str) -> tuple[str, ...]:
    """The commands that create everything, in order, in the folder of the files."""
    head = "aws" + (f" --profile {profile}" if profile else "") + f" --region {region}"
    number = f"{head} sts get-caller-identity --query Account --output text"
    lines = [f'sed -i "s/{ACCOUNT}/$({number})/g" *.json']
    for call in calls:
        if call.wait.get("missing"):
            continue
        lines.append(f"{head} {_command(call)} --cli-input-json file://{call.id}.json")
        waiter = _WAITS.get(str(call.wait.get("until", "")))
        if waiter:
            name = call.parameters["EndpointName"]
            lines.append(f"{head} {call.service} wait {waiter} --endpoint-name {name}")
    return tuple(lines)


def _command(call: Call) -> str:
    dashed = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", call.operation).lower()
    return f"{'s3api' if call.service == 's3' else call.service} {dashed}"
