"""Optional packages: imported on first use, or explained."""

from __future__ import annotations

import importlib
from types import ModuleType

from modelport.core.errors import MissingPackageError


def load_module(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import `module`, or say which extra brings what it needs.

    Parameters
    ----------
    module : str
        Dotted name.
    extra : str
        The extra of modelport that installs its requirements; empty for none.
    purpose : str
        What it is needed for: "to read scikit-learn models".

    Raises
    ------
    MissingPackageError
        When the module, or a package that it imports, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "modelport":
            raise
        package = f"modelport[{extra}]" if extra else str(error.name)
        raise MissingPackageError(
            f"package {error.name} is needed {purpose}",
            hint=f'install it with: pip install "{package}"',
        ) from error
