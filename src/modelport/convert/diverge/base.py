"""A difference between an export and its source model, and what explains it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from modelport.adapters import adapters_of
from modelport.convert.base import Export, SourceModel
from modelport.core.compare import Tolerance
from modelport.core.rows import Rows
from modelport.core.tensors import Array

#: Rows that are looked at: enough to tell a constant from a coincidence.
ROWS: Final = 8


@dataclass(frozen=True)
class Case:
    """Rows on which an export gives other answers than its source model.

    Parameters
    ----------
    source : SourceModel
    export : Export
    inputs : dict of str to ndarray
        A few rows as served; where there is a batch, the worst row comes first.
    seen : Rows
        The same values for the source model, in the same order.
    expected : dict of str to ndarray
        The source model's answers, for the outputs of the export.
    tolerance : Tolerance
    wide : dict of str to ndarray
        `inputs` before they were rounded to the served element types; empty where there is no
        difference, or where it is not the rounded rows that are at fault.
    chosen : tuple of int
        Which rows of the sample (or of the probe) these are.
    """

    source: SourceModel
    export: Export
    inputs: dict[str, Array]
    seen: Rows
    expected: dict[str, Array]
    tolerance: Tolerance
    wide: dict[str, Array] = field(default_factory=dict)
    chosen: tuple[int, ...] = ()


@dataclass(frozen=True)
class Divergence:
    """Where an export parts from its source model, why, and what to do.

    Parameters
    ----------
    kind : str
        ``precision``, ``meaning``, ``order``, ``batch``, ``random``, ``optimization`` or
        ``source``.
    cause, remedy : str
        For people, each one sentence without a full stop.
    node : str
        The first ONNX node that departs: its name and operator.
    tensor : str
        The node's output that is compared.
    layer : str
        The source model's layer that is found nowhere in the graph.
    after : str
        The last layer of the source model that is found in the graph.
    position : tuple of int
        Of the worst element, in the tensor for the rows that were looked at.
    row : int or None
        Which row of the sample (or of the probe) that is.
    expected, actual : str
        Both values there.
    proven : bool
        True where undoing the cause gives the source model's values.
    repaired : bytes or None
        A model file with the cause undone.
    repair : str
        What was done to it: ``in float64``.
    """

    kind: str
    cause: str
    remedy: str
    node: str = ""
    tensor: str = ""
    layer: str = ""
    after: str = ""
    position: tuple[int, ...] = ()
    expected: str = ""
    actual: str = ""
    proven: bool = False
    repaired: bytes | None = None
    repair: str = ""
    row: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The plain form, for programs."""
        return {
            "kind": self.kind,
            "node": self.node,
            "tensor": self.tensor,
            "layer": self.layer,
            "after": self.after,
            "position": list(self.position),
            "row": self.row,
            "expected": self.expected,
            "actual": self.actual,
            "cause": self.cause,
            "proven": self.proven,
            "remedy": self.remedy,
        }

    def describe(self) -> str:
        """One line for people."""
        place = "; ".join(
            part
            for part in (
                f"they part at node {self.node}" if self.node else "",
                f"layer {self.layer}" + (f" (after {self.after})" if self.after else "")
                if self.layer
                else "",
            )
            if part
        )
        values = (
            f"the source has {self.expected}, the export {self.actual}"
            + (f" at {list(self.position)} of {self.tensor}" if self.position else "")
            + (f" (row {self.row})" if self.row is not None else "")
            if self.expected
            else ""
        )
        cause = f"cause: {self.cause}" if self.proven else f"likely cause: {self.cause}"
        start = ": ".join(part for part in (place, values) if part)
        return f"{start}{'; ' if start else ''}{cause}; remedy: {self.remedy}"


class Inspector(Protocol):
    """What can look into the exports of one engine."""

    def find(self, case: Case) -> Divergence | None:
        """Where the export parts from the source model; None where nothing can be told."""
        ...


def find_divergence(case: Case) -> Divergence | None:
    """Explain a difference, where something here knows how to look into the export."""
    for adapter in adapters_of("inspector"):
        if adapter.name != case.export.engine or adapter.missing():
            continue
        inspector: Inspector = adapter.load()
        try:
            return _with_row(inspector.find(case), case)
        except Exception:
            return None
    return None


def _with_row(found: Divergence | None, case: Case) -> Divergence | None:
    if found is None or not found.position or not case.chosen:
        return found
    first = found.position[0]
    return replace(found, row=case.chosen[first]) if first < len(case.chosen) else found
