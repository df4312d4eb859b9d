"""How many columns the matrices of a graph have, as one row shows."""

from __future__ import annotations

import onnx

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Tensors
from modelport.optimize.session import Probe, batches


def widths_of(model: onnx.ModelProto, rows: Tensors) -> dict[str, int]:
    """Columns of all tensors with two dimensions, the first of which is that of rows.

    Two rows are run, operator by operator, or as many as the graph takes.

    Raises
    ------
    UnsupportedError
        When the graph does not run on them.
    """
    graph = model.graph
    names = [name for node in graph.node for name in node.output if name]
    some = next(batches(model, rows, 2), None)
    if some is None:
        raise UnsupportedError("there are fewer rows than the graph takes at once")
    try:
        found = Probe(model, names).run(some)
    except UnsupportedError:
        raise
    except Exception as error:  # ONNX Runtime has no common base class for its errors
        line = str(error).partition("\n")[0]
        raise UnsupportedError(f"the graph does not run on two rows: {line}") from error
    arrays = {**found, **some}
    return {
        name: int(array.shape[1])
        for name, array in arrays.items()
        if array.ndim == 2 and array.shape[0] == len(next(iter(some.values())))
    }
