"""Where things are on Google Cloud, and whether what the user set can be so."""

from __future__ import annotations

import re
from typing import Any, Final

from modelport.core.digest import sha256_bytes
from modelport.core.errors import InputError
from modelport.deploy.documents import to_json
from modelport.deploy.images.reference import parse_reference
from modelport.deploy.service import Service

#: APIs that are asked over REST, by `Call.service`: where they are, and their version.
ACCOUNTS: Final = "iam.projects.serviceAccounts"
SECRETS: Final = "secretmanager.projects.secrets"
SERVICES: Final = "run.projects.locations.services"
REST: Final = {
    ACCOUNTS: ("https://iam.googleapis.com", "v1"),
    SECRETS: ("https://secretmanager.googleapis.com", "v1"),
    SERVICES: ("https://run.googleapis.com", "v2"),
}

# https://cloud.google.com/resource-manager/docs/creating-managing-projects: 6 to 30 characters;
# older ones begin with a domain: example.com:project.
_PROJECT: Final = re.compile(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_REGION: Final = re.compile(r"[a-z]+-[a-z]+[0-9]{1,2}")
# https://cloud.google.com/iam/docs/principal-identifiers; allUsers is not among them on purpose.
_MEMBER: Final = re.compile(
    r"(user|group|serviceAccount|domain):[A-Za-z0-9._%+@-]+|principal(Set)?://[A-Za-z0-9._/@:-]+"
)
# Of this project or another; https://cloud.google.com/secret-manager/docs/creating-and-accessing-secrets
_SECRET: Final = re.compile(
    r"(projects/[a-z0-9.:-]+/secrets/)?[A-Za-z0-9_-]{1,255}(:(latest|[0-9]{1,9}))?"
)
_ACCOUNT: Final = re.compile(r"[a-z0-9.-]+@[a-z0-9.:-]+\.[a-z]+")


_REGISTRY: Final = re.compile(r"([a-z0-9-]+-docker\.pkg\.dev)|(([a-z]+\.)?gcr\.io)|docker\.io")
_UNPINNED: Final = (
    "the image is not pinned yet: --yes builds it, pushes it, and deploys it by its digest"
)


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


def check_member(member: str) -> str:
    """Somebody who can be given a role, or nobody.

    Raises
    ------
    InputError
        When it is everybody, or no such name.
    """
    if member and not _MEMBER.fullmatch(member):
        raise InputError(
            f"not somebody who can be let in: {member!r}",
            where="--set invoker=…",
            hint="user:…, group:…, serviceAccount:… or domain:…; for everybody --set public=true",
        )
    return member


def check_secret(secret: str) -> str:
    """A secret of Secret Manager with its version, or nothing; never the key itself.

    Raises
    ------
    InputError
        When it is no such name; it is not repeated, for it may be a key.
    """
    if secret and not _SECRET.fullmatch(secret):
        raise InputError(
            "key-secret is no name of a secret in Secret Manager",
            where="--set key-secret=…",
            hint="NAME, NAME:VERSION or projects/PROJECT/secrets/NAME; the key is never written",
        )
    return secret


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


def image_reference(service: Service, image: str, takes: str = "") -> tuple[str, tuple[str, ...]]:
    """The image as far as it is known, and what to say about it.

    Parameters
    ----------
    service : Service
    image : str
    takes : str
        The service of Google's, where it takes images from Google's registries only. Sources:
        Cloud Run, "Supported container registries"; `google.cloud.aiplatform_v1`,
        ``ModelContainerSpec.image_uri``.

    Raises
    ------
    InputError
        When it is no name of an image.
    """
    if not image:
        return service.image(image), (_UNPINNED,)
    named = parse_reference(image)
    notes: tuple[str, ...] = () if named.digest else (_UNPINNED,)
    if takes and not _REGISTRY.fullmatch(named.registry):
        notes += (
            f"{takes} refuses images from {named.registry}: --set image="
            "REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME, or a remote repository there",
        )
    return service.image(image), notes


def short_digest(document: Any) -> str:
    """Ten characters that stand for plain data."""
    return sha256_bytes(to_json(document).encode()).removeprefix("sha256:")[:10]


def account_id(service: Service, region: str) -> str:
    """The name of the service's own account: one per service and region, 6 to 30 characters.

    Source: https://cloud.google.com/iam/docs/service-accounts-create
    """
    return f"{service.name[:18].rstrip('-')}-{short_digest([service.name, region])}"[:30]
