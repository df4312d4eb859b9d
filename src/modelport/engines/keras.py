"""Keras models as they are, on TensorFlow and the CPU."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelport.core.errors import EngineError, UnsupportedError
from modelport.core.quiet import quiet_stderr
from modelport.core.signature import Signature
from modelport.core.tensors import NUMPY_DTYPES, STRING, Array, Tensors, TensorSpec
from modelport.engines.base import EngineOptions

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"
with quiet_stderr():
    import keras
    import tensorflow as tf
    from keras.src.export.export_utils import get_input_signature

_BATCH: Final = "N"
_ZIP: Final = b"PK"
#: What protocols and ONNX take in a name.
_UNUSABLE: Final = re.compile(r"[^\w.:/-]+")


class KerasEngine:
    """Executes ``.keras`` and whole-model ``.h5`` files; nothing that they name is imported."""

    def load(self, model: Path | bytes, options: EngineOptions) -> KerasModel:
        """See `modelport.engines.base.Engine.load`."""
        where = "" if isinstance(model, bytes) else str(model)
        _limit_threads(options.threads)
        try:
            content = model if isinstance(model, bytes) else model.read_bytes()
            return self.adopt(read_model(content), compiled=options.optimize)
        except (EngineError, UnsupportedError):
            raise
        except Exception as error:  # Keras raises whatever the file makes it stumble over
            raise EngineError(f"Keras cannot load the model: {error}", where=where) from error

    def adopt(self, model: Any, *, compiled: bool) -> KerasModel:
        """A model that is in memory already.

        Parameters
        ----------
        model : keras.Model
            Built.
        compiled : bool
            False calls it operator by operator, as written.

        Raises
        ------
        UnsupportedError
            When Keras runs on something else than TensorFlow in this process, or when the model
            has inputs or outputs that cannot be served.
        """
        if keras.config.backend() != "tensorflow":
            raise UnsupportedError(
                f"Keras runs on {keras.config.backend()} in this process, not on TensorFlow",
                hint="save the model as a .keras file, which does not depend on it, and give "
                "modelport the file",
            )
        return KerasModel(model, compiled=compiled)


def read_model(content: bytes) -> Any:
    """The model in a file's bytes, with weights and without its training configuration."""
    # Keras wants a path; nobody else can read this one.
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "model.keras" if content.startswith(_ZIP) else "model.h5")
        path.write_bytes(content)
        return keras.saving.load_model(path, compile=False, safe_mode=True)


class KerasModel:
    """A Keras model. Its answers are those at inference: dropout is off.

    Parameters
    ----------
    model : keras.Model
    compiled : bool
        Whether calls run a traced graph.
    """

    def __init__(self, model: Any, *, compiled: bool) -> None:
        self.model = model
        self._structure = _input_structure(model)
        leaves = keras.tree.flatten(self._structure)
        names = list(_unique(map(_usable, _input_names(model, self._structure))))
        inputs = [
            _spec(name, leaf.dtype, leaf.shape) for name, leaf in zip(names, leaves, strict=True)
        ]
        traced = tf.function(
            lambda *tensors: self._answer(list(tensors)),
            input_signature=[_tensor_spec(spec) for spec in inputs],
            autograph=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._signature = Signature(tuple(inputs), tuple(self._outputs(inputs, traced)))
        self._output_names = [spec.name for spec in self._signature.outputs]
        self._execute = traced if compiled else lambda *tensors: self._answer(list(tensors))

    @property
    def signature(self) -> Signature:
        """See `modelport.engines.base.LoadedModel.signature`."""
        return self._signature

    def call(self, tensors: list[Any]) -> list[Any]:
        """TensorFlow tensors in, TensorFlow tensors out, both in the signature's order."""
        return list(keras.tree.flatten(self._answer(tensors)))

    def _answer(self, tensors: list[Any]) -> Any:
        """The model's own structure of outputs."""
        packed = keras.tree.pack_sequence_as(self._structure, tensors)
        if _graph_of(self.model) is not None:
            return self.model(packed, training=False)
        # `get_input_signature` tells a subclass's arguments one by one.
        accepts = "training" in inspect.signature(self.model.call).parameters
        training = {"training": False} if accepts else {}
        return self.model(*packed, **training)

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """See `modelport.engines.base.LoadedModel.run`."""
        try:
            tensors = [_tensor(inputs[spec.name], spec) for spec in self._signature.inputs]
            answers = keras.tree.flatten(self._execute(*tensors))
            outputs = [value.numpy() for value in answers]
        except Exception as error:  # layers raise whatever they like
            raise EngineError(f"Keras failed: {_short(error)}") from error
        return {
            name: _decoded(value) if value.dtype == object else value
            for name, value in zip(self._output_names, outputs, strict=True)
        }

    def _outputs(self, inputs: list[TensorSpec], traced: Any) -> Iterator[TensorSpec]:
        known = self._known_outputs()
        if known is None:
            structure = traced.get_concrete_function().structured_outputs
            paths = keras.tree.flatten_with_path(structure)
            known = [(_output_name(path), value) for path, value in paths]
        taken = [spec.name for spec in inputs]
        names = list(_unique([*taken, *(_usable(name) for name, _ in known)]))[len(taken) :]
        for name, (_, value) in zip(names, known, strict=True):
            if value.shape is None or getattr(value.shape, "rank", 0) is None:
                raise UnsupportedError(f"output {name} has no known number of dimensions")
            yield _spec(name, value.dtype, tuple(value.shape))

    def _known_outputs(self) -> list[tuple[str, Any]] | None:
        """Names and symbolic values, where Keras knows them before a call."""
        graph = _graph_of(self.model)
        if graph is None:
            return None
        paths = keras.tree.flatten_with_path(graph._outputs_struct)
        return [(_leaf_name(path, value), value) for path, value in paths]


def _graph_of(model: Any) -> Any:
    """The functional model that it is, or that a sequential one holds; None for a subclass."""
    graph = model._functional if isinstance(model, keras.Sequential) else model
    return graph if hasattr(graph, "_inputs_struct") else None


def _input_structure(model: Any) -> Any:
    graph = _graph_of(model)
    if graph is not None:
        return graph._inputs_struct
    try:
        return get_input_signature(model)
    except (ValueError, TypeError) as error:
        raise UnsupportedError(
            f"nobody knows what {type(model).__name__} takes: it has not been called yet",
            hint="begin it with keras.Input(shape), or call it once before you save it",
        ) from error


def _input_names(model: Any, structure: Any) -> Iterator[str]:
    paths = keras.tree.flatten_with_path(structure)
    if _graph_of(model) is not None:
        yield from (_leaf_name(path, leaf) for path, leaf in paths)
        return
    arguments = [name for name in inspect.signature(model.call).parameters if name != "training"]
    for path, _ in paths:
        words = [str(part) for part in path[1:] if isinstance(part, str)]
        position = path[0] if path and isinstance(path[0], int) else 0
        yield words[-1] if words else arguments[min(position, len(arguments) - 1)]


def _leaf_name(path: tuple[Any, ...], leaf: Any) -> str:
    """A dictionary's key, else the name of the layer that the value comes from."""
    if path and isinstance(path[-1], str):
        return path[-1]
    history = getattr(leaf, "_keras_history", None)
    return str(history.operation.name if history is not None else leaf.name)


def _output_name(path: tuple[Any, ...]) -> str:
    """Of a subclass's output: a dictionary's key, else its place."""
    return (
        "_".join(["output", *map(str, path)])
        if not path or isinstance(path[-1], int)
        else (str(path[-1]))
    )


def _usable(name: str) -> str:
    return _UNUSABLE.sub("_", name).strip("_") or "tensor"


def _unique(names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        number, unique = 0, name
        while unique in seen:
            number += 1
            unique = f"{name}_{number}"
        seen.add(unique)
        yield unique


def _spec(name: str, dtype: Any, shape: Iterable[int | None]) -> TensorSpec:
    given = tf.as_dtype(dtype).name
    if given not in NUMPY_DTYPES:
        raise UnsupportedError(
            f"{name} has element type {given}, which cannot be served",
            hint="give the model's last layer dtype='float32'",
        )
    sizes = enumerate(shape)
    symbols = (_BATCH if a == 0 else f"{name}_{a}" if d is None else int(d) for a, d in sizes)
    return TensorSpec(name, given, tuple(symbols))


def _tensor_spec(spec: TensorSpec) -> Any:
    shape = [d if isinstance(d, int) else None for d in spec.shape]
    return tf.TensorSpec(shape, tf.string if spec.dtype == STRING else spec.dtype)


def _tensor(array: Array, spec: TensorSpec) -> Any:
    if spec.dtype == STRING:
        texts = [str(text).encode() for text in array.ravel()]
        return tf.reshape(tf.constant(texts, dtype=tf.string), array.shape)
    return tf.convert_to_tensor(array)


def _decoded(texts: Array) -> Array:
    decoded = np.empty(texts.shape, dtype=object)
    decoded.reshape(-1)[:] = [text.decode("utf-8", "replace") for text in texts.ravel()]
    return decoded


def _short(error: Exception) -> str:
    """The line that says it, of Keras' many: without colours, arguments and graph nodes."""
    text = re.sub(r"\x1b\[\d*m|\{\{[^}]*\}\}|\[Op:\w+\]", "", str(getattr(error, "message", error)))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Exception encountered when calling")]
    return next(iter(told or lines), type(error).__name__)


def _limit_threads(threads: int) -> None:
    """For the whole process, since TensorFlow has one pool; too late once it has run."""
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
