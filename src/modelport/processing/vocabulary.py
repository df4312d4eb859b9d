"""Texts become word numbers, by a list of words."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from modelport.core.errors import InputError
from modelport.core.steps import VocabularyStep
from modelport.core.tensors import STRING, Array, Tensors, TensorSpec
from modelport.processing.base import Facts, Transform

_DTYPES: Final = ("int32", "int64", "float32", "float64")


class VocabularyProcessor:
    """See the module."""

    def fit(self, step: VocabularyStep, facts: Facts) -> VocabularyStep:
        """See `modelport.processing.base.Processor.fit`."""
        _words(step, facts)
        spec = facts.input_for(step.kind, step.to, ranks=(2,))
        if spec is None:
            if not step.max_length:
                raise InputError(
                    "the model does not tell how many words it takes", hint="declare 'max_length'"
                )
            return replace(step, dtype=step.dtype or "int64")
        fixed = spec.shape[1] if len(spec.shape) == 2 else None
        length = step.max_length or (fixed if isinstance(fixed, int) else 0)
        if len(spec.shape) != 2 or spec.dtype not in _DTYPES or step.dtype not in ("", spec.dtype):
            raise InputError(
                f"the vocabulary step makes numbers [N, words]; input {spec.name} is "
                f"{spec.dtype} {spec.shape_text}"
            )
        if not length or (isinstance(fixed, int) and length != fixed):
            raise InputError(
                f"input {spec.name} {spec.shape_text} does not fit {length} words",
                hint="declare 'max_length'",
            )
        return replace(step, to=spec.name, dtype=spec.dtype, max_length=length)

    def open(self, step: VocabularyStep, facts: Facts) -> Transform:
        """See `modelport.processing.base.Processor.open`."""
        return VocabularyTransform(step, _words(step, facts), facts.lead)


def _words(step: VocabularyStep, facts: Facts) -> dict[str, int]:
    if step.file not in facts.files:
        raise InputError(f"the vocabulary step needs a file: {step.file!r}")
    try:
        lines = facts.files[step.file].decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"a list of words is not UTF-8: {error}", where=step.file) from error
    words: dict[str, int] = {}
    for number, word in enumerate(lines, start=step.first):
        if word in words:
            line = number - step.first + 1
            raise InputError(f"a word stands twice: {word!r}", where=f"{step.file}:{line}")
        words[word] = number
    if not words:
        raise InputError("the list of words is empty", where=step.file)
    return words


class VocabularyTransform:
    """Looks up every word.

    Parameters
    ----------
    step : VocabularyStep
        Fitted.
    words : dict of str to int
    lead : int or str
        The batch dimension.
    """

    row_independent = True
    library = ""

    def __init__(self, step: VocabularyStep, words: dict[str, int], lead: int | str) -> None:
        self._step = step
        self._words = words
        self._edits = str.maketrans(
            {**dict.fromkeys(step.remove, ""), **dict.fromkeys(step.split_on, " ")}
        )
        self.takes = (TensorSpec(step.input, STRING, (lead,)),)
        self.gives = (TensorSpec(step.to, step.dtype, (lead, step.max_length)),)

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """See `modelport.processing.base.Transform.run`."""
        step = self._step
        texts = tensors[step.input]
        rows = np.full((len(texts), step.max_length), step.pad, dtype=step.dtype)
        for row, text in enumerate(texts):
            numbers = self._numbers(text)[: step.max_length]
            rows[row, : len(numbers)] = numbers
        return {step.to: rows}

    def _numbers(self, text: str) -> list[int]:
        step = self._step
        text = (text.lower() if step.lower else text).translate(self._edits)
        numbers = [self._words.get(word, step.unknown) for word in text.split()]
        return [number for number in numbers if number >= 0] if step.unknown < 0 else numbers
