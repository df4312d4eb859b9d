"""What Kubernetes and KServe have in common: sizes, the pod's container, and its security.

Sources: the Pod Security Standard "restricted"
(https://kubernetes.io/docs/concepts/security/pod-security-standards/), "Configure Probes", "Pod
Lifecycle: Termination of Pods", "Managing Resources for Containers".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.deploy.service import Footprint
from modelport.deploy.settings import mebibytes, quantity

HTTP_PORT: Final = 8080
GRPC_PORT: Final = 9000
USER: Final = 65532
KEY_FILE: Final = "/etc/modelport/keys/api-key"

#: Seconds that the server takes at most to finish requests after SIGTERM: `ServeOptions.grace`.
GRACE: Final = 30
#: Seconds before SIGTERM in which proxies learn that the pod is going away.
DRAIN: Final = 5

_MEBIBYTE: Final = 1 << 20
#: The largest body that a server of this memory takes, by default: a container that takes as much
#: as a server of a whole machine (`ServeOptions.max_body`) is killed by three requests.
MAX_BODY: Final = "16Mi"
#: Memory for requests in flight, in largest bodies.
_BODIES: Final = 4
_MARGIN: Final = 1.5
_STEP: Final = 16 * _MEBIBYTE
#: Replicas are sized so that they are this busy at the peak; there the autoscaler adds one.
BUSY: Final = 0.7
_LEAST_CORES: Final = 0.1
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+")


def check_name(key: str, text: str, *, label: bool = False) -> None:
    """Refuse what no object can be called.

    Parameters
    ----------
    key : str
        The setting.
    text : str
        Its value.
    label : bool
        It is a namespace, in which no dots are allowed.

    Raises
    ------
    InputError
        When it is no such name.
    """
    if not (_LABEL if label else _NAME).fullmatch(text):
        raise InputError(
            f"not a name: {text!r}", where=f"--set {key}={text}",
            hint="lower-case letters, digits and dashes",
        )  # fmt: skip


@dataclass(frozen=True)
class Sizing:
    """What one replica asks for, and gets at most.

    Parameters
    ----------
    memory : int
        Bytes; request and limit are the same, so that no neighbour can take it away.
    cores : float
        Processor time that is reserved, in cores.
    most_cores : int
        Where it is throttled; the server makes that many threads.
    max_body : int
        Bytes of the largest request body.
    """

    memory: int
    cores: float
    most_cores: int
    max_body: int

    def environment(self) -> dict[str, str]:
        """What the server is told."""
        return {"MODELPORT_GRACE": str(GRACE), "MODELPORT_MAX_BODY": str(self.max_body)}

    def resources(self) -> dict[str, Any]:
        """As a container's ``resources``."""
        memory = mebibytes(self.memory)
        return {
            "requests": {"cpu": f"{math.ceil(self.cores * 1000)}m", "memory": memory},
            "limits": {"cpu": str(self.most_cores), "memory": memory},
        }


def size(
    footprint: Footprint, *, rps: float, replicas: int, memory: str, cpu: str, max_body: str
) -> Sizing:
    """Size a replica from what a server of the package was measured to need.

    Memory is 1.5 times the measured peak, and four of the largest bodies for requests in flight.
    Processor time is what `rps` requests a second cost, spread over the replicas, so that each is
    70 % busy.

    Parameters
    ----------
    footprint : Footprint
    rps : float
        Requests a second at the peak, all replicas together.
    replicas : int
        How many there are at least.
    memory, cpu : str
        ``512Mi``, ``500m``: instead of what follows from the footprint; empty: that.
    max_body : str
        ``16Mi``: the largest request body.

    Raises
    ------
    InputError
        When a setting is no such quantity.
    """
    if not 0 < rps < math.inf:  # nor is it NaN
        raise InputError(f"not a rate: {rps:g}", where="--set rps", hint="--set rps=10")
    body = quantity(max_body, f"--set max-body={max_body}")
    if memory:
        bytes_ = quantity(memory, f"--set memory={memory}")
        if bytes_ < (footprint.memory if footprint.measured else _MEBIBYTE):
            raise InputError(
                f"memory {memory} is less than the {mebibytes(footprint.memory)} that its server "
                "was measured to need"
                if footprint.measured
                else f"memory {memory} is too little",
                where=f"--set memory={memory}",
                hint="leave it out, or give it more",
            )
    else:
        bytes_ = math.ceil((footprint.memory * _MARGIN + _BODIES * body) / _STEP) * _STEP
    if cpu:
        cores = _cores(cpu)
    else:
        needed = rps * footprint.processor / max(1, replicas) / BUSY
        cores = max(_LEAST_CORES, math.ceil(round(needed * 100, 6)) / 100)
    return Sizing(bytes_, cores, max(1, math.ceil(2 * cores)), body)


def sizing_note(footprint: Footprint, sizing: Sizing, rps: float) -> str:
    """Where the sizes come from."""
    how = "measured" if footprint.measured else "estimated, not measured (--measure)"
    return (
        f"memory {mebibytes(sizing.memory)} and {sizing.cores:g} cores a replica: the server was "
        f"{how} to need {mebibytes(footprint.memory)} and {footprint.processor * 1000:.3g} ms of "
        f"processor time a request; 1.5 times that and {_BODIES} bodies of "
        f"{mebibytes(sizing.max_body)} (max-body), at {rps:g} requests a second 70 % busy"
    )


@dataclass(frozen=True)
class Key:
    """Where the key is that clients must show: a Secret's name and the key in it; or nowhere."""

    secret: str = ""
    entry: str = ""


def read_key(key_secret: str, anonymous: bool, target: str) -> Key:
    """Who may ask the server: the holders of a key, or, only when somebody says so, everybody.

    Raises
    ------
    InputError
        When neither or both are set, or `key_secret` is not ``NAME/KEY``.
    """
    if bool(key_secret) == anonymous:
        what = "both key-secret and anonymous are set" if anonymous else "nobody may ask it"
        raise InputError(
            f"{what}: {target} needs one of the two",
            where=f"--set key-secret={key_secret}" if key_secret else "",
            hint="--set key-secret=NAME/KEY names an entry of a Secret in the namespace that holds "
            "the clients' key; --set anonymous=true leaves authentication to what is in front",
        )
    if anonymous:
        return Key()
    name, _, entry = key_secret.partition("/")
    if not (_NAME.fullmatch(name) and _KEY.fullmatch(entry)):
        raise InputError(
            f"not a Secret's entry: {key_secret!r}",
            where=f"--set key-secret={key_secret}",
            hint="--set key-secret=NAME/KEY, the Secret's name and the key in it",
        )
    return Key(name, entry)


def unpinned_note(image: str) -> str:
    """What to say about an image that is not named by its digest; empty: it is."""
    if "@sha256:" in image:
        return ""
    note = "the image is named by its digest once --yes has built and pushed it"
    where = "; --set image=registry/repository says where" if image.startswith("<") else ""
    return note + where


def pod_security() -> dict[str, Any]:
    """The pod's security context; its group reads the mounted key, and nobody else does."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """The container's security context: the standard "restricted", and a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def start_seconds(footprint: Footprint) -> int:
    """How long a server may take to start: twenty times the measured time, at least a minute."""
    return math.ceil(max(60.0, 20 * footprint.start))


def deadline(footprint: Footprint) -> int:
    """Seconds in which a pod has to be ready, with five minutes for a node and the image."""
    return start_seconds(footprint) + 300


def probes(footprint: Footprint, port: str | int, *, grpc: bool = False) -> dict[str, Any]:
    """Start-up, readiness and liveness.

    Ready is only a server that has answered the package's golden records as the source model did.
    Liveness begins after the start.
    """

    def ask(path: str) -> dict[str, Any]:
        if grpc:
            return {"grpc": {"port": GRPC_PORT}}
        return {"httpGet": {"path": path, "port": port}}

    ready, live = ask("/v2/health/ready"), ask("/v2/health/live")
    return {
        "startupProbe": {
            **ready, "periodSeconds": 2, "timeoutSeconds": 2,
            "failureThreshold": math.ceil(start_seconds(footprint) / 2),
        },
        "readinessProbe": {**ready, "periodSeconds": 5, "timeoutSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {**live, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3},
    }  # fmt: skip


def temporary() -> tuple[dict[str, Any], dict[str, Any]]:
    """The volume for ``/tmp``, the only folder that is written, and its mount."""
    volume = {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}
    return volume, {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - in the container


def key_parts(
    secret: str, entry: str, *, group: bool = True
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Variable, mount and volume of a key in a Secret: a file, since a process shows variables.

    Its owner is root. Where the pod has a group of its own, only that reads it.
    """
    volume = {
        "name": "keys",
        "secret": {
            "secretName": secret,
            "defaultMode": 0o440 if group else 0o444,
            "items": [{"key": entry, "path": KEY_FILE.rpartition("/")[2]}],
        },
    }
    mount = {"name": "keys", "mountPath": KEY_FILE.rpartition("/")[0], "readOnly": True}
    return {"name": "MODELPORT_API_KEY_FILE", "value": KEY_FILE}, mount, volume


def anonymous_part() -> dict[str, Any]:
    """The variable that lets everybody ask who can reach the server."""
    return {"name": "MODELPORT_ALLOW_ANONYMOUS", "value": "1"}


def _cores(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", text)
    if match is None or not float(match[1]):
        raise InputError(
            f"not an amount of processor: {text!r}", where=f"--set cpu={text}", hint="500m, 2"
        )
    return float(match[1]) / (1000 if match[2] else 1)
