"""What boosted trees answer, as outputs of the graph.

``values``: a prediction per target. ``binary``: a label, and the probabilities of both classes.
``multiclass``: a label, and the probabilities of all classes. ``multilabel``: for each target a
label and a probability. ``labels``: a label, and scores.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from modelport.convert.forests.graph import GraphBuilder
from modelport.convert.forests.inputs import BATCH
from modelport.core.errors import UnsupportedError
from modelport.core.tensors import STRING, Array, TensorSpec

_SECOND: Final = {"labels": "scores"}


def output_specs(
    kind: str, groups: int, real: str, classes: Array | None = None
) -> tuple[TensorSpec, ...]:
    """The outputs to serve.

    Parameters
    ----------
    groups : int
        Sums per row.
    real : str
        Element type of numbers.
    classes : ndarray or None
        Names of the classes, where they are not 0, 1, 2 …
    """
    if kind == "values":
        return (TensorSpec("prediction", real, (BATCH,) if groups == 1 else (BATCH, groups)),)
    textual = classes is not None and as_labels(classes).dtype == object
    labels = (BATCH, groups) if kind == "multilabel" else (BATCH,)
    width = 2 if kind == "binary" else groups
    return (
        TensorSpec("label", STRING if textual else "int64", labels),
        TensorSpec(_SECOND.get(kind, "probabilities"), real, (BATCH, width)),
    )


def add_outputs(
    builder: GraphBuilder,
    kind: str,
    answers: str,
    groups: int,
    real: str,
    classes: Array | None = None,
) -> dict[str, str]:
    """Nodes that make the outputs of `output_specs`, by name.

    Parameters
    ----------
    answers : str
        Tensor of shape ``[N, groups]`` and element type `real`.
    """
    if kind == "values":
        if groups == 1:
            answers = builder.add("Reshape", answers, builder.constant([-1]))
        return {"prediction": answers}
    if kind == "multilabel":
        half = builder.constant(np.dtype(real).type(0.5))
        label = builder.cast(builder.add("Greater", answers, half), "int64")
        return {"label": label, "probabilities": answers}
    if kind == "binary":
        one = builder.constant(np.dtype(real).type(1))
        other = builder.add("Sub", one, answers)
        answers = builder.add("Concat", other, answers, axis=1)
    label = builder.add("ArgMax", answers, axis=1, keepdims=0)
    if classes is not None:
        label = builder.add("Gather", builder.constant(as_labels(classes)), label, axis=0)
    return {"label": label, _SECOND.get(kind, "probabilities"): answers}


def as_labels(values: Any) -> Array:
    """Class labels as they are served: int64, or text.

    Raises
    ------
    UnsupportedError
        When they are neither all text nor all integers.
    """
    labels = np.asarray(values)
    if labels.dtype.kind in "OUS":
        if all(isinstance(label, str) for label in labels.ravel()):
            return labels.astype(object)
        if not all(isinstance(label, int | np.integer) for label in labels.ravel()):
            raise UnsupportedError("class labels are neither all text nor all integers")
    whole = labels.astype(np.int64)
    if not np.array_equal(whole, labels):
        raise UnsupportedError(f"class labels are not integers: {labels.ravel()[0]!r}")
    return whole
