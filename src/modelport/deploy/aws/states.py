"""What on AWS has to be waited for: how a thing's state is read, and which states end it.

Sources: the states in the API references of SageMaker (``DescribeEndpoint``,
``DescribeTransformJob``), Lambda (``GetFunctionConfiguration``) and CloudFormation
(``DescribeStacks``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class State:
    """How a thing's state is read.

    Parameters
    ----------
    operation : str
        As boto3 calls it.
    keys : tuple of str
        Those of the call's parameters that name the thing.
    status : str
        Where the answer has the state.
    good, busy : frozenset of str
        States in which it is ready, and in which waiting helps.
    reason : str
        Where the answer says why it failed.
    minutes : int
        How long is waited at most.
    inside : str
        The list in the answer whose only item is the thing; empty: it is the answer.
    same : tuple of str
        Keys of the call's own parameters that the answer has to repeat in the end: a platform
        that rolled back by itself is ready, too, with what was there before.
    """

    operation: str
    keys: tuple[str, ...]
    status: str
    good: frozenset[str]
    busy: frozenset[str]
    reason: str
    minutes: int
    inside: str = ""
    same: tuple[str, ...] = ()


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ENDPOINT: Final = ("describe_endpoint", ("EndpointName",), "EndpointStatus")
ENDPOINT_BUSY: Final = _words("Creating Updating SystemUpdating RollingBack")
_TRANSFORM: Final = ("describe_transform_job", ("TransformJobName",), "TransformJobStatus")
_FUNCTION: Final = ("get_function_configuration", ("FunctionName",))
_STACK: Final = ("describe_stacks", ("StackName",), "StackStatus")

#: By what ``wait={"until": NAME}`` of a call says.
STATES: Final[Mapping[str, State]] = {
    "endpoint-in-service": State(
        *_ENDPOINT, _words("InService"), ENDPOINT_BUSY, "FailureReason", 90,
        same=("EndpointConfigName",),
    ),
    "endpoint-settled": State(
        *_ENDPOINT, _words("InService"), ENDPOINT_BUSY, "FailureReason", 90,
    ),
    "endpoint-deleted": State(
        *_ENDPOINT, frozenset(), _words("Deleting"), "FailureReason", 30,
    ),
    "transform-job-completed": State(
        *_TRANSFORM, _words("Completed"), _words("InProgress"), "FailureReason", 24 * 60,
    ),
    "transform-job-stopped": State(
        *_TRANSFORM, _words("Completed Failed Stopped"), _words("InProgress Stopping"),
        "FailureReason", 30,
    ),
    "function-active": State(
        *_FUNCTION, "State", _words("Active Inactive"), _words("Pending"), "StateReason", 15,
    ),
    "function-updated": State(
        *_FUNCTION, "LastUpdateStatus", _words("Successful"), _words("InProgress"),
        "LastUpdateStatusReason", 15,
    ),
    "stack-complete": State(
        *_STACK, _words("CREATE_COMPLETE UPDATE_COMPLETE"),
        _words("CREATE_IN_PROGRESS UPDATE_IN_PROGRESS UPDATE_COMPLETE_CLEANUP_IN_PROGRESS "
               "ROLLBACK_IN_PROGRESS UPDATE_ROLLBACK_IN_PROGRESS "
               "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS"),
        "StackStatusReason", 30, inside="Stacks",
    ),
    "stack-deleted": State(
        *_STACK, _words("DELETE_COMPLETE"), _words("DELETE_IN_PROGRESS"), "StackStatusReason", 30,
        inside="Stacks",
    ),
}  # fmt: skip
