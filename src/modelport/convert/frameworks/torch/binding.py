"""The user's rows as the arguments of ``forward``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from modelport.convert.frameworks.torch.program import Feed, FlatModule, Parameter, Program, Scalar
from modelport.convert.frameworks.torch.quiet import repeatable
from modelport.core.errors import InputError, SignatureError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.tensors import Array

#: Inputs of a module that says nothing about them.
_INPUT = "input"
_MOST_TRIED = 64


@dataclass(frozen=True)
class Arguments:
    """Rows, arranged.

    Parameters
    ----------
    arrays : dict of str to ndarray
        Numbers by parameter, at the precision of the rows.
    constants : dict of str to int, float or bool
    columns : dict of str to tuple of str
        The columns that an array was stacked from.
    """

    arrays: dict[str, Array]
    constants: dict[str, Scalar] = field(default_factory=dict)
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Binding:
    """How rows become tensors, settled once on the first rows.

    Parameters
    ----------
    program : Program
    feed : Feed
    dtypes : tuple of torch.dtype
        Of the tensors, in order.
    columns : dict of str to tuple of str
        The columns that an array was stacked from.
    finite : frozenset of str
        Tensors without NaN and infinities in these rows.
    """

    program: Program
    feed: Feed
    dtypes: tuple[torch.dtype, ...]
    columns: dict[str, tuple[str, ...]]
    finite: frozenset[str]

    def tensors(self, rows: Rows) -> list[torch.Tensor]:
        """Rows under any of the names that people and exports use, as tensors."""
        if set(self.feed.names) <= rows.columns.keys():
            arrays = {n: _numbers(rows.columns[n], n, rows.where) for n in self.feed.names}
        else:
            arrays = arrange(self.program, rows, self.columns).arrays
        missing = [name for name in self.feed.names if name not in arrays]
        if missing:
            raise SignatureError(f"columns are missing: {', '.join(missing)}", where=rows.where)
        return _to_tensors([arrays[name] for name in self.feed.names], self.dtypes)


def bind(program: Program, rows: Rows) -> Binding:
    """Find out how these rows fit the program: which arguments, in which element types.

    Element types are tried, those of the rows first: whether a module looks numbers up in a
    table or multiplies them by weights shows only when it runs.

    Raises
    ------
    SignatureError
        When columns are missing.
    InputError
        When the program refuses the rows in all element types, with its own message.
    """
    arguments = arrange(program, rows)
    few = {name: array[:2] if array.ndim else array for name, array in arguments.arrays.items()}
    if program.settled:
        few = arguments.arrays  # it may take exactly this number of rows
    feed = Feed(tuple(few), arguments.constants)
    flat = FlatModule(program, feed)
    by_name = {parameter.name: parameter for parameter in program.parameters}
    choices = [_dtypes_for(array, by_name.get(name), program) for name, array in few.items()]
    refusals: list[Exception] = []
    for dtypes in itertools.islice(itertools.product(*choices), _MOST_TRIED):
        try:
            with repeatable():
                flat.answers(_to_tensors(list(few.values()), dtypes))
        except UnsupportedError:
            raise
        except Exception as error:  # modules raise whatever they like
            refusals.append(error)
            continue
        finite = frozenset(n for n, a in arguments.arrays.items() if np.isfinite(a).all())
        return Binding(program, feed, dtypes, arguments.columns, finite)
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arguments.arrays.items())
    raise InputError(
        f"the source model refuses the rows ({shapes}): {first_line(refusals[0])}",
        where=rows.where,
    ) from refusals[0]


def arrange(
    program: Program, rows: Rows, columns: dict[str, tuple[str, ...]] | None = None
) -> Arguments:
    """Match columns with parameters by name; one parameter also takes rows without a name.

    Raises
    ------
    SignatureError
        Saying what is missing and what there is.
    """
    given = {name: _numbers(array, name, rows.where) for name, array in rows.columns.items()}
    parameters = program.parameters or _any_number(given)
    tensors = [p for p in parameters if p.kind == "tensor"]
    required = [p for p in parameters if p.required]
    chosen = [p for p in parameters if p.name in given]
    if chosen and {p.name for p in required} <= given.keys():
        arrays = {p.name: given[p.name] for p in chosen if p.kind == "tensor"}
        constants = {p.name: _constant(given[p.name], p) for p in chosen if p.kind != "tensor"}
        if arrays:
            return Arguments(arrays, constants)
    needed = [p for p in required if p.kind == "tensor"] or tensors[:1]
    numbers = [p.name for p in required if p.kind != "tensor"]
    if len(needed) == 1 and not numbers:
        name = needed[0].name
        stacked, names = _single(given, (columns or {}).get(name, ()))
        if stacked is not None:
            return Arguments({name: stacked}, {}, {name: names} if names else {})
    if len(needed) == len(given) and all(re.fullmatch(r"arr_\d+", name) for name in given):
        # np.savez calls arrays without names so, in order.
        return Arguments(dict(zip((p.name for p in needed), given.values(), strict=True)))
    missing = [p.name for p in required if p.name not in given]
    takes = ", ".join(f"{p.name}{'' if p.required else ' (optional)'}" for p in parameters)
    there = ", ".join(name or "one array without a name" for name in list(given)[:20])
    raise SignatureError(
        f"columns are missing: {', '.join(missing)}; forward takes {takes}; the data has {there}",
        where=rows.where,
        hint="give arrays by name: np.savez(path, NAME=array, ...)",
    )


def _any_number(given: dict[str, Array]) -> list[Parameter]:
    return [Parameter(name or _INPUT) for name in given]


def _single(
    given: dict[str, Array], columns: Sequence[str]
) -> tuple[Array | None, tuple[str, ...]]:
    """All columns as one array, and the names of those it was stacked from."""
    if "" in given and len(given) == 1:
        return given[""], ()
    if columns and set(columns) <= given.keys():
        return np.stack([given[name] for name in columns], axis=-1), tuple(columns)
    if len(given) == 1:
        (array,) = given.values()
        return array, ()
    if all(array.ndim == 1 for array in given.values()):
        return np.stack(list(given.values()), axis=-1), tuple(given)
    return None, ()


def _numbers(array: Array, name: str, where: str) -> Array:
    if array.dtype.kind in "biuf":
        return array
    try:
        return np.asarray(array.tolist(), dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise SignatureError(
            f"column {name or 'without a name'} needs numbers: {error}",
            where=where,
            hint="PyTorch models take numbers: turn text into token ids first",
        ) from error


def _constant(array: Array, parameter: Parameter) -> Scalar:
    values = np.unique(array)
    if len(values) != 1:
        raise SignatureError(
            f"{parameter.name} is a plain {parameter.kind} in forward, and can have only one "
            f"value; the rows have {len(values)}",
            hint="convert once per value, or make it a tensor in forward",
        )
    (value,) = values.tolist()
    if parameter.kind == "bool":
        return bool(value)
    return int(value) if parameter.kind == "int" else float(value)


def _dtypes_for(array: Array, parameter: Parameter | None, program: Program) -> list[torch.dtype]:
    if parameter is not None and parameter.dtype is not None:
        return [parameter.dtype]
    if array.dtype.kind == "b":
        return [torch.bool, torch.int64, program.dtype]
    if array.dtype.kind in "iu":
        own = [] if array.dtype.name in ("uint16", "uint32", "uint64") else [_same(array)]
        return list(dict.fromkeys([*own, torch.int64, program.dtype]))
    whole = array.size and np.array_equal(array, np.round(array))
    return [program.dtype, torch.int64] if whole else [program.dtype]


def _same(array: Array) -> torch.dtype:
    return torch.from_numpy(np.zeros(0, dtype=array.dtype)).dtype


def _to_tensors(arrays: Sequence[Array], dtypes: Sequence[torch.dtype]) -> list[torch.Tensor]:
    tensors = []
    for array, dtype in zip(arrays, dtypes, strict=True):
        target = torch.zeros(0, dtype=dtype).numpy().dtype
        whole = array.dtype.kind != "f" or np.array_equal(array, np.floor(array))
        if target.kind in "iu" and not whole:
            raise SignatureError(f"the model takes {target} and the rows have fractions")
        with np.errstate(over="ignore", invalid="ignore"):
            tensors.append(torch.from_numpy(array.astype(target, order="C", copy=True)))
    return tensors


def first_line(error: Exception) -> str:
    """An exception of PyTorch's on one line; its traces are many lines long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # TorchScript puts its message last, behind the trace of the interpreter.
    telling = [line for line in lines if "Error:" in line and "traceback" not in line.lower()]
    line = (telling or lines or [""])[0 if not telling else -1]
    return line if re.match(r"\w*Error:", line) else f"{type(error).__name__}: {line}"
