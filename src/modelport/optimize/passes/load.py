"""The graph as ONNX Runtime would make it at every start, made once.

Constants folded, operators fused. Blocked layouts, which only processors with the same vector
length can run, are left to the start. The answers are those of the original's own optimized
graph, so the loss is nothing but rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from modelport.core.errors import UnsupportedError
from modelport.optimize.base import LOAD, Progress, Subject, Variant
from modelport.optimize.onnx_graph import nodes, parse
from modelport.optimize.session import optimized

#: Weights that are widened again, or computed constants, cost more than they save.
_LARGER: Final = 1.1
#: Bytes that every graph may gain: the versions of all operators that the runtime knows.
_HEADER: Final = 4096


class LoadPass:
    """See the module."""

    name = "load"
    order = LOAD
    #: The largest error on calibration rows of a single operator, as a share of the largest output.
    tolerance = 1e-4

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        return ""

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        before = subject.variant.model
        content = optimized(before)
        if _kinds(content) == _kinds(before):
            raise UnsupportedError("a start changes nothing in this graph")
        if len(content) > _LARGER * len(before) + _HEADER:
            raise UnsupportedError(
                f"made once, it would take {len(content) / 1e6:.2f} MB instead of "
                f"{len(before) / 1e6:.2f}"
            )
        yield subject.variant.then("load", content)


def _kinds(model: bytes) -> Counter[str]:
    """How many nodes there are of each type."""
    return Counter(node.op_type for node in nodes(parse(model)))
