"""Everything that is read from a disk or a peer: round trips, limits, and byte soup with one declared error."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync import messages, promise, rollout
from sync.messages import (
    Applied,
    Decided,
    Fence,
    Fenced,
    MemberRow,
    Message,
    Progress,
    Refused,
    Stage,
    Staged,
)
from sync.packing import Fields, Malformed, pack, unpack
from sync.promise import Promise, Vote
from sync.rollout import Cell, CellTooLarge, ChangeClass, Decision, Phase, Roll
from sync.roster import MEMBERS_LIMIT, Roster, Seat
from sync.version import ConfigVersion, digest_of, first_version, is_digest

A, B = digest_of(b"a"), digest_of(b"b")
FIRST = first_version(A, by="n1", at_utc=1.0)
SECOND = FIRST.successor(B, rid=1, exclusive=True, by="alice", at_utc=2.0)
ROLL = Roll(2, "token", B, A, Phase.FENCING, ("shop", "billing"), "n1", 3, "alice", 4.0)
DECISION = Decision(1, "t1", Phase.COMMITTED, 2, B, "n1", "alice", 1.0, "")
CELL = Cell(3, Roster().with_seat("n1", Seat("b1", "d1", "h:1")), (FIRST, SECOND), ROLL, DECISION)

MESSAGES: list[Message] = [
    Stage(1, 2, A, B),
    Staged(1, B, ChangeClass.EXCLUSIVE, ("shop",), ("bad",), ("note",)),
    Fence(1, 2),
    Fenced(1, 12.5),
    Refused(1, "drain_timeout"),
    Decided(1, 0),
    Applied(1, 2, 30.0, 20.0, ""),
    Progress(1, (MemberRow("n1", "fenced", True, None, 1.5, None, "why"), MemberRow("n2", "asked"))),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_survive_the_wire(message: Message) -> None:
    assert messages.decode(messages.encode(message)) == message


def test_a_cell_survives_the_register() -> None:
    assert rollout.decode(rollout.encode(CELL)) == CELL
    bare = replace(CELL, roll=None, last=None)
    assert rollout.decode(rollout.encode(bare)) == bare


def test_a_promise_survives_the_journal() -> None:
    whole = Promise("disk", promise.Applied(2, B, 2), Vote(7, A, B))
    assert promise.decode(promise.encode(whole)) == whole
    assert promise.decode(promise.encode(Promise("disk"))) == Promise("disk")


@pytest.mark.parametrize(
    "data",
    [
        *(messages.encode(message) for message in MESSAGES),
        rollout.encode(CELL),
        promise.encode(Promise("d", promise.Applied(1, A, 1), Vote(1, A, B))),
    ],
)
def test_torn_and_flipped_bytes_are_malformed_or_still_well_formed(data: bytes) -> None:
    random = Random(1)
    variants = [data[:n] for n in range(len(data))] + [data + b"\0"]
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << random.randrange(8)
        variants.append(bytes(changed))
    for variant in variants:
        for decode in (messages.decode, rollout.decode, promise.decode):
            try:
                decode(variant)
            except Malformed:
                pass


@given(st.binary(max_size=200))
def test_byte_soup_is_malformed(data: bytes) -> None:
    for decode in (messages.decode, rollout.decode, promise.decode):
        with pytest.raises(Malformed):
            decode(data)


_soup = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5) | st.binary(),
    lambda inner: st.lists(inner, max_size=8),
    max_leaves=20,
)


@given(st.sampled_from([type(m).__name__.lower() for m in MESSAGES]), st.lists(_soup, max_size=6))
def test_well_formed_msgpack_of_the_wrong_shape_is_malformed(kind: str, fields: list[Any]) -> None:
    data = msgpack.packb([messages.PROTOCOL, kind, *fields])
    try:
        message = messages.decode(data)
    except Malformed:
        return
    assert type(message).__name__.lower() == kind


@given(st.lists(_soup, min_size=5, max_size=5))
def test_cells_of_the_wrong_shape_are_malformed(fields: list[Any]) -> None:
    with pytest.raises(Malformed):
        rollout.decode(msgpack.packb([rollout.CELL_FORMAT, *fields]))


def cell_fields() -> list[Any]:
    values = msgpack.unpackb(rollout.encode(CELL))
    assert isinstance(values, list)
    return values


def test_a_cell_of_another_format_is_not_guessed_at() -> None:
    values = cell_fields()
    values[0] = 99
    with pytest.raises(Malformed, match="newer pgmurmur"):
        rollout.decode(pack(values))


def test_a_broken_chain_is_malformed() -> None:
    values = cell_fields()
    values[3][1][2] = digest_of(b"somebody else")
    with pytest.raises(Malformed, match="chain"):
        rollout.decode(pack(values))


def test_a_cell_without_a_version_or_with_an_unsorted_roster_is_malformed() -> None:
    values = cell_fields()
    values[3] = []
    with pytest.raises(Malformed, match="no version"):
        rollout.decode(pack(values))
    values = cell_fields()
    values[2] = [["n2", "b", "d", ""], ["n1", "b", "d", ""]]
    with pytest.raises(Malformed, match="sorted"):
        rollout.decode(pack(values))


def test_an_unknown_phase_or_class_is_malformed() -> None:
    values = cell_fields()
    values[4][4] = "committed"
    with pytest.raises(Malformed, match="phase"):
        rollout.decode(pack(values))
    with pytest.raises(Malformed, match="class of change"):
        messages.decode(pack([messages.PROTOCOL, "staged", 1, A, 3, [], [], []]))


def test_other_protocols_and_kinds_are_malformed() -> None:
    with pytest.raises(Malformed, match="protocol version"):
        messages.decode(pack([messages.PROTOCOL + 1, "fence", 1, 1]))
    with pytest.raises(Malformed, match="unknown kind"):
        messages.decode(pack([messages.PROTOCOL, "please pause", 1]))
    with pytest.raises(Malformed, match="another format"):
        promise.decode(pack([9, "d", None, None]))


def test_a_register_value_over_its_limit_is_refused_before_it_is_written() -> None:
    roster = Roster(tuple((f"n{i:04}", Seat("b", "d", "")) for i in range(MEMBERS_LIMIT + 1)))
    with pytest.raises(CellTooLarge, match=f"{MEMBERS_LIMIT + 1} members"):
        rollout.encode(replace(CELL, roster=roster))


def test_long_texts_are_cut_not_refused() -> None:
    decoded = messages.decode(messages.encode(Refused(1, "x" * 10_000)))
    assert isinstance(decoded, Refused)
    assert len(decoded.reason) == 2000


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (True, Fields.integer),
        (-1, Fields.integer),
        (2**63, Fields.integer),
        ("1", Fields.integer),
        (True, Fields.number),
        (float("nan"), Fields.number),
        (float("inf"), Fields.number),
        (1, Fields.flag),
        (b"raw", Fields.text),
        ("x" * 129, Fields.text),
        ("", Fields.name),
        ("ABC", Fields.digest),
        ("", Fields.digest),
    ],
)
def test_fields_say_no(value: Any, read: Any) -> None:
    with pytest.raises(Malformed):
        read(Fields([value], 1))


def test_fields_count_exactly() -> None:
    for values in ([], [1, 2], None, "ab", {}):
        with pytest.raises(Malformed, match="1 fields"):
            Fields(values, 1)
    with pytest.raises(Malformed, match="at most 1"):
        Fields([["a", "b"]], 1).texts(1)


def test_too_many_bytes_and_non_arrays_are_malformed() -> None:
    with pytest.raises(Malformed, match="exceed"):
        unpack(b"\x90" * 11, 10)
    with pytest.raises(Malformed, match="not an array"):
        unpack(pack("text"), 100)
    with pytest.raises(Malformed):
        unpack(b"\xdd\xff\xff\xff\xff", 100)  # an array that claims four thousand million items


def test_versions_chain_and_remember_their_barrier() -> None:
    rolling = SECOND.successor(A, rid=2, exclusive=False, by="bob", at_utc=3.0)
    assert (SECOND.n, SECOND.parent, SECOND.barrier) == (2, A, 2)
    assert (rolling.n, rolling.parent, rolling.barrier) == (3, B, 2)
    assert isinstance(rolling, ConfigVersion)
    assert is_digest(A)
    assert not is_digest(A.upper())


def test_a_roster_stays_sorted_and_finds_its_seats() -> None:
    seat = Seat("b", "d", "")
    roster = Roster().with_seat("b", seat).with_seat("a", seat).with_seat("b", Seat("b2", "d", ""))
    assert roster.names == ("a", "b")
    assert "a" in roster
    assert "c" not in roster
    assert roster.get("b") == Seat("b2", "d", "")
    assert len(roster.without("a")) == 1
