"""What a real catalogue tells of statements that may share a server: nothing that a view or a type hides is missed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from integration.exactness import Wire, read_catalog
from integration.harness import start_server

from node.embedded.server import Server
from node.embedded.workspace import Workspace
from node.routing.catalog import Catalog
from node.routing.sharing import Alone, Why, why_alone
from node.routing.statement import parse

DDL = """
CREATE TABLE orders (id bigint PRIMARY KEY, note text, kind text GENERATED ALWAYS AS (upper(note)) STORED);
CREATE TABLE parts (id bigint, at date) PARTITION BY RANGE (at);
CREATE TABLE parts_2024 PARTITION OF parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n, random() AS r FROM orders;
CREATE SEQUENCE tickets;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TYPE pair AS (a int, b int);
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE FUNCTION dice(int) RETURNS int LANGUAGE sql AS 'SELECT 4';
CREATE FUNCTION steady(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT 4';
CREATE FUNCTION label(orders) RETURNS text LANGUAGE sql AS 'SELECT $1.note';
CREATE FUNCTION unlike(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT $1 <> $2';
CREATE FUNCTION like_it(text, text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 = $2';
CREATE FUNCTION step(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1 + $2';
CREATE AGGREGATE stepwise(int) (sfunc = step, stype = int, initcond = '0');
CREATE OPERATOR <~> (leftarg = text, rightarg = text, function = unlike);
CREATE OPERATOR <=~> (leftarg = text, rightarg = text, function = like_it);
CREATE VIEW plain_view AS SELECT id, lower(note) AS note FROM orders WHERE note LIKE 'x%' OR id IN (1, 2);
CREATE VIEW above AS SELECT count(*) FROM plain_view JOIN parts USING (id);
CREATE VIEW numbering AS SELECT nextval('tickets') AS n, id FROM orders;
CREATE VIEW above_numbering AS SELECT n FROM (SELECT * FROM numbering) AS s;
CREATE VIEW dicing AS SELECT id FROM orders WHERE dice(1) = id;
CREATE VIEW dozing AS SELECT 1 AS x FROM pg_sleep(0);
CREATE VIEW operating AS SELECT id FROM orders WHERE note <~> 'x';
CREATE VIEW adding AS SELECT stepwise(id::int) FROM orders;
CREATE VIEW drawing AS SELECT id FROM orders TABLESAMPLE system (50);
CREATE VIEW locking AS SELECT id FROM orders FOR UPDATE;
CREATE VIEW mine AS SELECT id FROM orders WHERE note = current_user;
CREATE VIEW watching AS SELECT datname FROM pg_stat_activity;
CREATE VIEW asking AS SELECT current_setting('a.b', true) AS x;
CREATE VIEW last AS SELECT last_value FROM tickets;
CREATE TABLE guarded (id bigint);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON guarded USING (id = dice(1));
CREATE VIEW guarded_view AS SELECT * FROM guarded;
CREATE TABLE nothing ();
CREATE SCHEMA other;
CREATE VIEW other.parts AS SELECT random() AS id;
CREATE TABLE spread (id bigint, at date) PARTITION BY RANGE (at);
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE far PARTITION OF spread FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') SERVER elsewhere;
CREATE FUNCTION hush() RETURNS int SECURITY DEFINER STABLE LANGUAGE sql AS 'SELECT 1';
CREATE TEMPORARY TABLE passing (id bigint);
"""

SHARED = [
    "SELECT * FROM orders WHERE id = 1",
    "SELECT id, o.note, o.kind, count(*) FROM orders o WHERE note LIKE 'x' GROUP BY 1, 2, 3 ORDER BY max(id)",
    "SELECT * FROM public.parts WHERE at BETWEEN now() AND CURRENT_DATE",
    "SELECT * FROM parts_2024",
    "SELECT * FROM counted",
    "SELECT 'sad'::mood, steady(1), hush(), 1::positive, ROW(1, 2)::pair, '{sad}'::mood[], 'orders'::regclass",
    "SELECT to_jsonb(o), note || 'x', note <=~> 'y', id::text FROM orders o",
    "SELECT * FROM plain_view",
    "SELECT * FROM above",
    "SELECT unnest(ARRAY[1, 2]), generate_series(1, 2), extract(year FROM now()), '{}'::jsonb ->> 'a'",
    "VALUES (timestamptz '2024-01-01' AT TIME ZONE 'UTC', interval '1 day', date '2024-01-01')",
    "SELECT sum(id) OVER (ORDER BY id), row_number() OVER () FROM orders",
    "SELECT substring(note FROM 1 FOR 2), position('x' IN note), trim(note), chr(1) FROM orders",
]
ALONE = [
    ("SELECT * FROM parts", Why.VIEW_VOLATILE, "parts (random)"),  # of other, as some search_path would have it
    ("SELECT * FROM numbering", Why.VIEW_SESSION, "numbering (nextval)"),
    ("SELECT * FROM above_numbering", Why.VIEW_SESSION, "numbering (nextval)"),
    ("SELECT * FROM dicing", Why.VIEW_VOLATILE, "dicing (dice)"),
    ("SELECT * FROM dozing", Why.VIEW_VOLATILE, "dozing (pg_sleep)"),
    ("SELECT * FROM operating", Why.VIEW_VOLATILE, "operating (unlike)"),
    ("SELECT * FROM adding", Why.VIEW_VOLATILE, "adding (stepwise)"),
    ("SELECT * FROM drawing", Why.VIEW_VOLATILE, "drawing (system)"),
    ("SELECT * FROM locking", Why.VIEW_LOCKS, "locking"),
    ("SELECT * FROM mine", Why.VIEW_SESSION, "mine (current_user)"),
    ("SELECT * FROM watching", Why.SYSTEM, "pg_stat_activity"),
    ("SELECT * FROM asking", Why.VIEW_SESSION, "asking (current_setting)"),
    ("SELECT * FROM last", Why.VIEW, "last"),
    ("SELECT * FROM guarded", Why.ROW_SECURITY, "guarded"),
    ("SELECT * FROM guarded_view", Why.ROW_SECURITY, "guarded"),
    ("SELECT * FROM far", Why.FOREIGN, "far"),
    ("SELECT * FROM spread", Why.FOREIGN, "spread"),
    ("SELECT * FROM tickets", Why.TABLE, "tickets"),
    ("SELECT * FROM passing", Why.TABLE, "passing"),
    ("SELECT dice(1)", Why.VOLATILE, "dice()"),
    ("SELECT o.label FROM orders o", Why.VOLATILE, "label()"),
    ("SELECT stepwise(1)", Why.VOLATILE, "stepwise()"),
    ("SELECT 'a' <~> 'b'", Why.OPERATOR_VOLATILE, "<~>"),
    ("SELECT 'a' OPERATOR(other.<!!>) 'b'", Why.OPERATOR, "<!!>"),
    ("SELECT 1::missing", Why.TYPE, "missing"),
    ("SELECT missing(1)", Why.FUNCTION, "missing()"),
    ("SELECT gen_random_uuid()", Why.VOLATILE, "gen_random_uuid()"),
    ("SELECT pg_my_temp_schema()", Why.SESSION, "pg_my_temp_schema()"),
]


# Each in a database of its own: one such thing makes every statement unsafe.
HIDDEN = [
    "CREATE FUNCTION f(int) RETURNS boolean LANGUAGE sql AS 'SELECT true'; CREATE DOMAIN d AS int CHECK (f(value))",
    "CREATE DOMAIN d AS int CHECK (value < random())",
    "CREATE TYPE w AS (a int); CREATE FUNCTION f(w) RETURNS int LANGUAGE sql AS 'SELECT 1'; "
    "CREATE CAST (w AS int) WITH FUNCTION f(w) AS IMPLICIT",
]


@pytest.fixture(scope="module")
def server(workspace: Workspace) -> Iterator[Server]:
    made = start_server(workspace, "sharing", auth="trust")
    yield made
    made.stop()


def catalog_of(server: Server, name: str, ddl: str) -> Catalog:
    """As a node would read it; the same connection has made everything, temporary tables too."""
    server.create_database(name)
    wire = Wire(server.host, server.port, server.superuser, name)
    try:
        wire.query(ddl)
        return read_catalog(wire, "public")
    finally:
        wire.close()


@pytest.fixture(scope="module")
def catalog(server: Server) -> Catalog:
    return catalog_of(server, "all_kinds", DDL)


@pytest.mark.parametrize("sql", SHARED)
def test_a_plain_read_may_share(sql: str, catalog: Catalog) -> None:
    assert why_alone(parse(sql)[0], catalog) is None


@pytest.mark.parametrize(("sql", "why", "name"), ALONE)
def test_what_is_hidden_below_a_read_is_found(sql: str, why: Why, name: str, catalog: Catalog) -> None:
    assert why_alone(parse(sql)[0], catalog) == Alone(why, name)


def test_a_volatile_cast_or_domain_keeps_everything_apart(server: Server) -> None:
    for number, ddl in enumerate(HIDDEN):
        found = why_alone(parse("SELECT 1")[0], catalog_of(server, f"hidden_{number}", ddl))
        assert found is not None, ddl
        assert found.why is Why.HIDDEN


def test_a_volatile_comparison_keeps_everything_apart(server: Server) -> None:
    ddl = """CREATE TYPE w AS (a int); CREATE FUNCTION f(w, w) RETURNS boolean LANGUAGE sql AS 'SELECT true';
             CREATE OPERATOR = (leftarg = w, rightarg = w, function = f)"""
    assert why_alone(parse("SELECT 1")[0], catalog_of(server, "compared", ddl)) == Alone(Why.OPERATOR_VOLATILE, "=")


def test_the_names_of_postgresql_itself_are_known(catalog: Catalog, server: Server) -> None:
    """Read as a few long values; none may be lost on the way."""
    rows = server.sql(
        "SELECT proname, max(provolatile::text), bool_or(prokind = 'a') FROM pg_proc GROUP BY 1", "postgres"
    )
    for name, volatility, aggregate in rows:
        assert catalog.volatility(name) == volatility
        assert catalog.is_aggregate(name) is (aggregate == "t")
    assert len(rows) > 2000
