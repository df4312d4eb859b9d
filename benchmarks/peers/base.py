"""What a peer is: a server that answers for a model, and how to start it.

To add one: a module in this folder with a ``PEER``, and its program in ``programs/`` if the
server has no command line of its own. The programs lie apart from the peers because Python looks
for imports beside a program first, where ``fastapi`` would be ``peers/fastapi.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

PROGRAMS: Final = Path(__file__).parent / "programs"
HOST: Final = "127.0.0.1"


class Peer(Protocol):
    """A server under measurement. It listens on the loopback address only."""

    @property
    def name(self) -> str:
        """The name of its module."""
        ...

    @property
    def requirements(self) -> tuple[str, ...]:
        """Pinned packages; a virtual environment is made for them. None: the current one."""
        ...

    def command(self, python: Path, model: Path, port: int) -> list[str]:
        """What starts it, with the interpreter of its environment.

        The model is known by the stem of its file. The next two ports are free as well.
        """
        ...

    def environment(self) -> Mapping[str, str]:
        """Environment variables that it needs."""
        ...

    def supports(self, protocol: str) -> bool:
        """Whether it speaks ``v2-json``, ``v2-binary``, ``tfs`` or ``v2-grpc``."""
        ...

    def url(self, protocol: str, model: str, port: int) -> str:
        """Where it answers for the model."""
        ...


@dataclass(frozen=True)
class ProgramPeer:
    """A peer whose server is a program of ours: ``python programs/PROGRAM MODEL PORT``.

    Parameters
    ----------
    name : str
        The name of the peer's module.
    program : str
        File in `PROGRAMS`.
    requirements : tuple of str
        Pinned packages; empty for the environment that runs the benchmark.
    protocols : tuple of str
        What it speaks.
    variables : mapping of str to str
        Environment variables that it needs.
    arguments : tuple of str
        Further arguments of the program.
    shares : str
        The peer whose packages it has; empty: its own.
    """

    name: str
    program: str
    requirements: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ("v2-json",)
    variables: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    shares: str = ""

    def command(self, python: Path, model: Path, port: int) -> list[str]:
        """See `Peer.command`."""
        return [str(python), str(PROGRAMS / self.program), str(model), str(port), *self.arguments]

    def environment(self) -> Mapping[str, str]:
        """See `Peer.environment`."""
        return self.variables

    def supports(self, protocol: str) -> bool:
        """See `Peer.supports`."""
        return protocol in self.protocols

    def url(self, protocol: str, model: str, port: int) -> str:
        """See `Peer.url`."""
        return standard_url(protocol, model, port)


def standard_url(protocol: str, model: str, port: int) -> str:
    """Where the specifications of the protocols say that a model answers."""
    if protocol == "v2-grpc":
        return f"grpc://{HOST}:{port + 1}"
    path = f"v1/models/{model}:predict" if protocol == "tfs" else f"v2/models/{model}/infer"
    return f"http://{HOST}:{port}/{path}"
