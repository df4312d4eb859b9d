"""Where things are on AWS: regions, addresses, the image and its repository.

``<account>`` stands for the account's number, which a plan without credentials cannot know; the
applier puts in the one that it is logged in to.

Sources: "Amazon Resource Names (ARNs)" and "AWS partitions" (IAM user guide); "Private registry
authentication" (Amazon ECR user guide) for the address of a registry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from modelport.core.errors import InputError
from modelport.deploy.base import Call

#: The applier replaces it in every text.
ACCOUNT: Final = "<account>"
#: The applier makes a mapping of the key-value pairs below it: earlier calls may answer the keys.
PAIRS: Final = "<pairs>"
#: The applier puts in the bytes of what is made from the mapping below it.
BUILT: Final = "<built>"
#: Unpacked bytes of the server with its libraries, as built for Python 3.11: 203 MB.
SERVER_SIZE: Final = 203_000_000

_ECR: Final = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[-a-z0-9]+)\.amazonaws\.com(?:\.cn)?"
    r"/(?P<repository>[^:@]+)(?P<version>[:@].*)?"
)
_REGION: Final = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d")


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
        When the region is not known, no region, or not the image's, or the image is elsewhere:
        both platforms pull only from ECR in their own region.
    """
    found = _ECR.fullmatch(image)
    if image and not found:
        raise InputError(
            f"{target} takes images from ECR alone, and not {image}",
            where=f"image={image}",
            hint="--set image=NUMBER.dkr.ecr.REGION.amazonaws.com/NAME",
        )
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


def image_notes(image: str, place: Place) -> list[str]:
    """What is to be known about the image before it is pushed."""
    notes = []
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
