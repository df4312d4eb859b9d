"""What the dry unpickler puts on its stack in place of classes, functions and instances."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(slots=True, eq=False)
class Named:
    """A class or function that the file names; nothing was imported.

    Parameters
    ----------
    module, name : str
    refused : bool
        True when the name alone is a finding; how it is used is then not looked at.

    Attributes
    ----------
    full : str
        ``module.name``.
    """

    module: str
    name: str
    refused: bool = False
    full: str = field(init=False)

    def __post_init__(self) -> None:
        self.full = f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Made:
    """What calling a name would have given; nothing was called.

    Parameters
    ----------
    by : Named
        What the file calls.
    bare : bool
        True for an instance made without its constructor (``NEWOBJ``).
    dtype : numpy.dtype or None
        The element type itself, where this stands for one that was understood.
    built : bool
        Whether its state has been set.
    single : bool
        True while the loader may not see it in two places, see `DryUnpickler`.
    data : bytes or None
        What it holds, where it stands for bytes.
    """

    by: Named
    bare: bool = False
    dtype: np.dtype[Any] | None = None
    built: bool = False
    single: bool = False
    data: bytes | None = None


#: Stands for every array that joblib stores outside the pickle.
ARRAY = Made(Named("numpy", "ndarray"), built=True)


def is_named(value: object, full: str) -> bool:
    """Whether `value` stands for the class or function of that name."""
    return isinstance(value, Named) and value.full == full


def is_made_by(value: object, *full: str) -> bool:
    """Whether `value` stands for the result of calling one of those names."""
    return isinstance(value, Made) and value.by.full in full


#: More parts than any honest dictionary key or set element has.
_MOST_KEY_PARTS = 1000


def costs_much_to_hash(*values: object) -> bool:
    """Whether a value is a tuple so large, once its shared parts are unfolded, that it is a trap.

    Tuples do not remember their hash: fifty tuples that each hold the one before twice take
    longer than a lifetime.
    """
    for value in values:
        if type(value) is tuple:
            parts, waiting = 0, [value]
            while waiting:
                for part in waiting.pop():
                    parts += 1
                    if parts > _MOST_KEY_PARTS:
                        return True
                    if type(part) is tuple:
                        waiting.append(part)
    return False
