"""A TFLite file as a source: TFLite's own interpreter answers, tf2onnx exports."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

# Before TensorFlow: it keeps it quiet.
from modelport.convert.graphs.tensorflow import OPSETS, convert_tflite, dtype_of, finish, rename

# isort: split
import numpy as np
import onnx
import tensorflow as tf
from onnx import numpy_helper
from tf2onnx import tflite_utils

from modelport.convert.base import Attempt, Export, Probe
from modelport.convert.frameworks.tflite.operators import custom_operators
from modelport.convert.proof.noise import own_error
from modelport.convert.proof.special_values import refuse_where_different
from modelport.convert.tensor_models import made_up_rows, other_sizes, spec_with_symbols
from modelport.core.errors import InputError, UnsupportedError
from modelport.core.quiet import quiet_stderr
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.source import Source
from modelport.core.tensors import Array, TensorSpec

_DEFAULT: Final = "serving_default"
_BATCH: Final = "N"


def load(source: Source) -> TfliteSource:
    """See `modelport.convert.base.Framework.load`.

    Raises
    ------
    UnsupportedError
        When TFLite lacks an operator: without the original's answers nothing can be proven.
    """
    try:
        interpreter = _open(source.content)
    except Exception as error:  # ValueError and RuntimeError, with the operator in the text
        text = " ".join(str(error).split())
        if found := re.search(r"unresolved custom op: (\w+)", text):
            raise UnsupportedError(
                f"the model uses the custom operator {found[1]}, which TFLite does not have: "
                "there is no original to compare with",
                where=source.name,
                hint="convert the model that the TFLite file was made of",
            ) from error
        message = f"TFLite cannot load the model: {text[:300]}"
        raise InputError(message, where=source.name) from error
    return TfliteSource(source.name, source.content, interpreter)


def _open(content: bytes) -> Any:
    with quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated in favour of a package of its own
        interpreter = tf.lite.Interpreter(model_content=content)
        interpreter.allocate_tensors()
    return interpreter


class TfliteSource:
    """A TFLite model.

    A file made for one row answers row by row: its exports take any number of rows where that
    gives the same answers.

    Parameters
    ----------
    name : str
        The source's.
    content : bytes
    interpreter : tf.lite.Interpreter
        With the delegates that TFLite takes by itself.
    """

    def __init__(self, name: str, content: bytes, interpreter: Any) -> None:
        self._name = name
        self._content = content
        self._interpreter = interpreter
        inputs, outputs = self._details()
        self._inputs = inputs
        self._outputs = outputs
        single = [d["shape_signature"][:1].tolist() == [1] for d in inputs.values()]
        self._one_by_one = all(single)
        self._signature = Signature(
            tuple(_spec(n, d, self._one_by_one) for n, d in inputs.items()),
            tuple(_spec(n, d, self._one_by_one) for n, d in outputs.items()),
        )

    @property
    def task(self) -> str:
        """``unknown``: the file does not tell."""
        return "unknown"

    @property
    def framework_version(self) -> str:
        """See `modelport.convert.base.SourceModel.framework_version`."""
        return f"TFLite of TensorFlow {tf.__version__}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Whether the model is quantized."""
        quantized = [n for n, d in self._inputs.items() if d["quantization"][0]]
        if not quantized:
            return ()
        return (f"quantized: {', '.join(quantized)} takes integers as the file declares them",)

    def predict(self, rows: Rows) -> dict[str, Array]:
        """See `modelport.convert.base.SourceModel.predict`."""
        bound = rows.bind(self._signature)
        if not self._one_by_one:
            return self._run(bound)
        count = len(next(iter(bound.values())))
        pieces = [self._run({n: a[i : i + 1] for n, a in bound.items()}) for i in range(count)]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        resized = False
        try:
            for name, array in inputs.items():
                index = self._inputs[name]["index"]
                current = self._interpreter.get_tensor(index).shape
                if current != array.shape:
                    self._interpreter.resize_tensor_input(index, array.shape)
                    resized = True
            if resized:
                with quiet_stderr():
                    self._interpreter.allocate_tensors()
            for name, array in inputs.items():
                self._interpreter.set_tensor(self._inputs[name]["index"], array)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"the source model refuses the rows: {' '.join(str(error).split())[:300]}"
            ) from error
        return {
            name: self._interpreter.get_tensor(detail["index"]).copy()
            for name, detail in self._outputs.items()
        }

    def own_error(self, rows: Rows) -> Mapping[str, float]:
        """See `modelport.convert.base.Inexact.own_error`."""
        return own_error(self.predict, rows)

    def attempts(self, rows: Rows | None) -> Sequence[Attempt]:
        """tf2onnx; a model for one row is made to take many first."""
        attempts = [
            Attempt(f"tf2onnx opset {opset}", partial(self._export, opset, rows))
            for opset in OPSETS
        ]
        if self._one_by_one and (rows is None or len(rows) == 1):
            attempts.append(Attempt("tf2onnx, one row", self._export_one_row))
        return attempts

    def _export(self, opset: int, rows: Rows | None) -> Export:
        model = self._convert(opset)
        if self._one_by_one:
            free_batch(model)
        return refuse_where_different(finish(model, self._signature), self, rows)

    def _export_one_row(self) -> Export:
        def fixed(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
            return tuple(replace(spec, shape=(1, *spec.shape[1:])) for spec in specs)

        signature = Signature(fixed(self._signature.inputs), fixed(self._signature.outputs))
        return finish(self._convert(OPSETS[0]), signature)

    def _convert(self, opset: int) -> onnx.ModelProto:
        with tempfile.TemporaryDirectory() as folder, quiet_stderr():
            path = Path(folder, "model.tflite")
            path.write_bytes(self._content)
            _, codes, file, _ = tflite_utils.read_tflite_model(str(path))
            model = convert_tflite(str(path), custom_operators(file, codes), opset)
        tensors = {d["name"]: n for n, d in (*self._inputs.items(), *self._outputs.items())}
        rename(model.graph, tensors)
        return model

    def native(self, rows: Rows | None) -> Attempt | None:
        """None: no engine runs TFLite files."""
        return None

    def made_up_rows(self) -> Rows | None:
        """Normally distributed numbers, for models whose inputs are all floating-point."""
        return made_up_rows(self._signature, self.predict)

    def probes(self, rows: Rows) -> Sequence[Probe]:
        """Other sizes."""
        return other_sizes(rows, self._signature)

    def _details(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Details of inputs and outputs by the signature's names, else by the tensors'."""
        inputs = {d["name"]: d for d in self._interpreter.get_input_details()}
        outputs = {d["name"]: d for d in self._interpreter.get_output_details()}
        signatures = self._interpreter.get_signature_list()
        name = _DEFAULT if _DEFAULT in signatures else next(iter(signatures), "")
        if len(signatures) > 1 and name != _DEFAULT:
            raise UnsupportedError(
                f"the file has {len(signatures)} signatures and none is {_DEFAULT}: "
                + ", ".join(sorted(signatures)),
                where=self._name,
            )
        if not name:
            return inputs, outputs
        runner = self._interpreter.get_signature_runner(name)
        return (
            {key: inputs[d["name"]] for key, d in sorted(runner.get_input_details().items())},
            {key: outputs[d["name"]] for key, d in sorted(runner.get_output_details().items())},
        )


def _spec(name: str, detail: Mapping[str, Any], one_by_one: bool) -> TensorSpec:
    shape = [None if size < 0 else int(size) for size in detail["shape_signature"]]
    if one_by_one and shape[:1] == [1]:
        shape[0] = None
    return spec_with_symbols(name, dtype_of(detail["dtype"], name), shape, _BATCH)


def free_batch(model: onnx.ModelProto) -> None:
    """Let constants that say one row keep as many rows as there are.

    In a Reshape a leading 1 becomes 0, which copies the size; a Resize to given sizes leaves the
    first dimension alone. Where that is wrong, the comparison with the source model tells.
    """
    constants = {i.name: i for i in model.graph.initializer}
    for node in list(model.graph.node):
        if node.op_type == "Reshape" and node.input[0] not in constants:
            _edit(model.graph, node, 1, constants, lambda s: np.append([0], s[1:]))
        if node.op_type == "Resize" and len(node.input) > 3 and node.input[3] in constants:
            rank = numpy_helper.to_array(constants[node.input[3]]).size
            _edit(model.graph, node, 3, constants, lambda s: s[1:])
            node.attribute.append(onnx.helper.make_attribute("axes", list(range(1, rank))))


def _edit(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    place: int,
    constants: Mapping[str, onnx.TensorProto],
    edit: Callable[[Array], Array],
) -> None:
    """Give a node other sizes, where they are constant and begin with one row."""
    found = constants.get(node.input[place])
    sizes = np.zeros(1) if found is None else numpy_helper.to_array(found)
    if sizes[0] != 1:
        return
    name = f"{node.output[0]}/sizes"
    graph.initializer.append(numpy_helper.from_array(edit(sizes).astype(np.int64), name))
    node.input[place] = name
