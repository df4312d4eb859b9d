"""Exporting with skl2onnx, and mending what it leaves inexact."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import skl2onnx
from onnx import numpy_helper
from skl2onnx.common import data_types
from skl2onnx.common._registration import get_converter
from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
from sklearn.base import is_classifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from modelport.convert.base import Export
from modelport.convert.frameworks.sklearn.converters import register_all
from modelport.convert.frameworks.sklearn.converters.metas import decisions_wanted
from modelport.convert.frameworks.sklearn.converters.standins import (
    BoostedClassifier,
    BoostedRegressor,
)
from modelport.convert.frameworks.sklearn.foreign import inline_steps, register_foreign
from modelport.convert.frameworks.sklearn.layout import Layout
from modelport.convert.frameworks.sklearn.nested import estimators_in, last_step
from modelport.convert.frameworks.sklearn.prepare import prepare
from modelport.convert.frameworks.sklearn.trees import ensembles_in, refine
from modelport.convert.graphs import edits as graphs
from modelport.core.errors import UnsupportedError
from modelport.core.signature import Signature
from modelport.core.tensors import STRING, TensorSpec

#: Operator sets that ONNX Runtime 1.20 runs; ``ai.onnx.ml`` 3 is what tree ensembles in float64
#: need.
OPSET: Final = {"": 18, "ai.onnx.ml": 3, "com.microsoft": 1}

_TYPES: Final = {
    "float32": data_types.FloatTensorType,
    "float64": data_types.DoubleTensorType,
    "int64": data_types.Int64TensorType,
    STRING: data_types.StringTensorType,
}


@dataclass(frozen=True)
class Recipe:
    """One way to export an estimator.

    Parameters
    ----------
    estimator : BaseEstimator
    layout : Layout
    inputs, outputs : tuple of TensorSpec
        As they shall be served.
    wide : bool
        Whether to compute in float64.
    left_out : tuple of str
        Outputs of the estimator that are not among `outputs`.
    """

    estimator: Any
    layout: Layout
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    wide: bool
    left_out: tuple[str, ...] = ()


def export(recipe: Recipe) -> Export:
    """Export an estimator with the inputs and outputs of `recipe`.

    Raises
    ------
    UnsupportedError
        When skl2onnx has no converter for a step.
    Exception
        Whatever else skl2onnx raises.
    """
    model = prepare(recipe.estimator, recipe.layout)
    ensembles = ensembles_in(model)
    proto = _convert(model, recipe)
    graph = proto.graph
    graphs.free_names(graph, [spec.name for spec in (*recipe.inputs, *recipe.outputs)])
    _mend(graph, model)
    refine(graph, ensembles, wide=recipe.wide)
    if recipe.wide:
        _narrow_support_vectors(graph)
    inline_steps(graph)
    inputs, outputs = _set_signature(graph, recipe)
    notes = tuple(
        f"output {name} is left out: it cannot be made to agree" for name in recipe.left_out
    )
    data = graphs.serialise(proto, {**OPSET, "ai.onnx.ml": _ml_opset(model)})
    return Export(
        model=data,
        signature=Signature(inputs, outputs),
        exporter=f"skl2onnx {skl2onnx.__version__}",
        opset=graphs.opset_of(proto),
        notes=notes,
    )


def _convert(model: Any, recipe: Recipe) -> onnx.ModelProto:
    register_all()
    register_foreign(model)
    types = [(spec.name, _TYPES[spec.dtype]([None, spec.shape[1]])) for spec in recipe.inputs]
    with warnings.catch_warnings():
        # It warns about versions, deprecations and options that parity checks the effect of.
        warnings.simplefilter("ignore")
        try:
            proto: onnx.ModelProto = skl2onnx.to_onnx(
                model,
                initial_types=types,
                target_opset={k: v for k, v in OPSET.items() if k != "com.microsoft"},
                options=_options(model),
                name="model",
            )
        except (MissingConverter, MissingShapeCalculator) as error:
            line = next(line for line in str(error).splitlines() if line.strip())
            raise UnsupportedError(f"skl2onnx has no converter: {line.strip()}") from error
    return proto


def _ml_opset(model: Any) -> int:
    """Sets of categories need version 5, which has no longer the operators for other trees."""
    newer = any(isinstance(e, BoostedClassifier | BoostedRegressor) for e in estimators_in(model))
    return 5 if newer else OPSET["ai.onnx.ml"]


def _options(model: Any) -> dict[int, dict[str, Any]]:
    options: dict[int, dict[str, Any]] = {}
    parts = list(estimators_in(model))
    decisions = {id(part) for part in decisions_wanted(iter(parts))}
    final = last_step(model)
    for part in parts:
        plain = is_classifier(part) and not isinstance(part, Pipeline)
        wanted = {"zipmap": False} if plain else {}
        if id(part) in decisions or (
            wanted and part is final and not hasattr(final, "predict_proba")
        ):
            wanted["raw_scores"] = True
        known = _known_options(part) if wanted else ()
        chosen = {name: value for name, value in wanted.items() if name in known}
        if chosen:
            options[id(part)] = chosen
    return options


def _known_options(estimator: Any) -> Iterable[str]:
    alias = skl2onnx._supported_operators.sklearn_operator_name_map.get(type(estimator))
    if alias is None:
        return ()
    return get_converter(alias).get_allowed_options() or ()


def _mend(graph: onnx.GraphProto, model: Any) -> None:
    parts = list(estimators_in(model))
    if any(
        isinstance(part, KNeighborsClassifier | KNeighborsRegressor) and part.weights == "distance"
        for part in parts
    ):
        _mend_distance_weights(graph)
    if any(isinstance(p, OrdinalEncoder) and p.handle_unknown == "error" for p in parts):
        _refuse_unknown(graph)


def _mend_distance_weights(graph: onnx.GraphProto) -> None:
    """Neighbours weigh 1/distance; skl2onnx weighs them 1/max(-distance, 1e-6), all the same.

    Where a distance is 0, scikit-learn counts the neighbours at distance 0 only: so does
    1/max(distance, 1e-30) to within float32.
    """
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    distances = {n.output[0] for n in graph.node if n.op_type == "TopK"}
    negated = set()
    for node in graph.node:
        if node.op_type != "Mul" or node.input[0] not in distances:
            continue
        if np.all(constants.get(node.input[1], np.zeros(1)) == -1):
            node.op_type = "Identity"
            del node.input[1:]
            negated.add(node.output[0])
    for node in graph.node:
        if node.op_type == "Max" and node.input[0] in negated:
            name = f"{node.output[0]}__smallest"
            smallest = np.full(1, 1e-30, dtype=constants[node.input[1]].dtype)
            graph.initializer.append(numpy_helper.from_array(smallest, name))
            node.input[1] = name


def _refuse_unknown(graph: onnx.GraphProto) -> None:
    """Make categories that an OrdinalEncoder refuses fail, instead of becoming -1.

    The code is looked up once more in the list of codes, where -1 is beyond the end. ONNX counts
    -1 from the end, so it is first made larger than any code.
    """
    for node in list(graph.node):
        values = graphs.attribute(node, "values_int64s")
        if node.op_type != "LabelEncoder" or values is None:
            continue
        if graphs.attribute(node, "default_int64") is not None:
            continue
        codes = np.arange(max(values.ints) + 1, dtype=np.int64)
        graphs.set_attribute(node, "default_int64", len(codes))
        raw, looked_up = f"{node.output[0]}__code", node.output[0]
        node.output[0] = raw
        graph.initializer.append(numpy_helper.from_array(codes, f"{looked_up}__codes"))
        graph.node.append(
            onnx.helper.make_node("Gather", [f"{looked_up}__codes", raw], [looked_up], axis=0)
        )


def _narrow_support_vectors(graph: onnx.GraphProto) -> None:
    """ONNX Runtime has support vector regression in float32 only."""
    for node in [n for n in graph.node if n.op_type == "SVMRegressor"]:
        name = f"{node.input[0]}__float32_for_{node.output[0]}"
        to = graphs.ELEMENT_TYPES["float32"]
        graph.node.append(onnx.helper.make_node("Cast", [node.input[0]], [name], to=to))
        node.input[0] = name


def _set_signature(
    graph: onnx.GraphProto, recipe: Recipe
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    planned = [spec for spec in recipe.outputs if spec.name not in recipe.left_out]
    if len(graph.output) == 2 < len(planned):
        _split_probabilities(graph, planned[1:])
    made = [value.name for value in graph.output]
    if len(made) < len(planned):
        raise UnsupportedError(
            f"skl2onnx makes {len(made)} outputs, and the model has {len(planned)}"
        )
    plans = [graphs.OutputPlan(t, spec) for t, spec in zip(made, planned, strict=False)]
    outputs = tuple(plan.spec for plan in plans)
    graphs.set_outputs(graph, plans)
    names = dict(
        zip((value.name for value in graph.input), (s.name for s in recipe.inputs), strict=True)
    )
    graphs.set_inputs(graph, names, recipe.inputs)
    used = graphs.prune(graph)
    return tuple(spec for spec in recipe.inputs if spec.name in used), outputs


def _split_probabilities(graph: onnx.GraphProto, planned: Sequence[TensorSpec]) -> None:
    """Forests of several labels give one tensor ``[label, N, class]``, as wide as the widest."""
    together = graph.output.pop().name
    for number, spec in enumerate(planned):
        names = [f"{together}_{part}_{number}" for part in ("place", "all", "classes", "some")]
        constants = (np.asarray(number), np.arange(int(spec.shape[1])))
        for name, array in zip((names[0], names[2]), constants, strict=True):
            graph.initializer.append(numpy_helper.from_array(array.astype(np.int64), name))
        graph.node.append(onnx.helper.make_node("Gather", [together, names[0]], [names[1]], axis=0))
        graph.node.append(onnx.helper.make_node("Gather", [names[1], names[2]], [names[3]], axis=1))
        graph.output.append(
            onnx.helper.make_tensor_value_info(names[3], onnx.TensorProto.FLOAT, [None, None])
        )
