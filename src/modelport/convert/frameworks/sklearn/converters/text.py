"""``CountVectorizer`` and ``TfidfVectorizer``, as scikit-learn counts.

skl2onnx keeps stop words inside pairs of words, computes another sublinear term frequency, and
has no characters. Here text becomes tokens, tokens become numbers, what does not count is taken
out of each row, and the n-grams of numbers are counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from modelport.convert.frameworks.sklearn.converters.writer import Writer
from modelport.core.errors import UnsupportedError

# Numbers of tokens: vocabulary counts from 3.
_OTHER, _DROPPED, _SPACE = 0, 1, 2
_FIRST: Final = 3

#: What ``\s`` is to Python, and ``str.split`` splits at.
_WHITE: Final = [chr(c) for c in range(0x110000) if chr(c).isspace()]
# Python's \w for RE2, whose own knows ASCII only.
_WORD: Final = r"\pL\pN_"
_SPACES: Final = (
    r"\x09-\x0d\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}"
    r"\x{3000}"
)
_PAD: Final = "\N{NULL}pad\N{NULL}"


def vectorize(writer: Writer) -> None:
    """``CountVectorizer`` and ``TfidfVectorizer``."""
    model = writer.model
    _check(model)
    words = model.analyzer == "word"
    numbers = _words(writer, model) if words else _characters(writer, model)
    counts = _count(writer, model, numbers)
    if model.binary:
        present = writer.add("Greater", counts, writer.constant(np.zeros(1), np.float32))
        counts = writer.cast(present, np.float32)
    if isinstance(model, TfidfVectorizer):
        counts = _weigh(writer, model._tfidf, writer.cast(counts, writer.dtype))
    writer.give(counts)


def weigh(writer: Writer) -> None:
    """``TfidfTransformer``."""
    writer.give(_weigh(writer, writer.model, writer.matrix()))


def _check(model: Any) -> None:
    name = type(model).__name__
    for parameter in ("preprocessor", "tokenizer"):
        function = getattr(model, parameter)
        if function is not None:
            named = getattr(function, "__qualname__", type(function).__name__)
            raise UnsupportedError(
                f"the {name} calls {parameter}={named}, which is Python code; "
                "use token_pattern, or do this step before the model"
            )
    if callable(model.analyzer):
        raise UnsupportedError(
            f"the {name} calls a Python function as its analyzer; use token_pattern instead"
        )
    if model.strip_accents is not None:
        raise UnsupportedError(
            f"the {name} has strip_accents={model.strip_accents!r}: ONNX cannot take accents "
            "off; fit it with strip_accents=None, or strip them before the model"
        )


def _lowered(writer: Writer, model: Any) -> str:
    (text,) = writer.inputs
    flat = str(writer.add("Reshape", text, writer.constant([-1])))
    if not model.lowercase:
        return flat
    # C.UTF-8 is part of glibc; en_US.UTF-8, the default, is on no slim image.
    return str(
        writer.add(
            "StringNormalizer", flat, case_change_action="LOWER", is_case_sensitive=0,
            locale="C.UTF-8",
        )
    )  # fmt: skip


def _tokens(writer: Writer, text: str, pattern: str) -> str:
    return str(
        writer.add(
            "Tokenizer",
            text,
            domain="com.microsoft",
            mark=0,
            mincharnum=1,
            pad_value=_PAD,
            tokenexp=pattern,
        )
    )


def _numbered(writer: Writer, tokens: str, numbers: dict[str, int]) -> str:
    """Numbers of tokens that are known; `_OTHER` for the rest."""
    return str(
        writer.add(
            "LabelEncoder",
            tokens,
            domain="ai.onnx.ml",
            keys_strings=list(numbers),
            values_int64s=list(numbers.values()),
            default_int64=_OTHER,
        )
    )


def _words(writer: Writer, model: Any) -> str:
    tokens = _tokens(writer, _lowered(writer, model), re2_pattern(model))
    known = dict.fromkeys(token for gram in _grams(model) for token in gram)
    numbers = {token: _FIRST + i for i, token in enumerate(known)}
    stop = set(model.get_stop_words() or ())
    several = model.ngram_range[1] > 1
    if several:
        # A stop word in the middle does not part the words beside it.
        numbers = {**dict.fromkeys(stop, _DROPPED), **numbers}
    numbered = _numbered(writer, tokens, numbers)
    return _without_dropped(writer, numbered) if several and stop else numbered


def _grams(model: Any) -> list[list[str]]:
    """The n-grams of the vocabulary, by their columns."""
    by_column = sorted(model.vocabulary_, key=model.vocabulary_.get)
    if model.analyzer != "word":
        return [list(gram) for gram in by_column]
    if model.ngram_range[1] == 1:
        return [[gram] for gram in by_column]
    grams = [gram.split(" ") for gram in by_column]
    if any(not 1 <= len(gram) <= model.ngram_range[1] or "" in gram for gram in grams):
        raise UnsupportedError(
            f"token_pattern={model.token_pattern!r} makes tokens with spaces in them, so that "
            "pairs of words cannot be told from words; use a token_pattern without spaces"
        )
    return grams


def re2_pattern(model: Any) -> str:
    """The token pattern for RE2, whose classes and word boundaries know ASCII only.

    Raises
    ------
    UnsupportedError
        When it cannot be said in RE2.
    """
    pattern = model.token_pattern.removeprefix("(?u)")
    if re.compile(model.token_pattern).groups:
        raise UnsupportedError(
            f"token_pattern={model.token_pattern!r} has a group; write it with (?:…)"
        )
    inner = pattern
    # A run of word characters ends at a boundary by itself.
    bounded = re.fullmatch(r"(?:\\b)?((?:\\w)+[+*]?|\\w\{\d+,\})(?:\\b)?", pattern)
    if bounded:
        inner = bounded[1]
    for unknown in (r"\B", "(?=", "(?!", "(?<", r"\W", r"\D"):
        if unknown in inner:
            raise UnsupportedError(
                f"token_pattern={model.token_pattern!r} has {unknown}, which cannot be said in "
                "the regular expressions of ONNX Runtime (RE2)"
            )
    if r"\b" in inner and r"\w" in inner:
        raise UnsupportedError(
            f"token_pattern={model.token_pattern!r} has word boundaries inside, which ONNX "
            "Runtime knows for ASCII only"
        )
    inner = inner.replace(r"\S", f"[^{_SPACES}]").replace(r"\s", f"[{_SPACES}]")
    inner = re.sub(r"\[([^\]]*)\\w", lambda m: f"[{m[1]}{_WORD}", inner)
    return inner.replace(r"\w", f"[{_WORD}]").replace(r"\d", r"\p{Nd}")


def _characters(writer: Writer, model: Any) -> str:
    """``analyzer="char"`` and ``"char_wb"``."""
    characters = _tokens(writer, _lowered(writer, model), r"(?s).")
    known = dict.fromkeys(c for gram in _grams(model) for c in gram)
    numbers = {c: _FIRST + i for i, c in enumerate(known)}
    # Runs of white space become one space; a single one stays what it is.
    white = dict.fromkeys(_WHITE, 1)
    numbered = _numbered(writer, characters, {**numbers, _PAD: _DROPPED})
    is_white = writer.add("Equal", _numbered(writer, characters, white), writer.constant([1]))
    space = numbers.get(" ", _SPACE)
    if model.analyzer == "char":
        return _runs_joined(writer, numbered, is_white, space)
    return _words_padded(writer, numbered, is_white, space)


def _runs_joined(writer: Writer, numbered: str, is_white: str, space: int) -> str:
    before, after = _neighbours(writer, is_white)
    follows = writer.add("And", is_white, before)
    starts = writer.add("And", is_white, after)
    joined = writer.add("Where", starts, writer.constant([space]), numbered)
    joined = writer.add("Where", follows, writer.constant([_DROPPED]), joined)
    return _without_dropped(writer, joined)


def _neighbours(writer: Writer, flags: str, outside: int = 0) -> tuple[str, str]:
    """Of each place, the flags of the places before and after it."""
    as_numbers = writer.cast(flags, np.int64)
    column = writer.add(
        "Slice", as_numbers, writer.constant([0]), writer.constant([1]), writer.constant([1])
    )
    edge = writer.add("Add", writer.add("Sub", column, column), writer.constant([outside]))
    last, far = writer.constant([-1]), writer.constant([2**31])
    zero, one, axis = writer.constant([0]), writer.constant([1]), writer.constant([1])
    before = writer.add("Concat", edge, writer.add("Slice", as_numbers, zero, last, axis), axis=1)
    after = writer.add("Concat", writer.add("Slice", as_numbers, one, far, axis), edge, axis=1)
    return writer.cast(before, np.bool_), writer.cast(after, np.bool_)


def _words_padded(writer: Writer, numbered: str, is_white: str, space: int) -> str:
    """Each word between two spaces, and something between words that no n-gram crosses."""
    padding = writer.add("Equal", numbered, writer.constant([_DROPPED]))
    between = writer.add("Or", is_white, padding)
    before, after = _neighbours(writer, between, outside=1)
    inside = writer.add("Not", between)
    nothing = writer.constant([_DROPPED])
    gap = writer.constant([space])
    first = writer.add("Where", writer.add("And", inside, before), gap, nothing)
    itself = writer.add("Where", inside, numbered, nothing)
    last_of_word = writer.add("And", inside, after)
    last = writer.add("Where", last_of_word, gap, nothing)
    wall = writer.add("Where", last_of_word, writer.constant([_OTHER]), nothing)
    two = writer.constant([2])
    stacked = writer.add(
        "Concat", *(writer.add("Unsqueeze", x, two) for x in (first, itself, last, wall)), axis=2
    )
    return _without_dropped(writer, writer.add("Flatten", stacked, axis=1))


def _without_dropped(writer: Writer, numbers: str) -> str:
    """Move what is dropped to the end of each row; the rest keeps its order."""
    dropped = writer.cast(writer.add("Equal", numbers, writer.constant([_DROPPED])), np.int64)
    width = writer.add("Shape", numbers, start=1, end=2)
    places = writer.add(
        "Range", writer.constant(0), writer.add("Squeeze", width), writer.constant(1)
    )
    key = writer.add("Add", writer.add("Mul", dropped, width), places)
    _, order = writer.add("TopK", key, width, outputs=2, axis=1, largest=0, sorted=1)
    return str(writer.add("GatherElements", numbers, order, axis=1))


def _count(writer: Writer, model: Any, numbers: str) -> str:
    grams = _grams(model)
    known = dict.fromkeys(token for gram in grams for token in gram)
    number = {token: _FIRST + i for i, token in enumerate(known)}
    order = sorted(range(len(grams)), key=lambda column: len(grams[column]))
    shortest, longest = len(grams[order[0]]), len(grams[order[-1]])
    pool: list[int] = []
    starts = [0] * shortest
    for length in range(shortest, longest + 1):
        starts[length - 1] = len(pool)
        pool += _pool(grams, order, length, number)
        if length < longest:
            starts.append(0)
    return str(
        writer.add(
            "TfIdfVectorizer",
            numbers,
            min_gram_length=shortest,
            max_gram_length=longest,
            max_skip_count=0,
            mode="TF",
            ngram_counts=starts,
            ngram_indexes=order,
            pool_int64s=pool,
        )
    )


def _pool(
    grams: Sequence[Sequence[str]], order: Sequence[int], length: int, number: dict[str, int]
) -> list[int]:
    return [
        number[token] for column in order if len(grams[column]) == length for token in grams[column]
    ]


def _weigh(writer: Writer, model: Any, counts: str) -> str:
    """``TfidfTransformer``: what is not there stays 0, also with sublinear frequencies."""
    if model.sublinear_tf:
        one = writer.constant(np.ones(1))
        present = writer.add("Greater", counts, writer.constant(np.zeros(1)))
        safe = writer.add("Where", present, counts, one)
        frequency = writer.plus(writer.add("Log", safe), 1.0)
        counts = writer.add("Where", present, frequency, writer.constant(np.zeros(1)))
    if model.use_idf:
        counts = writer.times(counts, np.asarray(model.idf_))
    if model.norm is None:
        return counts
    sizes = writer.add("Abs", counts)
    if model.norm == "l2":
        sizes = writer.add("Mul", counts, counts)
    total = writer.row_sums(sizes, keep=1)
    if model.norm == "l2":
        total = writer.add("Sqrt", total)
    none = writer.add("Equal", total, writer.constant(np.zeros(1)))
    return str(
        writer.add("Div", counts, writer.add("Where", none, writer.constant(np.ones(1)), total))
    )
