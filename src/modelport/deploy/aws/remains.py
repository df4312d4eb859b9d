"""What an endpoint leaves behind: the configurations and models of its earlier versions.

They cannot be changed, so every update makes new ones; going back needs the old ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any


def configurations(client: Any, service: str) -> Iterator[str]:
    """The configurations that modelport made for a service, by what it calls them.

    Source: the API reference of ``ListEndpointConfigs``.
    """
    ours = re.compile(rf"{re.escape(service)}-(?:[0-9a-f]{{12}}|models)-[0-9a-f]{{8}}")
    more: dict[str, Any] = {}
    while True:
        found = client.list_endpoint_configs(NameContains=f"{service}-", MaxResults=100, **more)
        names = (item["EndpointConfigName"] for item in found["EndpointConfigs"])
        yield from (name for name in names if ours.fullmatch(name))
        if not found.get("NextToken"):
            return
        more = {"NextToken": found["NextToken"]}


def deletions(client: Any, service: str) -> list[tuple[str, dict[str, str]]]:
    """What deletes them, and the models that they name: operations with their parameters."""
    names = list(configurations(client, service))
    models = set()
    for name in names:
        found = client.describe_endpoint_config(EndpointConfigName=name)
        models |= {variant["ModelName"] for variant in found["ProductionVariants"]}
    return [
        *(("delete_endpoint_config", {"EndpointConfigName": name}) for name in names),
        *(("delete_model", {"ModelName": model}) for model in sorted(models)),
    ]
