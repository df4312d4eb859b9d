"""What the AWS targets share: where things are, what they are called, and the role they run as.

``<account>`` stands for the account's number, which a plan without credentials cannot know; the
applier puts in the one that it is logged in to.

Sources: "Amazon Resource Names (ARNs)" and "AWS partitions" (IAM user guide); "Private registry
authentication" (Amazon ECR user guide) for the address of a registry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from modelport.core.digest import sha256_bytes
from modelport.core.errors import InputError
from modelport.deploy.base import Call, Service

#: The applier replaces it in every text.
ACCOUNT: Final = "<account>"
#: The applier makes a mapping of the key-value pairs below it: earlier calls may answer the keys.
PAIRS: Final = "<pairs>"
#: What stands where a plan has no image yet.
NO_IMAGE: Final = "<set image=registry/repository>"
#: Unpacked bytes of the server with its libraries, as built for Python 3.11: 203 MB.
SERVER_SIZE: Final = 203_000_000

_ECR: Final = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[-a-z0-9]+)\.amazonaws\.com(?:\.cn)?"
    r"/(?P<repository>[^:@]+)(?P<version>[:@].*)?"
)
_REGION: Final = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d")
_ROLE: Final = re.compile(r"arn:aws[-a-z]*:iam::\d{12}:role/.+")
_DOCUMENT_VERSION: Final = "2012-10-17"


@dataclass(frozen=True)
class Place:
    """A region, and the repository of the image in it.

    Parameters
    ----------
    region : str
    registry : str
        The account whose ECR holds the image; empty when it is no ECR image.
    repository : str
    """

    region: str
    registry: str = ""
    repository: str = ""

    @property
    def partition(self) -> str:
        """``aws``, ``aws-cn`` or ``aws-us-gov``."""
        for start, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")):
            if self.region.startswith(start):
                return partition
        return "aws"

    def arn(self, service: str, resource: str) -> str:
        """Of a thing in this region and account."""
        return f"arn:{self.partition}:{service}:{self.region}:{ACCOUNT}:{resource}"

    @property
    def repository_arn(self) -> str:
        """Of the image's repository; of every one of the region when it is not known."""
        account, name = self.registry or ACCOUNT, self.repository or "<repository>"
        return f"arn:{self.partition}:ecr:{self.region}:{account}:repository/{name}"

    def bucket_arns(self, address: str) -> tuple[str, str]:
        """Of the bucket of an S3 address, and of what is below the address."""
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        arn = f"arn:{self.partition}:s3:::{bucket}"
        return arn, f"{arn}/{prefix}*"


def find_place(target: str, region: str, image: str) -> Place:
    """Where it is deployed: as set, or where the image is.

    Raises
    ------
    InputError
        When the region is not known, no region, or not the image's: both platforms pull only
        from ECR in their own region.
    """
    found = _ECR.fullmatch(image)
    chosen = region or (found["region"] if found else "")
    if not chosen:
        raise InputError(
            f"{target} needs the setting region", hint="--set region=eu-west-1, or an image in ECR"
        )
    if not _REGION.fullmatch(chosen):
        raise InputError(f"not an AWS region: {chosen!r}", hint="--set region=eu-west-1")
    if found and found["region"] != chosen:
        raise InputError(
            f"the image is in {found['region']}, and {target} in {chosen} cannot pull from there",
            where=f"image={image}",
            hint=f"--set region={found['region']}, or push the image to ECR in {chosen}",
        )
    return Place(chosen, found["account"], found["repository"]) if found else Place(chosen)


def image_of(service: Service, image: str) -> str:
    """The image's reference: pinned, or where it will be."""
    if not image:
        return NO_IMAGE
    return image if "@" in image else f"{image}:{service.tag}"


def image_notes(target: str, image: str, place: Place) -> list[str]:
    """What is to be known about the image before it is pushed."""
    notes = []
    if image and not place.registry:
        host = image.partition("/")[0]
        notes.append(f"{host} is no private ECR registry: {target} refuses images from elsewhere")
    if "@sha256:" not in image:
        notes.append("--yes builds the image, pushes it, and pins it by its digest")
    if place.repository:
        notes.append(
            f"the ECR repository has to exist: aws ecr create-repository --region {place.region} "
            f"--repository-name {place.repository} --image-tag-mutability IMMUTABLE "
            "--image-scanning-configuration scanOnPush=true"
        )
    return notes


def repository_call(place: Place) -> Call:
    """The image's repository: tags that cannot be moved, and a scan of what is pushed.

    Nothing takes it back: it may hold other packages' images.
    """
    read = Call(
        "read-repository", "ecr", "DescribeRepositories",
        {"registryId": place.registry, "repositoryNames": [place.repository]},
        "read the repository", ("ecr:DescribeRepositories",),
    )  # fmt: skip
    return Call(
        "create-repository", "ecr", "CreateRepository",
        {
            "registryId": place.registry,
            "repositoryName": place.repository,
            "imageTagMutability": "IMMUTABLE",
            "imageScanningConfiguration": {"scanOnPush": True},
            "encryptionConfiguration": {"encryptionType": "AES256"},
        },
        f"create the repository {place.repository}",
        ("ecr:CreateRepository", "ecr:DescribeRepositories"),
        otherwise=read,
    )  # fmt: skip


def role_of(target: str, service: Service, place: Place, role: str) -> str:
    """The ARN of the role that the server runs as.

    Raises
    ------
    InputError
        When `role` is no ARN of a role.
    """
    if role and not _ROLE.fullmatch(role):
        raise InputError(
            f"not the ARN of a role: {role!r}",
            hint="--set role=arn:aws:iam::NUMBER:role/NAME, or leave it empty: one is created",
        )
    return role or f"arn:{place.partition}:iam::{ACCOUNT}:role/{role_name(target, service)}"


def role_name(target: str, service: Service) -> str:
    """What the created role is called."""
    return f"modelport-{target}-{service.name}"


def trust_policy(principal: str, condition: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Who may act as the role: one service, in this account alone where it can be said."""
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"Service": principal},
        "Action": "sts:AssumeRole",
    }
    if condition:
        statement["Condition"] = dict(condition)
    return {"Version": _DOCUMENT_VERSION, "Statement": [statement]}


def policy(statements: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A policy document."""
    return {"Version": _DOCUMENT_VERSION, "Statement": [dict(s) for s in statements]}


def allow(name: str, actions: Sequence[str], resource: str, **more: Any) -> dict[str, Any]:
    """One statement: these actions on that resource."""
    return {"Sid": name, "Effect": "Allow", "Action": list(actions), "Resource": resource, **more}


def role_calls(
    target: str, service: Service, place: Place, trust: Mapping[str, Any], rights: Mapping[str, Any]
) -> list[Call]:
    """Create the role, and say what it may do."""
    name = role_name(target, service)
    read = Call(
        "read-role", "iam", "GetRole", {"RoleName": name}, "read the role", ("iam:GetRole",)
    )
    create = Call(
        "create-role", "iam", "CreateRole",
        {
            "RoleName": name,
            "AssumeRolePolicyDocument": _compact(trust),
            "Description": f"modelport: {service.name} on {target}",
            "Tags": tags(service),
        },
        f"create the role {name}",
        ("iam:CreateRole", "iam:GetRole", "iam:TagRole"),
        otherwise=read,
        undo=Call(
            "delete-role", "iam", "DeleteRole", {"RoleName": name},
            f"delete the role {name}", ("iam:DeleteRole",),
        ),
    )  # fmt: skip
    inline = {"RoleName": name, "PolicyName": "modelport"}
    delete = undone(
        "role-policy", "iam", "DeleteRolePolicy", inline, "the role's policy",
        "iam:DeleteRolePolicy",
    )  # fmt: skip
    put = Call(
        "put-role-policy", "iam", "PutRolePolicy", {**inline, "PolicyDocument": _compact(rights)},
        "say what the role may do", ("iam:GetRolePolicy", "iam:PutRolePolicy"), undo=delete,
    )  # fmt: skip
    return [create, only_new(put)]


def only_new(put: Call) -> Call:
    """A put that is taken back only when nothing was there before."""
    again = replace(put, id=f"{put.id}-again", undo=None)
    return replace(put, wait={**put.wait, "only": "new"}, otherwise=again)


def tags(service: Service) -> list[dict[str, str]]:
    """On everything that can carry tags: whose it is, and of which package."""
    return [{"Key": key, "Value": value} for key, value in tag_values(service).items()]


def tag_values(service: Service) -> dict[str, str]:
    """`tags` as a mapping, as Lambda wants them."""
    return {
        "modelport:service": service.name,
        "modelport:model": service.model,
        "modelport:package": service.package.digest.removeprefix("sha256:"),
    }


def fingerprint(value: Any) -> str:
    """Eight characters that differ where `value` does: for names of what cannot be changed."""
    return sha256_bytes(_compact(value).encode()).removeprefix("sha256:")[:8]


def row_size(service: Service) -> int:
    """Bytes of a JSON request with one row, with about ten characters for each number."""
    total = 64
    for spec in service.package.manifest.signature.inputs:
        count = 1
        for size in spec.shape[1:]:
            count *= size if isinstance(size, int) and size > 0 else 1
        total += 48 + len(spec.name) + 10 * count
    return total


def undone(thing: str, service: str, operation: str, parameters: Mapping[str, Any], what: str,
           right: str) -> Call:  # fmt: skip
    """The call that deletes something."""
    return Call(f"delete-{thing}", service, operation, parameters, f"delete {what}", (right,))


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
