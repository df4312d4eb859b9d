"""V2's model repository: what is there, and loading and unloading it; for REST and for gRPC.

Source: Triton's ``docs/protocol/extension_model_repository.md`` and ``src/http_server.cc``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modelport.core.errors import InputError
from modelport.core.manifest import check_name
from modelport.serve.models import ServedModel, State
from modelport.serve.table import ModelTable

_STATES: Final = {
    State.LOADING: "LOADING",
    State.UNLOADING: "UNLOADING",
    State.END: "UNAVAILABLE",
}


def repository_index(table: ModelTable, *, ready: bool = False) -> list[dict[str, str]]:
    """Every version of every model with its state, and the reason where it has one.

    Parameters
    ----------
    table : ModelTable
    ready : bool
        Only those that can answer.
    """
    items = [_item(table, model) for model in table.models]
    return [item for item in items if item["state"] == "READY" or not ready]


def _item(table: ModelTable, model: ServedModel) -> dict[str, str]:
    if model.state is State.AVAILABLE:
        # Other workers may load it still.
        state = "READY" if table.metrics.ready_everywhere(model.index) else "LOADING"
    else:
        state = _STATES[model.state]
    reason = model.error or ("unloaded" if model.state is State.END else "")
    return {
        "name": model.spec.name,
        "version": str(model.spec.version),
        "state": state,
        "reason": reason,
    }


def load_model(table: ModelTable, name: str, parameters: Mapping[str, Any]) -> None:
    """Load all versions of a model from the model store.

    Parameters
    ----------
    table : ModelTable
    name : str
    parameters : mapping
        Of the request. ``config`` and ``file:…`` are refused: a package has its own.

    Raises
    ------
    ModelportError
        As `ModelTable.load`.
    """
    for key in parameters:
        if key == "config" or key.startswith("file:"):
            raise InputError(
                f"parameter {key[:80]!r} is not supported: a model is loaded as it was packed",
                where="parameters",
            )
        raise InputError(f"unknown parameter {key[:80]!r} of a load request", where="parameters")
    if name not in table.names:
        check_name(name)
    table.load(name)


def unload_model(table: ModelTable, name: str, parameters: Mapping[str, Any]) -> None:
    """Unload all versions of a model, once its running requests are answered.

    Parameters
    ----------
    table : ModelTable
    name : str
    parameters : mapping
        Of the request. ``unload_dependents`` changes nothing: no model here depends on another.

    Raises
    ------
    ModelportError
        As `ModelTable.unload`.
    """
    for key, value in parameters.items():
        if key != "unload_dependents":
            raise InputError(
                f"unknown parameter {key[:80]!r} of an unload request", where="parameters"
            )
        if not isinstance(value, bool):
            raise InputError("parameter 'unload_dependents' is not a boolean", where="parameters")
    table.unload(name)
