"""Models that stay in PyTorch: packed for the ``torch`` engine, in formats without pickled code."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Sequence
from functools import partial
from importlib.metadata import distribution
from typing import Final

import torch
from torch.export import ExportedProgram

from modelport.convert.base import Attempt, Export
from modelport.convert.frameworks.torch.export import export_program, trace
from modelport.convert.frameworks.torch.plans import LazyPlan, Plan, notes_of
from modelport.convert.frameworks.torch.quiet import quiet, repeatable

#: As in `modelport.engines.torch`; the two know each other by this name alone.
SIGNATURE_RECORD: Final = "modelport_signature.json"

_FIXED_TIME: Final = (1980, 1, 1, 0, 0, 0)

_NUMBERED: Final = re.compile(r"/___torch_mangle_\d+(?=\.py$)")
_NUMBERED_BYTES: Final = re.compile(rb"\.___torch_mangle_\d+")


def native_attempt(plans: Sequence[LazyPlan]) -> Attempt:
    """The model for PyTorch's own engine: the plan with most dynamic dimensions that works."""
    return Attempt("PyTorch as it is", partial(_export, plans))


def _export(plans: Sequence[LazyPlan]) -> Export:
    refusals: list[Exception] = []
    for lazy in plans:
        plan = lazy.make()
        program = plan.binding.program
        # Recurrent layers would be unrolled by torch.export, for one length only.
        ways = [_as_script] if program.scripted or program.recurrent else [_as_program, _as_script]
        for way in ways:
            try:
                return way(plan)
            except Exception as error:  # PyTorch raises whatever it likes; the last is told
                refusals.append(error)
    raise refusals[0]


def _as_program(plan: Plan) -> Export:
    program = export_program(plan)
    if plan.binding.feed.constants or _has_constants(program):
        raise TypeError("the program takes plain numbers beside tensors")
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(_without_traces(program), buffer, extra_files=_record(plan))
    return _packed(plan, buffer.getvalue(), "torch.export", "model.pt2")


def _has_constants(program: ExportedProgram) -> bool:
    specs = program.graph_signature.input_specs
    return any(
        spec.kind.name == "USER_INPUT" and type(spec.arg).__name__ == "ConstantArgument"
        for spec in specs
    )


def _without_traces(program: ExportedProgram) -> ExportedProgram:
    """Without the lines and paths of the source, and without the user's rows."""
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
                node.meta.pop(key, None)
    program._example_inputs = None  # there is no public way to leave them out
    return program


def _as_script(plan: Plan) -> Export:
    buffer = io.BytesIO()
    with quiet(), repeatable():
        # Frozen, it is one class; without it, one for each layer, numbered across the process.
        frozen = torch.jit.freeze(trace(plan).eval(), optimize_numerics=False)
        torch.jit.save(frozen, buffer, _extra_files=_record(plan))
    content = _without_debug_records(buffer.getvalue())
    return _packed(plan, content, "TorchScript", "model.torchscript")


def _without_debug_records(content: bytes) -> bytes:
    """The same archive without records that name lines and paths of the source.

    Nor with the numbers that TorchScript gives to classes of one name in one process.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        records = {
            name: old.read(name)
            for name in old.namelist()
            if not name.endswith((".debug_pkl", "/.data/serialization_id"))
        }
        names = [_NUMBERED.sub("", name) for name in records]
        if len(names) == len(set(names)):
            records = {
                name: _NUMBERED_BYTES.sub(b"", data) if _is_text(name) else data
                for name, data in zip(names, records.values(), strict=True)
            }
        for name, data in records.items():
            new.writestr(zipfile.ZipInfo(name, _FIXED_TIME), data)
    return buffer.getvalue()


def _is_text(name: str) -> bool:
    return "/code/" in name or name.endswith("/data.pkl")


def _record(plan: Plan) -> dict[str, str]:
    return {SIGNATURE_RECORD: json.dumps(plan.signature.to_json(), sort_keys=True)}


def _packed(plan: Plan, content: bytes, exporter: str, file_name: str) -> Export:
    return Export(
        model=content,
        signature=plan.signature,
        exporter=f"{exporter} {torch.__version__}",
        opset={},
        notes=(*notes_of(plan), _cost()),
        engine="torch",
        file_name=file_name,
    )


def _cost() -> str:
    files = distribution("torch").files or ()
    megabytes = sum(file.size or 0 for file in files) / 1e6
    return (
        f"the model runs in PyTorch when served: torch {torch.__version__} takes "
        f"{megabytes:.0f} MB in the image, starts slower and needs more memory than ONNX Runtime"
    )
