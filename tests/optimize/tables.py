"""Trained models of tables and texts, as convert writes them, for the passes of classic models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from sklearn.datasets import load_digits, make_classification, make_regression

from modelport import api
from modelport.adapters import find_adapter
from modelport.api.rows import to_rows
from modelport.core.tensors import Array, Tensors
from modelport.engines.base import EngineOptions
from modelport.optimize.base import Pass, Subject, Variant


@dataclass(frozen=True)
class Packed:
    """A converted model with rows that a pass gets, and others to see what it did."""

    model: bytes
    subject: Subject
    held: Tensors
    expected: Tensors

    def variants(self, one: Pass) -> dict[str, bytes]:
        """By name, without the pass's own; each has to run."""
        assert one.refuses(self.subject) == ""
        found = {v.name: v.model for v in one.variants(self.subject, lambda _: None)}
        assert all(name.partition(",")[0] == one.name for name in found)
        assert len({*found.values()}) == len(found)
        for content in found.values():
            onnx.checker.check_model(onnx.load_from_string(content))
        return {name.partition(", ")[2]: content for name, content in found.items()}

    def answers(self, content: bytes) -> Tensors:
        """To the rows that the pass did not get."""
        return run(content, self.held)


def run(content: bytes, rows: Tensors) -> Tensors:
    return find_adapter("engine", "onnxruntime").load().load(content, EngineOptions()).run(rows)


def packed(model: Any, sample: Any, folder: Path) -> Packed:
    """Convert a model; half of the sample is for passes."""
    package = api.pack(model, "model", sample=sample[:200], out=folder)
    content = package.model_path.read_bytes()
    engine = find_adapter("engine", "onnxruntime").load()
    signature = engine.load(content, EngineOptions()).signature
    rows = to_rows(sample).bind(signature)
    half = len(sample) // 2
    mine = {name: array[:half] for name, array in rows.items()}
    held = {name: array[half:] for name, array in rows.items()}
    subject = Subject(Variant("original", content), signature, mine, run(content, mine))
    return Packed(content, subject, held, run(content, held))


@cache
def two_classes() -> tuple[Array, Array]:
    rows, labels = make_classification(3000, 12, n_informative=6, random_state=0)
    return rows.astype(np.float32), labels


@cache
def ten_classes() -> tuple[Array, Array]:
    rows, labels = load_digits(return_X_y=True)
    return rows.astype(np.float32), labels


@cache
def numbers() -> tuple[Array, Array]:
    rows, targets = make_regression(2000, 8, noise=5, random_state=0)
    return rows.astype(np.float32), targets


def agreement(one: Tensors, other: Tensors, output: str = "label") -> float:
    """The share of rows with the same label."""
    return float(np.mean(one[output] == other[output]))


def largest(one: Tensors, other: Tensors, output: str) -> float:
    """The largest difference."""
    return float(np.abs(one[output].astype(np.float64) - other[output]).max())


def node_of(content: bytes, *kinds: str) -> onnx.NodeProto:
    """The only node of these operators."""
    (node,) = [n for n in onnx.load_from_string(content).graph.node if n.op_type in kinds]
    return node


def attribute(node: onnx.NodeProto, name: str) -> Any:
    found = [item for item in node.attribute if item.name == name]
    return onnx.helper.get_attribute_value(found[0]) if found else None
