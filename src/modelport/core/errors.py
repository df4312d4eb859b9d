"""Every error modelport raises on purpose, in one tree.

::

    ModelportError
    ├── InputError               the caller's input; exit code 2
    │   ├── NotFoundError        no such file, model, version, alias, adapter
    │   ├── ConflictError        it exists already, or is in use (a port)
    │   ├── SignatureError       tensors that do not fit the signature
    │   ├── UnsupportedError     valid, but nothing here can handle it
    │   ├── MissingPackageError  an optional package is not installed
    │   ├── UnauthenticatedError no key, or a wrong one
    │   ├── MediaTypeError       a body in a format that nobody here reads
    │   ├── NotAcceptableError   an answer asked for in a format that nobody here writes
    │   └── LimitError           larger, longer or more than allowed
    ├── RefusedError             we could go on, and must not; exit code 3
    │   ├── UnsafeError          the scan found something that could run code
    │   ├── IntegrityError       bytes differ from their digest, a record from its chain
    │   └── ParityError          the answers differ from the source model's
    ├── UnavailableError         not ready yet, or shutting down; exit code 1
    │   ├── DeadlineError        it took longer than it may
    │   └── ExhaustedError       no memory is left for it
    ├── PlatformError            a cloud or a registry refuses, or fails; exit code 1
    └── EngineError              the model failed while running; exit code 1

No error knows HTTP: one table in ``serve/statuses.py`` maps them at the edge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final


class ModelportError(Exception):
    """Root of the tree: what happened, where, and what to do about it.

    Parameters
    ----------
    message : str
        What happened, with the offending value.
    where : str, optional
        The place: a path, or a position inside a document (``inputs[0].shape``).
    hint : str, optional
        What the reader can do now.
    report : mapping, optional
        More for programs, as plain data: what every attempt came to.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        where: str = "",
        hint: str = "",
        report: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint
        self.report = report

    @property
    def line(self) -> str:
        """The message and its place, on one line: for wire protocols and logs."""
        return f"{self.message} (at {self.where})" if self.where else self.message

    def __str__(self) -> str:
        return f"{self.line}\nhint: {self.hint}" if self.hint else self.line


class InputError(ModelportError):
    """The caller's input cannot be used."""

    exit_code = 2


_THERE_IS: Final = "; there is"


class NotFoundError(InputError):
    """Something was named that does not exist.

    Parameters
    ----------
    what : str
        The kind of thing, for example ``model``.
    name : str
        The name that was asked for.
    known : iterable of str
        The names that do exist; the message lists them, nearest first.
    """

    def __init__(
        self, what: str, name: str, known: Iterable[str] = (), *, where: str = "", hint: str = ""
    ) -> None:
        known = list(known)
        near = get_close_matches(name, known, n=3)
        ordered = [*near, *(k for k in known if k not in near)]
        shown = ", ".join(ordered[:20]) + (", …" if len(ordered) > 20 else "")
        super().__init__(
            f"{what} not found: {name}{_THERE_IS}" + (f": {shown}" if ordered else " none"),
            where=where,
            hint=hint,
        )
        self.what = what
        self.name = name
        self.known = known

    def without_known(self) -> None:
        """Leave the names that exist out of the message: not everybody may learn them."""
        self.message = self.message.partition(_THERE_IS)[0]


class ConflictError(InputError):
    """The thing exists already, or somebody else holds it."""


class SignatureError(InputError):
    """Tensors or columns that do not fit the model's signature."""


class UnsupportedError(InputError):
    """The input is understood, and no adapter can handle it."""


class MissingPackageError(InputError):
    """An optional Python package is needed and not installed."""


class MediaTypeError(InputError):
    """A request body is in a format that nobody here reads."""


class NotAcceptableError(InputError):
    """An answer is asked for in a format that nobody here writes."""


class LimitError(InputError):
    """A size, a time or a count is over its limit."""


class RefusedError(ModelportError):
    """modelport could continue, and must not."""

    exit_code = 3


class UnsafeError(RefusedError):
    """Loading this file could run code."""


class IntegrityError(RefusedError):
    """Bytes differ from their digest, or a record from its chain."""


class ParityError(RefusedError):
    """The converted model's answers differ from the source model's."""


class UnauthenticatedError(InputError):
    """The caller gave no key, or a wrong one."""


class UnavailableError(ModelportError):
    """Not ready yet, overloaded, or shutting down."""


class DeadlineError(UnavailableError):
    """It took longer than it may."""


class ExhaustedError(UnavailableError):
    """There is no memory left for it."""


class PlatformError(ModelportError):
    """A platform refused a call, or failed; in its own words."""


class EngineError(ModelportError):
    """The engine failed while loading or running a model."""
