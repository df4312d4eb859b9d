"""What a file of ``torch.save`` may call, with which arguments.

The rules are about memory as well as about code: a tensor is a view of a storage, and PyTorch's
readers do not all check that it ends where the storage does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelport.core.torch_globals import DTYPES, QSCHEMES, is_layer
from modelport.scan.pickles.calls import Arguments
from modelport.scan.pickles.dtypes import element_count
from modelport.scan.pickles.standins import Made, Named, is_made_by

_TENSORS: Final = (
    "torch._tensor._rebuild_from_type_v2",
    "torch._utils._rebuild_meta_tensor_no_storage",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
)
_TENSOR_CLASSES: Final = frozenset(
    {"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
)
_PATHS: Final = ("PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath")


@dataclass(slots=True, eq=False)
class Storage(Made):
    """What a persistent id stands for: the bytes of a tensor, elsewhere in the file.

    Parameters
    ----------
    key : str
        By which the file finds it.
    size : int
        In bytes.
    element : int
        Bytes per element.
    """

    key: str = ""
    size: int = 0
    element: int = 1


def torch_call_problem(callee: Named, arguments: Arguments) -> str | None:
    """Why a call is refused, empty when it is harmless; None for what plain pickles may call."""
    rule = _CALLS.get(callee.full)
    if rule is None:
        return None
    return "" if rule(arguments) else "called with arguments that no honest file gives it"


def is_bare_instance(cls: Named, arguments: Arguments) -> bool:
    """Whether ``NEWOBJ`` makes something harmless that only PyTorch files hold."""
    if cls.full == "torch.torch_version.TorchVersion":
        return len(arguments) == 1 and type(arguments[0]) is str
    return not arguments and (is_layer(cls.module, cls.name) or cls.full == "argparse.Namespace")


def _is_tensor(value: object) -> bool:
    return is_made_by(value, *_TENSORS)


def _is_hooks(value: object) -> bool:
    return value is None or is_made_by(value, "collections.OrderedDict")


def _is_metadata(value: object) -> bool:
    return value is None or (
        type(value) is dict and all(type(flag) is bool for flag in value.values())
    )


def _element_size(value: object) -> int:
    """Bytes per element of a ``torch`` element type; 0 for anything else."""
    if isinstance(value, Named) and value.module == "torch":
        return DTYPES.get(value.name, 0)
    return 0


def _size(value: object) -> tuple[int, ...] | None:
    """A shape, or strides."""
    if type(value) is list:
        value = tuple(value)
    return value if isinstance(value, tuple) and element_count(value) is not None else None


def _is_view(
    storage: object, offset: object, shape: object, strides: object, element: int = 0
) -> bool:
    """Whether a tensor lies within its storage."""
    size, steps = _size(shape), _size(strides)
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
        return False
    if size is None or steps is None or len(size) != len(steps):
        return False
    if 0 in size:
        return True
    last = offset + sum((count - 1) * step for count, step in zip(size, steps, strict=True))
    return (last + 1) * (element or storage.element) <= storage.size


def _tensor_v2(a: Arguments) -> bool:
    return (
        len(a) in (6, 7)
        and _is_view(*a[:4])
        and type(a[4]) is bool
        and _is_hooks(a[5])
        and _is_metadata(a[6] if len(a) == 7 else None)
    )


def _tensor_v3(a: Arguments) -> bool:
    if len(a) not in (7, 8):
        return False
    element = _element_size(a[6])
    return (
        element > 0
        and _is_view(a[0], a[1], a[2], a[3], element)
        and type(a[4]) is bool
        and _is_hooks(a[5])
        and _is_metadata(a[7] if len(a) == 8 else None)
    )


def _quantized(a: Arguments) -> bool:
    """It reserves as many elements as its shape says, whatever the strides are."""
    if len(a) != 7 or not _is_view(*a[:4]) or type(a[4]) is not tuple or not a[4]:
        return False
    scheme, *parameters = a[4]
    count = element_count(_size(a[2]))
    return (
        isinstance(scheme, Named)
        and scheme.module == "torch"
        and scheme.name in QSCHEMES
        and all(type(p) in (int, float) or _is_tensor(p) or _is_numbers(p) for p in parameters)
        and count is not None
        and count * a[0].element <= a[0].size
        and type(a[5]) is bool
        and _is_hooks(a[6])
    )


def _is_numbers(value: object) -> bool:
    return type(value) is list and all(type(number) in (int, float) for number in value)


def _is_attributes(state: object) -> bool:
    """Whether it is a dictionary of attributes, none of them Python's own."""
    if isinstance(state, tuple) and len(state) == 2 and state[1] is None:
        state = state[0]
    return state is None or (
        type(state) is dict
        and all(
            type(key) is str and not (key.startswith("__") and key.endswith("__")) for key in state
        )
    )


def _from_type(a: Arguments) -> bool:
    """``_rebuild_from_type_v2(function, type, arguments, state)``: it calls the function."""
    return (
        len(a) == 4
        and isinstance(a[0], Named)
        and a[0].full in _TENSORS
        and isinstance(a[2], tuple)
        and torch_call_problem(a[0], a[2]) == ""
        and isinstance(a[1], Named)
        and a[1].full in _TENSOR_CLASSES
        and _is_attributes(a[3])
    )


def _meta(a: Arguments) -> bool:
    return (
        len(a) == 4
        and _element_size(a[0]) > 0
        and _size(a[1]) is not None
        and _size(a[2]) is not None
        and type(a[3]) is bool
    )


_CALLS: Final[Mapping[str, Callable[[Arguments], bool]]] = {
    "torch.Size": lambda a: len(a) == 1 and _size(a[0]) is not None,
    "torch.device": lambda a: (
        1 <= len(a) <= 2
        and type(a[0]) is str
        and len(a[0]) < 20
        and all(type(index) is int for index in a[1:])
    ),
    "torch.serialization._get_layout": lambda a: len(a) == 1 and type(a[0]) is str,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch._utils._rebuild_tensor": lambda a: len(a) == 4 and _is_view(*a),
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_qtensor": _quantized,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._utils._rebuild_parameter": lambda a: (
        len(a) == 3 and _is_tensor(a[0]) and type(a[1]) is bool and _is_hooks(a[2])
    ),
    "torch._utils._rebuild_parameter_with_state": lambda a: (
        len(a) == 4
        and _is_tensor(a[0])
        and type(a[1]) is bool
        and _is_hooks(a[2])
        and _is_attributes(a[3])
    ),
    **{
        f"pathlib.{name}": lambda a: all(type(part) is str for part in a) and len(a) < 100
        for name in _PATHS
    },
}


def is_storage_id(pid: Any) -> bool:
    """Whether a persistent id has the form that PyTorch gives it."""
    return (
        isinstance(pid, tuple)
        and len(pid) in (5, 6)
        and pid[0] in ("storage", b"storage")
        and isinstance(pid[1], Named)
        and type(pid[2]) in (str, int)
        and type(pid[3]) in (str, bytes)
        and type(pid[4]) is int
        and pid[4] >= 0
    )
