"""Libraries that write to the terminal before anybody can ask them not to."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_STDERR = 2


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Throw away what is written to stderr meanwhile, also by C++ code.

    For imports and constructors whose chatter no option turns off. What fails in the block
    raises as always; what other threads write to stderr meanwhile is lost, so keep it short.
    """
    sys.stderr.flush()
    try:
        kept = os.dup(_STDERR)
    except OSError:  # there is no stderr to keep quiet
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), _STDERR)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, _STDERR)
        os.close(kept)
