"""Recordings, other flocks, rotated keys, cloned nodes: what the envelope and the rules must survive."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from sim.swim_flock import KEY, Flock

from discovery.effects import Send, SendDatagram
from discovery.envelope import Envelope
from discovery.member import Address, Member, State
from discovery.packet import Cause, Gossip, Hello, Ping
from discovery.seal import Keyring
from discovery.settings import LAN


def view(flock: Flock, node: str) -> dict[str, tuple[Member, State]]:
    return {name: (row.member, row.state) for name, row in flock.core(node).swim.rows.items()}


@pytest.mark.parametrize("seed", range(3))
def test_a_replayed_recording_changes_nothing(seed: int) -> None:
    """Everything said while a member left and came back, played again to the same flock: nobody leaves again."""
    flock = Flock(seed, 5)
    flock.record = True
    flock.world.run(10.0)
    process = flock.process("n3")
    process.feed(lambda core, now: core.envelope.sealed(core.swim.leave(now), now))
    flock.world.run(12.0)
    process.crash()
    process.start()
    assert flock.world.run(30.0, stop=flock.all_alive)
    flock.record = False
    flock.world.run(flock.world.now + 5.0)
    before = {node: view(flock, node) for node in flock.nodes}
    known = [sum(flock.core(node).refused.values()) for node in flock.nodes]
    now = flock.world.now
    for source, target, data in flock.datagrams:
        core = flock.world.members[target].core
        for effect in core.receive(data, source, now):
            assert not isinstance(effect, SendDatagram) or effect.address == source
    assert {node: view(flock, node) for node in flock.nodes} == before
    assert all(sum(flock.core(n).refused.values()) > k for n, k in zip(flock.nodes, known, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_a_recording_does_not_deceive_a_restarted_member(seed: int) -> None:
    """It knows no boot and no counter any more; only the challenge stands between it and the past."""
    flock = Flock(seed, 4)
    flock.record = True
    flock.world.run(20.0)
    recording = list(flock.datagrams)
    random = Random(seed)
    old = flock.core("n0").swim.me
    me = replace(old, boot=random.randbytes(16), incarnation=old.incarnation + 1)
    fresh = Envelope(me, LAN, keyring=Keyring([KEY]), flock="test", random=random, now=1000.0)
    sent = 0
    for source, target, data in recording:
        if target == old.gossip:
            try:
                effects = fresh.receive(data, source, 1000.0)
            except Exception as error:
                assert getattr(error, "cause", None) in (Cause.UNPROVEN, Cause.REPLAY)  # noqa: PT017
                continue
            replies = [effect for effect in effects if isinstance(effect, SendDatagram)]
            assert len(replies) == len(effects) <= 1
            assert all(len(reply.data) <= len(data) for reply in replies)
            sent += len(replies)
    assert sent > 0
    assert fresh.swim.rows == {}


def test_flocks_of_other_names_never_meet() -> None:
    flock = Flock(1, 6, flock=lambda node: "red" if int(node[1:]) % 2 else "blue", seeds=2)
    flock.world.run(20.0)
    assert sorted(flock.states("n0")) == ["n2", "n4"]
    assert sorted(flock.states("n1")) == ["n3", "n5"]
    assert flock.core("n0").refused.get(Cause.BROKEN_SEAL, 0) > 0


def test_another_key_is_another_world() -> None:
    flock = Flock(2, 3, keyring=lambda node: Keyring([KEY if node != "n2" else bytes(32)]))
    flock.world.run(20.0)
    assert sorted(flock.states("n0")) == ["n1"]
    assert flock.states("n2") == {}
    assert flock.core("n0").refused[Cause.UNKNOWN_KEY] > 0


def test_members_with_rotated_keys_understand_each_other() -> None:
    """Halfway through a rotation: one seals with the old key, one with the new, and each opens both."""
    new = bytes(range(1, 33))
    flock = Flock(3, 3, keyring=lambda node: Keyring([KEY, new] if node != "n1" else [new, KEY]))
    assert flock.world.run(10.0, stop=lambda: len(flock.nodes) == 3 and flock.acquainted())


def test_without_a_key_nobody_on_another_host_is_heard_or_spoken_to() -> None:
    flock = Flock(4, 3, keyring=lambda node: Keyring())
    flock.world.run(10.0)
    assert all(flock.states(node) == {} for node in flock.nodes)
    assert flock.bytes_sent == 0


class CloneFlock(Flock):
    """`n3` is a second process with the name of `n1`, at its own address."""

    clone_incarnation = 1

    def _builder(self, node: str):  # type: ignore[no-untyped-def]
        inner = super()._builder(node)
        if node != "n3":
            return inner

        def build(process):  # type: ignore[no-untyped-def]
            core = inner(process)
            me = core.swim.me
            clone = Envelope(
                replace(me, node="n1", incarnation=self.clone_incarnation),
                self.settings,
                keyring=Keyring([KEY]),
                flock="test",
                random=Random(self.world.random.getrandbits(64)),
                now=process.now,
            )
            core.envelope = clone
            return core

        return build


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("incarnation", [1, 2, 50])
def test_of_two_processes_with_one_name_the_older_falls_silent_and_both_sides_say_so(
    seed: int, incarnation: int
) -> None:
    flock = CloneFlock(seed, 4, asleep=("n3",))
    flock.clone_incarnation = incarnation
    flock.world.run(10.0)
    flock.process("n3").start()
    flock.world.run(40.0)
    original, clone = flock.core("n1").swim, flock.core("n3").swim
    assert original.conceded
    assert not clone.conceded
    for node in ("n0", "n2"):
        assert flock.core(node).swim.rows["n1"].member.boot == clone.me.boot
        assert flock.states(node)["n1"] is State.ALIVE
    assert ("n1", True) in {(by, conflict.mine) for _, by, conflict in flock.conflicts}
    assert clone.me.incarnation <= incarnation + 60, "they outbid each other for ever"


@pytest.mark.parametrize("seed", range(6))
def test_of_two_processes_with_one_name_that_start_together_one_wins(seed: int) -> None:
    flock = CloneFlock(seed, 4)
    flock.world.run(40.0)
    twins = [flock.core(node).swim for node in ("n1", "n3")]
    assert sorted(twin.conceded for twin in twins) == [False, True]
    winner = next(twin for twin in twins if not twin.conceded)
    assert flock.core("n0").swim.rows["n1"].member.boot == winner.me.boot
    assert winner.me.incarnation < 10


def test_an_absurd_incarnation_is_not_believed_so_that_its_owner_can_still_refute() -> None:
    flock = Flock(7, 3)
    flock.world.run(5.0, stop=lambda: flock.process("n2").up and flock.all_alive())
    flock.world.run(flock.world.now + 1.0)
    table = flock.core("n0").swim._table
    truth = table.rows["n1"].member
    lie = replace(truth, incarnation=2**62, gossip=Address("10.9.9.9", 1))
    assert table.alive(lie, flock.world.now) == []
    assert table.rows["n1"].member == truth
    assert table.suspect("n1", 2**62, "n2", flock.world.now) == []
    assert table.suspect("n0", 2**62, "n2", flock.world.now) == []
    assert table.me.incarnation < 10


def test_a_stranger_never_gets_more_bytes_than_it_sent() -> None:
    """Even one with the key: a recording sent from a forged address must not make us louder than the attacker."""

    def envelope(node: str, number: int) -> Envelope:
        address = Address(f"10.0.0.{number}", 7000)
        me = Member(node=node, gossip=address, client=address, boot=bytes([number]) * 16)
        return Envelope(me, LAN, keyring=Keyring([KEY]), flock="test", random=Random(number), now=0.0)

    stranger, here = envelope("s", 1), envelope("h", 2)
    for message, challenged in ((Gossip(()), False), (Ping(2**32, "h"), True), (Hello(stranger.swim.me), True)):
        send = Send(here.swim.me.gossip, "h", message)
        (datagram,) = stranger.sealed([send], 0.0)
        assert isinstance(datagram, SendDatagram)
        answers = here.receive(datagram.data, stranger.swim.me.gossip, 0.0)
        assert len(answers) == challenged
        assert all(isinstance(a, SendDatagram) and len(a.data) <= len(datagram.data) for a in answers)
    assert here.swim.rows == {}
