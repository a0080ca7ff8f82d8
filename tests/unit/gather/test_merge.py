"""Rows of shards as one stream: order, cuts, duplicates, bounded buffers, and no trust in what arrives."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import ClientFault, ServerFault
from node.gather.gathering import Gathering
from node.routing.outcome import MergeProgram, SortKey
from node.wire.messages import BINARY, Column, data_row, message, parse_data_row

TEXT_OID, INT8_OID = 25, 20
COLUMNS = [Column(b"name", TEXT_OID), Column(b"key", INT8_OID, format=BINARY)]
BY_KEY = MergeProgram(sql="x", hidden=1, sort=(SortKey(-1),))


def _body(name: str, key: int | None) -> bytes:
    return data_row([name.encode(), None if key is None else struct.pack("!q", key)])[5:]


def _names(stream: bytes) -> list[str]:
    names, at = [], 0
    while at < len(stream):
        (length,) = struct.unpack_from("!I", stream, at + 1)
        values = parse_data_row(stream[at + 5 : at + 1 + length])
        names.append((values[0] or b"").decode())
        at += 1 + length
    return names


def _all(gathering: Gathering, shards: Sequence[Sequence[bytes]], rng: random.Random) -> bytes:
    turns = [n for n, rows in enumerate(shards) for _ in range(len(rows) + 1)]
    rng.shuffle(turns)
    at, out = [0] * len(shards), b""
    for shard in turns:
        if at[shard] < len(shards[shard]):
            gathering.feed(shard, shards[shard][at[shard]])
            at[shard] += 1
        else:
            gathering.finish(shard)
        out += gathering.take()
    return out


@given(
    st.lists(st.lists(st.one_of(st.none(), st.integers(-5, 5)), max_size=8), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 9)),
    st.integers(0, 5),
    st.integers(0, 1000),
)
def test_the_merge_sorts_cuts_and_keeps_ties_in_shard_order(
    keys: list[list[int | None]], descending: bool, nulls_first: bool, limit: int | None, offset: int, seed: int
) -> None:
    def rank(key: int | None) -> tuple[int, int]:
        if key is None:
            return (-1 if nulls_first else 1, 0)
        return (0, -key if descending else key)

    shards = [sorted(shard, key=rank) for shard in keys]
    rows = [[_body(f"{s}:{n}", key) for n, key in enumerate(shard)] for s, shard in enumerate(shards)]
    program = MergeProgram(sql="x", hidden=1, sort=(SortKey(-1, descending, nulls_first),), limit=limit, offset=offset)
    gathering = Gathering(program, COLUMNS, (), len(shards))
    out = _names(_all(gathering, rows, random.Random(seed)))
    labelled = [(rank(key), s, n) for s, shard in enumerate(shards) for n, key in enumerate(shard)]
    expected = [f"{s}:{n}" for _, s, n in sorted(labelled)]
    assert out == expected[offset : None if limit is None else offset + limit]
    assert gathering.rows == len(out)
    assert gathering.complete == (limit is not None and len(out) == limit)


def test_nothing_goes_out_before_the_smallest_is_certain() -> None:
    gathering = Gathering(BY_KEY, COLUMNS, (), 2)
    gathering.feed(0, _body("a", 1))
    assert gathering.take() == b""
    assert gathering.hungry() == (1,)
    gathering.feed(1, _body("b", 2))
    assert _names(gathering.take()) == ["a"]
    assert gathering.hungry() == (0,)
    gathering.finish(0)
    assert _names(gathering.take()) == ["b"]
    gathering.finish(1)
    assert gathering.take() == b""


def test_a_shard_that_runs_ahead_is_told_to_stop() -> None:
    gathering = Gathering(BY_KEY, COLUMNS, (), 2, buffer_bytes=100)
    for number in range(10):
        gathering.feed(0, _body("x" * 20, number))
    assert gathering.full(0)
    assert not gathering.full(1)
    assert gathering.buffered_bytes > 200
    gathering.finish(1)
    assert len(_names(gathering.take())) == 10
    assert not gathering.full(0)
    assert gathering.buffered_bytes == 0


def test_a_reached_limit_frees_what_waited() -> None:
    program = MergeProgram(sql="x", hidden=1, sort=(SortKey(-1),), limit=1)
    gathering = Gathering(program, COLUMNS, (), 2)
    for number in range(5):
        gathering.feed(0, _body("a", number))
    gathering.feed(1, _body("b", -1))
    assert gathering.complete
    assert _names(gathering.take()) == ["b"]
    assert gathering.buffered_bytes == 0
    gathering.feed(0, _body("late", 9))
    assert gathering.take() == b""
    assert gathering.rows == 1


def test_concatenation_passes_the_very_bytes() -> None:
    columns = [Column(b"name", TEXT_OID)]
    gathering = Gathering(MergeProgram(), columns, (), 2)
    rows = b"".join(data_row([text]) for text in (b"a", None, b""))
    gathering.feed_rows(1, rows)
    assert gathering.take() == rows
    assert gathering.rows == 3


def test_distinct_compares_the_binary_twins() -> None:
    columns = [Column(b"n", 1700), Column(b"n", 1700, format=BINARY)]
    one, one_again = bytes.fromhex("00010000000000000001"), bytes.fromhex("00010000000000020001")
    gathering = Gathering(MergeProgram(sql="x", twins=True, distinct=()), columns, (), 2)
    gathering.feed(0, data_row([b"1", one])[5:])
    gathering.feed(1, data_row([b"1.00", one_again])[5:])
    gathering.feed(1, data_row([None, None])[5:])
    gathering.feed(0, data_row([None, None])[5:])
    assert _names(gathering.take()) == ["1", ""]


def test_distinct_values_have_a_limit() -> None:
    program = MergeProgram(sql="x", hidden=1, distinct=(-1,))
    gathering = Gathering(program, COLUMNS, (), 1, memory_bytes=500)
    with pytest.raises(ClientFault) as caught:
        gathering.feed_rows(0, b"".join(message(b"D", _body("a", number)) for number in range(100)))
    assert caught.value.sqlstate == "53400"


@pytest.mark.parametrize("oid", [25, 1043, 1042, 19])
def test_text_is_ordered_only_where_bytes_decide(oid: int) -> None:
    columns = [Column(b"a", 23), Column(b"k", oid, format=BINARY)]
    with pytest.raises(ClientFault) as caught:
        Gathering(MergeProgram(sql="x", hidden=1, sort=(SortKey(-1),)), columns, (), 2)
    assert caught.value.sqlstate == "0A000"
    Gathering(MergeProgram(sql="x", hidden=1, sort=(SortKey(-1, bytewise=True),)), columns, (), 2)


def test_a_shard_may_not_describe_other_rows() -> None:
    gathering = Gathering(BY_KEY, COLUMNS, (), 2)
    gathering.check(COLUMNS)
    with pytest.raises(ClientFault):
        gathering.check([COLUMNS[0]._replace(type_oid=1043), COLUMNS[1]])
    with pytest.raises(ClientFault):
        gathering.check(COLUMNS[:1])
    enum = [Column(b"mood", 20001), COLUMNS[1]]
    Gathering(BY_KEY, enum, (), 2).check([Column(b"mood", 30001), COLUMNS[1]])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"\0\1\0\0\0\1a",
        b"\0\2\0\0\0\1a",
        b"\0\2\0\0\0\1a\0\0\0\x09x",
        b"\0\2\xff\xff\xff\xfe\xff\xff\xff\xff",
        b"\0\2\x80\0\0\1a\xff\xff\xff\xff",
        b"\0\2\xff\xff\xff\xff\xff\xff\xff\xff!",
        b"\0\3\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ],
)
def test_malformed_rows_are_the_servers_fault(body: bytes) -> None:
    with pytest.raises(ServerFault):
        Gathering(BY_KEY, COLUMNS, (), 1).feed(0, body)


@given(st.binary(max_size=40))
def test_byte_soup_is_a_row_or_a_fault(soup: bytes) -> None:
    for feed in ("feed", "feed_rows"):
        gathering = Gathering(BY_KEY, COLUMNS, (), 1)
        try:
            getattr(gathering, feed)(0, soup)
        except (ServerFault, ClientFault):
            continue
        gathering.finish(0)
        gathering.take()


def test_whole_messages_and_bodies_are_the_same() -> None:
    one, other = Gathering(BY_KEY, COLUMNS, (), 1), Gathering(BY_KEY, COLUMNS, (), 1)
    bodies = [_body("a", 1), _body("b", None), _body("c", 3)]
    for body in bodies:
        one.feed(0, body)
    other.feed_rows(0, b"".join(message(b"D", body) for body in bodies))
    one.finish(0)
    other.finish(0)
    assert one.take() == other.take()
    assert one.rows == other.rows == 3
