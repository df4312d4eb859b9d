"""TensorFlow's examples, as classify and regress of TensorFlow Serving take them.

An example is an object of features. Its features are the model's inputs, each with one row of that
input; or, where a model has one input with named columns, those columns. Features that the model
does not know are ignored. Source of the features' kinds: ``tensorflow/serving``
(``json_tensor.cc``, ``input.proto``) and ``tensorflow/core/example/feature.proto``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from modelport.core.errors import InputError, SignatureError
from modelport.core.rows import decode_base64
from modelport.core.signature import Signature
from modelport.core.tensors import BYTES, Array, TensorSpec
from modelport.serve.json_codec import fields, is_object, plain

FLOAT: Final = "float"
INT64: Final = "int64"
RAW: Final = "bytes"

_LEAST: Final = -(2**63)
_MOST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of one example.

    Parameters
    ----------
    kind : str
        ``float``, ``int64`` or ``bytes``; empty: no value at all.
    values : list
        Of float, of int, or of bytes.
    """

    kind: str
    values: list[Any]


Example = Mapping[str, Feature]


def read_json(document: Mapping[str, Any]) -> list[Example]:
    """The examples of a REST body, each with the common context.

    Parameters
    ----------
    document : mapping
        The body, from `modelport.serve.json_codec.parse_object`.

    Raises
    ------
    InputError
    """
    examples = plain(document.get("examples"))
    if not isinstance(examples, list):
        raise InputError(
            "Expecting 'examples' value to be an list/array"
            if "examples" in document
            else "key 'examples' is expected and was not found"
        )
    if not examples:
        raise InputError("'examples' value is an empty array")
    context = _example(document["context"], "context") if "context" in document else {}
    read: list[Example] = []
    for position, item in enumerate(examples):
        # As TF Serving: what an example says itself comes after the context, and wins.
        read.append({**context, **_example(item, f"examples[{position}]")})
    return read


def _example(node: Any, where: str) -> dict[str, Feature]:
    if not is_object(node):
        raise InputError("Example must be JSON object", where=where)
    features = {}
    for name, value in fields(node).items():
        value = plain(value)
        features[name] = _feature(name, value if isinstance(value, list) else [value], where)
    return features


def _feature(name: str, values: list[Any], where: str) -> Feature:
    kinds: set[str] = set()
    read = []
    for value in values:
        kind, value = _typed(name, value, where)
        kinds.add(kind)
        read.append(value)
    if len(kinds) > 1:
        raise InputError(
            f"Unexpected element type in feature: {name}; one feature has values of one kind, "
            f"not {' and '.join(sorted(kinds))}",
            where=where,
        )
    return Feature(kinds.pop() if kinds else "", read)


def _typed(name: str, value: Any, where: str) -> tuple[str, Any]:
    if isinstance(value, int):
        if not _LEAST <= value <= _MOST:
            raise InputError(
                f"Feature: {name} has an integer beyond 64 bits. Only int64 is supported.",
                where=where,
            )
        return INT64, int(value)
    if isinstance(value, float):
        return FLOAT, value
    if isinstance(value, str):
        return RAW, value.encode()
    if isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str):
        try:
            return RAW, decode_base64(value["b64"])
        except ValueError as error:
            raise InputError("Unable to base64 decode", where=where) from error
    shown = {type(None): "Null", list: "Array", dict: "Object"}.get(type(value), "value")
    raise InputError(f"Feature: {name} has element with unexpected JSON type: {shown}", where=where)


def read_proto(examples: Sequence[Any], context: Any = None) -> list[Example]:
    """The examples of a ``tensorflow.serving.Input``, each with the common context.

    Parameters
    ----------
    examples : sequence of tensorflow.Example
    context : tensorflow.Example, optional

    Raises
    ------
    InputError
        When there is none.
    """
    if not len(examples):
        raise InputError("Input is empty")
    common = _features(context) if context is not None else {}
    return [{**common, **_features(example)} for example in examples]


def _features(example: Any) -> dict[str, Feature]:
    features = {}
    for name, feature in example.features.feature.items():
        field = feature.WhichOneof("kind")
        kind = {"bytes_list": RAW, "float_list": FLOAT, "int64_list": INT64}.get(field, "")
        features[name] = Feature(kind, list(getattr(feature, field).value) if kind else [])
    return features


def to_tensors(examples: Sequence[Example], signature: Signature) -> dict[str, Array]:
    """The model's inputs, one row per example.

    Integers are taken for floating inputs, too; nothing else is converted.

    Raises
    ------
    SignatureError
        A feature is missing, or is of another kind or size than the input.
    """
    specs = signature.inputs
    if len(specs) == 1 and specs[0].columns and specs[0].name not in examples[0]:
        return {specs[0].name: _from_columns(examples, specs[0])}
    return {spec.name: _from_feature(examples, spec) for spec in specs}


def _from_columns(examples: Sequence[Example], spec: TensorSpec) -> Array:
    flat = [
        value
        for position, example in enumerate(examples)
        for name in spec.columns
        for value in _values(example, name, spec, position, 1)
    ]
    return _array(flat, spec).reshape(len(examples), len(spec.columns))


def _from_feature(examples: Sequence[Example], spec: TensorSpec) -> Array:
    row = spec.shape[1:]
    unknown = sum(isinstance(size, str) for size in row)
    if not spec.shape or unknown > 1:
        raise SignatureError(f"input {spec.name} {spec.shape_text} cannot be read from examples")
    size = math.prod(d for d in row if isinstance(d, int))
    flat: list[Any] = []
    count = None if unknown else size
    for position, example in enumerate(examples):
        values = _values(example, spec.name, spec, position, count)
        if unknown and (not size or len(values) % size):
            raise SignatureError(
                f"feature {spec.name} has {len(values)} values, a row of the input is "
                f"{spec.shape_text}",
                where=f"examples[{position}]",
            )
        count = len(values)  # all rows are as long as the first
        flat += values
    shape = [d if isinstance(d, int) else (count or 0) // size for d in row]
    return _array(flat, spec).reshape(len(examples), *shape)


def _values(
    example: Example, name: str, spec: TensorSpec, position: int, count: int | None
) -> list[Any]:
    where = f"examples[{position}]"
    feature = example.get(name)
    if feature is None:
        raise SignatureError(
            f"Feature: {name} (data type: {spec.dtype}) is required but could not be found",
            where=where,
        )
    if count is not None and len(feature.values) != count:
        raise SignatureError(
            f"feature {name} has {len(feature.values)} values, expected {count}", where=where
        )
    if feature.values and feature.kind not in _KINDS[spec.numpy_dtype.kind]:
        raise SignatureError(
            f"Feature: {name}. Data types don't match. Data type: {feature.kind} but expected "
            f"type: {spec.dtype}",
            where=where,
        )
    return feature.values


#: Kind of element type → kinds of features that it is read from.
_KINDS: Final = {"f": (FLOAT, INT64), "i": (INT64,), "u": (INT64,), "b": (INT64,), "O": (RAW,)}


def _array(values: list[Any], spec: TensorSpec) -> Array:
    if spec.numpy_dtype.kind == "O":
        return _objects(values, spec)
    if spec.dtype == "bool" and not set(values) <= {0, 1}:
        raise SignatureError(f"input {spec.name} needs bool: 0 or 1")
    try:
        with np.errstate(over="ignore"):  # too large for float32 is infinity, as everywhere
            return np.array(values, dtype=spec.numpy_dtype)
    except OverflowError as error:
        raise SignatureError(
            f"input {spec.name} holds a number out of {spec.dtype}'s range"
        ) from error


def _objects(values: list[bytes], spec: TensorSpec) -> Array:
    array = np.empty(len(values), dtype=object)
    if spec.dtype == BYTES:
        array[:] = values
        return array
    try:
        array[:] = [value.decode() for value in values]
    except UnicodeDecodeError as error:
        raise SignatureError(f"input {spec.name} holds a string that is not UTF-8") from error
    return array
