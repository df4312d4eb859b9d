"""A user's own network as a student: made, recognised, and converted when it has learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modelport.core.artifact import Artifact
from modelport.core.errors import InputError
from modelport.core.rows import Rows
from modelport.core.source import Source
from modelport.core.tensors import Tensors

if TYPE_CHECKING:
    from modelport.optimize.base import OwnStudent

_WHERE = "--student"


def own_student(student: Any) -> OwnStudent:
    """Make a student ready to be taught.

    Parameters
    ----------
    student : str, callable or object
        ``module:function``, or a function or class that is called without arguments, or the
        untrained network itself, which will then be changed.

    Raises
    ------
    InputError
        When the function fails, or there is no network that can be taught.
    NotFoundError, MissingPackageError
    """
    from modelport.optimize.base import OwnStudent
    from modelport.optimize.teachers.base import is_network, teacher_of

    if isinstance(student, str):
        network, name = _of_module(student), student.partition(":")[2]
    elif callable(student) and not is_network(student):
        name = getattr(student, "__name__", type(student).__name__)
        network = _called(student, name)
    else:
        network, name = student, type(student).__name__
    teacher_of(network)
    return OwnStudent(name, network, _converted)


def _of_module(name: str) -> Any:
    from modelport.convert.factory import call_factory

    try:
        return call_factory(Source("student", factory=name))
    except InputError as error:
        error.where = _WHERE
        raise


def _called(function: Callable[[], Any], name: str) -> Any:
    try:
        return function()
    except Exception as error:  # the user's code raises whatever it likes
        raise InputError(
            f"{name} failed: {type(error).__name__}: {error}",
            where="student",
            hint="it is called without arguments, and returns the network",
        ) from error


def _converted(network: Any, rows: Tensors, report: Callable[[str], None]) -> Artifact:
    from modelport.convert.stage import convert
    from modelport.scan.stage import audit

    return convert(audit(Source.of(network)), Rows(dict(rows)), progress=report)
