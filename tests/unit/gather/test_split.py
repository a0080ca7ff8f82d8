"""INSERT ... SELECT in batches, RETURNING in order, command tags added up."""

from __future__ import annotations

import struct

import pytest

from node.errors import Bug, ClientFault
from node.gather.split import EVERY_SHARD, InsertSelect, assigned_key, combine_tags, interleave
from node.routing.outcome import Combine, InsertSelectProgram, Plan, Road, Role
from node.routing.topology import DataType, ShardedTable
from node.wire.messages import Column, data_row

RULE = ShardedTable(None, "t", "id")
SELECT = Plan((0, 1), Road.PUSHDOWN, Role.ANY, False, Combine.CONCAT)
COLUMNS = [Column(b"id", 20), Column(b"name", 25)]


def _program(rule: ShardedTable | None = RULE, tail: str = "") -> InsertSelectProgram:
    return InsertSelectProgram(
        select_sql="SELECT id, name FROM s",
        parameters=(),
        select=SELECT,
        schema=None,
        table="t",
        columns=("id", "name"),
        key_column=0,
        rule=rule,
        insert_head="INSERT INTO t (id, name) VALUES",
        insert_tail=tail,
        returning=bool(tail),
    )


def _row(*values: bytes | None) -> bytes:
    return data_row(values)[5:]


def test_rows_go_to_the_shard_of_their_key_with_the_types_of_the_select() -> None:
    insert = InsertSelect(_program(tail="RETURNING id"), COLUMNS, lambda key: int(key or 0) % 2)
    for number in range(3):
        insert.add(_row(b"%d" % number, None if number else b"zero"))
    even, odd = insert.batches()
    assert (even.shard, even.rows, even.parameters) == (0, (0, 2), (b"0", b"zero", b"2", None))
    assert even.sql == "INSERT INTO t (id, name) VALUES ($1, $2), ($3, $4) RETURNING id"
    assert even.types == (20, 25, 20, 25)
    assert (odd.shard, odd.rows, odd.sql) == (1, (1,), "INSERT INTO t (id, name) VALUES ($1, $2) RETURNING id")


def test_string_constants_and_user_types_are_left_to_the_target_column() -> None:
    columns = [Column(b"id", 20), Column(b"mood", 20001), Column(b"c", 25)]
    program = InsertSelectProgram(
        "", (), SELECT, None, "t", ("id", "mood", "c"), 0, RULE, "INSERT INTO t VALUES", "", False
    )
    insert = InsertSelect(program, columns, lambda key: 0, literals=frozenset((2,)))
    insert.add(_row(b"1", b"sad", b"2020-01-01"))
    (batch,) = insert.batches()
    assert batch.types == (20, 0, 0)


def test_a_table_without_a_key_gets_every_row_everywhere() -> None:
    insert = InsertSelect(_program(rule=None), COLUMNS, lambda key: 1 // 0)
    insert.add(_row(b"1", b"a"))
    assert [batch.shard for batch in insert.batches()] == [EVERY_SHARD]


def test_many_rows_are_many_statements_but_not_with_do_update() -> None:
    insert = InsertSelect(_program(), COLUMNS, lambda key: 0)
    for _ in range(2500):
        insert.add(_row(b"1", b"a"))
    assert [len(batch.rows) for batch in insert.batches()] == [1000, 1000, 500]
    insert = InsertSelect(_program(tail="ON CONFLICT (id) DO UPDATE SET name = ''"), COLUMNS, lambda key: 0)
    for _ in range(32767):
        insert.add(_row(b"1", b"a"))
    assert len(list(insert.batches())) == 1
    insert.add(_row(b"1", b"a"))
    with pytest.raises(ClientFault) as caught:
        list(insert.batches())
    assert caught.value.sqlstate == "0A000"


def test_rows_held_have_a_limit() -> None:
    insert = InsertSelect(_program(), COLUMNS, lambda key: 0, limit_bytes=1000)
    for _ in range(10):
        insert.add(_row(b"1", b"x" * 20))
    with pytest.raises(ClientFault) as caught:
        insert.add(_row(b"1", b"x" * 1000))
    assert caught.value.sqlstate == "53400"


def test_the_number_of_columns_must_fit() -> None:
    for columns in (COLUMNS[:1], [*COLUMNS, COLUMNS[0]]):
        with pytest.raises(ClientFault) as caught:
            InsertSelect(_program(), columns, lambda key: 0)
        assert caught.value.sqlstate == "42601"


@pytest.mark.parametrize(
    ("raw", "oid", "binary", "data_type", "key"),
    [
        (None, 20, False, DataType.BIGINT, None),
        (b"7", 23, False, DataType.BIGINT, b"7"),
        (struct.pack("!h", -2), 21, True, DataType.BIGINT, b"-2"),
        (b"2.5", 1700, False, DataType.BIGINT, b"3"),
        (b"-2.5", 1700, False, DataType.BIGINT, b"-3"),
        (b"0.49", 1700, False, DataType.BIGINT, b"0"),
        (b"ab  ", 1042, False, DataType.VARCHAR, b"ab"),
        (b"t", 16, False, DataType.VARCHAR, b"true"),
        (b"\0", 16, True, DataType.VARCHAR, b"false"),
        (b"ab  ", 25, True, DataType.VARCHAR, b"ab  "),
        (bytes(16), 2950, True, DataType.UUID, b"00000000-0000-0000-0000-000000000000"),
    ],
)
def test_keys_are_cast_as_an_assignment_casts(
    raw: bytes | None, oid: int, binary: bool, data_type: DataType, key: bytes | None
) -> None:
    assert assigned_key(raw, oid, binary, data_type) == key


def test_keys_that_cannot_be_exact_are_refused() -> None:
    for raw, oid, binary in ((b"1.5", 701, False), (b"\0" * 8, 1114, True), (b"NaN", 1700, False)):
        with pytest.raises(ClientFault):
            assigned_key(raw, oid, binary, DataType.BIGINT)


def test_returning_rows_come_back_in_the_clients_order() -> None:
    assert interleave([(0, 2), (1,)], [[b"a", b"c"], [b"b"]]) == [b"a", b"b", b"c"]
    assert interleave([(1,), (0,)], [[b"b"], [b"a"]]) == [b"a", b"b"]
    assert interleave([(0, 2), (1,)], [[b"c"], [b"b"]]) == [b"c", b"b"]


@pytest.mark.parametrize(
    ("tags", "combined"),
    [
        (["INSERT 0 2", "INSERT 0 3"], "INSERT 0 5"),
        (["UPDATE 2", "UPDATE 0"], "UPDATE 2"),
        (["DELETE 1"], "DELETE 1"),
        (["MERGE 1", "MERGE 4"], "MERGE 5"),
        (["COPY 7", "COPY 1"], "COPY 8"),
        (["CREATE TABLE", "CREATE TABLE"], "CREATE TABLE"),
    ],
)
def test_tags_add_up(tags: list[str], combined: str) -> None:
    assert combine_tags(tags) == combined


def test_tags_of_different_commands_are_a_bug() -> None:
    for tags in ([], ["UPDATE 1", "DELETE 1"]):
        with pytest.raises(Bug):
            combine_tags(tags)
