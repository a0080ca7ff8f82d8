"""The member's rules, each as a sentence: this is heard at that time, exactly this follows."""

from __future__ import annotations

from random import Random
from typing import Any

from sync import effects as e
from sync import messages
from sync.changes import (
    Abort,
    Commit,
    Found,
    Leave,
    Obsolete,
    Open,
    StartFencing,
    TakeOver,
    TakeSeat,
)
from sync.follower import APPLY_RETRY_S, Follower, State
from sync.messages import Decided, Fence, Fenced, Refused, Stage, Staged
from sync.ports import Report
from sync.promise import Applied, Promise, Vote
from sync.rollout import Cell, ChangeClass, Reading
from sync.roster import Seat
from sync.settings import SyncSettings
from sync.version import digest_of, first_version

A, B, C = digest_of(b"a"), digest_of(b"b"), digest_of(b"c")
SETTINGS = SyncSettings()
ME = Seat("boot2", "disk2", "h:2")
LOCAL = first_version(A, by="n1", at_utc=0.0)
FOUNDED = Found("n1", Seat("boot1", "disk1", "h:1"), LOCAL).apply(None)
JOINED = TakeSeat("n2", ME, A).apply(FOUNDED)
OPENED = Open("t1", "n1", "alice", A, B, 0.0).apply(JOINED)
FENCING = StartFencing(1, 1, ("shop",)).apply(OPENED)
COMMITTED = Commit(1, 1, True, 0.0).apply(FENCING)
ABORTED = Abort(1, 1, "no").apply(FENCING)
ROLLED = Commit(1, 1, False, 0.0).apply(OPENED)
FENCED = Fenced(1, 1000.0)


def follower(promise: Promise | None = None, *, adopt: bool = False, local: str = A) -> Follower:
    return Follower(
        node="n2",
        seat=ME,
        promise=promise or Promise("disk2"),
        local=first_version(local, by="n2", at_utc=0.0),
        adopt=adopt,
        settings=SETTINGS,
        random=Random(1),
    )


class Told:
    """A follower with a register whose revisions count up by themselves."""

    def __init__(self, member: Follower) -> None:
        self.member = member
        self.rev = 0

    def saw(self, cell: Cell | None, now: float) -> list[e.Effect]:
        self.rev += 1
        return self.member.saw(Reading(self.rev, cell), now)

    def amended(self, change: Any, ok: bool | None, cell: Cell | None, now: float, reason: str = "") -> list[e.Effect]:
        self.rev += 1
        return self.member.amended(change, ok, Reading(self.rev, cell), reason, now)


def serving(cell: Cell = JOINED) -> Told:
    told = Told(follower())
    told.saw(FOUNDED, 0.0)
    told.member.obtained(A, True, 0.0)
    told.amended(TakeSeat("n2", ME, A), True, JOINED, 0.0)
    told.member.applied(LOCAL, "", 0.0)
    assert told.member.state is State.SERVING
    if cell is not JOINED:
        told.saw(cell, 0.0)
    return told


def staged(told: Told) -> Told:
    told.saw(OPENED, 1.0)
    told.member.receive(Stage(1, 1, A, B), "n1", 1.0)
    told.member.validated(1, B, Report(ChangeClass.EXCLUSIVE, ("shop",)), "n1")
    return told


def pausing() -> Told:
    told = staged(serving())
    assert told.saw(FENCING, 2.0) == [e.Pause(("shop",), 1), e.Drain(("shop",), 1, 2)]
    return told


def fenced() -> Told:
    told = pausing()
    told.member.drained(1, 2, 3.0)
    return told


# ── boot ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_act_of_a_boot_is_a_read() -> None:
    assert follower().tick(0.0) == [e.Read()]


def test_an_empty_register_is_founded_with_the_local_document() -> None:
    told = Told(follower())
    founding = Found("n2", ME, first_version(A, by="n2", at_utc=0.0))
    assert told.saw(None, 0.0) == [e.Amend(founding)]
    assert told.amended(founding, True, founding.apply(None), 0.0) == [e.Apply(founding.version)]


def test_a_lost_race_for_the_founding_looks_again() -> None:
    told = Told(follower())
    assert told.amended(Found("n2", ME, LOCAL), False, FOUNDED, 0.0) == [e.Obtain(A)]


def test_nothing_is_served_before_document_seat_and_apply() -> None:
    told = Told(follower())
    assert told.saw(FOUNDED, 0.0) == [e.Obtain(A)]
    assert told.member.obtained(A, False, 0.0)[0] == e.Alarm(
        "document_missing", f"no member and no store has document {A[:12]} yet"
    )
    assert told.member.obtained(A, False, 0.1) == []
    assert told.member.obtained(A, True, 0.2) == [e.Read()]
    seat = TakeSeat("n2", ME, A)
    assert told.saw(FOUNDED, 0.3) == [e.Amend(seat)]
    assert told.amended(seat, True, JOINED, 0.4) == [e.Apply(LOCAL)]
    applied = Applied(1, A, 1)
    assert told.member.applied(LOCAL, "", 0.5) == [e.Persist(Promise("disk2", applied)), e.Serving(applied)]
    assert told.member.obtained(A, True, 0.6) == []


def test_a_seat_that_must_wait_is_asked_for_by_the_next_poll_only() -> None:
    told = Told(follower())
    told.saw(FOUNDED, 0.0)
    told.member.obtained(A, True, 0.0)
    open_without_me = Open("t1", "n1", "alice", A, B, 0.0).apply(FOUNDED)
    seat = TakeSeat("n2", ME, A)
    try:
        seat.apply(open_without_me)
        reason = ""
    except Obsolete as obsolete:
        reason = obsolete.reason
    assert told.amended(seat, False, open_without_me, 0.0, reason) == [e.Alarm("no_seat_yet", reason)]
    assert told.amended(seat, False, open_without_me, 0.1, reason) == []
    assert told.amended(seat, None, FOUNDED, 0.2) == []
    assert e.Amend(seat) in told.saw(open_without_me, 0.5)


def test_a_version_that_changed_meanwhile_is_obtained_first() -> None:
    told = Told(follower(adopt=True))
    told.saw(FOUNDED, 0.0)
    told.member.obtained(A, True, 0.0)
    assert told.amended(TakeSeat("n2", ME, A), False, COMMITTED, 0.0) == [e.Obtain(B)]


def test_a_stranger_with_files_the_flock_never_had_is_refused_unless_it_adopts() -> None:
    [refusal] = Told(follower(local=C)).saw(FOUNDED, 0.0)
    assert isinstance(refusal, e.RefuseToStart)
    assert A in refusal.reason
    assert C in refusal.reason
    assert Told(follower(local=C, adopt=True)).saw(FOUNDED, 0.0) == [e.Obtain(A)]


def test_a_stranger_with_an_older_version_is_merely_late() -> None:
    assert Told(follower(local=A)).saw(COMMITTED, 0.0) == [e.Obtain(B)]


def test_a_register_that_forgot_refuses_the_boot_and_alarms_once_later() -> None:
    known = Promise("disk2", Applied(2, B, 2))
    [refusal] = Told(follower(known)).saw(FOUNDED, 0.0)
    assert isinstance(refusal, e.RefuseToStart)
    assert refusal.reason.startswith("the register has version 1")
    told = serving()
    [alarm] = told.saw(None, 1.0)
    assert isinstance(alarm, e.Alarm)
    assert alarm.event == "register_went_back"
    assert told.saw(None, 2.0) == []
    assert told.member.state is State.SERVING


def test_a_vote_for_the_open_rollout_makes_a_booting_member_fenced() -> None:
    promise = Promise("disk2", Applied(1, A, 1), Vote(1, A, B))
    told = Told(follower(promise))
    assert told.saw(FENCING, 0.0) == [e.Persist(promise)]
    assert told.member.state is State.FENCED
    assert told.member.receive(Fence(1, 1), "n1", 0.1) == [e.SendTo("n1", Fenced(1, 0.0))]
    assert told.saw(COMMITTED, 0.2) == [e.Obtain(B)]
    assert told.member.state is State.BOOTING


def test_a_vote_for_a_decided_rollout_is_harmless() -> None:
    told = Told(follower(Promise("disk2", Applied(1, A, 1), Vote(1, A, B))))
    assert told.saw(ABORTED, 0.0) == [e.Obtain(A)]


# ── the fence ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_vote_is_on_the_disk_before_it_is_said() -> None:
    told = pausing()
    promise = Promise("disk2", Applied(1, A, 1), Vote(1, A, B))
    assert told.member.drained(1, 2, 3.0) == [e.Persist(promise), e.SendTo("n1", FENCED)]
    assert told.member.receive(Fence(1, 1), "n3", 3.1) == [e.SendTo("n3", FENCED)]


def test_a_message_alone_pauses_nobody() -> None:
    told = staged(serving())
    assert told.member.receive(Fence(1, 1), "n1", 2.0) == [e.Read()]
    assert told.member.receive(Fence(7, 1), "n1", 2.0) == [e.Read()]
    assert told.member.state is State.SERVING


def test_a_drain_that_takes_too_long_un_pauses_and_refuses() -> None:
    told = pausing()
    assert told.member.deadline <= 2.0 + SETTINGS.drain_timeout
    refusal = Refused(1, "transactions did not end within 5.0 s")
    effects = told.member.tick(7.0)
    assert effects[:2] == [e.Resume(("shop",)), e.SendTo("n1", refusal)]
    assert told.member.drained(1, 2, 7.1) == []
    assert told.member.receive(Fence(1, 1), "n1", 7.2) == [e.SendTo("n1", refusal)]
    assert told.saw(FENCING, 7.3) == []


def test_a_drain_that_fails_un_pauses_and_says_why() -> None:
    told = pausing()
    assert told.member.drain_failed(1, 1, "an older attempt", 2.5) == []
    refusal = Refused(1, "backend 7 stays")
    assert told.member.drain_failed(1, 2, "backend 7 stays", 2.6) == [e.Resume(("shop",)), e.SendTo("n1", refusal)]


def test_an_abort_before_the_vote_resumes() -> None:
    told = pausing()
    assert told.saw(ABORTED, 2.5) == [e.Resume(("shop",))]
    assert told.member.drained(1, 2, 2.6) == []


def test_after_the_vote_only_the_register_ends_the_fence() -> None:
    told = fenced()
    for at in (10.0, 100.0, 1000.0):
        assert not any(isinstance(effect, e.Resume) for effect in told.member.tick(at))
    assert told.member.receive(Decided(1, 0), "n1", 1000.0) == [e.Read()]
    assert told.saw(FENCING, 1000.1) == []
    assert told.member.saw(Reading(1, JOINED), 1000.2) == [], "an older reading proves nothing"
    assert told.saw(ABORTED, 1000.3) == [e.Resume(("shop",)), e.Persist(Promise("disk2", Applied(1, A, 1)))]


def test_a_commit_is_applied_then_served_then_noted_and_told() -> None:
    told = fenced()
    version = COMMITTED.cur
    assert told.saw(COMMITTED, 3.5) == [e.Apply(version)]
    assert told.saw(COMMITTED, 3.6) == []
    served = Applied(2, B, 2)
    assert told.member.applied(version, "", 4.0) == [
        e.Resume(("shop",)),
        e.Persist(Promise("disk2", served)),
        e.Serving(served),
        e.SendTo("n1", messages.Applied(1, 2, 2000.0, 1000.0, "")),
    ]
    again = told.member.receive(Decided(1, 2), "n3", 5.0)
    assert again == [e.SendTo("n3", messages.Applied(1, 2, 2000.0, 1000.0, ""))]
    assert told.member.applied(version, "", 6.0) == []


def test_what_cannot_be_applied_is_not_served_and_tried_again() -> None:
    told = fenced()
    told.saw(COMMITTED, 3.5)
    failed = told.member.applied(COMMITTED.cur, "no memory", 4.0)
    assert failed == [
        e.Alarm("apply_failed", "version 2: no memory"),
        e.SendTo("n1", messages.Applied(1, 2, 0.0, 1000.0, "no memory")),
    ]
    assert e.Apply(COMMITTED.cur) in told.member.tick(4.0 + APPLY_RETRY_S)


def test_a_member_that_did_not_validate_in_this_life_refuses() -> None:
    refusal = Refused(1, "was restarted after it validated the document")
    assert serving().saw(FENCING, 1.0) == [e.SendTo("n1", refusal)]


def test_a_member_on_another_version_refuses() -> None:
    told = serving()
    rolled = Commit(1, 1, False, 0.0).apply(OPENED)
    opened = Open("t2", "n1", "alice", B, C, 0.0).apply(rolled)
    assert told.saw(rolled, 1.0) == [e.Apply(rolled.cur)]
    [refusal] = [x for x in told.saw(StartFencing(2, 1, ()).apply(opened), 1.1) if isinstance(x, e.SendTo)] or [None]
    assert refusal is None, "it is behind, so it catches up first"
    effects = told.member.applied(rolled.cur, "", 1.2)
    assert e.SendTo("n1", Refused(2, "was restarted after it validated the document")) in effects


# ── rolling ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rolling_version_is_applied_without_a_pause() -> None:
    told = staged(serving())
    assert told.saw(ROLLED, 2.0) == [e.Apply(ROLLED.cur)]
    assert told.saw(ROLLED, 2.1) == []
    served = Applied(2, B, 1)
    assert told.member.applied(ROLLED.cur, "", 2.2) == [
        e.Persist(Promise("disk2", served)),
        e.Serving(served),
        e.SendTo("n1", messages.Applied(1, 2, 0.0, 0.0, "")),
    ]


# ── staging ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_document_is_validated_once_and_the_answer_given_as_often_as_asked() -> None:
    told = serving(OPENED)
    stage = Stage(1, 1, A, B)
    assert told.member.receive(stage, "n1", 1.0) == [e.Validate(1, B, "n1")]
    assert told.member.receive(stage, "n1", 1.1) == []
    answer = Staged(1, B, ChangeClass.ROLLING, (), (), ("note",))
    assert told.member.validated(1, B, Report(ChangeClass.ROLLING, notes=("note",)), "n1") == [e.SendTo("n1", answer)]
    assert told.member.receive(stage, "n3", 1.2) == [e.SendTo("n3", answer)]


def test_a_stage_on_another_base_makes_it_read() -> None:
    assert serving(OPENED).member.receive(Stage(1, 1, C, B), "n1", 1.0) == [e.Read()]


def test_a_stage_of_a_decided_rollout_is_ignored() -> None:
    assert serving(ABORTED).member.receive(Stage(1, 1, A, B), "n1", 1.0) == []
    assert serving(ABORTED).member.receive(Fence(1, 1), "n1", 1.0) == []


def test_a_member_that_does_not_serve_does_not_answer() -> None:
    member = follower()
    assert member.receive(Stage(1, 1, A, B), "n1", 0.0) == []
    assert member.receive(Fence(1, 1), "n1", 0.0) == []
    assert member.receive(Decided(1, 2), "n1", 0.0) == []
    assert member.receive(Refused(1, "not for me"), "n1", 0.0) == []


def test_each_dry_run_is_validated_anew() -> None:
    told = serving()
    dry = Stage(0, 0, A, B)
    for _ in range(2):
        assert told.member.receive(dry, "n1", 1.0) == [e.Validate(0, B, "n1")]
        [answer] = told.member.validated(0, B, Report(ChangeClass.LOCAL), "n1")
        assert answer == e.SendTo("n1", Staged(0, B, ChangeClass.LOCAL, (), (), ()))


# ── the coordinator is silent ───────────────────────────────────────────────────────────────────────────────────────


def test_silence_is_answered_by_a_takeover_and_signs_of_life_put_it_off() -> None:
    told = serving(OPENED)
    longest = SETTINGS.takeover + SETTINGS.takeover_jitter
    told.member.receive(Stage(1, 1, A, B), "n1", 1.9)
    takeover = e.Amend(TakeOver(1, 1, "n2"))
    assert takeover not in told.member.tick(3.8)
    told.member.receive(Fence(1, 9), "n1", 3.8)  # another epoch: no sign of life of this one
    assert takeover in told.member.tick(1.9 + longest)


def test_a_coordinator_of_a_former_life_is_succeeded_at_once() -> None:
    mine = Open("t1", "n2", "alice", A, B, 0.0).apply(JOINED)
    told = serving(mine)
    assert e.Amend(TakeOver(1, 1, "n2")) in told.member.tick(0.0)


def test_nobody_succeeds_itself() -> None:
    told = serving()
    told.member.coordinating = 1
    told.saw(Open("t1", "n2", "alice", A, B, 0.0).apply(JOINED), 0.0)
    effects = told.member.tick(100.0)
    assert not any(isinstance(effect, e.Amend) for effect in effects)


# ── losing the seat, leaving ────────────────────────────────────────────────────────────────────────────────────────


def test_an_evicted_member_stops_drains_and_asks_for_a_seat_again() -> None:
    told = serving()
    effects = told.saw(FOUNDED, 1.0)
    assert [type(effect) for effect in effects] == [e.Pause, e.Alarm, e.Drain]
    drain = effects[2]
    assert isinstance(drain, e.Drain)
    assert told.saw(FOUNDED, 1.1) == [], "not before its statements have ended"
    told.member.drain_failed(0, drain.attempt, "still busy", 1.2)
    [again] = [x for x in told.member.tick(1.2 + SETTINGS.busy_poll) if isinstance(x, e.Drain)]
    assert told.member.drained(0, drain.attempt, 2.0) == []
    assert told.member.drained(0, again.attempt, 2.1) == [e.Read()]
    assert told.saw(FOUNDED, 2.2) == [e.Obtain(A)]
    told.member.obtained(A, True, 2.3)
    told.amended(TakeSeat("n2", ME, A), True, JOINED, 2.4)
    assert told.member.applied(LOCAL, "", 2.5)[0] == e.Resume(("*",))


def test_a_flock_that_turned_without_this_member_stops_it() -> None:
    told = serving()
    effects = told.saw(COMMITTED, 1.0)
    assert effects[1] == e.Alarm("turned_without_me", "version 2 is in force")


def test_a_member_whose_name_was_taken_stops_for_good() -> None:
    told = serving()
    effects = told.saw(TakeSeat("n2", Seat("twin", "disk2", ""), A).apply(JOINED), 1.0)
    assert e.Alarm("replaced", "another process took the name n2") in effects
    assert told.member.state is State.STOPPED
    assert told.member.tick(2.0) == []
    assert told.member.deadline == float("inf")
    assert told.saw(JOINED, 3.0) == []
    assert told.amended(Leave("n2", "x"), False, JOINED, 3.0) == []


def test_leaving_gives_the_seat_up_and_ends() -> None:
    told = serving()
    leaving = e.Amend(Leave("n2", "boot2"))
    assert told.member.leave(1.0) == [leaving]
    assert told.saw(JOINED, 1.5) == [leaving], "an answer that was lost is asked for again"
    assert told.amended(Leave("n2", "boot2"), True, FOUNDED, 1.6) == [e.Left()]
    other = serving()
    other.member.leave(1.0)
    assert other.saw(FOUNDED, 1.5) == [e.Left()]


def test_a_leaving_member_succeeds_nobody() -> None:
    told = serving(OPENED)
    told.member.leave(0.0)
    assert not any(isinstance(x, e.Amend) for x in told.member.tick(50.0))


def test_polls_are_slow_in_peace_and_quick_in_a_rollout() -> None:
    told = serving()
    told.member.tick(10.0)
    assert told.member.deadline == 10.0 + SETTINGS.poll
    told.saw(OPENED, 10.1)
    assert told.member.deadline == 10.1 + SETTINGS.busy_poll
