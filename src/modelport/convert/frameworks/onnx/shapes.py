"""The signature of an ONNX graph: what the file declares, put right by what the model does.

Exporters leave dimensions without names, give unrelated ones the same name, declare the batch size
of their example, or declare no shape at all. A few runs show what is true.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnx

from modelport.convert.graphs.edits import ELEMENT_TYPES
from modelport.core.compare import TOLERANCES, compare
from modelport.core.errors import EngineError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.tensors import Array, TensorSpec

_BATCH: Final = "N"
_DTYPES: Final = {number: name for name, number in ELEMENT_TYPES.items()}
#: What exporters write for a dimension of which they know nothing.
_UNKNOWN: Final = re.compile(r"|\?|-1|\*|None|none|unk\w*|unknown\w*|dynamic\w*")
#: Symbols that people chose: ``batch``, ``n``, ``batch_size``.
_CHOSEN: Final = re.compile(r"[A-Za-z]+(_size|_dim)?")

BELONG_TOGETHER: Final = (
    "the rows of one request belong together: an answer depends on the rows beside it, so that "
    "requests are not batched"
)
_DECLARED_FREE: Final = (
    "the file declares any number of rows, and the model takes only {count} at once"
)

Run = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True)
class Declared:
    """An input or output as the file declares it.

    Parameters
    ----------
    name : str
    dtype : str
        Modelport's element type.
    shape : tuple of int or str, or None
        None where the file does not tell even the rank.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None


def declared_inputs(proto: onnx.ModelProto) -> list[Declared]:
    """What the caller gives; before IR version 4 the weights stand among the inputs, too."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    weights |= {sparse.values.name for sparse in proto.graph.sparse_initializer}
    inputs = [_declared(v, "input") for v in proto.graph.input if v.name not in weights]
    if not inputs:
        raise UnsupportedError("the model takes no inputs: its answer is a constant")
    return inputs


def declared_outputs(proto: onnx.ModelProto) -> list[Declared]:
    """What the caller gets."""
    return [_declared(value, "output") for value in proto.graph.output]


def _declared(value: onnx.ValueInfoProto, side: str) -> Declared:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        what = (kind or "value without a type").removesuffix("_type").replace("_", " ")
        article = "an" if what[0] in "aeiou" else "a"
        raise UnsupportedError(
            f"{side} {value.name} is {article} {what}, not a tensor",
            hint="export the model with tensors for inputs and outputs; no serving protocol "
            "carries anything else",
        )
    tensor = value.type.tensor_type
    dtype = _DTYPES.get(tensor.elem_type)
    if dtype is None:
        named = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise UnsupportedError(
            f"{side} {value.name} has element type {named}, which cannot be served",
            hint="cast it to float32 or an integer type inside the model",
        )
    if not tensor.HasField("shape"):
        return Declared(value.name, dtype, None)
    shape = tuple(
        _dimension(dimension, f"{value.name}_{axis}")
        for axis, dimension in enumerate(tensor.shape.dim)
    )
    return Declared(value.name, dtype, shape)


def _dimension(dimension: onnx.TensorShapeProto.Dimension, symbol: str) -> int | str:
    if dimension.HasField("dim_value") and dimension.dim_value >= 0:
        return int(dimension.dim_value)
    named = dimension.dim_param
    return symbol if _UNKNOWN.fullmatch(named) else named


def input_specs(inputs: Sequence[Declared], rows: Rows | None) -> tuple[TensorSpec, ...]:
    """The inputs, as far as the file and the shapes of the rows tell.

    Raises
    ------
    UnsupportedError
        When an input has no shape, and there are no rows that show it.
    """
    specs = []
    for declared in inputs:
        array = _given(declared, inputs, rows)
        shape = declared.shape
        if shape is None:
            if array is None:
                raise UnsupportedError(
                    f"input {declared.name} has no declared shape",
                    hint="give sample rows with --sample: they show it",
                )
            shape = _own_symbols(declared.name, array.ndim)
        elif array is not None and _contradicts(shape, array):
            shape = tuple(
                d if isinstance(d, int) or not axis else own
                for axis, (d, own) in enumerate(
                    zip(shape, _own_symbols(declared.name, len(shape)), strict=True)
                )
            )
        specs.append(TensorSpec(declared.name, declared.dtype, shape))
    return tuple(specs)


def _given(declared: Declared, inputs: Sequence[Declared], rows: Rows | None) -> Array | None:
    if rows is None:
        return None
    found = rows.columns.get(declared.name)
    if found is None and len(inputs) == 1:
        columns = list(rows.columns.values())
        found = columns[0] if len(columns) == 1 else np.stack(columns, axis=-1)
    return found


def _own_symbols(name: str, rank: int) -> tuple[str, ...]:
    return tuple(f"{name}_{axis}" for axis in range(rank))


def _contradicts(shape: tuple[int | str, ...], array: Array) -> bool:
    """Whether one symbol stands for two sizes in one tensor."""
    if len(shape) != array.ndim:
        return False
    pairs = {(d, n) for d, n in zip(shape, array.shape, strict=True) if isinstance(d, str)}
    return len({d for d, _ in pairs}) < len(pairs)


def observe(
    inputs: tuple[TensorSpec, ...], outputs: Sequence[Declared], bound: dict[str, Array], run: Run
) -> tuple[Signature, tuple[str, ...]]:
    """The signature that the model's own answers show, and what people should know about it.

    Parameters
    ----------
    inputs : tuple of TensorSpec
    outputs : sequence of Declared
    bound : dict of str to ndarray
        Rows, bound to `inputs`.
    run : callable
        The model.

    Raises
    ------
    EngineError
        When the model fails on the rows.
    """
    lengths = {len(array) if array.ndim else 0 for array in bound.values()}
    free = len(lengths) == 1 and all(s.shape and isinstance(s.shape[0], str) for s in inputs)
    if not free:
        answers = run(bound)
        return Signature(inputs, _output_specs(outputs, answers)), ()
    count = lengths.pop()
    three, two = np.arange(3) % count, np.asarray([2, 1]) % count
    try:
        all_three, last_two = run(_take(bound, three)), run(_take(bound, two))
    except EngineError:
        answers = run(bound)
        fixed = tuple(replace(spec, shape=(count, *spec.shape[1:])) for spec in inputs)
        note = _DECLARED_FREE.format(count=count)
        return Signature(fixed, _output_specs(outputs, answers)), (note,)
    specs = _output_specs(outputs, all_three, last_two)
    if not all(a.ndim and len(a) == 3 for a in all_three.values()) or not all(
        a.ndim and len(a) == 2 for a in last_two.values()
    ):
        return Signature(inputs, _no_batch(inputs, specs)), ()
    if not _agree({name: array[[2, 1]] for name, array in all_three.items()}, last_two):
        return Signature(inputs, _no_batch(inputs, specs)), (BELONG_TOGETHER,)
    batch = _batch_symbol(inputs, specs)
    return Signature(_with_lead(inputs, batch), _with_lead(specs, batch)), ()


def _take(bound: Mapping[str, Array], chosen: Array) -> dict[str, Array]:
    return {name: array[chosen] for name, array in bound.items()}


def _agree(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> bool:
    floats = [str(a.dtype) for a in expected.values() if a.dtype.kind == "f"]
    coarsest = min(floats, key=lambda dtype: np.dtype(dtype).itemsize, default="float32")
    return all(o.agrees for o in compare(expected, actual, TOLERANCES[coarsest]))


def _output_specs(
    outputs: Sequence[Declared],
    answers: Mapping[str, Array],
    others: Mapping[str, Array] | None = None,
) -> tuple[TensorSpec, ...]:
    """The declared shapes where they are true, else what the answers show."""
    specs = []
    for declared in outputs:
        array = answers[declared.name]
        other = others[declared.name] if others is not None else array
        own = _own_symbols(declared.name, array.ndim)
        shape = declared.shape
        if shape is None or len(shape) != array.ndim:
            shape = own
        true = tuple(
            d if isinstance(d, str) or d == array.shape[axis] == other.shape[axis] else own[axis]
            for axis, d in enumerate(shape)
        )
        specs.append(TensorSpec(declared.name, declared.dtype, true))
    return tuple(specs)


def _batch_symbol(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    lead = inputs[0].shape[0]
    specs = (*inputs, *outputs)
    if isinstance(lead, str) and (_CHOSEN.fullmatch(lead) or _leads_all(specs, lead)):
        return lead
    others = {d for spec in specs for d in spec.shape[1:]}
    return _BATCH if _BATCH not in others else "batch"


def _leads_all(specs: Sequence[TensorSpec], lead: str) -> bool:
    return all(spec.shape[0] == lead for spec in specs)


def _with_lead(specs: Sequence[TensorSpec], batch: str) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, shape=(batch, *spec.shape[1:])) for spec in specs)


def _no_batch(
    inputs: Sequence[TensorSpec], outputs: tuple[TensorSpec, ...]
) -> tuple[TensorSpec, ...]:
    """Outputs of which the first dimension is not said to be the inputs' one."""
    leads = {spec.shape[0] for spec in inputs if spec.shape}
    return tuple(
        replace(spec, shape=(f"{spec.name}_0", *spec.shape[1:]))
        if spec.shape and spec.shape[0] in leads
        else spec
        for spec in outputs
    )
