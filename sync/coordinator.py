"""One rollout from the point of view of whoever runs it. Any member may, it may die, and any member may succeed it.

    OPENING ─▶ VALIDATING ─all accept─▶ FENCING ─all voted─▶ COMMITTING ─▶ CONFIRMING ─▶ ENDED      (exclusive)
                          └─all accept──────────────────────▶ COMMITTING                             (local, rolling)
    VALIDATING, FENCING ─refusal, silence, unreachable, order, time─▶ ABORTING ─▶ ENDED
    any ─somebody else's epoch─▶ WATCHING ─the register shows the outcome─▶ CONFIRMING or ENDED

The coordinator holds no authority: it collects answers and asks the register for one compare-and-set. Losing it costs
time. It never tells a member to turn; it tells it to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from sync.changes import Abort, Change, Commit, Open, StartFencing
from sync.effects import Amend, Effect, Finish, SendTo
from sync.messages import Applied, Decided, Fence, Fenced, MemberRow, Message, Progress, Refused, Stage, Staged
from sync.packing import SCOPE_LIMIT
from sync.rollout import Cell, ChangeClass, Decision, Phase, Reading, Roll
from sync.settings import SyncSettings

INFINITY = float("inf")
SHOWN_LIMIT = 64  # members


class Step(Enum):
    DRY = auto()
    OPENING = auto()
    VALIDATING = auto()
    FENCING = auto()
    COMMITTING = auto()
    ABORTING = auto()
    WATCHING = auto()
    CONFIRMING = auto()
    ENDED = auto()


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked of this node. `timeout` in seconds counts until the commit is tried."""

    token: str
    by: str
    base: str
    target: str
    timeout: float
    at_utc: float
    dry_run: bool = False


class Coordinator:
    def __init__(self, node: str, settings: SyncSettings, token: str, target: str) -> None:
        self.node = node
        self.settings = settings
        self.token = token
        self.target = target
        self.step = Step.OPENING
        self.rid = 0
        self.epoch = 0
        self.rows: dict[str, MemberRow] = {}
        self._base = ""
        self._opened_at_utc = 0.0
        self._answers: dict[str, Staged] = {}
        self._gives_up_at = INFINITY  # the operator's patience
        self._step_ends = INFINITY
        self._resend_at = INFINITY
        self._alive_until = INFINITY  # no sign of life after it: a coordinator without a register must be succeeded
        self._exclusive = False
        self._opening: Open | None = None
        self._reason = ""
        self._version: int | None = None
        self._finished = False
        self._rows_shown: tuple[MemberRow, ...] = ()

    # ── beginnings ──────────────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def begin(cls, node: str, settings: SyncSettings, order: Order, now: float) -> tuple[Coordinator, list[Effect]]:
        self = cls(node, settings, order.token, order.target)
        self._base = order.base
        self._gives_up_at = now + order.timeout
        self._opening = Open(order.token, node, order.by, order.base, order.target, order.at_utc)
        return self, [Amend(self._opening)]

    @classmethod
    def dry(
        cls, node: str, settings: SyncSettings, order: Order, members: Sequence[str], now: float
    ) -> tuple[Coordinator, list[Effect]]:
        """Ask every member what it would say. The register is not touched."""
        self = cls(node, settings, order.token, order.target)
        self._base = order.base
        self._gives_up_at = now + order.timeout
        self.rows = {name: MemberRow(name, "asked") for name in members}
        return self, self._enter(Step.DRY, now, settings.validate_timeout)

    @classmethod
    def succeed(cls, node: str, settings: SyncSettings, cell: Cell, now: float) -> tuple[Coordinator, list[Effect]]:
        """After a takeover: `cell.roll` is ours. A lost validation is aborted, a lost fence is decided either way."""
        assert cell.roll is not None
        self = cls(node, settings, cell.roll.token, cell.roll.target)
        self._finished = True  # nobody here waits for an answer
        return self, self.promoted(cell, now)

    def promoted(self, cell: Cell, now: float) -> list[Effect]:
        """This node coordinates (again) under a newer epoch."""
        assert cell.roll is not None
        lost = cell.roll
        self._adopt(lost, cell)
        if lost.phase is Phase.VALIDATING:
            return self._abort(f"the coordinator was lost while {lost.phase}", now)
        self._exclusive = True
        return self._enter(Step.FENCING, now, self.settings.takeover_patience)

    def _adopt(self, roll: Roll, cell: Cell) -> None:
        self.rid, self.epoch = roll.rid, roll.epoch
        self._base, self._opened_at_utc = roll.base, roll.opened_at_utc
        self.rows = {name: self.rows.get(name, MemberRow(name, "asked")) for name in cell.roster.names}

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def deadline(self) -> float:
        if self.step is Step.ENDED:
            return INFINITY
        gives_up = INFINITY if self._finished else self._gives_up_at
        return min(gives_up, self._step_ends, self._resend_at)

    def tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if now >= self._gives_up_at and not self._finished:
            effects += self._out_of_time(now)
        if now >= self._step_ends:
            self._step_ends = INFINITY
            effects += self._step_timeout(now)
        if now >= self._resend_at and self.step is not Step.ENDED:
            self._resend_at = now + self.settings.resend
            effects += self._resend(now)
        return effects

    def _out_of_time(self, now: float) -> list[Effect]:
        self._gives_up_at = INFINITY
        match self.step:
            case Step.VALIDATING | Step.FENCING:
                return self._abort("the operator's timeout was reached", now)
            case Step.DRY:
                return self._end_dry_run()
            case Step.ENDED:
                return []
            case Step.OPENING:
                # Should the register have opened it after all, `_opened` aborts it: the commit was never tried.
                return self._finish("aborted", "the register did not answer before the timeout")
            case Step.CONFIRMING:
                return self._end("committed", "")
            case _:
                # The register was asked to change and nobody knows what it did. The work goes on; only the answer ends.
                return self._finish("unknown", "the register did not answer before the timeout")

    def _step_timeout(self, now: float) -> list[Effect]:
        match self.step:
            case Step.VALIDATING:
                return self._abort(f"no answer within {self.settings.validate_timeout:g} s from {self._silent()}", now)
            case Step.FENCING:
                return self._abort(f"no vote in time from {self._silent()}", now)
            case Step.DRY:
                return self._end_dry_run()
            case Step.CONFIRMING:
                return self._end("committed", "")
            case _:
                return []

    def _silent(self) -> str:
        waiting = [row.node for row in self.rows.values() if row.state in ("asked", "accepted", "pausing")]
        return ", ".join(waiting[:5]) + (f" and {len(waiting) - 5} more" if len(waiting) > 5 else "")

    def _resend(self, now: float) -> list[Effect]:
        """Ask whoever has not answered; everybody else gets the same words as a sign of life."""
        message = self._question(now)
        asked: list[Effect] = [] if message is None else [SendTo(name, message) for name in self._audience()]
        return [*asked, *self._show(), *self._ask_register_again(now)]

    def _show(self) -> list[Effect]:
        """What this coordinator knows of each member, for SHOW ROLLOUT on the others: when it changed, and not in large
        flocks, where it would be the square of their size."""
        rows = tuple(self.rows.values())
        if not self.rid or rows == self._rows_shown or len(rows) > SHOWN_LIMIT:
            return []
        self._rows_shown = rows
        return [SendTo(row.node, Progress(self.rid, rows)) for row in rows if row.node != self.node]

    def _question(self, now: float) -> Message | None:
        match self.step:
            case Step.VALIDATING | Step.DRY:
                return Stage(self.rid, self.epoch, self._base, self.target)
            case Step.FENCING:
                return Fence(self.rid, self.epoch)
            case Step.COMMITTING | Step.ABORTING if now < self._alive_until and self.rid:
                return Fence(self.rid, self.epoch) if self._exclusive else None
            case Step.CONFIRMING:
                return Decided(self.rid, self._version or 0)
            case _:
                return None

    def _audience(self) -> list[str]:
        if self.step in (Step.DRY, Step.CONFIRMING):
            return [row.node for row in self.rows.values() if row.state not in ("accepted", "refused", "applied")]
        return list(self.rows)

    def _ask_register_again(self, now: float) -> list[Effect]:
        del now
        match self.step:
            case Step.OPENING if self._opening is not None and self._reason:
                return [Amend(self._opening)]
            case Step.COMMITTING if self._reason:
                return [self._commit_change()]
            case Step.ABORTING if self._alive_until == INFINITY:
                return [Amend(Abort(self.rid, self.epoch, self._reason))]
            case _:
                return []

    # ── answers of members ──────────────────────────────────────────────────────────────────────────────────────────

    def receive(self, message: Message, source: str, now: float) -> list[Effect]:
        row = self.rows.get(source)
        if row is None or getattr(message, "rid", None) != self.rid:
            return []
        match message:
            case Staged(target=target) if target == self.target and self.step in (Step.VALIDATING, Step.DRY):
                return self._staged(row, message, now)
            case Fenced(drained_ms=drained_ms) if self.step is Step.FENCING:
                self._put(row, state="fenced", ack=True, drained_ms=drained_ms)
                return self._all_fenced(now)
            case Refused(reason=reason) if self.step in (Step.VALIDATING, Step.FENCING):
                self._put(row, state="refused", ack=False, reason=reason)
                return self._abort(f"{source}: {reason}", now)
            case Applied() if self.step is Step.CONFIRMING:
                return self._applied(row, message)
            case _:
                return []

    def _put(self, row: MemberRow, **values: object) -> None:
        self.rows[row.node] = replace(self.rows[row.node], **values)  # type: ignore[arg-type]  # fields by name

    def _staged(self, row: MemberRow, answer: Staged, now: float) -> list[Effect]:
        self._answers[row.node] = answer
        refused = "; ".join(answer.errors)
        note = refused or "; ".join(answer.notes) or None
        self._put(row, state="refused" if refused else "accepted", ack=not refused, reason=note)
        if self.step is Step.DRY:
            return self._end_dry_run() if len(self._answers) == len(self.rows) else []
        if refused:
            return self._abort(f"{row.node}: {refused}", now)
        if any(name not in self._answers for name in self.rows):
            return []
        return self._all_accepted(now)

    def _all_accepted(self, now: float) -> list[Effect]:
        # The greatest class wins: a member that sees an exclusive change may run something the others do not.
        change = max(answer.change for answer in self._answers.values())
        self._exclusive = change is ChangeClass.EXCLUSIVE
        if not self._exclusive:
            return self._commit(now)
        names = sorted({name for answer in self._answers.values() for name in answer.scope})
        scope = tuple(names) if 0 < len(names) <= SCOPE_LIMIT else ("*",)
        for row in list(self.rows.values()):
            self._put(row, state="pausing", ack=None)
        # Members pause for what they read in the register, so the question is asked when the register has it.
        self.step, self._step_ends = Step.FENCING, now + self.settings.fence_timeout
        self._resend_at = now + self.settings.resend
        return [Amend(StartFencing(self.rid, self.epoch, scope))]

    def _all_fenced(self, now: float) -> list[Effect]:
        if not self.enough_votes():
            return []
        return self._commit(now)

    def enough_votes(self) -> bool:
        """Every single one. A majority would let the rest serve the old version (a mutant in tests/sim)."""
        return all(row.state == "fenced" for row in self.rows.values())

    def _applied(self, row: MemberRow, message: Applied) -> list[Effect]:
        if message.error:
            self._put(row, state="failed", reason=message.error)
            return []
        self._put(
            row,
            state="applied",
            ack=True,
            version=message.n,
            paused_ms=message.paused_ms,
            drained_ms=message.drained_ms,
        )
        return self._end("committed", "") if all(r.state == "applied" for r in self.rows.values()) else []

    def unreachable(self, node: str, reason: str, now: float) -> list[Effect]:
        """Discovery or the control channel knows that a member is not there: no point in waiting for it."""
        row = self.rows.get(node)
        if row is None or row.state in ("fenced", "applied"):
            return []
        match self.step:
            case Step.VALIDATING | Step.FENCING:
                self._put(row, state="unreachable", ack=False, reason=reason)
                return self._abort(f"{node} is unreachable: {reason}", now)
            case Step.DRY:
                self._put(row, state="refused", ack=False, reason=f"unreachable: {reason}")
                self._answers[node] = Staged(0, self.target, ChangeClass.LOCAL, (), (reason,), ())
                return self._end_dry_run() if len(self._answers) == len(self.rows) else []
            case _:
                return []

    # ── the register ────────────────────────────────────────────────────────────────────────────────────────────────

    def _commit_change(self) -> Amend:
        return Amend(Commit(self.rid, self.epoch, self._exclusive, self._opened_at_utc))

    def _commit(self, now: float) -> list[Effect]:
        effects = self._enter(Step.COMMITTING, now, INFINITY)
        self._reason, self._alive_until = "", now + self.settings.takeover
        return [self._commit_change(), *effects]

    def _abort(self, reason: str, now: float) -> list[Effect]:
        self.step = Step.ABORTING
        self._reason, self._alive_until = reason, now + self.settings.takeover
        self._step_ends, self._resend_at = INFINITY, now + self.settings.resend
        return [Amend(Abort(self.rid, self.epoch, reason))]

    def amended(self, change: Change, ok: bool | None, reading: Reading, reason: str, now: float) -> list[Effect]:
        """A change asked for by this coordinator ended. Unknown outcomes are asked again by the next resend."""
        if ok is None:
            return self._unanswered(change, now)
        match change:
            case Open() if self.step is Step.OPENING:
                return self._opened(ok, reading, reason, now)
            case StartFencing() if ok and self.step is Step.FENCING:
                return [*self._resend(now), *self.saw(reading, now)]
            case _ if ok or self.step in (Step.ENDED, Step.CONFIRMING):
                return self.saw(reading, now)
            case StartFencing() | Commit() | Abort():
                self.step = Step.WATCHING
                return self.saw(reading, now)
            case _:
                return []

    def _unanswered(self, change: Change, now: float) -> list[Effect]:
        match change:
            case Open() if self.step is Step.OPENING:
                self._reason = "unanswered"
            case Commit() if self.step is Step.COMMITTING:
                self._reason = "unanswered"
            case Abort() if self.step is Step.ABORTING:
                self._alive_until = INFINITY  # marks: ask again
            case StartFencing() if self.step is Step.FENCING:
                return self._abort("the register did not answer", now)
            case _:
                return []
        self._resend_at = now + self.settings.resend
        return []

    def _opened(self, ok: bool, reading: Reading, reason: str, now: float) -> list[Effect]:
        cell = reading.cell
        if not ok or cell is None or cell.roll is None or cell.roll.token != self.token:
            last = None if cell is None else cell.last
            if last is not None and last.token == self.token:
                self.rid = last.rid
            return self._end("aborted", reason or "the rollout was ended before it began")
        self._adopt(cell.roll, cell)
        if self._finished:
            return self._abort("the operator's timeout was reached", now)
        return self._enter(Step.VALIDATING, now, self.settings.validate_timeout)

    def saw(self, reading: Reading, now: float) -> list[Effect]:
        """Any reading of the register: has this rollout ended, or does somebody else run it now?"""
        cell = reading.cell
        if cell is None or not self.rid or self.step in (Step.DRY, Step.OPENING, Step.CONFIRMING, Step.ENDED):
            return []
        if cell.roll is not None and cell.roll.rid == self.rid:
            if cell.roll.epoch > self.epoch:
                self.step = Step.WATCHING
                self._resend_at = self._step_ends = INFINITY
            return []
        if cell.next_rid <= self.rid:
            return []  # a reading from before this rollout opened
        version = cell.committed(self.rid)
        if version is not None:
            return self._committed(version.n, now)
        return self._aborted(cell.last)

    def _committed(self, n: int, now: float) -> list[Effect]:
        self._version = n
        return self._enter(Step.CONFIRMING, now, self.settings.confirm)

    def _aborted(self, last: Decision | None) -> list[Effect]:
        ours = last is not None and last.rid == self.rid
        reason = last.reason if last is not None and ours else self._reason or "another coordinator ended it"
        hints: list[Effect] = [SendTo(name, Decided(self.rid, 0)) for name in self.rows]
        return [*hints, *self._end("aborted", reason)]

    # ── ends ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _enter(self, step: Step, now: float, limit: float) -> list[Effect]:
        self.step = step
        self._step_ends = now + limit
        self._resend_at = now + self.settings.resend
        message = self._question(now)
        return [] if message is None else [SendTo(name, message) for name in self._audience()]

    def _end_dry_run(self) -> list[Effect]:
        refusals = [row for row in self.rows.values() if row.state != "accepted"]
        named = "; ".join(f"{row.node}: {row.reason or 'no answer'}" for row in refusals)
        return self._end("aborted", f"dry run: {named}" if refusals else "dry run: every member accepts")

    def _end(self, outcome: str, reason: str) -> list[Effect]:
        self.step = Step.ENDED
        self._reason = reason
        return [*self._show(), *self._finish(outcome, reason)]

    def _finish(self, outcome: str, reason: str) -> list[Effect]:
        if self._finished:
            return []
        self._finished = True
        return [Finish(self.token, outcome, self._version, self.target, reason, self.rid, tuple(self.rows.values()))]

    def hurry(self) -> list[Effect]:
        """Another rollout begins here: say now what is known."""
        if self.step is Step.CONFIRMING:
            return self._end("committed", "")
        return self._finish("unknown", "another coordinator decides") if self.step is not Step.ENDED else []
