"""One rollout as its coordinator sees it, and the participant that routes its events."""

from __future__ import annotations

from random import Random
from typing import Any

from sync import effects as e
from sync.changes import Abort, Commit, Found, Open, StartFencing, TakeOver, TakeSeat
from sync.coordinator import SHOWN_LIMIT, Coordinator, Order, Step
from sync.follower import Follower, State
from sync.messages import Applied, Decided, Fence, Fenced, MemberRow, Message, Progress, Refused, Stage, Staged
from sync.participant import Participant
from sync.promise import Promise
from sync.rollout import Cell, ChangeClass, Reading
from sync.roster import Seat
from sync.settings import SyncSettings
from sync.version import digest_of, first_version

A, B = digest_of(b"a"), digest_of(b"b")
SETTINGS = SyncSettings()
LOCAL = first_version(A, by="n1", at_utc=0.0)
FOUNDED = Found("n1", Seat("b1", "d1", "h:1"), LOCAL).apply(None)
JOINED = TakeSeat("n2", Seat("b2", "d2", "h:2"), A).apply(FOUNDED)
ORDER = Order("t1", "alice", A, B, 60.0, 5.0)
OPEN = Open("t1", "n1", "alice", A, B, 5.0)
OPENED = OPEN.apply(JOINED)
FENCING = StartFencing(1, 1, ("shop",)).apply(OPENED)
COMMITTED = Commit(1, 1, True, 5.0).apply(FENCING)
ABORTED = Abort(1, 1, "because").apply(OPENED)
TAKEN = TakeOver(1, 1, "n2").apply(FENCING)


def accept(change: ChangeClass = ChangeClass.EXCLUSIVE, scope: tuple[str, ...] = ("shop",)) -> Staged:
    return Staged(1, B, change, scope, (), ())


def sent(effects: list[e.Effect], kind: type[Any]) -> dict[str, Message]:
    return {x.node: x.message for x in effects if isinstance(x, e.SendTo) and isinstance(x.message, kind)}


def finish(effects: list[e.Effect]) -> e.Finish:
    [found] = [x for x in effects if isinstance(x, e.Finish)]
    return found


def validating() -> Coordinator:
    coordinator, effects = Coordinator.begin("n1", SETTINGS, ORDER, 0.0)
    assert effects == [e.Amend(OPEN)]
    asked = coordinator.amended(OPEN, True, Reading(3, OPENED), "", 0.0)
    assert sent(asked, Stage) == {"n1": Stage(1, 1, A, B), "n2": Stage(1, 1, A, B)}
    return coordinator


def fencing() -> Coordinator:
    coordinator = validating()
    assert coordinator.receive(accept(), "n1", 0.1) == []
    start = StartFencing(1, 1, ("shop",))
    assert coordinator.receive(accept(), "n2", 0.2) == [e.Amend(start)]
    asked = coordinator.amended(start, True, Reading(4, FENCING), "", 0.3)
    assert set(sent(asked, Fence)) == {"n1", "n2"}
    return coordinator


def committing() -> Coordinator:
    coordinator = fencing()
    assert coordinator.receive(Fenced(1, 7.0), "n1", 0.4) == []
    effects = coordinator.receive(Fenced(1, 8.0), "n2", 0.5)
    assert effects[0] == e.Amend(Commit(1, 1, True, 5.0))
    return coordinator


def confirming() -> Coordinator:
    coordinator = committing()
    told = coordinator.amended(Commit(1, 1, True, 5.0), True, Reading(5, COMMITTED), "", 0.6)
    assert set(sent(told, Decided)) == {"n1", "n2"}
    return coordinator


def test_a_rollout_goes_from_consent_over_votes_to_a_commit_that_everybody_reports() -> None:
    coordinator = confirming()
    coordinator.receive(Applied(1, 2, 9.0, 7.0, ""), "n1", 0.7)
    done = finish(coordinator.receive(Applied(1, 2, 10.0, 8.0, ""), "n2", 0.8))
    assert (done.outcome, done.version, done.rid) == ("committed", 2, 1)
    assert done.rows[1] == MemberRow("n2", "applied", True, 2, 10.0, 8.0, None)
    assert coordinator.step is Step.ENDED
    assert coordinator.deadline == float("inf")
    assert coordinator.tick(99.0) == []


def test_one_vote_is_not_enough_and_two_of_one_member_are_one() -> None:
    coordinator = fencing()
    for _ in range(3):
        assert coordinator.receive(Fenced(1, 7.0), "n1", 0.4) == []
    assert coordinator.receive(Fenced(1, 7.0), "stranger", 0.4) == []
    assert coordinator.receive(Fenced(2, 7.0), "n2", 0.4) == []


def test_a_change_without_a_barrier_commits_on_consent() -> None:
    coordinator = validating()
    coordinator.receive(accept(ChangeClass.LOCAL), "n1", 0.1)
    effects = coordinator.receive(accept(ChangeClass.ROLLING), "n2", 0.2)
    assert effects[0] == e.Amend(Commit(1, 1, False, 5.0))


def test_the_greatest_class_wins() -> None:
    coordinator = validating()
    coordinator.receive(accept(ChangeClass.ROLLING, ()), "n1", 0.1)
    assert coordinator.receive(accept(), "n2", 0.2) == [e.Amend(StartFencing(1, 1, ("shop",)))]


def test_a_scope_nobody_names_is_everything() -> None:
    coordinator = validating()
    coordinator.receive(accept(scope=()), "n1", 0.1)
    assert coordinator.receive(accept(scope=()), "n2", 0.2) == [e.Amend(StartFencing(1, 1, ("*",)))]


def test_a_refusal_aborts_at_once() -> None:
    coordinator = validating()
    no = Staged(1, B, ChangeClass.LOCAL, (), ("no such shard", "no such role"), ())
    abort = Abort(1, 1, "n2: no such shard; no such role")
    assert coordinator.receive(no, "n2", 0.1) == [e.Amend(abort)]
    effects = coordinator.amended(abort, True, Reading(4, abort.apply(OPENED)), "", 0.2)
    assert sent(effects, Decided) == {"n1": Decided(1, 0), "n2": Decided(1, 0)}
    assert finish(effects).reason == "n2: no such shard; no such role"


def test_a_refused_fence_aborts() -> None:
    coordinator = fencing()
    assert coordinator.receive(Refused(1, "busy"), "n2", 0.4) == [e.Amend(Abort(1, 1, "n2: busy"))]


def test_silence_ends_in_an_abort_that_names_the_silent() -> None:
    coordinator = validating()
    coordinator.receive(accept(), "n1", 0.1)
    assert e.Amend(Abort(1, 1, "no answer within 30 s from n2")) not in coordinator.tick(29.0)
    coordinator = validating()
    effects = coordinator.tick(30.0)
    assert e.Amend(Abort(1, 1, "no answer within 30 s from n1, n2")) in effects
    coordinator = fencing()
    coordinator.receive(Fenced(1, 1.0), "n1", 0.4)
    assert e.Amend(Abort(1, 1, "no vote in time from n2")) in coordinator.tick(0.3 + SETTINGS.fence_timeout)


def test_an_unreachable_member_aborts_unless_it_has_voted() -> None:
    assert validating().unreachable("n2", "refused", 0.1) == [e.Amend(Abort(1, 1, "n2 is unreachable: refused"))]
    coordinator = fencing()
    coordinator.receive(Fenced(1, 1.0), "n2", 0.4)
    assert coordinator.unreachable("n2", "gone", 0.5) == []
    assert coordinator.unreachable("stranger", "gone", 0.5) == []
    assert committing().unreachable("n1", "gone", 0.6) == []


def test_questions_are_repeated_as_signs_of_life_and_progress_is_shown_when_it_changed() -> None:
    coordinator = validating()
    first = coordinator.tick(SETTINGS.resend)
    assert set(sent(first, Stage)) == {"n1", "n2"}
    assert set(sent(first, Progress)) == {"n2"}
    assert sent(coordinator.tick(2 * SETTINGS.resend), Progress) == {}


def test_large_flocks_are_not_told_every_step() -> None:
    coordinator = validating()
    coordinator.rows = {f"n{i}": MemberRow(f"n{i}", "asked") for i in range(SHOWN_LIMIT + 1)}
    assert sent(coordinator.tick(SETTINGS.resend), Progress) == {}
    assert coordinator._silent() == "n0, n1, n2, n3, n4 and 60 more"


def test_the_operators_patience_aborts_before_the_commit_and_shrugs_after_it() -> None:
    assert e.Amend(Abort(1, 1, "the operator's timeout was reached")) in validating().tick(60.0)
    assert finish(committing().tick(60.0)).outcome == "unknown"
    assert finish(confirming().tick(60.0)).outcome == "committed"


def test_a_rollout_that_opens_after_patience_ended_is_aborted() -> None:
    coordinator, _ = Coordinator.begin("n1", SETTINGS, ORDER, 0.0)
    assert finish(coordinator.tick(60.0)).outcome == "aborted"
    abort = e.Amend(Abort(1, 1, "the operator's timeout was reached"))
    assert coordinator.amended(OPEN, True, Reading(3, OPENED), "", 61.0) == [abort]


def test_a_member_that_does_not_report_is_listed_without_a_version() -> None:
    coordinator = confirming()
    coordinator.receive(Applied(1, 2, 9.0, 7.0, ""), "n1", 0.7)
    coordinator.receive(Applied(1, 2, 9.0, 7.0, "no memory"), "n2", 0.7)
    assert set(sent(coordinator.tick(0.6 + SETTINGS.resend), Decided)) == {"n2"}
    done = finish(coordinator.tick(0.6 + SETTINGS.confirm))
    assert done.outcome == "committed"
    assert [(row.node, row.version, row.reason) for row in done.rows] == [("n1", 2, None), ("n2", None, "no memory")]


# ── a register that does not answer ─────────────────────────────────────────────────────────────────────────────────


def test_every_change_of_unknown_outcome_is_asked_for_again() -> None:
    coordinator, _ = Coordinator.begin("n1", SETTINGS, ORDER, 0.0)
    coordinator.amended(OPEN, None, Reading(0, None), "", 1.0)
    assert e.Amend(OPEN) in coordinator.tick(1.0 + SETTINGS.resend)
    coordinator = committing()
    coordinator.amended(Commit(1, 1, True, 5.0), None, Reading(0, None), "", 1.0)
    assert e.Amend(Commit(1, 1, True, 5.0)) in coordinator.tick(1.0 + SETTINGS.resend)
    coordinator = validating()
    abort = Abort(1, 1, "n2 is unreachable: x")
    coordinator.unreachable("n2", "x", 0.1)
    coordinator.amended(abort, None, Reading(0, None), "", 1.0)
    assert e.Amend(abort) in coordinator.tick(1.0 + SETTINGS.resend)
    assert coordinator.amended(Commit(1, 1, True, 0.0), None, Reading(0, None), "", 1.0) == []


def test_a_fence_that_may_not_have_been_written_is_aborted() -> None:
    coordinator = validating()
    coordinator.receive(accept(), "n1", 0.1)
    coordinator.receive(accept(), "n2", 0.2)
    effects = coordinator.amended(StartFencing(1, 1, ("shop",)), None, Reading(0, None), "", 1.0)
    assert effects == [e.Amend(Abort(1, 1, "the register did not answer"))]


def test_without_a_register_the_signs_of_life_end_so_that_somebody_else_may_decide() -> None:
    coordinator = committing()
    assert set(sent(coordinator.tick(1.0), Fence)) == {"n1", "n2"}
    assert sent(coordinator.tick(0.5 + SETTINGS.takeover + 0.1), Fence) == {}


# ── somebody else ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_older_epoch_watches_and_reports_what_the_register_says() -> None:
    coordinator = fencing()
    assert coordinator.saw(Reading(9, TAKEN), 0.5) == []
    assert coordinator.step is Step.WATCHING
    assert coordinator.saw(Reading(10, TAKEN), 0.6) == []
    ended = Abort(1, 2, "no vote in time from n1").apply(TAKEN)
    assert finish(coordinator.saw(Reading(11, ended), 0.7)).reason == "no vote in time from n1"


def test_a_commit_that_came_too_late_follows_its_successor() -> None:
    coordinator = committing()
    assert coordinator.amended(Commit(1, 1, True, 5.0), False, Reading(9, TAKEN), "taken over", 1.0) == []
    assert coordinator.step is Step.WATCHING
    committed = Commit(1, 2, True, 5.0).apply(TAKEN)
    assert set(sent(coordinator.saw(Reading(10, committed), 1.1), Decided)) == {"n1", "n2"}
    assert coordinator.step is Step.CONFIRMING


def test_a_watcher_that_runs_out_of_patience_says_unknown() -> None:
    coordinator = committing()
    coordinator.amended(Commit(1, 1, True, 5.0), False, Reading(9, TAKEN), "", 1.0)
    assert finish(coordinator.tick(60.0)).outcome == "unknown"


def test_a_reading_from_before_the_rollout_says_nothing_about_it() -> None:
    coordinator = validating()
    assert coordinator.saw(Reading(2, JOINED), 0.1) == []
    assert coordinator.saw(Reading(0, None), 0.1) == []
    assert coordinator.step is Step.VALIDATING


def test_a_rollout_another_rollout_followed_upon_was_aborted() -> None:
    coordinator = validating()
    later = Abort(2, 1, "x").apply(Open("t2", "n2", "bob", A, B, 0.0).apply(ABORTED))
    assert finish(coordinator.saw(Reading(9, later), 0.5)).reason == "another coordinator ended it"


def test_a_rollout_that_may_not_open_ends_with_the_reason() -> None:
    coordinator, _ = Coordinator.begin("n1", SETTINGS, ORDER, 0.0)
    done = finish(coordinator.amended(OPEN, False, Reading(3, OPENED), "rollout 1 is open: node n2, fencing", 0.1))
    assert (done.outcome, done.rid, done.reason) == ("aborted", 0, "rollout 1 is open: node n2, fencing")
    coordinator, _ = Coordinator.begin("n1", SETTINGS, ORDER, 0.0)
    assert finish(coordinator.amended(OPEN, False, Reading(4, ABORTED), "it was aborted", 0.1)).rid == 1


def test_a_successor_aborts_a_validation_and_decides_a_fence() -> None:
    taken = TakeOver(1, 1, "n2").apply(OPENED)
    _, effects = Coordinator.succeed("n2", SETTINGS, taken, 5.0)
    assert effects == [e.Amend(Abort(1, 2, "the coordinator was lost while validating"))]
    coordinator, effects = Coordinator.succeed("n2", SETTINGS, TAKEN, 5.0)
    assert set(sent(effects, Fence)) == {"n1", "n2"}
    coordinator.receive(Fenced(1, 1.0), "n1", 5.1)
    assert coordinator.receive(Fenced(1, 1.0), "n2", 5.2)[0] == e.Amend(Commit(1, 2, True, 5.0))
    coordinator, _ = Coordinator.succeed("n2", SETTINGS, TAKEN, 5.0)
    assert e.Amend(Abort(1, 2, "no vote in time from n1, n2")) in coordinator.tick(5.0 + SETTINGS.takeover_patience)


# ── dry runs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def dry() -> Coordinator:
    coordinator, effects = Coordinator.dry("n1", SETTINGS, ORDER, ("n1", "n2"), 0.0)
    assert set(sent(effects, Stage)) == {"n1", "n2"}
    return coordinator


def dry_answer(*errors: str) -> Staged:
    return Staged(0, B, ChangeClass.EXCLUSIVE, (), errors, ())


def test_a_dry_run_collects_every_answer() -> None:
    coordinator = dry()
    assert coordinator.receive(dry_answer("bad"), "n1", 0.1) == []
    assert set(sent(coordinator.tick(SETTINGS.resend), Stage)) == {"n2"}
    assert finish(coordinator.receive(dry_answer(), "n2", 0.3)).reason == "dry run: n1: bad"


def test_a_dry_run_names_who_is_not_there_or_silent() -> None:
    coordinator = dry()
    coordinator.receive(dry_answer(), "n1", 0.1)
    assert finish(coordinator.unreachable("n2", "refused", 0.2)).reason == "dry run: n2: unreachable: refused"
    assert finish(dry().tick(SETTINGS.validate_timeout)).reason == "dry run: n1: no answer; n2: no answer"
    assert finish(dry().tick(60.0)).outcome == "aborted"
    coordinator = dry()
    assert coordinator.unreachable("n1", "refused", 0.1) == []


# ── the participant ─────────────────────────────────────────────────────────────────────────────────────────────────


def participant(node: str = "n1", cell: Cell = JOINED) -> Participant:
    seat = cell.roster.get(node)
    assert seat is not None
    follower = Follower(
        node=node,
        seat=seat,
        promise=Promise(seat.disk),
        local=LOCAL,
        adopt=False,
        settings=SETTINGS,
        random=Random(1),
    )
    member = Participant(follower, SETTINGS)
    member.saw(Reading(1, FOUNDED), 0.0)
    member.obtained(A, True, 0.0)
    member.amended(TakeSeat(node, seat, A), True, Reading(2, cell), "", 0.0)
    member.applied(LOCAL, "", 0.0)
    assert follower.state is State.SERVING
    return member


def test_the_own_rollout_seen_before_its_answer_is_not_taken_for_an_orphan() -> None:
    member = participant()
    member.roll_out(ORDER, 0.0)
    effects = member.saw(Reading(3, OPENED), 0.1) + member.tick(0.2)
    assert not any(isinstance(x, e.Amend) and isinstance(x.change, TakeOver) for x in effects)


def test_a_second_order_on_one_node_waits_for_nobody() -> None:
    member = participant()
    member.roll_out(ORDER, 0.0)
    member.amended(OPEN, True, Reading(3, OPENED), "", 0.1)
    refused = finish(member.roll_out(Order("t2", "bob", A, B, 60.0, 6.0), 0.2))
    assert (refused.token, refused.outcome) == ("t2", "aborted")
    assert refused.reason == "rollout 1 is open: node n1 runs it"


def test_an_order_during_the_confirmation_ends_the_confirmation() -> None:
    member = participant()
    member.roll_out(ORDER, 0.0)
    member.coordinator = confirming()
    effects = member.roll_out(Order("t2", "bob", B, A, 60.0, 6.0), 1.0)
    assert finish(effects).token == "t1"
    assert any(isinstance(x, e.Amend) and isinstance(x.change, Open) for x in effects)


def test_progress_of_others_is_kept_for_showing_and_older_news_is_not() -> None:
    member = participant("n2")
    rows = (MemberRow("n1", "fenced"),)
    assert member.receive(Progress(4, rows), "n1", 1.0) == []
    member.receive(Progress(3, ()), "n1", 1.0)
    assert member.rows(4) == rows
    assert member.rows(3) == ()


def test_a_granted_takeover_makes_a_coordinator_and_a_repeated_one_the_same() -> None:
    member = participant("n2")
    effects = member.amended(TakeOver(1, 1, "n2"), True, Reading(5, TAKEN), "", 3.0)
    assert set(sent(effects, Fence)) == {"n1", "n2"}
    first = member.coordinator
    assert member.follower.coordinating == 1
    assert member.amended(TakeOver(1, 1, "n2"), True, Reading(5, TAKEN), "", 3.1) == []
    assert member.coordinator is first
    again = TakeOver(1, 2, "n2").apply(TAKEN)
    promoted = member.amended(TakeOver(1, 2, "n2"), True, Reading(6, again), "", 4.0)
    assert set(sent(promoted, Fence)) == {"n1", "n2"}
    assert first is not None
    assert first.epoch == 3


def test_a_takeover_that_was_not_granted_changes_nothing() -> None:
    member = participant("n2")
    member.amended(TakeOver(1, 1, "n2"), False, Reading(5, ABORTED), "not open", 3.0)
    member.amended(TakeOver(1, 1, "n2"), None, Reading(5, ABORTED), "", 3.0)
    assert member.coordinator is None


def test_a_takeover_ends_what_the_node_coordinated_before() -> None:
    member = participant("n2")
    older, _ = Coordinator.begin("n2", SETTINGS, Order("t0", "bob", A, B, 60.0, 0.0), 0.0)
    member.coordinator = older
    effects = member.amended(TakeOver(1, 1, "n2"), True, Reading(5, TAKEN), "", 3.0)
    assert (finish(effects).token, finish(effects).outcome) == ("t0", "unknown")
    assert member.coordinator is not older


def test_answers_to_changes_of_another_life_reach_nobody() -> None:
    member = participant()
    member.roll_out(ORDER, 0.0)
    coordinator = member.coordinator
    assert coordinator is not None
    member.amended(Open("other", "n1", "x", A, B, 0.0), True, Reading(3, OPENED), "", 0.1)
    assert coordinator.step is Step.OPENING


def test_a_node_that_coordinates_nothing_does_not_mind_who_is_unreachable() -> None:
    member = participant()
    assert member.unreachable("n2", "gone", 0.0) == []
    member.roll_out(ORDER, 0.0)
    member.amended(OPEN, True, Reading(3, OPENED), "", 0.1)
    assert member.unreachable("n2", "gone", 0.2) == [e.Amend(Abort(1, 1, "n2 is unreachable: gone"))]
    assert member.rows(1)[1].state == "unreachable"
