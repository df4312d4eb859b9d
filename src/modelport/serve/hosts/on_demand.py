"""An application that is loaded once, when somebody first needs it, in the process that answers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from weakref import WeakSet

from modelport.serve.app import App


class OnDemand:
    """Loads an `App` once per process.

    Servers that fork their workers import the code before: what is loaded then is of no use in
    a child, since the engine's threads stay behind. So a child forgets it and loads by itself.

    Parameters
    ----------
    load : callable
        Loads and proves the models; may raise a `ModelportError`, and is then called again for
        the next who asks.
    """

    def __init__(self, load: Callable[[], App]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._app: App | None = None
        _all.add(self)

    @property
    def app(self) -> App | None:
        """What is loaded, if it is."""
        return self._app

    def get(self) -> App:
        """What is loaded; whoever comes first loads it, the others wait.

        Raises
        ------
        ModelportError
            When it cannot be loaded.
        """
        if (app := self._app) is not None:
            return app
        with self._lock:
            if (app := self._app) is None:
                app = self._app = self._load()
            return app

    def forget(self) -> None:
        """Begin again, as in a forked child."""
        self._lock = threading.Lock()
        self._app = None


_all: WeakSet[OnDemand] = WeakSet()


def _forget_all() -> None:
    for item in list(_all):
        item.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
