"""When and by whom a record is made."""

from __future__ import annotations

import getpass
import os
import socket
from datetime import UTC, datetime
from typing import Final

ACTOR_VARIABLE: Final = "MODELPORT_ACTOR"

_TIME: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


def now() -> str:
    """The time for a new record."""
    return datetime.now(UTC).strftime(_TIME)


def parse_time(text: str) -> datetime:
    """Decode `modelport.registry.records.Record.at`.

    Raises
    ------
    ValueError
        When it is in any other form.
    """
    time = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    if time.strftime(_TIME) != text:
        raise ValueError(f"time is not in the form 2026-01-31T09:30:00.000000Z: {text!r}")
    return time


def actor() -> str:
    """Who makes a new record: ``MODELPORT_ACTOR``, else ``user@host``."""
    named = os.environ.get(ACTOR_VARIABLE)
    if named:
        return named
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        # A container may run as a number that no account has.
        user = f"uid-{os.getuid()}" if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"
