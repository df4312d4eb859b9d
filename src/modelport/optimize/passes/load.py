"""The graph as ONNX Runtime would make it at every start, made once.

Constants folded, operators fused. Blocked layouts, which only processors with the same vector
length can run, are left to the start. The answers are those of the original's own optimized
graph, so the loss is nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

from modelport.optimize.base import LOAD, Progress, Subject, Variant
from modelport.optimize.session import optimized


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
        yield subject.variant.then("load", optimized(subject.variant.model))
