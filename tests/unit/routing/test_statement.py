"""Facts, the cache, hints, and the lines of `pgmurmur route`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.routing.worlds import CATALOG, FOUR, ONE, outcome

from node.errors import ClientFault
from node.routing.cache import StatementCache
from node.routing.catalog import Catalog
from node.routing.hints import Hints, comment_hints, search_path_names, setting_hints
from node.routing.lexed import BACKSLASH
from node.routing.lexer import lex
from node.routing.offline import explain_lines, route_lines
from node.routing.outcome import Combine, Plan, Refusal, Role, Values
from node.routing.plan import plan_all, plan_unparsed
from node.routing.statement import Effects, Kind, parse

E = Effects
FACTS = [
    ("SELECT 1", Kind.SELECT, E.NONE, (), False),
    ("SELECT set_config('a.b', 'c', false)", Kind.SELECT, E.SETS, ("a.b",), False),
    ("SELECT set_config('a.b', 'c', true)", Kind.SELECT, E.SETS, ("a.b",), True),
    ("SELECT set_config($1, 'c', false)", Kind.SELECT, E.SETS, ("*",), False),
    ("SELECT pg_catalog.set_config('search_path', '', false)", Kind.SELECT, E.SETS, ("search_path",), False),
    ("SELECT set_config('a', 'b', true), set_config('c', 'd', false)", Kind.SELECT, E.SETS, ("c", "a"), False),
    ("SET work_mem = '5MB'", Kind.SET, E.SETS, ("work_mem",), False),
    ("SET LOCAL work_mem = '5MB'", Kind.SET, E.NONE, ("work_mem",), True),
    ("SET ROLE x", Kind.SET, E.SETS, ("role",), False),
    ("SET SESSION AUTHORIZATION x", Kind.SET, E.SETS, ("session_authorization",), False),
    ("RESET ALL", Kind.RESET, E.SETS, ("*",), False),
    ("RESET work_mem", Kind.RESET, E.SETS, ("work_mem",), False),
    ("SET TRANSACTION READ ONLY", Kind.SET, E.NONE, ("transaction",), True),
    ("CREATE TEMP TABLE t (a int)", Kind.DDL, E.TEMP_TABLE, (), False),
    ("CREATE TEMP TABLE t AS SELECT 1", Kind.DDL, E.TEMP_TABLE, (), False),
    ("SELECT 1 INTO TEMP t", Kind.SELECT, E.TEMP_TABLE, (), False),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", Kind.DECLARE, E.HOLD_CURSOR, (), False),
    ("LISTEN x", Kind.LISTEN, E.LISTEN, (), False),
    ("SELECT pg_advisory_lock(1)", Kind.SELECT, E.ADVISORY_LOCK, (), False),
    ("SELECT pg_advisory_xact_lock(1)", Kind.SELECT, E.NONE, (), False),
    ("PREPARE x AS SELECT 1", Kind.PREPARE, E.SQL_PREPARE, (), False),
    ("DISCARD ALL", Kind.DISCARD, E.DISCARD, (), False),
    ("DO 'begin end'", Kind.DO, E.OPAQUE, (), False),
    ("LOAD 'x'", Kind.LOAD, E.LOAD, (), False),
]


@pytest.mark.parametrize(("sql", "kind", "effects", "names", "local"), FACTS)
def test_what_outlives_the_transaction(
    sql: str, kind: Kind, effects: Effects, names: tuple[str, ...], local: bool
) -> None:
    (found,) = parse(sql)
    assert (found.kind, found.effects, set(found.set_names), found.set_local) == (kind, effects, set(names), local)


@pytest.mark.parametrize(
    ("sql", "kind", "options"),
    [
        ("BEGIN", Kind.BEGIN, ()),
        ("START TRANSACTION READ ONLY", Kind.BEGIN, ("transaction_read_only=1",)),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ", Kind.BEGIN, ("transaction_isolation=repeatable read",)),
        ("COMMIT AND CHAIN", Kind.COMMIT, ()),
        ("ROLLBACK TO x", Kind.ROLLBACK_TO, ()),
        ("ABORT", Kind.ROLLBACK, ()),
        ("END", Kind.COMMIT, ()),
    ],
)
def test_transaction_control(sql: str, kind: Kind, options: tuple[str, ...]) -> None:
    (found,) = parse(sql)
    assert (found.kind, found.transaction_options) == (kind, options)
    assert found.chain == sql.endswith("CHAIN")
    assert found.read_only == sql.endswith("ONLY")


@pytest.mark.parametrize(
    "sql",
    ["VACUUM", "CREATE INDEX CONCURRENTLY i ON t (a)", "DROP INDEX CONCURRENTLY i", "REINDEX INDEX CONCURRENTLY i",
     "CREATE DATABASE x", "ALTER SYSTEM SET work_mem = 1", "ALTER TABLE t DETACH PARTITION x CONCURRENTLY"],
)  # fmt: skip
def test_not_in_a_transaction_block(sql: str) -> None:
    assert not parse(sql)[0].transactional


def test_errors_are_postgresqls_own() -> None:
    with pytest.raises(ClientFault, match='syntax error at or near "selec"') as caught:
        parse("selec 1")
    assert (caught.value.sqlstate, caught.value.position) == ("42601", 1)


def test_one_parse_serves_a_shape() -> None:
    cache = StatementCache(10)
    first, _ = cache.lookup(b"SELECT * FROM t WHERE a = 1")
    second, lexed = cache.lookup(b"select * from T  where a=2 -- x".replace(b"a=2", b"a = 2"))
    assert first is second
    assert (cache.hits, cache.misses) == (1, 1)
    assert lexed.literal_value(0) == b"2"
    assert cache.rows() == [("select * from t where a = ?", 1, 0, 0)]


def test_texts_that_cannot_be_marked_are_kept_whole() -> None:
    cache = StatementCache(10)
    one, _ = cache.lookup(b"SELECT 5::float(24)")
    two, _ = cache.lookup(b"SELECT 5::float(24)")
    three, _ = cache.lookup(b"SELECT 6::float(25)")
    assert one is two
    assert three is not one
    with pytest.raises(ClientFault):
        cache.lookup(b"SELECT 5::float(99)")


def test_the_cache_is_bounded_and_errors_are_not_kept() -> None:
    cache = StatementCache(5)
    for i in range(50):
        cache.lookup(f"SELECT a{i}".encode())
    for _ in range(3):
        with pytest.raises(ClientFault):
            cache.lookup(b"SELEC")
    assert len(cache) == 5
    cache.resize(2)
    assert len(cache) == 2


def test_backslashes_are_never_misread() -> None:
    cache = StatementCache(5, BACKSLASH)
    sql = rb"SELECT * FROM orders WHERE customer = 'a\'; DELETE FROM orders; --'"
    statements, lexed = cache.lookup(sql)
    assert len(statements) == 1
    assert lexed.literal_value(0) == b"a'; DELETE FROM orders; --"
    with pytest.raises(ClientFault, match="backslash"):
        statements[0].tree(lexed)


def test_marker_like_constants_of_the_text_stay_constants() -> None:
    (found,), lexed = StatementCache().lookup(b"SELECT * FROM orders WHERE id = 5 ORDER BY 1900000000")
    assert not found.is_marked
    assert lexed.literal_count() == 1


@pytest.mark.parametrize(
    ("sql", "hints"),
    [
        ("/* pgdog_shard: 1 */ SELECT 1", Hints(shard=1)),
        ("SELECT 1 /* pgmurmur_shard:1 */", Hints(shard=1)),
        ("SELECT 1 -- pgdog_role: replica", Hints(role="replica")),
        ('/* pgdog_sharding_key: "a b" */ SELECT 1', Hints(sharding_key="a b")),
        ("/* pgdog_sharding_key: 'x' */ SELECT 1", Hints(sharding_key="x")),
        ("/* pgdog_shard: 1 */ SELECT 1 /* pgdog_shard: 2 */", Hints(shard=1)),
        ("SELECT '/* pgdog_shard: 1 */'", Hints()),
        ("/* pgdog_role: auto */ SELECT 1", Hints()),
    ],
)
def test_comment_hints(sql: str, hints: Hints) -> None:
    assert comment_hints(lex(sql.encode())) == hints


@pytest.mark.parametrize("sql", ["/* pgdog_shard: x */ SELECT 1", "/* pgdog_role: boss */ SELECT 1"])
def test_nonsense_hints_are_errors(sql: str) -> None:
    with pytest.raises(ClientFault) as caught:
        comment_hints(lex(sql.encode()))
    assert caught.value.sqlstate == "22023"


def test_settings_and_precedence() -> None:
    session = setting_hints({"pgdog.sharding_key": "5", "pgmurmur.role": "primary", "search_path": 'a, "B c", Public'})
    assert session == Hints(None, "5", "primary", ("a", "B c", "public"))
    assert Hints(shard=1).over(session) == Hints(1, None, "primary", ("a", "B c", "public"))
    assert search_path_names('"$user", public') == ("$user", "public")


def test_multi_statement_queries() -> None:
    cache = StatementCache()

    def go(sql: str) -> list[object]:
        statements, lexed = cache.lookup(sql.encode())
        return list(plan_all(statements, Values(lexed, ()), Hints(), FOUR, CATALOG))

    (single,) = go("BEGIN; UPDATE orders SET total = 1 WHERE id = 5; SELECT 1; COMMIT")
    assert isinstance(single, Plan)
    assert (len(single.shards), single.combine, single.role) == (1, Combine.ONE, Role.PRIMARY)
    several = go("UPDATE orders SET total = 1 WHERE id = 1; UPDATE orders SET total = 1 WHERE id = 3")
    assert [p.shards for p in several] == [(0,), (1,)]  # type: ignore[attr-defined]
    mixed = go("SELECT 1; SELECT * FROM orders o JOIN items i ON o.total = i.id")
    assert isinstance(mixed[1], Refusal)


def test_unparsable_text() -> None:
    fault = ClientFault("syntax error", sqlstate="42601")
    single = plan_unparsed(fault, Hints(), ONE)
    assert isinstance(single, Plan)
    hinted = plan_unparsed(fault, Hints(shard=2), FOUR)
    assert isinstance(hinted, Plan)
    assert hinted.shards == (2,)
    refused = plan_unparsed(fault, Hints(), FOUR)
    assert isinstance(refused, Refusal)
    assert refused.fault.hint is not None
    assert "pgmurmur_shard" in refused.fault.hint


def test_route_lines() -> None:
    text = "SELECT * FROM orders WHERE id = 3; SELECT id FROM orders;\nUPDATE orders SET id = 1; SELEC; SELECT 1"
    lines = [line.split("\t") for line in route_lines(text, FOUR, CATALOG)]
    assert [line[:2] for line in lines] == [
        ["1", "direct"], ["all", "pushdown"], ["error", "refused"], ["error", "refused"], ["0", "direct"]
    ]  # fmt: skip
    assert lines[0][2] == "orders: id = ? → shard 1"


def test_explain_lines() -> None:
    lines = explain_lines(outcome("SELECT * FROM orders WHERE id = 3"), FOUR)
    assert lines[0] == "pgmurmur: shards 1, road direct"
    assert all(line.startswith("pgmurmur: ") for line in lines)


def test_catalog_from_rows() -> None:
    catalog = Catalog.from_rows(
        {
            "columns": [
                ["public", "t", "r", "id", "20", "-1", "t", "f", "nextval('s')", "f", "f", "t"],
                ["public", "t", "r", "name", "25", "-1", "f", "f", "", "f", "f", "f"],
                ["other", "v", "v", "id", "20", "-1", "t", "f", "", "f", "f", "f"],
            ],
            "indexes": [["public", "t", "t", "id"], ["public", "t", "f", "id\x01name"]],
            "dependencies": [["other", "v", "public", "t"]],
            "functions": [
                ["pg_catalog", "s", "f", "f", "f", "now\x01to_char"],
                ["public", "v", "f", "t", "f", "now"],
                ["public", "i", "t", "f", "f", "agg"],
                ["public", "v", "f", "f", "f", "fast"],
            ],
            "types": [["99", "public", "mood"]],
        }
    )
    table = catalog.table(None, "t")
    assert table is not None
    assert table.primary_key == ("id",)
    assert table.unique == (("id",), ("id", "name"))
    assert catalog.is_bytewise(None, "t", "name") is False
    assert catalog.table(None, "v") is not None
    assert (catalog.volatility("now"), catalog.volatility("to_char"), catalog.volatility("x")) == ("v", "s", None)
    assert catalog.readers == {"now"}
    assert (catalog.is_aggregate("agg"), catalog.is_aggregate("now"), catalog.is_aggregate("x")) == (True, False, None)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
        "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO a VALUES (1); INSERT INTO b VALUES (2))",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1; SELECT 2 $$",
    ],
)
def test_semicolons_inside_bodies(sql: str) -> None:
    assert [s.kind for s in parse(sql + "; SELECT 1")] == [Kind.DDL, Kind.SELECT]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "(" * 5000 + "1" + ")" * 5000,
        "SELECT " + "+".join(["1"] * 5000),
        "SELECT " + "NOT " * 5000 + "true",
        "SELECT * FROM orders WHERE " + " OR ".join(["id = 5"] * 5000),
        "SELECT * FROM t WHERE " + "(SELECT " * 300 + "1" + ")" * 300,
    ],
)
def test_deep_statements_end_in_a_plan_or_a_clean_error(sql: str) -> None:
    assert isinstance(outcome(sql), (Plan, Refusal))


def test_functions_that_may_read_tables_need_a_key() -> None:
    catalog = Catalog(CATALOG.tables, {"total_of": "s"}, readers=frozenset(("total_of",)))
    for sql in ("SELECT total_of(5)", "SELECT total_of(id) FROM orders", "UPDATE countries SET name = total_of(1)"):
        refused = outcome(sql, catalog=catalog)
        assert isinstance(refused, Refusal)
        assert "total_of()" in refused.fault.message
    assert isinstance(outcome("SELECT total_of(id) FROM orders WHERE id = 5", catalog=catalog), Plan)
    assert isinstance(outcome("SELECT total_of(5)", catalog=catalog, topology=ONE), Plan)


WORDS = """select insert into orders values update set delete from where id = 5 ( ) , ; 'x' $1 and or in not null union
    join on items exists with as limit order by group * :: int -- /* */ begin copy stdin explain"""
SOUP = st.lists(st.sampled_from(WORDS.split()), max_size=12)


@settings(max_examples=150, deadline=None)
@given(SOUP)
def test_token_soup_ends_in_a_plan_or_a_declared_error(words: list[str]) -> None:
    cache = StatementCache()
    raw = " ".join(words).encode()
    try:
        statements, lexed = cache.lookup(raw)
    except ClientFault as fault:
        assert fault.sqlstate in ("42601", "54001")  # noqa: PT017
        return
    for found in plan_all(statements, Values(lexed, ()), Hints(), FOUR, CATALOG):
        assert isinstance(found, (Plan, Refusal))
