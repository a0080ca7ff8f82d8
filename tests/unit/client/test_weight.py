"""When a shape is light enough to share a connection, by what its runs took."""

from __future__ import annotations

import random

import pytest

from node.client.weight import LIGHT_BYTES, LIGHT_S, TICK_S, Weight

FAST_S, SLOW_S, STALL_S = LIGHT_S / 10, LIGHT_S * 4, 3.0


def learnt(*runs: float) -> Weight:
    weight = Weight(None)
    for took_s in runs:
        weight.learn(took_s, 100)
    return weight


def test_what_never_ran_is_not_light() -> None:
    assert not learnt().is_light()
    assert learnt(FAST_S).is_light()
    assert not learnt(SLOW_S).is_light()


@pytest.mark.parametrize(("share", "light"), [(0.04, True), (0.3, False)])
def test_slow_is_what_often_is(share: float, light: bool) -> None:
    """A stall in 25 runs is the machine's; three slow runs in ten are the statement's."""
    dice = random.Random(7)
    weight = learnt(FAST_S)
    seen = 0
    for _ in range(4000):
        weight.learn(STALL_S if dice.random() < share else FAST_S, 100)
        seen += weight.is_light()
    assert seen > 3600 if light else seen < 1200


def test_one_that_became_slow_is_heavy_soon_and_light_again_when_it_is_fast() -> None:
    weight = learnt(*[FAST_S] * 50)
    runs = 0
    while weight.is_light():
        weight.learn(SLOW_S, 100)
        runs += 1
    assert runs <= 8
    for _ in range(100):
        weight.learn(FAST_S, 100)
    assert weight.is_light()
    assert weight.took_s == pytest.approx(max(FAST_S, TICK_S))


def test_alone_the_fastest_run_lately_counts_and_a_late_loop_makes_none_faster_than_nothing() -> None:
    weight = Weight(None)
    for took_s in (FAST_S, SLOW_S, SLOW_S, -SLOW_S, SLOW_S):
        weight.ran_alone(took_s, 100)
    assert weight.is_light()
    assert weight.fastest_s >= 0
    for _ in range(60):
        weight.ran_alone(SLOW_S, 100)
    assert not weight.is_light()


def test_one_wide_answer_lately_is_wide() -> None:
    weight = learnt(*[FAST_S] * 10)
    weight.learn(FAST_S, LIGHT_BYTES * 2)
    assert not weight.is_light()
    for _ in range(20):
        weight.learn(FAST_S, 100)
    assert weight.is_light()
