"""PyTorch, on the CPU: programs of ``torch.export`` and TorchScript, as modelport packs them.

Both kinds of file carry their signature in a record of their own, so that the names which people
see do not depend on how PyTorch calls its arguments inside.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch.utils import _pytree as pytree

from modelport.core.errors import EngineError, ModelportError
from modelport.core.program_archive import check_program_archive
from modelport.core.signature import Signature
from modelport.core.tensors import Array, Tensors
from modelport.engines.base import EngineOptions

#: The record with the signature, in both kinds of file.
SIGNATURE_RECORD: Final = "modelport_signature.json"


class TorchEngine:
    """Executes the files that modelport writes for models which stay in PyTorch."""

    def load(self, model: Path | bytes, options: EngineOptions) -> TorchModel:
        """See `modelport.engines.base.Engine.load`."""
        where = "" if isinstance(model, bytes) else str(model)
        # PyTorch has one number of threads for the whole process.
        torch.set_num_threads(options.threads)
        try:
            content = model if isinstance(model, bytes) else model.read_bytes()
            with warnings.catch_warnings():
                # TorchScript is deprecated and says so; programs warn about copied buffers.
                warnings.simplefilter("ignore")
                function, plain = _load_script(content) if _is_script(content) else _load(content)
            signature = Signature.from_json(json.loads(plain))
        except ModelportError as error:
            raise EngineError(
                f"PyTorch must not load the model: {error.message}", where=where
            ) from error
        except Exception as error:  # PyTorch raises whatever it likes for damaged files
            raise EngineError(f"PyTorch cannot load the model: {error}", where=where) from error
        return TorchModel(function, signature)


def _is_script(content: bytes) -> bool:
    # Of the two only TorchScript archives hold code; the name stands in the zip directory.
    return b"/code/" in content[-(1 << 20) :]


def _load_script(content: bytes) -> tuple[Callable[..., Any], str]:
    # TorchScript reads its own, restricted pickles: no Python is run.
    extra: dict[str, Any] = {SIGNATURE_RECORD: ""}
    load: Callable[..., torch.jit.ScriptModule] = torch.jit.load  # it has no annotations
    module = load(io.BytesIO(content), map_location="cpu", _extra_files=extra)
    plain = extra[SIGNATURE_RECORD]
    return module.eval(), plain.decode() if isinstance(plain, bytes) else plain


def _load(content: bytes) -> tuple[Callable[..., Any], str]:
    check_program_archive(content)
    extra: dict[str, Any] = {SIGNATURE_RECORD: ""}
    program = torch.export.load(io.BytesIO(content), extra_files=extra)
    module = program.module()
    structure = program.call_spec.in_spec

    def call(*tensors: torch.Tensor) -> Any:
        positional, named = pytree.tree_unflatten(tensors, structure)
        return module(*positional, **named)

    return call, extra[SIGNATURE_RECORD]


class TorchModel:
    """A model that PyTorch runs.

    Parameters
    ----------
    function : callable
        From tensors, in the signature's order, to any structure of tensors.
    signature : Signature
    """

    def __init__(self, function: Callable[..., Any], signature: Signature) -> None:
        self._function = function
        self._signature = signature
        self._input_names = [spec.name for spec in signature.inputs]
        self._output_names = [spec.name for spec in signature.outputs]

    @property
    def signature(self) -> Signature:
        """See `modelport.engines.base.LoadedModel.signature`."""
        return self._signature

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """See `modelport.engines.base.LoadedModel.run`."""
        try:
            with torch.inference_mode():
                result = self._function(*(_to_tensor(inputs[name]) for name in self._input_names))
            leaves = [x.numpy() for x in pytree.tree_leaves(result) if isinstance(x, torch.Tensor)]
            return dict(zip(self._output_names, leaves, strict=True))
        except Exception as error:  # PyTorch has no common base class for its errors
            raise EngineError(f"PyTorch failed: {error}") from error


def _to_tensor(array: Array) -> torch.Tensor:
    # PyTorch warns about arrays that it may not write to, and takes no negative strides.
    if not array.flags.writeable or not array.flags.c_contiguous:
        array = array.copy(order="C")
    return torch.from_numpy(array)
