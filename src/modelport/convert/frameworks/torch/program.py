"""A source of any kind as one callable: from tensors by name to tensors by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, TensorArgument
from torch.utils import _pytree as pytree

from modelport.convert.frameworks.torch.outputs import named_tensors
from modelport.core.errors import UnsupportedError

_SCALARS: Final = ("int", "float", "bool")

Scalar = int | float | bool


@dataclass(frozen=True)
class Parameter:
    """An argument of ``forward``.

    Parameters
    ----------
    name : str
    required : bool
        False where it has a default.
    kind : str
        ``tensor``, or ``int``, ``float``, ``bool`` for a plain number: ONNX has only tensors,
        so its value is frozen.
    dtype : torch.dtype or None
        Where the source says so.
    """

    name: str
    required: bool = True
    kind: str = "tensor"
    dtype: torch.dtype | None = None


@dataclass(frozen=True)
class Program:
    """A loaded source.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode. A ScriptModule is one, too; of an exported program its module.
    parameters : tuple of Parameter
        Empty where ``forward`` takes any number of arguments.
    scripted : bool
        TorchScript.
    exported : ExportedProgram or None
    settled : bool
        Whether the exported program alone says which dimensions are dynamic.
    """

    module: nn.Module
    parameters: tuple[Parameter, ...]
    scripted: bool = False
    exported: ExportedProgram | None = None
    settled: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The element type of the weights."""
        source = self.module if self.exported is None else self.exported
        tensors = (*source.parameters(), *source.buffers())
        return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)

    @property
    def size(self) -> int:
        """Bytes of all weights."""
        return sum(tensor.nbytes for tensor in self.state.values())

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """Weights and buffers by name."""
        if self.exported is not None:
            return dict(self.exported.state_dict)
        state = self.module.state_dict()
        return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}

    @property
    def recurrent(self) -> bool:
        """Whether it has LSTM, GRU or RNN layers."""
        return any(isinstance(module, nn.RNNBase) for module in self.module.modules())


def of_module(module: nn.Module) -> Program:
    """A module; its ``forward`` names the inputs."""
    parameters: list[Parameter] = []
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            parameters = [p for p in parameters if p.required]
            return Program(module, tuple(parameters))
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        kind = _kind_of(parameter)
        parameters.append(Parameter(parameter.name, parameter.default is parameter.empty, kind))
    return Program(module, tuple(parameters))


def _kind_of(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    if name in _SCALARS:
        return str(name)
    default = type(parameter.default).__name__
    return default if default in _SCALARS else "tensor"


def of_script(module: torch.jit.ScriptModule) -> Program:
    """A TorchScript module; its schema names the inputs."""
    parameters = []
    forward: Any = module.forward
    for argument in forward.schema.arguments[1:]:
        kind = str(argument.type)
        if kind not in (*_SCALARS, "Tensor", "Optional[Tensor]"):
            if argument.has_default_value():
                continue
            raise UnsupportedError(
                f"forward takes {argument.name} of type {kind}; only tensors and numbers can "
                "be sent to a served model",
                hint="wrap the model in a module whose forward takes tensors",
            )
        name = argument.name.replace(".", "_")
        kind = kind if kind in _SCALARS else "tensor"
        parameters.append(Parameter(name, not argument.has_default_value(), kind))
    return Program(module, tuple(parameters), scripted=True)


def of_exported(exported: ExportedProgram) -> Program:
    """An exported program; its graph names the inputs."""
    types = {
        node.name: node.meta["val"].dtype
        for node in exported.graph.nodes
        if node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor)
    }
    parameters = []
    for spec in exported.graph_signature.input_specs:
        if spec.kind.name != "USER_INPUT":
            continue
        if isinstance(spec.arg, TensorArgument):
            parameters.append(Parameter(spec.arg.name, dtype=types.get(spec.arg.name)))
        elif not isinstance(spec.arg, ConstantArgument):
            raise UnsupportedError(f"the program takes a {type(spec.arg).__name__} as an input")
    return Program(exported.module(), tuple(parameters), exported=exported, settled=True)


@dataclass(frozen=True)
class Feed:
    """What a program is called with besides tensors.

    Parameters
    ----------
    names : tuple of str
        Names of the tensors, in order.
    constants : mapping of str to int, float or bool
        Numbers that are the same in every call.
    """

    names: tuple[str, ...]
    constants: Mapping[str, Scalar] = field(default_factory=dict)


class FlatModule(nn.Module):
    """A program as a module from tensors to a tuple of tensors: what every exporter takes.

    Parameters
    ----------
    program : Program
    feed : Feed
    """

    def __init__(self, program: Program, feed: Feed) -> None:
        super().__init__()
        self.module = program.module
        self._feed = feed
        self._by_name = bool(program.parameters)
        self._leaves = _leaves_of(program.exported) if program.exported is not None else None
        self._structure = program.exported.call_spec.in_spec if program.exported else None
        self.training = False

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The tensors of the result, in order."""
        return tuple(self.answers(tensors).values())

    def answers(self, tensors: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of the result by name."""
        if self._leaves is not None and self._structure is not None:
            given = iter(tensors)
            leaves = [next(given) if isinstance(x, str) else x[0] for x in self._leaves]
            positional, named = pytree.tree_unflatten(leaves, self._structure)
            result = self.module(*positional, **named)
        elif self._by_name:
            named = dict(zip(self._feed.names, tensors, strict=True))
            result = self.module(**named, **self._feed.constants)
        else:
            result = self.module(*tensors)
        return named_tensors(result, self._feed.names)


def _leaves_of(exported: ExportedProgram) -> list[str | tuple[Any]]:
    """The program's arguments: names of tensors, and other values as they are."""
    leaves: list[str | tuple[Any]] = []
    for spec in exported.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            value = spec.arg
            leaves.append((value.value,) if isinstance(value, ConstantArgument) else value.name)
    return leaves
