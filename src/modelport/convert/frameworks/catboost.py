"""CatBoost models on numeric features.

The trees are read from CatBoost's own JSON dump. Its own ONNX export gives no models with
asymmetric trees, writes regressors with several targets as classifiers, and rounds leaves.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import catboost
import numpy as np

from modelport.convert.base import Attempt, Export, Probe
from modelport.convert.forests.ensemble import add_forest
from modelport.convert.forests.forest import Forest, join, rows_of_thresholds
from modelport.convert.forests.graph import GraphBuilder, add_link
from modelport.convert.forests.inputs import Feature, TreeInputs
from modelport.convert.forests.outputs import add_outputs, as_labels, output_specs
from modelport.convert.forests.probes import tree_probes
from modelport.convert.pickles import load_pickled
from modelport.core.errors import InputError, UnsupportedError
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.core.source import AuditedSource
from modelport.core.tensors import Array

_CBM: Final = b"CBM1"
_READING_SECONDS: Final = 300

#: Loss function → the kind of answer (`modelport.convert.forests.outputs`), the link, and what
#: CatBoost calls it. Those that are not here predict raw values.
_ANSWERS: Final[Mapping[str, tuple[str, str, str]]] = {
    "CrossEntropy": ("binary", "logistic", "Probability"),
    "Logloss": ("binary", "logistic", "Probability"),
    "MultiClass": ("multiclass", "softmax", "Probability"),
    "MultiClassOneVsAll": ("multiclass", "logistic", "Probability"),
    "MultiCrossEntropy": ("multilabel", "logistic", "Probability"),
    "MultiLogloss": ("multilabel", "logistic", "Probability"),
    "Poisson": ("values", "exp", "Exponent"),
    "Tweedie": ("values", "exp", "Exponent"),
}
_KINDS: Final = {"cat": "categorical", "text": "text", "embedding": "embedding"}
_RAW: Final = ("values", "identity", "RawFormulaVal")


class CatboostFramework:
    """Loads CatBoost models and writes their trees as an ONNX graph."""

    def recognises(self, audited: AuditedSource) -> bool:
        """See `modelport.convert.base.Framework.recognises`."""
        if audited.format == "object":
            return isinstance(audited.source.model, catboost.CatBoost)
        if audited.format in ("pickle", "joblib"):
            return next(iter(audited.globals), "").startswith("catboost.")
        return audited.format == "catboost"

    def load(self, audited: AuditedSource) -> CatboostModel:
        """See `modelport.convert.base.Framework.load`."""
        source = audited.source
        try:
            if audited.format == "object":
                model = source.model
            elif audited.format == "catboost":
                model = _load_file(source.content, source.name)
            else:
                model = load_pickled(audited)
        except catboost.CatBoostError as error:
            raise InputError(
                f"CatBoost cannot read the file: {error}", where=source.name
            ) from error
        if not isinstance(model, catboost.CatBoost):
            what = type(model).__name__
            raise InputError(f"this is a {what}, not a CatBoost model", where=source.name)
        if not model.is_fitted():
            raise InputError(
                f"the {type(model).__name__} is not fitted",
                where=source.name,
                hint="call fit before saving",
            )
        return CatboostModel(model)


def _load_file(content: bytes, name: str) -> catboost.CatBoost:
    """From a temporary file: JSON cannot be read from memory."""
    kind = "cbm" if content.startswith(_CBM) else "json"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        path.write_bytes(content)
        if kind == "cbm" and _crashes(path):
            raise InputError("CatBoost crashes when it reads the file", where=name,
                             hint="the file is damaged; save or download it again")  # fmt: skip
        return catboost.CatBoost().load_model(str(path), format=kind)


def _crashes(path: Path) -> bool:
    """Whether reading a binary file ends the process: its reader trusts the offsets in it."""
    program = "import catboost, sys; catboost.CatBoost().load_model(sys.argv[1], format='cbm')"
    command = [sys.executable, "-P", "-c", program, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_READING_SECONDS)  # noqa: S603
    except subprocess.TimeoutExpired:
        return True
    return done.returncode < 0


def _dump(model: catboost.CatBoost) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        model.save_model(str(path), format="json")
        return dict(json.loads(path.read_bytes()))


class CatboostModel:
    """A fitted CatBoost model.

    Parameters
    ----------
    model : catboost.CatBoost

    Raises
    ------
    UnsupportedError
        For features that are not numbers, and answers that are none of `_ANSWERS`.
    """

    def __init__(self, model: catboost.CatBoost) -> None:
        self._model = model
        for kind in ("cat", "text", "embedding"):
            positions = getattr(model, f"_get_{kind}_feature_indices")()
            if positions:
                named = ", ".join(str(model.feature_names_[p]) for p in positions[:8])
                raise UnsupportedError(
                    f"the CatBoost model has {_KINDS[kind]} features ({named}), which cannot be "
                    "exported: CatBoost hashes and counts them with tables of its own",
                    hint="encode them as numbers before CatBoost, for example with an "
                    "OrdinalEncoder, and train again",
                )
        plain = _dump(model)
        parameters = plain["model_info"].get("params", {})
        loss = parameters.get("loss_function", {}).get("type", "")
        if loss == "RMSEWithUncertainty":
            raise UnsupportedError("CatBoost models with RMSEWithUncertainty cannot be exported")
        self._kind, self._link, self._asked = _ANSWERS.get(loss, _RAW)
        labelled = self._kind in ("binary", "multiclass")
        self._classes = as_labels(model.classes_) if labelled else None
        self._forest, self._scale, self._bias = _read(plain)
        names = [str(name) for name in model.feature_names_]
        if names == [str(number) for number in range(len(names))]:
            names = [""] * len(names)
        self._inputs = TreeInputs(tuple(Feature(name) for name in names))

    @property
    def task(self) -> str:
        """See `modelport.convert.base.SourceModel.task`."""
        return "regression" if self._kind == "values" else "classification"

    @property
    def framework_version(self) -> str:
        """See `modelport.convert.base.SourceModel.framework_version`."""
        return f"CatBoost {catboost.__version__}"

    @property
    def notes(self) -> tuple[str, ...]:
        """See `modelport.convert.base.SourceModel.notes`."""
        return ()

    def predict(self, rows: Rows) -> dict[str, Array]:
        """See `modelport.convert.base.SourceModel.predict`."""
        pool = catboost.Pool(self._inputs.matrix(rows))
        pool.set_feature_names(self._model.feature_names_)
        ask = partial(catboost.CatBoost.predict, self._model, pool)
        try:
            answer = np.asarray(ask(prediction_type=self._asked))
            if self._kind == "values":
                return {"prediction": answer}
            label = np.asarray(ask(prediction_type="Class"))
        except catboost.CatBoostError as error:
            raise InputError(f"the source model refuses the rows: {error}") from error
        if self._classes is not None:
            label = _named(label.reshape(-1), self._classes)
        return {"label": label, "probabilities": answer}

    def attempts(self, rows: Rows | None) -> Sequence[Attempt]:
        """One: CatBoost itself rounds rows to float32, and adds up in float64."""
        return [Attempt("tree graph float32", self._export)]

    def _export(self) -> Export:
        builder, groups = GraphBuilder(), self._forest.targets
        matrix = builder.cast(self._inputs.add_to(builder, "float32"), "float64")
        sums = add_forest(builder, self._forest, matrix, "float64")
        if self._scale != 1.0:
            sums = builder.add("Mul", sums, builder.constant(np.float64(self._scale)))
        if self._bias.any():
            sums = builder.add("Add", sums, builder.constant(self._bias))
        answers = add_link(builder, self._link, sums, "float64")
        tensors = add_outputs(builder, self._kind, answers, groups, "float64", self._classes)
        signature = Signature(
            self._inputs.specs("float32"),
            output_specs(self._kind, groups, "float32", self._classes),
        )
        number = signature.outputs[-1].name
        tensors[number] = builder.cast(tensors[number], "float32")
        return builder.finish(signature, tensors, "modelport")

    def native(self, rows: Rows | None) -> Attempt | None:
        """None: there is no engine for it."""
        return None

    def made_up_rows(self) -> Rows | None:
        """Rows around the thresholds of the trees."""
        return self._inputs.rows(rows_of_thresholds(self._forest, len(self._inputs.features)))

    def probes(self, rows: Rows) -> Sequence[Probe]:
        """Rows next to the thresholds of the trees."""
        return tree_probes(self._forest, self._inputs, rows)


def _named(labels: Array, classes: Array) -> Array:
    """CatBoost gives labels as text where they are Boolean."""
    if classes.dtype == object or labels.dtype.kind in "biuf":
        return as_labels(labels)
    return as_labels([label == "True" for label in labels.tolist()])


def _read(plain: Mapping[str, Any]) -> tuple[Forest, float, Array]:
    """The trees of a JSON dump, and what their sums are multiplied with and start from."""
    scale, bias = plain["scale_and_bias"]
    columns = {f["feature_index"]: f for f in plain["features_info"]["float_features"]}
    symmetric = "oblivious_trees" in plain
    trees = [
        _tree((_symmetric if symmetric else _nested)(columns, tree, len(bias)), len(bias))
        for tree in plain["oblivious_trees" if symmetric else "trees"]
    ]
    if not trees:
        raise UnsupportedError("the CatBoost model has no trees")
    return join(trees), float(scale), np.asarray(bias, dtype=np.float64)


def _node(columns: Mapping[int, Any], split: Mapping[str, Any]) -> tuple[int, float, bool]:
    """Column, border, and whether NaN goes left: rows above the border go right."""
    feature = columns[split["float_feature_index"]]
    return (
        feature["flat_feature_index"],
        split["border"],
        feature["nan_value_treatment"] != "AsTrue",
    )


def _tree(nodes: Sequence[tuple[Any, ...]], targets: int) -> Forest:
    """Of nodes that are column, border, where NaN goes, both children, and values of a leaf."""
    feature, border, missing_left, left, right, values = map(list, zip(*nodes, strict=True))
    value = np.asarray([v or [0.0] * targets for v in values], dtype=np.float64)
    return Forest(
        feature=np.asarray(feature),
        threshold=np.asarray(border),
        left=np.asarray(left),
        right=np.asarray(right),
        missing_left=np.asarray(missing_left),
        value=value if targets > 1 else value[:, 0],
        roots=np.zeros(1, dtype=np.int64),
        target=np.zeros(1, dtype=np.int64),
        targets=targets,
        strict=False,
    )


def _leaf(values: Sequence[float]) -> tuple[Any, ...]:
    return (0, 0.0, False, -1, -1, list(values))


def _symmetric(
    columns: Mapping[int, Any], tree: Mapping[str, Any], targets: int
) -> list[tuple[Any, ...]]:
    """One split for each level; the decisions are the bits of the leaf's number, first one last."""
    nodes: list[tuple[Any, ...]] = []
    for level, split in enumerate(tree["splits"] or ()):
        node, below = _node(columns, split), (2 << level) - 1
        nodes += [(*node, below + n, below + n + (1 << level), None) for n in range(1 << level)]
    values = tree["leaf_values"]
    return nodes + [_leaf(values[n : n + targets]) for n in range(0, len(values), targets)]


def _nested(
    columns: Mapping[int, Any], tree: Mapping[str, Any], targets: int
) -> list[tuple[Any, ...]]:
    nodes: list[tuple[Any, ...]] = []
    level = [tree]
    while level:
        start = len(nodes) + len(level)
        below: list[Mapping[str, Any]] = []
        for node in level:
            if "split" in node:
                place = start + len(below)
                nodes.append((*_node(columns, node["split"]), place, place + 1, None))
                below += [node["left"], node["right"]]
            else:
                value = node["value"]
                nodes.append(_leaf(value if isinstance(value, list) else [value] * targets))
        level = below
    return nodes
