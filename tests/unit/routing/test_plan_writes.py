"""Writes and commands: one line per case."""

from __future__ import annotations

import pytest
from unit.routing.worlds import BY_COLUMN, CATALOG, FOUR, outcome, route

from node.routing import hashing
from node.routing.catalog import Catalog
from node.routing.hints import Hints
from node.routing.outcome import CopyProgram, InsertSelectProgram, Plan, Refusal, SplitProgram
from node.routing.topology import DataType, ShardedSchema, ShardedTable, Topology

H = {n: hashing.bigint(n) % 4 for n in range(-20, 1000)}


def one(n: int) -> str:
    return f"{H[n]} direct one"


CASES = [
    # a row knows its shard
    ("INSERT INTO orders (id, total) VALUES (5, 1)", one(5)),
    ("INSERT INTO orders VALUES (5, 'x', 1)", one(5)),
    ("INSERT INTO orders (total, id) VALUES (1, -5)", one(-5)),
    ("INSERT INTO orders (id) VALUES (5.0)", one(5)),
    ("INSERT INTO orders (id) VALUES ('5')", one(5)),
    ("INSERT INTO orders (id) VALUES (5), (5)", one(5)),
    ("INSERT INTO orders (id) VALUES (5) ON CONFLICT DO NOTHING RETURNING *", one(5)),
    ("INSERT INTO orders (id, total) VALUES (5, 1) ON CONFLICT (id) DO UPDATE SET total = excluded.total", one(5)),
    ("INSERT INTO orders (id) VALUES (NULL)", "0 direct one"),
    ("INSERT INTO orders (total) VALUES (1)", "0 direct one"),  # the catalog says: no default, so NULL
    ("INSERT INTO orders (id, at) VALUES (5, now())", one(5)),
    ("INSERT INTO regions (code) VALUES ('us')", "1 direct one"),
    ("INSERT INTO mixed (id) VALUES (99)", "2 direct one"),
    # rows that know it not
    ("INSERT INTO orders (id) VALUES (1.5)", "refused 0A000"),
    ("INSERT INTO orders (id) VALUES (5::float8 / 2)", "refused 0A000"),
    ("INSERT INTO orders (id) VALUES (random())", "refused 0A000"),
    ("INSERT INTO orders (id) VALUES ((SELECT 5))", "refused 0A000"),
    ("INSERT INTO orders (id) VALUES (99999999999999999999)", "refused 22003"),
    ("INSERT INTO orders (id) VALUES ('abc')", "refused 22P02"),
    ("INSERT INTO regions (code) VALUES ('xx')", "refused 58000"),
    ("INSERT INTO orders (id, total) VALUES (5, (SELECT max(total) FROM orders))", "refused 0A000"),
    ("INSERT INTO orders (id) VALUES (5) ON CONFLICT (id) DO UPDATE SET id = 6", "refused 0A000"),
    ("INSERT INTO order_view (id) VALUES (5)", "refused 0A000"),
    # several rows are split
    ("INSERT INTO orders (id) VALUES (1), (3), (1)", "0,1 split sum"),
    # UPDATE and DELETE
    ("UPDATE orders SET total = 1 WHERE id = 5", one(5)),
    ("UPDATE orders SET total = 1", "0,1,2,3 direct sum"),
    ("UPDATE orders SET total = 1 WHERE total = 2 RETURNING id", "0,1,2,3 direct sum"),
    ("UPDATE orders SET total = 1 WHERE id IN (1, 3)", "0,1 direct sum"),
    ("UPDATE orders SET id = 5, total = 2 WHERE id = 5", one(5)),
    ("UPDATE orders SET id = 6 WHERE id = 3", "refused 0A000"),
    ("UPDATE orders SET id = id + 1 WHERE id = 5", "refused 0A000"),
    ("UPDATE orders SET (id, total) = (6, 1) WHERE id = 3", "refused 0A000"),
    ("UPDATE orders SET id = 5", "refused 0A000"),
    ("UPDATE orders o SET total = 1 FROM items i WHERE i.order_id = o.id", "0,1,2,3 direct sum"),
    ("UPDATE orders o SET total = 1 FROM items i WHERE i.sku = o.customer", "refused 0A000"),
    ("UPDATE orders SET total = 1 WHERE customer IN (SELECT code FROM countries)", "0,1,2,3 direct sum"),
    ("UPDATE orders SET total = (SELECT max(total) FROM orders)", "refused 0A000"),
    ("DELETE FROM orders WHERE id = 5", one(5)),
    ("DELETE FROM orders", "0,1,2,3 direct sum"),
    ("DELETE FROM orders WHERE id IN (SELECT order_id FROM items)", "0,1,2,3 direct sum"),
    ("DELETE FROM orders WHERE id IN (SELECT id FROM items)", "refused 0A000"),
    ("DELETE FROM orders WHERE id IN (SELECT order_id FROM items LIMIT 1)", "refused 0A000"),
    ("DELETE FROM orders WHERE id NOT IN (SELECT order_id FROM items)", "refused 0A000"),
    ("DELETE FROM orders o WHERE NOT EXISTS (SELECT 1 FROM items i WHERE i.order_id = o.id)", "0,1,2,3 direct sum"),
    ("DELETE FROM orders o USING items i WHERE i.order_id = o.id AND o.id = 5", one(5)),
    (
        "WITH x AS (DELETE FROM items RETURNING order_id) DELETE FROM orders WHERE id IN (SELECT order_id FROM x)",
        "refused 0A000",
    ),
    (
        "DELETE FROM orders o WHERE total = 1 OR EXISTS (SELECT 1 FROM items i WHERE i.order_id = o.id AND o.id = 5)",
        "0,1,2,3 direct sum",
    ),
    ("MERGE INTO orders o USING countries c ON o.customer = c.code WHEN MATCHED THEN DELETE", "refused 0A000"),
    # tables that every shard has
    ("INSERT INTO countries VALUES ('de', 'x')", "0,1,2,3 direct first"),
    ("INSERT INTO countries VALUES ('de', 'x'), ('us', 'y')", "0,1,2,3 direct first"),
    ("UPDATE countries SET name = 'x'", "0,1,2,3 direct first"),
    ("DELETE FROM countries WHERE code = 'x' RETURNING *", "0,1,2,3 direct first"),
    ("INSERT INTO audit (id, what, at) VALUES (1, 'x', '2024-01-01')", "0,1,2,3 direct first"),
    ("INSERT INTO audit (id, what) VALUES (1, 'x')", "refused 0A000"),
    ("INSERT INTO audit (id, what, at) VALUES (DEFAULT, 'x', '2024-01-01')", "refused 0A000"),
    ("INSERT INTO audit DEFAULT VALUES", "refused 0A000"),
    ("INSERT INTO countries VALUES ('de', gen_random_uuid())", "refused 0A000"),
    ("INSERT INTO countries VALUES ('de', now()::text)", "refused 0A000"),
    ("UPDATE countries SET name = CURRENT_TIMESTAMP::text", "refused 0A000"),
    ("UPDATE countries SET name = 'x' FROM orders WHERE orders.customer = countries.code", "refused 0A000"),
    ("DELETE FROM countries WHERE code IN (SELECT customer FROM orders WHERE id = 5)", "refused 0A000"),
    ("WITH d AS (DELETE FROM countries RETURNING *) SELECT * FROM d", "0,1,2,3 direct first"),
    ("WITH d AS (DELETE FROM orders WHERE id = 5 RETURNING *) SELECT * FROM d", one(5)),
    ("WITH d AS (DELETE FROM orders RETURNING *) SELECT * FROM d", "refused 0A000"),
    ("WITH d AS (INSERT INTO audit (what) VALUES ('x') RETURNING *) SELECT * FROM d", "refused 0A000"),
    ("UPDATE audit SET at = DEFAULT", "refused 0A000"),
    ("UPDATE audit SET what = DEFAULT", "refused 0A000"),
    ("DELETE FROM countries WHERE ctid = '(0,1)'", "refused 0A000"),
    ("DELETE FROM orders WHERE ctid = '(0,1)'", "refused 0A000"),
    ("DELETE FROM orders WHERE ctid = '(0,1)' AND id = 5", one(5)),
    ("UPDATE countries SET name = (SELECT name FROM countries LIMIT 1)", "refused 0A000"),
    # COPY
    ("COPY orders TO STDOUT", "0,1,2,3 pushdown concat"),
    ("COPY countries TO STDOUT", "0 direct one"),
    ("COPY (SELECT * FROM orders WHERE id = 5) TO STDOUT", one(5)),
    ("COPY (SELECT * FROM orders) TO STDOUT", "0,1,2,3 pushdown concat"),
    ("COPY (SELECT * FROM orders ORDER BY id LIMIT 5) TO STDOUT", "refused 0A000"),
    ("COPY orders FROM STDIN", "0,1,2,3 split sum"),
    ("COPY orders (total, id) FROM STDIN (FORMAT csv, HEADER)", "0,1,2,3 split sum"),
    ("COPY orders (total) FROM STDIN", "refused 0A000"),
    ("COPY orders FROM '/tmp/x'", "refused 0A000"),
    ("COPY countries FROM STDIN", "0,1,2,3 direct first"),
    ("COPY audit (what) FROM STDIN", "refused 0A000"),
    # commands
    ("CREATE TABLE t (a int)", "0,1,2,3 ddl first"),
    ("CREATE INDEX CONCURRENTLY i ON orders (total)", "0,1,2,3 ddl first"),
    ("TRUNCATE orders, items", "0,1,2,3 ddl first"),
    ("VACUUM", "0,1,2,3 ddl first"),
    ("CREATE TABLE t AS SELECT * FROM orders", "refused 0A000"),
    ("CREATE TABLE t AS SELECT * FROM countries", "0,1,2,3 ddl first"),
    ("CREATE TABLE t AS SELECT random()", "refused 0A000"),
    ("CREATE TEMP TABLE t AS SELECT * FROM orders WHERE id = 5", one(5)),
    ("SELECT * INTO t FROM orders", "refused 0A000"),
    ("BEGIN", "0,1,2,3 direct first"),
    ("PREPARE TRANSACTION 'x'", "refused 0A000"),
    ("COMMIT PREPARED 'x'", "refused 0A000"),
    ("DECLARE c CURSOR FOR SELECT * FROM orders WHERE id = 5", one(5)),
    ("DECLARE c CURSOR FOR SELECT * FROM orders", "refused 0A000"),
    ("EXPLAIN SELECT * FROM orders WHERE id = 5", one(5)),
    ("EXPLAIN SELECT * FROM orders", "refused 0A000"),
    ("EXPLAIN UPDATE countries SET name = 'x'", "0 direct one"),
    ("EXPLAIN ANALYZE UPDATE countries SET name = 'x'", "refused 0A000"),
    ("DO $$ BEGIN NULL; END $$", "refused 0A000"),
    ("CALL p(5)", "refused 0A000"),
    ("/* pgmurmur_shard: 1 */ CALL p(5)", "1 direct one"),
    ("EXECUTE x(5)", "refused 0A000"),
    ("SHOW search_path", "0 direct one"),
    ("LISTEN x", "0 direct one"),
    ("/* pgdog_shard: 1 */ INSERT INTO countries VALUES ('x', 'y')", "refused 58000"),
    ("/* pgdog_shard: 1 */ CREATE TABLE t (a int)", "1 direct one"),
]


@pytest.mark.parametrize(("sql", "expected"), CASES)
def test_where_it_goes(sql: str, expected: str) -> None:
    found = route(sql)
    assert found.startswith(expected) if expected.startswith("refused") else found == expected


def test_rows_are_split_with_their_own_parameters() -> None:
    sql = "INSERT INTO orders (id, customer, total) VALUES ($1, $3, 7), ($2, $3, 8), ($1, lower($4), 9) RETURNING id"
    found = outcome(sql, [b"1", b"3", b"x", b"Y"])
    assert isinstance(found, Plan)
    assert isinstance(found.program, SplitProgram)
    first, second = found.program.parts
    assert (first.shard, first.rows, first.parameters) == (0, (0, 2), (0, 2, 3))
    assert first.sql == ("INSERT INTO orders (id, customer, total) VALUES ($1, $2, 7), ($1, lower($3), 9) RETURNING id")
    assert (second.shard, second.rows, second.parameters) == (1, (1,), (1, 2))
    assert second.sql == "INSERT INTO orders (id, customer, total) VALUES ($1, $2, 8) RETURNING id"
    assert found.program.returning


def test_split_uses_the_values_of_its_own_text() -> None:
    outcome("INSERT INTO orders (id, customer) VALUES (1, 'a'), (3, 'b')")
    found = outcome("INSERT INTO orders (id, customer) VALUES (3, 'it''s'), (1, E'b\\n')")
    assert isinstance(found, Plan)
    assert isinstance(found.program, SplitProgram)
    assert [p.sql for p in found.program.parts] == [
        "INSERT INTO orders (id, customer) VALUES (1, E'b\\n')",
        "INSERT INTO orders (id, customer) VALUES (3, 'it''s')",
    ]


def test_insert_select_computes_rows_first() -> None:
    found = outcome(
        "INSERT INTO orders (total, id) SELECT g, g + $2 FROM generate_series(1, $1) g "
        "ON CONFLICT DO NOTHING RETURNING id",
        [b"5", b"6"],
    )
    assert isinstance(found, Plan)
    program = found.program
    assert isinstance(program, InsertSelectProgram)
    assert (program.columns, program.key_column, program.parameters) == (("total", "id"), 1, (0, 1))
    assert program.select_sql == "SELECT g, g + $2 FROM generate_series(1, $1) AS g"
    assert program.insert_head == "INSERT INTO orders (total, id) VALUES "
    assert program.insert_tail == " ON CONFLICT DO NOTHING RETURNING id"
    assert program.select.single


def test_insert_select_from_sharded_tables_has_a_plan_of_its_own() -> None:
    found = outcome("INSERT INTO items (order_id, sku) SELECT id, customer FROM orders WHERE total > 1")
    assert isinstance(found, Plan)
    assert isinstance(found.program, InsertSelectProgram)
    assert found.program.select.shards == (0, 1, 2, 3)
    one_shard = outcome("INSERT INTO items (order_id, sku) SELECT id, customer FROM orders WHERE id = $1", [b"5"])
    assert isinstance(one_shard, Plan)
    assert isinstance(one_shard.program, InsertSelectProgram)
    assert one_shard.program.select.shards == (H[5],)
    refused = outcome("INSERT INTO items (order_id) SELECT max(id) OVER () FROM orders")
    assert isinstance(refused, Refusal)


def test_copy_program_knows_the_key_column() -> None:
    found = outcome("COPY orders FROM STDIN")
    assert isinstance(found, Plan)
    assert isinstance(found.program, CopyProgram)
    assert found.program.columns == ("id", "customer", "total", "at")
    assert found.program.key_column == 0


def test_without_a_catalog_a_column_list_is_needed() -> None:
    assert route("INSERT INTO orders VALUES (5)", catalog=Catalog.EMPTY).startswith("refused 0A000")
    assert route("COPY orders FROM STDIN", catalog=Catalog.EMPTY).startswith("refused 0A000")
    assert route("INSERT INTO orders (id) VALUES (5)", catalog=Catalog.EMPTY) == one(5)
    assert route("INSERT INTO orders (total) VALUES (5)", catalog=Catalog.EMPTY).startswith("refused 0A000")


def test_a_default_key_is_refused() -> None:
    assert route("INSERT INTO serials (name) VALUES ('x')", topology=BY_COLUMN).startswith("refused 0A000")


def test_padded_keys_are_stripped() -> None:
    rule = ShardedTable(None, "padded", "tenant_id", DataType.VARCHAR)
    padded = Topology("d", 4, (rule,))
    shard = hashing.varchar(b"ab") % 4
    for sql in (
        "INSERT INTO padded (tenant_id) VALUES ('ab  ')",
        "SELECT * FROM padded WHERE tenant_id = 'ab '",
        "SELECT * FROM padded WHERE tenant_id IN ('ab', 'ab  ')",
    ):
        assert route(sql, topology=padded) == f"{shard} direct one"


SCHEMAS = Topology(
    "d", 2, schemas=(ShardedSchema("a", 0), ShardedSchema("b", 1), ShardedSchema(None, 0), ShardedSchema("all", None))
)


@pytest.mark.parametrize(
    ("sql", "path", "expected"),
    [
        ("SELECT * FROM b.t", (), "1 direct one"),
        ("SELECT * FROM t", ("b",), "1 direct one"),
        ("SELECT * FROM a.t, b.t", (), "refused 0A000"),
        ("DELETE FROM b.t", (), "1 direct one"),
        ("CREATE TABLE b.t (a int)", (), "1 direct one"),
        ("INSERT INTO b.t VALUES (1)", (), "1 direct one"),
        ("INSERT INTO all.t VALUES (1)".replace("all", '"all"'), (), "0,1 direct first"),
        ('SELECT * FROM "all".t', (), "0 direct one"),
        ("SELECT * FROM other.t", (), "0 direct one"),
    ],
)
def test_sharding_by_schema(sql: str, path: tuple[str, ...], expected: str) -> None:
    found = route(sql, topology=SCHEMAS, hints=Hints(search_path=path), catalog=Catalog.EMPTY)
    assert found.startswith(expected) if expected.startswith("refused") else found == expected


def test_cross_shard_disabled_refuses_several_shards() -> None:
    closed = Topology("d", 4, FOUR.tables, cross_shard_disabled=True)
    assert route("SELECT * FROM orders", topology=closed).startswith("refused 58000")
    assert route("UPDATE orders SET total = 1", topology=closed).startswith("refused 58000")
    assert route("INSERT INTO orders (id) VALUES (1), (3)", topology=closed).startswith("refused 58000")
    assert route("SELECT * FROM orders WHERE id = 5", topology=closed, catalog=CATALOG) == one(5)


def test_lookup_rules_are_refused_rather_than_hashed() -> None:
    asks = Topology("d", 4, (ShardedTable(None, "orders", "id", lookup_query="SELECT tenant FROM map WHERE id = $1"),))
    for sql in ("SELECT * FROM orders WHERE id = 5", "INSERT INTO orders (id) VALUES (5)", "COPY orders FROM STDIN"):
        assert route(sql, topology=asks).startswith("refused 0A000")
    assert route("SELECT 1", topology=asks) == "0 direct one"
