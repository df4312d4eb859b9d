"""The steps of processing, as data: what each does to values, and nothing that does it.

The adapters in `modelport.processing` do. Fields that are empty are told by the model when a
step is fitted to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, TypeAlias

from modelport.core.errors import InputError
from modelport.core.tensors import NUMPY_DTYPES, STRING

#: Pixels beyond which an image is refused before it is decoded.
MOST_PIXELS: Final = 50_000_000

_MOST_SIZE: Final = 1 << 15
_MOST_TOKENS: Final = 1 << 20


class _Checked:
    """What the steps share: every value is one that the step can work with."""

    kind: ClassVar[str]
    #: Allowed values, of the fields that have some.
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    #: False where one row may cost a thousand times as much as another.
    steady: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, allowed in self.choices.items():
            value = getattr(self, name)
            if value not in allowed:
                known = ", ".join(choice for choice in allowed if choice)
                raise InputError(f"not a {name}: {value!r}; there is: {known}", where=name)
        self._check()

    def _check(self) -> None:
        """Raise `InputError` when values do not go together."""

    def to_json(self) -> dict[str, Any]:
        """The plain form: every field, so that it means the same to every reader."""
        plain = {item.name: _plain(getattr(self, item.name)) for item in fields(self)}  # type: ignore[arg-type]
        return {"kind": self.kind, **plain}


def _require(condition: bool, message: str, where: str) -> None:
    if not condition:
        raise InputError(message, where=where)


@dataclass(frozen=True)
class ImageStep(_Checked):
    """An encoded image becomes a tensor of pixels.

    The image is decoded (JPEG, PNG, WebP, BMP; the first frame), turned as its EXIF data says,
    converted to `colour`, resized, cropped around its centre, and computed as
    ``(pixel / divide - mean) / std``.

    Parameters
    ----------
    input : str
        What clients call it.
    to : str
        The model's input; empty: its only one.
    colour : str
        ``RGB``, ``BGR`` or ``L`` (grey). Transparency is dropped, as training pipelines do.
    resize : str
        ``none``; ``exact``: to `size`, whatever the proportions; ``shorter``: the shorter side
        to `size`; ``letterbox``: inside `size`, the rest filled.
    size : tuple of int
        Height and width, or one number for ``shorter``.
    filter : str
        Of resizing, as Pillow defines it (all but ``nearest`` average when they shrink).
    fill : int
        0 to 255, of the borders that ``letterbox`` adds.
    crop : tuple of int
        Height and width around the centre; empty: none.
    divide : float
    mean, std : tuple of float
        One per channel, in the order of `colour`; one for all; or empty.
    dtype : str
        Of the tensor.
    layout : str
        ``NHWC``, ``NCHW``, ``NHW`` (grey) or ``flat`` (one row of numbers in NHWC order).
    most_pixels : int
        Larger images are refused before they are decoded.
    """

    kind: ClassVar[str] = "image"
    steady: ClassVar[bool] = False
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "colour": ("", "RGB", "BGR", "L"),
        "resize": ("none", "exact", "shorter", "letterbox"),
        "filter": ("nearest", "bilinear", "bicubic", "lanczos"),
        "dtype": ("", *(n for n, d in NUMPY_DTYPES.items() if d.kind in "fiu")),
        "layout": ("", "NHWC", "NCHW", "NHW", "flat"),
    }

    input: str = "image"
    to: str = ""
    colour: str = ""
    resize: str = "exact"
    size: tuple[int, ...] = ()
    filter: str = "bilinear"
    fill: int = 0
    crop: tuple[int, ...] = ()
    divide: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    dtype: str = ""
    layout: str = ""
    most_pixels: int = MOST_PIXELS

    def _check(self) -> None:
        _require(bool(self.input), "an input needs a name", "input")
        sizes = (0, 1) if self.resize == "shorter" else (0, 2)
        _require(len(self.size) in sizes, f"{self.resize} does not go with {self.size}", "size")
        _require(len(self.crop) in (0, 2), f"not a height and a width: {self.crop}", "crop")
        for name, values in (("size", self.size), ("crop", self.crop)):
            fits = all(0 < value <= _MOST_SIZE for value in values)
            _require(fits, f"sizes are from 1 to {_MOST_SIZE}: {values}", name)
        _require(0 <= self.fill <= 255, f"not from 0 to 255: {self.fill}", "fill")
        _require(self.divide != 0.0, "cannot divide by 0", "divide")
        _require(0.0 not in self.std, "cannot divide by 0", "std")
        _require(self.most_pixels > 0, f"not above 0: {self.most_pixels}", "most_pixels")
        channels = (0, 1) if self.colour == "L" else (0, 1, 3)
        for name, levels in (("mean", self.mean), ("std", self.std)):
            _require(len(levels) in channels, f"{len(levels)} do not fit the channels", name)
        whole = not self.dtype or self.dtype.startswith("float")
        scaled = self.divide != 1.0 or bool(self.mean) or bool(self.std)
        _require(whole or not scaled, f"{self.dtype} pixels cannot be scaled", "dtype")
        grey = self.layout != "NHW" or self.colour in ("", "L")
        _require(grey, f"NHW has one channel, {self.colour} has three", "layout")

    @property
    def output_size(self) -> tuple[int, int] | None:
        """Height and width of the tensor, as far as the step decides them."""
        if self.crop:
            return (self.crop[0], self.crop[1])
        if self.resize in ("exact", "letterbox") and self.size:
            return (self.size[0], self.size[1])
        return None

    def describe(self) -> str:
        """One line for people."""
        parts = [f"{self.input}: an encoded image, as {self.colour or 'the model needs it'}"]
        if self.resize != "none":
            how = {"exact": "to", "shorter": "its shorter side to", "letterbox": "into"}
            size = "×".join(map(str, self.size)) or "the model's size"
            parts.append(f"resized {how[self.resize]} {size} ({self.filter})")
        if self.crop:
            parts.append(f"centre {self.crop[0]}×{self.crop[1]}")
        if self.divide != 1.0:
            parts.append(f"÷ {self.divide:g}")
        if self.mean:
            parts.append(f"- {_numbers(self.mean)}")
        if self.std:
            parts.append(f"÷ {_numbers(self.std)}")
        return f"{', '.join(parts)} → {self.to or 'the model'} {self.dtype} {self.layout}".rstrip()


@dataclass(frozen=True)
class TextStep(_Checked):
    """A text becomes token numbers, by a Hugging Face ``tokenizer.json``.

    Parameters
    ----------
    input : str
        What clients call it.
    file : str
        The tokenizer's file in the package.
    max_length : int
        Tokens; what is longer is cut at its end. 0: as the model or the tokenizer's file says.
    padding : str
        ``max_length``: every row has as many tokens, so that rows do not depend on each other;
        ``longest``: as many as the longest row of a request, which is faster for short texts,
        and then requests cannot share a batch.
    ids, mask, types : str
        The model's inputs for token numbers, attention mask and token types; empty: found by
        name, and left out where the model has none.
    dtype : str
        Of the tensors.
    """

    kind: ClassVar[str] = "text"
    steady: ClassVar[bool] = False
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "padding": ("max_length", "longest"),
        "dtype": ("", "int32", "int64"),
    }

    input: str = "text"
    file: str = ""
    max_length: int = 0
    padding: str = "max_length"
    ids: str = ""
    mask: str = ""
    types: str = ""
    dtype: str = ""

    def _check(self) -> None:
        _require(bool(self.input), "an input needs a name", "input")
        fits = 0 <= self.max_length <= _MOST_TOKENS
        _require(fits, f"not from 0 to {_MOST_TOKENS}: {self.max_length}", "max_length")

    def describe(self) -> str:
        """One line for people."""
        names = ", ".join(name for name in (self.ids, self.mask, self.types) if name)
        length = f"{self.max_length} tokens" if self.max_length else "the model's length"
        padded = "padded to" if self.padding == "max_length" else "at most"
        return f"{self.input}: text, by {self.file}, {padded} {length} → {names or 'the model'}"


@dataclass(frozen=True)
class VocabularyStep(_Checked):
    """A text becomes word numbers, by a list of words.

    Parameters
    ----------
    input : str
        What clients call it.
    file : str
        One word per line, in the package.
    to : str
        The model's input; empty: its only one.
    lower : bool
        Whether the text is made lower case first.
    remove : str
        Characters that are taken out.
    split_on : str
        Characters that separate words, beside white space.
    first : int
        The number of the first word of the file.
    unknown : int
        The number of every word that is not in the file; -1: they are left out.
    pad : int
        The number that fills a row after its last word.
    max_length : int
        Words; what is longer is cut at its end. 0: as the model says.
    dtype : str
        Of the tensor.
    """

    kind: ClassVar[str] = "vocabulary"
    steady: ClassVar[bool] = False
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "dtype": ("", "int32", "int64", "float32", "float64")
    }

    input: str = "text"
    file: str = ""
    to: str = ""
    lower: bool = True
    remove: str = ""
    split_on: str = ""
    first: int = 2
    unknown: int = 1
    pad: int = 0
    max_length: int = 0
    dtype: str = ""

    def _check(self) -> None:
        _require(bool(self.input), "an input needs a name", "input")
        fits = 0 <= self.max_length <= _MOST_TOKENS
        _require(fits, f"not from 0 to {_MOST_TOKENS}: {self.max_length}", "max_length")
        for name in ("first", "unknown", "pad"):
            number = getattr(self, name)
            least = -1 if name == "unknown" else 0
            fits = least <= number < 1 << 30
            _require(fits, f"not from {least} to {1 << 30}: {number}", name)

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.input}: text, by the words of {self.file}, "
            f"padded to {self.max_length or 'the length'} → {self.to or 'the model'} {self.dtype}"
        ).rstrip()


@dataclass(frozen=True)
class Column(_Checked):
    """One column of a table.

    Parameters
    ----------
    name : str
        What clients call it.
    dtype : str
        What clients send; ``string`` for a column with codes. Empty: the matrix's own.
    codes : mapping of str to float
        The number of each category.
    unknown : float or None
        The number of any other text; None: it is refused.
    missing : float or None
        The number that stands for NaN or an empty text; None: NaN stays NaN, and an empty text
        is a text like others.
    """

    kind: ClassVar[str] = "column"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "dtype": ("", *(n for n, d in NUMPY_DTYPES.items() if d.kind in "fiub"), STRING)
    }

    name: str
    dtype: str = ""
    codes: Mapping[str, float] = field(default_factory=dict)
    unknown: float | None = None
    missing: float | None = None

    def _check(self) -> None:
        _require(bool(self.name), "a column needs a name", "name")
        if self.codes and not self.dtype:
            object.__setattr__(self, "dtype", STRING)
        coded = bool(self.codes) == (self.dtype == STRING)
        _require(coded, f"codes do not go with {self.dtype or 'numbers'}", "codes")

    def to_json(self) -> dict[str, Any]:
        """See `_Checked.to_json`; a column has no kind."""
        plain = super().to_json()
        return {name: value for name, value in plain.items() if name != "kind"}


@dataclass(frozen=True)
class TableStep(_Checked):
    """Columns by name become the model's matrix.

    Parameters
    ----------
    columns : tuple of Column
        In the order of the matrix; empty: the columns that the model itself names.
    to : str
        The model's input; empty: its only one.
    dtype : str
        Of the matrix.
    """

    kind: ClassVar[str] = "table"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "dtype": ("", *(n for n, d in NUMPY_DTYPES.items() if d.kind in "fiu"))
    }

    columns: tuple[Column, ...] = ()
    to: str = ""
    dtype: str = ""

    def _check(self) -> None:
        names = [column.name for column in self.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        _require(not twice, f"column names repeat: {', '.join(twice)}", "columns")

    def describe(self) -> str:
        """One line for people."""
        names = [
            column.name + (f" ({len(column.codes)} categories)" if column.codes else "")
            for column in self.columns
        ]
        shown = ", ".join(names[:8]) + (f", … ({len(names)})" if len(names) > 8 else "")
        return f"columns {shown or 'of the model'} → {self.to or 'the model'} {self.dtype}".rstrip()


@dataclass(frozen=True)
class LabelsStep(_Checked):
    """Scores become labels.

    Parameters
    ----------
    output : str
        The model's scores ``[N, classes]``; empty: found by their size.
    labels : tuple of str
        In the order of the scores.
    activation : str
        What makes probabilities of the scores: ``none``, ``softmax`` or ``sigmoid``; empty:
        ``none`` where the scores are probabilities on the sample rows, else ``softmax``.
    top_k : int
        0: the best label alone, ``label`` and ``probability`` ``[N]``; otherwise the best
        `top_k`, best first, ``labels`` and ``probabilities`` ``[N, top_k]``.
    keep : bool
        Whether clients get the scores, too.
    label, probability : str
        What clients call them; empty: as above, with ``top_`` before it where the model has an
        output of that name.
    """

    kind: ClassVar[str] = "labels"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "activation": ("", "none", "softmax", "sigmoid")
    }

    labels: tuple[str, ...]
    output: str = ""
    activation: str = ""
    top_k: int = 0
    keep: bool = True
    label: str = ""
    probability: str = ""

    def _check(self) -> None:
        _require(len(self.labels) > 1, f"{len(self.labels)} labels are too few", "labels")
        fits = 0 <= self.top_k <= len(self.labels)
        _require(fits, f"not from 0 to {len(self.labels)}: {self.top_k}", "top_k")

    def describe(self) -> str:
        """One line for people."""
        how = f"{self.activation} of " if self.activation not in ("", "none") else ""
        best = f"the best {self.top_k}" if self.top_k else "the best"
        names = " and ".join(name for name in (self.label, self.probability) if name)
        kept = "" if self.keep else ", instead of the scores"
        return (
            f"{how}{self.output or 'the scores'} → {best} of {len(self.labels)} labels "
            f"({names or 'with its probability'}{kept})"
        )


InputStep: TypeAlias = ImageStep | TextStep | VocabularyStep | TableStep
Step: TypeAlias = InputStep | LabelsStep

INPUT_STEPS: Final = {step.kind: step for step in (ImageStep, TextStep, VocabularyStep, TableStep)}
OUTPUT_STEPS: Final = {LabelsStep.kind: LabelsStep}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Column):
        return value.to_json()
    return dict(value) if isinstance(value, Mapping) else value


def _numbers(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"({', '.join(f'{v:g}' for v in values)})"
