"""A plan's calls as files and commands of the AWS CLI, for those who run them themselves.

Source: AWS CLI user guide, "Parameters from a file" (``--cli-input-json``); its commands are the
operations' names in lower case with dashes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Final

from modelport.deploy.aws.place import ACCOUNT
from modelport.deploy.base import Call, PlannedFile, has_results
from modelport.deploy.documents import to_json

_WAITS: Final = {"endpoint-in-service": "endpoint-in-service"}


def request_files(calls: Iterable[Call]) -> tuple[PlannedFile, ...]:
    """One file with the parameters of each call that creates or changes something."""
    return tuple(
        PlannedFile(
            f"{call.id}.json", to_json(call.parameters), f"{call.service}.{call.operation}: "
            f"{call.purpose}",
        )
        for call in calls
        if _by_hand(call)
    )  # fmt: skip


def commands_of(calls: Iterable[Call], region: str, profile: str) -> tuple[str, ...]:
    """The commands that create everything, in order, in the folder of the files.

    What updates an endpoint is left out: there is none yet.
    """
    head = "aws" + (f" --profile {shlex.quote(profile)}" if profile else "") + f" --region {region}"
    number = f"{head} sts get-caller-identity --query Account --output text"
    lines = [f'sed -i "s/{ACCOUNT}/$({number})/g" *.json']
    for call in calls:
        if not _by_hand(call) or call.operation.startswith("Update"):
            continue
        lines.append(f"{head} {_command(call)} --cli-input-json file://{call.id}.json")
        waiter = _WAITS.get(str(call.wait.get("until", "")))
        if waiter:
            name = call.parameters["EndpointName"]
            lines.append(f"{head} {call.service} wait {waiter} --endpoint-name {name}")
    return tuple(lines)


def _by_hand(call: Call) -> bool:
    """Whether it changes something, and can be written down."""
    reads = call.operation.startswith(("Describe", "Get", "Head"))
    return not (reads or call.service == "s3" or has_results(call.parameters))


def _command(call: Call) -> str:
    dashed = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", call.operation).lower()
    return f"{call.service} {dashed}"
