"""The cell: everything the flock has decided, as one value of one compare-and-set register.

The cell holds the roster, the last versions (the newest is in force), the one open rollout and how the last one ended.
Its bytes are a msgpack array of at most 64 KiB. What may follow upon what is said in `changes.py` and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from sync.packing import REASON_LIMIT, SCOPE_LIMIT, Fields, Malformed, pack, unpack
from sync.roster import MEMBERS_LIMIT, Roster, Seat
from sync.version import ConfigVersion

CELL_LIMIT_BYTES = 64 * 1024
CELL_FORMAT = 1
HISTORY_LIMIT = 10  # versions one can roll back to; the document stores keep as many


class Phase(StrEnum):
    """Where a rollout is; COMMITTED and ABORTED are final. IDLE is shown before the first one."""

    VALIDATING = "validating"
    FENCING = "fencing"
    COMMITTED = "committed"
    ABORTED = "aborted"
    IDLE = "idle"


class ChangeClass(IntEnum):
    """What a change needs; the flock takes the greatest that any member reports."""

    LOCAL = 0  # nothing that a neighbour could notice
    ROLLING = 1  # two adjacent versions may be served side by side
    EXCLUSIVE = 2  # the barrier: all pause, drain and vote before one of them turns


@dataclass(frozen=True, slots=True)
class Roll:
    """The open rollout. Its members are the roster: seats are neither added nor removed while it is open (whoever
    removes one aborts it in the same step). `epoch` counts coordinators; an older one loses every compare-and-set."""

    rid: int
    token: str  # chosen by whoever opens, so that an unanswered compare-and-set can be recognised as its own
    base: str
    target: str
    phase: Phase
    scope: tuple[str, ...]
    coordinator: str
    epoch: int
    by: str
    opened_at_utc: float


@dataclass(frozen=True, slots=True)
class Decision:
    """How a rollout ended. `n` is the version it made, 0 for an abort."""

    rid: int
    token: str
    phase: Phase
    n: int
    target: str
    coordinator: str
    by: str
    opened_at_utc: float
    reason: str


@dataclass(frozen=True, slots=True)
class Cell:
    next_rid: int
    roster: Roster
    history: tuple[ConfigVersion, ...]  # oldest first, never empty
    roll: Roll | None
    last: Decision | None

    @property
    def cur(self) -> ConfigVersion:
        return self.history[-1]

    def committed(self, rid: int) -> ConfigVersion | None:
        """The version a rollout made, if it is one of the last ten."""
        for version in reversed(self.history):
            if version.rid == rid:
                return version
        return None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a linearizable read returned. `rev` only grows; 0 with no cell: the register was never written."""

    rev: int
    cell: Cell | None


class CellTooLarge(ValueError):
    """The cell would not fit into the register: too many members, or names too long."""


def encode(cell: Cell) -> bytes:
    """Raises CellTooLarge."""
    data = pack(
        [
            CELL_FORMAT,
            cell.next_rid,
            [[name, seat.boot, seat.disk, seat.address] for name, seat in cell.roster.seats],
            [_pack_version(version) for version in cell.history],
            None if cell.roll is None else _pack_roll(cell.roll),
            None if cell.last is None else _pack_decision(cell.last),
        ]
    )
    if len(data) > CELL_LIMIT_BYTES or len(cell.roster) > MEMBERS_LIMIT:
        raise CellTooLarge(
            f"the register's value would have {len(data)} bytes and {len(cell.roster)} members;"
            f" the limits are {CELL_LIMIT_BYTES} bytes and {MEMBERS_LIMIT} members"
        )
    return data


def decode(data: bytes) -> Cell:
    """Raises Malformed; a cell of a newer format too, since half understood is not understood."""
    values = unpack(data, CELL_LIMIT_BYTES)
    if not values or values[0] != CELL_FORMAT:
        raise Malformed("the register holds another format; a newer pgmurmur wrote it")
    fields = Fields(values[1:], 5)
    next_rid = fields.integer(1)
    seats = fields.many(_read_seat, MEMBERS_LIMIT)
    history = fields.many(_read_version, HISTORY_LIMIT)
    roll = fields.optional(_read_roll)
    last = fields.optional(_read_decision)
    names = [name for name, _ in seats]
    if names != sorted(dict.fromkeys(names)):
        raise Malformed("the roster is not sorted by name")
    if not history:
        raise Malformed("no version is in force")
    for older, newer in zip(history, history[1:], strict=False):
        if newer.n != older.n + 1 or newer.parent != older.digest:
            raise Malformed("the chain of versions is broken")
    return Cell(next_rid, Roster(seats), history, roll, last)


def _pack_version(version: ConfigVersion) -> list[Any]:
    return [version.n, version.digest, version.parent, version.rid, version.barrier, version.by, version.at_utc]


def _read_version(value: Any) -> ConfigVersion:
    f = Fields(value, 7)
    return ConfigVersion(
        n=f.integer(1),
        digest=f.digest(),
        parent=f.digest(empty=True),
        rid=f.integer(),
        barrier=f.integer(1),
        by=f.text(),
        at_utc=f.number(),
    )


def _read_seat(value: Any) -> tuple[str, Seat]:
    f = Fields(value, 4)
    return f.name(), Seat(boot=f.name(), disk=f.name(), address=f.text())


def _pack_roll(roll: Roll) -> list[Any]:
    return [
        roll.rid,
        roll.token,
        roll.base,
        roll.target,
        roll.phase.value,
        list(roll.scope),
        roll.coordinator,
        roll.epoch,
        roll.by,
        roll.opened_at_utc,
    ]


def _read_phase(fields: Fields, allowed: tuple[Phase, ...]) -> Phase:
    text = fields.text()
    for phase in allowed:
        if phase.value == text:
            return phase
    raise Malformed("unknown phase of a rollout")


def _read_roll(value: Any) -> Roll:
    f = Fields(value, 10)
    return Roll(
        rid=f.integer(1),
        token=f.name(),
        base=f.digest(),
        target=f.digest(),
        phase=_read_phase(f, (Phase.VALIDATING, Phase.FENCING)),
        scope=f.texts(SCOPE_LIMIT),
        coordinator=f.name(),
        epoch=f.integer(1),
        by=f.text(),
        opened_at_utc=f.number(),
    )


def _pack_decision(decision: Decision) -> list[Any]:
    return [
        decision.rid,
        decision.token,
        decision.phase.value,
        decision.n,
        decision.target,
        decision.coordinator,
        decision.by,
        decision.opened_at_utc,
        decision.reason[:REASON_LIMIT],
    ]


def _read_decision(value: Any) -> Decision:
    f = Fields(value, 9)
    return Decision(
        rid=f.integer(1),
        token=f.name(),
        phase=_read_phase(f, (Phase.COMMITTED, Phase.ABORTED)),
        n=f.integer(),
        target=f.digest(),
        coordinator=f.name(),
        by=f.text(),
        opened_at_utc=f.number(),
        reason=f.text(REASON_LIMIT),
    )
