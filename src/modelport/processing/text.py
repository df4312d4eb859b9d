"""Texts become tokens, through Hugging Face's tokenizers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

# Its own threads would take the cores from other requests, and do not survive a fork.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import tokenizers
from tokenizers import Tokenizer

from modelport.core.errors import InputError, LimitError
from modelport.core.steps import TextStep
from modelport.core.tensors import STRING, Array, Tensors, TensorSpec
from modelport.processing.base import Facts, Transform

#: Characters beyond which a text is refused: tokens are counted only after all are made.
_MOST_CHARACTERS: Final = 1_000_000

#: By what the model's inputs are called.
_NAMES: Final = {
    "mask": ("mask",),
    "types": ("type", "segment"),
    "ids": ("input_ids", "ids", "token", "input"),
}
_PADDINGS: Final = ("[PAD]", "<pad>", "<|pad|>", "<PAD>")


class TextProcessor:
    """See the module."""

    def fit(self, step: TextStep, facts: Facts) -> TextStep:
        """See `modelport.processing.base.Processor.fit`."""
        tokenizer = _tokenizer(step, facts)
        specs = facts.signature.inputs_by_name if facts.signature is not None else {}
        step = _named(step, specs)
        for name in (step.ids, step.mask, step.types):
            if name and specs and (name not in specs or len(specs[name].shape) != 2):
                shown = ", ".join(f"{s.name} {s.dtype} {s.shape_text}" for s in specs.values())
                raise InputError(
                    f"the text step makes {name!r} [N, tokens]; the model takes {shown}"
                )
        ids = specs.get(step.ids)
        dtype = step.dtype or (ids.dtype if ids is not None else "int64")
        if dtype not in ("int32", "int64"):
            raise InputError(f"input {step.ids} is {dtype}; tokens are int32 or int64")
        fixed = ids.shape[1] if ids is not None else None
        length = step.max_length or (fixed if isinstance(fixed, int) else _own_length(tokenizer))
        if not length:
            raise InputError(
                f"neither the model nor {step.file} tells how many tokens there are",
                hint="declare 'max_length'",
            )
        if isinstance(fixed, int) and (length != fixed or step.padding != "max_length"):
            raise InputError(f"input {step.ids} takes exactly {fixed} tokens, not {length}")
        return replace(step, dtype=dtype, max_length=length)

    def open(self, step: TextStep, facts: Facts) -> Transform:
        """See `modelport.processing.base.Processor.open`."""
        return TextTransform(step, _tokenizer(step, facts), facts.lead)


def _tokenizer(step: TextStep, facts: Facts) -> Tokenizer:
    try:
        return Tokenizer.from_buffer(facts.files[step.file])
    except KeyError as error:
        raise InputError(f"the text step needs a file: {step.file!r}") from error
    except Exception as error:  # the library raises bare exceptions
        raise InputError(
            f"not a tokenizer: {error}",
            where=step.file,
            hint="save it with tokenizer.save('tokenizer.json')",
        ) from error


def _named(step: TextStep, specs: dict[str, TensorSpec]) -> TextStep:
    """Find the model's inputs by their names."""
    if step.ids:
        return step
    if not specs:
        return replace(step, ids="input_ids", mask=step.mask or "attention_mask")
    if len(specs) == 1:
        return replace(step, ids=next(iter(specs)))
    left = [name for name in specs if name not in (step.mask, step.types)]
    found = {"mask": step.mask, "types": step.types, "ids": ""}
    for role, words in _NAMES.items():
        for name in left:
            if not found[role] and any(word in name.lower() for word in words):
                found[role] = name
        left = [name for name in left if name not in found.values()]
    if not found["ids"]:
        raise InputError(
            f"no telling which input takes the tokens; the model takes: {', '.join(specs)}",
            hint="declare 'ids'",
        )
    return replace(step, ids=found["ids"], mask=found["mask"], types=found["types"])


def _own_length(tokenizer: Tokenizer) -> int:
    truncation, padding = tokenizer.truncation or {}, tokenizer.padding or {}
    return int(truncation.get("max_length") or padding.get("length") or 0)


class TextTransform:
    """Makes the same number of tokens of every text, unless the step says otherwise.

    Parameters
    ----------
    step : TextStep
        Fitted.
    tokenizer : Tokenizer
    lead : int or str
        The batch dimension.
    """

    library = f"tokenizers {tokenizers.__version__}"

    def __init__(self, step: TextStep, tokenizer: Tokenizer, lead: int | str) -> None:
        fixed = step.padding == "max_length"
        _configure(tokenizer, step.max_length if fixed else None, step)
        self._step = step
        self._tokenizer = tokenizer
        self._dtype = np.dtype(step.dtype)
        self.row_independent = fixed
        shape = (lead, step.max_length if fixed else f"{step.input}_tokens")
        self.takes = (TensorSpec(step.input, STRING, (lead,)),)
        made = (name for name in (step.ids, step.mask, step.types) if name)
        self.gives = tuple(TensorSpec(name, step.dtype, shape) for name in made)

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """See `modelport.processing.base.Transform.run`."""
        step = self._step
        texts: list[str] = tensors[step.input].tolist()
        for row, text in enumerate(texts):
            if len(text) > _MOST_CHARACTERS:
                raise LimitError(
                    f"a text of {len(text)} characters; at most {_MOST_CHARACTERS} are allowed",
                    where=f"{step.input}[{row}]",
                )
        encodings = self._tokenizer.encode_batch(texts)
        made: dict[str, Sequence[Any]] = {step.ids: [item.ids for item in encodings]}
        if step.mask:
            made[step.mask] = [item.attention_mask for item in encodings]
        if step.types:
            made[step.types] = [item.type_ids for item in encodings]
        shape = (len(texts), -1) if texts else (0, step.max_length)
        return {
            name: np.asarray(rows, dtype=self._dtype).reshape(shape) for name, rows in made.items()
        }


def _configure(tokenizer: Tokenizer, length: int | None, step: TextStep) -> None:
    """Cut and pad as the step says; what the padding is, the tokenizer's file says."""
    truncation, padding = dict(tokenizer.truncation or {}), dict(tokenizer.padding or {})
    own = {n: truncation[n] for n in ("stride", "strategy", "direction") if n in truncation}
    tokenizer.enable_truncation(step.max_length, **own)
    if not padding:
        for token in _PADDINGS:
            number = tokenizer.token_to_id(token)
            if number is not None:
                padding = {"pad_id": number, "pad_token": token}
                break
    known = ("direction", "pad_id", "pad_type_id", "pad_token")
    kept = {name: padding[name] for name in known if name in padding}
    tokenizer.enable_padding(length=length, **kept)
