"""The world itself: same seed same run, and each fault does what its name says."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from sim.world import INFINITY, Disk, Halt, Member, Network, Stuck, World


@dataclass
class Ponger:
    """Answers every ping, pings a neighbour once a second, remembers what it heard."""

    peer: str
    heard: list[Any] = field(default_factory=list)
    deadline: float = 0.0

    def receive(self, message: Any, source: Any, now: float) -> list[Any]:
        self.heard.append((round(now, 6), source, message))
        return [(source, "pong")] if message == "ping" else []

    def tick(self, now: float) -> list[Any]:
        if now < self.deadline:
            return []
        self.deadline = now + 1.0
        return [(self.peer, "ping")]


def perform(member: Member, effect: Any) -> None:
    member.world.send(member.name, effect[0], effect[1])


def pair(seed: int, network: Network | None = None) -> tuple[World, Member, Member]:
    world = World(seed, network)
    a = world.add("a", lambda member: Ponger("b"), perform)
    b = world.add("b", lambda member: Ponger("a"), perform)
    return world, a, b


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    def run(seed: int) -> list[Any]:
        world, a, _ = pair(seed, Network(loss=0.2, duplicate=0.2, tail=0.1))
        world.run(20.0)
        return a.core.heard

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_a_cut_is_one_way_and_healing_ends_it() -> None:
    world, a, b = pair(3)
    world.network.cut("a", "b")
    world.run(5.5)
    assert b.core.heard == []
    assert {message for _, _, message in a.core.heard} == {"ping"}
    world.network.heal()
    world.run(8.0)
    assert b.core.heard


def test_partition_cuts_both_ways() -> None:
    world, a, b = pair(3)
    world.network.partition(["a"], ["b"])
    world.run(5.0)
    assert a.core.heard == b.core.heard == []


def test_a_crash_loses_memory_and_a_restart_begins_a_new_life() -> None:
    world, a, _ = pair(4)
    world.run(3.0)
    old = a.core
    a.crash()
    assert not a.up
    world.run(4.0)
    a.start()
    assert a.life == 2
    assert a.core is not old
    world.run(6.0)
    assert a.core.heard


def test_long_work_of_a_former_life_never_reports() -> None:
    world, a, _ = pair(5)
    world.run(0.5)
    seen: list[str] = []

    def report(core: Any, now: float) -> list[Any]:
        seen.append("reported")
        return []

    a.later(1.0, report)
    a.crash()
    a.start()
    world.run(3.0)
    assert seen == []
    a.later(1.0, report)
    world.run(5.0)
    assert seen == ["reported"]


def test_unsynced_writes_may_be_lost_and_synced_ones_never() -> None:
    fates = set()
    for seed in range(20):
        disk = Disk()
        disk.write("vote", 1)
        disk.sync()
        disk.write("vote", 2)
        assert disk.read("vote") == 2
        disk.crash(Random(seed))
        fates.add(disk.read("vote"))
    assert fates == {1, 2}


def test_halt_drops_the_rest_of_the_effects_and_stops_the_member() -> None:
    done: list[Any] = []

    def halting(member: Member, effect: Any) -> None:
        if effect == "persist":
            raise Halt("disk is gone")
        done.append(effect)

    class Promiser:
        deadline = INFINITY

        def receive(self, message: Any, source: Any, now: float) -> list[Any]:
            return []

        def tick(self, now: float) -> list[Any]:
            return ["before", "persist", "send the vote"]

    world = World(1)
    member = world.add("a", lambda member: Promiser(), halting)
    world.run(1.0)
    assert done == ["before"]
    assert not member.up


def test_a_stalled_member_hears_everything_later() -> None:
    world, a, _ = pair(6)
    world.run(1.5)
    a.core.heard.clear()
    a.stall(3.0)
    world.run(4.4)
    assert a.core.heard == []
    world.run(4.6)
    assert len(a.core.heard) >= 3


def test_a_machine_has_its_own_clock() -> None:
    world, a, b = pair(7)
    a.clock_offset, a.clock_rate = 1000.0, 2.0
    world.run(5.5)
    assert a.now == pytest.approx(1011.0)
    # Its second is half of the world's, so it pings twice as often.
    pings = [1 for _, _, message in b.core.heard if message == "ping"]
    assert len(pings) == 11


def test_a_timer_that_never_moves_on_is_reported_with_its_seed() -> None:
    class Hasty:
        deadline = 0.0

        def receive(self, message: Any, source: Any, now: float) -> list[Any]:
            return []

        def tick(self, now: float) -> list[Any]:
            return []

    world = World(99, event_limit=1000)
    world.add("a", lambda member: Hasty(), perform)
    with pytest.raises(Stuck, match="seed 99"):
        world.run(1.0)
