"""What the targets on Google Cloud share: names, labels, sizes, and how traffic is written.

Traffic is the one thing that a plan cannot say completely: what the old version keeps depends on
what it has. Where a request has ``{"$shares": …}`` or ``{"$revisions": …}``, the applier puts the
outcome of `shares` or `revisions`; all else in a request is the API's own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelport.core.digest import sha256_bytes
from modelport.core.errors import InputError
from modelport.core.tensors import TensorSpec
from modelport.deploy.base import Result, Service
from modelport.deploy.documents import to_json

#: Operators in requests, see `modelport.deploy.appliers.google`.
SHARES: Final = "$shares"
REVISIONS: Final = "$revisions"

#: The tag of a revision, and the end of the name of an endpoint, that is being verified.
CANDIDATE: Final = "candidate"

BY_REVISION: Final = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"

# https://cloud.google.com/resource-manager/docs/creating-managing-projects: 6 to 30 characters;
# older ones begin with a domain: example.com:project.
_PROJECT: Final = re.compile(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_REGION: Final = re.compile(r"[a-z]+-[a-z]+[0-9]{1,2}")
_ACCOUNT: Final = re.compile(r"[a-z0-9.-]+@[a-z0-9.:-]+\.[a-z]+")

#: Characters that a number takes in JSON, with its comma: float32 has at most nine digits.
_NUMBER_BYTES: Final = 13
_TEXT_BYTES: Final = 64
_HEAD_BYTES: Final = 64


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


def labels(service: Service) -> dict[str, str]:
    """Labels by which the package is found again; values as Google allows them.

    Source: https://cloud.google.com/resource-manager/docs/labels-overview (lower-case letters,
    digits, ``_`` and ``-``, at most 63).
    """
    found = {
        "managed-by": "modelport",
        "modelport-model": re.sub(r"[^a-z0-9_-]", "-", service.model.lower())[:63],
        "modelport-package": service.tag,
    }
    return found | ({"modelport-version": str(service.version)} if service.version else {})


def short_digest(document: Any) -> str:
    """Ten characters that stand for plain data."""
    return sha256_bytes(to_json(document).encode()).removeprefix("sha256:")[:10]


def account_id(service: Service, region: str) -> str:
    """The name of the service's own account: one per service and region, 6 to 30 characters.

    Source: https://cloud.google.com/iam/docs/service-accounts-create
    """
    return f"{service.name[:18].rstrip('-')}-{short_digest([service.name, region])}"[:30]


def request_bytes(service: Service) -> int:
    """About how long a JSON request with one row is."""
    return _HEAD_BYTES + sum(_row_bytes(spec) for spec in service.package.manifest.signature.inputs)


def _row_bytes(spec: TensorSpec) -> int:
    each = _TEXT_BYTES if spec.numpy_dtype.kind not in "biuf" else _NUMBER_BYTES
    size = math.prod(d if isinstance(d, int) else 1 for d in spec.shape)
    return len(spec.name) + 8 + size * each


def shares_of(former: Result, to: str, percent: int) -> dict[str, Any]:
    """A traffic split, as a request says it: `percent` to one, what is left to those before."""
    return {SHARES: {"former": former, "to": to, "percent": percent}}


def revisions_of(former: str, revision: str, percent: int, tag: str) -> dict[str, Any]:
    """Cloud Run's traffic, as a request says it.

    Parameters
    ----------
    former : str
        The id of the call that answered the service before.
    revision : str
        The new one, which also gets the tag, unless that is empty.
    percent : int
    tag : str
    """
    return {
        REVISIONS: {
            "former": Result(former, "traffic"),
            "latest": Result(former, "latest_ready_revision"),
            "revision": revision,
            "percent": percent,
            "tag": tag,
        }
    }


def as_rest(value: Any, model: str) -> Any:
    """A request's body for the REST API: fields in lower camel case.

    What only `--yes` can know is said as it is for a first deployment: the model is `model`, and
    all traffic goes to it.
    """
    if isinstance(value, Result):
        return model
    if isinstance(value, Mapping):
        if SHARES in value:
            return {value[SHARES]["to"]: 100}
        return {
            camel(key): dict(item) if key == "labels" else as_rest(item, model)
            for key, item in value.items()
        }
    return [as_rest(item, model) for item in value] if isinstance(value, list) else value


def camel(field: str) -> str:
    """A field's name as JSON has it: ``image_uri`` is ``imageUri``."""
    first, *rest = field.split("_")
    return first + "".join(word.capitalize() for word in rest)


def shares(former: Mapping[str, int], to: str, percent: int) -> dict[str, int]:
    """`percent` for one, what is left for the others as they had it before; together 100.

    Where there is nobody else, all goes to the one.
    """
    others = {name: share for name, share in former.items() if name != to and share > 0}
    if not others:
        return {to: 100}
    rest, total = 100 - percent, sum(others.values())
    split = {name: rest * share // total for name, share in others.items()}
    # What was rounded off goes to those who lost most by it; then by name, to be the same always.
    by_loss = sorted(others, key=lambda name: (-(rest * others[name] % total), name))
    for name in by_loss[: rest - sum(split.values())]:
        split[name] += 1
    return {name: share for name, share in {**split, to: percent}.items() if share}


def revisions(
    former: Sequence[Mapping[str, Any]], latest: str, revision: str, percent: int, tag: str
) -> list[dict[str, Any]]:
    """Cloud Run's traffic targets: `shares`, and the tags that there are.

    "The latest revision" becomes its name: otherwise a new one would get traffic at once.

    Parameters
    ----------
    former : sequence of mapping
        The targets before; none: all to the latest.
    latest : str
        The full name of the latest revision that was ready.
    revision, percent, tag
        As for `revisions_of`.
    """
    name = latest.rpartition("/")[2]
    had: dict[str, int] = {}
    for target in former or [{"percent": 100}]:
        key = target.get("revision") or name
        if key:
            had[key] = had.get(key, 0) + int(target.get("percent", 0))
    traffic = [
        {"type_": BY_REVISION, "revision": key, "percent": share}
        for key, share in shares(had, revision, percent).items()
    ]
    traffic += [
        {"type_": BY_REVISION, "revision": target.get("revision") or name, "tag": target["tag"]}
        for target in former
        if target.get("tag") and target["tag"] != CANDIDATE
    ]
    if tag:
        traffic.append({"type_": BY_REVISION, "revision": revision, "tag": tag})
    return traffic
