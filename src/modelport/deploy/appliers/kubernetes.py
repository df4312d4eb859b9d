"""Kubernetes' Python client: any object, by server-side apply, and what becomes of it.

Operations of a `Call`: those of `modelport.deploy.kubernetes.changes`, ``get``, ``portforward``
(answers the ``url`` of a port here), and ``closeforward``.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/ (paths, Status objects).
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
from websocket import WebSocketConnectionClosedException
from yaml import YAMLError

from modelport.core.errors import NotFoundError, PlatformError
from modelport.deploy.base import Call, Progress
from modelport.deploy.kubernetes import objects, refusals
from modelport.deploy.kubernetes.changes import Changes
from modelport.deploy.kubernetes.relay import Relay
from modelport.deploy.kubernetes.state import pod_ready
from modelport.deploy.kubernetes.watch import Watch

#: Seconds to connect, and to wait for an answer.
_TIMEOUTS: Final = (10, 60)
_POLL: float = 1.0
_LONGEST: Final = 900.0
#: How often something is read that an API server did not answer.
_TRIES: Final = 3
#: Seconds for which an API server may be away while something is waited for.
_PATIENCE: float = 60.0
_LOG_LINES: Final = 20


class KubernetesApplier:
    """Logs in as ``kubectl`` does: by the kubeconfig, or else as the pod that this runs in."""

    name = "kubernetes"

    def connect(self, connection: Mapping[str, str]) -> KubernetesConnection:
        """Log in to the context of the kubeconfig that the plan names.

        Raises
        ------
        PlatformError
            When there is no such context, or no configuration that can be used.
        """
        settings = sdk.Configuration()
        context = connection.get("context", "")
        # The SDK has read KUBECONFIG when it was imported, and prints what it finds missing.
        files = os.environ.get("KUBECONFIG", "") or str(Path("~/.kube/config").expanduser())
        found = any(Path(file).exists() for file in files.split(os.pathsep))
        try:
            if "KUBERNETES_SERVICE_HOST" in os.environ and not found and not context:
                config.load_incluster_config(  # type: ignore[no-untyped-call]
                    client_configuration=settings
                )
            else:
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=files, context=context or None, client_configuration=settings
                )
        except (config.ConfigException, OSError, YAMLError, ValueError, TypeError, KeyError,
                AttributeError) as error:  # the last three: YAML, but no kubeconfig  # fmt: skip
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
        self._relays: dict[str, Relay] = {}
        changes = Changes(self)
        self._operations: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
            "create": changes.create,
            "patch": changes.patch,
            "replace": changes.replace,
            "recreate": changes.recreate,
            "delete": changes.delete,
            "get": self.read,
            "portforward": self._forward,
            "closeforward": self._close,
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

        A rollout may take as long as it gets on; ``timeout`` is for everything between two steps.

        Raises
        ------
        PlatformError
            When it failed or took too long, with what its pods, their events and logs say.
        """
        watch, limit = Watch(self), float(call.wait.get("timeout", _LONGEST))
        heard = moved = time.monotonic()
        said, done = "", False
        while True:
            try:
                done, state, answer = watch.look(call.wait, parameters)
                heard = time.monotonic()
            except refusals.PassingError as error:
                if time.monotonic() - heard > _PATIENCE:
                    raise
                state = f"no answer: {error}"
            if done:
                return answer
            if state != said:
                report(said := state)
                moved = time.monotonic() if call.wait["for"] == "rollout" else moved
            if time.monotonic() - moved > limit:
                raise PlatformError(f"{parameters['name']} took too long: {state}")
            time.sleep(_POLL)

    def headers(self) -> Mapping[str, str]:
        """Nothing: the forwarded port is the pod's own, and its key is the user's to show."""
        return {}

    def find(self, reference: Mapping[str, Any]) -> dict[str, Any]:
        """An object, with the record of who manages its fields."""
        return self._at(reference, "get")

    def read(self, reference: Mapping[str, Any]) -> dict[str, Any]:
        """An object, without that record."""
        found = self.find(reference)
        found.get("metadata", {}).pop("managedFields", None)
        return found

    def apply(self, body: Mapping[str, Any], manager: str, *, force: bool) -> dict[str, Any]:
        """Apply an object, server-side."""
        return self._at(
            objects.reference_of(body), "patch", body=dict(body),
            content_type="application/apply-patch+yaml",
            field_manager=manager, force_conflicts=force,
        )  # fmt: skip

    def update(self, body: Mapping[str, Any], manager: str) -> dict[str, Any]:
        """Replace an object."""
        reference = objects.reference_of(body)
        return self._at(reference, "put", body=dict(body), field_manager=manager)

    def remove(self, reference: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Delete an object."""
        self._at(reference, "delete", body=dict(options))

    def select(
        self, api_version: str, kind: str, namespace: str, *, labels: str = "", fields: str = ""
    ) -> list[Any]:
        """The objects of a kind in a namespace that a selector finds."""
        path = objects.folder_of(api_version, kind, namespace)
        found = self._object(
            "get", path, kind, "", label_selector=labels or None, field_selector=fields or None
        )
        return list(found.get("items", ()))

    def log(self, namespace: str, pod: str, container: str, *, previous: bool) -> str:
        """The end of a container's log, or of what it said before its last restart."""
        query: list[tuple[str, Any]] = [("tailLines", _LOG_LINES), ("limitBytes", 1 << 16)]
        query += [("container", container)] if container else []
        query += [("previous", "true")] if previous else []
        path = f"{objects.folder_of('v1', 'Pod', namespace)}/{pod}/log"
        return self._send("get", path, "Pod", pod, query=query).decode(errors="replace")

    def _forward(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Open a port here that reaches a ready pod, as ``kubectl port-forward`` does."""
        namespace, port = parameters["namespace"], int(parameters["port"])
        pods = Watch(self).pods(namespace, parameters["selector"])
        ready = [pod for pod in pods if pod_ready(pod)[0]]
        if not ready:
            raise PlatformError(
                f"no pod is ready with the labels {parameters['selector']}",
                hint="where it has been scaled to zero, one request to it starts a pod",
            )
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

        try:
            open_remote().close()  # or nobody would hear why not
        except ApiException as error:
            raise refusals.forward_refusal(str(error.reason), name) from error
        relay = Relay(open_remote)
        url = f"http://127.0.0.1:{relay.port}{parameters.get('path', '')}"
        self._relays[url] = relay
        return {"url": url, "pod": name}

    def _close(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        relay = self._relays.pop(parameters["url"], None)
        if relay is None:
            raise NotFoundError("forwarded port", parameters["url"])
        relay.close()
        return {}

    def _at(self, reference: Mapping[str, Any], method: str, **more: Any) -> dict[str, Any]:
        path = objects.path_of(reference)
        return self._object(method, path, reference["kind"], reference["name"], **more)

    def _object(self, method: str, path: str, kind: str, name: str, **more: Any) -> dict[str, Any]:
        text = self._send(method, path, kind, name, **more).decode()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise PlatformError(f"no answer of Kubernetes: {text[:200]}", where=path)
        return answer

    def _send(self, method: str, path: str, kind: str, name: str, **more: Any) -> bytes:
        for _ in range(_TRIES - 1 if method == "get" else 0):
            try:
                return self._once(method, path, kind, name, **more)
            except refusals.PassingError:
                time.sleep(_POLL)
        return self._once(method, path, kind, name, **more)

    def _once(
        self, method: str, path: str, kind: str, name: str, query: Any = (), **more: Any
    ) -> bytes:
        try:
            answer = self._client.request(
                method, path, query_params=list(query), header_params={}, serialize=False,
                _request_timeout=_TIMEOUTS, **more,
            )  # fmt: skip
        except ApiException as error:
            text = error.body or ""
            body = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
            said = str(error.reason or "")
            raise refusals.refusal(error.status or 0, body, said, method, kind, name) from error
        except HTTPError as error:
            raise refusals.unreachable(self._settings.host, error) from error
        return bytes(answer.data)


class _Forwarded:
    """One forwarded connection; the SDK leaves its WebSocket open when the pod closes first."""

    def __init__(self, opened: Any, port: int) -> None:
        self._opened = opened
        inner = opened.socket(port)
        self.recv, self.sendall, self.shutdown = inner.recv, inner.sendall, inner.shutdown
        self._inner = inner
        web = opened.websocket
        receive = web.recv_data_frame

        def received(*arguments: Any) -> Any:
            try:
                return receive(*arguments)
            except OSError as error:  # the SDK's thread knows no other end, and would print it
                web.shutdown()
                raise WebSocketConnectionClosedException(str(error)) from error

        web.recv_data_frame = received

    def close(self) -> None:
        """Close both ends. The SDK's thread forgets its socket once a close frame has come."""
        self._inner.close()
        web = self._opened.websocket
        with suppress(OSError):
            if not web.connected:
                web.shutdown()
            elif web.sock is not None:
                web.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread, which then closes it
