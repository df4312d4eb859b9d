"""Programs exported for one number of rows, tried with others.

``torch.export`` without ``dynamic_shapes`` writes the example's number of rows into the program
and guards it. Mostly only the guard minds: the graph itself works for any number.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.utils import _pytree as pytree

from modelport.convert.frameworks.torch.program import Feed, FlatModule, Program
from modelport.convert.frameworks.torch.quiet import repeatable

_TOLERANCE = 1e-5


def without_fixed_batch(program: Program) -> tuple[Program, tuple[str, ...]]:
    """The program without its guards, if it answers other numbers of rows as it did before.

    Returns
    -------
    Program
        The same where its batch is dynamic, or where the graph takes no other number.
    notes : tuple of str
    """
    exported = program.exported
    if exported is None or exported.example_inputs is None:
        return program, ()
    examples = [x for x in pytree.tree_leaves(exported.example_inputs) if torch.is_tensor(x)]
    counts = {len(x) if x.ndim else 0 for x in examples}
    if len(counts) != 1 or len(examples) != len(program.parameters):
        return program, ()
    (count,) = counts
    feed = Feed(tuple(parameter.name for parameter in program.parameters))
    if count == 0 or _takes(FlatModule(program, feed), examples, count + 1):
        return program, ()
    module = exported.module(check_guards=False)
    module._forward_pre_hooks.clear()  # the guards' other half; there is no public way
    loose = replace(program, module=module, settled=False)
    if not _same_rows(FlatModule(program, feed), FlatModule(loose, feed), examples, count):
        return program, ()
    note = f"it was exported for {count} rows; its graph takes any number, and gives the same"
    return loose, (f"{note} answers",)


def _rows(examples: list[torch.Tensor], count: int) -> list[torch.Tensor]:
    return [x[torch.arange(count) % len(x)].contiguous() for x in examples]


def _takes(flat: FlatModule, examples: list[torch.Tensor], count: int) -> bool:
    try:
        with repeatable():
            flat.answers(_rows(examples, count))
    except Exception:  # that it does not take them is the answer
        return False
    return True


def _same_rows(
    guarded: FlatModule, loose: FlatModule, examples: list[torch.Tensor], count: int
) -> bool:
    """Whether every row has the same answer among more rows, and alone."""
    with repeatable():
        wanted = guarded.answers(examples)
        for other in (1, count + 1, 2 * count):
            try:
                found = loose.answers(_rows(examples, other))
            except Exception:  # that it does not take them is the answer
                return False
            for name, tensor in wanted.items():
                if not tensor.ndim or len(tensor) != count or len(found[name]) != other:
                    return False
                repeated = tensor[torch.arange(other) % count].double()
                if not torch.allclose(
                    found[name].double(), repeated, _TOLERANCE, _TOLERANCE, equal_nan=True
                ):
                    return False
    return True
