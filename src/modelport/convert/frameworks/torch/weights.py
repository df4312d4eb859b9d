"""Weights in a checkpoint: found, matched with a module, loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from modelport.core.errors import InputError

#: Where training loops put the weights, in order of preference; averages of them come last.
_KEYS: Final = (
    "state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module",
    "generator", "state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema",
)  # fmt: skip

#: What wrappers put before every name, in order of preference.
_PREFIXES: Final = (
    "module.", "model.", "_orig_mod.", "net.", "model.module.", "model._orig_mod.",
    "module._orig_mod.", "_orig_mod.module.", "network.", "ema_model.", "ema.",
)  # fmt: skip

_SHOWN: Final = 5


@dataclass(frozen=True)
class Weights:
    """Tensors by name.

    Parameters
    ----------
    tensors : mapping of str to tensor
    key : str
        Where in the checkpoint they stand.
    others : tuple of str
        Other sets of weights in it.
    """

    tensors: Mapping[str, torch.Tensor]
    key: str = ""
    others: tuple[str, ...] = ()

    def describe(self) -> str:
        """How many there are, and the first names."""
        return f"{len(self.tensors)} tensors ({_names(list(self.tensors))})"


def find_weights(content: Any, where: str) -> Weights:
    """The weights in whatever a training loop saved.

    Raises
    ------
    InputError
        When there are none.
    """
    found = dict(_candidates(content))
    if not found:
        kind = type(content).__name__
        keys = f" with {_names([str(k) for k in content])}" if isinstance(content, Mapping) else ""
        raise InputError(
            f"the file holds no weights, but a {kind}{keys}",
            where=where,
            hint="save them with torch.save(model.state_dict(), path)",
        )
    known = [key for key in ("", *_KEYS) if key in found]
    key = known[0] if known else max(found, key=lambda name: len(found[name]))
    others = tuple(name for name in found if name != key)
    return Weights(found[key], key, others)


def _candidates(content: Any) -> list[tuple[str, dict[str, torch.Tensor]]]:
    if not isinstance(content, Mapping):
        return []
    tensors = _tensors(content)
    if tensors:
        return [("", tensors)]
    found = []
    for key, value in content.items():
        if isinstance(value, nn.Module):
            value = value.state_dict()
        inner = _tensors(value) if isinstance(value, Mapping) else {}
        if inner:
            found.append((str(key), inner))
    return found


def _tensors(mapping: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a state_dict; empty where this is none."""
    found = {
        str(key): value.detach()
        for key, value in mapping.items()
        if isinstance(value, torch.Tensor)
    }
    # A checkpoint's own numbers (epoch, loss) may be tensors without dimensions.
    return found if any(value.ndim for value in found.values()) else {}


def load_weights(module: nn.Module, weights: Weights, where: str) -> tuple[str, ...]:
    """Put the weights into the module; every one must have its place.

    Returns
    -------
    tuple of str
        Notes: what was left out, and which prefix was dropped.

    Raises
    ------
    InputError
        Listing what is missing, what is left over and what has another shape.
    """
    expected = module.state_dict()
    matched, note = _without_prefix(weights.tensors, expected)
    missing = [name for name in expected if name not in matched and not _may_miss(name)]
    missing = [name for name in missing if not _is_tied(name, expected, matched)]
    unexpected = [name for name in matched if name not in expected]
    misfits = [
        f"{name} {list(matched[name].shape)}, the model has {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in matched and matched[name].shape != tensor.shape
    ]
    problems = [
        f"{len(names)} {text}: {_names(names)}"
        for names, text in (
            (missing, "tensors of the model are not in the file"),
            (unexpected, "tensors of the file are not in the model"),
            (misfits, "tensors have another shape"),
        )
        if names
    ]
    if problems:
        raise InputError(
            f"the weights do not fit the factory's model: {'; '.join(problems)}",
            where=where,
            hint="the factory must make the model with the settings that it was trained with",
        )
    module.load_state_dict(matched, strict=False)
    notes = [note] if note else []
    if weights.others:
        others = ", ".join(weights.others[:_SHOWN])
        notes.append(f"the weights under {weights.key!r} were used; there are also: {others}")
    return tuple(notes)


def _without_prefix(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors under the module's names, if dropping or adding a prefix does it."""
    best, note = dict(tensors), ""
    most = len(best.keys() & expected.keys())
    if best.keys() == expected.keys():
        return best, ""
    for prefix in _prefixes(tensors):
        inside = {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}
        hits = len(inside.keys() & expected.keys())
        if hits > most:
            left = [name for name in tensors if not name.startswith(prefix)]
            note = f"names in the file begin with {prefix!r}, which was dropped"
            if left:
                note += f"; {len(left)} tensors outside it were left out: {_names(left)}"
            best, most = inside, hits
    for prefix in _prefixes(expected):
        longer = {prefix + name: tensor for name, tensor in tensors.items()}
        hits = len(longer.keys() & expected.keys())
        if hits > most:
            best, most, note = longer, hits, f"{prefix!r} was put before the names in the file"
    return best, note


def _prefixes(names: Mapping[str, Any]) -> list[str]:
    """The usual prefixes, and all that names here begin with, up to three words long."""
    own: dict[str, None] = {}
    for name in names:
        words = name.split(".")
        for count in range(1, min(4, len(words))):
            own[".".join(words[:count]) + "."] = None
    return [*(prefix for prefix in _PREFIXES if prefix in own), *own]


def _may_miss(name: str) -> bool:
    # A counter of training steps, which PyTorch before 0.4.1 did not have.
    return name.endswith("num_batches_tracked")


def _is_tied(
    name: str, expected: Mapping[str, torch.Tensor], matched: Mapping[str, torch.Tensor]
) -> bool:
    """Whether the tensor is another name of one that is there (safetensors keeps only one)."""
    tensor = expected[name]
    return any(
        other in matched and expected[other].data_ptr() == tensor.data_ptr() != 0
        for other in expected
        if other != name
    )


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown}, …" if len(names) > _SHOWN else shown
