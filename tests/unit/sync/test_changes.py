"""What may follow upon what in the register."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sync.changes import Abort, Change, Commit, Evict, Found, Leave, Obsolete, Open, StartFencing, TakeOver, TakeSeat
from sync.rollout import HISTORY_LIMIT, Cell, Phase
from sync.roster import MEMBERS_LIMIT, Roster, Seat
from sync.version import digest_of, first_version

A, B = digest_of(b"a"), digest_of(b"b")
SEAT = Seat("boot1", "disk1", "h:1")
FIRST = first_version(A, by="n1", at_utc=0.0)
FOUND = Found("n1", SEAT, FIRST)
EMPTY = FOUND.apply(None)
CELL = TakeSeat("n2", Seat("boot2", "disk2", "h:2"), A).apply(EMPTY)
OPEN = Open("token", "n1", "alice", A, B, 10.0)
OPENED = OPEN.apply(CELL)
FENCING = StartFencing(1, 1, ("shop",)).apply(OPENED)
COMMITTED = Commit(1, 1, True, 11.0).apply(FENCING)
ABORTED = Abort(1, 1, "n2: no").apply(OPENED)


def refused(change: Change, cell: Cell | None) -> str:
    with pytest.raises(Obsolete) as obsolete:
        change.apply(cell)
    return obsolete.value.reason


def test_the_founder_writes_version_1_once() -> None:
    assert not FOUND.done(None)
    assert FOUND.done(EMPTY)
    assert EMPTY.cur == FIRST
    assert refused(FOUND, EMPTY) == "the register has a version already"


def test_nothing_but_founding_is_possible_in_an_empty_register() -> None:
    changes: list[Change] = [OPEN, TakeSeat("n1", SEAT, A), Commit(1, 1, True, 0.0), Leave("n1", "b"), Evict("n1", "x")]
    for change in changes:
        assert refused(change, None) == "the register is empty"
        assert change.done(None) in (False, isinstance(change, Leave))


def test_a_seat_is_taken_only_with_the_document_in_force() -> None:
    change = TakeSeat("n3", SEAT, B)
    assert refused(change, CELL) == "another version came into force"
    taken = TakeSeat("n3", SEAT, A).apply(CELL)
    assert TakeSeat("n3", SEAT, A).done(taken)
    assert taken.roster.names == ("n1", "n2", "n3")


def test_a_stranger_waits_for_an_open_rollout_and_a_known_disk_does_not() -> None:
    assert "a new member waits" in refused(TakeSeat("n3", SEAT, A), OPENED)
    assert "a new member waits" in refused(TakeSeat("n3", SEAT, A), FENCING)
    for cell in (OPENED, FENCING):
        back = TakeSeat("n2", Seat("boot3", "disk2", "h:2"), A).apply(cell)
        assert back.roll == cell.roll


def test_a_member_that_lost_its_disk_waits_only_while_votes_are_taken() -> None:
    lost = TakeSeat("n2", Seat("boot3", "other disk", ""), A)
    assert lost.apply(OPENED).roll == OPENED.roll
    assert "a new member waits" in refused(lost, FENCING)


def test_a_full_roster_takes_nobody_but_those_it_knows() -> None:
    seats = tuple((f"m{i:03}", SEAT) for i in range(MEMBERS_LIMIT))
    full = replace(CELL, roster=Roster(seats))
    assert f"{MEMBERS_LIMIT} members" in refused(TakeSeat("new", SEAT, A), full)
    assert TakeSeat("m001", Seat("b", "d", ""), A).apply(full).roster.get("m001") == Seat("b", "d", "")


def test_opening_needs_the_right_base_a_seat_and_no_open_rollout() -> None:
    assert OPEN.done(OPENED)
    assert OPENED.roll is not None
    assert (OPENED.roll.rid, OPENED.next_rid) == (1, 2)
    second = Open("other", "n2", "bob", A, B, 11.2)
    assert refused(second, OPENED) == "rollout 1 is open: node n1, validating for 1.2 s"
    assert refused(Open("t", "n1", "bob", B, A, 0.0), CELL).startswith("stale base: version 1")
    assert refused(Open("t", "n9", "bob", A, B, 0.0), CELL) == "node n9 is not in the roster"


def test_a_rollout_whose_answer_was_lost_never_opens_twice() -> None:
    assert refused(OPEN, ABORTED) == "rollout 1 was aborted: n2: no"


def test_fencing_and_commit_belong_to_the_coordinators_epoch() -> None:
    assert StartFencing(1, 1, ()).done(FENCING)
    taken = TakeOver(1, 1, "n2").apply(FENCING)
    assert TakeOver(1, 1, "n2").done(taken)
    assert not TakeOver(1, 1, "n1").done(taken)
    for change in (StartFencing(1, 1, ()), Commit(1, 1, True, 0.0), Abort(1, 1, "x"), TakeOver(1, 1, "n1")):
        assert refused(change, taken) == "node n2 coordinates rollout 1 now"
    assert refused(TakeOver(1, 1, "n9"), FENCING) == "node n9 is not in the roster"


def test_a_commit_makes_the_next_version_and_closes_the_rollout() -> None:
    assert Commit(1, 1, True, 11.0).done(COMMITTED)
    assert (COMMITTED.cur.n, COMMITTED.cur.parent, COMMITTED.cur.barrier) == (2, A, 2)
    assert COMMITTED.roll is None
    assert COMMITTED.last is not None
    assert COMMITTED.last.phase is Phase.COMMITTED
    assert COMMITTED.committed(1) == COMMITTED.cur
    assert COMMITTED.committed(9) is None


def test_a_commit_with_and_one_without_a_barrier_never_pass_for_each_other() -> None:
    assert refused(Commit(1, 1, True, 0.0), OPENED) == "rollout 1 is validating"
    assert refused(Commit(1, 1, False, 0.0), FENCING) == "rollout 1 is fencing"
    assert Commit(1, 1, False, 0.0).apply(OPENED).cur.barrier == 1


def test_a_decided_rollout_stays_decided() -> None:
    for change in (Commit(1, 1, True, 0.0), Abort(1, None, "x"), TakeOver(1, 1, "n1"), StartFencing(1, 1, ())):
        assert refused(change, COMMITTED) == "rollout 1 is not open any more"
        assert refused(change, ABORTED) == "rollout 1 is not open any more"
    assert Abort(1, 1, "").done(ABORTED)
    assert not Abort(1, 1, "").done(COMMITTED)


def test_a_persons_abort_beats_every_epoch() -> None:
    taken = TakeOver(1, 1, "n2").apply(FENCING)
    assert Abort(1, None, "enough").apply(taken).roll is None


def test_whoever_goes_ends_the_open_rollout() -> None:
    left = Leave("n2", "boot2").apply(FENCING)
    assert left.roll is None
    assert left.last is not None
    assert left.last.reason == "node n2 left"
    evicted = Evict("n2", "alice").apply(CELL)
    assert evicted.roster.names == ("n1",)
    assert evicted.last is None
    assert Evict("n2", "alice").done(evicted)
    assert Leave("n2", "boot2").done(left)
    assert Leave("n2", "an older boot").done(CELL)  # the name belongs to somebody else by now: leave it alone


def test_history_keeps_ten_versions() -> None:
    cell = CELL
    for n in range(1, 20):
        target = digest_of(b"%d" % n)
        cell = Open(f"t{n}", "n1", "x", cell.cur.digest, target, 0.0).apply(cell)
        cell = Commit(n, 1, False, 0.0).apply(cell)
    assert len(cell.history) == HISTORY_LIMIT
    assert cell.cur.n == 20
