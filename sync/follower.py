"""What one member may do, as rules. Every member has exactly one follower, the coordinator's own node too.

    BOOTING ──read the register, have its document, take the seat──▶ APPLYING ──applied──▶ SERVING
    SERVING ──the register shows FENCING on my base──▶ PAUSING        (pause, drain)
    PAUSING ──drained──▶ fsync the vote ──▶ FENCED                    (only then the answer)
    PAUSING ──drain_timeout, failure, or the rollout is gone──▶ SERVING
    FENCED  ──the register shows the outcome──▶ APPLYING (commit) or SERVING (abort)
    any     ──crash──▶ a vote on disk for the open rollout? FENCED : BOOTING

Rules, each with a mutant in tests/sim that shows what its loss does:
1. Before its vote a member may un-pause itself; after it, never: only the register's word ends a fence.
2. The vote is on disk before it is said, and it is cast after the drain, which covers older lives of this node.
3. Nothing is served before one linearizable read in this life, and never from memory of a former one.
4. Messages are hints. A member pauses only for a rollout that it has read in the register.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from sync import messages
from sync.changes import Change, Found, Leave, TakeOver, TakeSeat
from sync.effects import (
    EVERYTHING,
    Alarm,
    Amend,
    Apply,
    Drain,
    Effect,
    Left,
    Obtain,
    Pause,
    Persist,
    Read,
    RefuseToStart,
    Resume,
    SendTo,
    Serving,
    Validate,
)
from sync.messages import Decided, Fence, Fenced, Message, Refused, Stage, Staged
from sync.ports import Report
from sync.promise import Applied, Promise, Vote
from sync.rollout import Cell, Phase, Reading, Roll
from sync.roster import Seat
from sync.settings import SyncSettings
from sync.silence import Silence
from sync.staging import Staging
from sync.version import ConfigVersion

if TYPE_CHECKING:
    from random import Random

INFINITY = float("inf")
APPLY_RETRY_S = 5.0


class State(Enum):
    BOOTING = auto()
    APPLYING = auto()
    SERVING = auto()
    PAUSING = auto()
    FENCED = auto()
    LEAVING = auto()
    STOPPED = auto()  # left, replaced by another process of this name, or refused to start


class Follower:
    """`local` is the version this node would found an empty register with; its digest also tells a stranger's drift."""

    def __init__(
        self,
        *,
        node: str,
        seat: Seat,
        promise: Promise,
        local: ConfigVersion,
        adopt: bool,
        settings: SyncSettings,
        random: Random,
    ) -> None:
        self.node = node
        self.seat = seat
        self.promise = promise
        self.local = local
        self.adopt = adopt
        self.settings = settings
        self.state = State.BOOTING
        self.reading = Reading(0, None)
        self.serving: Applied | None = None
        self.coordinating = 0  # rid which this node coordinates itself; set by the participant
        self._seated = False
        self._have = ""  # digest of the document obtained for the boot
        self._paused: tuple[str, ...] | None = None
        self._paused_at = 0.0
        self._paused_ms = 0.0
        self._drained_ms = 0.0
        self._pausing_for = 0
        self._attempt = 0
        self._must_drain = False
        self._applying: ConfigVersion | None = None
        self._staging = Staging()
        self._refused: Refused | None = None
        self._report: messages.Applied | None = None
        self._silence = Silence(node, settings, random)
        self._read_at = 0.0
        self._retry_at = INFINITY
        self._alarmed = ""

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def deadline(self) -> float:
        if self.state is State.STOPPED:
            return INFINITY
        return min(self._read_at, self._retry_at, self._silence.ends, self._pause_ends)

    @property
    def _pause_ends(self) -> float:
        if self.state is not State.PAUSING:
            return INFINITY
        return self._paused_at + min(self.settings.drain_timeout, self.settings.pause_max)

    def tick(self, now: float) -> list[Effect]:
        if self.state is State.STOPPED:
            return []
        effects: list[Effect] = []
        if now >= self._pause_ends:
            waited = now - self._paused_at
            effects += self._unpause(f"transactions did not end within {waited:.1f} s", now)
        if now >= self._retry_at:
            self._retry_at = INFINITY
            effects += self._retry()
        if now >= self._silence.ends:
            effects += self._succeed(now)
        if now >= self._read_at:
            effects.append(self._read(now))
        return effects

    def _read(self, now: float) -> Read:
        calm = self.state is State.SERVING and self._roll is None
        self._read_at = now + (self.settings.poll if calm else self.settings.busy_poll)
        return Read()

    def _retry(self) -> list[Effect]:
        if self._must_drain:
            return self._drain(EVERYTHING, 0)
        return [Apply(self._applying)] if self._applying is not None else []

    def _succeed(self, now: float) -> list[Effect]:
        """Rule: silence of a coordinator is answered by a compare-and-set, never by guessing its outcome."""
        roll = self._roll
        if roll is None or self.coordinating == roll.rid or self.state is State.LEAVING:
            self._silence.stop()
            return []
        self._silence.again(now)
        return [Amend(TakeOver(roll.rid, roll.epoch, self.node))]

    # ── the register speaks ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _roll(self) -> Roll | None:
        return None if self.reading.cell is None else self.reading.cell.roll

    def saw(self, reading: Reading, now: float) -> list[Effect]:
        """A linearizable read ended. Answers may overtake each other: an older one is dropped."""
        if reading.rev < self.reading.rev or self.state is State.STOPPED:
            return []
        broken = self._contradiction(reading.cell)
        if broken:
            return self._refuse_or_alarm(broken)
        self.reading = reading
        cell = reading.cell
        if cell is not None:
            opened = self._silence.listen(cell.roll, self.coordinating, now)
            if opened:
                self._read_at = min(self._read_at, now + self.settings.busy_poll)
        match self.state:
            case State.BOOTING:
                return self._boot(cell, now)
            case State.LEAVING:
                return self._leave(cell)
            case _ if cell is None:
                return []
            case _ if self._seated and cell.roster.get(self.node) != self.seat:
                return self._lost_seat(cell, now)
            case State.FENCED:
                return self._fenced(cell, now)
            case State.PAUSING:
                return self._pausing(cell, now)
            case State.SERVING:
                return self._serving(cell, now)
            case _:
                return []

    def _contradiction(self, cell: Cell | None) -> str:
        """A register that forgot what this node already applied must not rule: fail closed, a person has to look."""
        known = self.promise.applied
        if known is None:
            return ""
        if cell is None:
            return f"the register is empty, but this node has applied version {known.n} ({known.digest[:12]})"
        if cell.cur.n < known.n or (cell.cur.n == known.n and cell.cur.digest != known.digest):
            return (
                f"the register has version {cell.cur.n} ({cell.cur.digest[:12]}),"
                f" but this node has applied version {known.n} ({known.digest[:12]})"
            )
        return ""

    def _refuse_or_alarm(self, reason: str) -> list[Effect]:
        if self.state is State.BOOTING and not self._seated:
            self.state = State.STOPPED
            return [RefuseToStart(reason, None)]
        if self._alarmed == reason:
            return []
        self._alarmed = reason
        return [Alarm("register_went_back", reason)]

    # ── boot ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _boot(self, cell: Cell | None, now: float) -> list[Effect]:
        if self._must_drain:
            return []
        if cell is None:
            return [Amend(Found(self.node, self.seat, self.local))]
        if self.promise.applied is None and not self.adopt and not self._knows(cell):
            self.state = State.STOPPED
            return [
                RefuseToStart(
                    f"the register has version {cell.cur.n} ({cell.cur.digest}), the files of this node"
                    f" are another document ({self.local.digest})",
                    cell.cur,
                )
            ]
        vote = self.promise.vote
        if vote is not None and cell.roll is not None and cell.roll.rid == vote.rid:
            # Written again before it is repeated: an fsync that failed may have left the record in the page cache only,
            # where this life can read it and the next power cut forgets it. (Found by seed 1967.)
            self.state = State.FENCED
            return [Persist(self.promise)]
        if self._have != cell.cur.digest:
            return [Obtain(cell.cur.digest)]
        return [Amend(TakeSeat(self.node, self.seat, cell.cur.digest))]

    def _knows(self, cell: Cell) -> bool:
        """Files of an older version are merely late; files the flock never had are another intent."""
        return any(version.digest == self.local.digest for version in cell.history)

    def obtained(self, digest: str, ok: bool, now: float) -> list[Effect]:
        if self.state is not State.BOOTING:
            return []
        if not ok:
            return self._once("document_missing", f"no member and no store has document {digest[:12]} yet")
        self._have = digest
        return [self._read(now)]

    def _once(self, event: str, detail: str) -> list[Effect]:
        if self._alarmed == detail:
            return []
        self._alarmed = detail
        return [Alarm(event, detail)]

    def amended(self, change: Change, ok: bool | None, reading: Reading, reason: str, now: float) -> list[Effect]:
        """A change this follower asked for ended: done, not allowed (any more), or unknown (ok is None)."""
        if isinstance(change, Found | TakeSeat) and self.state is State.BOOTING and ok and reading.cell is not None:
            self._seated = True
            self.reading = max(reading, self.reading, key=lambda r: r.rev)
            return self._start_applying(reading.cell.cur)
        if isinstance(change, Leave) and ok:
            self.state = State.STOPPED
            return [Left()]
        if ok is None or self.state is State.STOPPED:
            return []
        waits = isinstance(change, TakeSeat) and reading.cell is not None and reading.cell.cur.digest == change.digest
        if waits and self.state is State.BOOTING:
            # Asking again at once would spin until the rollout ends; the next poll asks.
            return self._once("no_seat_yet", reason)
        return self.saw(reading, now)

    # ── serving ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _serving(self, cell: Cell, now: float) -> list[Effect]:
        assert self.serving is not None
        if cell.cur.n > self.serving.n:
            if cell.cur.barrier != self.serving.barrier:
                # The others turned without this member's vote: an eviction it did not notice. Not one statement more.
                return self._stop_serving("turned_without_me", f"version {cell.cur.n} is in force", now)
            if self._applying is None:
                self._applying = cell.cur
                return [Apply(cell.cur)]
            return []
        if cell.roll is not None and cell.roll.phase is Phase.FENCING:
            return self._pause(cell.roll, now)
        return []

    def _lost_seat(self, cell: Cell, now: float) -> list[Effect]:
        if cell.roster.get(self.node) is None:
            return self._stop_serving("evicted", "this node has no seat in the roster; it asks for one again", now)
        effects = self._stop_serving("replaced", f"another process took the name {self.node}", now)
        self.state = State.STOPPED
        return effects

    def _stop_serving(self, event: str, detail: str, now: float) -> list[Effect]:
        self.state = State.BOOTING
        self._seated, self._have, self._applying, self.serving = False, "", None, None
        self._paused, self._paused_at = EVERYTHING, now
        self._must_drain = True
        self._read_at = now
        return [Pause(EVERYTHING, 0), Alarm(event, detail), *self._drain(EVERYTHING, 0)]

    # ── messages ────────────────────────────────────────────────────────────────────────────────────────────────────

    def receive(self, message: Message, source: str, now: float) -> list[Effect]:
        match message:
            case Stage():
                return self._stage(message, source, now)
            case Fence(rid, epoch):
                self._silence.heard(rid, epoch, now)
                return self._fence(rid, source, now)
            case Decided(rid, n):
                return self._decided(rid, n, source, now)
            case _:
                return []

    def _stage(self, stage: Stage, source: str, now: float) -> list[Effect]:
        self._silence.heard(stage.rid, stage.epoch, now)
        if self.state is not State.SERVING or self.serving is None:
            return []
        if stage.rid and self._is_over(stage.rid):
            return []
        if self.serving.digest != stage.base:
            return [self._read(now)]  # late, not wrong: the next Stage finds it caught up
        known = self._staging.answer(stage.rid, stage.target)
        if known is not None:
            return [SendTo(source, known)]
        if not self._staging.begin(stage.rid, self._rid_open):
            return []
        return [Validate(stage.rid, stage.target, source)]

    @property
    def _rid_open(self) -> int:
        return 0 if self._roll is None else self._roll.rid

    def _is_over(self, rid: int) -> bool:
        cell = self.reading.cell
        return cell is not None and rid < cell.next_rid and rid != self._rid_open

    def validated(self, rid: int, target: str, report: Report, asked_by: str) -> list[Effect]:
        answer = Staged(rid, target, report.change, report.scope, report.errors, report.notes)
        self._staging.end(rid, answer)
        return [SendTo(asked_by, answer)]

    def _fence(self, rid: int, source: str, now: float) -> list[Effect]:
        vote = self.promise.vote
        if vote is not None and vote.rid == rid and self.state is State.FENCED:
            return [SendTo(source, Fenced(rid, self._drained_ms))]
        if self._refused is not None and self._refused.rid == rid:
            return [SendTo(source, self._refused)]
        if self.state is State.SERVING and not self._is_over(rid):
            return [self._read(now)]
        return []

    def _decided(self, rid: int, n: int, source: str, now: float) -> list[Effect]:
        if self._report is not None and self._report.rid == rid:
            return [SendTo(source, self._report)]
        waits = self.state in (State.PAUSING, State.FENCED) or (self.serving is not None and self.serving.n < n)
        return [self._read(now)] if waits else []

    # ── pause, drain, vote ──────────────────────────────────────────────────────────────────────────────────────────

    def _pause(self, roll: Roll, now: float) -> list[Effect]:
        if self._refused is not None and self._refused.rid == roll.rid:
            return []
        if self._applying is not None or self.serving is None or self.serving.digest != roll.base:
            return self._refuse(roll, "does not serve the version this change was made on")
        if not self._staging.accepted(roll):
            return self._refuse(roll, "was restarted after it validated the document")
        self.state = State.PAUSING
        self._pausing_for, self._paused, self._paused_at = roll.rid, roll.scope, now
        return [Pause(roll.scope, roll.rid), *self._drain(roll.scope, roll.rid)]

    def _refuse(self, roll: Roll, reason: str) -> list[Effect]:
        self._refused = Refused(roll.rid, reason)
        return [SendTo(roll.coordinator, self._refused)]

    def _drain(self, scope: tuple[str, ...], rid: int) -> list[Effect]:
        self._attempt += 1
        return [Drain(scope, rid, self._attempt)]

    def drained(self, rid: int, attempt: int, now: float) -> list[Effect]:
        if attempt != self._attempt:
            return []
        if rid == 0 and self._must_drain:
            self._must_drain = False
            return [self._read(now)]
        roll = self._roll
        if self.state is not State.PAUSING or rid != self._pausing_for or roll is None or roll.rid != rid:
            return []
        self._drained_ms = (now - self._paused_at) * 1000
        return self._vote(roll)

    def _vote(self, roll: Roll) -> list[Effect]:
        # The state changes with the promise, not with its fsync: from here on no timer may un-pause this member.
        self.state = State.FENCED
        self.promise = replace(self.promise, vote=Vote(roll.rid, roll.base, roll.target))
        return [Persist(self.promise), SendTo(roll.coordinator, Fenced(roll.rid, self._drained_ms))]

    def drain_failed(self, rid: int, attempt: int, reason: str, now: float) -> list[Effect]:
        if attempt != self._attempt:
            return []
        if rid == 0 and self._must_drain:
            self._retry_at = now + self.settings.busy_poll
            return []
        return self._unpause(reason, now) if self.state is State.PAUSING else []

    def _unpause(self, reason: str, now: float) -> list[Effect]:
        """Allowed before the vote only."""
        rid, roll = self._pausing_for, self._roll
        effects = self._resume(now)
        self._refused = Refused(rid, reason)
        if roll is not None:
            effects.append(SendTo(roll.coordinator, self._refused))
        return effects

    def _resume(self, now: float) -> list[Effect]:
        self.state = State.SERVING
        self._attempt += 1  # whatever is still draining reports to nobody
        paused, self._paused = self._paused, None
        if paused is None:
            return []
        self._paused_ms = (now - self._paused_at) * 1000
        return [Resume(paused)]

    def _pausing(self, cell: Cell, now: float) -> list[Effect]:
        if cell.roll is not None and cell.roll.rid == self._pausing_for:
            return []
        return [*self._resume(now), *self._serving(cell, now)]

    # ── outcome ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _fenced(self, cell: Cell, now: float) -> list[Effect]:
        vote = self.promise.vote
        assert vote is not None
        if cell.roll is not None and cell.roll.rid == vote.rid:
            return []
        if not self._seated or self.serving is None:
            self.state = State.BOOTING
            return self._boot(cell, now)
        if cell.cur.digest != self.serving.digest or cell.cur.n != self.serving.n:
            return self._start_applying(cell.cur)
        self.promise = replace(self.promise, vote=None)
        return [*self._resume(now), Persist(self.promise), *self._serving(cell, now)]

    def _start_applying(self, version: ConfigVersion) -> list[Effect]:
        self.state = State.APPLYING
        self._applying = version
        return [Apply(version)]

    def applied(self, version: ConfigVersion, error: str, now: float) -> list[Effect]:
        """The swap ended. Resume comes before Persist: a vote that outlives its rollout is harmless, a pause is not."""
        if version != self._applying:
            return []
        if error:
            self._retry_at = now + APPLY_RETRY_S
            return [Alarm("apply_failed", f"version {version.n}: {error}"), *self._tell(version, error)]
        self._applying = None
        self._retry_at = INFINITY
        hot = self.state is State.SERVING  # a rolling change: nobody paused
        if hot:
            self._paused_ms = self._drained_ms = 0.0
        self.serving = Applied(version.n, version.digest, version.barrier)
        effects: list[Effect] = [] if hot else self._resume(now)
        self.promise = replace(self.promise, applied=self.serving, vote=None)
        effects += [Persist(self.promise), Serving(self.serving), *self._tell(version, "")]
        cell = self.reading.cell
        if cell is not None:
            effects += self._serving(cell, now)
        return effects

    def _tell(self, version: ConfigVersion, error: str) -> list[Effect]:
        self._report = messages.Applied(version.rid, version.n, self._paused_ms, self._drained_ms, error)
        last = None if self.reading.cell is None else self.reading.cell.last
        if last is None or last.rid != version.rid:
            return []
        return [SendTo(last.coordinator, self._report)]

    # ── leaving ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def leave(self, now: float) -> list[Effect]:
        """Called when the node serves nobody any more. Ends with Left."""
        self.state = State.LEAVING
        self._read_at = now + self.settings.busy_poll
        return [Amend(Leave(self.node, self.seat.boot))]

    def _leave(self, cell: Cell | None) -> list[Effect]:
        if cell is None or cell.roster.get(self.node) != self.seat:
            self.state = State.STOPPED
            return [Left()]
        return [Amend(Leave(self.node, self.seat.boot))]
