"""A small Kubernetes API server: what the applier uses, held against the real schemas.

No real one can be had where the tests run. This one keeps objects by path, applies server-side with
owners of fields and conflicts (lists of named items are merged by name, other lists are one value),
answers real Status objects, refuses what kubernetes-validate refuses, and forwards ports over the
real WebSocket protocol ``v4.channel.k8s.io``. Controllers are played by `Cluster.controllers`.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate.utils
import yaml

#: It reads megabytes of JSON for every object; the files do not change meanwhile.
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)

TOKEN = "token-of-the-test"
VERSION = "1.33"
_PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>[^/]+)/namespaces/(?P<namespace>[^/]+)"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?P<more>/portforward|/log)?"
)
_GROUPS = {"apps", "autoscaling", "networking.k8s.io", "policy", "", "serving.kserve.io"}


_VERBS = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Refused(Exception):  # noqa: N818 - an answer, not a defect
    """An answer that is no success."""

    def __init__(self, code: int, reason: str, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.status = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "details": details or {}, "code": code,
        }  # fmt: skip


def fields_of(value: Any) -> dict[str, Any]:
    """A value as ``fieldsV1``."""
    if isinstance(value, dict):
        return {f"f:{key}": fields_of(item) for key, item in value.items()}
    if _keyed(value):
        return {
            "k:" + json.dumps({"name": item["name"]}): {".": {}, **fields_of(item)}
            for item in value
        }
    return {}


def _keyed(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and "name" in item for item in value)
    )


def _merge(live: Any, applied: Any) -> Any:
    if isinstance(live, dict) and isinstance(applied, dict):
        merged = dict(live)
        for key, item in applied.items():
            merged[key] = _merge(live.get(key), item)
        return merged
    if _keyed(live) and _keyed(applied):
        by_name = {item["name"]: item for item in live}
        for item in applied:
            by_name[item["name"]] = _merge(by_name.get(item["name"]), item)
        return list(by_name.values())
    return copy.deepcopy(applied)


def _without(value: Any, fields: dict[str, Any]) -> Any:
    """`value` without the leaves that a set of fields names: nobody owns them any more."""
    if isinstance(value, dict):
        kept = {}
        for key, item in value.items():
            below = fields.get(f"f:{key}")
            if below is None:
                kept[key] = item
            elif any(k != "." for k in below):
                rest = _without(item, below)
                if rest not in ({}, []):
                    kept[key] = rest
        return kept
    if _keyed(value):
        found = []
        for item in value:
            below = fields.get("k:" + json.dumps({"name": item["name"]}))
            rest = item if below is None else _without(item, below)
            if rest:
                found.append(rest)
        return found
    return value


def _minus(fields: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Fields that are not in `other`."""
    left = {}
    for key, below in fields.items():
        if key == ".":
            continue
        if key not in other:
            left[key] = below
        elif below:
            rest = _minus(below, other[key])
            if rest:
                left[key] = rest
    return left


def _drop(value: dict[str, Any], where: tuple[str, ...]) -> None:
    """Take a field away from whoever has owned it."""
    for key in where[:-1]:
        value = value.get(key, {}) if isinstance(value, dict) else {}
    if isinstance(value, dict):
        value.pop(where[-1], None)


def _leaves(value: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*where, key))
    elif _keyed(value):
        for item in value:
            yield from _leaves(item, (*where, item["name"]))
    else:
        yield where, value


class Cluster:
    """What the server keeps, and what it was asked.

    Attributes
    ----------
    objects : dict
        By path.
    asked : list of tuple
        Verb and path, in order.
    forbidden : set of str
        Plurals that the caller may not touch.
    role : dict or None
        The only Role of the caller; without one everything is allowed.
    used : set of tuple
        Verb, group and resource of what the caller was allowed.
    logs : dict
        What pods have said, by name.
    failing : int
        So many answers are errors of a load balancer that finds no API server.
    controllers : list of callable
        Called with the cluster before every answer: they change `objects`.
    forwards : int
        The port of this machine at which every pod is.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.owners: dict[str, dict[str, dict[str, Any]]] = {}
        self.asked: list[tuple[str, str]] = []
        self.forbidden: set[str] = set()
        self.namespaces = {"models"}
        self.controllers: list[Callable[[Cluster], None]] = []
        self.forwards = 0
        self.role: dict[str, Any] | None = None
        self.used: set[tuple[str, str, str]] = set()
        self.logs: dict[str, str] = {}
        self.failing = 0
        self.lock = threading.RLock()

    def authorize(self, verb: str, group: str, resource: str, name: str) -> None:
        """Refuse what the role does not allow, as RBAC does."""
        rules = [] if self.role is None else self.role["rules"]
        allowed = {(v, g, r) for rule in rules for v in rule["verbs"]
                   for g in rule["apiGroups"] for r in rule["resources"]}  # fmt: skip
        plural = resource.partition("/")[0]
        if {resource, plural} & self.forbidden or (
            self.role is not None and (verb, group, resource) not in allowed
        ):
            raise Refused(
                403, "Forbidden",
                f'{resource} "{name}" is forbidden: User "dev" cannot {verb} resource '
                f'"{resource}" in API group "{group}" in the namespace "models"',
                {"name": name, "kind": plural},
            )  # fmt: skip
        self.used.add((verb, group, resource))

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [body for body in self.objects.values() if body["kind"] == kind]

    def add(self, path: str, body: dict[str, Any], manager: str = "kubectl") -> None:
        """Put an object there that another manager applied."""
        self.apply(path, body, manager, force=True)

    def apply(self, path: str, body: dict[str, Any], manager: str, *, force: bool) -> Any:
        live = self.objects.get(path, {})
        owners = self.owners.setdefault(path, {})
        mine = {where: value for where, value in _leaves(body) if where[0] in ("spec", "metadata")}
        conflicts = []
        for other, theirs in owners.items():
            if other == manager:
                continue
            held = dict(_leaves(theirs))
            conflicts += [
                (other, where) for where, value in mine.items()
                if where[-1] not in ("name", "namespace") and where in held and held[where] != value
            ]  # fmt: skip
        if conflicts and not force:
            causes = [
                {"reason": "FieldManagerConflict", "field": "." + ".".join(where),
                 "message": f'conflict with "{other}"'}
                for other, where in conflicts
            ]  # fmt: skip
            raise Refused(
                409, "Conflict", f"Apply failed with {len(causes)} conflict", {"causes": causes}
            )
        for other, where in conflicts:
            _drop(owners[other], where)
        gone = _minus(fields_of(owners.get(manager, {})), fields_of(body))
        for other, theirs in owners.items():
            if other != manager:
                gone = _minus(gone, fields_of(theirs))
        merged = _merge(_without(live, gone), body)
        owners[manager] = copy.deepcopy(body)
        self._keep(path, merged, live)
        return self.objects[path]

    def _keep(self, path: str, body: dict[str, Any], live: dict[str, Any]) -> None:
        metadata = body.setdefault("metadata", {})
        metadata.setdefault("uid", f"uid-{len(self.objects)}")
        metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        if body != live:
            last = live.get("metadata", {}).get("resourceVersion", 0)
            metadata["resourceVersion"] = str(int(last) + 1)
        if body.get("spec") != live.get("spec"):
            metadata["generation"] = metadata.get("generation", 0) + 1
        metadata["managedFields"] = [
            {"manager": manager, "operation": "Apply", "fieldsType": "FieldsV1",
             "fieldsV1": fields_of({k: v for k, v in owned.items() if k in ("spec", "metadata")})}
            for manager, owned in self.owners.get(path, {}).items()
        ]  # fmt: skip
        self.objects[path] = body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _handle(self) -> None:
        cluster = self.server.cluster
        length = int(self.headers.get("Content-Length") or 0)
        body = yaml.safe_load(self.rfile.read(length)) if length else None
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        if parts.path.endswith("/portforward") and self.headers.get("Upgrade"):
            try:
                cluster.authorize("get", "", "pods/portforward", parts.path.split("/")[-2])
            except Refused as refused:
                self._send(403, refused.status)
            else:
                self._forward(query)
            return
        try:
            with cluster.lock:
                cluster.asked.append((self.command, parts.path))
                for controller in cluster.controllers:
                    controller(cluster)
                if cluster.failing:
                    cluster.failing -= 1
                    raise Refused(503, "Unavailable", "no healthy upstream")
                code, answer = 200, self._answer(parts.path, query, body)
        except Refused as refused:
            code, answer = refused.status["code"], refused.status
        self._send(code, answer)

    def _send(self, code: int, answer: Any) -> None:
        text = isinstance(answer, str)
        data = (answer if text else json.dumps(answer)).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if text else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - the library's names

    def _answer(self, path: str, query: dict[str, str], body: Any) -> Any:
        cluster = self.server.cluster
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "Unauthorized", "Unauthorized")
        match = _PATH.fullmatch(path)
        if match is None or (match["group"] or "") not in _GROUPS:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        plural, name = match["plural"], match["name"]
        group, more = match["group"] or "", match["more"] or ""
        verb = _VERBS[self.command] if name or self.command != "GET" else "list"
        cluster.authorize(verb, group, plural + more, name or "")
        if self.command == "PATCH" and path not in cluster.objects:
            cluster.authorize("create", group, plural, name)
        if more:
            return cluster.logs.get(name, "")
        if self.command == "GET" and not name:
            return {"kind": "List", "items": self._selected(path, query)}
        if self.command in ("PATCH", "PUT"):
            return self._write(path, match, query, body)
        found = cluster.objects.get(path)
        if found is None:
            raise Refused(
                404, "NotFound", f'{plural} "{name}" not found', {"name": name, "kind": plural}
            )
        if self.command == "DELETE":
            assert body["propagationPolicy"] == "Background"
            assert body["preconditions"]["uid"] == found["metadata"]["uid"]
            del cluster.objects[path]
            cluster.owners.pop(path, None)
            return {"kind": "Status", "status": "Success"}
        return found

    def _selected(self, path: str, query: dict[str, str]) -> list[Any]:
        labels = dict(p.split("=") for p in query.get("labelSelector", "").split(",") if p)
        fields = dict(p.split("=") for p in query.get("fieldSelector", "").split(",") if p)
        found = []
        for where, body in self.server.cluster.objects.items():
            own = body["metadata"].get("labels", {})
            about = fields.get("involvedObject.name")
            if where.rpartition("/")[0] != path or not labels.items() <= own.items():
                continue
            if about and body.get("involvedObject", {}).get("name") != about:
                continue
            found.append(body)
        return found

    def _write(self, path: str, match: re.Match[str], query: dict[str, str], body: Any) -> Any:
        cluster = self.server.cluster
        if match["namespace"] not in cluster.namespaces:
            name = match["namespace"]
            raise Refused(
                404, "NotFound", f'namespaces "{name}" not found',
                {"name": name, "kind": "namespaces"},
            )  # fmt: skip
        if match["group"] != "serving.kserve.io":
            try:
                # What an object would be is validated, not what is sent of it.
                live = {k: v for k, v in cluster.objects.get(path, {}).items() if k != "status"}
                whole = _merge(live, body) if self.command == "PATCH" else body
                kubernetes_validate.validate(whole, VERSION, strict=True)
            except kubernetes_validate.ValidationError as error:
                kind = f'{body["kind"]} "{body["metadata"]["name"]}" is invalid'
                raise Refused(422, "Invalid", f"{kind}: {error.message}") from error
        if self.command == "PUT":
            live = cluster.objects[path]
            assert not {"managedFields", "uid"} & set(body["metadata"])
            # Not needed for every kind, but for some: this one takes no update without it.
            if body["metadata"].get("resourceVersion") != live["metadata"]["resourceVersion"]:
                raise Refused(
                    422, "Invalid", "metadata.resourceVersion: must be specified for an update"
                )
            cluster._keep(
                path, {**body, "metadata": {**live["metadata"], **body["metadata"]}}, live
            )
            return cluster.objects[path]
        assert self.headers["Content-Type"] == "application/apply-patch+yaml"
        force = query.get("force", "").lower() == "true"
        return cluster.apply(path, body, query["fieldManager"], force=force)

    def _forward(self, query: dict[str, str]) -> None:
        """Kubernetes' port forward over WebSocket: channel 0 is data, 1 errors; both begin with
        the port's number."""
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        port = struct.pack("<H", int(query["ports"]))
        self._frame(b"\x00" + port)
        self._frame(b"\x01" + port)
        if not self.server.cluster.forwards:  # a pod that says nothing
            with suppress(OSError):
                while self._read_frame():
                    pass
            return
        with socket.create_connection(("127.0.0.1", self.server.cluster.forwards)) as pod:
            threading.Thread(target=self._from_pod, args=(pod,), daemon=True).start()
            with suppress(OSError, ConnectionError):
                while data := self._read_frame():
                    pod.sendall(data[1:])

    def _from_pod(self, pod: socket.socket) -> None:
        with suppress(OSError):
            while data := pod.recv(4096):
                self._frame(b"\x00" + data)
            self._frame(b"", opcode=8)

    def _frame(self, data: bytes, opcode: int = 2) -> None:
        size = len(data)
        head = bytes([0x80 | opcode])
        head += bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size)
        self.connection.sendall(head + data)

    def _read_frame(self) -> bytes:
        first, second = self._exactly(2)
        size = second & 0x7F
        if size == 126:
            size = struct.unpack(">H", self._exactly(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self._exactly(8))[0]
        mask = self._exactly(4)
        masks = int.from_bytes((mask * (size // 4 + 1))[:size])
        data = (int.from_bytes(self._exactly(size)) ^ masks).to_bytes(size)
        return b"" if first & 0x0F == 8 else data

    def _exactly(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionError("closed")
        return data


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cluster = cluster


@contextmanager
def running(cluster: Cluster, folder: Path) -> Iterator[Path]:
    """Serve a cluster; the kubeconfig that leads to it."""
    server = _Server(cluster)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "test",
                "clusters": [
                    {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
                ],
                "users": [{"name": "u", "user": {"token": TOKEN}}],
                "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )  # fmt: skip
    try:
        yield kubeconfig
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
