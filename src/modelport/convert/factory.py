"""The user's own code that makes a model, for files that hold its weights only."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelport.core.errors import InputError, NotFoundError
from modelport.core.source import Source


def call_factory(source: Source) -> Any:
    """Import ``source.factory`` and call it without arguments.

    The current folder and the file's are on the import path meanwhile.

    Raises
    ------
    NotFoundError
        When there is no such module or attribute.
    InputError
        When it cannot be called without arguments.
    """
    name, _, attribute = source.factory.partition(":")
    if not name or not attribute:
        raise InputError(f"not a factory: {source.factory!r}", hint="write module:Name")
    folders = [Path.cwd()]
    if source.path is not None and source.path.parent.is_dir():
        folders.append(source.path.parent.resolve())
    with _importable(name, [str(folder) for folder in folders]):
        factory = _find(name, attribute, folders)
        try:
            return factory()
        except Exception as error:  # the user's code raises whatever it likes
            raise InputError(
                f"the factory {source.factory} failed: {type(error).__name__}: {error}",
                hint="it is called without arguments: write a function that makes the model",
            ) from error


def _find(name: str, attribute: str, folders: list[Path]) -> Any:
    try:
        found: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            there = sorted({path.stem for folder in folders for path in folder.glob("*.py")})
            raise NotFoundError(
                "module of the factory",
                name,
                there,
                hint="it is looked for in the current folder, beside the file, and among the "
                "installed packages",
            ) from error
        raise InputError(
            f"the factory's module {name} needs {error.name}, which is not installed"
        ) from error
    except Exception as error:  # importing runs the user's code
        raise InputError(
            f"the factory's module {name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [n for n in vars(found) if not n.startswith("_")]
            raise NotFoundError(f"attribute of {name}", part, public)
        found = getattr(found, part)
    if not callable(found):
        raise InputError(
            f"the factory {name}:{attribute} is a {type(found).__name__}, and cannot be called",
            hint="name a class or a function",
        )
    return found


@contextlib.contextmanager
def _importable(name: str, folders: list[str]) -> Iterator[None]:
    """The folders on the import path, and their module found even if another has its name."""
    before = list(sys.path)
    sys.path[:0] = folders
    importlib.invalidate_caches()
    top = name.partition(".")[0]
    spec = importlib.machinery.PathFinder.find_spec(top, folders)
    known = sys.modules.get(top)
    if spec is not None and known is not None and getattr(known, "__file__", None) != spec.origin:
        for loaded in [m for m in sys.modules if m == top or m.startswith(f"{top}.")]:
            del sys.modules[loaded]
    try:
        yield
    finally:
        sys.path[:] = before
