"""Half the bytes: weights as float16, or everything as float16.

Processors without float16 arithmetic compute in float32 all the same, with conversions around
every operator, so "everything" is usually slower there; weights that are widened once at the
start cost nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelport.optimize.base import NUMBERS, Progress, Subject, Variant
from modelport.optimize.onnx_graph import graphs, parse, serialize

#: Smaller ones are not worth a node.
_LEAST: Final = 1024
_LARGEST: Final = float(np.finfo(np.float16).max)


class Float16Pass:
    """Stores weights as float16 and widens them at the start, where they fit."""

    name = "float16"
    order = NUMBERS

    def refuses(self, subject: Subject) -> str:
        """See `modelport.optimize.base.Pass.refuses`."""
        found = any(
            _fits(item)
            for graph in graphs(parse(subject.variant.model).graph)
            for item in graph.initializer
        )
        return "" if found else f"no float32 weights of at least {_LEAST} numbers"

    def variants(self, subject: Subject, report: Progress) -> Iterator[Variant]:
        """See `modelport.optimize.base.Pass.variants`."""
        model = parse(subject.variant.model)
        narrowed = sum(_narrow(graph) for graph in graphs(model.graph))
        yield subject.variant.then("float16", serialize(model), weights=narrowed)


def _fits(item: onnx.TensorProto) -> bool:
    if item.data_type != onnx.TensorProto.FLOAT or int(np.prod(item.dims)) < _LEAST:
        return False
    array = numpy_helper.to_array(item)
    return bool(np.abs(array).max(initial=0.0) < _LARGEST)


def _narrow(graph: onnx.GraphProto) -> int:
    """Replace weights by narrow ones and a Cast, which is folded at the start."""
    casts = []
    for item in graph.initializer:
        if not _fits(item):
            continue
        name = item.name
        array = numpy_helper.to_array(item).astype(np.float16)
        item.CopyFrom(numpy_helper.from_array(array, f"{name}__float16"))
        casts.append(
            helper.make_node("Cast", [item.name], [name], f"{name}__widen", to=onnx.TensorProto.FLOAT)
        )
    # Before everything that uses them: nodes are in the order of their use.
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return len(casts)
