"""Several trainings in turn, the most promising first, as many as fit into the time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import onnx

from modelport.core.errors import UnsupportedError
from modelport.core.tensors import Array
from modelport.optimize.base import Progress
from modelport.optimize.reduce.observe import observe_graph
from modelport.optimize.train.clock import LONGEST, Allowance
from modelport.optimize.train.distil import Taught, distil
from modelport.optimize.train.graph import Moments
from modelport.optimize.train.lesson import Lesson
from modelport.optimize.train.recipe import Recipe, recipe_for

#: Multiplications of all forward steps of one training: two to three minutes on two cores.
WORK: Final = 1e12
#: Of the rows that are learned: looking at the held ones must not take longer than learning.
_HELD_SHARE: Final = 1 / 30
_LEAST_HELD: Final = 64
#: Of the time, where right answers are learned after the teacher's.
_RIGHT_SHARE_OF_TIME: Final = 0.2
#: Of what is learned then; the rest is the teacher's.
_RIGHT_SHARE: Final = 0.3


@dataclass(frozen=True)
class Plan:
    """One training.

    Parameters
    ----------
    name : str
        Of the variant that it makes.
    model : ModelProto
        Changed; its weights are trained.
    norms, masks
        See `modelport.optimize.train.distil.distil`.
    changed : float
        The share of the multiplications that is gone.
    work : float
        Multiplications that may be spent on forward steps.
    detail : mapping
        What was chosen, for the report.
    """

    name: str
    model: onnx.ModelProto
    norms: Mapping[str, Moments] | None = None
    masks: Mapping[str, Array] | None = None
    changed: float = 1.0
    work: float = WORK
    detail: Mapping[str, Any] = field(default_factory=dict)


def train_in_turn(
    plans: Iterator[Plan],
    lesson: Lesson,
    allowance: Allowance,
    report: Progress,
    alike: int = 0,
) -> Iterator[tuple[Plan, onnx.ModelProto, dict[str, Any]]]:
    """Train one after the other, until the time is up.

    Parameters
    ----------
    plans : iterator of Plan
        The most promising first.
    lesson : Lesson
    allowance : Allowance
    report : callable
    alike : int
        How many plans share the time alike; 0: the first ones take what they need.

    Yields
    ------
    (Plan, ModelProto, dict)
        The trained graph, and the plan's detail with that of the training.

    Raises
    ------
    UnsupportedError
        When not even the first can be trained.
    """
    for made, plan in enumerate(plans):
        report(f"  {plan.name}")
        try:
            seconds = allowance.seconds(max(alike - made, 1))
            model, detail = train(plan, lesson, seconds, report)
        except UnsupportedError as error:
            if not made:
                raise
            report(f"  not {plan.name}: {error.message}")
            return
        yield plan, model, {**plan.detail, **detail}


def train(
    plan: Plan, lesson: Lesson, seconds: float, report: Progress
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Distil with a recipe that fits the graph and the rows.

    Parameters
    ----------
    plan : Plan
    lesson : Lesson
    seconds : float
        That it may take.
    report : callable

    Returns
    -------
    ModelProto
    dict
        For the report: the loss on held rows, after how many steps, what right answers did.
    """
    started = time.monotonic()
    observed = observe_graph(plan.model, lesson.learned.rows)
    recipe = recipe_for(
        plan.model, observed, lesson.learned.count, plan.work * max(seconds / LONGEST, 1),
        normed=bool(plan.norms), changed=plan.changed,
    )  # fmt: skip
    few = max(int(_HELD_SHARE * recipe.steps * recipe.batch), _LEAST_HELD)
    lesson = replace(lesson, held=lesson.held.take(np.arange(min(few, lesson.held.count))))
    alone = seconds * (1 - _RIGHT_SHARE_OF_TIME) if lesson.target else seconds
    taught = distil(
        plan.model, lesson, recipe, report,
        norms=plan.norms, masks=plan.masks, deadline=started + alone,
    )  # fmt: skip
    detail: dict[str, Any] = {"steps": taught.steps, "loss": taught.after}
    if lesson.target is not None:
        taught, told = _righter(taught, plan, lesson, recipe, started + seconds, report)
        detail["target"] = told
    elif lesson.remark:
        detail["target"] = f"not learned from: {lesson.remark}"
    report(
        f"    trained {time.monotonic() - started:.0f} s: loss {taught.before:.4g} to "
        f"{taught.after:.4g}"
    )
    return taught.model, detail


def _righter(
    taught: Taught, plan: Plan, lesson: Lesson, recipe: Recipe, deadline: float, report: Progress
) -> tuple[Taught, str]:
    """Learn right answers too, and keep that if the held rows are answered better."""
    metric = lesson.target.metric if lesson.target else ""
    report(f"    learning the right answers too, {metric} {taught.scores[1][0]:.4g}")
    try:
        finer = distil(
            taught.model, lesson, recipe.finer(_RIGHT_SHARE), report,
            masks=plan.masks, deadline=deadline,
        )  # fmt: skip
    except UnsupportedError as error:
        return taught, f"not learned from: {error.message}"
    before, after = finer.scores
    told = f"{metric} on held rows {before[0]:.4g}, with right answers {after[0]:.4g}"
    if after <= before:
        return taught, f"not learned from: {told}"
    return replace(finer, before=taught.before, after=taught.after), f"learned from: {told}"
