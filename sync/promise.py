"""What a node must still know after `kill -9`: one small record, written whole, fsynced before its words are sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sync.packing import Fields, Malformed, pack, unpack

PROMISE_LIMIT_BYTES = 4096
PROMISE_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Vote:
    """ "I serve nothing in this rollout's scope until the register says how it ended." Losing one breaks safety."""

    rid: int
    base: str
    target: str


@dataclass(frozen=True, slots=True)
class Applied:
    """The version this node served last; a register that shows an older one lost its memory."""

    n: int
    digest: str
    barrier: int


@dataclass(frozen=True, slots=True)
class Promise:
    """`disk` is drawn once, when the journal is created. `vote` may outlive its rollout (clearing it is not urgent:
    a decided vote is harmless), never the other way round."""

    disk: str
    applied: Applied | None = None
    vote: Vote | None = None


def encode(promise: Promise) -> bytes:
    applied, vote = promise.applied, promise.vote
    return pack(
        [
            PROMISE_FORMAT,
            promise.disk,
            None if applied is None else [applied.n, applied.digest, applied.barrier],
            None if vote is None else [vote.rid, vote.base, vote.target],
        ]
    )


def decode(data: bytes) -> Promise:
    """Raises Malformed."""
    values = unpack(data, PROMISE_LIMIT_BYTES)
    if not values or values[0] != PROMISE_FORMAT:
        raise Malformed("the journal has another format")
    f = Fields(values[1:], 3)
    return Promise(f.name(), f.optional(_read_applied), f.optional(_read_vote))


def _read_applied(value: Any) -> Applied:
    f = Fields(value, 3)
    return Applied(f.integer(1), f.digest(), f.integer(1))


def _read_vote(value: Any) -> Vote:
    f = Fields(value, 3)
    return Vote(f.integer(1), f.digest(), f.digest())
