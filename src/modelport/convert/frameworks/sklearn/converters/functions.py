"""Transformers of single numbers: NumPy functions, powers, interpolation, and their inverses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from scipy import special  # type: ignore[import-untyped]
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils import check_array

from modelport.convert.frameworks.sklearn.converters.writer import Writer
from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array

Function = Callable[[Writer, str], str]


def _operator(name: str) -> Function:
    return lambda writer, x: str(writer.add(name, x))


def _log1p(writer: Writer, x: str) -> str:
    """Exact near 0, where log(1 + x) is not (Kahan): ``log(u) * x / (u - 1)`` with u = 1 + x."""
    more = writer.plus(x, 1.0)
    ratio = writer.add("Div", x, writer.subtract(more, 1.0))
    exact = writer.add("Mul", writer.add("Log", more), ratio)
    plain = writer.add("Or", _equals(writer, more, 1.0), writer.add("IsInf", _float32(writer, x)))
    return str(writer.add("Where", plain, x, exact))


def _expm1(writer: Writer, x: str) -> str:
    """Exact near 0 (Kahan): ``(u - 1) * x / log(u)`` with u = exp(x)."""
    power = writer.add("Exp", x)
    less = writer.subtract(power, 1.0)
    exact = writer.add("Div", writer.add("Mul", less, x), writer.add("Log", power))
    large = writer.add("Greater", writer.add("Abs", x), writer.constant(np.ones(1)))
    return str(
        writer.add("Where", large, less, writer.add("Where", _equals(writer, power, 1.0), x, exact))
    )


def _equals(writer: Writer, x: str, value: float) -> str:
    return str(writer.add("Equal", x, writer.constant(np.asarray(value))))


def _float32(writer: Writer, x: str) -> str:
    return writer.cast(x, np.float32) if writer.dtype == np.float64 else x


def _cbrt(writer: Writer, x: str) -> str:
    root = writer.add("Pow", writer.add("Abs", x), writer.constant(np.asarray(1 / 3)))
    return str(writer.add("Mul", writer.add("Sign", x), root))


#: NumPy's and SciPy's functions by identity.
_FUNCTIONS: Final[dict[Any, Function]] = {
    np.absolute: _operator("Abs"),
    np.arccos: _operator("Acos"),
    np.arcsin: _operator("Asin"),
    np.arctan: _operator("Atan"),
    np.cbrt: _cbrt,
    np.ceil: _operator("Ceil"),
    np.cos: _operator("Cos"),
    np.exp: _operator("Exp"),
    np.exp2: lambda w, x: str(w.add("Exp", w.times(x, np.log(2.0)))),
    np.expm1: _expm1,
    np.floor: _operator("Floor"),
    np.log: _operator("Log"),
    np.log10: lambda w, x: w.times(w.add("Log", x), 1.0 / np.log(10.0)),
    np.log1p: _log1p,
    np.log2: lambda w, x: w.times(w.add("Log", x), 1.0 / np.log(2.0)),
    np.negative: _operator("Neg"),
    np.positive: _operator("Identity"),
    np.reciprocal: _operator("Reciprocal"),
    np.rint: _operator("Round"),
    np.sign: _operator("Sign"),
    np.sin: _operator("Sin"),
    np.sqrt: _operator("Sqrt"),
    np.square: lambda w, x: str(w.add("Mul", x, x)),
    np.tanh: _operator("Tanh"),
    special.expit: _operator("Sigmoid"),
    special.expm1: _expm1,
    special.log1p: _log1p,
    special.logit: lambda w, x: str(w.add("Log", w.add("Div", x, w.plus(w.add("Neg", x), 1.0)))),
}


def function_transformer(writer: Writer) -> None:
    """``FunctionTransformer`` of a NumPy function."""
    model = writer.model
    writer.give(_apply(writer, writer.matrix(), model.func, model.kw_args))


def _apply(writer: Writer, x: str, function: Any, arguments: Any) -> str:
    # Histogram gradient boosting checks its numbers so: the signature does it here.
    checks = isinstance(function, partial) and function.func is check_array
    if function is None or checks:
        return str(writer.add("Identity", x))
    known = _FUNCTIONS.get(function) if _is_hashable(function) else None
    if known is not None and not arguments:
        return known(writer, x)
    name = getattr(function, "__qualname__", None) or getattr(
        function, "__name__", type(function).__name__
    )
    module = getattr(function, "__module__", None) or type(function).__module__
    given = f" with {arguments}" if arguments else ""
    names = sorted({f.__name__ for f in _FUNCTIONS})
    raise UnsupportedError(
        f"FunctionTransformer calls {module}.{name}{given}, which is Python code: ONNX has nothing "
        "to run it with; use one of NumPy's functions instead "
        f"({', '.join(names)}), or do this step before the model and fit the rest without it"
    )


def _is_hashable(thing: Any) -> bool:
    try:
        hash(thing)
    except TypeError:
        return False
    return True


def power_transformer(writer: Writer) -> None:
    """``PowerTransformer``."""
    model, matrix = writer.model, writer.matrix()
    each = _box_cox if model.method == "box-cox" else _yeo_johnson
    columns = [
        each(writer, writer.add("Gather", matrix, writer.constant([i]), axis=1), float(power))
        for i, power in enumerate(model.lambdas_)
    ]
    changed = writer.add("Concat", *columns, axis=1)
    if model.standardize:
        scaler = model._scaler
        changed = writer.times(writer.subtract(changed, scaler.mean_), 1.0 / scaler.scale_)
    writer.give(changed)


def _box_cox(writer: Writer, x: str, power: float) -> str:
    logarithm = writer.add("Log", x)
    if power == 0.0:
        return str(logarithm)
    return writer.times(_expm1(writer, writer.times(logarithm, power)), 1.0 / power)


def _yeo_johnson(writer: Writer, x: str, power: float) -> str:
    """Both branches are given numbers that they can take, and one of them is chosen."""
    zero = writer.constant(np.zeros(1))
    positive = _log1p(writer, writer.add("Max", x, zero))
    negative = _log1p(writer, writer.add("Max", writer.add("Neg", x), zero))
    if abs(power) > np.spacing(1.0):
        positive = writer.times(_expm1(writer, writer.times(positive, power)), 1.0 / power)
    if abs(power - 2.0) > np.spacing(1.0):
        less = power - 2.0
        negative = writer.times(_expm1(writer, writer.times(negative, -less)), 1.0 / less)
    else:
        negative = str(writer.add("Neg", negative))
    chosen = writer.add("Where", writer.add("Less", x, zero), negative, positive)
    unknown = writer.add("IsNaN", x)
    return str(writer.add("Where", unknown, x, chosen))


def isotonic(writer: Writer) -> None:
    """``IsotonicRegression``."""
    writer.give(interpolated(writer, writer.matrix(), writer.model))


def interpolated(writer: Writer, x: str, model: Any) -> str:
    """Linear interpolation between the thresholds of an ``IsotonicRegression``."""
    if model.out_of_bounds == "raise":
        raise UnsupportedError(
            'IsotonicRegression(out_of_bounds="raise") refuses numbers outside its training data',
            hint='fit it with out_of_bounds="clip"',
        )
    knots = np.asarray(model.X_thresholds_, dtype=np.float64)
    values = np.asarray(model.y_thresholds_, dtype=np.float64)
    if len(knots) == 1:
        return writer.per_row(values, x)
    lowest, highest = writer.constant(knots[:1]), writer.constant(knots[-1:])
    inside = writer.add("Min", writer.add("Max", x, lowest), highest)
    reached = writer.add("GreaterOrEqual", inside, writer.constant(knots[1:-1][np.newaxis]))
    segment = writer.row_sums(writer.cast(reached, np.int64), keep=1)
    # Where knots are one float32 apart at most, the step between them is all there is.
    slopes = np.diff(values) / np.diff(knots)
    start, from_value, slope = (
        writer.add("Gather", writer.constant(array), segment, axis=0)
        for array in (knots[:-1], values[:-1], slopes)
    )
    risen = writer.add("Mul", writer.add("Sub", inside, start), slope)
    answer = writer.add("Add", from_value, risen)
    if model.out_of_bounds == "nan":
        outside = writer.add("Or", writer.add("Less", x, lowest), writer.add("Greater", x, highest))
        answer = writer.add("Where", outside, writer.constant(np.full(1, np.nan)), answer)
    return str(answer)


def quantile_transformer(writer: Writer) -> None:
    """``QuantileTransformer`` to uniform: interpolated from both ends, as equal quantiles need."""
    model, matrix = writer.model, writer.matrix()
    if model.output_distribution != "uniform":
        raise UnsupportedError(
            'QuantileTransformer(output_distribution="normal") needs the inverse of the normal '
            'distribution, which ONNX does not have; use output_distribution="uniform", or a '
            "PowerTransformer"
        )
    ranks = np.asarray(model.references_, dtype=np.float64)
    columns = []
    for place, knots in enumerate(np.asarray(model.quantiles_).T):
        x = writer.add("Gather", matrix, writer.constant([place]), axis=1)
        up = _interpolate(writer, x, knots, ranks)
        down = _interpolate(writer, writer.add("Neg", x), -knots[::-1], -ranks[::-1])
        middle = writer.times(writer.add("Sub", up, down), 0.5)
        lowest, highest = writer.constant(knots[:1]), writer.constant(knots[-1:])
        zero, one = writer.constant(np.zeros(1)), writer.constant(np.ones(1))
        middle = writer.add("Where", writer.add("LessOrEqual", x, lowest), zero, middle)
        middle = writer.add("Where", writer.add("GreaterOrEqual", x, highest), one, middle)
        columns.append(writer.add("Where", writer.add("IsNaN", x), x, middle))
    writer.give(writer.add("Concat", *columns, axis=1) if len(columns) > 1 else columns[0])


def _interpolate(writer: Writer, x: str, knots: Array, values: Array) -> str:
    """``numpy.interp``: of equal knots the last one counts."""
    knots = np.asarray(knots, dtype=np.float64)
    reached = writer.add("GreaterOrEqual", x, writer.constant(knots[1:-1][np.newaxis]))
    segment = writer.row_sums(writer.cast(reached, np.int64), keep=1)
    steps = np.diff(knots)
    slopes = np.divide(np.diff(values), steps, out=np.zeros_like(steps), where=steps > 0)
    start, from_value, slope = (
        writer.add("Gather", writer.constant(array), segment, axis=0)
        for array in (knots[:-1], values[:-1], slopes)
    )
    risen = writer.add("Mul", writer.add("Sub", x, start), slope)
    return str(writer.add("Add", from_value, risen))


def chosen_columns(writer: Writer) -> None:
    """`ChosenColumns`."""
    matrix = writer.matrix()
    if writer.model.indices is None:
        writer.give(matrix)
        return
    indices = writer.constant(np.asarray(writer.model.indices, dtype=np.int64))
    writer.give(writer.add("Gather", matrix, indices, axis=1))


def joined(writer: Writer) -> None:
    """`Joined`."""
    shaped = [
        writer.add("Reshape", writer.cast(name, writer.dtype), writer.constant([0, -1]))
        for name in writer.inputs
    ]
    writer.give(writer.add("Concat", *shaped, axis=1))


def inverse(writer: Writer) -> None:
    """`Inverse`."""
    writer.give(_invert(writer, writer.matrix(), writer.model.transformer))


def _invert(writer: Writer, x: str, transformer: Any) -> str:
    if isinstance(transformer, Pipeline):
        for _, step in reversed(transformer.steps):
            if step is not None and step != "passthrough":
                x = _invert(writer, x, step)
        return x
    if isinstance(transformer, FunctionTransformer):
        return _apply(writer, x, transformer.inverse_func, transformer.inv_kw_args)
    if isinstance(transformer, StandardScaler | RobustScaler | MaxAbsScaler):
        if getattr(transformer, "scale_", None) is not None and getattr(
            transformer, "with_scaling", True
        ):
            x = writer.times(x, transformer.scale_)
        center = getattr(transformer, "mean_", getattr(transformer, "center_", None))
        wanted = getattr(transformer, "with_mean", getattr(transformer, "with_centering", False))
        return writer.plus(x, center) if wanted and center is not None else x
    if isinstance(transformer, MinMaxScaler):
        return writer.times(writer.subtract(x, transformer.min_), 1.0 / transformer.scale_)
    if isinstance(transformer, PowerTransformer):
        return _invert_power(writer, x, transformer)
    raise UnsupportedError(
        f"the targets are transformed by a {type(transformer).__name__}, whose inverse has no "
        "closed form here; use a FunctionTransformer of a NumPy function, a scaler or a "
        "PowerTransformer, or transform the targets outside the model"
    )


def _invert_power(writer: Writer, x: str, transformer: Any) -> str:
    if transformer.standardize:
        scaler = transformer._scaler
        x = writer.plus(writer.times(x, scaler.scale_), scaler.mean_)
    if len(transformer.lambdas_) != 1:
        raise UnsupportedError("several targets are transformed by one PowerTransformer")
    power = float(transformer.lambdas_[0])
    if transformer.method == "box-cox":
        if power == 0.0:
            return str(writer.add("Exp", x))
        logarithm = _log1p(writer, writer.times(x, power))
        return str(writer.add("Exp", writer.times(logarithm, 1.0 / power)))
    return _invert_yeo_johnson(writer, x, power)


def _invert_yeo_johnson(writer: Writer, x: str, power: float) -> str:
    zero = writer.constant(np.zeros(1))
    above = writer.add("Max", x, zero)
    below = writer.add("Max", writer.add("Neg", x), zero)
    if abs(power) > np.spacing(1.0):
        above = writer.times(_log1p(writer, writer.times(above, power)), 1.0 / power)
    positive = _expm1(writer, above)
    if abs(power - 2.0) > np.spacing(1.0):
        below = writer.times(_log1p(writer, writer.times(below, 2.0 - power)), 1 / (2.0 - power))
    negative = writer.add("Neg", _expm1(writer, below))
    return str(writer.add("Where", writer.add("Less", x, zero), negative, positive))
