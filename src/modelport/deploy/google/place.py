"""Where things are on Google Cloud, and whether what the user set can be so."""

from __future__ import annotations

import re
from typing import Any, Final

from modelport.core.digest import sha256_bytes
from modelport.core.errors import InputError
from modelport.deploy.base import Service
from modelport.deploy.documents import to_json

# https://cloud.google.com/resource-manager/docs/creating-managing-projects: 6 to 30 characters;
# older ones begin with a domain: example.com:project.
_PROJECT: Final = re.compile(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_REGION: Final = re.compile(r"[a-z]+-[a-z]+[0-9]{1,2}")
_ACCOUNT: Final = re.compile(r"[a-z0-9.-]+@[a-z0-9.:-]+\.[a-z]+")


def location(project: str, region: str, target: str) -> str:
    """``projects/PROJECT/locations/REGION``.

    Raises
    ------
    InputError
        When one of the two is missing or cannot be one.
    """
    for key, value, pattern in (("project", project, _PROJECT), ("region", region, _REGION)):
        if not value:
            raise InputError(f"{target} needs a {key}", hint=f"--set {key}=…")
        if not pattern.fullmatch(value):
            raise InputError(f"not a {key} of Google Cloud: {value!r}", where=f"--set {key}=…")
    return f"projects/{project}/locations/{region}"


def check_account(account: str) -> str:
    """A service account's address, or nothing.

    Raises
    ------
    InputError
        When it is no address.
    """
    if account and not _ACCOUNT.fullmatch(account):
        raise InputError(
            f"not a service account: {account!r}",
            where="--set service-account=…",
            hint="NAME@PROJECT.iam.gserviceaccount.com",
        )
    return account


def check_percent(percent: int) -> int:
    """A share of the traffic.

    Raises
    ------
    InputError
        When it is none of 1 to 100.
    """
    if not 1 <= percent <= 100:
        raise InputError(f"not a share of the traffic: {percent}", where="--set percent=…")
    return percent


def check_counts(least: int, most: int, floor: int) -> None:
    """Numbers of instances.

    Raises
    ------
    InputError
        When they are in the wrong order or negative.
    """
    if least < floor or most < max(least, 1):
        raise InputError(
            f"not a range of instances: {least} to {most}",
            hint=f"at least {floor}, and the most not below the least",
        )


def image_reference(service: Service, image: str) -> tuple[str, tuple[str, ...]]:
    """The image as far as it is known, and what to say about it."""
    if "@sha256:" in image:
        return image, ()
    note = "the image is not pinned yet: --yes builds it, pushes it, and deploys it by its digest"
    repository = image or "<set image=registry/repository>"
    if ":" in repository.rpartition("/")[2]:
        return repository, (note,)
    return f"{repository}:{service.tag}", (note,)


def short_digest(document: Any) -> str:
    """Ten characters that stand for plain data."""
    return sha256_bytes(to_json(document).encode()).removeprefix("sha256:")[:10]


def account_id(service: Service, region: str) -> str:
    """The name of the service's own account: one per service and region, 6 to 30 characters.

    Source: https://cloud.google.com/iam/docs/service-accounts-create
    """
    return f"{service.name[:18].rstrip('-')}-{short_digest([service.name, region])}"[:30]
