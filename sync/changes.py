"""What may be done to the cell. Each change is a value with two pure questions:

`apply(cell)`  the next cell, or Obsolete when its precondition does not hold (any more);
`done(cell)`   is this very change already in the cell? Asked first, because a compare-and-set whose answer was lost may
               have happened.

Whoever performs a change reads the register, asks `done`, then `apply`, and swaps at the revision it read; on a
conflict it reads again. So every precondition here holds at the instant of the swap: decisions are written once (Inv4),
versions form a chain (Inv5), one rollout is open (Inv6).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from sync.rollout import HISTORY_LIMIT, Cell, Decision, Phase, Roll
from sync.roster import MEMBERS_LIMIT, Roster, Seat
from sync.version import ConfigVersion


class Obsolete(Exception):
    """The cell does not allow the change. The text is for people; `wait` says that trying later makes sense."""

    def __init__(self, reason: str, *, wait: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait


class Change(Protocol):
    def done(self, cell: Cell | None) -> bool: ...

    def apply(self, cell: Cell | None) -> Cell: ...


def _existing(cell: Cell | None) -> Cell:
    if cell is None:
        raise Obsolete("the register is empty")
    return cell


def _roll(cell: Cell | None, rid: int, epoch: int | None) -> tuple[Cell, Roll]:
    cell = _existing(cell)
    if cell.roll is None or cell.roll.rid != rid:
        raise Obsolete(f"rollout {rid} is not open any more")
    if epoch is not None and cell.roll.epoch != epoch:
        raise Obsolete(f"node {cell.roll.coordinator} coordinates rollout {rid} now")
    return cell, cell.roll


def _ended(roll: Roll, phase: Phase, n: int, reason: str) -> Decision:
    return Decision(
        rid=roll.rid,
        token=roll.token,
        phase=phase,
        n=n,
        target=roll.target,
        coordinator=roll.coordinator,
        by=roll.by,
        opened_at_utc=roll.opened_at_utc,
        reason=reason,
    )


@dataclass(frozen=True, slots=True)
class Found:
    """The first boot of the first node: its document becomes version 1."""

    node: str
    seat: Seat
    version: ConfigVersion

    def done(self, cell: Cell | None) -> bool:
        return cell is not None and cell.history[0] == self.version and cell.roster.get(self.node) == self.seat

    def apply(self, cell: Cell | None) -> Cell:
        if cell is not None:
            raise Obsolete("the register has a version already")
        return Cell(1, Roster().with_seat(self.node, self.seat), (self.version,), None, None)


@dataclass(frozen=True, slots=True)
class TakeSeat:
    """A boot enters its name, holding the document `digest` that must still be in force at that instant.

    A node whose disk the roster knows may do so at any time: nothing commits without its vote, and it would remember
    one. One that comes back with another disk waits while votes are taken: it may have said one and forgotten it. A new
    name waits for the end of any rollout, whose coordinator does not count it (Inv7).
    """

    node: str
    seat: Seat
    digest: str

    def done(self, cell: Cell | None) -> bool:
        return cell is not None and cell.cur.digest == self.digest and cell.roster.get(self.node) == self.seat

    def apply(self, cell: Cell | None) -> Cell:
        cell = _existing(cell)
        if cell.cur.digest != self.digest:
            raise Obsolete("another version came into force", wait=True)
        known = cell.roster.get(self.node)
        if cell.roll is not None and not self._may_interrupt(known, cell.roll):
            raise Obsolete(f"rollout {cell.roll.rid} is open; a new member waits for its end", wait=True)
        if known is None and len(cell.roster) >= MEMBERS_LIMIT:
            raise Obsolete(f"the flock already has {MEMBERS_LIMIT} members")
        return replace(cell, roster=cell.roster.with_seat(self.node, self.seat))

    def _may_interrupt(self, known: Seat | None, roll: Roll) -> bool:
        return known is not None and (known.disk == self.seat.disk or roll.phase is Phase.VALIDATING)


@dataclass(frozen=True, slots=True)
class Open:
    """BEGIN. `base` is the digest the operator's node serves: a change made on top of anything else is refused."""

    token: str
    node: str
    by: str
    base: str
    target: str
    at_utc: float

    def done(self, cell: Cell | None) -> bool:
        return cell is not None and cell.roll is not None and cell.roll.token == self.token

    def apply(self, cell: Cell | None) -> Cell:
        cell = _existing(cell)
        if cell.last is not None and cell.last.token == self.token:
            # Ours was opened, its answer got lost, and somebody has ended it since. It must not open twice.
            raise Obsolete(f"rollout {cell.last.rid} was {cell.last.phase}: {cell.last.reason}")
        roll = cell.roll
        if roll is not None:
            age = max(0.0, self.at_utc - roll.opened_at_utc)
            raise Obsolete(f"rollout {roll.rid} is open: node {roll.coordinator}, {roll.phase} for {age:.1f} s")
        if cell.cur.digest != self.base:
            raise Obsolete(
                f"stale base: version {cell.cur.n} ({cell.cur.digest[:12]}) is in force,"
                f" this change was made on {self.base[:12]}"
            )
        if self.node not in cell.roster:
            raise Obsolete(f"node {self.node} is not in the roster")
        opened = Roll(
            rid=cell.next_rid,
            token=self.token,
            base=self.base,
            target=self.target,
            phase=Phase.VALIDATING,
            scope=(),
            coordinator=self.node,
            epoch=1,
            by=self.by,
            opened_at_utc=self.at_utc,
        )
        return replace(cell, next_rid=cell.next_rid + 1, roll=opened)


@dataclass(frozen=True, slots=True)
class StartFencing:
    """Every member accepted an exclusive change: from here on they pause."""

    rid: int
    epoch: int
    scope: tuple[str, ...]

    def done(self, cell: Cell | None) -> bool:
        return (
            cell is not None
            and cell.roll is not None
            and (cell.roll.rid, cell.roll.epoch, cell.roll.phase) == (self.rid, self.epoch, Phase.FENCING)
        )

    def apply(self, cell: Cell | None) -> Cell:
        cell, roll = _roll(cell, self.rid, self.epoch)
        return replace(cell, roll=replace(roll, phase=Phase.FENCING, scope=self.scope))


@dataclass(frozen=True, slots=True)
class TakeOver:
    """A member that heard nothing from the coordinator for too long becomes it. `epoch` is the one it saw."""

    rid: int
    epoch: int
    node: str

    def done(self, cell: Cell | None) -> bool:
        return (
            cell is not None
            and cell.roll is not None
            and (cell.roll.rid, cell.roll.epoch, cell.roll.coordinator) == (self.rid, self.epoch + 1, self.node)
        )

    def apply(self, cell: Cell | None) -> Cell:
        cell, roll = _roll(cell, self.rid, self.epoch)
        if self.node not in cell.roster:
            raise Obsolete(f"node {self.node} is not in the roster")
        return replace(cell, roll=replace(roll, coordinator=self.node, epoch=self.epoch + 1))


@dataclass(frozen=True, slots=True)
class Commit:
    """The decision. Whoever asks for it has the vote of every member (exclusive) or everybody's consent (the others).

    `exclusive` is repeated so that a commit meant for a change without a barrier can never pass for one with it.
    """

    rid: int
    epoch: int
    exclusive: bool
    at_utc: float

    def done(self, cell: Cell | None) -> bool:
        return cell is not None and cell.committed(self.rid) is not None

    def apply(self, cell: Cell | None) -> Cell:
        cell, roll = _roll(cell, self.rid, self.epoch)
        if self.exclusive != (roll.phase is Phase.FENCING):
            raise Obsolete(f"rollout {self.rid} is {roll.phase}")
        version = cell.cur.successor(
            roll.target, rid=roll.rid, exclusive=self.exclusive, by=roll.by, at_utc=self.at_utc
        )
        history = (*cell.history, version)[-HISTORY_LIMIT:]
        return replace(cell, history=history, roll=None, last=_ended(roll, Phase.COMMITTED, version.n, ""))


@dataclass(frozen=True, slots=True)
class Abort:
    """Allowed at any time before the commit. Without an epoch it is a person's order and beats every coordinator."""

    rid: int
    epoch: int | None
    reason: str

    def done(self, cell: Cell | None) -> bool:
        return (
            cell is not None and cell.last is not None and (cell.last.rid, cell.last.phase) == (self.rid, Phase.ABORTED)
        )

    def apply(self, cell: Cell | None) -> Cell:
        cell, roll = _roll(cell, self.rid, self.epoch)
        return replace(cell, roll=None, last=_ended(roll, Phase.ABORTED, 0, self.reason))


def _unseated(cell: Cell, node: str, reason: str) -> Cell:
    # Removing a member while its vote is asked for would let the others commit without it: so the rollout ends here.
    last = cell.last if cell.roll is None else _ended(cell.roll, Phase.ABORTED, 0, reason)
    return replace(cell, roster=cell.roster.without(node), roll=None, last=last)


@dataclass(frozen=True, slots=True)
class Leave:
    """A node that serves nobody any more gives up its own seat; an open rollout is aborted."""

    node: str
    boot: str

    def done(self, cell: Cell | None) -> bool:
        seat = None if cell is None else cell.roster.get(self.node)
        return seat is None or seat.boot != self.boot

    def apply(self, cell: Cell | None) -> Cell:
        return _unseated(_existing(cell), self.node, f"node {self.node} left")


@dataclass(frozen=True, slots=True)
class Evict:
    """A person asserts that `node` is dead and none of its statements runs any more. Nothing here can check that."""

    node: str
    by: str

    def done(self, cell: Cell | None) -> bool:
        return cell is not None and self.node not in cell.roster

    def apply(self, cell: Cell | None) -> Cell:
        return _unseated(_existing(cell), self.node, f"node {self.node} was evicted by {self.by}")
