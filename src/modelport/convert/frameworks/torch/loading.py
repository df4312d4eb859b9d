"""Reading PyTorch sources: live objects, programs, TorchScript, and weights with a factory."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from torch import nn
from torch.export import ExportedProgram

from modelport.convert.factory import call_factory
from modelport.convert.frameworks.torch.fixed_batch import without_fixed_batch
from modelport.convert.frameworks.torch.program import Program, of_exported, of_module, of_script
from modelport.convert.frameworks.torch.quiet import quiet
from modelport.convert.frameworks.torch.weights import find_weights, load_weights
from modelport.core.errors import InputError, ModelportError, UnsafeError, UnsupportedError
from modelport.core.program_archive import check_program_archive
from modelport.core.source import AuditedSource

#: Formats of the scan that are PyTorch's.
FORMATS: Final = ("torch", "torch-legacy", "torchscript", "pt2", "safetensors")

# PyTorch leaves it without annotations.
_load_script: Final[Callable[..., torch.jit.ScriptModule]] = torch.jit.load

_WRAPPERS: Final = ("_orig_mod", "module")
_HALF: Final = (torch.float16, torch.bfloat16)


def is_torch(model: Any) -> bool:
    """Whether a live object is a module or an exported program."""
    return isinstance(model, nn.Module | ExportedProgram)


def load_program(audited: AuditedSource) -> tuple[Program, tuple[str, ...]]:
    """Load a source that the scan has passed, and switch it to evaluation mode.

    Returns
    -------
    Program
    notes : tuple of str
        What was changed or left out on the way.

    Raises
    ------
    InputError
        When the file is damaged, or does not fit the factory's module.
    UnsafeError
        When the file wants code that nobody allowed.
    UnsupportedError
        When it holds something that cannot be served.
    """
    source = audited.source
    try:
        if audited.format == "object":
            return _of_object(source.model)
        if audited.format == "torchscript":
            with quiet():
                script = _load_script(io.BytesIO(source.content), map_location="cpu")
            return _of_script(script)
        if audited.format == "pt2":
            _check_examples(source.content, source.name)
            check_program_archive(source.content, source.name, examples=True)
            with quiet():
                exported = torch.export.load(io.BytesIO(source.content))
            return _of_exported(exported)
        return _of_weights(audited)
    except ModelportError:
        raise
    except Exception as error:  # PyTorch raises whatever it likes for damaged files
        raise InputError(
            f"PyTorch cannot read the file: {type(error).__name__}: {error}",
            where=source.name,
            hint="save it again, with the version of PyTorch that is installed here: "
            f"{torch.__version__}",
        ) from error


def _check_examples(content: bytes, where: str) -> None:
    """Refuse example inputs that PyTorch would unpickle without restriction if it must."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            data = archive.read(name) if name.endswith("sample_inputs/model.pt") else b""
            try:
                if data:
                    torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                raise UnsafeError(
                    f"the example inputs in the archive want code to be run: {_wanted(error)}",
                    where=where,
                ) from error


def _of_object(model: Any) -> tuple[Program, tuple[str, ...]]:
    if isinstance(model, ExportedProgram):
        return _of_exported(model)
    if isinstance(model, torch.jit.ScriptModule):
        buffer = io.BytesIO()
        with quiet():
            torch.jit.save(model, buffer)
            buffer.seek(0)
            return _of_script(_load_script(buffer, map_location="cpu"))
    for name in _WRAPPERS:
        # Of torch.compile and of DataParallel; a module of the user's may have one, too.
        inner = getattr(model, name, None)
        if type(model).__module__.startswith("torch.") and isinstance(inner, nn.Module):
            model = inner
    with contextlib.suppress(Exception):  # some modules cannot be copied: then the model itself
        model = copy.deepcopy(model)
    return _of_module(model)


def _of_module(module: nn.Module) -> tuple[Program, tuple[str, ...]]:
    notes = []
    module = module.cpu().eval()
    tensors = [*module.parameters(), *module.buffers()]
    narrow = {str(tensor.dtype) for tensor in tensors if tensor.dtype in _HALF}
    if narrow:
        module = module.float()
        notes.append(f"weights in {', '.join(sorted(narrow))} were widened to float32, exactly")
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return of_module(module), tuple(notes)


def _of_script(script: torch.jit.ScriptModule) -> tuple[Program, tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    if script.training:
        notes = ("the file was saved in training mode; it was switched to evaluation mode",)
    return of_script(script.eval()), notes


def _of_exported(exported: ExportedProgram) -> tuple[Program, tuple[str, ...]]:
    mutated = exported.graph_signature.buffers_to_mutate
    if mutated:
        raise UnsupportedError(
            f"each call changes the program: {', '.join(sorted(mutated.values())[:5])}",
            hint="batch normalisation was exported in training mode, or the model keeps a state: "
            "call eval() before torch.export.export",
        )
    with quiet():
        return without_fixed_batch(of_exported(exported))


def _of_weights(audited: AuditedSource) -> tuple[Program, tuple[str, ...]]:
    content = _read(audited)
    name = audited.source.name
    if isinstance(content, nn.Module):
        return _of_object(content)
    weights = find_weights(content, name)
    if not audited.source.factory:
        raise UnsupportedError(
            f"the file holds weights without a model: {weights.describe()}",
            where=name,
            hint="name the class or function that makes the model, called without arguments: "
            "--factory module:Name",
        )
    with _safe_stdout():
        module = call_factory(audited.source)
    if not isinstance(module, nn.Module):
        what = type(module).__name__
        raise InputError(
            f"the factory {audited.source.factory} made a {what}, not a torch.nn.Module"
        )
    notes = load_weights(module, weights, name)
    program, more = _of_module(module)
    return program, (*notes, *more)


@contextlib.contextmanager
def _safe_stdout() -> Iterator[None]:
    with contextlib.redirect_stdout(sys.stderr):  # the user's code may print; stdout is for data
        yield


def _read(audited: AuditedSource) -> Any:
    source = audited.source
    if audited.format == "safetensors":
        try:
            return safetensors.torch.load(source.content)
        except safetensors.SafetensorError as error:
            raise InputError(f"the file is damaged: {error}", where=source.name) from error
    try:
        with quiet(), torch.serialization.safe_globals(_allowed(audited)):
            return torch.load(io.BytesIO(source.content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeError(
            f"the file is a whole pickled module or wants other code to be run: {_wanted(error)}",
            where=source.name,
            hint="save the weights alone: torch.save(model.state_dict(), path) and --factory, "
            "or the program: torch.export.save(torch.export.export(model, args), path)",
        ) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"the file is damaged: {error}", where=source.name) from error


def _allowed(audited: AuditedSource) -> list[Any]:
    """What the scan has let through by name, and no more: PyTorch refuses all others."""
    names = dict.fromkeys((*audited.globals, *audited.trusted))
    things = [_resolve(name) for name in names if not name.startswith("torch._utils.")]
    return [thing for thing in things if callable(thing)]


def _resolve(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    with contextlib.suppress(Exception):  # what is not here cannot be used; torch.load says so
        return getattr(importlib.import_module(module), attribute)
    return None


def _wanted(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line]
    return lines[0][:200] if lines else str(error).splitlines()[0][:200]
