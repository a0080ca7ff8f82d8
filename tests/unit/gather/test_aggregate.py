"""Partial aggregates combine exactly; the random comparison with a server is tests/integration/test_exactness.py."""

from __future__ import annotations

import struct

import pytest

from node.errors import ClientFault
from node.gather.gathering import Gathering, client_formats
from node.gather.numeric import Numeric, encode
from node.routing.outcome import Aggregate, MergeProgram, SortKey
from node.wire.messages import BINARY, Column, data_row, parse_data_row

INT8, INT4, NUMERIC, TEXT, FLOAT8, BOOL, INT4_ARRAY = 20, 23, 1700, 25, 701, 16, 1007


def _int8(value: int) -> bytes:
    return struct.pack("!q", value)


def _run(gathering: Gathering, *shards: list[list[bytes | None]]) -> list[list[bytes | None]]:
    for number, rows in enumerate(shards):
        for row in rows:
            gathering.feed(number, data_row(row)[5:])
        gathering.finish(number)
    stream, rows, at = gathering.take(), [], 0
    while at < len(stream):
        end = at + 1 + int.from_bytes(stream[at + 1 : at + 5], "big")
        rows.append(parse_data_row(stream[at + 5 : end]))
        at = end
    return rows


def _one(
    function: str, result: int, *partials: int, cast: str = "", modifier: int = -1
) -> tuple[MergeProgram, list[Column]]:
    hidden = len(partials)
    aggregate = Aggregate(0, function, tuple(range(-hidden, 0)), cast=cast)
    columns = [Column(b"x", result, type_modifier=modifier)]
    columns += [Column(b"p", oid, format=BINARY) for oid in partials]
    return MergeProgram(sql="x", hidden=hidden, group=(), aggregates=(aggregate,)), columns


def test_sums_of_integers_overflow_as_bigint_does() -> None:
    program, columns = _one("sum", INT8, INT8)
    assert _run(Gathering(program, columns, (), 2), [[b"1", _int8(2**62)]], [[b"2", _int8(2**62 - 1)]]) == [
        [b"9223372036854775807"]
    ]
    with pytest.raises(ClientFault) as caught:
        _run(Gathering(program, columns, (), 2), [[b"1", _int8(2**62)]], [[b"2", _int8(2**62)]])
    assert (caught.value.sqlstate, caught.value.message) == ("22003", "bigint out of range")


def test_nulls_and_empty_shards() -> None:
    program, columns = _one("sum", INT8, INT8)
    assert _run(Gathering(program, columns, (), 2), [[None, None]], [[None, None]]) == [[None]]
    assert _run(Gathering(program, columns, (), 2), [[None, None]], [[b"5", _int8(5)]]) == [[b"5"]]
    program, columns = _one("avg", NUMERIC, INT8, INT8)
    nothing: list[bytes | None] = [None, None, _int8(0)]
    assert _run(Gathering(program, columns, (), 2), [nothing], [nothing]) == [[None]]
    assert _run(Gathering(program, columns, (), 2), [nothing], [[b"x", _int8(10), _int8(4)]]) == [
        [b"2.5000000000000000"]
    ]


def test_the_clients_format_is_kept() -> None:
    program, columns = _one("count", INT8, INT8)
    rows: list[list[bytes | None]] = [[_int8(1), _int8(1)]]
    assert _run(Gathering(program, columns, (BINARY,), 2), rows, rows) == [[_int8(2)]]


def test_a_coalesced_null_shows_what_the_shards_show() -> None:
    aggregate = Aggregate(0, "sum", (-1,), otherwise=True)
    program = MergeProgram(sql="x", hidden=1, group=(), aggregates=(aggregate,))
    columns = [Column(b"x", NUMERIC), Column(b"p", INT8, format=BINARY)]
    assert _run(Gathering(program, columns, (), 2), [[b"0.50", None]], [[b"0.50", None]]) == [[b"0.50"]]
    assert _run(Gathering(program, columns, (), 2), [[b"0.50", None]], [[b"7", _int8(7)]]) == [[b"7"]]


def test_casts_fail_as_postgresql_fails() -> None:
    program, columns = _one("count", 21, INT8, cast="int2")
    rows: list[list[bytes | None]] = [[b"20000", _int8(20_000)]]
    with pytest.raises(ClientFault) as caught:
        _run(Gathering(program, columns, (), 2), rows, rows)
    assert caught.value.message == "smallint out of range"
    program, columns = _one("sum", NUMERIC, NUMERIC, cast="numeric", modifier=(4 << 16 | 1) + 4)
    big: list[list[bytes | None]] = [[b"x", encode(Numeric(0, 99_996, 2))]]
    with pytest.raises(ClientFault) as caught:
        _run(Gathering(program, columns, (), 1), big)
    assert caught.value.message == "numeric field overflow"


def test_distinct_sets_unite() -> None:
    def array(*values: int) -> bytes:
        body = b"".join(struct.pack("!ii", 4, v) for v in values)
        return struct.pack("!iiIii", 1, 0, INT4, len(values), 1) + body

    program, columns = _one("count distinct", INT8, INT4_ARRAY)
    rows = _run(Gathering(program, columns, (), 2), [[b"2", array(1, 2)]], [[b"2", array(2, 3)]])
    assert rows == [[b"3"]]
    program, columns = _one("sum distinct", INT8, INT4_ARRAY)
    assert _run(Gathering(program, columns, (), 2), [[b"3", array(1, 2)]], [[b"5", array(2, 3)]]) == [[b"6"]]


def test_the_winner_lends_its_visible_column() -> None:
    aggregate = Aggregate(0, "max", (-1,))
    program = MergeProgram(sql="x", hidden=1, group=(), aggregates=(aggregate,))
    columns = [Column(b"x", TEXT), Column(b"p", INT8, format=BINARY)]
    shards: list[list[list[bytes | None]]] = [[[b"<3>", _int8(3)]], [[b"<none>", None]], [[b"<9>", _int8(9)]]]
    assert _run(Gathering(program, columns, (), 3), *shards) == [[b"<9>"]]
    assert _run(Gathering(program, columns, (), 1), [[b"<none>", None]]) == [[b"<none>"]]


def test_groups_meet_by_equality_and_are_sorted_and_cut() -> None:
    program = MergeProgram(
        sql="x",
        hidden=2,
        group=(-2,),
        aggregates=(Aggregate(1, "count", (-1,)), Aggregate(-1, "count", (-1,))),
        sort=(SortKey(-1, descending=True, nulls_first=True),),
        limit=2,
    )
    columns = [
        Column(b"g", NUMERIC),
        Column(b"n", INT8),
        Column(b"g", NUMERIC, format=BINARY),
        Column(b"n", INT8, format=BINARY),
    ]

    def row(shown: str | None, number: Numeric | None, count: int) -> list[bytes | None]:
        return [
            None if shown is None else shown.encode(),
            b"%d" % count,
            None if number is None else encode(number),
            _int8(count),
        ]

    first = [row("1.0", Numeric(0, 10, 1), 3), row(None, None, 4), row("2", Numeric(0, 2, 0), 1)]
    second = [row("1.00", Numeric(0, 100, 2), 2), row(None, None, 9)]
    gathering = Gathering(program, columns, (), 2)
    assert _run(gathering, first, second) == [[None, b"13"], [b"1.0", b"5"]]
    assert gathering.rows == 2


def test_groups_have_a_limit() -> None:
    program = MergeProgram(sql="x", hidden=1, group=(-1,))
    columns = [Column(b"g", INT8), Column(b"g", INT8, format=BINARY)]
    gathering = Gathering(program, columns, (), 1, memory_bytes=2000)
    with pytest.raises(ClientFault) as caught:
        _run(gathering, [[b"x", _int8(number)] for number in range(100)])
    assert caught.value.sqlstate == "53400"


@pytest.mark.parametrize(
    ("function", "result", "partials"),
    [
        ("sum", FLOAT8, (FLOAT8,)),
        ("sum", 700, (700,)),
        ("sum", 790, (790,)),
        ("sum", 1186, (1186,)),
        ("avg", FLOAT8, (FLOAT8, INT8)),
        ("variance", FLOAT8, (INT8, NUMERIC, NUMERIC, FLOAT8)),
        ("min", 20001, (20001,)),
        ("max", TEXT, (TEXT,)),
        ("count distinct", INT8, (2287,)),
        ("sum distinct", FLOAT8, (1022,)),
    ],
)
def test_what_cannot_be_exact_is_refused(function: str, result: int, partials: tuple[int, ...]) -> None:
    program, columns = _one(function, result, *partials)
    with pytest.raises(ClientFault) as caught:
        Gathering(program, columns, (), 2)
    assert caught.value.sqlstate == "0A000"


def test_result_formats_are_spelled_out() -> None:
    assert client_formats((), 3) == (0, 0, 0)
    assert client_formats((1,), 2) == (1, 1)
    assert client_formats((1, 0), 2) == (1, 0)
    with pytest.raises(ClientFault) as caught:
        client_formats((1, 0), 3)
    assert caught.value.sqlstate == "08P01"
