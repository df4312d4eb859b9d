"""MLflow's model folders: an ``MLmodel`` file, and the model in one or more flavors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from modelport.core.errors import InputError, UnsupportedError
from modelport.core.source import Source
from modelport.scan.archives.members import inner_source
from modelport.scan.archives.mlmodel import Flavors, read_flavors
from modelport.scan.archives.zip_archive import name_problem
from modelport.scan.base import Opened, ScanReport

_FILE: Final = "MLmodel"


@dataclass(frozen=True)
class _Flavor:
    """Where a flavor keeps its model.

    Parameters
    ----------
    keys : tuple of str
        Of the flavor's entries, the ones that may name it.
    inside : tuple of str
        If that is a folder: the files or folders in it that may be the model.
    """

    keys: tuple[str, ...] = ("data",)
    inside: tuple[str, ...] = ()


_KERAS: Final = ("model.keras", "model.h5", "model")
#: In order of preference: the formats that cannot run code first.
_FLAVORS: Final[Mapping[str, _Flavor]] = {
    "onnx": _Flavor(),
    "xgboost": _Flavor(),
    "lightgbm": _Flavor(),
    "catboost": _Flavor(),
    "keras": _Flavor(inside=_KERAS),
    "tensorflow": _Flavor(("saved_model_dir", "data"), _KERAS),
    "pytorch": _Flavor(("model_data", "data"), ("model.pt2", "model.pth", "model.pt")),
    "sklearn": _Flavor(("pickled_model", "data")),
}
_CUSTOM: Final = "mlflow.pyfunc.model"


class MlflowContainer:
    """Reads ``MLmodel`` for the flavors, and takes the first that can be converted."""

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Container.recognises`."""
        return source.is_folder and _FILE in source.files

    def open(self, source: Source) -> Opened:
        """See `modelport.scan.base.Container.open`."""
        where = str(source.path)
        flavors = read_flavors(source.files[_FILE], where)
        name = next((name for name in _FLAVORS if name in flavors), "")
        if not name:
            raise _refusal(flavors, where)
        member = _member(source, flavors[name], _FLAVORS[name], where)
        return Opened(
            ScanReport("mlflow"),
            inner_source(source, source.files, member),
            tuple(_notes(source, flavors, name)),
        )


def _member(source: Source, entries: Mapping[str, str], flavor: _Flavor, where: str) -> str:
    named = next((entries[key] for key in flavor.keys if entries.get(key)), "")
    if not named or name_problem(named):
        raise InputError(
            f"{_FILE} does not say where the model is"
            if not named
            else f"{_FILE} names a model outside of its folder: {named!r}",
            where=where,
        )
    named = named.rstrip("/")
    if named in source.files or not flavor.inside:
        return named
    for inside in flavor.inside:
        member = f"{named}/{inside}"
        if member in source.files or any(f.startswith(f"{member}/") for f in source.files):
            return member
    return named


def _refusal(flavors: Flavors, where: str) -> UnsupportedError:
    if flavors.get("python_function", {}).get("loader_module") == _CUSTOM:
        return UnsupportedError(
            "an MLflow model of Python code (mlflow.pyfunc.PythonModel): what it does is in the "
            "code, and cannot be converted",
            where=where,
            hint="save the model inside it with its own flavor, and pack that",
        )
    return UnsupportedError(
        f"no flavor of this MLflow model can be converted; it has: {', '.join(sorted(flavors))}",
        where=where,
        hint=f"modelport converts the flavors {', '.join(_FLAVORS)}",
    )


def _notes(source: Source, flavors: Flavors, name: str) -> list[str]:
    notes = []
    others = sorted(set(flavors) - {name, "python_function"})
    if others:
        notes.append(f"of the MLflow flavors {name} is used, and {', '.join(others)} is not")
    code = next((e["code"] for e in flavors.values() if e.get("code")), "")
    if code:
        notes.append(f"the code that MLflow would import from {code}/ is not used")
    if name == "sklearn" and flavors[name].get("serialization_format") == "cloudpickle":
        notes.append("MLflow saved it with cloudpickle; functions inside it cannot be read")
    return notes
