"""A SavedModel as a source: one signature of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

# Before TensorFlow: it keeps it quiet.
from modelport.convert.graphs.tensorflow import OPSETS, calm, dtype_of, export_function

# isort: split
import tensorflow as tf

from modelport.convert.base import Attempt, Export, Probe
from modelport.convert.proof.noise import own_error
from modelport.convert.proof.special_values import refuse_where_different
from modelport.convert.tensor_models import made_up_rows, other_sizes, spec_with_symbols
from modelport.core.errors import InputError, NotFoundError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.source import Source
from modelport.core.tensors import STRING, Array, TensorSpec

_DEFAULT: Final = "serving_default"
_GRAPH: Final = "saved_model.pb"
_BATCH: Final = "N"
#: TensorFlow's own signature, without outputs.
_INITIALISER: Final = "__saved_model_init_op"


def load(source: Source) -> SavedModelSource:
    """See `modelport.convert.base.Framework.load`.

    Raises
    ------
    UnsupportedError
        When TensorFlow lacks an operator, or nobody can tell which signature is meant.
    """
    files = dict(source.files)
    if _GRAPH in files:
        files[_GRAPH] = _without_optimizer(files[_GRAPH], source.name)
    with tempfile.TemporaryDirectory() as folder, calm():
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            model = tf.saved_model.load(folder)
        except Exception as error:  # TensorFlow has several roots of errors
            raise _explain(error, source.name) from error
    name, function = _choose(dict(model.signatures), source.signature, source.name)
    return SavedModelSource(source.name, model, name, function)


def _without_optimizer(content: bytes, name: str) -> bytes:
    """Leave out the optimizer's variables.

    A Keras 2 optimizer is a class that is not there any more, and without it TensorFlow fails
    to load the model: ``'_UserObject' object has no attribute 'add_slot'``.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved = saved_model_pb2.SavedModel.FromString(content)
    except Exception as error:  # protobuf's DecodeError moves between its versions
        raise InputError(f"{_GRAPH} is damaged: {error}", where=name) from error
    for meta_graph in saved.meta_graphs:
        for node in meta_graph.object_graph_def.nodes:
            del node.slot_variables[:]
    return bytes(saved.SerializeToString(deterministic=True))


def _explain(error: Exception, name: str) -> InputError:
    text = " ".join(str(error).split())
    if found := re.search(r"Op type not registered '(\w+)'", text):
        return UnsupportedError(
            f"the model uses the operator {found[1]}, which TensorFlow {tf.__version__} does not "
            "have",
            where=name,
            hint="it comes from an add-on (tensorflow_text, tensorflow_decision_forests): leave "
            "that step out of the model that is served",
        )
    return InputError(f"TensorFlow cannot load the model: {text[:300]}", where=name)


def _choose(signatures: Mapping[str, Any], wanted: str, where: str) -> tuple[str, Any]:
    names = sorted(name for name in signatures if name != _INITIALISER)
    if not names:
        raise UnsupportedError(
            "the SavedModel has no signature",
            where=where,
            hint="save it with model.export(folder) or tf.saved_model.save(model, folder, "
            "signatures=function.get_concrete_function(...))",
        )
    if wanted:
        if wanted not in names:
            raise NotFoundError("signature", wanted, names, where=where)
        return wanted, signatures[wanted]
    if _DEFAULT in names:
        return _DEFAULT, signatures[_DEFAULT]
    if len(names) > 1:
        raise UnsupportedError(
            f"the SavedModel has {len(names)} signatures and none is {_DEFAULT}: "
            + ", ".join(names),
            where=where,
            hint=f"choose one: --signature {names[0]}",
        )
    return names[0], signatures[names[0]]


class SavedModelSource:
    """A signature of a SavedModel.

    Parameters
    ----------
    name : str
        The source's.
    model : trackable
        Owns the variables.
    signature_name : str
    function : ConcreteFunction
    """

    def __init__(self, name: str, model: Any, signature_name: str, function: Any) -> None:
        self._name = name
        self._model = model
        self._function = function
        self._others = sorted({*model.signatures} - {signature_name, _INITIALISER})
        self._signature_name = signature_name
        self._inputs = {_usable(key): key for key in sorted(function.structured_input_signature[1])}
        self._outputs = {_usable(key): key for key in sorted(function.structured_outputs)}
        self._signature = self._describe()

    @property
    def task(self) -> str:
        """``unknown``: a SavedModel does not tell."""
        return "unknown"

    @property
    def framework_version(self) -> str:
        """See `modelport.convert.base.SourceModel.framework_version`."""
        saved_with = getattr(self._model, "tensorflow_version", "")
        return f"TensorFlow {tf.__version__}" + (f", saved by {saved_with}" if saved_with else "")

    @property
    def notes(self) -> tuple[str, ...]:
        """Which of several signatures was taken."""
        if not self._others:
            return ()
        return (f"signature {self._signature_name}; left out: {', '.join(self._others)}",)

    def predict(self, rows: Rows) -> dict[str, Array]:
        """See `modelport.convert.base.SourceModel.predict`."""
        bound = rows.bind(self._signature)
        tensors = [_tensor(bound[spec.name], spec) for spec in self._signature.inputs]
        try:
            answers = self._call(tensors)
        except Exception as error:  # TensorFlow has several roots of errors
            text = str(getattr(error, "message", error)).strip().partition("\n")[0]
            message = re.sub(r"\{\{[^}]*\}\}|\[Op:\w+\]", "", text).strip()
            raise InputError(f"the source model refuses the rows: {message}") from error
        names = [spec.name for spec in self._signature.outputs]
        return {name: a.numpy() for name, a in zip(names, answers, strict=True)}

    def own_error(self, rows: Rows) -> Mapping[str, float]:
        """See `modelport.convert.base.Inexact.own_error`."""
        return own_error(self.predict, rows)

    def attempts(self, rows: Rows | None) -> Sequence[Attempt]:
        """tf2onnx, with its newest operator set first."""
        return [
            Attempt(f"tf2onnx opset {opset}", partial(self._export, opset, rows))
            for opset in OPSETS
        ]

    def _export(self, opset: int, rows: Rows | None) -> Export:
        export = export_function(self._call, self._model, self._signature, opset)
        return refuse_where_different(export, self, rows)

    def native(self, rows: Rows | None) -> Attempt | None:
        """None: no engine runs SavedModels."""
        return None

    def made_up_rows(self) -> Rows | None:
        """Normally distributed numbers, for models whose inputs are all floating-point."""
        return made_up_rows(self._signature, self.predict)

    def probes(self, rows: Rows) -> Sequence[Probe]:
        """Other sizes."""
        return other_sizes(rows, self._signature)

    def _call(self, tensors: list[Any]) -> list[Any]:
        named = dict(zip(self._inputs.values(), tensors, strict=True))
        answers = self._function(**named)
        return [answers[key] for key in self._outputs.values()]

    def _describe(self) -> Signature:
        given = self._function.structured_input_signature[1]
        inputs = [self._spec(name, given[key]) for name, key in self._inputs.items()]
        known = dict(self._function.structured_outputs)
        if any(known[key].shape.rank is None for key in known):
            known = self._outputs_of_zeros(inputs)
        outputs = [self._spec(name, known[key]) for name, key in self._outputs.items()]
        return Signature(tuple(inputs), tuple(outputs))

    def _spec(self, name: str, value: Any) -> TensorSpec:
        if value.shape.rank is None:
            raise UnsupportedError(
                f"{name} has no known number of dimensions",
                where=self._name,
                hint="save the model with an input_signature of tf.TensorSpec with shapes",
            )
        return spec_with_symbols(name, dtype_of(value.dtype, name), value.shape.as_list(), _BATCH)

    def _outputs_of_zeros(self, inputs: Sequence[TensorSpec]) -> dict[str, Any]:
        """Shapes that TensorFlow does not know before it has run; all sizes are free then."""
        shapes = [[d if isinstance(d, int) else 2 for d in spec.shape] for spec in inputs]
        try:
            zeros = [
                tf.zeros(shape, tf.string if spec.dtype == STRING else spec.dtype)
                for shape, spec in zip(shapes, inputs, strict=True)
            ]
            answers = self._call(zeros)
        except Exception:
            return dict(self._function.structured_outputs)
        return {
            key: tf.TensorSpec([None] * answer.shape.rank, answer.dtype)
            for key, answer in zip(self._outputs.values(), answers, strict=True)
        }


def _usable(name: str) -> str:
    return re.sub(r"[^\w.:/-]+", "_", name)


def _tensor(array: Array, spec: TensorSpec) -> Any:
    if spec.dtype == STRING:
        texts = [str(text).encode() for text in array.ravel()]
        return tf.reshape(tf.constant(texts, dtype=tf.string), array.shape)
    return tf.convert_to_tensor(array)
