"""A port of this machine that leads to somewhere that is only reached through an SDK."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

_CHUNK: Final = 1 << 16


class Relay:
    """Listens on a free port of 127.0.0.1, and joins every connection with one from `open_remote`.

    Parameters
    ----------
    open_remote : callable
        A connected socket, or something with its ``recv``, ``sendall``, ``shutdown`` and
        ``close``. What it raises ends the connection that asked for it, not the relay.
    """

    def __init__(self, open_remote: Callable[[], Any]) -> None:
        self._open_remote = open_remote
        self._joined: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True, name=f"relay {self.port}").start()

    def close(self) -> None:
        """End every connection, and take no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for local in list(self._joined):
            with contextlib.suppress(OSError):
                local.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                local, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._joined.add(local)
            threading.Thread(target=self._join, args=(local,), daemon=True).start()

    def _join(self, local: socket.socket) -> None:
        with contextlib.closing(local):
            try:
                remote = self._open_remote()
            except Exception:
                # Whoever asked sees a closed connection, and says so; here nobody could.
                self._joined.discard(local)
                return
            with contextlib.closing(remote):
                back = threading.Thread(target=_copy, args=(remote, local), daemon=True)
                back.start()
                _copy(local, remote)
                back.join()
            self._joined.discard(local)


def _copy(source: Any, sink: Any) -> None:
    """Copy until one of both ends, then end both directions of the sink."""
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
