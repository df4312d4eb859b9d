"""The two exporters of PyTorch, and how much is left dynamic.

``torch.onnx.export(dynamo=True)`` goes first: it follows a module symbolically and stops where
the answer would depend on the values, while the tracing exporter (``dynamo=False``) quietly
keeps the branch that the sample took. But it fixes recurrent layers to one length, where the
other writes an LSTM or GRU node for any length: for those the tracing exporter goes first.
TorchScript sources have only that one.

An export in which all dimensions are dynamic that the module takes dynamic is best; then one with
a dynamic batch; one with a frozen batch is better than none.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import onnx
import onnxscript
import torch
from torch.export import Dim, ExportedProgram

from modelport.convert.base import Attempt, Export
from modelport.convert.frameworks.torch.graph import finish
from modelport.convert.frameworks.torch.plans import FROZEN, LazyPlan, Plan, notes_of
from modelport.convert.frameworks.torch.program import Program
from modelport.convert.frameworks.torch.quiet import quiet, repeatable
from modelport.convert.graphs.edits import opset_of
from modelport.core.errors import UnsupportedError

#: A protobuf message holds less than 2 GiB; the rest is for the graph.
MOST_BYTES: Final = 2**31 - 2**24

#: The newest operators that the tracing exporter writes.
_TRACED_OPSET: Final = 20


def attempts_for(plans: Sequence[LazyPlan], program: Program) -> list[Attempt]:
    """Every exporter on every plan, best first; plans with more dynamic dimensions come first.

    Raises
    ------
    UnsupportedError
        When the weights do not fit in an ONNX file.
    """
    if program.size > MOST_BYTES:
        raise UnsupportedError(
            f"the weights are {program.size / 2**30:.1f} GiB; an ONNX file holds less than 2",
            hint="convert a smaller model, or keep it in PyTorch with --engine native",
        )
    dynamo, traced = ("dynamo", export_dynamo), ("TorchScript", export_traced)
    exporters = [traced, dynamo] if program.recurrent else [dynamo, traced]
    if program.scripted:
        exporters = [traced]
    dynamic: list[str] = []  # exports with a dynamic batch that were made

    def made(export: Callable[[Plan], Export], plan: LazyPlan) -> Export:
        if plan.level == FROZEN and dynamic:
            raise UnsupportedError("not tried: it would only hide the differences found above")
        done = export(plan.make())
        dynamic.append(plan.level)
        return done

    return [
        Attempt(f"torch.onnx {name}, {plan.level}", partial(made, export, plan))
        for plan in plans
        for name, export in exporters
    ]


def export_program(plan: Plan) -> ExportedProgram:
    """Follow the module symbolically; the planned dimensions are dynamic, or it fails."""
    program = plan.binding.program
    if program.exported is not None and program.settled:
        return program.exported
    axes = plan.dimensions.dynamic_axes()
    shapes = tuple(dict.fromkeys(by_axis, Dim.DYNAMIC) for by_axis in axes)
    with quiet(), repeatable():
        return torch.export.export(plan.flat, plan.tensors, dynamic_shapes=(shapes,), strict=False)


def export_dynamo(plan: Plan) -> Export:
    """Through ``torch.export`` and onnxscript."""
    program = export_program(plan)
    inputs, outputs = _names(plan)
    with quiet(), repeatable():
        made: Any = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=inputs, output_names=outputs
        )
    exporter = f"torch.onnx {torch.__version__}, onnxscript {onnxscript.__version__}"
    return _finished(plan, made.model_proto, exporter)


def trace(plan: Plan) -> torch.jit.ScriptModule:
    """The module as TorchScript; scripted parts keep their branches and loops."""
    tracer: Callable[..., torch.jit.ScriptModule] = torch.jit.trace
    return tracer(plan.flat, plan.tensors, check_trace=False, strict=False)


def export_traced(plan: Plan) -> Export:
    """Through a trace; scripted parts keep their branches and loops."""
    inputs, outputs = _names(plan)
    axes = dict(zip(inputs, plan.dimensions.dynamic_axes(), strict=True))
    axes |= {
        spec.name: {a: d for a, d in enumerate(spec.shape) if isinstance(d, str)}
        for spec in plan.signature.outputs
    }
    buffer: Any = io.BytesIO()
    with quiet(), repeatable():
        # A script inside a module cannot be exported; a script on its own can.
        model = trace(plan) if plan.binding.program.scripted else plan.flat
        torch.onnx.export(
            model,
            plan.tensors,
            buffer,
            dynamo=False,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=_TRACED_OPSET,
        )
    made = onnx.load_model_from_string(buffer.getvalue())
    return _finished(plan, made, f"torch.onnx (TorchScript) {torch.__version__}")


def _names(plan: Plan) -> tuple[list[str], list[str]]:
    return (
        [spec.name for spec in plan.signature.inputs],
        [spec.name for spec in plan.signature.outputs],
    )


def _finished(plan: Plan, model: onnx.ModelProto, exporter: str) -> Export:
    content, signature, notes = finish(model, plan.signature, plan.binding.finite)
    return Export(
        model=content,
        signature=signature,
        exporter=exporter,
        opset=opset_of(model),
        notes=(*notes_of(plan), *notes),
    )
