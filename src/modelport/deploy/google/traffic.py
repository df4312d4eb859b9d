"""How traffic is written in a plan, and what becomes of it once the former split is known.

Traffic is the one thing that a plan cannot say completely: what the old version keeps depends on
what it has. Where a request has ``{"$shares": …}`` or ``{"$revisions": …}``, the applier puts the
outcome of `shares` or `revisions`; all else in a request is the API's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelport.deploy.base import Result

#: Operators in requests, see `modelport.deploy.google.messages`.
SHARES: Final = "$shares"
REVISIONS: Final = "$revisions"

#: The tag of a revision, and the end of the name of an endpoint, that is being verified.
CANDIDATE: Final = "candidate"

_BY_REVISION: Final = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"
TO_LATEST: Final = "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"


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
        {"type_": _BY_REVISION, "revision": key, "percent": share}
        for key, share in shares(had, revision, percent).items()
    ]
    traffic += [
        {"type_": _BY_REVISION, "revision": target.get("revision") or name, "tag": target["tag"]}
        for target in former
        if target.get("tag") and target["tag"] != CANDIDATE
    ]
    if tag:
        traffic.append({"type_": _BY_REVISION, "revision": revision, "tag": tag})
    return traffic
