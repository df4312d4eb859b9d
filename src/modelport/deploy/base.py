"""What a deployment is, as data: its files, its calls, its limits, the rights it needs.

::

    Service ──Target.plan──▶ Plan ──Applier──▶ the platform
    (package,  (pure)        files, calls,
     settings)               checks, notes

A plan is the same for the same package and settings, can be printed and compared, and needs
neither network nor credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from modelport.deploy.limits import Check
from modelport.deploy.service import Service

Progress = Callable[[str], None]


@dataclass(frozen=True)
class PlannedFile:
    """A file of the deployment.

    Parameters
    ----------
    path : str
        Relative to the output folder, with ``/``.
    content : str
    purpose : str
        What it is for, in a few words.
    executable : bool
    """

    path: str
    content: str
    purpose: str
    executable: bool = False


@dataclass(frozen=True)
class Result:
    """A value in a call's parameters that an earlier call will answer.

    Parameters
    ----------
    call : str
        The `Call.id` of that call.
    path : str
        Keys into its answer, with dots: ``Role.Arn``.
    """

    call: str
    path: str

    def __str__(self) -> str:
        return f"<{self.call}: {self.path}>"


def has_results(value: Any) -> bool:
    """Whether a `Result` is anywhere in plain data."""
    if isinstance(value, Mapping):
        return any(has_results(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(has_results(item) for item in value)
    return isinstance(value, Result)


@dataclass(frozen=True)
class Call:
    """One call of the platform's API.

    Parameters
    ----------
    id : str
        Unique in the plan, in lower case with dashes.
    service : str
        What the applier knows the API by: ``sagemaker``, ``kubernetes``.
    operation : str
        The API's own name of the operation.
    parameters : mapping
        Plain data, with `Result` where an earlier answer is needed.
    purpose : str
        What it is for, in a few words.
    rights : tuple of str
        What the caller must be allowed: ``sagemaker:CreateModel``.
    phase : str
        ``prepare``: before anything serves; ``serve``: a server is started and waited for;
        ``shift``: traffic goes to it, after it has been verified.
    otherwise : Call or None
        What to do instead when the platform says that it exists already: update it, or read it
        for its answer, which then counts as this call's. None: go on, it is the same, because
        its name holds the package's digest.
    undo : Call or None
        What takes it back: after a failure, in reverse order, and for ``destroy``. One with a
        `Result` restores the state before; ``destroy``, which knows no such state, passes it
        over, so what is created has to be taken away by names that the plan knows.
    wait : mapping
        What the applier waits for afterwards; empty: nothing. In the applier's own words.
    """

    id: str
    service: str
    operation: str
    parameters: Mapping[str, Any]
    purpose: str
    rights: tuple[str, ...] = ()
    phase: str = "prepare"
    otherwise: Call | None = None
    undo: Call | None = None
    wait: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All of a deployment.

    Parameters
    ----------
    target : str
    service : Service
    image : str
        The image's reference; empty where none is used.
    loads_image : bool
        The image comes from an archive on this machine, which `apply` builds: no registry.
    platform : str
        What the image is built for; empty: the option of ``modelport image``.
    applier : str
        Who can make the calls; empty: nobody, the `commands` have to be run.
    connection : mapping
        What the applier has to know: region, project, context. No secrets.
    files : tuple of PlannedFile
    calls : tuple of Call
    status : Call or None
        Tells how the deployment is.
    endpoint : str or Result
        The URL at which the service answers; empty where only the platform's SDK reaches it.
    verify_at : str or Result
        Where the new server is asked before it gets the traffic; empty: at the endpoint.
    protocol : str
        How `verify` asks: ``v2``, ``vertex``, ``sagemaker`` …
    checks : tuple of Check
        The platform's limits and what is left of them.
    notes : tuple of str
        What a careful reader would want to know.
    commands : tuple of str
        What to run by hand, with the files, instead of ``--yes``.
    """

    target: str
    service: Service
    image: str = ""
    loads_image: bool = False
    platform: str = ""
    applier: str = ""
    connection: Mapping[str, str] = field(default_factory=dict)
    files: tuple[PlannedFile, ...] = ()
    calls: tuple[Call, ...] = ()
    status: Call | None = None
    endpoint: str | Result = ""
    verify_at: str | Result = ""
    protocol: str = "v2"
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def rights(self) -> tuple[str, ...]:
        """All rights that are needed, also to update, read and take back; sorted."""
        waiting = [*self.calls, *([self.status] if self.status else [])]
        every: set[str] = set()
        while waiting:
            call = waiting.pop()
            every |= set(call.rights)
            waiting += [more for more in (call.otherwise, call.undo) if more is not None]
        return tuple(sorted(every))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be set about every target; targets add their own fields.

    A field's text for people is in its metadata, see `modelport.deploy.settings.setting`.

    Parameters
    ----------
    name : str
        Of the service; empty: from the package.
    image : str
        ``registry/repository``: `apply` builds the image and pushes it there;
        ``registry/repository@sha256:…``: that image is used.
    """

    name: str = field(default="", metadata={"help": "name of the service (default: the model's)"})
    image: str = field(
        default="",
        metadata={"help": "where the image is pushed, or which one is used (with @sha256:…)"},
    )


class Target(Protocol):
    """A platform.

    Attributes
    ----------
    name : str
    settings : type
        A frozen dataclass that extends `Settings`.
    cold_start : str
        ``none`` (always running), ``seconds``, ``tens of seconds`` or ``minutes``, and why.
    """

    name: str
    settings: type[Settings]
    cold_start: str

    def plan(self, service: Service, settings: Any) -> Plan:
        """Say what has to be written and called.

        Pure: the same plan for the same arguments; no network, no clock.

        Raises
        ------
        InputError
            When a setting is missing or cannot be used, with the key.
        """
        ...


class Connection(Protocol):
    """A platform that has been logged in to."""

    def call(self, call: Call, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a call, whose `Result` values have been filled in.

        Returns
        -------
        mapping
            The platform's answer as plain data.

        Raises
        ------
        ConflictError
            When what should be created exists already.
        NotFoundError
            When what is asked for, or should be taken away, does not exist.
        PlatformError
            For all else that the platform refuses, in its own words.
        """
        ...

    def wait(
        self, call: Call, parameters: Mapping[str, Any], answer: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        """Wait for what ``call.wait`` says; the last state, as plain data.

        Raises
        ------
        PlatformError
            When it failed or took too long, with the platform's reason.
        """
        ...

    def headers(self) -> Mapping[str, str]:
        """What requests to the endpoint have to show, where only the platform can tell it.

        Secrets for the next minutes: they are sent, and neither printed nor kept.
        """
        ...


class Applier(Protocol):
    """Knows a platform's SDK."""

    name: str

    def connect(self, connection: Mapping[str, str]) -> Connection:
        """Log in, with the credentials that the SDK finds by itself.

        Raises
        ------
        PlatformError
            When there are none.
        """
        ...
