"""The flags that say which registry is meant."""

from __future__ import annotations

import argparse

from modelport.core.options import RegistryOptions
from modelport.core.settings import resolve


def add_registry(parser: argparse.ArgumentParser) -> None:
    """Add ``--registry`` to a verb."""
    parser.add_argument(
        "--registry",
        metavar="URL",
        help="folder or URL (MODELPORT_REGISTRY; default ~/.modelport/registry)",
    )


def registry_options(options: argparse.Namespace) -> RegistryOptions:
    """Resolve the registry from flags, environment and settings file."""
    return resolve(RegistryOptions, {"registry": options.registry})
