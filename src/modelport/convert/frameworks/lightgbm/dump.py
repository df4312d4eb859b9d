"""A booster's own text dump as plain arrays.

What a node decides is written after ``Tree::NumericalDecision`` and ``Tree::CategoricalDecision``
in LightGBM 4's ``include/LightGBM/tree.h``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from modelport.convert.forests.forest import Forest, join
from modelport.convert.forests.inputs import Feature, TreeInputs
from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array

#: Values this close to zero are zero: ``kZeroThreshold``, a float.
ZERO: Final = float(np.float32(1e-35))

#: What each objective does with the sums; those that are not here leave them as they are.
_LINKS: Final[Mapping[str, str]] = {
    "binary": "logistic",
    "cross_entropy": "logistic",
    "cross_entropy_lambda": "log1p_exp",
    "gamma": "exp",
    "multiclass": "softmax",
    "multiclassova": "logistic",
    "poisson": "exp",
    "tweedie": "exp",
}
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_IS_ZERO, _MISSING_IS_NAN = 1, 2
_AUTOMATIC_NAME: Final = re.compile(r"Column_\d+")


@dataclass(frozen=True, eq=False)
class Booster:
    """What a booster computes.

    Parameters
    ----------
    objective : str
        Empty for one of the user's own.
    link : str
        See `modelport.convert.forests.graph.add_link`.
    factor : float
        The sums are multiplied with it before the link.
    rounds : int
        More than 0 where the sums are divided by it: a random forest's average.
    groups : int
        Sums per row.
    inputs : TreeInputs
    categorical, zero_missing : tuple of int
        Features that are compared with sets of codes; features whose zeros are missing values.
    forest : Forest
    """

    objective: str
    link: str
    factor: float
    rounds: int
    groups: int
    inputs: TreeInputs
    categorical: tuple[int, ...]
    zero_missing: tuple[int, ...]
    forest: Forest


def read_booster(text: str, pandas_categorical: Sequence[Sequence[Any]] | None) -> Booster:
    """Read what ``Booster.model_to_string`` gives.

    Raises
    ------
    UnsupportedError
        For linear trees, and for features that are treated in two ways.
    """
    trees_text, _, rest = text.partition("\nend of trees")
    head, *blocks = re.split(r"^Tree=", trees_text, flags=re.MULTILINE)
    header = _fields(head)
    per_round = int(header["num_tree_per_iteration"])
    trees = [
        _tree(_fields(block), number % per_round, per_round) for number, block in enumerate(blocks)
    ]
    if not trees:
        raise UnsupportedError("the booster has no trees: it was not trained")
    forest = join([tree for tree, _ in trees])
    objective, *options = header.get("objective", "").split(" ")
    settings = dict(option.partition(":")[::2] for option in options)
    custom = objective in ("", "custom", "none")
    link = "signed_square" if "sqrt" in settings else _LINKS.get(objective, "identity")
    return Booster(
        objective="" if custom else objective,
        link=link,
        factor=float(settings.get("sigmoid") or 1.0) if link == "logistic" else 1.0,
        # A line without a value.
        rounds=len(trees) // per_round if "average_output" in head.splitlines() else 0,
        groups=per_round,
        inputs=TreeInputs(_features(header, rest, pandas_categorical or ())),
        categorical=tuple(sorted({int(forest.feature[node]) for node in forest.sets})),
        zero_missing=_zero_missing(forest, np.concatenate([kinds for _, kinds in trees])),
        forest=forest,
    )


def _fields(block: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in block.split("\n") if "=" in line)


def _features(
    header: Mapping[str, str], rest: str, lists: Sequence[Sequence[Any]]
) -> tuple[Feature, ...]:
    names = header["feature_names"].split(" ")
    if all(_AUTOMATIC_NAME.fullmatch(name) for name in names):
        names = [""] * len(names)
    features = [Feature(name) for name in names]
    if not lists:
        return tuple(features)
    positions = _coded_columns(header, rest)
    if len(positions) != len(lists):
        raise UnsupportedError(
            f"the model knows the categories of {len(lists)} columns and compares "
            f"{len(positions)} columns as categories: it does not tell which are which",
            hint="leave categorical_feature at 'auto', with unordered categories only",
        )
    for position, values in zip(positions, lists, strict=True):
        textual = any(isinstance(value, str) for value in values)
        categories = tuple(str(value) if textual else float(value) for value in values)
        features[position] = replace(features[position], categories=categories)
    return tuple(features)


def _coded_columns(header: Mapping[str, str], rest: str) -> list[int]:
    """Columns with the element type ``category``, in their order."""
    found = re.search(r"^\[categorical_feature: ([\d,]*)\]", rest, flags=re.MULTILINE)
    if found:
        return sorted(int(number) for number in found[1].split(",") if number)
    infos = header["feature_infos"].split(" ")
    return [number for number, info in enumerate(infos) if ":" in info and info[0] != "["]


def _tree(fields: Mapping[str, str], target: int, targets: int) -> tuple[Forest, Array]:
    """One tree, its leaves behind its inner nodes; and the kind of missing value by node."""
    if fields.get("is_linear", "0").strip() == "1":
        raise UnsupportedError(
            "trees with linear models in their leaves cannot be exported",
            hint="train with linear_tree=False",
        )
    leaves = int(fields["num_leaves"])
    inner = leaves - 1

    def read(key: str, dtype: type = np.int64) -> Array:
        return np.asarray(fields[key].split() if inner else [], dtype=np.str_).astype(dtype)

    def padded(values: Array, with_: float) -> Array:
        return np.concatenate([values, np.full(leaves, with_)])

    decision, threshold = read("decision_type"), read("threshold", np.float64)
    kinds = decision >> 2 & 3
    is_set = (decision & _CATEGORICAL) > 0
    # Without missing values NaN is read as 0.
    missing = np.where(kinds == 0, threshold >= 0.0, (decision & _DEFAULT_LEFT) > 0) & ~is_set
    children = [read(key) for key in ("left_child", "right_child")]
    left, right = (
        padded(np.where(side < 0, inner + ~side, side), -1).astype(np.int64) for side in children
    )
    values = np.asarray(fields["leaf_value"].split(), dtype=np.str_).astype(np.float64)
    tree = Forest(
        feature=padded(read("split_feature"), 0).astype(np.int64),
        threshold=padded(np.where(is_set, 0.0, _around_zero(threshold)), 0.0),
        left=left,
        right=right,
        missing_left=padded(missing, 0).astype(np.bool_),
        value=np.concatenate([np.zeros(inner), values]),
        roots=np.zeros(1, dtype=np.int64),
        target=np.asarray([target]),
        targets=targets,
        strict=False,
        sets=_sets(fields, np.flatnonzero(is_set), threshold),
    )
    return tree, padded(np.where(is_set, -1, kinds), -1)


def _around_zero(threshold: Array) -> Array:
    """Thresholds that decide alike for all values that LightGBM takes for zero.

    Rows reach the trees without the values between -1e-35 and 1e-35: those are 0.
    """
    below = (threshold >= -ZERO) & (threshold < 0.0)
    above = (threshold >= 0.0) & (threshold < ZERO)
    return np.where(below, np.nextafter(-ZERO, -np.inf), np.where(above, ZERO, threshold))


def _sets(fields: Mapping[str, str], nodes: Array, threshold: Array) -> dict[int, Array]:
    """Categories that go left: bits of the words between two boundaries."""
    if not len(nodes):
        return {}
    ends = np.asarray(fields["cat_boundaries"].split(), dtype=np.str_).astype(np.int64)
    words = np.asarray(fields["cat_threshold"].split(), dtype=np.str_).astype("<u4")
    found = {}
    for node in nodes.tolist():
        number = int(threshold[node])
        bits = words[ends[number] : ends[number + 1]].view(np.uint8)
        found[node] = np.flatnonzero(np.unpackbits(bits, bitorder="little"))
    return found


def _zero_missing(forest: Forest, kinds: Array) -> tuple[int, ...]:
    """Features of whose nodes all take zeros for missing."""
    zero = set(forest.feature[kinds == _MISSING_IS_ZERO].tolist())
    other = set(forest.feature[(kinds == 0) | (kinds == _MISSING_IS_NAN)].tolist())
    if zero & other:
        raise UnsupportedError(
            f"feature {min(zero & other)} has missing values of two kinds in different trees"
        )
    return tuple(sorted(int(feature) for feature in zero))
