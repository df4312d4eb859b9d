"""What teaching a network of the user's needs from its framework."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Protocol

from modelport.adapters import Adapter, adapters_of
from modelport.core.errors import InputError, ModelportError, UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.given.lesson import Head, Lesson

_COLOURS: Final = re.compile(r"\x1b\[\d*m")


class Pupil(Protocol):
    """A network that is being taught."""

    def step(self, batch: Lesson, rate: float) -> float:
        """Learn from some rows at a learning rate; the loss before, which may be NaN."""
        ...

    def loss(self, part: Lesson) -> float:
        """The mean loss on some rows, as at inference, against the original's answers alone."""
        ...

    def keep(self) -> None:
        """Remember the weights as they are now."""
        ...

    def restore(self) -> None:
        """Go back to the weights that were kept last."""
        ...


class Teacher(Protocol):
    """An adapter: how networks of one framework are called and taught.

    It answers for objects whose classes come from the first package that it requires.
    """

    def recognises(self, network: Any) -> bool:
        """Whether an object of its framework is a network."""
        ...

    def answers(self, network: Any, rows: Sequence[Array]) -> list[Array]:
        """A network's outputs in their order, as at inference.

        Parameters
        ----------
        network : object
        rows : sequence of ndarray
            Its inputs, in their order.
        """
        ...

    def pupil(self, network: Any, heads: Sequence[Head]) -> AbstractContextManager[Pupil]:
        """The network while it is taught; afterwards it is ready for inference.

        Parameters
        ----------
        network : object
            Called once already.
        heads : sequence of Head
            What its outputs learn, in their order.
        """
        ...

    def columns(self, network: Any, rows: Sequence[Array]) -> Tensors:
        """The inputs by the names under which the convert stage looks for them."""
        ...


def is_network(thing: Any) -> bool:
    """Whether something is a network and not a function that makes one; both can be called."""
    return any(adapter.load().recognises(thing) for adapter in _adapters_for(thing))


def teacher_of(network: Any) -> Teacher:
    """The adapter that teaches a network; no other framework is imported to find it.

    Raises
    ------
    InputError
        When nothing here teaches such objects.
    MissingPackageError
        When a package that its adapter needs is not installed.
    """
    for adapter in _adapters_for(network):
        teacher: Teacher = adapter.load()
        if teacher.recognises(network):
            return teacher
    raise InputError(
        f"an object of {type(network).__name__} is no student",
        where="--student",
        hint="an untrained torch.nn.Module or keras.Model, or a function without arguments that "
        "returns one",
    )


def _adapters_for(thing: Any) -> list[Adapter]:
    """Those whose framework has a class of the object's."""
    roots = {cls.__module__.partition(".")[0] for cls in type(thing).__mro__}
    return [adapter for adapter in adapters_of("teacher") if adapter.requires[0] in roots]


@contextmanager
def own_code(what: str) -> Iterator[None]:
    """The user's network runs in the block: whatever it raises becomes a reason to refuse it.

    Raises
    ------
    UnsupportedError
        ``WHAT: what it said``, on one line.
    """
    try:
        yield
    except ModelportError:
        raise
    except Exception as error:  # networks raise whatever they like
        text = _COLOURS.sub("", str(error))
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        told = [line for line in lines if not line.startswith("Exception encountered when calling")]
        said = next(iter(told or lines), "")
        raise UnsupportedError(f"{what}: {type(error).__name__}: {said}") from error
