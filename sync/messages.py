"""What coordinator and followers say to each other: msgpack arrays `[protocol, kind, fields...]` of at most 1 MiB.

Every message may be lost, doubled, late or out of order; none of them decides anything. The register decides, messages
ask for votes and hurry people along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sync.packing import REASON_LIMIT, SCOPE_LIMIT, Fields, Malformed, pack, unpack
from sync.rollout import ChangeClass
from sync.roster import MEMBERS_LIMIT

PROTOCOL = 1
MESSAGE_LIMIT_BYTES = 1024 * 1024
ERRORS_LIMIT = 100  # errors or notes of one validation


@dataclass(frozen=True, slots=True)
class Stage:
    """Coordinator: fetch this document, dry-run it against `base`, answer Staged. Repeated as a sign of life.
    rid 0 is a dry run: nothing is open, nobody will pause."""

    rid: int
    epoch: int
    base: str
    target: str


@dataclass(frozen=True, slots=True)
class Staged:
    rid: int
    target: str
    change: ChangeClass
    scope: tuple[str, ...]
    errors: tuple[str, ...]  # not empty: NACK
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fence:
    """Coordinator: pause, drain, vote; answer Fenced or Refused. Repeated as a sign of life."""

    rid: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Fenced:
    """The vote. It was on the disk before it was said, and only the register's outcome ends it."""

    rid: int
    drained_ms: float


@dataclass(frozen=True, slots=True)
class Refused:
    rid: int
    reason: str


@dataclass(frozen=True, slots=True)
class Decided:
    """A hint: the register holds the outcome of this rollout, read it. `n` is the version it made, 0 for an abort."""

    rid: int
    n: int


@dataclass(frozen=True, slots=True)
class Applied:
    """This member serves version n made by rollout rid, or (with an error) cannot apply it and serves nothing of it."""

    rid: int
    n: int
    paused_ms: float
    drained_ms: float
    error: str


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One member in SHOW ROLLOUT. Times in milliseconds, None until they are known."""

    node: str
    state: str
    ack: bool | None = None
    version: int | None = None
    paused_ms: float | None = None
    drained_ms: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """The coordinator's view, so that SHOW ROLLOUT reads alike on every node. Shown, never acted on."""

    rid: int
    rows: tuple[MemberRow, ...]


Message = Stage | Staged | Fence | Fenced | Refused | Decided | Applied | Progress


def encode(message: Message) -> bytes:
    return pack([PROTOCOL, *_fields_of(message)])


def _fields_of(message: Message) -> list[Any]:
    match message:
        case Stage(rid, epoch, base, target):
            return ["stage", rid, epoch, base, target]
        case Staged(rid, target, change, scope, errors, notes):
            return ["staged", rid, target, int(change), list(scope[:SCOPE_LIMIT]), _texts(errors), _texts(notes)]
        case Fence(rid, epoch):
            return ["fence", rid, epoch]
        case Fenced(rid, drained_ms):
            return ["fenced", rid, drained_ms]
        case Refused(rid, reason):
            return ["refused", rid, reason[:REASON_LIMIT]]
        case Decided(rid, n):
            return ["decided", rid, n]
        case Applied(rid, n, paused_ms, drained_ms, error):
            return ["applied", rid, n, paused_ms, drained_ms, error[:REASON_LIMIT]]
        case Progress(rid, rows):
            return ["progress", rid, [_pack_row(row) for row in rows]]


def decode(data: bytes) -> Message:
    """Raises Malformed for anything no member of this protocol version sends."""
    values = unpack(data, MESSAGE_LIMIT_BYTES)
    if len(values) < 2 or values[0] != PROTOCOL:
        raise Malformed("another protocol version")
    kind, rest = values[1], values[2:]
    match kind:
        case "stage":
            f = Fields(rest, 4)
            return Stage(f.integer(), f.integer(), f.digest(), f.digest())
        case "staged":
            f = Fields(rest, 6)
            return Staged(
                rid=f.integer(),
                target=f.digest(),
                change=_change_class(f),
                scope=f.texts(SCOPE_LIMIT, length=256),
                errors=f.texts(ERRORS_LIMIT),
                notes=f.texts(ERRORS_LIMIT),
            )
        case "fence":
            f = Fields(rest, 2)
            return Fence(f.integer(1), f.integer(1))
        case "fenced":
            f = Fields(rest, 2)
            return Fenced(f.integer(1), f.number())
        case "refused":
            f = Fields(rest, 2)
            return Refused(f.integer(1), f.text(REASON_LIMIT))
        case "decided":
            f = Fields(rest, 2)
            return Decided(f.integer(1), f.integer())
        case "applied":
            f = Fields(rest, 5)
            return Applied(f.integer(), f.integer(1), f.number(), f.number(), f.text(REASON_LIMIT))
        case "progress":
            f = Fields(rest, 2)
            return Progress(f.integer(), f.many(_read_row, MEMBERS_LIMIT))
        case _:
            raise Malformed("unknown kind of message")


def _texts(texts: tuple[str, ...]) -> list[str]:
    return [text[:REASON_LIMIT] for text in texts[:ERRORS_LIMIT]]


def _change_class(fields: Fields) -> ChangeClass:
    value = fields.integer()
    if value > ChangeClass.EXCLUSIVE:
        raise Malformed("unknown class of change")
    return ChangeClass(value)


def _pack_row(row: MemberRow) -> list[Any]:
    reason = None if row.reason is None else row.reason[:REASON_LIMIT]
    return [row.node, row.state, row.ack, row.version, row.paused_ms, row.drained_ms, reason]


def _read_row(value: Any) -> MemberRow:
    f = Fields(value, 7)
    return MemberRow(
        node=f.name(),
        state=f.text(),
        ack=f.optional(lambda v: Fields([v], 1).flag()),
        version=f.optional(lambda v: Fields([v], 1).integer()),
        paused_ms=f.optional(lambda v: Fields([v], 1).number()),
        drained_ms=f.optional(lambda v: Fields([v], 1).number()),
        reason=f.optional(lambda v: Fields([v], 1).text(REASON_LIMIT)),
    )
