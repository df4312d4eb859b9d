"""The ONNX framework adapter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import onnx

from modelport.adapters import find_adapter
from modelport.convert.base import Attempt, Export, Probe
from modelport.convert.frameworks.onnx.loading import read_model
from modelport.convert.frameworks.onnx.made_up import possible_rows
from modelport.convert.frameworks.onnx.old import Evaluator, upgraded
from modelport.convert.frameworks.onnx.shapes import (
    Run,
    declared_inputs,
    declared_outputs,
    input_specs,
    observe,
)
from modelport.convert.frameworks.onnx.zipmap import with_columns, without_zipmaps
from modelport.convert.graphs.edits import opset_of
from modelport.convert.proof.noise import own_error
from modelport.core.errors import EngineError, InputError, SignatureError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.source import AuditedSource
from modelport.core.tensors import Array, TensorSpec
from modelport.engines.base import Engine, EngineOptions

#: What every ONNX Runtime since 1.16 reads.
_IR_VERSION: Final = 9


class OnnxFramework:
    """Takes ONNX files as they are, or with the least change that makes them run."""

    def recognises(self, audited: AuditedSource) -> bool:
        """See `modelport.convert.base.Framework.recognises`."""
        return audited.format == "onnx"

    def load(self, audited: AuditedSource) -> OnnxModel:
        """See `modelport.convert.base.Framework.load`."""
        source = audited.source
        original = read_model(source)
        proto, labels = without_zipmaps(original)
        name, content = "as it is", source.content
        if source.files:
            name = "as one file"
        if labels:
            name = "without ZipMap"
        if name != "as it is":
            content = proto.SerializeToString(deterministic=True)
        try:
            return OnnxModel(name, content, proto, labels)
        except (UnsupportedError, InputError) as error:
            error.where = error.where or source.name
            raise


class OnnxModel:
    """An ONNX model; its source answers are those of the unoptimized graph.

    Parameters
    ----------
    name : str
        What was done to the file: ``as it is``.
    content : bytes
        The file to serve.
    proto : onnx.ModelProto
        `content`, decoded.
    labels : mapping of str to tuple of str
        By output: what its columns are for.
    """

    def __init__(
        self,
        name: str,
        content: bytes,
        proto: onnx.ModelProto,
        labels: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._proto = proto
        self._labels = labels
        self._inputs = declared_inputs(proto)
        self._outputs = declared_outputs(proto)
        self._files = {name: content}
        self._notes: tuple[str, ...] = ()
        self._run = self._reference(name, content)

    def _reference(self, name: str, content: bytes) -> Run:
        """How the source's own answers are computed: operator by operator, as written."""
        try:
            return _unoptimized(content)
        except EngineError as error:
            message = error.message
            cause = error
        if re.search(r"IR version", message):
            lowered = onnx.ModelProto()
            lowered.CopyFrom(self._proto)
            lowered.ir_version = _IR_VERSION
            changed = lowered.SerializeToString(deterministic=True)
            self._files = {f"{name}, with IR version {_IR_VERSION}": changed}
            try:
                return _unoptimized(changed)
            except EngineError as error:
                message = error.message
        if re.search(r"opset|IR version", message):
            raise UnsupportedError(
                f"this ONNX Runtime is older than the model: {message}",
                hint="upgrade onnxruntime, or export the model with an older opset",
            ) from cause
        try:
            onnx.checker.check_model(self._proto)
        except onnx.checker.ValidationError as error:
            raise InputError(f"the ONNX checker refuses the model: {error}") from error
        return self._of_old(message)

    def _of_old(self, message: str) -> Run:
        """ONNX Runtime lacks an operator: perhaps only in this old version of it."""
        newer = upgraded(self._proto)
        if newer is None:
            raise InputError(message)
        version, content = newer
        self._files[f"upgraded to opset {version}"] = content
        try:
            return Evaluator(self._proto).run
        except EngineError as error:
            self._notes = (
                f"nothing here runs the model's opset {opset_of(self._proto).get('', 0)} "
                f"({error.message}): the answers compared with are those of the upgraded model",
            )
        try:
            return _unoptimized(content)
        except EngineError:
            raise InputError(message) from None

    @property
    def task(self) -> str:
        """See `modelport.convert.base.SourceModel.task`; the file does not tell."""
        return "unknown"

    @property
    def framework_version(self) -> str:
        """See `modelport.convert.base.SourceModel.framework_version`."""
        producer = f"{self._proto.producer_name} {self._proto.producer_version}".strip()
        return f"ONNX {onnx.__version__}" + (f", file made by {producer}" if producer else "")

    @property
    def notes(self) -> tuple[str, ...]:
        """See `modelport.convert.base.SourceModel.notes`."""
        return self._notes

    def predict(self, rows: Rows) -> dict[str, Array]:
        """See `modelport.convert.base.SourceModel.predict`."""
        inputs = input_specs(self._inputs, rows)
        bound = rows.bind(Signature(inputs, _any_outputs(self._outputs[0].name)))
        try:
            return self._run(bound)
        except EngineError as error:
            raise InputError(f"the source model refuses the rows: {error.message}") from error

    def attempts(self, rows: Rows | None) -> Sequence[Attempt]:
        """The file as it is; of an old one the upgraded file as well."""
        return [
            Attempt(name, partial(self._export, content, rows))
            for name, content in self._files.items()
        ]

    def _export(self, content: bytes, rows: Rows | None) -> Export:
        signature, notes = self._signature(rows)
        kept = tuple(with_columns(s, self._labels.get(s.name, ())) for s in signature.outputs)
        proto = onnx.load_model_from_string(content)
        return Export(
            model=content,
            signature=Signature(signature.inputs, kept),
            exporter="none" if len(self._files) == 1 else f"onnx {onnx.__version__}",
            opset=opset_of(proto),
            notes=notes,
        )

    def _signature(self, rows: Rows | None) -> tuple[Signature, tuple[str, ...]]:
        inputs = input_specs(self._inputs, rows)
        if rows is None:
            lacking = [output.name for output in self._outputs if output.shape is None]
            if lacking:
                raise UnsupportedError(
                    f"output {lacking[0]} has no declared shape",
                    hint="give sample rows with --sample: they show it",
                )
            specs = tuple(TensorSpec(o.name, o.dtype, o.shape or ()) for o in self._outputs)
            return Signature(inputs, specs), ()
        bound = rows.bind(Signature(inputs, _any_outputs(self._outputs[0].name)))
        return observe(inputs, self._outputs, bound, self._run)

    def own_error(self, rows: Rows) -> Mapping[str, float]:
        """See `modelport.convert.base.Inexact.own_error`."""
        try:
            return own_error(self.predict, rows)
        except InputError:
            return {}

    def native(self, rows: Rows | None) -> Attempt | None:
        """None: there is no engine for it."""
        return None

    def made_up_rows(self) -> Rows | None:
        """Numbers and words that the model answers; None where none were found."""
        for rows in possible_rows(self._inputs):
            try:
                self.predict(rows)
            except (InputError, SignatureError):
                continue
            return rows
        return None

    def probes(self, rows: Rows) -> Sequence[Probe]:
        """None of its own: a graph does not tell where it hurts."""
        return ()


def _unoptimized(content: bytes) -> Run:
    engine: Engine = find_adapter("engine", "onnxruntime").load()
    return engine.load(content, EngineOptions(optimize=False)).run


def _any_outputs(name: str) -> tuple[TensorSpec, ...]:
    return (TensorSpec(name, "float32", ()),)
