"""TensorFlow Serving's ``HandleReloadConfigRequest``: the models that are to be served from now on.

The list replaces the one before: what it leaves out is unloaded, after all that it names is loaded.
Source: ``tensorflow/serving`` (``model_service_impl.cc``, ``model_server_config.proto``).
"""

from __future__ import annotations

from typing import Any

from modelport.core.errors import (
    InputError,
    ModelportError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from modelport.serve.models import ServedModel, State
from modelport.serve.statuses import grpc_code, status_of
from modelport.serve.table import ModelTable
from modelport.serve.tfserving.models import CODES


def reload_config(table: ModelTable, config: Any) -> tuple[int, str]:
    """Serve what a configuration names, and nothing else.

    Parameters
    ----------
    table : ModelTable
    config : tensorflow.serving.ModelServerConfig

    Returns
    -------
    int, str
        The gRPC status code and its message. When it is not 0, a model could not be loaded, and
        nothing was unloaded.

    Raises
    ------
    UnavailableError
        When clients may not load and unload models.
    """
    try:
        configs = _checked(config)
        kept = {item.name: _load(table, item) for item in configs}
        for name in table.names:
            for model in table.versions(name):
                if model.state is not State.END and model not in kept.get(name, ()):
                    table.unload(name, str(model.spec.version))
    except ModelportError as error:
        if type(error) is UnavailableError:
            raise
        return CODES[grpc_code(status_of(error))], error.line
    return CODES["OK"], ""


def _checked(config: Any) -> list[Any]:
    if config.WhichOneof("config") != "model_config_list":
        raise UnsupportedError("the configuration has no model_config_list, and no other is known")
    configs = list(config.model_config_list.config)
    names = [item.name for item in configs]
    for position, item in enumerate(configs):
        where = f"model_config_list.config[{position}]"
        if not item.name:
            raise InputError("the model has no name", where=where)
        if item.name in names[:position]:
            raise InputError(f"Illegal to list model {item.name[:80]} multiple times", where=where)
        if item.version_labels:
            raise UnsupportedError(
                "version_labels cannot be set: labels are the registry's aliases", where=where
            )
    return configs


def _load(table: ModelTable, config: Any) -> list[ServedModel]:
    """Load a model, and say which of its versions are to stay."""
    loaded = table.load(config.name, config.base_path)
    versions = sorted(
        (model for model in loaded if model.state is State.AVAILABLE),
        key=lambda model: model.spec.version,
    )
    policy = config.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "latest":
        return versions[-max(1, policy.latest.num_versions) :]
    if choice != "specific":
        return versions
    known = [model.spec.version for model in versions]
    for wanted in policy.specific.versions:
        if wanted not in known:
            raise NotFoundError(
                f"version of model {config.name}", str(wanted), [str(number) for number in known]
            )
    return [model for model in versions if model.spec.version in policy.specific.versions]
