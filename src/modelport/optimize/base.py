"""What passes make, and what they are given.

::

    original ──pass──▶ variants ──pass──▶ variants      (reduce, then numbers, then load)
        │                  │                  │
        └────── all of them measured together, each in a process of its own
                           │
                       frontier ──▶ the fastest one inside the budget, or the original

A pass only proposes. What a variant is worth is measured in a fresh process at the settings that
a server uses, on rows that no pass has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from modelport.core.artifact import Artifact
from modelport.core.signature import Signature
from modelport.core.tensors import Array, Tensors
from modelport.engines.base import BARE_FILE_ENGINE

Progress = Callable[[str], None]

#: The order in which passes build on each other: fewer operations, then cheaper numbers, then
#: what makes a file load and run faster without changing its answers.
REDUCE: Final = "reduce"
NUMBERS: Final = "numbers"
LOAD: Final = "load"
ORDER: Final = (REDUCE, NUMBERS, LOAD)

#: The pass that teaches a network of the user's.
OWN_STUDENT: Final = "own-student"


@dataclass(frozen=True)
class Variant:
    """A model that could stand in for the original.

    Parameters
    ----------
    name : str
        What people call it: ``int8 static``; made of the passes' names.
    model : bytes
        What the engine opens.
    passes : tuple of str
        The passes that made it, in order; empty for the original.
    detail : mapping
        What the passes chose, plain: nodes left float, calibration, channels.
    files : mapping of str to bytes
        Files of processing steps that it replaces, by their names in the package.
    row_independent : bool
        False when its answer to a row depends on the rows beside it although the original's does
        not: a range that is found at run time is that of the whole batch.
    engine : str
        What opens it.
    """

    name: str
    model: bytes = field(repr=False)
    passes: tuple[str, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    row_independent: bool = True
    engine: str = BARE_FILE_ENGINE

    def then(self, name: str, model: bytes, **detail: Any) -> Variant:
        """What a pass makes of this one.

        Parameters
        ----------
        name : str
            ``PASS`` or ``PASS, what it chose``.
        model : bytes
        **detail
            What it chose, plain.
        """
        by = name.partition(",")[0]
        return Variant(
            name=f"{self.name} + {name}" if self.passes else name,
            model=model,
            passes=(*self.passes, by),
            detail={**self.detail, by: detail},
            files=self.files,
            row_independent=self.row_independent,
            engine=self.engine,
        )


@dataclass(frozen=True)
class OwnStudent:
    """A network that the user gives, to be taught.

    Parameters
    ----------
    name : str
        What people call it: that of the function that made it.
    network : object
        Of a framework that an adapter teaches; it is changed.
    convert : callable
        From the network, and rows by the names of its inputs, to the artifact that is proven to
        give its answers.
    """

    name: str
    network: Any = field(repr=False)
    convert: Callable[[Any, Tensors, Progress], Artifact] = field(repr=False)


@dataclass(frozen=True)
class Subject:
    """What a pass works on.

    Parameters
    ----------
    variant : Variant
        What it changes: the original, or what an earlier pass made of it.
    signature : Signature
        The engine's, without processing.
    rows : mapping of str to ndarray
        Inputs that passes may calibrate and train on; never those that variants are judged by.
    answers : mapping of str to ndarray
        What the original answers to them.
    threads : int
        With which it will be served.
    max_drop : float
        What the metric may lose, for passes that weigh one against the other.
    deadline : float
        In the time of `time.monotonic`: a pass that trains ends before.
    task : str
        As the package's manifest has it: ``classification``, ``regression`` …, or empty.
    target : ndarray or None
        The right answers to `rows`, where people gave them: passes that train may learn from them
        too.
    student : OwnStudent or None
        That the user gave.
    """

    variant: Variant
    signature: Signature
    rows: Tensors = field(repr=False)
    answers: Tensors = field(repr=False)
    threads: int = 1
    max_drop: float = 0.01
    deadline: float = float("inf")
    task: str = ""
    target: Array | None = field(default=None, repr=False)
    student: OwnStudent | None = None


class Pass(Protocol):
    """A way to make models smaller or faster.

    Attributes
    ----------
    name : str
        As ``--passes`` has it.
    order : str
        One of `ORDER`.
    tolerance : float
        How far an answer may be from the original's when nothing was trained and the rows are like
        those it was calibrated with, as a share of the largest answer; infinity: learned passes
        and those that leave parts out, whose loss only the judge knows.
    """

    name: str
    order: str
    tolerance: float

    def refuses(self, subject: Subject) -> str:
        """Why it cannot do anything for this model; empty: it can try."""
        ...

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """Make variants, the most promising one first.

        Raises
        ------
        UnsupportedError
            When it turns out only now that it cannot; the message is shown as the reason.
        """
        ...
