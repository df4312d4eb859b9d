"""``name``, ``name@alias`` or ``name@3``: how people name a registered model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from modelport.core.errors import InputError
from modelport.core.manifest import check_name

#: What a bare name means, when the model has this alias.
DEFAULT_ALIAS: Final = "champion"

# At most nine digits: more than any model has, and a number everywhere.
_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")
_ALIAS: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def check_alias(alias: str) -> str:
    """Return `alias` if it can name an alias; it starts with a letter, as no version does.

    Raises
    ------
    InputError
        With the rule, when it cannot.
    """
    if not _ALIAS.fullmatch(alias):
        raise InputError(
            f"not an alias: {alias!r}",
            hint="a lower-case letter, then lower-case letters, digits, _ and -, at most 64",
        )
    return alias


@dataclass(frozen=True)
class Reference:
    """A model, and which of its versions.

    Parameters
    ----------
    model : str
    alias : str or None
    version : int or None
        At most one of the two is given; with neither, the model's `DEFAULT_ALIAS` is meant,
        or its newest version while that alias does not exist.
    """

    model: str
    alias: str | None = None
    version: int | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``name``, ``name@alias`` or ``name@3``; `str` gives the text back.

        Raises
        ------
        InputError
            With the forms, when it is none of them.
        """
        model, at, which = text.partition("@")
        check_name(model)
        if not at:
            return cls(model)
        if _VERSION.fullmatch(which):
            return cls(model, version=int(which))
        if _ALIAS.fullmatch(which):
            return cls(model, alias=which)
        raise InputError(
            f"not a model reference: {text!r}", hint="name, name@alias or name@3 (a version)"
        )

    def __str__(self) -> str:
        which = self.alias if self.version is None else self.version
        return self.model if which is None else f"{self.model}@{which}"
