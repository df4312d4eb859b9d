"""What Python says to a damaged pickle, told apart from our own defects."""

from __future__ import annotations

import pickle
import struct
from typing import Final

#: What Python's unpickler raises for streams that are no pickles.
DAMAGE: Final = (
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
)


def say(error: Exception) -> str:
    """What one of `DAMAGE` means, for people."""
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is not an instruction"
    if isinstance(error, IndexError):
        return "an instruction finds nothing on the stack"
    return str(error) or type(error).__name__
