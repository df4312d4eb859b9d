"""The JSON in which Keras describes a model: what it would look up, call and read.

Written against ``serialization_lib.deserialize_keras_object`` (Keras 3.0 to 3.15) and its legacy
twin for HDF5 files. Every dictionary with a ``class_name`` is taken for one that Keras would make
an object of, wherever it is: Keras' classes pass their arguments on to deserializers of their own.
"""

from __future__ import annotations

import json
from typing import Any, Final

from modelport.core.errors import InputError, LimitError
from modelport.scan.base import Finding
from modelport.scan.keras.names import DENIED, VALUES, VOCABULARY, refusal

_MOST_FINDINGS: Final = 100
_NO_NAME: Final = "a name that is not text"
_LAMBDA: Final = "keras.layers.Lambda"


class ConfigWalk:
    """What one or more configurations would make Keras do.

    Attributes
    ----------
    names : dict of str to None
        Every class and function, in order of first appearance.
    findings : list of Finding
    """

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.findings: list[Finding] = []
        self._seen: set[tuple[str, str]] = set()

    def read(self, text: bytes | str, place: str, where: str) -> Any:
        """Parse a JSON document, walk it, and return it.

        Parameters
        ----------
        text : bytes or str
        place : str
            What to call the document in findings: ``config.json``.
        where : str
            The file, for errors.

        Raises
        ------
        InputError
            When it is not JSON.
        LimitError
            When it is nested too deep.
        """
        try:
            document = json.loads(text)
        except RecursionError:
            raise LimitError(f"{place} is nested too deep", where=where) from None
        except ValueError as error:
            raise InputError(
                f"{place} is not JSON, or truncated: {error}",
                where=where,
                hint="save the model again",
            ) from None
        self.walk(document, place)
        return document

    def walk(self, document: Any, place: str) -> None:
        """Visit every dictionary and list of a document; iterative, so no file exhausts it."""
        waiting: list[tuple[Any, str]] = [(document, place)]
        while waiting:
            part, at = waiting.pop()
            if isinstance(part, dict):
                if "class_name" in part:
                    self._object(part, at)
                self._function_of_a_lambda(part, at)
                self._path(part, at)
                entries: list[tuple[Any, Any]] = list(part.items())
            elif isinstance(part, list):
                entries = list(enumerate(part))
            else:
                continue
            for key, value in reversed(entries):
                if isinstance(value, dict | list):
                    waiting.append((value, f"{at}.{key}"))

    def _object(self, part: dict[str, Any], at: str) -> None:
        name, module = part["class_name"], part.get("module")
        if name in ("__typespec__", "TypeSpec"):
            name, module = part.get("spec_name", part.get("type_spec")), module or "tensorflow"
        elif isinstance(name, str) and name in VALUES:
            return
        elif name == "function":
            name = part.get("config")
        if not isinstance(name, str) or not isinstance(module, str | None):
            self._note("global", _NO_NAME, at, "Keras writes text here")
            return
        full = _full_name(module, name, part)
        self.names[full] = None
        registered = part.get("registered_name")
        if why := refusal(module, name):
            self._note("global", _LAMBDA if name in ("Lambda", "__lambda__") else full, at, why)
        elif registered not in (None, name, part["class_name"]):
            # Keras looks among the classes that were registered first.
            self._note("global", str(registered), at, "it stands for a class that is registered")

    def _function_of_a_lambda(self, part: dict[str, Any], at: str) -> None:
        """Before Keras 3 bytecode was a list beside ``function_type``."""
        kind = part.get("function_type")
        if kind is not None:
            why = DENIED["Lambda"] if kind == "lambda" else "it names a function to call"
            self._note("global", _LAMBDA, at, why)

    def _path(self, part: dict[str, Any], at: str) -> None:
        value = part.get(VOCABULARY)
        if isinstance(value, str):
            self._note("file", repr(value), f"{at}.{VOCABULARY}", "the layer would read that file")

    def _note(self, kind: str, what: str, at: str, why: str) -> None:
        if (kind, what) not in self._seen and len(self.findings) < _MOST_FINDINGS:
            self._seen.add((kind, what))
            self.findings.append(Finding(kind, what, at, why))


def _full_name(module: str | None, name: str, part: dict[str, Any]) -> str:
    """The name by which people let it pass: ``package.module.Class``."""
    if module:
        return f"{module}.{name}"
    registered = part.get("registered_name")
    return registered if isinstance(registered, str) and ">" in registered else name
