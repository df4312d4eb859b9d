"""What TensorFlow Serving says about models, over REST and over gRPC alike.

Source: ``tensorflow/serving`` (``get_model_status_impl.cc``, ``server_core.cc``) at the time of
TF Serving 2.21.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from modelport.core.errors import InputError, ModelportError, NotFoundError
from modelport.serve.base import Place
from modelport.serve.models import ServedModel, State
from modelport.serve.table import ModelTable

SIGNATURE_NAME: Final = "serving_default"
PREDICT: Final = "tensorflow/serving/predict"
CLASSIFY: Final = "tensorflow/serving/classify"
REGRESS: Final = "tensorflow/serving/regress"

#: ``tensorflow.error.Code``: the numbers of gRPC's status codes.
CODES: Final = {
    "OK": 0,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "RESOURCE_EXHAUSTED": 8,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}

_MOST_VERSION: Final = 2**63 - 1


def version_of(text: str) -> str | None:
    """The version that a client names; None: whichever is served.

    Version 0 is what OpenVINO's clients send for that, and no model of ours has it: versions
    count from 1.

    Raises
    ------
    InputError
        When it is no 64-bit integer.
    """
    digits = text.lstrip("0")
    if len(digits) > 19 or (digits and int(digits) > _MOST_VERSION):
        raise InputError(f"Failed to convert version: {text[:40]} to numeric.")
    return digits or None


def check_signature_name(name: Any) -> None:
    """Check the name of a signature; every model here has one.

    Raises
    ------
    InputError
    """
    if not isinstance(name, str):
        raise InputError("not formatted correctly. 'signature_name' key must be a string value.")
    if name not in ("", SIGNATURE_NAME):
        raise InputError(
            f'Serving signature name: "{name[:80]}" not found in signature def; '
            f"there is: {SIGNATURE_NAME}"
        )


def asked_models(table: ModelTable, place: Place) -> Sequence[ServedModel]:
    """The versions that a question for the status is about.

    A label is not resolved: as in TF Serving, all versions are told.

    Raises
    ------
    NotFoundError
    """
    if place.version:
        return [table.get(place.model, place.version)]
    return table.versions(place.model)


def error_code(model: ServedModel) -> str:
    """The name of the code in a version's status."""
    return "INTERNAL" if model.state is State.END and model.error else "OK"


def say(error: ModelportError, *, status: bool) -> str:
    """An error in TF Serving's words, where it has some.

    Parameters
    ----------
    error : ModelportError
    status : bool
        The client asked for a model's status, not for the model.
    """
    if not isinstance(error, NotFoundError):
        return error.line
    what, name = error.what, error.name
    _, there, known = error.message.rpartition("; there is")
    known = known if there else ""
    if what == "model":
        said = (
            f"Could not find any versions of model {name}"
            if status
            else f"Servable not found for request: Latest({name})"
        )
    elif what.startswith("version of model "):
        model = what.removeprefix("version of model ")
        said = (
            f"Could not find version {name} of model {model}"
            if status
            else f"Servable not found for request: Specific({model}, {name})"
        )
    elif is_unknown_label(error):
        said = f"Unrecognized servable version label: {name}"
    else:
        return error.line
    return said + there + known


def is_unknown_label(error: ModelportError) -> bool:
    """Whether a label names no version: TF Serving calls that an invalid argument."""
    return isinstance(error, NotFoundError) and error.what.startswith("label")
