"""Models whose answers change from call to call cannot be served, and are refused here."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from modelport.convert.frameworks.torch.program import FlatModule, Program
from modelport.convert.frameworks.torch.quiet import repeatable
from modelport.core.errors import UnsupportedError


def check_steady(program: Program, flat: FlatModule, tensors: Sequence[torch.Tensor]) -> None:
    """Call the model repeatedly with the same rows.

    Raises
    ------
    UnsupportedError
        When the answers differ, or the calls change weights or buffers; saying whether chance
        or a state that is carried on is the cause.
    """
    before = {name: tensor.clone() for name, tensor in program.state.items()}
    with repeatable():
        first, second = flat.answers(tensors), flat.answers(tensors)
    changed = [name for name, tensor in program.state.items() if not _same(tensor, before[name])]
    if changed:
        shown = ", ".join(changed[:5]) + (", …" if len(changed) > 5 else "")
        raise UnsupportedError(
            f"each call changes the model: {shown}; its answers may differ from call to call",
            hint="batch normalisation was exported in training mode, or the model keeps a state: "
            "call eval() before exporting; make a state an input and an output of forward",
        )
    if all(_same(first[name], second[name]) for name in first):
        return
    with repeatable(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = flat.answers(tensors)
        torch.manual_seed(0)
        second = flat.answers(tensors)
    if all(_same(first[name], second[name]) for name in first):
        raise UnsupportedError(
            "the model's answers differ from call to call: it draws random numbers "
            "(dropout in training mode, or noise)",
            hint="call eval() before exporting, pass training=self.training to functional "
            "dropout, and make noise an input of forward",
        )
    raise UnsupportedError(
        "the model's answers differ from call to call: it keeps a state between them",
        hint="a server answers many clients at once: make the state an input and an output of "
        "forward",
    )


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(
        torch.nan_to_num(one) if one.is_floating_point() else one,
        torch.nan_to_num(other) if other.is_floating_point() else other,
    )
