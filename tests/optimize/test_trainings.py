"""Trainings share the time that there is: the most promising first, and none past the deadline."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from modelport.core.errors import UnsupportedError
from modelport.optimize.passes.channels import ChannelsPass
from modelport.optimize.passes.prune import PrunePass
from modelport.optimize.train.clock import LONGEST, Allowance, Clock
from modelport.optimize.train.lesson import lesson_of
from modelport.optimize.train.recipe import recipe_for
from modelport.optimize.train.source import source_of
from modelport.optimize.train.trainings import Plan, train, train_in_turn
from tests.optimize.networks import Network, cnn, images, quiet, subject_of


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelport.optimize.train.recipe._MOST_STEPS", 40)


def test_a_pass_leaves_time_for_others_and_its_first_training_gets_the_most() -> None:
    assert Allowance(math.inf, 0.5).seconds() == LONGEST
    assert Allowance(time.monotonic() + 1000, 0.5).seconds() == LONGEST
    assert LONGEST < Allowance(time.monotonic() + 10_000, 0.5).seconds() <= 500
    small = Allowance(time.monotonic() + 120, 0.5)
    assert 40 < small.seconds() <= 60
    assert 10 < small.seconds(sharing=3) <= 20
    with pytest.raises(UnsupportedError, match="too little to train"):
        Allowance(time.monotonic() + 6, 0.5).seconds()
    with pytest.raises(UnsupportedError, match="0 s are left"):
        Allowance(time.monotonic() - 5, 0.5).seconds()


def test_what_comes_too_late_is_not_begun_and_it_is_said() -> None:
    class Brief(Allowance):
        def seconds(self, sharing: int = 1) -> float:
            asked.append(sharing)
            if len(asked) > 1:
                raise UnsupportedError("3 s are left for it, too little to train (--budget)")
            return super().seconds(sharing)

    asked: list[int] = []
    said: list[str] = []
    subject = subject_of(cnn(), {"x": images(80)})
    source = source_of(subject)
    lesson = lesson_of(subject, source.total)
    plans = (Plan(name, source.model) for name in ("one", "other", "third"))
    made = list(train_in_turn(plans, lesson, Brief(math.inf, 0.5), said.append, alike=3))
    assert [plan.name for plan, _, _ in made] == ["one"]
    assert asked == [3, 2]
    assert "  not other: 3 s are left for it, too little to train (--budget)" in said
    assert not any("third" in line for line in said)
    assert any("s left: loss" in line for line in said)


@pytest.mark.parametrize("one", [ChannelsPass(), PrunePass()])
def test_a_pass_whose_time_is_up_says_so(one: ChannelsPass | PrunePass) -> None:
    network = Network()
    h = network.op("Relu", network.dense(network.input("x", 12), 12, 128))
    h = network.op("Relu", network.dense(h, 128, 128))
    rows = {"x": np.random.default_rng(0).standard_normal((100, 12)).astype(np.float32)}
    model = network.model(network.dense(h, 128, 3))
    late = subject_of(model, rows, deadline=time.monotonic() + 3)
    assert one.refuses(late) == ""
    with pytest.raises(UnsupportedError, match="too little to train"):
        next(one.variants(late, quiet))


def test_a_clock_hurries_when_the_deadline_comes_before_the_last_step() -> None:
    clock = Clock(1_000_000, time.monotonic() + 0.5)
    rates = []
    while not clock.over():
        rates.append(clock.rate())
        clock.tick()
    assert clock.step < 1_000_000
    assert rates[-1] < 0.1
    assert clock.left() <= 0.5
    unhurried = Clock(20, math.inf)
    for _ in range(20):
        assert not unhurried.over()
        unhurried.tick()
    assert unhurried.over()


def test_networks_that_cost_too_much_for_the_time_are_refused_with_the_number() -> None:
    subject = subject_of(cnn(), {"x": images(80)})
    source = source_of(subject)
    lesson = lesson_of(subject, source.total)
    with pytest.raises(UnsupportedError, match="million multiplications"):
        train(Plan("it", source.model, work=source.total * 2000), lesson, 60.0, quiet)


def test_perceptrons_with_a_softmax_are_no_transformers() -> None:
    random = np.random.default_rng(0)
    plain = Network()
    h = plain.op("Relu", plain.linear(plain.input("x", 16), 16, 32))
    scores = plain.model(plain.op("Softmax", plain.linear(h, 32, 3), axis=-1))
    attending = Network()
    x = attending.input("x", 6, 16)
    mixed = attending.op("MatMul", attending.linear(x, 16, 16), attending.op(
        "Transpose", attending.linear(x, 16, 16), perm=[0, 2, 1]))  # fmt: skip
    rates = []
    for model, shape in ((scores, (100, 16)), (attending.model(mixed), (100, 6, 16))):
        subject = subject_of(model, {"x": random.standard_normal(shape).astype(np.float32)})
        source = source_of(subject)
        recipe = recipe_for(source.model, source.observed, 100, 1e12, normed=False, changed=1.0)
        rates.append(recipe.rate)
    assert rates[1] < rates[0]
