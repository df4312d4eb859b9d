"""ONNX files: the same bytes in and out, proven to survive ONNX Runtime's optimizations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from modelport.adapters import find_adapter
from modelport.convert.base import Attempt, Export, Probe
from modelport.convert.graph import opset_of
from modelport.core.errors import EngineError, InputError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.source import AuditedSource
from modelport.core.tensors import Array, TensorSpec
from modelport.engines.base import Engine, EngineOptions, LoadedModel

_MADE_UP: Final = 64
_BATCH: Final = "N"


class OnnxFramework:
    """Takes ONNX files as they are."""

    def recognises(self, audited: AuditedSource) -> bool:
        """See `modelport.convert.base.Framework.recognises`."""
        return audited.format == "onnx"

    def load(self, audited: AuditedSource) -> OnnxModel:
        """See `modelport.convert.base.Framework.load`."""
        name, content = audited.source.name, audited.source.content
        try:
            proto = onnx.load_model_from_string(content)
        except DecodeError as error:
            raise InputError(f"the file is not ONNX: {error}", where=name) from error
        if not proto.graph.output:
            raise InputError("the file is not ONNX: it has no outputs", where=name)
        _check(proto, name)
        engine: Engine = find_adapter("engine", "onnxruntime").load()
        try:
            reference = engine.load(content, EngineOptions(optimize=False))
        except EngineError as error:
            if re.search(r"opset|IR version", error.message):
                raise UnsupportedError(
                    f"this ONNX Runtime is older than the model: {error.message}",
                    where=name,
                    hint="upgrade onnxruntime, or export the model with an older opset",
                ) from error
            raise InputError(error.message, where=name) from error
        return OnnxModel(content, proto, reference)


def _check(proto: onnx.ModelProto, name: str) -> None:
    newest = onnx.defs.onnx_opset_version()
    version = opset_of(proto).get("", 0)
    if version > newest:
        raise UnsupportedError(
            f"the model needs ONNX opset {version}; the installed onnx knows up to {newest}",
            where=name,
            hint="upgrade onnx and onnxruntime, or export the model with an older opset",
        )
    tensors = [*proto.graph.initializer, *(s.values for s in proto.graph.sparse_initializer)]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise UnsupportedError(
            "the model keeps its weights in another file",
            where=name,
            hint="save it as one file: onnx.save(onnx.load(path), path, "
            "save_as_external_data=False)",
        )
    for value in (*proto.graph.input, *proto.graph.output):
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            raise UnsupportedError(
                f"{value.name} is a {(kind or 'value without a type').removesuffix('_type')}, "
                "not a tensor",
                where=name,
                hint="export classifiers with options={'zipmap': False}",
            )
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise InputError(f"the ONNX checker refuses the model: {error}", where=name) from error


class OnnxModel:
    """An ONNX model; its source answers are those of the unoptimized graph.

    Parameters
    ----------
    content : bytes
    proto : onnx.ModelProto
        `content`, decoded.
    reference : LoadedModel
        Runs the graph operator by operator, as written.
    """

    def __init__(self, content: bytes, proto: onnx.ModelProto, reference: LoadedModel) -> None:
        self._content = content
        self._proto = proto
        self._reference = reference

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
        return ()

    def predict(self, rows: Rows) -> dict[str, Array]:
        """See `modelport.convert.base.SourceModel.predict`."""
        try:
            return self._reference.run(rows.bind(self._reference.signature))
        except EngineError as error:
            raise InputError(f"the source model refuses the rows: {error.message}") from error

    def attempts(self, rows: Rows | None) -> Sequence[Attempt]:
        """The file as it is."""
        return [Attempt("as it is", partial(self._export, rows))]

    def _export(self, rows: Rows | None) -> Export:
        signature = self._reference.signature
        return Export(
            model=self._content,
            signature=signature if rows is None else self._with_batch(signature, rows),
            exporter="none",
            opset=opset_of(self._proto),
        )

    def _with_batch(self, signature: Signature, rows: Rows) -> Signature:
        """Name the leading dimensions alike where they are the batch, and the file says nothing.

        Exporters often leave the first dimension without a name, or name it differently in each
        output. Two runs with different numbers of rows show whether it is one dimension.
        """
        specs = (*signature.inputs, *signature.outputs)
        free = all(spec.shape and isinstance(spec.shape[0], str) for spec in specs)
        if signature.batch_symbol is not None or not free or len(rows) < 2:
            return signature
        for count in (len(rows), len(rows) - 1):
            few = Rows({name: array[:count] for name, array in rows.columns.items()}, rows.where)
            bound = few.bind(signature)
            answers = self._reference.run(bound)
            if any(len(array) != count for array in (*bound.values(), *answers.values())):
                return signature
        lead = signature.inputs[0].shape[0]
        batch = lead if isinstance(lead, str) and "_" not in lead else _BATCH
        return Signature(
            tuple(_with_lead(spec, batch) for spec in signature.inputs),
            tuple(_with_lead(spec, batch) for spec in signature.outputs),
        )

    def native(self, rows: Rows | None) -> Attempt | None:
        """None: there is no engine for it."""
        return None

    def made_up_rows(self) -> Rows | None:
        """Normally distributed numbers, for models whose inputs are all floating-point."""
        generator = np.random.default_rng(20261121)
        columns = {}
        for spec in self._reference.signature.inputs:
            trailing = spec.shape[1:]
            if spec.numpy_dtype.kind != "f" or not all(isinstance(d, int) for d in trailing):
                return None
            if not spec.shape:
                return None
            lead = spec.shape[0] if isinstance(spec.shape[0], int) else _MADE_UP
            shape = (lead, *(d for d in trailing if isinstance(d, int)))
            columns[spec.name] = generator.normal(size=shape).astype(spec.numpy_dtype)
        rows = Rows(columns, "made-up rows")
        try:
            self.predict(rows)
        except InputError:
            return None
        return rows

    def probes(self, rows: Rows) -> Sequence[Probe]:
        """None of its own: a graph does not tell where it hurts."""
        return ()


def _with_lead(spec: TensorSpec, batch: str) -> TensorSpec:
    return replace(spec, shape=(batch, *spec.shape[1:]))
