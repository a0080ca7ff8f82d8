"""Which statements may travel among those of other clients, and in which words the others are told why not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.routing.catalog import Catalog, CatalogTable
from node.routing.sharing import Alone, Why, described, why_alone
from node.routing.statement import parse

OPERATORS = dict.fromkeys(("=", "<>", "<", ">", "<=", ">=", "+", "-", "||", "~~", "->>", "@>"), "i")


def _table(name: str, schema: str = "public", **more: object) -> CatalogTable:
    return CatalogTable(schema, name, **more)  # type: ignore[arg-type]


CATALOG = Catalog(
    {
        (t.schema, t.name): t
        for t in (
            _table("orders"),
            _table("items", kind="p"),
            _table("totals", kind="m", calls=(), parents=(("public", "guarded"),)),
            _table("guarded", row_security=True),
            _table("far", kind="f", foreign=True),
            _table("partly_far", kind="p", foreign=True),
            _table("strange", calls=None),
            _table("plain_view", kind="v", calls=("int8eq", "lower"), parents=(("public", "orders"),)),
            _table("view_of_view", kind="v", parents=(("public", "plain_view"),)),
            _table("counting_view", kind="v", calls=("nextval",)),
            _table("dice_view", kind="v", calls=("roll",)),
            _table("unseen_view", kind="v", calls=("nobody_knows",)),
            _table("above_dice", kind="v", parents=(("public", "view_of_view"), ("public", "dice_view"))),
            _table("guarded_view", kind="v", parents=(("public", "guarded"),)),
            _table("far_view", kind="v", parents=(("public", "partly_far"),)),
            _table("locking_view", kind="v", locks=True, parents=(("public", "orders"),)),
            _table("activity_view", kind="v", parents=(("pg_catalog", "pg_stat_activity"),)),
            _table("lost_view", kind="v", parents=(("public", "nowhere"),)),
            _table("mine_view", kind="v", calls=("current_user",)),
            _table("twice"),
            _table("twice", "other", row_security=True),
        )
    },
    {"now": "s", "lower": "i", "count": "i", "int8eq": "i", "total_of": "s", "roll": "v", "charge_card": "v",
     "random": "v", "timezone": "i", "pg_typeof": "s", "pg_backend_pid": "s", "current_setting": "s",
     "generate_series": "i"},
    frozenset(("count",)),
    {20001: ("public", "mood")},
    operators={**OPERATORS, "<~>": "v"},
    type_names=frozenset(("int4", "int8", "text", "timestamptz", "interval", "mood")),
    notations=frozenset(("charge_card", "total_of")),
)  # fmt: skip

SHARED = [
    "SELECT 1",
    "SELECT * FROM orders WHERE id = $1",
    "SELECT * FROM public.orders o JOIN items i USING (id) WHERE o.note LIKE 'x%' AND i.n BETWEEN 1 AND 2",
    "SELECT count(*), lower(a || 'x') FROM orders GROUP BY 2 ORDER BY 1",
    "SELECT * FROM orders WHERE at > now() AND at > CURRENT_TIMESTAMP - interval '1 day'",
    "VALUES (1), (2)",
    "TABLE orders",
    "WITH o AS (SELECT * FROM orders) SELECT * FROM o WHERE id IN (SELECT id FROM items) UNION SELECT * FROM o",
    "SELECT 'sad'::mood, '1'::int, $1::bigint[]",
    "SELECT total_of(id), o.total_of FROM orders o",
    "SELECT * FROM view_of_view",
    "SELECT * FROM totals",
    "SELECT CASE id WHEN 1 THEN 'a' ELSE NULLIF('b', 'c') END FROM orders",
    "SELECT pg_typeof(1)",
    "SELECT * FROM public.twice",
    "SELECT g FROM generate_series(1, 3) AS g",
    "SELECT at AT TIME ZONE 'UTC' FROM orders",
]
ALONE = [
    ("INSERT INTO orders VALUES (1)", Why.WRITES, ""),
    ("UPDATE orders SET a = 1", Why.WRITES, ""),
    ("WITH d AS (DELETE FROM orders RETURNING *) SELECT * FROM d", Why.WRITES, ""),
    ("SELECT * INTO copied FROM orders", Why.WRITES, ""),
    ("SELECT * FROM orders FOR UPDATE", Why.LOCKS, ""),
    ("SELECT * FROM (SELECT * FROM orders FOR KEY SHARE) AS o", Why.LOCKS, ""),
    ("BEGIN", Why.NOT_SELECT, ""),
    ("SHOW search_path", Why.NOT_SELECT, ""),
    ("SET x.y = 1", Why.NOT_SELECT, ""),
    ("EXPLAIN SELECT 1", Why.NOT_SELECT, ""),
    ("CREATE TABLE t (a int)", Why.NOT_SELECT, ""),
    ("COPY orders TO STDOUT", Why.NOT_SELECT, ""),
    ("EXECUTE q", Why.NOT_SELECT, ""),
    ("DECLARE c CURSOR FOR SELECT 1", Why.CURSOR, ""),
    ("FETCH c", Why.CURSOR, ""),
    ("SELECT charge_card(id) FROM orders", Why.VOLATILE, "charge_card()"),
    ("SELECT * FROM charge_card(1)", Why.VOLATILE, "charge_card()"),
    ("SELECT * FROM orders WHERE EXISTS (SELECT charge_card(1))", Why.VOLATILE, "charge_card()"),
    ("SELECT o.charge_card FROM orders o", Why.VOLATILE, "charge_card()"),
    ("SELECT (o).charge_card FROM orders o", Why.VOLATILE, "charge_card()"),
    ("SELECT random()", Why.VOLATILE, "random()"),
    ("SELECT other_schema.roll()", Why.VOLATILE, "roll()"),
    ("SELECT nobody_knows(1)", Why.FUNCTION, "nobody_knows()"),
    ("SELECT nextval('s')", Why.SESSION, "nextval()"),
    ("SELECT currval('s')", Why.SESSION, "currval()"),
    ("SELECT pg_backend_pid()", Why.SESSION, "pg_backend_pid()"),
    ("SELECT pg_catalog.pg_sleep(1)", Why.VOLATILE, "pg_sleep()"),
    ("SELECT current_setting('a.b')", Why.SESSION, "current_setting()"),
    ("SELECT pg_advisory_xact_lock(1)", Why.SESSION, "pg_advisory_xact_lock()"),
    ("SELECT set_config('a.b', 'c', true)", Why.SESSION, "set_config()"),
    ("SELECT txid_current()", Why.SESSION, "txid_current()"),
    ("SELECT lo_get(1)", Why.SESSION, "lo_get()"),
    ("SELECT * FROM dblink('x', 'y') AS t (a int)", Why.SESSION, "dblink()"),
    ("SELECT CURRENT_USER", Why.SESSION, "CURRENT_USER or its like"),
    ("SELECT * FROM pg_stat_activity", Why.SYSTEM, "pg_stat_activity"),
    ("SELECT * FROM pg_catalog.pg_class", Why.SYSTEM, "pg_class"),
    ("SELECT * FROM information_schema.tables", Why.SYSTEM, "tables"),
    ("SELECT * FROM activity_view", Why.SYSTEM, "pg_stat_activity"),
    ("SELECT * FROM nowhere", Why.TABLE, "nowhere"),
    ("SELECT * FROM other.orders", Why.TABLE, "orders"),
    ("SELECT * FROM strange", Why.TABLE, "strange"),
    ("SELECT * FROM orders, far", Why.FOREIGN, "far"),
    ("SELECT * FROM far_view", Why.FOREIGN, "partly_far"),
    ("SELECT 1 WHERE 1 IN (SELECT id FROM guarded)", Why.ROW_SECURITY, "guarded"),
    ("SELECT * FROM guarded_view", Why.ROW_SECURITY, "guarded"),
    ("SELECT * FROM twice", Why.ROW_SECURITY, "twice"),
    ("SELECT * FROM counting_view", Why.VIEW_SESSION, "counting_view (nextval)"),
    ("SELECT * FROM mine_view", Why.VIEW_SESSION, "mine_view (current_user)"),
    ("SELECT * FROM above_dice", Why.VIEW_VOLATILE, "dice_view (roll)"),
    ("SELECT * FROM locking_view", Why.VIEW_LOCKS, "locking_view"),
    ("SELECT * FROM unseen_view", Why.VIEW, "unseen_view"),
    ("SELECT * FROM lost_view", Why.VIEW, "lost_view"),
    ("SELECT a <~> b FROM orders", Why.OPERATOR_VOLATILE, "<~>"),
    ("SELECT a OPERATOR(public.<~>) ANY (ARRAY[b]) FROM orders", Why.OPERATOR_VOLATILE, "<~>"),
    ("SELECT a <~> ALL (SELECT 1) FROM orders", Why.OPERATOR_VOLATILE, "<~>"),
    ("SELECT a FROM orders ORDER BY a USING <~>", Why.OPERATOR_VOLATILE, "<~>"),
    ("SELECT a <-> b FROM orders", Why.OPERATOR, "<->"),
    ("SELECT 'x'::own_type", Why.TYPE, "own_type"),
    ("SELECT own_type 'x'", Why.TYPE, "own_type"),
    ("SELECT * FROM json_to_record(a) AS t (b own_type)", Why.FUNCTION, "json_to_record()"),
    ("SELECT * FROM orders TABLESAMPLE bernoulli (10)", Why.SAMPLES, ""),
]


@pytest.mark.parametrize("sql", SHARED)
def test_a_plain_read_may_share(sql: str) -> None:
    assert why_alone(parse(sql)[0], CATALOG) is None


@pytest.mark.parametrize(("sql", "why", "name"), ALONE)
def test_everything_else_runs_alone_and_says_why(sql: str, why: Why, name: str) -> None:
    assert why_alone(parse(sql)[0], CATALOG) == Alone(why, name)


def test_words_for_an_operator() -> None:
    assert described(why_alone(parse("SELECT charge_card(1)")[0], CATALOG)) == (
        "alone: calls charge_card(), which is volatile"
    )
    assert described(why_alone(parse("TABLE orders")[0], CATALOG)) == "shared"


def test_nothing_shares_before_the_catalogue_was_read() -> None:
    statement = parse("SELECT 1")[0]
    assert why_alone(statement, Catalog.EMPTY) == Alone(Why.NOT_READ)
    assert why_alone(statement, CATALOG) is None  # what was remembered was for another catalogue
    assert why_alone(statement, Catalog.EMPTY) == Alone(Why.NOT_READ)


@pytest.mark.parametrize("operator", ["=", "<", ">", "<=", ">=", "<>"])
def test_a_volatile_comparison_may_be_behind_any_statement(operator: str) -> None:
    catalog = replace(CATALOG, operators={**CATALOG.operators, operator: "v"})
    assert why_alone(parse("SELECT * FROM orders ORDER BY id")[0], catalog) == Alone(Why.OPERATOR_VOLATILE, operator)


@pytest.mark.parametrize(("called", "shares"), [("roll", False), ("nextval", False), ("lower", True)])
def test_what_a_domain_or_cast_calls_counts_for_every_statement(called: str, shares: bool) -> None:
    found = why_alone(parse("SELECT * FROM orders")[0], replace(CATALOG, hidden=frozenset((called,))))
    assert found == (None if shares else Alone(Why.HIDDEN, f"{called}()"))
