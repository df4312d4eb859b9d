"""ONNX Runtime as passes use it: to fold graphs, and to look at tensors inside them.

Nothing here is measured: what variants are worth is found out in processes of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import onnx
import onnxruntime
from onnx import helper

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.onnx_graph import serialize

_FATAL_ONLY: Final = 4
_BASIC: Final = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
_ALL: Final = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
#: Writes graphs in blocks of the machine's own vector length.
_TIED_TO_THE_MACHINE: Final = ("NchwcTransformer",)


def simplified(model: bytes) -> bytes:
    """The graph with constants folded and batch norms merged, in standard operators only.

    It is what quantizers start from: what further optimization makes (``FusedConv``, blocked
    layouts) they do not know.

    Raises
    ------
    UnsupportedError
        When ONNX Runtime does not load it.
    """
    return _optimized(model, _BASIC, ())


def optimized(model: bytes) -> bytes:
    """The graph as ONNX Runtime makes it when it loads it, as far as any machine can run it.

    Raises
    ------
    UnsupportedError
        When ONNX Runtime does not load it.
    """
    return _optimized(model, _ALL, _TIED_TO_THE_MACHINE)


def _optimized(
    model: bytes, level: onnxruntime.GraphOptimizationLevel, without: Sequence[str]
) -> bytes:
    with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
        path = Path(folder) / "model.onnx"
        options = _options(level)
        options.optimized_model_filepath = str(path)
        _open(model, options, without)
        return path.read_bytes()


class Probe:
    """A graph whose inner tensors can be read.

    Parameters
    ----------
    model : ModelProto
    tensors : iterable of str
        Those that are wanted, beside the outputs.
    optimize : bool
        False: operator by operator as written, so that a quantized graph gives what it says.
    threads : int
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        tensors: Iterable[str],
        *,
        optimize: bool = False,
        threads: int = 1,
    ) -> None:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        present = {value.name for value in copy.graph.output}
        for name in dict.fromkeys(tensors):
            if name not in present:
                copy.graph.output.append(helper.make_empty_tensor_value_info(name))
        level = _BASIC if optimize else onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options = _options(level)
        options.intra_op_num_threads = threads
        self._session = _open(serialize(copy), options, ())
        self.names = [node.name for node in self._session.get_outputs()]

    def run(self, rows: Tensors, names: Sequence[str] | None = None) -> dict[str, Array]:
        """The tensors of these names, or all."""
        wanted = list(names or self.names)
        return dict(zip(wanted, self._session.run(wanted, dict(rows)), strict=True))


def batches(rows: Tensors, size: int) -> Iterator[dict[str, Array]]:
    """The rows, so many at a time."""
    count = len(next(iter(rows.values())))
    for at in range(0, count, size):
        yield {name: array[at : at + size] for name, array in rows.items()}


def _options(level: onnxruntime.GraphOptimizationLevel) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open(
    model: bytes, options: onnxruntime.SessionOptions, without: Sequence[str]
) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
        )
    except Exception as error:  # ONNX Runtime has no common base class for its errors
        raise UnsupportedError(f"ONNX Runtime does not load the graph: {error}") from error
