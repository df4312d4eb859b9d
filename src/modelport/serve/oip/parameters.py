"""Parameters of V2 requests that mean something to every server, for REST and for gRPC.

Source: Triton's ``docs/protocol/extension_parameters.md``, ``extension_sequence.md``,
``extension_schedule_policy.md`` and ``src/http_server.cc``. Models here take no parameters and
keep no state between requests: reserved ones must have the type that they are defined with, and
others are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modelport.core.errors import InputError

_BOOLEAN: Final = "a boolean"
_WHOLE: Final = "an integer from 0"

#: Reserved names of a request, and what their values are.
_RESERVED: Final = {
    "sequence_id": "an integer from 0, or a string",
    "sequence_start": _BOOLEAN,
    "sequence_end": _BOOLEAN,
    "priority": _WHOLE,
    "timeout": _WHOLE,
    "binary_data_output": _BOOLEAN,
    # Of models that give several answers; ours give one, which is the last.
    "triton_enable_empty_final_response": _BOOLEAN,
}

_PREFIX: Final = "triton_"

#: The protocol's integers have 64 bits.
_END: Final = 2**64

#: The parameter of an input or output that lies in memory which client and server share.
SHARED_MEMORY: Final = "shared_memory_region"


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Check the reserved parameters of an inference request.

    Raises
    ------
    InputError
        For a value of another type, and for names beginning ``triton_`` that are not defined.
    """
    for key, value in parameters.items():
        expected = _RESERVED.get(key)
        if expected is None:
            if key.startswith(_PREFIX):
                raise InputError(
                    f"parameter {key[:80]!r}: names beginning 'triton_' are reserved",
                    where="parameters",
                )
        elif not _is(value, expected):
            raise InputError(f"parameter {key!r} is not {expected}", where="parameters")


def _is(value: Any, expected: str) -> bool:
    if expected is _BOOLEAN:
        return isinstance(value, bool)
    if isinstance(value, str):
        return expected is not _WHOLE
    return type(value) is int and 0 <= value < _END


def no_shared_memory() -> InputError:
    """What to say of a tensor with `SHARED_MEMORY`, which nobody would read or write."""
    return InputError("shared memory is not supported here; send and ask for the data itself")


def flag(parameters: Mapping[str, Any], name: str, otherwise: bool) -> bool:
    """A boolean parameter.

    Raises
    ------
    InputError
        When it is something else.
    """
    value = parameters.get(name, otherwise)
    if not isinstance(value, bool):
        raise InputError(f"parameter {name!r} is not {_BOOLEAN}")
    return value
