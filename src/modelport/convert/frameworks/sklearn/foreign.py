"""Steps of a pipeline that come from other libraries: XGBoost, LightGBM, CatBoost.

This adapter imports none of them. It finds the framework adapter for such a step in the table,
lets it export the step as a model of its own, and puts that model's graph in the step's place.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import numpy as np
import onnx
import skl2onnx
from onnx import helper
from skl2onnx.common import data_types
from sklearn.base import is_classifier

from modelport.adapters import Adapter, adapters_of
from modelport.convert.base import Export, Framework
from modelport.convert.forests.ensemble import lower_trees
from modelport.convert.frameworks.sklearn.nested import estimators_in
from modelport.convert.graphs import edits as graphs
from modelport.core.errors import UnsupportedError
from modelport.core.source import AuditedSource, Source
from modelport.core.tensors import STRING, Array

_DOMAIN: Final = "modelport"
_STEP: Final = "Step"
_COLUMN: Final = np.asarray([-1, 1], dtype=np.int64)


def register_foreign(model: Any) -> None:
    """Tell skl2onnx how the model's steps of other libraries are exported."""
    for step in {type(step): step for step in _foreign_in(model)}.values():
        alias = f"{type(step).__module__}.{type(step).__name__}"
        skl2onnx.update_registered_converter(
            type(step),
            alias,
            _set_types,
            _convert,
            overwrite=True,
            parser=partial(_parse, alias),
            options={"zipmap": [True, False], "raw_scores": [True, False]},
        )


def _foreign_in(model: Any) -> Iterator[Any]:
    for estimator in estimators_in(model):
        waiting = [estimator]
        if _adapter_for(estimator) is None:
            waiting = list(vars(estimator).values())
        while waiting:
            thing = waiting.pop()
            if isinstance(thing, list | tuple):
                waiting += [item for item in thing if not isinstance(item, int | float | str)]
            elif hasattr(thing, "predict") and _adapter_for(thing) is not None:
                yield thing


def _adapter_for(step: Any) -> Adapter | None:
    library = type(step).__module__.partition(".")[0]
    if library in ("sklearn", "modelport"):
        return None
    records = adapters_of("framework")
    return next((r for r in records if library == r.name and not r.missing()), None)


def _export(step: Any, real: str) -> Export:
    """The step as a model of its own, for inputs in the element type `real` if there is one."""
    record = _adapter_for(step)
    if record is None:
        raise UnsupportedError(f"no framework adapter knows a {type(step).__name__}")
    framework: Framework = record.load()
    source = framework.load(AuditedSource(Source.of(step), "object"))
    exports = [attempt.export() for attempt in source.attempts(None)]
    if len(exports[0].signature.inputs) != 1:
        raise UnsupportedError(
            f"the {type(step).__name__} inside a pipeline takes columns of text",
            hint="encode them in a step before it",
        )
    return next((e for e in exports if e.signature.inputs[0].dtype == real), exports[0])


def _parse(alias: str, scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    operator = scope.declare_local_operator(alias, model)
    operator.inputs = inputs
    real = data_types.guess_tensor_type(inputs[0].type)
    kinds = {"variable": real}
    if is_classifier(model):
        kinds = {"label": data_types.Int64TensorType(), "probabilities": real}
    for name, kind in kinds.items():
        operator.outputs.append(scope.declare_local_variable(name, kind))
    return operator.outputs


def _set_types(operator: Any) -> None:
    wide = isinstance(operator.inputs[0].type, data_types.DoubleTensorType)
    real = data_types.DoubleTensorType if wide else data_types.FloatTensorType
    *labels, values = operator.outputs
    values.type = real([None, None if labels else 1])
    for label in labels:
        classes: Array = operator.raw_operator.classes_
        kind = data_types.StringTensorType if classes.dtype.kind in "OUS" else None
        label.type = (kind or data_types.Int64TensorType)([None])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Leave a node that holds the step's model; `inline_steps` replaces it."""
    if len(operator.inputs) != 1:
        raise UnsupportedError(
            f"the {type(operator.raw_operator).__name__} takes several tensors",
            hint="put a ColumnTransformer before it",
        )
    wide = isinstance(operator.inputs[0].type, data_types.DoubleTensorType)
    real = "float64" if wide else "float32"
    container.add_node(
        _STEP,
        [variable.full_name for variable in operator.inputs],
        [variable.full_name for variable in operator.outputs],
        op_domain=_DOMAIN,
        op_version=1,
        name=scope.get_unique_operator_name(_STEP),
        model=_export(operator.raw_operator, real).model,
        real=real,
        raw=int(scope.get_options(operator.raw_operator, {"raw_scores": False})["raw_scores"]),
    )


def inline_steps(graph: onnx.GraphProto) -> None:
    """Put the graphs of foreign steps in the places of their nodes."""
    for node in [n for n in graph.node if n.domain == _DOMAIN]:
        held = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        step = onnx.load_from_string(held["model"]).graph
        lower_trees(step)
        if held["raw"]:
            _answer_scores(step)
        _inline(graph, node, step, held["real"].decode())
        graph.node.remove(node)


def _answer_scores(step: onnx.GraphProto) -> None:
    """Give what the probabilities are made of in their place."""
    links = [node for node in step.node if node.op_type in ("Sigmoid", "Softmax")]
    (maker,) = (node for node in step.node if node.output[0] == step.output[1].name)
    if len(links) != 1:
        raise UnsupportedError("a step's decisions are wanted, and its graph has none")
    maker.op_type = "Identity"
    del maker.attribute[:]
    maker.input[:] = [links[0].input[0]]


def _inline(graph: onnx.GraphProto, node: onnx.NodeProto, step: onnx.GraphProto, real: str) -> None:
    prefix = f"{node.output[0]}__step_"
    taken = helper.make_node(
        "Cast", [node.input[0]], [prefix + step.input[0].name],
        to=step.input[0].type.tensor_type.elem_type,
    )  # fmt: skip
    graph.node.append(taken)
    for inner in step.node:
        inner.input[:] = [prefix + name if name else "" for name in inner.input]
        inner.output[:] = [prefix + name for name in inner.output]
        graph.node.append(inner)
    for constant in step.initializer:
        constant.name = prefix + constant.name
        graph.initializer.append(constant)
    for made, wanted in zip(step.output, node.output, strict=True):
        tensor = made.type.tensor_type
        name = prefix + made.name
        if made.name == "prediction" and len(tensor.shape.dim) == 1:
            column = onnx.numpy_helper.from_array(_COLUMN, f"{prefix}column")
            graph.initializer.append(column)
            graph.node.append(helper.make_node("Reshape", [name, column.name], [f"{name}_column"]))
            name = f"{name}_column"
        is_text = tensor.elem_type == graphs.ELEMENT_TYPES[STRING]
        if is_text or made.name == "label":
            graph.node.append(helper.make_node("Identity", [name], [wanted]))
        else:
            to = graphs.ELEMENT_TYPES[real]
            graph.node.append(helper.make_node("Cast", [name], [wanted], to=to))
