"""ONNX Runtime as passes use it: to fold graphs, and to look at tensors inside them.

Nothing here is measured: what variants are worth is found out in processes of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.onnx_graph import reads, serialize

_FATAL_ONLY: Final = 4
_BASIC: Final = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
_ALL: Final = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
#: Writes graphs in blocks of the machine's own vector length.
_TIED_TO_THE_MACHINE: Final = ("NchwcTransformer",)
_SERVED: Final = 16


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
        return dict(zip(wanted, _run(self._session, wanted, rows), strict=True))


class Walk:
    """A graph that is executed bit by bit, operator by operator as written.

    What has been computed is kept as long as something still needs it, so a walk along all
    tensors costs one execution, and weights that lie ahead may be changed on the way.

    Parameters
    ----------
    model : ModelProto
        May be changed where it has not been yet.
    rows : mapping of str to ndarray
    size : int
        Rows per execution.
    """

    def __init__(self, model: onnx.ModelProto, rows: Tensors, size: int) -> None:
        self._model = model
        self._makers = {
            out: index for index, node in enumerate(model.graph.node) for out in node.output if out
        }
        self._reads = [reads(node) for node in model.graph.node]
        self._ran: set[int] = set()
        self._values: dict[str, list[Array]] = {name: [] for name in rows}
        for batch in batches(model, rows, size):
            for name, array in batch.items():
                self._values[name].append(array)

    def to(self, tensor: str) -> list[Array]:
        """Compute everything that a tensor depends on; the tensor, batch by batch."""
        if tensor not in self._values:
            self._execute(self._missing(tensor), tensor)
        return self._values[tensor]

    def _missing(self, tensor: str) -> list[int]:
        """The nodes that have to run, in order."""
        waiting: list[str] = [tensor]
        found: set[int] = set()
        while waiting:
            name = waiting.pop()
            index = self._makers.get(name)
            if name in self._values or index is None or index in found:
                continue
            found.add(index)
            waiting += self._reads[index]
        return sorted(found)

    def _execute(self, chosen: Sequence[int], tensor: str) -> None:
        graph = self._model.graph
        ahead = set(range(len(graph.node))) - self._ran - set(chosen)
        needed = {name for index in ahead for name in self._reads[index]} | {tensor}
        used = {name for index in chosen for name in self._reads[index]}
        made = [out for index in chosen for out in graph.node[index].output if out]
        wanted = [name for name in made if name in needed]
        given = [name for name in self._values if name in used]
        part = onnx.ModelProto()
        part.ir_version = self._model.ir_version
        part.opset_import.extend(self._model.opset_import)
        part.functions.extend(self._model.functions)
        part.graph.name = "part"
        part.graph.node.extend(graph.node[index] for index in chosen)
        part.graph.initializer.extend(item for item in graph.initializer if item.name in used)
        for name in given:
            kind = helper.np_dtype_to_tensor_dtype(self._values[name][0].dtype)
            part.graph.input.append(helper.make_tensor_value_info(name, kind, None))
        part.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted)
        options = _options(onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
        session = _open(serialize(part), options, ())
        found: dict[str, list[Array]] = {name: [] for name in wanted}
        for index in range(len(next(iter(self._values.values())))):
            feed = {name: self._values[name][index] for name in given}
            for name, array in zip(wanted, _run(session, wanted, feed), strict=True):
                found[name].append(array)
        self._ran |= set(chosen)
        kept = needed | {value.name for value in graph.input}
        self._values = {n: v for n, v in self._values.items() if n in kept} | found


def batches(model: onnx.ModelProto, rows: Tensors, size: int) -> Iterator[dict[str, Array]]:
    """The rows, so many at a time; as many as the graph takes where it takes a fixed number.

    Rows that do not fill a fixed number are left out; too few for even one are repeated.
    """
    fixed = _fixed_batch(model)
    count = len(next(iter(rows.values())))
    if 0 < count < fixed:
        chosen = np.arange(fixed) % count
        rows, count = {name: array[chosen] for name, array in rows.items()}, fixed
    if fixed:
        size, count = fixed, count - count % fixed
    for at in range(0, count, size):
        yield {name: array[at : at + size] for name, array in rows.items()}


def _fixed_batch(model: onnx.ModelProto) -> int:
    """The number of rows that the graph takes; 0: any number."""
    constants = {item.name for item in model.graph.initializer}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in constants and dims and dims[0].HasField("dim_value"):
            return int(dims[0].dim_value)
    return 0


def served(model: onnx.ModelProto, rows: Tensors) -> dict[str, Array]:
    """The answers of a graph as it is served: with everything that optimization does to it."""
    session = _open(serialize(model), _options(_ALL), ())
    names = [node.name for node in session.get_outputs()]
    parts = [_run(session, names, batch) for batch in batches(model, rows, _SERVED)]
    if len(parts) == 1:
        return dict(zip(names, parts[0], strict=True))
    return {
        name: np.concatenate([np.atleast_1d(part[index]) for part in parts])
        for index, name in enumerate(names)
    }


def _options(level: onnxruntime.GraphOptimizationLevel) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # it would keep the peak of every session
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _run(session: onnxruntime.InferenceSession, names: Sequence[str], rows: Tensors) -> list[Array]:
    try:
        found: list[Array] = session.run(list(names), dict(rows))
    except Exception as error:  # ONNX Runtime has no common base class for its errors
        raise UnsupportedError(f"ONNX Runtime does not run the graph: {error}") from error
    return found


def _open(
    model: bytes, options: onnxruntime.SessionOptions, without: Sequence[str]
) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
        )
    except Exception as error:  # ONNX Runtime has no common base class for its errors
        raise UnsupportedError(f"ONNX Runtime does not load the graph: {error}") from error
