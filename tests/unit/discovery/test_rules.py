"""The rules of belief and the timing of one node, event by event: receive this at that time, exactly this follows."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from discovery.awareness import Awareness
from discovery.effects import Conflict, MemberChanged, PushPull, Reach, Send
from discovery.member import Address, Member, State
from discovery.packet import (
    MEMBERS_LIMIT,
    Ack,
    Alive,
    Dead,
    Exchange,
    Gossip,
    Hello,
    Left,
    Nack,
    News,
    Ping,
    PingRequest,
    Suspect,
)
from discovery.probe import RELAYS_LIMIT
from discovery.settings import LAN
from discovery.swim import Sender, Swim
from discovery.table import Table


def member(node: str, incarnation: int = 1, boot: int = 1) -> Member:
    number = sum(node.encode())
    address = Address(f"192.0.2.{number % 250}", 7000)
    return Member(node=node, gossip=address, client=address, boot=bytes([boot]) * 16, incarnation=incarnation)


def table(*others: str) -> Table:
    made = Table(member("me"), LAN, Awareness(8, 1.0))
    for node in others:
        made.alive(member(node), 0.0)
    queued(made)
    return made


def queued(made: Table) -> set[object]:
    """What waits to be told; afterwards nothing does."""
    waiting: set[object] = set()
    while len(made.queue):
        waiting.update(made.queue.take(100_000, 1))
    return waiting


def state(made: Table, node: str = "a") -> State:
    return made.rows[node].state


def enter(made: Table, wanted: State) -> None:
    if wanted is State.SUSPECT:
        made.suspect("a", 1, "b", 1.0)
    elif wanted is State.DEAD:
        made.dead("a", 1, "b", 1.0)
    elif wanted is State.LEFT:
        made.left("a", 1, "a", 1.0)


ALIVE, SUSPECT, DEAD, LEFT = State.ALIVE, State.SUSPECT, State.DEAD, State.LEFT


@pytest.mark.parametrize(
    ("before", "rumor", "after"),
    [
        (ALIVE, Suspect("a", 1, "c"), SUSPECT),
        (ALIVE, Suspect("a", 0, "c"), ALIVE),
        (ALIVE, Suspect("a", 2, "c"), ALIVE),  # its record has not come yet: the accused may be another boot
        (ALIVE, Dead("a", 1, "c"), DEAD),
        (ALIVE, Dead("a", 0, "c"), ALIVE),
        (ALIVE, Left("a", 1, "a"), LEFT),
        (SUSPECT, Alive(member("a")), SUSPECT),  # only a raised incarnation refutes
        (SUSPECT, Alive(member("a", 2)), ALIVE),
        (SUSPECT, Dead("a", 1, "c"), DEAD),
        (SUSPECT, Left("a", 1, "a"), LEFT),
        (DEAD, Alive(member("a")), DEAD),
        (DEAD, Alive(member("a", 2)), ALIVE),
        (DEAD, Suspect("a", 1, "c"), DEAD),
        (DEAD, Left("a", 1, "c"), LEFT),
        (LEFT, Alive(member("a")), LEFT),
        (LEFT, Alive(member("a", 2)), ALIVE),
        (LEFT, Suspect("a", 1, "c"), LEFT),
        (LEFT, Dead("a", 1, "c"), LEFT),
        (SUSPECT, News("a", bytes([1]) * 16, 1, 9, 5, 5, ""), SUSPECT),
    ],
    ids=str,
)
def test_what_follows_from_a_rumor(before: State, rumor: object, after: State) -> None:
    made = table("a", "b", "c")
    enter(made, before)
    queued(made)
    effects = made.hear(rumor, 2.0)  # type: ignore[arg-type]
    assert state(made) is after
    assert bool(effects) == (before is not after or isinstance(rumor, News))
    changed = [effect for effect in effects if isinstance(effect, MemberChanged)]
    assert all((effect.node, effect.after) == ("a", after) for effect in changed)
    if before is not after:
        assert rumor in queued(made), "what is believed is passed on"


def test_the_same_rumor_again_changes_nothing_and_is_not_passed_on() -> None:
    made = table("a", "b")
    for rumor in (Suspect("a", 1, "b"), Dead("a", 1, "b"), Left("a", 1, "a"), Alive(member("a", 2))):
        assert made.hear(rumor, 1.0)
        queued(made)
        assert made.hear(rumor, 2.0) == []
        assert queued(made) == set()


def test_whoever_goes_by_old_news_is_corrected() -> None:
    made = table("a", "b")
    made.alive(member("a", 3), 1.0)
    queued(made)
    made.suspect("a", 2, "b", 2.0)
    assert queued(made) == {Alive(member("a", 3))}
    made.left("a", 3, "a", 3.0)
    queued(made)
    made.suspect("a", 3, "b", 4.0)
    assert queued(made) == {Left("a", 3, "a")}


def test_a_suspect_dies_when_its_time_is_up_and_not_before() -> None:
    made = table("a", "b")
    made.suspect("a", 1, "me", 10.0)
    deadline = made.deadline
    assert deadline == pytest.approx(14.0)  # three members: nobody could confirm
    assert made.expire(deadline - 0.01) == []
    assert made.expire(deadline) == [MemberChanged("a", SUSPECT, DEAD, "declared dead by me")]
    assert made.deadline == float("inf")


def test_i_refute_with_a_number_that_beats_the_accusation() -> None:
    made = table("a")
    for accusation, expected in ((Suspect("me", 1, "a"), 2), (Dead("me", 5, "a"), 6), (Left("me", 6, "a"), 7)):
        made.hear(accusation, 1.0)
        assert made.me.incarnation == expected
        assert Alive(made.me) in queued(made)
    made.hear(Suspect("me", 2, "a"), 1.0)
    assert made.me.incarnation == 7, "an old accusation needs no new number"
    assert Alive(made.me) in queued(made), "but its author an answer"


def test_whoever_leaves_does_not_refute() -> None:
    made = table("a")
    made.leaving = True
    assert made.hear(Left("me", 1, "me"), 1.0) == []
    assert made.me.incarnation == 1


def test_news_move_forward_only_and_only_for_the_same_boot() -> None:
    made = table("a")
    news = News("a", member("a").boot, 1, 3, 10, 2, "ab")
    assert made.hear(news, 5.0) == [MemberChanged("a", ALIVE, ALIVE, "news")]
    assert (made.rows["a"].member.clients, made.rows["a"].member.incarnation) == (10, 1)
    for stale in (news, replace(news, stamp=2, clients=9), replace(news, stamp=4, boot=bytes(16))):
        assert made.hear(stale, 6.0) == []
    assert made.hear(replace(news, stamp=4, incarnation=2), 6.0) == []
    assert made.hear(Alive(replace(member("a"), stamp=7, clients=70)), 6.0)
    assert made.rows["a"].member.clients == 70


@pytest.mark.parametrize("known", [ALIVE, SUSPECT, DEAD, LEFT])
def test_a_dead_in_somebodys_full_view_only_raises_a_suspicion(known: State) -> None:
    made = table("a", "b")
    enter(made, known)
    made.merge(Exchange(member("b"), bytes(16), ((DEAD, member("a")),)), 2.0)
    assert state(made) is (SUSPECT if known is ALIVE else known)


def test_a_full_view_brings_strangers_also_dead_ones_but_none_that_left() -> None:
    made = table("b")
    view = ((ALIVE, member("a")), (SUSPECT, member("s")), (DEAD, member("d")), (LEFT, member("l")))
    made.merge(Exchange(member("b"), bytes(16), view), 2.0)
    assert {node: row.state for node, row in made.rows.items()} == {"b": ALIVE, "a": ALIVE, "s": SUSPECT, "d": DEAD}


def test_a_full_view_that_holds_me_dead_is_refuted() -> None:
    made = table("b")
    made.merge(Exchange(member("b"), bytes(16), ((DEAD, member("me")),)), 2.0)
    assert made.me.incarnation == 2


def test_equal_views_have_equal_digests_whatever_the_order() -> None:
    one, two = table("a", "b"), table("b", "a")
    assert one.digest() == two.digest()
    two.suspect("a", 1, "b", 1.0)
    assert one.digest() == two.digest(), "an opinion that passes"
    two.dead("a", 1, "b", 1.0)
    assert one.digest() != two.digest()


def test_the_table_is_bounded() -> None:
    made = table()
    for number in range(MEMBERS_LIMIT + 5):
        made.alive(member(f"n{number}"), 0.0)
    assert len(made.rows) == MEMBERS_LIMIT - 1
    assert made.refused == 6


def swim(*others: str, at: float = 0.0) -> Swim:
    made = Swim(member("me"), LAN, Random(1), at)
    for node in others:
        hear(made, node, Hello(member(node)), at)
    queued(made._table)
    return made


def hear(made: Swim, node: str, message: object, now: float = 0.0, boot: int = 1) -> list[object]:
    sender = Sender(node, bytes([boot]) * 16)
    return list(made.receive(message, sender, member(node).gossip, now))  # type: ignore[arg-type]


def until(made: Swim, end: float, start: float = 0.0) -> list[tuple[float, object]]:
    """Everything done on time from `start` until `end`."""
    done: list[tuple[float, object]] = []
    now = start
    while made.deadline <= end:
        now = max(now, made.deadline)
        done += [(now, effect) for effect in made.tick(now)]
    return done


def test_a_greeting_is_answered_with_who_i_am_and_a_comparison_of_views() -> None:
    effects = hear(Swim(member("me"), LAN, Random(1), 0.0), "a", Hello(member("a")))
    assert MemberChanged("a", None, ALIVE, "joined") in effects
    assert PushPull("a", member("a").gossip, full=True) in effects
    answers = [effect for effect in effects if isinstance(effect, Send)]
    assert len(answers) == 1
    assert Alive(member("me")) in answers[0].message.rumors  # type: ignore[union-attr]


def test_a_ping_is_answered_only_by_the_one_it_is_meant_for() -> None:
    made = swim("a")
    assert hear(made, "a", Ping(7, "me")) == [Send(member("a").gossip, "a", Ack(7))]
    assert hear(made, "a", Ping(7, "former tenant of this address")) == []


def test_a_suspect_hears_of_it_in_the_answer_to_its_ping() -> None:
    made = swim("a", "b")
    hear(made, "b", Gossip((Suspect("a", 1, "b"),)))
    (answer,) = hear(made, "a", Ping(7, "me"))
    assert answer.message.rumors[0] == Suspect("a", 1, "me")  # type: ignore[attr-defined]


def test_a_ping_on_behalf_of_another_is_relayed_and_its_ack_passed_back() -> None:
    made = swim("a", "b")
    (relayed,) = hear(made, "a", PingRequest(7, "b"), 1.0)
    assert isinstance(relayed, Send)
    assert (relayed.node, relayed.message.target) == ("b", "b")  # type: ignore[union-attr]
    mine = relayed.message.sequence  # type: ignore[union-attr]
    assert hear(made, "a", Ack(mine), 1.1) == [], "not from the one who was asked"
    assert hear(made, "b", Ack(mine), 1.1) == [Send(member("a").gossip, "a", Ack(7))]
    assert hear(made, "b", Ack(mine), 1.1) == []


def test_a_silent_member_earns_its_asker_a_nack_and_strangers_are_not_pinged() -> None:
    made = swim("a", "b")
    hear(made, "a", PingRequest(7, "b"), 1.0)
    done = [(at, effect) for at, effect in until(made, 2.0) if isinstance(effect, Send)]
    nacks = [(at, effect) for at, effect in done if effect.message == Nack(7)]
    assert [at for at, _ in nacks] == [pytest.approx(1.4)]
    assert hear(made, "a", PingRequest(8, "nobody")) == [Send(member("a").gossip, "a", Nack(8))]


def test_relays_are_bounded() -> None:
    made = swim("a", "b")
    for sequence in range(RELAYS_LIMIT):
        (effect,) = hear(made, "a", PingRequest(sequence, "b"))
        assert isinstance(effect.message, Ping)  # type: ignore[attr-defined]
    (effect,) = hear(made, "a", PingRequest(9999, "b"))
    assert effect.message == Nack(9999)  # type: ignore[attr-defined]


def test_a_probe_without_answer_goes_indirect_then_over_the_control_channel_then_suspects() -> None:
    made = swim("a", "b", "c", "d", "e")
    done = until(made, 1.8)
    ping = next(effect for _, effect in done if isinstance(effect, Send) and isinstance(effect.message, Ping))
    start = next(at for at, effect in done if effect is ping)
    asked = [(at, e) for at, e in done if isinstance(e, Send) and isinstance(e.message, PingRequest)]
    assert [at for at, _ in asked] == [pytest.approx(start + 0.5)] * 3
    assert len({e.node for _, e in asked} - {ping.node}) == 3
    assert [at for at, e in done if isinstance(e, Reach)] == [pytest.approx(start + 0.5)]
    done += until(made, start + 1.0)
    suspected = [(at, e.node) for at, e in done if isinstance(e, MemberChanged) and e.after is SUSPECT]
    assert suspected == [(pytest.approx(start + 1.0), ping.node)]
    assert made.health == 3, "three helpers owed a nack"


@pytest.mark.parametrize("way", ["ack", "relayed ack", "control channel"])
def test_any_answer_ends_a_probe(way: str) -> None:
    made = swim("a", "b")
    done = until(made, 1.6)
    ping = next(e.message for _, e in done if isinstance(e, Send) and isinstance(e.message, Ping))
    helper = "b" if ping.target == "a" else "a"
    if way == "control channel":
        made.reached(ping.target, ping.sequence, 1.6)
    else:
        hear(made, ping.target if way == "ack" else helper, Ack(ping.sequence), 1.6)
    later = [e for _, e in until(made, 1.99) if isinstance(e, MemberChanged)]
    assert later == []


def test_a_refused_connection_is_no_sign_of_trouble_on_our_side() -> None:
    made = swim("a")
    done: list[tuple[float, object]] = []
    while not any(isinstance(e, Reach) for _, e in done):
        done = until(made, made.deadline)
    reach = next(e for _, e in done if isinstance(e, Reach))
    made.refused(reach.node, reach.sequence)
    assert any(isinstance(e, MemberChanged) and e.after is SUSPECT for _, e in until(made, 2.5))
    assert made.health == 0


def test_time_in_which_this_process_stood_still_counts_against_nobody() -> None:
    made = swim("a", "b", "c")
    hear(made, "b", Gossip((Suspect("a", 1, "b"),)), 0.5)
    until(made, 1.5)
    effects = made.tick(600.0)
    assert not any(isinstance(e, MemberChanged) for e in effects)
    assert made.health > 0


def test_a_packet_of_a_former_boot_is_answered_but_not_believed() -> None:
    made = swim("a", "b")
    hear(made, "a", Hello(member("a", 2, boot=2)), 1.0, boot=2)
    effects = hear(made, "a", Gossip((Dead("b", 1, "a"),)), 1.5, boot=1)
    assert effects == [Send(member("a").gossip, None, Gossip((Alive(member("a", 2, boot=2)),)))]
    assert made.rows["b"].state is ALIVE
    late = hear(made, "a", Gossip(()), 9.0, boot=1)
    assert Conflict("a", mine=False) in late, "it still speaks: two processes use the name"
    assert Conflict("a", mine=False) not in hear(made, "a", Gossip(()), 10.0, boot=1), "once a minute"


def test_who_lost_its_name_says_nothing_more() -> None:
    made = swim("a")
    hear(made, "a", Ack(1))
    assert Conflict("me", mine=True) in hear(made, "a", Gossip((Alive(member("me", 9, boot=7)),)))
    assert made.conceded
    assert made.deadline == float("inf")
    assert made.tick(100.0) == made.leave(100.0) == hear(made, "a", Ping(1, "me")) == []


def test_client_counts_wait_for_their_turn_and_versions_do_not() -> None:
    made = swim("a")

    def told(start: float, end: float) -> list[tuple[int, int]]:
        rumors = [
            r for _, e in until(made, end, start) if isinstance(e, Send) for r in getattr(e.message, "rumors", ())
        ]
        return list(dict.fromkeys((r.clients, r.version) for r in rumors if isinstance(r, News)))

    until(made, 5.0)
    made.update_meta(clients=1, version=None, digest=None, now=5.0)
    assert told(5.0, 5.3) == [(1, 0)]
    for clients in range(2, 50):
        made.update_meta(clients=clients, version=None, digest=None, now=5.35)
    assert (49, 0) not in told(5.35, 5.9)
    made.update_meta(clients=None, version=3, digest="ab", now=5.95)
    assert (49, 3) in told(5.95, 6.2)
    assert made.update_meta(clients=49, version=3, digest="ab", now=6.2) == []
    assert made.me.incarnation == 1


def test_leaving_is_said_in_person_and_nothing_is_probed_any_more() -> None:
    made = swim("a", "b")
    effects = made.leave(1.0)
    assert {e.node for e in effects if isinstance(e, Send)} == {"a", "b"}
    assert all(Left("me", 1, "me") in e.message.rumors for e in effects if isinstance(e, Send))  # type: ignore[union-attr]
    later = [e for _, e in until(made, 60.0)]
    assert not any(isinstance(e, Send) and isinstance(e.message, Ping) for e in later)
    assert made.spread


def test_views_are_compared_by_digest_first_and_sent_when_they_differ() -> None:
    a, b = swim("x"), Swim(replace(member("peer"), boot=bytes(16)), LAN, Random(2), 0.0)
    answer, _ = b.exchange_answer(a.exchange_request(full=False), 0.0)
    assert answer.entries is not None
    follow_up = a.exchange_result(answer, False, 0.0)
    assert PushPull("peer", member("peer").gossip, full=True) in follow_up
    answer, _ = b.exchange_answer(a.exchange_request(full=True), 0.0)
    a.exchange_result(answer, True, 0.0)
    assert sorted(b.rows) == ["me", "x"]
    again, effects = b.exchange_answer(a.exchange_request(full=False), 0.0)
    assert (again.entries, effects) == (None, [])
