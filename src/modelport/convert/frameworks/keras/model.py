"""A Keras model as a source: its answers, and the ways to export it."""

from __future__ import annotations

import importlib.metadata
import io
import json
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import keras
import onnx
import tensorflow as tf

from modelport.convert.base import Attempt, Export, Probe
from modelport.convert.frameworks.keras.watching import watched_layers
from modelport.convert.graphs.tensorflow import OPSETS, export_function, finish, rename
from modelport.convert.proof.noise import STEPS, own_error
from modelport.convert.proof.special_values import refuse_where_different
from modelport.convert.tensor_models import integer_limits, made_up_rows, other_sizes
from modelport.core.errors import EngineError, InputError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.tensors import STRING, Array

_REGRESSION_LOSSES: Final = (
    "mse", "mean_squared_error", "mae", "mean_absolute_error", "mape",
    "mean_absolute_percentage_error", "msle", "mean_squared_logarithmic_error", "huber",
    "log_cosh", "poisson",
)  # fmt: skip
#: The oldest time that a zip archive can tell.
_NO_TIME: Final = (1980, 1, 1, 0, 0, 0)


class KerasSource:
    """A Keras model in memory.

    Parameters
    ----------
    name : str
        The source's.
    loaded : modelport.engines.keras.KerasModel
        Calls the model operator by operator.
    content : bytes
        The ``.keras`` file that it came from; empty where there is none.
    loss : str
        That it was trained with, where it is known.
    notes : tuple of str
    """

    def __init__(
        self, name: str, loaded: Any, content: bytes, loss: str, notes: tuple[str, ...]
    ) -> None:
        self._name = name
        self._loaded = loaded
        self._model = loaded.model
        self._content = content
        self._loss = loss
        computing = {str(layer.compute_dtype) for layer in self._model._flatten_layers()}
        self._computes_in = max(computing & STEPS.keys(), key=STEPS.__getitem__, default="float32")
        if self._computes_in != "float32":
            notes = (*notes, f"layers compute in {self._computes_in}: the answers are that exact")
        self._notes = notes

    @property
    def task(self) -> str:
        """``classification``, ``regression`` or ``unknown``.

        Classification only where there is no doubt: one output of one row per sample that ends
        in a softmax over at least two units, or in one sigmoid unit. Several sigmoid units may
        be labels or the pixels of an image, and no activation may be anything, except where the
        loss of the training tells.
        """
        outputs = self._loaded.signature.outputs
        if len(outputs) != 1 or len(outputs[0].shape) != 2:
            return "unknown"
        units, activation = outputs[0].shape[1], _last_activation(self._model)
        if (activation == "softmax" and units != 1) or (activation == "sigmoid" and units == 1):
            return "classification"
        return "regression" if self._loss.lower() in _REGRESSION_LOSSES else "unknown"

    @property
    def framework_version(self) -> str:
        """See `modelport.convert.base.SourceModel.framework_version`."""
        return f"Keras {keras.__version__} on TensorFlow {tf.__version__}"

    @property
    def notes(self) -> tuple[str, ...]:
        """See `modelport.convert.base.SourceModel.notes`."""
        return self._notes

    def predict(self, rows: Rows) -> dict[str, Array]:
        """See `modelport.convert.base.SourceModel.predict`; at inference, dropout is off."""
        try:
            answers: dict[str, Array] = self._loaded.run(rows.bind(self._loaded.signature))
        except EngineError as error:
            raise InputError(f"the source model refuses the rows: {error.message}") from error
        return answers

    def layers(self, rows: Rows) -> list[tuple[str, Array]]:
        """See `modelport.convert.base.Inspectable.layers`."""
        with watched_layers(self._model) as seen:
            self.predict(rows)
        return seen

    def own_error(self, rows: Rows) -> Mapping[str, float]:
        """See `modelport.convert.base.Inexact.own_error`."""
        return own_error(self.predict, rows, self._computes_in)

    def attempts(self, rows: Rows | None) -> Sequence[Attempt]:
        """tf2onnx first, then Keras' own export.

        Both end in tf2onnx. The first one keeps the names, the free sizes and the constants that
        layers capture; Keras' own traces the model in another way, and carries repairs of tf2onnx.
        """
        self._refuse_texts()
        return [
            *(
                Attempt(f"tf2onnx opset {opset}", partial(self._with_tf2onnx, opset, rows))
                for opset in OPSETS
            ),
            Attempt("Keras export", partial(self._with_keras, rows)),
        ]

    def _refuse_texts(self) -> None:
        """A model of texts has one way to ONNX or none: say here what to do about none."""
        if all(spec.dtype != STRING for spec in self._loaded.signature.inputs):
            return
        try:
            self._with_tf2onnx(OPSETS[0], None)
        except UnsupportedError as error:
            raise UnsupportedError(
                f"the model works on texts inside: {error.message}",
                where=self._name,
                hint="leave the layer that reads texts out of the model and give the model its "
                "numbers; or package the model as it is, with --engine native",
            ) from error

    def _with_tf2onnx(self, opset: int, rows: Rows | None) -> Export:
        export = export_function(self._loaded.call, self._model, self._loaded.signature, opset)
        return refuse_where_different(export, self, rows)

    def _with_keras(self, rows: Rows | None) -> Export:
        signature = self._loaded.signature
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = Path(folder, "model.onnx")
            self._model.export(path, format="onnx", verbose=False)
            model = onnx.load(path)
        given = [value.name for value in (*model.graph.input, *model.graph.output)]
        wanted = [spec.name for spec in (*signature.inputs, *signature.outputs)]
        rename(model.graph, dict(zip(given, wanted, strict=True)))
        export = finish(model, signature, f"Keras {keras.__version__}")
        return refuse_where_different(export, self, rows)

    def native(self, rows: Rows | None) -> Attempt | None:
        """The ``.keras`` file, to be run by Keras."""
        return Attempt("Keras as it is", partial(self._as_it_is, rows))

    def _as_it_is(self, rows: Rows | None) -> Export:
        content = self._content or _saved(self._model)
        if custom := sorted(set(_custom_objects(content))):
            raise UnsupportedError(
                f"the server does not have your code for {', '.join(custom)}",
                where=self._name,
                hint="leave out --engine native: an ONNX export needs no code",
            )
        export = Export(
            model=content,
            signature=self._loaded.signature,
            exporter=f"Keras {keras.__version__}",
            opset={},
            notes=(
                "Keras and TensorFlow run this model when it is served: "
                f"{_installed_megabytes()} MB installed",
            ),
            engine="keras",
            file_name="model.keras",
        )
        # The compiled graph fuses operators, whose answers to NaN and infinity may be others.
        return refuse_where_different(export, self, rows)

    def made_up_rows(self) -> Rows | None:
        """Normally distributed numbers, or identifiers where the model embeds them."""
        sizes = [layer.input_dim for layer in _embeddings(self._model)]
        return made_up_rows(self._loaded.signature, self.predict, min(sizes, default=0))

    def probes(self, rows: Rows) -> Sequence[Probe]:
        """Other sizes, and identifiers at the limits of an embedding."""
        signature = self._loaded.signature
        probes = other_sizes(rows, signature)
        for layer in _embeddings(self._model):
            fed = _input_of(layer, self._model, [spec.name for spec in signature.inputs])
            if fed:
                probes.append(integer_limits(rows, fed, layer.input_dim))
        return probes


def _last_activation(model: Any) -> str:
    layers = getattr(model, "layers", [])
    if not layers:
        return ""
    last = layers[-1]
    if hasattr(model, "_outputs_struct"):
        last = keras.tree.flatten(model.outputs)[0]._keras_history.operation
    if isinstance(last, keras.Model):
        return _last_activation(last)
    if isinstance(last, keras.layers.Softmax):
        return "softmax"
    return str(getattr(getattr(last, "activation", None), "__name__", ""))


def _embeddings(model: Any) -> list[Any]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Embedding)]


def _input_of(layer: Any, model: Any, names: list[str]) -> str:
    """The model's input that an embedding takes as it is; empty where it is another tensor."""
    if len(names) == 1:
        return names[0] if layer in model.layers[:2] else ""
    try:
        origin = layer.input._keras_history.operation
    except (AttributeError, ValueError):
        return ""
    return origin.name if origin.name in names else ""


def _saved(model: Any) -> bytes:
    """A ``.keras`` file of the model without times, so that the same model gives the same bytes."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "model.keras")
        model.save(path)
        content = path.read_bytes()
    timeless = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(timeless, "w") as new:
        for name in sorted(old.namelist()):
            data = old.read(name)
            if name == "metadata.json":
                facts = json.loads(data)
                facts.pop("date_saved", None)
                data = json.dumps(facts).encode()
            new.writestr(zipfile.ZipInfo(name, _NO_TIME), data)
    return timeless.getvalue()


def _custom_objects(content: bytes) -> Iterator[str]:
    """Names of registered classes and functions that are not Keras' own."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        stack: list[Any] = [json.loads(archive.read("config.json"))]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            module = node.get("module")
            if node.get("registered_name") and not str(module or "").startswith("keras"):
                yield str(node.get("class_name") if module != "builtins" else node.get("config"))
            stack += [v for k, v in node.items() if k not in ("compile_config", "build_config")]
        elif isinstance(node, list):
            stack += node


def _installed_megabytes() -> int:
    """Of Keras and TensorFlow, as their installers recorded it."""
    owners = importlib.metadata.packages_distributions()
    names = {name for package in ("keras", "tensorflow") for name in owners.get(package, ())}
    files = [f for name in sorted(names) for f in importlib.metadata.files(name) or ()]
    return round(sum(file.size or 0 for file in files) / 1e6)
