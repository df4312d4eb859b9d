"""The messages of the gRPC protocols, in a descriptor pool of their own.

Protobuf's default pool belongs to whoever else is in the process: a second definition of the same
message there (tritonclient's, tensorflow's) would be an error. So no generated code is used; the
``.proto`` files beside this one are compiled into one descriptor set by ``build.py``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTORS: Final = Path(__file__).with_name("descriptors.binpb")


@cache
def pool() -> Any:
    """The descriptor pool with every file of `DESCRIPTORS`."""
    own = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    for file in files.file:  # protoc puts every file behind those that it imports
        own.Add(file)
    return own


@cache
def message(name: str) -> Any:
    """The class of a message.

    Parameters
    ----------
    name : str
        Its full name: ``inference.ModelInferRequest``.

    Raises
    ------
    KeyError
        When no file declares it.
    """
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


@cache
def service(name: str) -> Any:
    """The descriptor of a service: ``service("grpc.health.v1.Health").methods``.

    Raises
    ------
    KeyError
        When no file declares it.
    """
    return pool().FindServiceByName(name)
