"""From a Keras file to a model in memory, without running anything that the file brings."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

# Before Keras: it keeps TensorFlow quiet, and chooses it.
from modelport.convert.graphs.tensorflow import REQUESTED_BACKEND

# isort: split
import h5py
import keras

from modelport.adapters import find_adapter
from modelport.convert.factory import call_factory
from modelport.convert.frameworks.keras.model import KerasSource
from modelport.core.errors import InputError, UnsafeError, UnsupportedError
from modelport.core.source import Source

_ZIP: Final = b"PK"
_FACTORY_HINT: Final = (
    "name a function that builds the model: --factory module:function; the weights are loaded "
    "into what it returns"
)


def load(source: Source) -> KerasSource:
    """See `modelport.convert.base.Framework.load`."""
    engine: Any = find_adapter("engine", "keras").load()
    notes = []
    if REQUESTED_BACKEND not in ("", "tensorflow"):
        notes.append(
            f"KERAS_BACKEND is {REQUESTED_BACKEND}; the source's answers are those of Keras on "
            "TensorFlow"
        )
    content = b""
    if source.path is None:
        model, loss = source.model, getattr(source.model, "loss", None)
    else:
        model, loss = _read(source), _loss_of(source.content)
        content = b"" if source.factory else source.content
    return KerasSource(
        source.name,
        engine.adopt(model, compiled=False),
        content if content.startswith(_ZIP) else b"",
        loss if isinstance(loss, str) else "",
        tuple(notes),
    )


def _read(source: Source) -> Any:
    """Build the model, or let the factory build it, and load the weights."""
    name, content = source.name, source.content
    holds_model = content.startswith(_ZIP) or _holds_configuration(content, name)
    if source.factory:
        return _with_weights(source, call_factory(source), holds_model)
    if not holds_model:
        raise UnsupportedError(
            "the file holds weights only: what is missing is the model that they belong to",
            where=name,
            hint=_FACTORY_HINT,
        )
    prepared = content if content.startswith(_ZIP) else _for_keras_3(content)
    try:
        return _load(prepared)
    except Exception as error:  # Keras raises whatever the file makes it stumble over
        raise _explain(error, name) from error


def _load(content: bytes) -> Any:
    suffix = ".keras" if content.startswith(_ZIP) else ".h5"
    with _file(content, suffix) as path, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return keras.saving.load_model(path, compile=False, safe_mode=True)


def _with_weights(source: Source, model: Any, holds_model: bool) -> Any:
    if not isinstance(model, keras.Model):
        raise InputError(
            f"the factory {source.factory} makes a {type(model).__name__}, not a Keras model",
            where=source.name,
        )
    if not model.built:
        raise InputError(
            f"the model of the factory {source.factory} has no weights yet to load into",
            where=source.name,
            hint="begin the model with keras.Input(shape), or call it once in the factory",
        )
    if source.content.startswith(_ZIP):
        suffix = ".keras"
    else:
        legacy = holds_model or _is_legacy(source.content)
        suffix = ".h5" if legacy else ".weights.h5"
    try:
        with _file(source.content, suffix) as path, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.load_weights(path)
    except Exception as error:  # Keras raises whatever the file makes it stumble over
        raise InputError(
            f"the weights do not fit the model of {source.factory}: {_first_line(error)}",
            where=source.name,
        ) from error
    return model


def _explain(error: Exception, name: str) -> Exception:
    text = str(error)
    if re.search(r"\blambda\b", text, re.IGNORECASE):
        return UnsafeError(
            "the model has a Lambda layer: Python code inside the file, which loading would run",
            where=name,
            hint=f"replace the Lambda by a layer of keras.layers, or {_FACTORY_HINT}",
        )
    for pattern in (
        r"Could not locate (?:class|function|object) '([^']+)'",
        r"Unknown (?:layer|object|initializer|activation function|regularizer|constraint): "
        r"'?([\w.>]+)'?",
        r"Could not deserialize (?:class|function) '([^']+)'",
        r"Could not interpret \w+ identifier: (\S+)",
    ):
        if found := re.search(pattern, text):
            return UnsupportedError(
                f"the model needs {found[1]}, which is not part of Keras: the file has its name "
                "and not its code",
                where=name,
                hint="register it (@keras.saving.register_keras_serializable()) and "
                + _FACTORY_HINT,
            )
    return InputError(f"Keras cannot load the model: {_first_line(error)}", where=name)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _holds_configuration(content: bytes, name: str) -> bool:
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            return "model_config" in file.attrs
    except OSError as error:
        raise InputError(f"the file is not HDF5: {error}", where=name) from error


def _is_legacy(content: bytes) -> bool:
    with h5py.File(io.BytesIO(content), "r") as file:
        return "layer_names" in file.attrs


def _for_keras_3(content: bytes) -> bytes:
    """Leave out arguments of Keras 2 that have no meaning any more and stop Keras 3."""
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r") as file:
        text = file.attrs["model_config"]
    written = text.decode() if isinstance(text, bytes) else text
    configuration = json.loads(written)
    if not _modernise(configuration):
        return content
    with h5py.File(buffer, "r+") as file:
        file.attrs["model_config"] = json.dumps(configuration)
    return buffer.getvalue()


def _modernise(node: Any) -> bool:
    """Edit a configuration in place; whether there was anything to edit."""
    changed = False
    if isinstance(node, dict):
        inner = node.get("config")
        if isinstance(inner, dict):
            drop = ["time_major"] if inner.get("time_major") is False else []
            if node.get("class_name") == "DepthwiseConv2D" and inner.get("groups") == 1:
                drop.append("groups")
            for key in drop:
                del inner[key]
            changed = bool(drop)
        for value in node.values():
            changed = _modernise(value) or changed
    elif isinstance(node, list):
        for value in node:
            changed = _modernise(value) or changed
    return changed


def _loss_of(content: bytes) -> Any:
    """The loss that the model was trained with, where the file tells; it is never built."""
    with contextlib.suppress(KeyError, ValueError, TypeError, OSError):
        if content.startswith(_ZIP):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return json.loads(archive.read("config.json"))["compile_config"]["loss"]
        with h5py.File(io.BytesIO(content), "r") as file:
            text = file.attrs["training_config"]
        return json.loads(text)["loss"]
    return None


@contextlib.contextmanager
def _file(content: bytes, suffix: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"model{suffix}")
        path.write_bytes(content)
        yield str(path)
