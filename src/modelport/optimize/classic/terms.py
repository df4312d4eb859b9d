"""Terms of texts inside ONNX graphs: the columns of a ``TfIdfVectorizer`` whose tokens are numbers.

The operator's ``pool`` holds n-grams one after another, grouped by length; ``ngram_counts`` says
where each length begins, and ``ngram_indexes`` to which column each n-gram counts. The numbers
come from a ``LabelEncoder`` that knows tokens.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
import onnx

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.classic.columns import Graph, set_attribute
from modelport.optimize.onnx_graph import attribute

OPERATOR: Final = "TfIdfVectorizer"
#: Tokens with a number below stand for something else: dropped, space, other.
_FIRST: Final = 3


def grams_of(node: onnx.NodeProto) -> tuple[Array, list[Array]]:
    """The column of each n-gram, and its tokens' numbers.

    Raises
    ------
    UnsupportedError
        When its pool holds text, or n-grams have weights of their own.
    """
    pool = attribute(node, "pool_int64s")
    if not pool or attribute(node, "weights") or attribute(node, "mode") != b"TF":
        raise UnsupportedError("its terms are not numbered tokens that are counted")
    starts = [*attribute(node, "ngram_counts"), len(pool)]
    numbers = np.asarray(pool, dtype=np.int64)
    grams: list[Array] = []
    for length, (start, end) in enumerate(pairwise(starts), start=1):
        grams += list(numbers[start:end].reshape(-1, length))
    return np.asarray(attribute(node, "ngram_indexes"), dtype=np.int64), grams


def keep_terms(graph: Graph, node: onnx.NodeProto, kept: Array) -> None:
    """Leave some columns, and the tokens that their n-grams are made of.

    Parameters
    ----------
    kept : ndarray of int
        Ascending.
    """
    columns, grams = grams_of(node)
    place = {int(column): position for position, column in enumerate(kept)}
    chosen = [i for i, column in enumerate(columns.tolist()) if column in place]
    longest = max(len(grams[i]) for i in chosen)
    shortest = min(len(grams[i]) for i in chosen)
    pool: list[int] = []
    starts = []
    for length in range(1, longest + 1):
        starts.append(len(pool))
        pool += [int(n) for i in chosen if len(grams[i]) == length for n in grams[i]]
    set_attribute(node, "pool_int64s", pool)
    set_attribute(node, "ngram_counts", starts)
    ordered = sorted(chosen, key=lambda i: len(grams[i]))
    set_attribute(node, "ngram_indexes", [place[int(columns[i])] for i in ordered])
    set_attribute(node, "max_gram_length", longest)
    set_attribute(node, "min_gram_length", shortest)
    _forget_tokens(graph, node, set(pool))


def _forget_tokens(graph: Graph, node: onnx.NodeProto, known: set[int]) -> None:
    """Of the ``LabelEncoder`` that makes its numbers, unless others read them too.

    Numbers below `_FIRST`, of tokens that are dropped and of spaces, stay: n-grams reach over
    them or do not.
    """
    vectorizers = [n for n in graph.model.graph.node if n.op_type == OPERATOR]
    for encoder in _encoders(graph, node):
        others = [other for other in vectorizers if other is not node]
        if any(encoder in _encoders(graph, other) for other in others):
            continue
        keys, values = attribute(encoder, "keys_strings"), attribute(encoder, "values_int64s")
        stay = [i for i, value in enumerate(values) if value < _FIRST or value in known]
        if stay:
            set_attribute(encoder, "keys_strings", [keys[i] for i in stay])
            set_attribute(encoder, "values_int64s", [values[i] for i in stay])


def _encoders(graph: Graph, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Every ``LabelEncoder`` of text between a ``Tokenizer`` and a node."""
    makers = {name: maker for maker in graph.model.graph.node for name in maker.output}
    waiting, found, seen = [node], [], set()
    while waiting:
        for name in waiting.pop().input:
            maker = makers.get(name)
            if maker is None or name in seen:
                continue
            seen.add(name)
            if maker.op_type != "LabelEncoder":
                waiting.append(maker)
            elif attribute(maker, "keys_strings") and attribute(maker, "values_int64s"):
                found.append(maker)
    return found
