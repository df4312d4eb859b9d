"""Teaching a ``torch.nn.Module``: Adam (Kingma and Ba, 2015) with clipped gradients."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array, Tensors
from modelport.optimize.given.lesson import LABELS_SHARE, NUMBERS, SCORES, UNKNOWN, Head, Lesson
from modelport.optimize.teachers.base import Pupil
from modelport.optimize.train.losses import Goal

_MOST_GRADIENT: Final = 5.0
_LEAST: Final = 1e-12
_SEED: Final = 3


class TorchTeacher:
    """See `modelport.optimize.teachers.base.Teacher`."""

    def recognises(self, network: Any) -> bool:
        """See `modelport.optimize.teachers.base.Teacher.recognises`."""
        return isinstance(network, nn.Module)

    def answers(self, network: Any, rows: Sequence[Array]) -> list[Array]:
        """See `modelport.optimize.teachers.base.Teacher.answers`."""
        network.to("cpu").eval()
        with torch.no_grad():
            found = _called(network, rows)
        return [tensor.numpy() for tensor in found]

    @contextmanager
    def pupil(self, network: Any, heads: Sequence[Head]) -> Iterator[Pupil]:
        """See `modelport.optimize.teachers.base.Teacher.pupil`."""
        threads = torch.get_num_threads()
        # Half of the cores: others wait for each other when the machine has something else to do.
        torch.set_num_threads(max(len(os.sched_getaffinity(0)) // 2, 1))
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(_SEED)
                yield TorchPupil(network, heads)
        finally:
            network.eval()
            torch.set_num_threads(threads)

    def columns(self, network: Any, rows: Sequence[Array]) -> Tensors:
        """See `modelport.optimize.teachers.base.Teacher.columns`; by the names in ``forward``."""
        parameters = list(inspect.signature(network.forward).parameters.values())
        names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][: len(rows)]
        if len(names) < len(rows):
            names = [f"arr_{at}" for at in range(len(rows))]  # in order, as np.savez has it
        return dict(zip(names, rows, strict=True))


class TorchPupil:
    """See `modelport.optimize.teachers.base.Pupil`.

    Parameters
    ----------
    network : Module
    heads : sequence of Head
    """

    def __init__(self, network: nn.Module, heads: Sequence[Head]) -> None:
        self._network, self._heads = network, heads
        self._goals = [Goal(head.name, head.kind, head.variance) for head in heads]
        self._weights = [weight for weight in network.parameters() if weight.requires_grad]
        if not self._weights:
            raise UnsupportedError("it has no weights that could learn")
        self._optimizer = torch.optim.Adam(self._weights)
        self._kept: dict[str, Any] = {}

    def step(self, batch: Lesson, rate: float) -> float:
        """See `modelport.optimize.teachers.base.Pupil.step`."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._network.train()
        self._optimizer.zero_grad()
        found = self._found(batch)
        loss = self._loss(found, batch)
        if batch.labels is not None:
            right = torch.from_numpy(batch.labels)
            hard = _hard_loss(self._heads[0], found[0], right)
            loss = (1 - LABELS_SHARE) * loss + LABELS_SHARE * hard
        value = float(loss.detach())
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._weights, _MOST_GRADIENT)
        self._optimizer.step()
        return value

    def loss(self, part: Lesson) -> float:
        """See `modelport.optimize.teachers.base.Pupil.loss`."""
        self._network.eval()
        with torch.no_grad():
            return float(self._loss(self._found(part), part))

    def keep(self) -> None:
        """See `modelport.optimize.teachers.base.Pupil.keep`."""
        self._kept = copy.deepcopy(self._network.state_dict())

    def restore(self) -> None:
        """See `modelport.optimize.teachers.base.Pupil.restore`."""
        self._network.load_state_dict(self._kept)

    def _found(self, batch: Lesson) -> list[Tensor]:
        found = [tensor.float() for tensor in _called(self._network, batch.rows)]
        return [
            F.softmax(tensor, -1) if head.softmax else tensor
            for head, tensor in zip(self._heads, found, strict=True)
        ]

    def _loss(self, found: Sequence[Tensor], batch: Lesson) -> Tensor:
        parts = [
            goal.loss(mine, torch.from_numpy(theirs))
            for goal, mine, theirs in zip(self._goals, found, batch.answers, strict=True)
        ]
        return torch.stack(parts).sum()


def _hard_loss(head: Head, found: Tensor, right: Tensor) -> Tensor:
    """Of the rows that have labels: the cross-entropy of classes, the squared error of numbers."""
    if head.kind == NUMBERS:
        known = torch.isfinite(right)
        errors = torch.where(known, found - torch.nan_to_num(right), 0.0).square()
        errors = errors / torch.tensor(head.variance)
    else:
        known = right != UNKNOWN
        logs = F.log_softmax(found, -1) if head.kind == SCORES else found.clamp(min=_LEAST).log()
        errors = F.nll_loss(logs, right, reduction="none", ignore_index=UNKNOWN)
    return errors.sum() / known.sum().clamp(min=1)


def _called(network: nn.Module, rows: Sequence[Array]) -> list[Tensor]:
    """The network's outputs; floating-point inputs are given in the type of its weights."""
    dtypes = [t.dtype for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()]
    dtype = dtypes[0] if dtypes else torch.float32
    given = [torch.from_numpy(np.ascontiguousarray(array)) for array in rows]
    found = network(*(t.to(dtype) if t.is_floating_point() else t for t in given))
    return [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor)]
