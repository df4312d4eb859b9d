"""What can run here."""

from __future__ import annotations

from typing import Any

from modelport.core.options import RegistryOptions
from modelport.core.settings import resolve


def doctor(*, registry: RegistryOptions | None = None) -> dict[str, Any]:
    """Find out what can run here.

    Returns
    -------
    dict
        ``system``: facts for people; ``adapters``: one record each, ``install`` naming what
        would bring a missing one; ``healthy``: whether everything without an extra is there.
    """
    import platform

    from modelport import __version__
    from modelport.adapters import TABLE
    from modelport.serve.limits import usable_cores

    options = registry or resolve(RegistryOptions)
    adapters = []
    for adapter in TABLE:
        missing = adapter.missing()
        adapters.append(
            {
                "kind": adapter.kind,
                "name": adapter.name,
                "summary": adapter.summary,
                "missing": missing,
                "extra": adapter.extra,
                "install": _install_command(adapter.extra) if missing else "",
            }
        )
    return {
        "system": {
            "modelport": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cores": usable_cores(),
            "registry": options.registry,
        },
        "adapters": adapters,
        "healthy": not any(a["missing"] and not a["extra"] for a in adapters),
    }


def _install_command(extra: str) -> str:
    return f'pip install "modelport[{extra}]"' if extra else "pip install modelport"
