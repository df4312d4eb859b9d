"""Kubernetes' Python client: any object, by server-side apply, and what becomes of it.

Operations of a `Call`: ``create`` (apply what is not there), ``patch`` (apply over what is there;
answers its state ``before``), ``replace`` (put such a state back), ``recreate`` (delete, then
create), ``get``, ``delete``, and ``portforward`` (answers the ``url`` of a port here).

Sources: https://kubernetes.io/docs/reference/using-api/server-side-apply/ (who owns which field),
https://kubernetes.io/docs/reference/using-api/api-concepts/ (paths, Status objects), and
``kubectl rollout status`` for what a finished rollout is.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from kubernetes import client as sdk
from kubernetes import config
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.stream import portforward
from urllib3.exceptions import HTTPError

from modelport.core.errors import ConflictError, NotFoundError, PlatformError
from modelport.deploy.base import Call, Progress
from modelport.deploy.kubernetes.relay import Relay
from modelport.deploy.kubernetes.state import (
    object_path,
    owned_fields,
    pod_problem,
    pod_ready,
    rollout_state,
    service_state,
)

_MANAGER: Final = "modelport"
#: Seconds to connect, and to wait for an answer.
_TIMEOUTS: Final = (10, 60)
_POLL: float = 1.0
_LONGEST: Final = 900.0
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_HINTS: Final = {
    401: "log in to the cluster, or choose another one with --set context=…",
    403: "deployer-role.yaml, written by --out, lists the rights that are needed",
    409: "another tool manages these fields; --set take-over=true changes them all the same",
}


class KubernetesApplier:
    """Logs in as ``kubectl`` does: by the kubeconfig, or else as the pod that this runs in."""

    name = "kubernetes"

    def connect(self, connection: Mapping[str, str]) -> KubernetesConnection:
        """Log in to the context of the kubeconfig that the plan names.

        Raises
        ------
        PlatformError
            When there is no such context, or no configuration at all.
        """
        settings = sdk.Configuration()
        context = connection.get("context", "")
        # The SDK has read KUBECONFIG when it was imported, and prints what it finds missing.
        files = os.environ.get("KUBECONFIG", "") or str(Path("~/.kube/config").expanduser())
        inside = "KUBERNETES_SERVICE_HOST" in os.environ
        try:
            if inside and not any(Path(file).exists() for file in files.split(os.pathsep)):
                config.load_incluster_config(  # type: ignore[no-untyped-call]
                    client_configuration=settings
                )
            else:
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=files, context=context or None, client_configuration=settings
                )
        except (config.ConfigException, OSError, ValueError) as error:
            raise PlatformError(
                f"no access to a Kubernetes cluster: {error}",
                where=f"context {context}" if context else "",
                hint="'kubectl config get-contexts' lists the clusters; KUBECONFIG names the file",
            ) from error
        return KubernetesConnection(settings)


class KubernetesConnection:
    """A cluster that has been logged in to."""

    def __init__(self, settings: sdk.Configuration) -> None:
        self._settings = settings
        # Paths follow from the kinds: what the cluster has need not be asked, nor kept in a file.
        self._client = DynamicClient(  # type: ignore[no-untyped-call]
            sdk.ApiClient(settings), discoverer=lambda _client, _cache: None
        )
        self._operations: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
            "create": self._create,
            "patch": self._patch,
            "replace": self._replace,
            "recreate": self._recreate,
            "get": self._get,
            "delete": self._delete,
            "portforward": self._forward,
        }

    def call(self, call: Call, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a call; see the module for the operations.

        Raises
        ------
        ConflictError
            When what should be created exists already.
        NotFoundError
            When what is asked for, or should be taken away, does not exist.
        PlatformError
            For all else that the API server refuses, in its own words.
        """
        return self._operations[call.operation](parameters)

    def wait(
        self, call: Call, parameters: Mapping[str, Any], answer: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        """Wait for a ``rollout``, a pod that is ``ready``, or an InferenceService (``service``).

        Raises
        ------
        PlatformError
            When it failed or took too long, with what its pods and their events say.
        """
        look = {"rollout": self._rollout, "ready": self._pod, "service": self._service}
        deadline = time.monotonic() + float(call.wait.get("timeout", _LONGEST))
        said = ""
        while True:
            done, state, answer = look[call.wait["for"]](call, parameters)
            if done:
                return answer
            if state != said:
                report(said := state)
            if time.monotonic() > deadline:
                raise PlatformError(f"{parameters['name']} took too long: {state}")
            time.sleep(_POLL)

    def headers(self) -> Mapping[str, str]:
        """Nothing: the forwarded port is the pod's own, and its key is the user's to show."""
        return {}

    def _rollout(self, call: Call, parameters: Mapping[str, Any]) -> _Look:
        found = self._read(parameters)
        done, failed, state = rollout_state(found)
        if not done:
            for pod in self._new_pods(found, call.wait["selector"]):
                problem = pod_problem(pod)
                if problem:
                    raise PlatformError(self._told(pod, problem))
        if failed:
            raise PlatformError(f"Deployment {parameters['name']}: {failed}")
        return done, state, {"state": state}

    def _pod(self, call: Call, parameters: Mapping[str, Any]) -> _Look:
        pod = self._read(parameters)
        if problem := pod_problem(pod):
            raise PlatformError(self._told(pod, problem))
        done, state = pod_ready(pod)
        return done, state, {"state": state}

    def _service(self, call: Call, parameters: Mapping[str, Any]) -> _Look:
        found = self._read(parameters)
        done, failed, state = service_state(found)
        if failed:
            raise PlatformError(f"InferenceService {parameters['name']}: {failed}")
        if not done:
            for pod in self._pods(parameters["namespace"], call.wait["selector"]):
                if problem := pod_problem(pod):
                    raise PlatformError(self._told(pod, problem))
        return done, state, {"state": state, "url": found.get("status", {}).get("url", "")}

    def _new_pods(self, found: Mapping[str, Any], selector: Mapping[str, str]) -> list[Any]:
        """The pods of a Deployment's newest revision: older ones may well be broken."""
        namespace = found["metadata"]["namespace"]
        revision = "deployment.kubernetes.io/revision"
        newest = found["metadata"].get("annotations", {}).get(revision)
        owners = {
            item["metadata"]["uid"]
            for item in self._list("apps/v1", "ReplicaSet", namespace, selector)
            if newest and item["metadata"].get("annotations", {}).get(revision) == newest
        }
        return [
            pod
            for pod in self._pods(namespace, selector)
            if owners & {owner["uid"] for owner in pod["metadata"].get("ownerReferences", ())}
        ]

    def _pods(self, namespace: str, selector: Mapping[str, str]) -> list[Any]:
        return self._list("v1", "Pod", namespace, selector)

    def _list(
        self, version: str, kind: str, namespace: str, selector: Mapping[str, str]
    ) -> list[Any]:
        labels = ",".join(f"{name}={value}" for name, value in selector.items())
        path = object_path(version, kind, namespace)
        found = self._request("get", path, kind, "", label_selector=labels)
        return list(found.get("items", ()))

    def _told(self, pod: Mapping[str, Any], problem: str) -> str:
        """A pod's problem with its last warnings."""
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        text = f"pod {name}: {problem}"
        try:
            found = self._request(
                "get", object_path("v1", "Event", namespace), "Event", "",
                field_selector=f"involvedObject.name={name},type=Warning",
            )  # fmt: skip
        except PlatformError:
            return text  # the problem matters more than what cannot be read beside it
        warnings = [f"{e.get('reason')}: {e.get('message')}" for e in found.get("items", ())]
        return "; ".join([text, *dict.fromkeys(warnings[-3:])])

    def _create(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        body = parameters["object"]
        try:
            self._read(_reference(body))
        except NotFoundError:
            return {"object": self._apply(body, force=False)}
        raise ConflictError(f"{body['kind']} {body['metadata']['name']} exists already")

    def _patch(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        body = parameters["object"]
        before = self._request("get", *_place(_reference(body)))
        after = self._apply(body, force=bool(parameters.get("force")))
        return {"before": before, "object": after}

    def _replace(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Put an earlier state back: what this manager said then, or else all of it."""
        before = parameters["object"]
        own = owned_fields(before, _MANAGER)
        if own is not None:
            return {"object": self._apply(own, force=True)}
        kept = {key: value for key, value in before.items() if key != "status"}
        server = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp")
        kept["metadata"] = {k: v for k, v in before["metadata"].items() if k not in server}
        path, kind, name = _place(_reference(before))
        return {"object": self._request("put", path, kind, name, body=kept)}

    def _recreate(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        body = parameters["object"]
        reference = _reference(body)
        deadline = time.monotonic() + _LONGEST
        try:
            self._delete(reference)
            while time.monotonic() < deadline:
                self._read(reference)
                time.sleep(_POLL)
        except NotFoundError:
            return self._create(parameters)
        raise PlatformError(f"{body['kind']} {reference['name']} does not go away")

    def _get(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._read(parameters)

    def _delete(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            self._request("delete", *_place(parameters), body={"propagationPolicy": "Background"})
        except NotFoundError:
            if parameters.get("missing") != "ok":
                raise
        return {}

    def _forward(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Open a port here that reaches a ready pod, as ``kubectl port-forward`` does."""
        namespace, port = parameters["namespace"], int(parameters["port"])
        ready = [p for p in self._pods(namespace, parameters["selector"]) if pod_ready(p)[0]]
        if not ready:
            raise PlatformError(f"no pod is ready with the labels {parameters['selector']}")
        pod = max(ready, key=lambda p: str(p["metadata"].get("creationTimestamp", "")))
        name = pod["metadata"]["name"]
        core = sdk.CoreV1Api(sdk.ApiClient(self._settings))
        lock = threading.Lock()  # the SDK exchanges a method of the client meanwhile

        def open_remote() -> Any:
            with lock:
                opened = portforward(
                    core.connect_get_namespaced_pod_portforward, name, namespace, ports=str(port)
                )
            opened.socket(port).setblocking(True)
            return _Forwarded(opened, port)

        relay = Relay(open_remote)
        path = parameters.get("path", "")
        return {"url": f"http://127.0.0.1:{relay.port}{path}", "pod": name}

    def _read(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        found = self._request("get", *_place(parameters))
        found.get("metadata", {}).pop("managedFields", None)
        return found

    def _apply(self, body: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        path, kind, name = _place(_reference(body))
        return self._request(
            "patch", path, kind, name, body=dict(body),
            content_type="application/apply-patch+yaml",
            field_manager=_MANAGER, force_conflicts=force,
        )  # fmt: skip

    def _request(self, method: str, path: str, kind: str, name: str, **more: Any) -> dict[str, Any]:
        try:
            answer = self._client.request(
                method, path, query_params=[], header_params={},
                serializer=lambda _client, value: value, _request_timeout=_TIMEOUTS, **more,
            )  # fmt: skip
        except ApiException as error:
            raise _translated(error, method, kind, name) from error
        except HTTPError as error:
            raise PlatformError(
                f"the API server {self._settings.host} cannot be reached: {error}",
                hint="is the cluster up, and is this its address? kubectl cluster-info",
            ) from error
        if not isinstance(answer, dict):
            raise PlatformError(f"no answer of Kubernetes: {str(answer)[:200]}", where=path)
        return answer


class _Forwarded:
    """One forwarded connection; the SDK leaves its WebSocket open when the pod closes first."""

    def __init__(self, opened: Any, port: int) -> None:
        self._opened = opened
        inner = opened.socket(port)
        self.recv, self.sendall, self.shutdown = inner.recv, inner.sendall, inner.shutdown
        self._inner = inner

    def close(self) -> None:
        """Close both ends. The SDK's thread forgets its socket once a close frame has come."""
        self._inner.close()
        web = self._opened.websocket
        with suppress(OSError):
            if not web.connected:
                web.shutdown()
            elif web.sock is not None:
                web.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread, which then closes it


_Look = tuple[bool, str, Mapping[str, Any]]


def _reference(body: Mapping[str, Any]) -> dict[str, Any]:
    """What finds an object again."""
    metadata = body["metadata"]
    return {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "name": metadata["name"],
        "namespace": metadata["namespace"],
    }


def _place(reference: Mapping[str, Any]) -> tuple[str, str, str]:
    """An object's path, kind and name."""
    kind, name = reference["kind"], reference["name"]
    path = object_path(reference["apiVersion"], kind, reference["namespace"])
    return f"{path}/{name}", kind, name


def _translated(error: ApiException, method: str, kind: str, name: str) -> Exception:
    """The API server's Status object as one of our errors."""
    try:
        status = json.loads(error.body or "{}")
    except ValueError:
        status = {}
    status = status if isinstance(status, dict) else {}
    message = str(status.get("message") or error.reason or f"status {error.status}")
    details = status.get("details") or {}
    if error.status == _NOT_FOUND:
        if method in ("get", "delete") and details.get("name", name) == name:
            return NotFoundError(kind, name)
        if not details.get("name"):
            return PlatformError(
                message, hint=f"does this cluster know {kind}? kubectl api-resources"
            )
        return PlatformError(message, hint=f"kubectl create namespace {details['name']}")
    causes = [f"{c.get('field')}: {c.get('message')}" for c in details.get("causes") or ()]
    if error.status == _CONFLICT and causes:
        message += " (" + "; ".join(causes) + ")"
    return PlatformError(f"{message} (status {error.status})", hint=_HINTS.get(error.status, ""))
