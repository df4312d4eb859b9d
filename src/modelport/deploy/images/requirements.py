"""Which packages of Python a model's server needs."""

from __future__ import annotations

from typing import Final

from modelport.adapters import find_adapter
from modelport.core.errors import InputError, UnsupportedError
from modelport.core.package import Package
from modelport.deploy.images.wheels import SERVER, Pin, read_lock

#: What a server starts without: gRPC, zstd, Lambda.
_OPTIONAL: Final = {
    "awslambdaric",
    "grpcio",
    "simplejson",
    "snapshot-restore-py",
    "typing-extensions",
    "zstandard",
}


def requirements(package: Package, lock: str) -> list[Pin]:
    """The requirements of a package's server.

    Raises
    ------
    UnsupportedError
        When modelport's own lock file lacks what the package needs.
    InputError
        When the user's lacks what the server needs.
    """
    manifest = package.manifest
    own = read_lock("")
    steps = manifest.processing.steps if manifest.processing is not None else ()
    extras = {find_adapter("engine", manifest.engine).extra}
    extras |= {find_adapter("processor", step.kind).extra for step in steps}
    extras -= {""}
    if not lock:
        known = {group for pin in own for group in pin.via}
        if missing := sorted(extras - known):
            raise UnsupportedError(
                f"{manifest.name} needs {', '.join(missing)}, and modelport's lock file does not",
                hint="--lock FILE: requirements with hashes, such as 'uv pip compile "
                f"--generate-hashes' writes for modelport[grpc,zstd,{','.join(missing)}]",
            )
        return [pin for pin in own if {SERVER, *extras} & set(pin.via)]
    pins = [pin for pin in read_lock(lock) if pin.name != "modelport"]
    needed = {pin.name for pin in own if SERVER in pin.via} - _OPTIONAL
    if missing := sorted(needed - {pin.name for pin in pins}):
        raise InputError(
            f"the lock file lacks what the server needs: {', '.join(missing)}", where=lock
        )
    return pins
