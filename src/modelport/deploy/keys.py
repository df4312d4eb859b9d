"""The key that a new server asks for by itself, where no platform's front end lets callers in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from modelport.core.errors import InputError
from modelport.deploy.verify.web import own_key

#: In a plan's connection: that the server asks, and where the verification finds the key.
KEY_FROM: Final = {"key-from": "MODELPORT_API_KEY"}


def shown_key(connection: Mapping[str, str]) -> dict[str, str]:
    """The header that shows it; none where a plan's connection does not ask for it.

    Raises
    ------
    InputError
        When there is no key here: the platform has it, and hands it to nobody but the server.
    """
    if not connection.keys() & KEY_FROM.keys():
        return {}
    key = own_key()
    if not key:
        raise InputError(
            f"the server asks for a key, and {KEY_FROM['key-from']} has none",
            hint="set it to the value of the secret, for the verification",
        )
    return {"x-api-key": key}
