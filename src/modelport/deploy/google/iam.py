"""Service accounts, and who may do what, over the REST APIs: the clients have no such methods.

Only the applier imports this: it needs the SDK.

Source: the references of the IAM, Secret Manager and Cloud Run Admin APIs; "Allow policies" for
read-modify-write with an ``etag``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.api_core import exceptions as refusals
from google.auth.transport.requests import AuthorizedSession

from modelport.core.errors import ConflictError, NotFoundError
from modelport.deploy.base import Call
from modelport.deploy.google.place import REST
from modelport.deploy.google.refusals import asking, translate

_REQUEST_SECONDS: Final = 60.0
#: Policies with conditions come in this form, and would lose them in an earlier one.
_POLICY_VERSION: Final = 3
#: What an account that was just made is answered for a while.
_UNKNOWN: Final = "does not exist"


class Identities:
    """The calls whose `Call.service` is a key of `REST`.

    Parameters
    ----------
    credentials : google.auth.credentials.Credentials
    server : str
        Instead of Google's own, for a server on this machine.
    """

    def __init__(self, credentials: Any, server: str = "") -> None:
        self._session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
        self._server = server

    def call(self, call: Call, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """``create`` and ``delete`` of an account; ``grant`` and ``revoke`` of a role.

        The latter answer ``changed``: false means that it has to be tried again.

        Raises
        ------
        ConflictError
            When the account exists, or the role is granted already.
        NotFoundError
            When there is no such account, or the role is not granted.
        """
        if call.operation == "create":
            path, body = f"{parameters['name']}/serviceAccounts", parameters["body"]
            return self._ask(call, "POST", path, body)
        if call.operation == "delete":
            return self._ask(call, "DELETE", str(parameters["name"]))
        return {"changed": self.changed(call, parameters)}

    def readable(self, call: Call, name: str) -> Mapping[str, Any] | None:
        """A new account; None until all of Google Cloud knows it."""
        try:
            return self._ask(call, "GET", name)
        except NotFoundError:
            return None

    def changed(self, call: Call, parameters: Mapping[str, Any]) -> bool:
        """Change a policy; false when somebody else did, or the member is not known yet."""
        resource = str(parameters["resource"])
        query = f"options.requestedPolicyVersion={_POLICY_VERSION}"
        policy = self._ask(call, "GET", f"{resource}:getIamPolicy?{query}")
        role, member = str(parameters["role"]), str(parameters["member"])
        changed = (_granted if call.operation == "grant" else _revoked)(policy, role, member)
        try:
            self._send(call, "POST", f"{resource}:setIamPolicy", {"policy": changed})
        except (refusals.Conflict, refusals.BadRequest) as error:
            if isinstance(error, refusals.Conflict) or _UNKNOWN in str(error.message):
                return False
            raise translate(call, error) from error
        except refusals.GoogleAPICallError as error:
            raise translate(call, error) from error
        return True

    def _ask(self, call: Call, verb: str, path: str, body: Any = None) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = asking(call, lambda: self._send(call, verb, path, body))
        return answer

    def _send(self, call: Call, verb: str, path: str, body: Any = None) -> Mapping[str, Any]:
        host, version = REST[call.service]
        url = f"{self._server or host}/{version}/{path}"
        ask: Any = self._session.request  # google-auth has no types
        answer = asking(call, lambda: ask(verb, url, json=body, timeout=_REQUEST_SECONDS))
        if answer.ok:
            document: Mapping[str, Any] = answer.json()
            return document
        refused: Any = refusals.from_http_response  # nor has this
        raise refused(answer)


def _granted(policy: Mapping[str, Any], role: str, member: str) -> dict[str, Any]:
    bindings = [dict(binding) for binding in policy.get("bindings", [])]
    same = [b for b in bindings if b["role"] == role and "condition" not in b]
    if any(member in binding.get("members", []) for binding in same):
        raise ConflictError(f"{member} has {role} already")
    if same:
        same[0]["members"] = [*same[0].get("members", []), member]
    else:
        bindings.append({"role": role, "members": [member]})
    return {**policy, "bindings": bindings}


def _revoked(policy: Mapping[str, Any], role: str, member: str) -> dict[str, Any]:
    bindings, found = [], False
    for binding in policy.get("bindings", []):
        members = list(binding.get("members", []))
        if binding["role"] == role and "condition" not in binding and member in members:
            found = True
            members.remove(member)
        if members:
            bindings.append({**binding, "members": members})
    if not found:
        missing = NotFoundError(role, member)
        missing.without_known()
        raise missing
    return {**policy, "bindings": bindings}
