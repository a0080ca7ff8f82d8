"""Membership under loss, duplication, reordering, crashes, restarts and splits: real cores, sealed datagrams."""

from __future__ import annotations

import math

import pytest
from sim.swim_flock import Flock
from sim.world import Network

from discovery.effects import MemberChanged
from discovery.member import State
from discovery.settings import LAN, LOCAL, SwimSettings
from discovery.suspicion import minimum_timeout_s

CRUEL = {"loss": 0.15, "duplicate": 0.1, "tail": 0.05}
# The tail must end well before a suspicion does, or late packets alone are a longer outage than it forgives.
TAIL_S = 1.0


def cruel() -> Network:
    return Network(**CRUEL, tail_delay=TAIL_S)


def joined(flock: Flock) -> bool:
    return all(flock.process(node).up for node in flock.nodes) and flock.all_alive()


def together(seed: int, count: int, network: Network | None = None, settings: SwimSettings = LAN) -> Flock:
    """A flock in which everybody has met everybody."""
    flock = Flock(seed, count, network=network, settings=settings)
    assert flock.world.run(30.0, stop=lambda: joined(flock)), f"seed {seed}: not together after 30 s"
    return flock


def crash_bound_s(settings: SwimSettings, count: int) -> float:
    """reference/cluster.md section 7, worst case in place of means: the round robin reaches the dead member within one
    round of any observer, and the suspicion may have to wait for its confirmations.
    """
    interval = settings.probe_interval_s
    # With N - 1 observers the chance that nobody asks for three intervals is e^-3 each time; five are ample.
    first = 5 * interval
    suspicion = minimum_timeout_s(settings.suspicion_multiplier, count, interval)
    gossip = settings.gossip_interval_s * math.log(9999 * (count + 1)) / (0.5 * settings.gossip_fanout)
    return first + 1.25 * suspicion + interval + gossip


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [2, 5, 12])
def test_everybody_gets_to_know_everybody_through_one_seed(seed: int, count: int) -> None:
    flock = Flock(seed, count, network=cruel())
    assert flock.world.run(30.0, stop=lambda: joined(flock))
    assert flock.world.now < 15.0


@pytest.mark.parametrize("seed", range(5))
def test_nobody_is_declared_dead_in_30_seconds_with_half_of_all_packets_lost(seed: int) -> None:
    flock = Flock(seed, 10, network=Network(loss=0.5, duplicate=0.1))
    assert flock.world.run(30.0, stop=flock.acquainted)
    met = flock.world.now
    flock.world.run(met + 30.0)
    assert flock.false_deaths() == []
    assert any(change.after is State.SUSPECT for _, _, change in flock.changes), "the loss was not even noticed"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("count", "settings"), [(3, LAN), (10, LAN), (3, LOCAL), (10, LOCAL)])
def test_a_crash_is_seen_by_all_within_the_bound(seed: int, count: int, settings: SwimSettings) -> None:
    flock = together(seed, count, settings=settings)
    crashed_at = flock.world.now + 3.0
    flock.world.run(crashed_at)
    flock.process("n1").crash()
    bound = crash_bound_s(settings, count)
    assert flock.world.run(crashed_at + bound, stop=lambda: flock.all_see("n1", State.DEAD))
    assert {c.node for _, _, c in flock.changes if c.after is State.DEAD} == {"n1"}


@pytest.mark.parametrize("seed", range(4))
def test_crashes_under_loss_are_seen_and_the_living_stay_alive(seed: int) -> None:
    flock = together(seed, 10, network=cruel())
    for node in ("n3", "n7"):
        flock.process(node).crash()
    found = flock.world.run(
        flock.world.now + 90.0, stop=lambda: flock.all_see("n3", State.DEAD) and flock.all_see("n7", State.DEAD)
    )
    assert found
    assert {c.node for _, _, c in flock.changes if c.after is State.DEAD} == {"n3", "n7"}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pause", [0.3, 20.0])
def test_a_member_that_restarts_is_believed_in_its_new_life(seed: int, pause: float) -> None:
    """Also when it comes back before anybody noticed that it was gone."""
    flock = together(seed, 5, network=cruel())
    former = flock.core("n2").swim.me
    flock.process("n2").crash()
    flock.world.run(flock.world.now + pause)
    flock.process("n2").start()
    assert flock.world.run(flock.world.now + 30.0, stop=flock.all_alive)
    assert flock.core("n2").swim.me.order > former.order
    assert flock.conflicts == []


@pytest.mark.parametrize("seed", range(4))
def test_a_member_that_lost_its_memory_outbids_its_former_life(seed: int) -> None:
    flock = together(seed, 4)
    for _ in range(3):
        flock.core("n1").swim.update_meta(clients=None, version=1, digest=None, now=flock.world.now)
    flock.process("n1").crash()
    flock.process("n1").start()
    flock.process("n1").crash()
    flock.process("n1").disk.wipe()
    flock.world.run(flock.world.now + 0.5)
    flock.process("n1").start()
    assert flock.core("n1").swim.me.incarnation == 1
    assert flock.world.run(flock.world.now + 30.0, stop=flock.all_alive)
    assert not flock.core("n1").swim.conceded


@pytest.mark.parametrize("seed", range(4))
def test_a_member_that_is_only_slow_refutes_its_suspicion(seed: int) -> None:
    flock = together(seed, 6)
    before = flock.core("n1").swim.me.incarnation
    flock.process("n1").stall(3.9)
    rows = flock.core("n0").swim.rows
    assert flock.world.run(flock.world.now + 10.0, stop=lambda: rows["n1"].suspicion is not None)
    assert flock.world.run(flock.world.now + 15.0, stop=flock.all_alive)
    assert flock.core("n1").swim.me.incarnation > before
    assert flock.false_deaths() == []


@pytest.mark.parametrize("seed", range(4))
def test_a_member_that_stood_still_blames_nobody(seed: int) -> None:
    """SIGSTOP, a laptop lid, a virtual machine that was moved: on waking all timers are overdue."""
    flock = together(seed, 6)
    flock.process("n1").stall(60.0)
    stalled_until = flock.world.now + 60.0
    flock.world.run(stalled_until + 30.0)
    assert flock.all_alive()
    assert [change for _, by, change in flock.changes if by == "n1" and change.after is State.DEAD] == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("minutes", [1, 12])
def test_a_split_flock_heals(seed: int, minutes: int) -> None:
    """Both sides have given each other up long ago; nobody restarts and no seed is asked again."""
    flock = together(seed, 7)
    left, right = flock.nodes[:3], flock.nodes[3:]
    flock.world.network.partition([flock.address(n) for n in left], [flock.address(n) for n in right])
    flock.world.run(flock.world.now + 60.0 * minutes)
    assert all(flock.states(n)[o] is State.DEAD for n in left for o in right)
    assert all(flock.states(n)[o] is State.DEAD for n in right for o in left)
    flock.world.network.heal()
    assert flock.world.run(flock.world.now + 3 * LAN.dead_retry_interval_s, stop=flock.all_alive)


@pytest.mark.parametrize("seed", range(3))
def test_one_way_silence_kills_nobody_as_long_as_others_can_reach_both(seed: int) -> None:
    flock = together(seed, 6)
    flock.world.network.cut(flock.address("n1"), flock.address("n2"))
    flock.world.run(flock.world.now + 60.0)
    assert flock.false_deaths() == []


@pytest.mark.parametrize("seed", range(3))
def test_leaving_is_told_and_forgotten_after_ten_minutes(seed: int) -> None:
    flock = together(seed, 8, network=Network(loss=0.1))
    leaver = flock.process("n4")
    left_at = flock.world.now
    leaver.feed(lambda core, now: core.envelope.sealed(core.swim.leave(now), now))
    flock.world.after(LAN.leave_spread_s, leaver.crash)
    assert flock.world.run(left_at + 2.0, stop=lambda: flock.all_see("n4", State.LEFT))
    flock.world.run(left_at + LAN.left_keep_s - 5.0)
    assert flock.all_see("n4", State.LEFT)
    flock.world.run(left_at + LAN.left_keep_s + 10.0)
    assert all("n4" not in flock.core(n).swim.rows for n in flock.nodes if n != "n4")
    assert flock.false_deaths() == []


def test_a_dead_member_stays_listed_until_it_is_evicted() -> None:
    flock = together(11, 4)
    flock.process("n2").crash()
    flock.world.run(flock.world.now + 1800.0)
    assert flock.all_see("n2", State.DEAD)
    flock.process("n0").feed(lambda core, now: core.envelope.sealed(core.swim.evict("n2", now), now))
    assert flock.world.run(flock.world.now + 5.0, stop=lambda: flock.all_see("n2", State.LEFT))
    flock.world.run(flock.world.now + LAN.left_keep_s + 10.0)
    assert all("n2" not in flock.core(n).swim.rows for n in ("n0", "n1", "n3"))


def test_evicting_a_living_member_only_makes_it_speak_up() -> None:
    flock = together(12, 4)
    flock.process("n0").feed(lambda core, now: core.envelope.sealed(core.swim.evict("n2", now), now))
    assert not flock.all_alive()
    assert flock.world.run(flock.world.now + 5.0, stop=flock.all_alive)


@pytest.mark.parametrize("seed", range(3))
def test_news_spread_without_raising_the_incarnation(seed: int) -> None:
    flock = together(seed, 10, network=Network(loss=0.1))
    before = flock.core("n5").swim.me.incarnation

    def change(core: object, now: float) -> list[MemberChanged]:
        return flock.core("n5").swim.update_meta(clients=17, version=4, digest="ab" * 32, now=now)  # type: ignore[return-value]

    flock.process("n5").feed(change)

    def known() -> bool:
        views = [flock.core(n).swim.rows["n5"].member for n in flock.nodes if n != "n5"]
        return all((m.clients, m.version, m.digest) == (17, 4, "ab" * 32) for m in views)

    assert flock.world.run(flock.world.now + 3.0, stop=known)
    assert flock.core("n5").swim.me.incarnation == before


def test_a_newcomer_learns_of_the_dead_too() -> None:
    flock = Flock(3, 4)
    flock.world.run(5.0, stop=lambda: joined(flock))
    flock.process("n1").crash()
    flock.process("n3").crash()
    flock.process("n3").disk.wipe()
    assert flock.world.run(60.0, stop=lambda: flock.all_see("n1", State.DEAD))
    flock.process("n3").start()
    assert flock.world.run(flock.world.now + 5.0, stop=lambda: flock.states("n3").get("n1") is State.DEAD)


def test_idle_traffic_stays_under_the_goal() -> None:
    flock = together(5, 30)
    flock.world.run(flock.world.now + 60.0)  # let the joining rumors die
    flock.bytes_sent = 0
    flock.world.run(flock.world.now + 60.0)
    assert flock.bytes_sent / 60.0 / 30 < 1500


def test_the_same_seed_gives_the_same_run() -> None:
    def run() -> list[object]:
        flock = Flock(99, 6, network=cruel())
        flock.world.run(20.0)
        return [(at, by, change) for at, by, change in flock.changes]

    assert run() == run()
