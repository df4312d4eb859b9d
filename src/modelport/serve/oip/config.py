"""What a server and its models are, as V2 tells it: metadata, and Triton's configuration.

Plain data with the keys of the JSON and of the gRPC messages alike. Source:
``kserve/open-inference-protocol``, Triton's ``docs/protocol/extension_model_configuration.md``
and ``model_config.proto``.
"""

from __future__ import annotations

from typing import Any

from modelport import __version__
from modelport.core.options import ServeOptions
from modelport.core.tensors import BYTES, TensorSpec
from modelport.serve.base import ModelIdentity, Place
from modelport.serve.models import State
from modelport.serve.oip.codec import CONTENT, DATATYPES
from modelport.serve.table import ModelTable


def server_metadata(options: ServeOptions) -> dict[str, Any]:
    """Name, version, and the extensions that this server does in full."""
    extensions = ["binary_tensor_data", "classification", "model_configuration", "statistics"]
    if options.model_control:
        extensions += ["model_repository", "model_repository(unload_dependents)"]
    return {"name": "modelport", "version": __version__, "extensions": extensions}


def model_metadata(table: ModelTable, place: Place) -> dict[str, Any]:
    """Names, datatypes and shapes (-1: any size) of a model's inputs and outputs.

    Raises
    ------
    NotFoundError
    UnavailableError
        While it is not loaded.
    """
    model = table.get(place.model, place.version)
    identity, _ = model.ready()
    return {
        "name": identity.name,
        "versions": [
            str(other.spec.version)
            for other in table.versions(identity.name)
            if other.state is State.AVAILABLE
        ],
        "platform": identity.platform,
        "inputs": [_tensor_metadata(spec) for spec in identity.signature.inputs],
        "outputs": [_tensor_metadata(spec) for spec in identity.signature.outputs],
        "properties": {"digest": model.spec.digest} if model.spec.digest else {},
    }


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": spec.name,
        "datatype": DATATYPES[spec.dtype],
        "shape": _sizes(spec.shape),
    }
    if spec.columns:
        metadata["parameters"] = {"columns": ",".join(spec.columns)}
    if spec.dtype == BYTES:
        metadata["parameters"] = {CONTENT: BYTES}
    return metadata


def model_config(identity: ModelIdentity, max_batch: int) -> dict[str, Any]:
    """Triton's ``ModelConfig`` of a model.

    Where all inputs and outputs share a leading open dimension, ``dims`` leave it out and
    ``max_batch_size`` is above 0, as Triton has it.

    Parameters
    ----------
    identity : ModelIdentity
    max_batch : int
        Most rows that requests may share in one execution; a single request may have more.
    """
    batched = identity.signature.batch_symbol is not None
    return {
        "name": identity.name,
        "platform": identity.platform,
        "backend": identity.platform.partition("_")[0],
        "version_policy": {"all": {}},
        "max_batch_size": max(1, max_batch) if batched else 0,
        "input": [
            {
                **_tensor_config(spec, batched),
                "format": "FORMAT_NONE",
                "allow_ragged_batch": False,
                "optional": False,
            }
            for spec in identity.signature.inputs
        ],
        "output": [
            {**_tensor_config(spec, batched), "label_filename": ""}
            for spec in identity.signature.outputs
        ],
        "model_transaction_policy": {"decoupled": False},
    }


def _tensor_config(spec: TensorSpec, batched: bool) -> dict[str, Any]:
    dims = _sizes(spec.shape[1:] if batched else spec.shape)
    datatype = DATATYPES[spec.dtype]
    config: dict[str, Any] = {
        "name": spec.name,
        "data_type": f"TYPE_{'STRING' if datatype == 'BYTES' else datatype}",
        # Triton has no empty list here: one element, which the shape of the tensor leaves out.
        "dims": dims or [1],
        "is_shape_tensor": False,
    }
    if not dims:
        config["reshape"] = {"shape": []}
    return config


def _sizes(shape: tuple[int | str, ...]) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in shape]
