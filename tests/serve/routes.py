"""Every route of THE table, and how a server is started that has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from modelport.adapters import adapters_of
from modelport.core.options import ServeOptions
from modelport.serve.base import Route, WireProtocol

#: Everything that adds routes is switched on.
OPTIONS: Final = ServeOptions(
    model_control=True, predict_route="/my/predict", health_route="/my/health"
)
FLAGS: Final = ("--predict-route", OPTIONS.predict_route, "--health-route", OPTIONS.health_route)


#: SageMaker's multi-model contract takes TorchServe's management paths.
MULTI_MODEL: Final = replace(OPTIONS, multi_model=True)


def routes_of(kind: str, options: ServeOptions = OPTIONS) -> list[tuple[WireProtocol, Route]]:
    """Every route of every ``protocol`` (HTTP) or ``rpc`` (gRPC), from THE table."""
    protocols: list[WireProtocol] = [adapter.load() for adapter in adapters_of(kind)]
    return [(protocol, route) for protocol in protocols for route in protocol.routes(options)]


def label(protocol: WireProtocol, route: Route) -> str:
    """What a test calls a route."""
    return f"{protocol.name} {route.method} {route.example}"
