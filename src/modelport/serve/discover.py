"""What a folder or file holds that can be served, and where clients may load models from."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from modelport.core.errors import InputError, ModelportError, NotFoundError
from modelport.core.manifest import check_name
from modelport.core.package import is_package, open_package
from modelport.serve.base import ModelSpec
from modelport.serve.platforms import Detected, wait_for_models
from modelport.serve.table import Finder

MODELS_VARIABLE: Final = "MODELPORT_MODELS"

#: A platform unpacks an archive into a folder of its own, and the archive may hold another; TF
#: Serving's layout is ``NAME/VERSION``.
_DEEPEST: Final = 3

_log = logging.getLogger(__name__)


def models_in(path: Path) -> list[ModelSpec]:
    """The models that a path holds: a package, an ``.onnx`` file, or a folder of these.

    In a folder ``NAME/VERSION`` with a whole number for the version, as TF Serving has them, the
    number is the version. Other versions are 1; see `numbered`.

    Raises
    ------
    NotFoundError
        When there is nothing of the kind.
    """
    found = list(_search(path, _DEEPEST))
    if not found and path.suffix == ".onnx":
        raise NotFoundError("model file", str(path), [p.name for p in path.parent.glob("*.onnx")])
    if not found:
        raise NotFoundError(
            "package",
            str(path),
            [p.name for p in path.parent.glob("*") if is_package(p)] if not path.exists() else (),
            hint="a package is a folder made by 'modelport pack'",
        )
    return found


def models_here(
    environment: Mapping[str, str], detected: Detected, *, none_needed: bool = False
) -> list[ModelSpec]:
    """The models of this machine, where nobody names any.

    Parameters
    ----------
    environment : mapping
        ``MODELPORT_MODELS`` lists paths, separated as in ``PATH``.
    detected : Detected
        What the platform says; its first place with a model in it is taken.
    none_needed : bool
        Clients load models themselves, so that there may be none.

    Raises
    ------
    InputError
        Naming the places that were looked at.
    """
    listed = environment.get(MODELS_VARIABLE, "")
    if listed:
        return numbered([s for text in listed.split(os.pathsep) for s in models_in(Path(text))])
    for path in detected.models:
        wait_for_models(path, environment)
        if found := _search(path, _DEEPEST):
            return numbered(found)
    if none_needed:
        return []
    looked = ", ".join(str(path) for path in detected.models)
    raise InputError(
        "no model is named" + (f", and there is none in {looked}" if looked else ""),
        hint=f"name a package folder, or set {MODELS_VARIABLE}",
    )


def _search(path: Path, depth: int) -> Sequence[ModelSpec]:
    if is_package(path):
        version = int(path.name) if path.name.isdecimal() and len(path.name) < 19 else 1
        package = open_package(path)
        name = package.manifest.name
        return [ModelSpec(name, max(1, version), str(path), digest=package.digest)]
    if path.suffix == ".onnx" and path.is_file():
        return [ModelSpec(check_name(path.stem.lower().replace(" ", "-")), 1, str(path))]
    if depth == 0 or not path.is_dir():
        return []
    return [spec for child in _children(path) for spec in _search(child, depth - 1)]


def _sound(path: Path, depth: int) -> list[ModelSpec]:
    """As `_search`, without what is damaged: it must not hide the models beside it."""
    if depth and path.is_dir() and not is_package(path):
        return [spec for child in _children(path) for spec in _sound(child, depth - 1)]
    try:
        return list(_search(path, 0))
    except ModelportError as error:
        _log.warning("left out of the model store: %s", error.line)
        return []


def _children(folder: Path) -> list[Path]:
    # Hidden folders are what Kubernetes and editors leave beside the real ones.
    return sorted(child for child in folder.iterdir() if not child.name.startswith("."))


def numbered(specs: Sequence[ModelSpec], others: Sequence[ModelSpec] = ()) -> list[ModelSpec]:
    """Give models of one name versions of their own, beside `others`, in the order given."""
    chosen: list[ModelSpec] = []
    for spec in specs:
        taken = {other.version for other in (*others, *chosen) if other.name == spec.name}
        version = spec.version if spec.version not in taken else max(taken) + 1
        chosen.append(replace(spec, version=version))
    return chosen


def renamed(specs: Sequence[ModelSpec], name: str) -> list[ModelSpec]:
    """Have clients call the first model `name`, in all its versions; an empty name: as it is."""
    if not (name and specs):
        return list(specs)
    first = specs[0].name
    return numbered([replace(s, name=name) if s.name == first else s for s in specs])


def find_in_store(store: str, otherwise: Finder | None = None) -> Finder:
    """How models are found that clients want to load.

    Parameters
    ----------
    store : str
        The folder that they may come from; nothing outside is ever opened. Empty: none.
    otherwise : callable, optional
        Asked for names that the store does not have.
    """
    folder = Path(store).expanduser().resolve() if store else None

    def find(name: str, place: str) -> list[ModelSpec]:
        if place:
            return renamed(_all_inside(folder, models_in(_inside(folder, place))), name)
        if folder is not None:
            inside = _inside(folder, name)
            if inside.is_dir() and inside != folder:
                return renamed(_all_inside(folder, models_in(inside)), name)
            named = [spec for spec in _sound(folder, _DEEPEST) if spec.name == name]
            if named:
                return numbered(_all_inside(folder, named))
        if otherwise is not None:
            return list(otherwise(name, ""))
        known = sorted({spec.name for spec in _sound(folder, _DEEPEST)}) if folder else []
        raise NotFoundError("model in the store", name, known)

    return find


def _inside(folder: Path | None, place: str) -> Path:
    """A path that a client gave, if it is within the store, also when links are followed."""
    if folder is None:
        raise InputError(
            f"a model cannot be loaded from {place!r}: this server has no model store",
            hint="start it with --model-store DIR",
        )
    try:
        path = (folder / place.removeprefix("file://")).resolve()
        path.exists()
    # Names with NUL, or longer than any; links that go round in a circle.
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{place[:80]!r} is no path: {error}") from error
    if not path.is_relative_to(folder):
        raise InputError(f"{place!r} is outside the model store", hint="see --model-store")
    return path


def _all_inside(folder: Path | None, specs: Sequence[ModelSpec]) -> Sequence[ModelSpec]:
    """Packages, unless a link among their files, or to one of them, leaves the store."""
    for spec in specs:
        path = Path(spec.path)
        for file in (path, *path.rglob("*")):
            if folder is not None:
                _inside(folder, str(file))
    return specs
