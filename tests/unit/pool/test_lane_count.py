"""How many connections are lanes: `auto` against servers with so many cores, where a busy backend more is a cost."""

from __future__ import annotations

from random import Random

import pytest

from node.pool.lane_count import WINDOW_S, LaneCount
from node.pool.lanes import LOOK_EVERY_S

SECONDS = 60.0
MOST = 40


def rate(lanes: int, cores: int, cost: float) -> float:
    """Units a second."""
    return 10_000 * min(lanes, cores) * (1 - cost) ** max(0, lanes - cores)


def watched(count: LaneCount, cores: int, cost: float, noise: float, dice: Random, *, since: float = 0.0) -> list[int]:
    """The numbers that were in force, look by look. Noise is that of a window."""
    seen, ended = [], since * 1e6
    for look in range(int(SECONDS / LOOK_EVERY_S)):
        ended += (
            rate(count.allowed, cores, cost) * LOOK_EVERY_S * dice.gauss(1, noise * (WINDOW_S / LOOK_EVERY_S) ** 0.5)
        )
        count.look(since + look * LOOK_EVERY_S, int(ended))
        seen.append(count.allowed)
    return seen


@pytest.mark.parametrize("cost", [0.0, 0.03, 0.1])
@pytest.mark.parametrize("cores", [1, 2, 3, 4, 8, 16, 32])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_auto_comes_near_the_best_number_and_stays_there(cores: int, cost: float, noise: float) -> None:
    count = LaneCount(None, MOST)
    seen = watched(count, cores, cost, noise, Random(cores))[int(SECONDS / 3 / LOOK_EVERY_S) :]
    got = sum(rate(lanes, cores, cost) for lanes in seen) / len(seen) / rate(cores, cores, cost)
    assert got > (0.9 if cores <= 8 else 0.75)
    assert max(seen) <= MOST
    assert min(seen) >= 1
    moves = sum(one != two for one, two in zip(seen, seen[1:], strict=False))
    assert moves <= SECONDS, "a step and a step back now and then, no more"


def test_it_is_at_eight_within_two_seconds_and_follows_what_changes() -> None:
    count = LaneCount(None, MOST)
    seen = watched(count, 8, 0.03, 0.0, Random(1))
    assert next(look for look, lanes in enumerate(seen) if lanes >= 8) * LOOK_EVERY_S < 2.0
    for since, cores in ((100.0, 2), (200.0, 8)):
        seen = watched(count, cores, 0.03, 0.0, Random(1), since=since)[-int(20 / LOOK_EVERY_S) :]
        assert sum(rate(lanes, cores, 0.03) for lanes in seen) / len(seen) > 0.9 * rate(cores, cores, 0.03)


def test_more_lanes_that_bring_nothing_go_again() -> None:
    """As many reads get through on one as on eight: the clients are what limits."""
    count = LaneCount(None, 8)
    for look in range(int(SECONDS / LOOK_EVERY_S)):
        count.look(look * LOOK_EVERY_S, look * 100)
    assert count.allowed <= 2


def test_a_fixed_number_stays_and_limits_hold() -> None:
    count = LaneCount(4, MOST)
    assert set(watched(count, 16, 0.0, 0.0, Random(1))) == {4}
    assert LaneCount(4, 3).allowed == 3
    assert LaneCount(None, 1).allowed == 1
    assert set(watched(LaneCount(None, 1), 16, 0.0, 0.0, Random(1))) == {1}
    count.limit(None, 2)
    assert max(watched(count, 16, 0.0, 0.0, Random(1))) == 2


def test_time_in_which_nobody_stood_behind_anybody_counts_for_nothing() -> None:
    count = LaneCount(None, 8)
    count.look(0.0, 0)
    for look in range(1, 50):
        count.look(look * WINDOW_S * 0.9, look)
    assert count.allowed == 2
