"""gRPC on grpcio: threads that block, through `App.answer`."""

from __future__ import annotations

from collections.abc import Callable

from modelport.core.options import ServeOptions
from modelport.serve.app import App


class GrpcTransport:
    """See the module."""

    def start(self, app: App, options: ServeOptions) -> Callable[[float], Callable[[], None]]:
        """See `modelport.serve.base.SideTransport.start`."""
        raise NotImplementedError
